"""Search spaces: operations on the edges of CNN and SeqNN cells, and choices around the cells.

A space is a value. A recipe chooses one for its CNN (``network.cnn.space``) and one for its SeqNN
(``network.seqnn.space``). Layers are named as text and loaded when a network is built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from emodarts.genotype import NONE, SKIP
from emodarts.recipe.section import load


@dataclass(frozen=True)
class Operation:
    """A candidate of an edge.

    Attributes
    ----------
    build : makes the module, or ``"module:name"`` of what does. For a CNN cell it is called with
        ``(channels, stride, affine)`` and the module maps ``(B, C, F, T)`` to
        ``(B, C, ceil(F / stride), ceil(T / stride))``; for a SeqNN cell it is called with
        ``(width,)`` and the module maps ``(B, T, H)`` to ``(B, T, H)``. None: no module, as for
        ``none``, which matters only as a share of the softmax.
    arguments : further keyword arguments of ``build``.
    around : called with the module, makes the one that stands on the edge, e.g. with a norm.
    """

    build: str | Callable[..., Any] | None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    around: str | Callable[..., Any] | None = None

    def __call__(self, *sizes: Any) -> Any:
        """Build the module."""
        if self.build is None:
            raise TypeError("this operation has no module")
        module = load(self.build)(*sizes, **self.arguments)
        return module if self.around is None else load(self.around)(module)


Operations = Mapping[str, Operation]
"""Candidates by name, in the order of the columns of alpha."""


@dataclass(frozen=True)
class Space:
    """What a search may choose.

    Attributes
    ----------
    cnn, sequence : candidates on the edges of CNN cells and of SeqNN cells.
    macro : choices of the network around the cells: JSON values of keys of section ``network`` by
        dotted name. Any combination must make a network.
    """

    cnn: Operations
    sequence: Operations
    macro: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)


def _cnn(name: str, **arguments: Any) -> Operation:
    return Operation(f"emodarts.space.cnn_ops:{name}", arguments)


def _recurrent(kind: str, layers: int, attention: bool = False) -> Operation:
    arguments = {"recurrent": kind, "layers": layers, "attention": attention}
    return Operation("emodarts.space.sequence_ops:recurrent", arguments)


#: The candidates of DARTS (arXiv 1806.09055), which both papers search.
_DARTS: Operations = {
    "max_pool_3x3": _cnn("max_pool"),
    "avg_pool_3x3": _cnn("avg_pool"),
    SKIP: _cnn("skip"),
    "sep_conv_3x3": _cnn("sep_conv", kernel=3),
    "sep_conv_5x5": _cnn("sep_conv", kernel=5),
    "dil_conv_3x3": _cnn("dil_conv", kernel=3),
    "dil_conv_5x5": _cnn("dil_conv", kernel=5),
    NONE: Operation(None),
}
_LSTM = {f"lstm_{n}": _recurrent("lstm", n) for n in (1, 2, 3, 4)}
_RNN = {f"rnn_{n}": _recurrent("rnn", n) for n in (1, 2, 3, 4)}
_LSTM_ATTENTION = {f"lstm_att_{n}": _recurrent("lstm", n, attention=True) for n in (1, 2)}
_RNN_ATTENTION = {f"rnn_att_{n}": _recurrent("rnn", n, attention=True) for n in (1, 2)}
_REST = {SKIP: Operation("emodarts.space.sequence_ops:skip"), NONE: Operation(None)}

#: Plain convolutions, which DARTS leaves out for their weights; sizes are frequency x time.
_PLAIN = {f"conv_{f}x{t}": _cnn("convolution", kernel=(f, t)) for f, t in ((3, 3), (1, 3), (3, 1))}
_EXTENDED_SEQUENCE: Operations = {
    "lstm_1": _LSTM["lstm_1"],
    "lstm_att_1": _LSTM_ATTENTION["lstm_att_1"],
    "gru_1": _recurrent("gru", 1),
    "tcn_1": Operation("emodarts.space.sequence_ops:temporal_convolutions", {"layers": 1}),
    "self_att_1": Operation("emodarts.space.sequence_ops:self_attention"),
    **_REST,
}


def _stem(channels: tuple[int, ...], halvings: int) -> dict[str, Any]:
    """A stem that divides frequency by 8 or 16 and halves time in its first blocks."""
    later = len(channels) - halvings
    return {
        "channels": list(channels),
        "frequency_strides": [2 if k < 4 else 1 for k in range(len(channels))],
        "time_strides": [2] * halvings + [1] * later,
    }


def _fixed(recurrent: str, width: int, **keys: Any) -> dict[str, Any]:
    return {"mode": "fixed", "recurrent": recurrent, "width": width, **keys}


#: For 64 bands or more; each combination has fewer than half a million parameters with the
#: default cells.
_MACRO = {
    "stem": tuple(
        _stem(channels, halvings)
        for channels in (
            (32, 64, 96),
            (16, 32, 48, 64),
            (24, 48, 64, 96),
            (16, 24, 32, 48, 64),
        )
        for halvings in (1, 2, 3)
    ),
    "stem.kernel": ([3, 3], [5, 3], [3, 5], [1, 5], [5, 1]),
    "deltas": (0, 1, 2),
    "cnn.cells": (0, 1, 3),
    "frequency": ("join", "mean"),
    "projection": (64, 96, 128),
    "seqnn": (
        *(_fixed(kind, w, bidirectional=True) for kind in ("lstm", "gru") for w in (32, 48, 64)),
        *(_fixed("tcn", w, layers=3) for w in (64, 96)),
        {"mode": "searched", "space": "extended", "cells": 1, "nodes": 2, "width": 48},
        {"mode": "none"},
    ),
    "pooling": ("attention", "mean", "statistics"),
}

#: Layers that follow each other (Wu et al., arXiv 2203.16928): plain convolutions and poolings.
_LAYERS: Operations = {
    **_PLAIN,
    "conv_5x5": _cnn("convolution", kernel=(5, 5)),
    **{name: _DARTS[name] for name in ("max_pool_3x3", "avg_pool_3x3", SKIP, NONE)},
}

#: Number, size and kind of layers (Zhang et al., INTERSPEECH 2018): 1 to 4 convolutions, and 1 to 3
#: recurrent layers.
_SIZES = {
    "cnn.cells": (0,),
    "stem": tuple(
        _stem((channels,) * layers, min(layers, 2))
        for layers in (1, 2, 3, 4)
        for channels in (16, 32, 64)
    ),
    "projection": (32, 64, 128),
    "seqnn": tuple({"mode": "fixed", "recurrent": kind} for kind in ("lstm", "gru", "rnn")),
    "seqnn.layers": (1, 2, 3),
    "seqnn.width": (32, 64, 128, 256),
    "seqnn.bidirectional": (False, True),
    "pooling": ("attention", "mean"),
}

SPACES: dict[str, Space] = {
    "all": Space(_DARTS, {**_LSTM, **_RNN, **_LSTM_ATTENTION, **_RNN_ATTENTION, **_REST}),
    "lstm": Space(_DARTS, {**_LSTM, **_REST}),
    "rnn": Space(_DARTS, {**_RNN, **_REST}),
    "lstm_att": Space(_DARTS, {**_LSTM_ATTENTION, **_REST}),
    "rnn_att": Space(_DARTS, {**_RNN_ATTENTION, **_REST}),
    "extended": Space(
        {**_PLAIN, "se_conv_3x3": _cnn("se_conv", kernel=3), **_DARTS}, _EXTENDED_SEQUENCE, _MACRO
    ),
    "layers": Space(_LAYERS, {**_LSTM_ATTENTION, **_REST}),
    "sizes": Space(_DARTS, _EXTENDED_SEQUENCE, _SIZES),
}
"""Spaces by name. The first five are those of emoDARTS (arXiv 2403.14083): all candidates of SeqNN
cells, or one family of them; their CNN cells have the same candidates. ``extended`` adds what moves
scores on small corpora: time resolution, plain convolutions, gates of channels (``se_conv_3x3``),
attention of every step to all (``self_att_1``), and what surrounds the cells.
``layers`` and ``sizes`` are those of Wu et al. and of Zhang et al., as far as they are known."""

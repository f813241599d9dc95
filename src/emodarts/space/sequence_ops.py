"""Candidate operations on the edges of SeqNN cells, and what surrounds those cells.

Every operation maps ``(B, T, H)`` to ``(B, T, H)`` and runs over *time*. A 2-D input is refused:
PyTorch would take the batch axis for time, so that utterances would see each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from emodarts.errors import ShapeError
from emodarts.space.cell import SeesPresence, run

#: Added to the variance by :class:`Normalised`.
EPSILON = 1e-5


def require_sequence(x: Tensor, who: str) -> None:
    """Raise :class:`ShapeError` unless ``x`` is ``(B, T, C)``."""
    if x.dim() != 3:
        raise ShapeError(
            f"{who} needs (batch, time, channels), 3 dimensions; got shape {tuple(x.shape)}"
        )


class TimeAttention(nn.Module):
    """One score for each step, softmax over time, weighted sum of the steps."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1)

    def forward(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        """``(B, T, C)`` -> context ``(B, C)`` of the steps that are ``present`` (B, T)."""
        require_sequence(x, "attention over time")
        scores = self.score(x)  # (B, T, 1)
        if present is not None:
            scores = scores.masked_fill(~present[:, :, None], -torch.inf)
        weights = torch.softmax(scores, dim=1)
        return (weights * x).sum(dim=1)


def masked(x: Tensor, present: Tensor | None) -> Tensor:
    """A sequence ``(B, T, C)`` with zeros at steps that are not ``present`` (B, T)."""
    return x if present is None else x * present[:, :, None]


def mean_over_time(x: Tensor, present: Tensor | None = None) -> Tensor:
    """``(B, T, C)`` -> mean ``(B, C)`` over the steps that are ``present`` (B, T)."""
    if present is None:
        return x.mean(dim=1)
    kept = present[:, :, None].to(x.dtype)
    return (x * kept).sum(dim=1) / kept.sum(dim=1)


def mean_and_deviation(x: Tensor, present: Tensor | None = None) -> Tensor:
    """``(B, T, C)`` -> mean and standard deviation over time, joined: ``(B, 2 * C)``."""
    mean = mean_over_time(x, present)
    variance = mean_over_time((x - mean[:, None]).square(), present)
    # A variance of 0 has no gradient through its root.
    return torch.cat([mean, variance.clamp(min=1e-8).sqrt()], dim=1)


class TemporalConvolutions(SeesPresence):
    """Residual convolutions over time: ``x + W * relu(norm(x))`` with dilations 1, 2, 4, ...

    The residual blocks are those of TCNs (arXiv 1803.01271), but see both directions. The norm is
    over the channels of a step, so that steps and utterances stay apart.
    """

    def __init__(self, width_in: int, width: int, layers: int) -> None:
        super().__init__()
        self.out_features = width
        self.enter = nn.Linear(width_in, width)
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(layers)])
        self.convolutions = nn.ModuleList(
            [nn.Conv1d(width, width, 3, padding=2**k, dilation=2**k) for k in range(layers)]
        )

    def forward(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        """``(B, T, width_in)`` -> ``(B, T, width)``; only steps ``present`` (B, T) count."""
        require_sequence(x, "a temporal convolution")
        x = self.enter(x)
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            seen = masked(torch.relu(norm(x)), present)
            x = x + convolution(seen.transpose(1, 2)).transpose(1, 2)
        return x


class SelfAttention(SeesPresence):
    """Scaled dot-product attention of every step to all steps (arXiv 1706.03762), of one head.

    ``U softmax(Q K^T / sqrt(H)) V``. Written out, as fused kernels have no second derivative.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter = nn.Linear(width, 3 * width)
        self.leave = nn.Linear(width, width)

    def forward(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        """``(B, T, H)`` -> ``(B, T, H)``; only steps ``present`` (B, T) count."""
        require_sequence(x, "a self-attention")
        query, key, value = self.enter(x).chunk(3, dim=-1)
        scores = query @ key.transpose(1, 2) / math.sqrt(x.shape[2])  # (B, T, T)
        if present is not None:
            scores = scores.masked_fill(~present[:, None], -torch.inf)
        out: Tensor = self.leave(torch.softmax(scores, dim=-1) @ value)
        return out


Kind = Literal["lstm", "rnn", "gru"]
_RECURRENT: dict[Kind, Callable[..., nn.RNNBase]] = {"lstm": nn.LSTM, "rnn": nn.RNN, "gru": nn.GRU}


class Recurrent(SeesPresence):
    """Stacked LSTM, tanh RNN or GRU over time, with the context of an attention joined if asked.

    With attention, the context over all steps is joined to each step and both are projected
    back to ``width``. A bidirectional network has ``width`` units in each direction.

    Raises
    ------
    ShapeError
        From ``forward`` for an input that is not ``(B, T, width_in)``.
    """

    def __init__(
        self,
        recurrent: Kind,
        width_in: int,
        width: int,
        layers: int,
        *,
        bidirectional: bool = False,
        attention: bool = False,
    ) -> None:
        super().__init__()
        self.recurrent = _RECURRENT[recurrent](
            width_in, width, layers, batch_first=True, bidirectional=bidirectional
        )
        self.out_features = width * (2 if bidirectional else 1)
        self.attention: TimeAttention | None = None
        if attention:
            self.attention = TimeAttention(self.out_features)
            self.project = nn.Linear(2 * self.out_features, width)
            self.out_features = width

    def forward(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        """``(B, T, width_in)`` -> ``(B, T, out_features)``; only steps ``present`` (B, T) count."""
        require_sequence(x, "a recurrent operation")
        steps = self._steps(x, present)  # (B, T, D)
        if self.attention is None:
            return steps
        context = self.attention(steps, present).unsqueeze(1).expand_as(steps)
        out: Tensor = self.project(torch.cat([steps, context], dim=-1))
        return out

    def _steps(self, x: Tensor, present: Tensor | None) -> Tensor:
        if present is None or not self.recurrent.bidirectional:
            steps: Tensor = self.recurrent(x)[0]
            return steps
        # The way back has to begin at the last step of each utterance, not behind it.
        lengths = present.sum(dim=1).cpu()
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        steps, _ = pad_packed_sequence(
            self.recurrent(packed)[0], batch_first=True, total_length=x.shape[1]
        )
        return steps


class SequenceSkip(nn.Module):
    """Identity on ``(B, T, H)``."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` after the check that it is a sequence."""
        require_sequence(x, "skip_connect")
        return x


class Normalised(SeesPresence):
    """An operation whose output has mean 0 and variance 1 over the features of each step.

    Layer norm (arXiv 1607.06450) without weights. Without it a skip is several times as loud as an
    untrained recurrent layer, which the alphas of a supernet take for merit.
    """

    def __init__(self, operation: nn.Module) -> None:
        super().__init__()
        self.operation = operation

    def forward(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        """``(B, T, H)`` -> ``(B, T, H)``."""
        y = run(self.operation, x, present=present)
        return functional.layer_norm(y, y.shape[-1:], eps=EPSILON)


def skip(width: int) -> nn.Module:
    """``skip_connect`` of a SeqNN cell."""
    return SequenceSkip()


def recurrent(width: int, *, recurrent: Kind, layers: int, attention: bool) -> nn.Module:
    """Stacked recurrent layers; with attention they are bidirectional."""
    return Recurrent(recurrent, width, width, layers, bidirectional=attention, attention=attention)


def temporal_convolutions(width: int, *, layers: int) -> nn.Module:
    """:class:`TemporalConvolutions` of a SeqNN cell."""
    return TemporalConvolutions(width, width, layers)


def self_attention(width: int) -> nn.Module:
    """:class:`SelfAttention` of a SeqNN cell."""
    return SelfAttention(width)

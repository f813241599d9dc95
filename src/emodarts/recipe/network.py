"""Section ``network``: depth, width and kind of the parts of a searched network."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from emodarts.errors import did_you_mean
from emodarts.recipe.section import Fraction, PositiveInt, Section
from emodarts.recipe.spaces import SPACES, Operations


def _known_space(name: str) -> str:
    if name not in SPACES:
        raise ValueError(f"{name!r}{did_you_mean(name, SPACES)}; allowed: {', '.join(SPACES)}")
    return name


SpaceName = Annotated[str, AfterValidator(_known_space)]


class CNNSpec(Section):
    """Searched CNN: cells in a row, with reduction cells at cells // 3 and 2 * cells // 3."""

    space: SpaceName = "all"
    """Search space whose CNN operations are the candidates on every edge."""
    cells: PositiveInt = 4
    """Number of cells in a row."""
    nodes: PositiveInt = 4
    """Number of intermediate nodes in every cell."""
    channels: PositiveInt = 8
    """Channels of the nodes of the first cell (C0); each reduction cell doubles them."""

    @property
    def reductions(self) -> frozenset[int]:
        """Positions of the reduction cells."""
        return frozenset({self.cells // 3, 2 * self.cells // 3})

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of cells that there are: with 1 or 2 cells none is normal."""
        found = {"reduction" if k in self.reductions else "normal" for k in range(self.cells)}
        return tuple(sorted(found))

    @property
    def operations(self) -> Operations:
        """Candidates on every edge."""
        return SPACES[self.space].cnn


class SearchedSeqNN(Section):
    """Sequence network whose cells are searched together with those of the CNN (emoDARTS)."""

    mode: Literal["searched"] = "searched"
    """The cells of the sequence network are searched."""
    space: SpaceName = "all"
    """Search space whose SeqNN operations are the candidates on every edge: those of all
    families or of one, each with ``skip_connect`` and ``none``."""
    cells: PositiveInt = 4
    """Number of cells in a row."""
    nodes: PositiveInt = 4
    """Number of intermediate nodes in every cell."""
    width: PositiveInt = 128
    """Features of every state in a cell (H)."""
    normalise: bool = True
    """Normalise the output of every candidate over its features at each step, without weights, so
    that candidates are equally loud; ``false`` as in the paper, where an untrained recurrent layer
    is a sixth as loud as a skip."""

    @property
    def operations(self) -> Operations:
        """Candidates on every edge."""
        found = SPACES[self.space].sequence
        if not self.normalise:
            return found
        around = "emodarts.space.sequence_ops:Normalised"
        return {name: replace(operation, around=around) for name, operation in found.items()}


class FixedSeqNN(Section):
    """Sequence network given by hand, as in CNN + LSTM DARTS (arXiv 2305.14402)."""

    mode: Literal["fixed"]
    """The sequence network is given here; only the CNN is searched."""
    recurrent: Literal["lstm", "rnn"] = "lstm"
    """Kind of the recurrent layers."""
    layers: PositiveInt = 1
    """Number of stacked layers."""
    width: PositiveInt = 256
    """Units of each layer, in each direction."""
    bidirectional: bool = False
    """Run over the sequence in both directions."""
    attention: bool = False
    """Join the context of a softmax over time to every step."""


class NoSeqNN(Section):
    """No sequence network: the last CNN map is pooled over time (CNN-DARTS)."""

    mode: Literal["none"]
    """There is no sequence network."""


SeqNNSpec = Annotated[SearchedSeqNN | FixedSeqNN | NoSeqNN, Field(discriminator="mode")]


def _default_mode(value: Any) -> Any:
    """Keys of a SeqNN without a mode belong to the default mode."""
    if isinstance(value, dict) and "mode" not in value:
        return {"mode": "searched", **value}
    return value


class NetworkSpec(Section):
    """Shape of the network: input -> CNN cells -> SeqNN -> pooling over time -> dense layer."""

    cnn: CNNSpec = CNNSpec()
    seqnn: Annotated[SeqNNSpec, BeforeValidator(_default_mode)] = SearchedSeqNN()
    frequency: Literal["join", "mean"] = "join"
    """How the last CNN map becomes a sequence: ``join`` puts frequency into channels, ``mean``
    averages over it."""
    pooling: Literal["attention", "mean"] = "attention"
    """How the sequence is pooled over time before the dense layer."""
    dropout: Fraction = 0.3
    """Probability of dropout after each cell."""

    @property
    def operations(self) -> dict[str, tuple[str, ...]]:
        """Names of the candidates by searched cell, in the order of the columns of alpha."""
        cnn = tuple(self.cnn.operations)
        found = dict.fromkeys(self.cnn.kinds, cnn)
        if isinstance(self.seqnn, SearchedSeqNN):
            found["sequence"] = tuple(self.seqnn.operations)
        return found

    @property
    def nodes(self) -> dict[str, int]:
        """Number of intermediate nodes by searched cell."""
        found = dict.fromkeys(self.cnn.kinds, self.cnn.nodes)
        if isinstance(self.seqnn, SearchedSeqNN):
            found["sequence"] = self.seqnn.nodes
        return found

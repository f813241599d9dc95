"""Section ``network``: depth, width and kind of the parts of a network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from emodarts.errors import GenotypeError, did_you_mean
from emodarts.recipe.section import Fraction, PositiveInt, Section
from emodarts.recipe.spaces import SPACES, Operations


def _known_space(name: str) -> str:
    if name not in SPACES:
        raise ValueError(f"{name!r}{did_you_mean(name, SPACES)}; allowed: {', '.join(SPACES)}")
    return name


SpaceName = Annotated[str, AfterValidator(_known_space)]


def _odd_sizes(kernel: tuple[int, ...]) -> tuple[int, ...]:
    if len(kernel) != 2 or not all(size % 2 for size in kernel):
        raise ValueError(f"{list(kernel)}; allowed: two odd sizes, of frequency and of time")
    return kernel


CNNCellName = Literal["normal", "reduction"]
Strides = tuple[Annotated[int, Field(ge=1, le=4)], ...]
Kernel = Annotated[tuple[PositiveInt, ...], AfterValidator(_odd_sizes)]


class StemSpec(Section):
    """Plain convolutions before the CNN cells, or in their place where ``network.cnn.cells`` is 0:
    blocks of convolution, batch norm and ReLU. ``network.stem: null`` stands for the stem of the
    papers: one convolution of 3 x 3 to ``3 * network.cnn.channels`` channels, and batch norm."""

    channels: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (16, 32, 48, 64)
    """Channels of each block."""
    frequency_strides: Strides = (2, 2, 2, 2)
    """Stride over frequency of each block; the map has ``ceil(F / stride)`` rows after it."""
    time_strides: Strides = (2, 2, 1, 1)
    """Stride over time of each block. Smaller strides keep a finer resolution of time, at more
    computation."""
    kernel: Kernel = (3, 3)
    """Size of every convolution over frequency and time, both odd."""

    @model_validator(mode="after")
    def _possible(self) -> StemSpec:
        for key in ("frequency_strides", "time_strides"):
            strides = getattr(self, key)
            if len(strides) != len(self.channels):
                raise ValueError(
                    f"{key} {list(strides)} for {len(self.channels)} blocks of channels; "
                    f"allowed: {len(self.channels)} strides"
                )
        return self


class CNNSpec(Section):
    """Searched CNN: cells in a row, with reduction cells at cells // 3 and 2 * cells // 3."""

    space: SpaceName = "all"
    """Search space whose CNN operations are the candidates on every edge. The spaces ``extended``
    and ``sizes`` also have choices of the network around the cells, which strategies without a
    supernet decide."""
    cells: Annotated[int, Field(ge=0)] = 4
    """Number of cells in a row; with 0, the stem is the CNN."""
    nodes: PositiveInt = 4
    """Number of intermediate nodes in every cell."""
    channels: PositiveInt = 8
    """Channels of the nodes of the first cell (C0); each reduction cell doubles them."""

    @property
    def reductions(self) -> frozenset[int]:
        """Positions of the reduction cells."""
        return frozenset({self.cells // 3, 2 * self.cells // 3}) if self.cells else frozenset()

    @property
    def cell_names(self) -> tuple[CNNCellName, ...]:
        """Name of the cell at each position."""
        return tuple("reduction" if k in self.reductions else "normal" for k in range(self.cells))

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
    recurrent: Literal["lstm", "rnn", "gru", "tcn"] = "lstm"
    """Kind of the layers: recurrent ones, or ``tcn``: residual convolutions over time of kernel 3,
    with a dilation that doubles from layer to layer."""
    layers: PositiveInt = 1
    """Number of stacked layers."""
    width: PositiveInt = 256
    """Units of each layer, in each direction."""
    bidirectional: bool = False
    """Run over the sequence in both directions."""
    attention: bool = False
    """Join the context of a softmax over time to every step."""

    @model_validator(mode="after")
    def _possible(self) -> FixedSeqNN:
        if self.recurrent == "tcn" and (self.bidirectional or self.attention):
            raise ValueError(
                "recurrent 'tcn' has no direction and no attention of its own; "
                "allowed: bidirectional false and attention false"
            )
        return self


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


#: In the order of alphas and genotypes.
_CNN_CELLS: tuple[CNNCellName, ...] = ("normal", "reduction")


class NetworkSpec(Section):
    """Shape of the network: input -> stem -> CNN cells -> SeqNN -> pooling over time -> dense
    layer."""

    stem: StemSpec | None = None
    """Plain convolutions before the cells, see below; ``null`` is the stem of the papers. Give
    strides here for finer frames than the cells could afford."""
    cnn: CNNSpec = CNNSpec()
    seqnn: Annotated[SeqNNSpec, BeforeValidator(_default_mode)] = SearchedSeqNN()
    deltas: Literal[0, 1, 2] = 0
    """Orders of derivatives over time that the network adds to its input as channels, as
    ``features.deltas`` does, but after normalisation, so that a search can choose them."""
    frequency: Literal["join", "mean"] = "join"
    """How the last CNN map becomes a sequence: ``join`` puts frequency into channels, ``mean``
    averages over it."""
    projection: PositiveInt | None = None
    """Units of a linear layer with ReLU and dropout between the CNN and the SeqNN, which keeps the
    SeqNN small where frequencies are joined; ``null`` leaves it out."""
    pooling: Literal["attention", "mean", "statistics"] = "attention"
    """How the sequence is pooled over time before the dense layer; ``statistics`` joins mean and
    standard deviation."""
    dropout: Fraction = 0.3
    """Probability of dropout after each cell and the projection, and before the dense layer where
    no cell precedes it."""

    @property
    def operations(self) -> dict[str, tuple[str, ...]]:
        """Names of the candidates by searched cell, in the order of the columns of alpha."""
        cnn = tuple(self.cnn.operations)
        found: dict[str, tuple[str, ...]] = {
            name: cnn for name in _CNN_CELLS if name in self.cnn.cell_names
        }
        if isinstance(self.seqnn, SearchedSeqNN):
            found["sequence"] = tuple(self.seqnn.operations)
        return found

    @property
    def nodes(self) -> dict[str, int]:
        """Number of intermediate nodes by searched cell."""
        found: dict[str, int] = {
            name: self.cnn.nodes for name in _CNN_CELLS if name in self.cnn.cell_names
        }
        if isinstance(self.seqnn, SearchedSeqNN):
            found["sequence"] = self.seqnn.nodes
        return found

    @property
    def macro(self) -> Mapping[str, tuple[Any, ...]]:
        """Keys of this section that the search space offers values for."""
        return SPACES[self.cnn.space].macro

    def with_choices(self, macro: Mapping[str, Any]) -> NetworkSpec:
        """The network with some keys changed, as a genotype asks for.

        Parameters
        ----------
        macro : JSON values by dotted name, as in :class:`emodarts.genotype.Genotype`.

        Raises
        ------
        GenotypeError
            That names key, value and what is allowed.
        """
        from emodarts.recipe.explain import explain  # which knows the classes of this module

        if not macro:
            return self
        value = self.model_dump(mode="json")
        for key in sorted(macro, key=lambda key: key.count(".")):  # a section before its keys
            *path, last = key.split(".")
            place = value
            for part in path:
                place[part] = dict(place.get(part) or {})
                place = place[part]
            place[last] = macro[key]
        try:
            return NetworkSpec.model_validate_json(json.dumps(value))
        except ValidationError as error:
            where = "macro choices of the genotype"
            raise GenotypeError(explain(NetworkSpec, error, where, value)) from error

    @property
    def stem_channels(self) -> tuple[int, ...]:
        """Channels of each convolution of the stem."""
        return (3 * self.cnn.channels,) if self.stem is None else self.stem.channels

    @property
    def stem_strides(self) -> tuple[Strides, Strides]:
        """Strides of the stem's convolutions over frequency and over time."""
        if self.stem is None:
            return (1,), (1,)
        return self.stem.frequency_strides, self.stem.time_strides

    @property
    def time_stride(self) -> int:
        """Frames of the input for a step of the sequence: a map of T has ``ceil(T / stride)``."""
        stride: int = prod(self.stem_strides[1]) * 2 ** len(self.cnn.reductions)
        return stride

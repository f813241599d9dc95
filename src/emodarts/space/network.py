"""The joint CNN + sequence network of emoDARTS, whatever sits on its edges.

Input features -> stem -> CNN cells -> sequence -> projection -> SeqNN -> pooling over time ->
dense layer; cells, projection and SeqNN may be absent.
The supernet and the discrete network are this class with other edges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import prod
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from emodarts.audio.features import delta, delta_deviation
from emodarts.errors import ShapeError
from emodarts.recipe import FixedSeqNN, NetworkSpec, SearchedSeqNN
from emodarts.recipe.network import CNNCellName
from emodarts.space.cell import Cell, Ends
from emodarts.space.cnn_ops import FactorisedReduce, ProjectMap
from emodarts.space.dropout import Dropout
from emodarts.space.sequence_ops import (
    Recurrent,
    TemporalConvolutions,
    TimeAttention,
    masked,
    mean_and_deviation,
    mean_over_time,
    require_sequence,
)


class Classes(NamedTuple):
    """What cells and a fixed SeqNN are made of; see :mod:`emodarts.fast`."""

    cnn_cell: type[Cell]
    sequence_cell: type[Cell]
    recurrent: type[Recurrent]


class EdgeBuilder(Protocol):
    """What differs between the supernet and a discrete network: the edges of the cells."""

    affine: bool
    """Whether batch norms of CNN cells have weights."""

    classes: Classes

    def cnn_edges(self, name: CNNCellName, channels: int) -> tuple[list[Ends], list[nn.Module]]:
        """Edges of a CNN cell; those from the inputs of a reduction cell have stride 2."""
        ...

    def sequence_edges(self, width: int) -> tuple[list[Ends], list[nn.Module]]:
        """Edges of a SeqNN cell."""
        ...


class JointNetwork(nn.Module):
    """A stem, CNN cells and a SeqNN in a row.

    Parameters
    ----------
    spec : depth, width and kind of the parts.
    n_features : F, size of the frequency axis of the input.
    n_classes : number of logits.
    edges : builder of the cells' edges.
    n_channels : C of the input: the features and, where asked for, their deltas.

    Raises
    ------
    ShapeError
        From ``forward`` for an input that is not ``(B, C, F, T)``.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        n_features: int,
        n_classes: int,
        edges: EdgeBuilder,
        n_channels: int = 1,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.n_features = n_features
        self.n_channels = n_channels
        self.stem = _stem(spec, n_channels * (1 + spec.deltas))
        self.dropout = Dropout(spec.dropout)
        # Without cells, the layers of a stem are faster in the layout of plain ones.
        self._layout = edges.classes.cnn_cell.layout if spec.cnn.cells else Cell.layout
        self.cnn_cell_names = spec.cnn.cell_names
        self.cnn_cells = nn.ModuleList()
        maps = self._build_cnn(edges)
        widths = [c * f if spec.frequency == "join" else c for c, f in maps]
        self.projection: nn.Sequential | None = None
        if spec.projection is not None:
            self.projection = nn.Sequential(
                nn.Linear(widths[-1], spec.projection), nn.ReLU(), self.dropout
            )
            widths = [spec.projection] * 2
        self.sequence_cells = nn.ModuleList()
        self.fixed: Recurrent | TemporalConvolutions | None = None
        width = widths[-1]
        match spec.seqnn:
            case SearchedSeqNN(cells=cells, width=hidden):
                width = self._build_seqnn(widths, cells, hidden, edges)
            case FixedSeqNN() as fixed:
                self.fixed = _fixed(fixed, width, edges.classes.recurrent)
                width = self.fixed.out_features
        self.attention = TimeAttention(width) if spec.pooling == "attention" else None
        self.classifier = nn.Linear(2 * width if spec.pooling == "statistics" else width, n_classes)

    @property
    def time_stride(self) -> int:
        """Frames of the input for a step: a map of T frames gives ``ceil(T / stride)`` steps."""
        return self.spec.time_stride

    def _build_cnn(self, edges: EdgeBuilder) -> list[tuple[int, int]]:
        """Build the CNN cells; return (channels, frequency size) of the last two maps."""
        size = -(-self.n_features // prod(self.spec.stem_strides[0]))
        maps = [(self.spec.stem_channels[-1], size)] * 2
        channels = self.spec.cnn.channels
        halved = False
        for name in self.cnn_cell_names:
            reduces = name == "reduction"
            channels *= 2 if reduces else 1
            ends, modules = edges.cnn_edges(name, channels)
            first: nn.Module = (FactorisedReduce if halved else ProjectMap)(
                maps[0][0], channels, edges.affine
            )
            second = ProjectMap(maps[1][0], channels, edges.affine)
            cell = edges.classes.cnn_cell((first, second), ends, modules, dim=1)
            self.cnn_cells.append(cell)
            size = (maps[1][1] + 1) // 2 if reduces else maps[1][1]
            maps = [maps[1], (cell.n_nodes * channels, size)]
            halved = reduces
        return maps

    def _build_seqnn(self, widths: list[int], cells: int, hidden: int, edges: EdgeBuilder) -> int:
        """Build the SeqNN cells; return the width of the last one's output."""
        for _ in range(cells):
            ends, modules = edges.sequence_edges(hidden)
            inputs = (nn.Linear(widths[0], hidden), nn.Linear(widths[1], hidden))
            cell = edges.classes.sequence_cell(inputs, ends, modules, dim=-1)
            self.sequence_cells.append(cell)
            widths = [widths[1], cell.n_nodes * hidden]
        return widths[-1]

    def forward(self, features: Tensor, weights: Mapping[str, Tensor] | None = None) -> Tensor:
        """Features ``(B, C, F, T)`` -> logits ``(B, n_classes)``.

        ``weights`` maps ``normal``, ``reduction`` and ``sequence`` to ``(E, O)`` in a supernet.
        """
        maps = self.cnn_maps(features, weights)[-2:]
        logits: Tensor = self.classify(maps, weights, self.steps_present(features))
        return logits

    def steps_present(self, features: Tensor) -> Tensor | None:
        """Which steps of the sequence are not missing: ``(B, T')``; None if none is missing."""
        present = _frames_present(features)
        return None if present is None else present[:, :: self.time_stride]

    def cnn_maps(
        self, features: Tensor, weights: Mapping[str, Tensor] | None = None
    ) -> list[Tensor]:
        """Features ``(B, C, F, T)`` -> maps ``(B, C, F', T')``: twice the stem's, every cell's.

        Frames that are missing (NaN, at the end) are zeros in every map, as what is beyond the edge
        of a map is for a convolution.
        """
        if features.dim() != 4 or features.shape[1:3] != (self.n_channels, self.n_features):
            raise ShapeError(
                f"features need shape (batch, {self.n_channels}, {self.n_features}, time); "
                f"got {tuple(features.shape)}"
            )
        # `to`, as `contiguous` leaves a map of one channel as it is.
        present = _frames_present(features)
        if self.spec.deltas:
            features = _with_deltas(features, self.spec.deltas, present)
        if present is not None:
            features = features.masked_fill(~present[:, None, None], 0.0)
        maps = [self._stem_map(features.to(memory_format=self._layout), present)] * 2
        if present is not None:
            present = present[:, :: prod(self.spec.stem_strides[1])]
        for name, cell in zip(self.cnn_cell_names, self.cnn_cells, strict=True):
            edge_weights = None if weights is None else weights[name]
            out = cell(maps[-2], maps[-1], edge_weights).to(memory_format=self._layout)
            if present is not None:
                present = present[:, ::2] if name == "reduction" else present
                out = out * present[:, None, None]
            maps.append(self.dropout(out))
        return maps

    def _stem_map(self, x: Tensor, present: Tensor | None) -> Tensor:
        if present is None:
            out: Tensor = self.stem(x)
            return out
        for layer in self.stem:
            x = layer(x)
            if isinstance(layer, nn.Conv2d):
                present = present[:, :: layer.stride[1]]
            if isinstance(layer, nn.ReLU):
                x = x * present[:, None, None]
        return x * present[:, None, None]

    def classify(
        self,
        maps: Sequence[Tensor],
        weights: Mapping[str, Tensor] | None = None,
        present: Tensor | None = None,
    ) -> Tensor:
        """The last two CNN maps, and :meth:`steps_present` -> logits ``(B, n_classes)``."""
        logits: Tensor = self.classifier(self.pooled(maps, weights, present))
        return logits

    def pooled(
        self,
        maps: Sequence[Tensor],
        weights: Mapping[str, Tensor] | None = None,
        present: Tensor | None = None,
    ) -> Tensor:
        """The same -> what the dense layer reads of each utterance ``(B, D)``."""
        x = self._to_sequence(maps[-1])
        if self.projection is not None:
            x = masked(self.projection(x), present)
        if len(self.sequence_cells):
            # A projection is of the last map: the first cell then reads it twice.
            before = x if self.projection is not None else self._to_sequence(maps[-2])
            if before.shape[1] != x.shape[1]:  # the map before a reduction cell is longer
                before = functional.avg_pool1d(
                    before.transpose(1, 2), 2, ceil_mode=True, count_include_pad=False
                ).transpose(1, 2)
            edge_weights = None if weights is None else weights["sequence"]
            for cell in self.sequence_cells:
                out = masked(cell(before, x, edge_weights, present), present)
                before, x = x, self.dropout(out)
        elif self.fixed is not None:
            x = self.fixed(x, present)
        require_sequence(x, "pooling over time")
        if self.attention is not None:
            pooled: Tensor = self.attention(x, present)
        elif self.spec.pooling == "statistics":
            pooled = mean_and_deviation(x, present)
        else:
            pooled = mean_over_time(x, present)
        if not len(self.sequence_cells) and (self.fixed is not None or not len(self.cnn_cells)):
            pooled = self.dropout(pooled)  # a cell has its own
        return pooled

    def _to_sequence(self, maps: Tensor) -> Tensor:
        """``(B, C, F, T)`` -> ``(B, T, C * F)`` or, with averaged frequency, ``(B, T, C)``."""
        x = maps.mean(dim=2) if self.spec.frequency == "mean" else maps.flatten(1, 2)
        return x.transpose(1, 2)


def _frames_present(features: Tensor) -> Tensor | None:
    """Which frames are not missing (NaN): ``(B, T)``; None if all are there."""
    if torch.compiler.is_exporting():  # an exported graph cannot branch on values
        return ~torch.isnan(features[:, 0, 0])
    if features.is_meta or not torch.isnan(features[:, 0, 0, -1]).any():
        return None
    return ~torch.isnan(features[:, 0, 0])


def _with_deltas(features: Tensor, orders: int, present: Tensor | None) -> Tensor:
    """``(B, C, F, T)`` -> ``(B, (1 + orders) C, F, T)``, scaled so that those of white noise have
    deviation 1 as it has.

    As of each utterance cut to its frames: the last one is repeated beyond the end.
    """
    still = features
    if present is not None:
        last = present.sum(dim=1, keepdim=True) - 1
        place = torch.minimum(torch.arange(features.shape[3], device=features.device), last)
        still = features.gather(3, place[:, None, None].expand(features.shape))
    slopes = [delta(still, order) / delta_deviation(order) for order in range(1, orders + 1)]
    return torch.cat([features, *slopes], dim=1)


def _fixed(
    spec: FixedSeqNN, width_in: int, recurrent: type[Recurrent]
) -> Recurrent | TemporalConvolutions:
    if spec.recurrent == "tcn":
        return TemporalConvolutions(width_in, spec.width, spec.layers)
    return recurrent(
        spec.recurrent,
        width_in,
        spec.width,
        spec.layers,
        bidirectional=spec.bidirectional,
        attention=spec.attention,
    )


def _stem(spec: NetworkSpec, n_channels: int) -> nn.Sequential:
    """``(B, C, F, T)`` -> ``(B, C', ceil(F / stride), ceil(T / stride))``."""
    height, width = (3, 3) if spec.stem is None else spec.stem.kernel
    padding = (height // 2, width // 2)
    layers: list[nn.Module] = []
    channels = pairwise((n_channels, *spec.stem_channels))
    strides = zip(*spec.stem_strides, strict=True)
    for (before, after), stride in zip(channels, strides, strict=True):
        layers += [
            nn.Conv2d(before, after, (height, width), stride, padding, bias=False),
            nn.BatchNorm2d(after),
        ]
        if spec.stem is not None:
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)

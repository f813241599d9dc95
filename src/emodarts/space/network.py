"""The joint CNN + sequence network of emoDARTS, whatever sits on its edges.

Input features -> stem -> CNN cells -> sequence -> SeqNN -> pooling over time -> dense layer.
The supernet and the discrete network are this class with other edges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from torch import Tensor, nn
from torch.nn import functional

from emodarts.errors import ShapeError
from emodarts.recipe import FixedSeqNN, NetworkSpec, SearchedSeqNN
from emodarts.space.cell import Cell, Ends
from emodarts.space.cnn_ops import FactorisedReduce, ProjectMap
from emodarts.space.dropout import Dropout
from emodarts.space.sequence_ops import Recurrent, TimeAttention, require_sequence

CNNCellName = Literal["normal", "reduction"]


class EdgeBuilder(Protocol):
    """What differs between the supernet and a discrete network: the edges of the cells."""

    affine: bool
    """Whether batch norms of CNN cells have weights."""

    cnn_cell: type[Cell]
    """What CNN cells are made of."""

    sequence_cell: type[Cell]
    """What SeqNN cells are made of."""

    def cnn_edges(self, name: CNNCellName, channels: int) -> tuple[list[Ends], list[nn.Module]]:
        """Edges of a CNN cell; those from the inputs of a reduction cell have stride 2."""
        ...

    def sequence_edges(self, width: int) -> tuple[list[Ends], list[nn.Module]]:
        """Edges of a SeqNN cell."""
        ...


class JointNetwork(nn.Module):
    """CNN cells and a SeqNN in a row.

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
        stem_channels = 3 * spec.cnn.channels
        self.stem = nn.Sequential(
            nn.Conv2d(n_channels, stem_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(stem_channels),
        )
        self.dropout = Dropout(spec.dropout)
        self._layout = edges.cnn_cell.layout
        self.cnn_cell_names: list[CNNCellName] = []
        self.cnn_cells = nn.ModuleList()
        maps = self._build_cnn(stem_channels, edges)
        widths = [c * f if spec.frequency == "join" else c for c, f in maps]
        self.sequence_cells = nn.ModuleList()
        self.fixed: Recurrent | None = None
        width = widths[-1]
        match spec.seqnn:
            case SearchedSeqNN(cells=cells, width=hidden):
                width = self._build_seqnn(widths, cells, hidden, edges)
            case FixedSeqNN() as fixed:
                self.fixed = Recurrent(
                    fixed.recurrent,
                    width,
                    fixed.width,
                    fixed.layers,
                    bidirectional=fixed.bidirectional,
                    attention=fixed.attention,
                )
                width = self.fixed.out_features
        self.attention = TimeAttention(width) if spec.pooling == "attention" else None
        self.classifier = nn.Linear(width, n_classes)

    def _build_cnn(self, stem_channels: int, edges: EdgeBuilder) -> list[tuple[int, int]]:
        """Build the CNN cells; return (channels, frequency size) of the last two maps."""
        cnn = self.spec.cnn
        maps = [(stem_channels, self.n_features)] * 2
        channels = cnn.channels
        halved = False
        for index in range(cnn.cells):
            reduces = index in cnn.reductions
            channels *= 2 if reduces else 1
            name: CNNCellName = "reduction" if reduces else "normal"
            ends, modules = edges.cnn_edges(name, channels)
            first: nn.Module = (FactorisedReduce if halved else ProjectMap)(
                maps[0][0], channels, edges.affine
            )
            second = ProjectMap(maps[1][0], channels, edges.affine)
            self.cnn_cell_names.append(name)
            cell = edges.cnn_cell((first, second), ends, modules, dim=1)
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
            cell = edges.sequence_cell(inputs, ends, modules, dim=-1)
            self.sequence_cells.append(cell)
            widths = [widths[1], cell.n_nodes * hidden]
        return widths[-1]

    def forward(self, features: Tensor, weights: Mapping[str, Tensor] | None = None) -> Tensor:
        """Features ``(B, C, F, T)`` -> logits ``(B, n_classes)``.

        ``weights`` maps ``normal``, ``reduction`` and ``sequence`` to ``(E, O)`` in a supernet.
        """
        logits: Tensor = self.classify(self.cnn_maps(features, weights)[-2:], weights)
        return logits

    def cnn_maps(
        self, features: Tensor, weights: Mapping[str, Tensor] | None = None
    ) -> list[Tensor]:
        """Features ``(B, C, F, T)`` -> maps ``(B, C, F', T')``: twice the stem's, every cell's."""
        if features.dim() != 4 or features.shape[1:3] != (self.n_channels, self.n_features):
            raise ShapeError(
                f"features need shape (batch, {self.n_channels}, {self.n_features}, time); "
                f"got {tuple(features.shape)}"
            )
        # `to`, as `contiguous` leaves a map of one channel as it is.
        maps = [self.stem(features.to(memory_format=self._layout))] * 2
        for name, cell in zip(self.cnn_cell_names, self.cnn_cells, strict=True):
            edge_weights = None if weights is None else weights[name]
            out = cell(maps[-2], maps[-1], edge_weights).to(memory_format=self._layout)
            maps.append(self.dropout(out))
        return maps

    def classify(
        self, maps: Sequence[Tensor], weights: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """The last two CNN maps -> logits ``(B, n_classes)``."""
        x = self._to_sequence(maps[-1])
        if len(self.sequence_cells):
            before = self._to_sequence(maps[-2])
            if before.shape[1] != x.shape[1]:  # the map before a reduction cell is longer
                before = functional.avg_pool1d(
                    before.transpose(1, 2), 2, ceil_mode=True, count_include_pad=False
                ).transpose(1, 2)
            edge_weights = None if weights is None else weights["sequence"]
            for cell in self.sequence_cells:
                before, x = x, self.dropout(cell(before, x, edge_weights))
        elif self.fixed is not None:
            x = self.dropout(self.fixed(x))
        require_sequence(x, "pooling over time")
        pooled = x.mean(dim=1) if self.attention is None else self.attention(x)
        logits: Tensor = self.classifier(pooled)
        return logits

    def _to_sequence(self, maps: Tensor) -> Tensor:
        """``(B, C, F, T)`` -> ``(B, T, C * F)`` or, with averaged frequency, ``(B, T, C)``."""
        x = maps.mean(dim=2) if self.spec.frequency == "mean" else maps.flatten(1, 2)
        return x.transpose(1, 2)

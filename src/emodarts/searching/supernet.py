"""The supernet: every candidate on every edge, mixed by architecture parameters alpha."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from emodarts.fast import Implementation, classes_of
from emodarts.genotype import NONE
from emodarts.recipe import NetworkSpec, SearchedSeqNN
from emodarts.recipe.network import CNNCellName
from emodarts.recipe.search import Precision
from emodarts.recipe.spaces import Operations
from emodarts.runtime import at_least_single, autocast
from emodarts.searching.mixing import Mixing, softmax
from emodarts.space.cell import Ends, MixedOperation, edges
from emodarts.space.network import JointNetwork


class EdgeBuilder(Protocol):
    """Builds the module of an edge."""

    def __call__(self, cell: str, row: int, candidates: Operations, *sizes: Any) -> nn.Module:
        """Make a module that is called with a state and the edge's row of the weights, ``(O,)``.

        Parameters
        ----------
        cell : ``normal``, ``reduction`` or ``sequence``.
        row : of the edge in the alpha of the cell.
        candidates : operations by name.
        sizes : what the operations are built with: ``(channels, stride, affine)`` for a CNN cell,
            ``(width,)`` for a SeqNN cell.
        """
        ...


def mixed_edge(cell: str, row: int, candidates: Operations, *sizes: Any) -> MixedOperation:
    """All candidates, each multiplied by its weight."""
    operations = [build(*sizes) for name, build in candidates.items() if name != NONE]
    return MixedOperation(tuple(candidates), operations)


class _SupernetEdges:
    affine = False  # a batch norm that can rescale would confuse the weight of its operation

    def __init__(
        self, spec: NetworkSpec, edge: EdgeBuilder, implementation: Implementation
    ) -> None:
        self.spec, self.edge = spec, edge
        # The others know the edges of DARTS alone.
        self.classes = classes_of(implementation if edge is mixed_edge else "plain")

    def cnn_edges(self, name: CNNCellName, channels: int) -> tuple[list[Ends], list[nn.Module]]:
        cnn, ends = self.spec.cnn, edges(self.spec.cnn.nodes)
        modules = []
        for row, (source, _) in enumerate(ends):
            stride = 2 if name == "reduction" and source < 2 else 1
            modules.append(self.edge(name, row, cnn.operations, channels, stride, self.affine))
        return ends, modules

    def sequence_edges(self, width: int) -> tuple[list[Ends], list[nn.Module]]:
        seqnn = self.spec.seqnn
        if not isinstance(seqnn, SearchedSeqNN):
            raise TypeError(f"no SeqNN cells are searched in mode {seqnn.mode!r}")
        ends = edges(seqnn.nodes)
        rows = range(len(ends))
        return ends, [self.edge("sequence", row, seqnn.operations, width) for row in rows]


class Supernet(nn.Module):
    """Joint network of mixed operations.

    Parameters
    ----------
    spec : depth, width and kind of the parts.
    n_features : F, size of the frequency axis of the input.
    n_classes : number of logits.
    initial_sd : standard deviation of the normal distribution that alphas start from.
    n_channels : C of the input.
    implementation : of the cells, as in :mod:`emodarts.fast`; weights are the same. Cells with
        other edges than :func:`mixed_edge` are plain.
    precision : of maps in a forward pass, as in ``ComputeSpec``; compiled cells have ``fp32`` only.
    edge : builds the module of every edge.

    Attributes
    ----------
    alphas : architecture parameters by name; those of a cell, ``(E, O)``, have its name.
    mixing : makes the weights of a forward pass from the alphas; a search may set it.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        n_features: int,
        n_classes: int,
        initial_sd: float = 1e-3,
        n_channels: int = 1,
        *,
        implementation: Implementation = "plain",
        precision: Precision = "fp32",
        edge: EdgeBuilder = mixed_edge,
    ) -> None:
        super().__init__()
        self.precision = precision
        self.mixing: Mixing = softmax
        built = _SupernetEdges(spec, edge, implementation)
        self.network = JointNetwork(spec, n_features, n_classes, built, n_channels)
        shapes = alpha_shapes(spec)
        self.alphas = nn.ParameterDict(
            {name: initial_sd * torch.randn(shape) for name, shape in shapes.items()}
        )

    def forward(self, features: Tensor) -> Tensor:
        """Features ``(B, C, F, T)`` -> logits ``(B, n_classes)``."""
        with autocast(self.precision, features.device):
            logits: Tensor = self.network(features, self.edge_weights())
        return at_least_single(logits)

    def edge_weights(self) -> dict[str, Tensor]:
        """Weights of the candidates, ``(E, O)`` by cell name."""
        return self.mixing(self.alpha_parameters())

    def weight_parameters(self) -> dict[str, nn.Parameter]:
        """All parameters but the alphas, by name."""
        return {f"network.{k}": p for k, p in self.network.named_parameters()}

    def alpha_parameters(self) -> dict[str, nn.Parameter]:
        """Architecture parameters by name."""
        return dict(self.alphas.named_parameters())


def alpha_shapes(spec: NetworkSpec) -> dict[str, tuple[int, int]]:
    """Edges x candidates of each searched cell; rows as in :func:`emodarts.space.cell.edges`."""
    return {
        name: (len(edges(nodes)), len(spec.operations[name])) for name, nodes in spec.nodes.items()
    }

"""The supernet: every candidate on every edge, mixed by architecture parameters alpha."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from emodarts.fast import Implementation, cell_classes
from emodarts.recipe import NetworkSpec, SearchedSeqNN
from emodarts.runtime import Precision, at_least_single, autocast
from emodarts.space.cell import Ends, MixedOperation, edges
from emodarts.space.cnn_ops import CNN_BUILDERS
from emodarts.space.genotype import CNN_OPERATIONS, NONE
from emodarts.space.joint import CNNCellName, JointNetwork
from emodarts.space.sequence_ops import build_sequence_operation


class _MixedEdges:
    affine = False  # a batch norm that can rescale would confuse the weight of its operation

    def __init__(self, spec: NetworkSpec, implementation: Implementation) -> None:
        self.spec = spec
        self.cnn_cell, self.sequence_cell = cell_classes(implementation)

    def cnn_edges(self, name: CNNCellName, channels: int) -> tuple[list[Ends], list[nn.Module]]:
        ends = edges(self.spec.cnn.nodes)
        modules: list[nn.Module] = []
        for source, _ in ends:
            stride = 2 if name == "reduction" and source < 2 else 1
            operations = [
                CNN_BUILDERS[o](channels, stride, self.affine) for o in CNN_OPERATIONS if o != NONE
            ]
            modules.append(MixedOperation(CNN_OPERATIONS, operations))
        return ends, modules

    def sequence_edges(self, width: int) -> tuple[list[Ends], list[nn.Module]]:
        seqnn = self.spec.seqnn
        if not isinstance(seqnn, SearchedSeqNN):
            raise TypeError(f"no SeqNN cells are searched in mode {seqnn.mode!r}")
        names = [o for o in seqnn.operations if o != NONE]
        ends = edges(seqnn.nodes)
        return ends, [
            MixedOperation(seqnn.operations, [build_sequence_operation(o, width) for o in names])
            for _ in ends
        ]


class Supernet(nn.Module):
    """Joint network of mixed operations.

    Parameters
    ----------
    spec : depth, width and kind of the parts.
    n_features : F, size of the frequency axis of the input.
    n_classes : number of logits.
    initial_sd : standard deviation of the normal distribution that alphas start from.
    n_channels : C of the input.
    implementation : of the cells, as in :mod:`emodarts.fast`; weights are the same.
    precision : of maps in a forward pass, as in ``ComputeSpec``; compiled cells have ``fp32`` only.
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
    ) -> None:
        super().__init__()
        self.precision = precision
        mixed = _MixedEdges(spec, implementation)
        self.network = JointNetwork(spec, n_features, n_classes, mixed, n_channels)
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
        """Softmax of each alpha over the candidates, ``(E, O)`` by cell name."""
        return {name: torch.softmax(alpha, dim=-1) for name, alpha in self.alphas.items()}

    def weight_parameters(self) -> dict[str, nn.Parameter]:
        """All parameters but the alphas, by name."""
        return {f"network.{k}": p for k, p in self.network.named_parameters()}

    def alpha_parameters(self) -> dict[str, nn.Parameter]:
        """Architecture parameters by cell name."""
        return dict(self.alphas.named_parameters())


def alpha_shapes(spec: NetworkSpec) -> dict[str, tuple[int, int]]:
    """Edges x candidates of each searched cell; rows as in ``space.cell.edges``."""
    cnn = (len(edges(spec.cnn.nodes)), len(CNN_OPERATIONS))
    shapes = {"normal": cnn, "reduction": cnn}
    if isinstance(spec.seqnn, SearchedSeqNN):
        shapes["sequence"] = (len(edges(spec.seqnn.nodes)), len(spec.seqnn.operations))
    return shapes

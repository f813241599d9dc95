"""The supernet: every candidate on every edge, mixed by architecture parameters alpha."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from emodarts.genotype import NONE
from emodarts.recipe import NetworkSpec, SearchedSeqNN
from emodarts.runtime import Fast, Precision, at_least_single, autocast, resolve_fast
from emodarts.searching.fast import FastCell
from emodarts.searching.fast_sequence import CompiledSequenceCell, FastSequenceCell
from emodarts.space.cell import Cell, MixedOperation, Sources, all_sources, n_edges
from emodarts.space.compiled import CompiledCell
from emodarts.space.network import CNNCellName, JointNetwork


class _MixedEdges:
    affine = False  # a batch norm that can rescale would confuse the weight of its operation

    def __init__(self, spec: NetworkSpec, fast: Literal[False, "eager", "compiled"]) -> None:
        self.spec = spec
        self.cnn_cell = {False: Cell, "eager": FastCell, "compiled": CompiledCell}[fast]
        self.sequence_cell = {
            False: Cell,
            "eager": FastSequenceCell,
            "compiled": CompiledSequenceCell,
        }[fast]

    def cnn_edges(self, name: CNNCellName, channels: int) -> tuple[Sources, list[nn.Module]]:
        sources = all_sources(self.spec.cnn.nodes)
        edges: list[nn.Module] = []
        for node in sources:
            for source in node:
                stride = 2 if name == "reduction" and source < 2 else 1
                candidates = self.spec.cnn.operations
                operations = [
                    build(channels, stride, self.affine)
                    for o, build in candidates.items()
                    if o != NONE
                ]
                edges.append(MixedOperation(tuple(candidates), operations))
        return sources, edges

    def sequence_edges(self, width: int) -> tuple[Sources, list[nn.Module]]:
        seqnn = self.spec.seqnn
        if not isinstance(seqnn, SearchedSeqNN):
            raise TypeError(f"no SeqNN cells are searched in mode {seqnn.mode!r}")
        sources = all_sources(seqnn.nodes)
        edges: list[nn.Module] = [
            MixedOperation(
                tuple(seqnn.operations),
                [build(width) for o, build in seqnn.operations.items() if o != NONE],
            )
            for _ in range(n_edges(seqnn.nodes))
        ]
        return sources, edges


class Supernet(nn.Module):
    """Joint network of mixed operations.

    Parameters
    ----------
    spec : depth, width and kind of the parts.
    n_features : F, size of the frequency axis of the input.
    n_classes : number of logits.
    initial_sd : standard deviation of the normal distribution that alphas start from.
    n_channels : C of the input.
    fast : how cells are computed, as in ``ComputeSpec``; weights are the same. Compiled ones stay
        on a CPU.
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
        fast: Fast = True,
        precision: Precision = "fp32",
    ) -> None:
        super().__init__()
        self.precision = precision
        edges = _MixedEdges(spec, resolve_fast(fast, torch.device("cpu"), precision))
        self.network = JointNetwork(spec, n_features, n_classes, edges, n_channels)
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
    """Edges x candidates of each searched cell; rows as in ``all_sources``."""
    return {
        name: (n_edges(nodes), len(spec.operations[name])) for name, nodes in spec.nodes.items()
    }

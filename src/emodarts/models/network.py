"""The discrete network that a genotype describes, at any depth and channel count."""

from __future__ import annotations

from torch import Tensor, nn

from emodarts.errors import GenotypeError
from emodarts.fast import Implementation, cell_classes
from emodarts.recipe import NetworkSpec, SearchedSeqNN
from emodarts.space.cell import DropPath, Ends, genotype_edges
from emodarts.space.cnn_ops import CNN_BUILDERS
from emodarts.space.genotype import Genotype
from emodarts.space.joint import CNNCellName, JointNetwork
from emodarts.space.sequence_ops import SequenceSkip, build_sequence_operation

_AUXILIARY_CHANNELS = 128


class AuxiliaryHead(nn.Sequential):
    """Extra classifier on a CNN map, for training only (DARTS, appendix A.1.2).

    One 1x1 convolution and a mean over the map stand for DARTS' fixed-size pooling, so that
    maps of any size fit.
    """

    def __init__(self, channels: int, n_classes: int) -> None:
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(channels, _AUXILIARY_CHANNELS, 1, bias=False),
            nn.BatchNorm2d(_AUXILIARY_CHANNELS),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(_AUXILIARY_CHANNELS, n_classes),
        )


class _GenotypeEdges:
    affine = True

    def __init__(self, genotype: Genotype, implementation: Implementation) -> None:
        self.genotype = genotype
        self.cnn_cell, self.sequence_cell = cell_classes(implementation)

    def cnn_edges(self, name: CNNCellName, channels: int) -> tuple[list[Ends], list[nn.Module]]:
        cell = self.genotype.cells[name]
        modules = []
        for node in cell:
            for edge in node:
                stride = 2 if name == "reduction" and edge.source < 2 else 1
                modules.append(CNN_BUILDERS[edge.operation](channels, stride, self.affine))
        return genotype_edges(cell), _with_drop_path(modules)

    def sequence_edges(self, width: int) -> tuple[list[Ends], list[nn.Module]]:
        if self.genotype.sequence is None:
            raise GenotypeError("the network has SeqNN cells but the genotype has no sequence cell")
        cell = self.genotype.sequence
        modules = [build_sequence_operation(e.operation, width) for node in cell for e in node]
        return genotype_edges(cell), _with_drop_path(modules)


def _with_drop_path(modules: list[nn.Module]) -> list[nn.Module]:
    identity = (nn.Identity, SequenceSkip)
    return [m if isinstance(m, identity) else DropPath(m) for m in modules]


class SearchedNetwork(JointNetwork):
    """Network of a genotype.

    Parameters
    ----------
    genotype : its cells; ``spec`` gives how many of each and how wide.
    spec : depth, width and kind of the parts. Numbers of nodes come from the genotype.
    n_features : F, size of the frequency axis of the input.
    n_classes : number of logits.
    n_channels : C of the input.
    auxiliary : build the extra classifier that training uses; it is no part of the model.
    implementation : of the cells, as in :mod:`emodarts.fast`; weights are the same.

    Raises
    ------
    GenotypeError
        If the SeqNN is searched and the genotype has no sequence cell, or the reverse.
    """

    def __init__(
        self,
        genotype: Genotype,
        spec: NetworkSpec,
        n_features: int,
        n_classes: int,
        *,
        n_channels: int = 1,
        auxiliary: bool = False,
        implementation: Implementation = "plain",
    ) -> None:
        if genotype.sequence is not None and not isinstance(spec.seqnn, SearchedSeqNN):
            raise GenotypeError(
                f"the genotype has a sequence cell but network.seqnn.mode is {spec.seqnn.mode!r}; "
                "legal: 'searched'"
            )
        edges = _GenotypeEdges(genotype, implementation)
        super().__init__(spec, n_features, n_classes, edges, n_channels)
        self.genotype = genotype
        self.auxiliary: AuxiliaryHead | None = None
        self._auxiliary_cell = 2 * spec.cnn.cells // 3
        if auxiliary:
            position = sum(r <= self._auxiliary_cell for r in spec.cnn.reductions)
            channels = len(genotype.normal) * spec.cnn.channels * 2**position
            self.auxiliary = AuxiliaryHead(channels, n_classes)

    def forward_with_auxiliary(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features ``(B, C, F, T)`` -> logits and auxiliary logits, both ``(B, n_classes)``."""
        maps = self.cnn_maps(features)
        extra = None
        if self.auxiliary is not None:
            extra = self.auxiliary(maps[2 + self._auxiliary_cell])
        return self.classify(maps[-2:]), extra

    def set_drop_path(self, probability: float) -> None:
        """Set the probability of every :class:`DropPath`."""
        for module in self.modules():
            if isinstance(module, DropPath):
                module.probability = probability

    def model_state(self) -> dict[str, Tensor]:
        """Parameters and buffers of the model, without the auxiliary head."""
        return {k: v for k, v in self.state_dict().items() if not k.startswith("auxiliary.")}

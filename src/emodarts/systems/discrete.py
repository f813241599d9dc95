"""The discrete network that a genotype describes, at any depth and channel count."""

from __future__ import annotations

from torch import Tensor, nn

from emodarts.errors import GenotypeError
from emodarts.fast import Implementation, cell_classes
from emodarts.genotype import Genotype
from emodarts.recipe import NetworkSpec, SearchedSeqNN
from emodarts.space.cell import DropPath, Ends, genotype_edges
from emodarts.space.network import CNNCellName, JointNetwork
from emodarts.space.sequence_ops import Normalised, SequenceSkip
from emodarts.systems.folding import fold
from emodarts.training.classifier import Classifier

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

    def __init__(
        self, genotype: Genotype, spec: NetworkSpec, implementation: Implementation
    ) -> None:
        self.genotype, self.spec = genotype, spec
        self.cnn_cell, self.sequence_cell = cell_classes(implementation)

    def cnn_edges(self, name: CNNCellName, channels: int) -> tuple[list[Ends], list[nn.Module]]:
        cell = self.genotype.cells.get(name)
        if cell is None:
            raise GenotypeError(f"the network has {name} cells but the genotype has no {name} cell")
        modules = []
        for node in cell:
            for edge in node:
                stride = 2 if name == "reduction" and edge.source < 2 else 1
                build = self.spec.cnn.operations[edge.operation]
                modules.append(build(channels, stride, self.affine))
        return genotype_edges(cell), _with_drop_path(modules)

    def sequence_edges(self, width: int) -> tuple[list[Ends], list[nn.Module]]:
        cell, seqnn = self.genotype.sequence, self.spec.seqnn
        if cell is None or not isinstance(seqnn, SearchedSeqNN):
            raise GenotypeError("the network has SeqNN cells but the genotype has no sequence cell")
        modules = [seqnn.operations[e.operation](width) for node in cell for e in node]
        return genotype_edges(cell), _with_drop_path(modules)


def _with_drop_path(modules: list[nn.Module]) -> list[nn.Module]:
    def is_skip(module: nn.Module) -> bool:
        inner = module.operation if isinstance(module, Normalised) else module
        return isinstance(inner, nn.Identity | SequenceSkip)

    return [m if is_skip(m) else DropPath(m) for m in modules]


class DiscreteNetwork(JointNetwork, Classifier):
    """Network of a genotype.

    Parameters
    ----------
    genotype : its cells; ``spec`` gives how many of each and how wide.
    spec : depth, width and kind of the parts. Numbers of nodes come from the genotype.
    n_features : F, size of the frequency axis of the input.
    n_classes : number of logits.
    n_channels : C of the input.
    drop_path : probability of dropping an edge for an utterance in training, which rises linearly
        over the epochs.
    auxiliary_weight : of the loss of an extra classifier that training uses; it is no part of the
        model, and 0 builds none.
    implementation : of the cells, as in :mod:`emodarts.fast`; weights are the same.

    Raises
    ------
    GenotypeError
        If the network has cells of a kind that the genotype lacks, or the genotype has a sequence
        cell and the SeqNN is not searched.
    """

    def __init__(
        self,
        genotype: Genotype,
        spec: NetworkSpec,
        n_features: int,
        n_classes: int,
        *,
        n_channels: int = 1,
        drop_path: float = 0.0,
        auxiliary_weight: float = 0.0,
        implementation: Implementation = "plain",
    ) -> None:
        if genotype.sequence is not None and not isinstance(spec.seqnn, SearchedSeqNN):
            raise GenotypeError(
                f"the genotype has a sequence cell but network.seqnn.mode is {spec.seqnn.mode!r}; "
                "allowed: 'searched'"
            )
        genotype.require(spec.operations)
        edges = _GenotypeEdges(genotype, spec, implementation)
        super().__init__(spec, n_features, n_classes, edges, n_channels)
        self.genotype = genotype
        self.drop_path = drop_path
        self.auxiliary_weight = auxiliary_weight
        self.auxiliary: AuxiliaryHead | None = None
        self._auxiliary_cell = 2 * spec.cnn.cells // 3
        if auxiliary_weight > 0:
            position = sum(r <= self._auxiliary_cell for r in spec.cnn.reductions)
            reduction = genotype.cells["reduction"]  # its output is what the head reads
            channels = len(reduction) * spec.cnn.channels * 2**position
            self.auxiliary = AuxiliaryHead(channels, n_classes)

    def forward_with_auxiliary(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features ``(B, C, F, T)`` -> logits and auxiliary logits, both ``(B, n_classes)``."""
        maps = self.cnn_maps(features)
        extra = None
        if self.auxiliary is not None:
            extra = self.auxiliary(maps[2 + self._auxiliary_cell])
        return self.classify(maps[-2:]), extra

    def begin_epoch(self, share: float) -> None:
        """Drop edges more often, the more of the epochs is done."""
        for module in self.modules():
            if isinstance(module, DropPath):
                module.probability = self.drop_path * share

    def model_state(self) -> dict[str, Tensor]:
        """Parameters and buffers of the model, without the auxiliary head."""
        return {k: v for k, v in self.state_dict().items() if not k.startswith("auxiliary.")}

    def for_inference(self) -> nn.Module:
        """The network with its batch norms folded into its convolutions."""
        return fold(self)

"""The discrete network that a genotype describes, at any depth and channel count."""

from __future__ import annotations

from torch import Tensor, nn

from emodarts.fast import Implementation, classes_of
from emodarts.genotype import Genotype
from emodarts.recipe import NetworkSpec, SearchedSeqNN
from emodarts.recipe.network import CNNCellName
from emodarts.space.cell import DropPath, Ends, genotype_edges
from emodarts.space.network import JointNetwork
from emodarts.space.sequence_ops import Normalised, SequenceSkip
from emodarts.systems.folding import fold
from emodarts.training.classifier import Classifier, Head

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
        self.classes = classes_of(implementation)

    def cnn_edges(self, name: CNNCellName, channels: int) -> tuple[list[Ends], list[nn.Module]]:
        cell = self.genotype.cells[name]
        modules = []
        for node in cell:
            for edge in node:
                stride = 2 if name == "reduction" and edge.source < 2 else 1
                build = self.spec.cnn.operations[edge.operation]
                modules.append(build(channels, stride, self.affine))
        return genotype_edges(cell), _with_drop_path(modules)

    def sequence_edges(self, width: int) -> tuple[list[Ends], list[nn.Module]]:
        cell, seqnn = self.genotype.cells["sequence"], self.spec.seqnn
        if not isinstance(seqnn, SearchedSeqNN):
            raise TypeError(f"no SeqNN cells are built in mode {seqnn.mode!r}")
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
    genotype : its cells, and its choices of keys of ``spec``.
    spec : depth, width and kind of the parts. Numbers of nodes come from the genotype.
    n_features : F, size of the frequency axis of the input.
    n_classes : number of logits.
    n_channels : C of the input.
    drop_path : probability of dropping an edge for an utterance in training, which rises linearly
        over the epochs.
    auxiliary_weight : of the loss of an extra classifier that training uses; it is no part of the
        model. 0 builds none, and a network without CNN cells has none.
    gender_weight : of the loss of a dense layer beside the classifier that learns the speaker's
        gender, and is no part of the model. 0 builds none.
    implementation : of the cells, as in :mod:`emodarts.fast`; weights are the same.

    Raises
    ------
    GenotypeError
        If the genotype lacks a cell that the network has, or has one that it lacks.
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
        gender_weight: float = 0.0,
        implementation: Implementation = "plain",
    ) -> None:
        spec = spec.with_choices(genotype.macro)
        genotype.require(spec.operations)
        edges = _GenotypeEdges(genotype, spec, implementation)
        super().__init__(spec, n_features, n_classes, edges, n_channels)
        self.genotype = genotype
        self.drop_path = drop_path
        self.auxiliary_weight = auxiliary_weight
        self.auxiliary: AuxiliaryHead | None = None
        self._auxiliary_cell = 2 * spec.cnn.cells // 3
        if auxiliary_weight > 0 and genotype.reduction is not None:
            position = sum(r <= self._auxiliary_cell for r in spec.cnn.reductions)
            channels = len(genotype.reduction) * spec.cnn.channels * 2**position
            self.auxiliary = AuxiliaryHead(channels, n_classes)
        self.gender_weight = gender_weight
        self.gender: nn.Linear | None = None
        if gender_weight > 0:  # last, so that all else starts from the weights it has without
            self.gender = nn.Linear(self.classifier.in_features, 2)

    def forward_with_auxiliary(self, features: Tensor) -> tuple[Tensor, list[Head]]:
        """Features ``(B, C, F, T)`` -> logits ``(B, n_classes)`` and those of extra classifiers."""
        maps = self.cnn_maps(features)
        heads = []
        if self.auxiliary is not None:
            logits = self.auxiliary(maps[2 + self._auxiliary_cell])
            heads.append(Head(logits, self.auxiliary_weight))
        pooled = self.pooled(maps[-2:], present=self.steps_present(features))
        if self.gender is not None:
            heads.append(Head(self.gender(pooled), self.gender_weight, "gender"))
        return self.classifier(pooled), heads

    def begin_epoch(self, share: float) -> None:
        """Drop edges more often, the more of the epochs is done."""
        for module in self.modules():
            if isinstance(module, DropPath):
                module.probability = self.drop_path * share

    def model_state(self) -> dict[str, Tensor]:
        """Parameters and buffers of the model, without what only training uses."""
        extra = "auxiliary.", "gender."
        return {k: v for k, v in self.state_dict().items() if not k.startswith(extra)}

    def for_inference(self) -> nn.Module:
        """The network with its batch norms folded into its convolutions."""
        return fold(self)

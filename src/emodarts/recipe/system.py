"""Section ``system``: what a recipe trains and tests. Every system has keys of its own.

A system is a class of keys and a line of :data:`SYSTEMS` here, and a file in ``systems/``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from emodarts.recipe.features import FeatureSpec
from emodarts.recipe.section import (
    Fraction,
    Kind,
    KindSection,
    NonNegative,
    Positive,
    PositiveInt,
)


class SystemSpec(KindSection):
    """What is trained and tested."""

    default_kind: ClassVar[str] = "searched"
    sections: ClassVar[frozenset[str]] = frozenset()
    """Sections of a recipe that the system uses beside those that all use; others are refused."""

    any_length: ClassVar[bool] = True
    """Whether the system takes maps of any number of frames."""

    kind: str = "searched"
    """Which of the systems below is trained and tested."""

    @classmethod
    def kinds(cls) -> Mapping[str, Kind[SystemSpec]]:
        return SYSTEMS

    def inputs(self, features: FeatureSpec) -> dict[str, FeatureSpec]:
        """Feature maps that the system takes, by name; by default that of section ``features``."""
        return {"features": features}


class SearchedSpec(SystemSpec):
    """A network whose cells are found by a search (section ``search``) in the space of section
    ``network``. These keys let the trained network differ from the searched one."""

    sections: ClassVar[frozenset[str]] = frozenset({"network", "search", "training"})

    kind: Literal["searched"] = "searched"
    cells: PositiveInt | None = None
    """CNN cells of the trained network; by default as many as were searched."""
    channels: PositiveInt | None = None
    """Channels of the first cell of the trained network; by default as searched."""
    seqnn_cells: PositiveInt | None = None
    """SeqNN cells of the trained network; by default as many as were searched."""
    drop_path: Fraction = 0.2
    """Probability of dropping an edge for an utterance in training, which rises linearly over the
    epochs."""
    auxiliary_weight: NonNegative = 0.4
    """Weight of the loss of an extra classifier at 2/3 of the CNN, which only training uses; 0
    leaves it out."""


class HandMadeCNNSpec(SystemSpec):
    """The hand-engineered CNN that the papers compare with (arXiv 2305.14402): a 2 x 2 convolution,
    max pooling and two dense layers; 35,017 parameters for an input of 128 x 128 and four
    classes."""

    sections: ClassVar[frozenset[str]] = frozenset({"training"})
    any_length: ClassVar[bool] = False

    kind: Literal["cnn"] = "cnn"
    hidden: PositiveInt = 32
    """Units of the first dense layer."""
    dropout: Fraction = 0.3
    """Probability of dropout between the dense layers."""


class HandMadeRecurrentSpec(SystemSpec):
    """The hand-engineered recurrent networks that the papers compare with (arXiv 2305.14402,
    2403.14083): recurrent layers over the feature frames, or over the map of the convolution and
    the pooling of system ``cnn``, and two dense layers."""

    sections: ClassVar[frozenset[str]] = frozenset({"training"})

    kind: Literal["recurrent"] = "recurrent"
    convolution: bool = False
    """Begin with the 2 x 2 convolution and the max pooling of system ``cnn``."""
    recurrent: Literal["lstm", "rnn"] = "lstm"
    """Kind of the recurrent layers."""
    layers: PositiveInt = 1
    """Number of stacked layers."""
    width: PositiveInt = 512
    """Units of each layer, in each direction."""
    bidirectional: bool = False
    """Run over the frames in both directions."""
    attention: bool = False
    """Pool over time by an attention; by default by the mean."""
    hidden: PositiveInt = 32
    """Units of the first dense layer."""
    dropout: Fraction = 0.3
    """Probability of dropout between the dense layers."""


class SVMSpec(SystemSpec):
    """Linear support vector machine on the mean of each feature over time, standardised; with
    ``features.kind: functionals`` the classical baseline of the field."""

    kind: Literal["svm"] = "svm"
    cost: Positive = 0.01
    """Penalty of margin violations (C). Lower it for many features, such as the 6,373 of
    ComParE."""


class LogisticRegressionSpec(SystemSpec):
    """Logistic regression on mean features, standardised, with balanced classes."""

    kind: Literal["logistic_regression"] = "logistic_regression"


class MajoritySpec(SystemSpec):
    """Always the most frequent class of the training data."""

    kind: Literal["majority"] = "majority"


class ChanceSpec(SystemSpec):
    """Classes drawn uniformly at random."""

    kind: Literal["chance"] = "chance"


SYSTEMS: dict[str, Kind[SystemSpec]] = {
    "searched": Kind(SearchedSpec, "emodarts.systems.searched:Searched"),
    "cnn": Kind(HandMadeCNNSpec, "emodarts.systems.hand_made:HandMadeCNN"),
    "recurrent": Kind(HandMadeRecurrentSpec, "emodarts.systems.hand_made:HandMadeRecurrent"),
    "svm": Kind(SVMSpec, "emodarts.systems.classical:LinearSVM"),
    "logistic_regression": Kind(
        LogisticRegressionSpec, "emodarts.systems.classical:LogisticRegression"
    ),
    "majority": Kind(MajoritySpec, "emodarts.systems.trivial:Majority"),
    "chance": Kind(ChanceSpec, "emodarts.systems.trivial:Chance"),
}
"""Systems by kind. An implementation is made with its keys and is a
:class:`emodarts.systems.system.System`."""

BASELINES = ("majority", "logistic_regression")
"""Systems whose scores stand below every result, fitted in every fold."""

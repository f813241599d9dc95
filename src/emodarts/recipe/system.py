"""Section ``system``: what a recipe trains and tests. Every system has keys of its own.

A system is a class of keys and a line of :data:`SYSTEMS` here, and a file in ``systems/``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from emodarts.recipe.features import EmbeddingSpec, FeatureSpec, WaveformSpec
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
    """Whether the system can be trained on stretches that are shorter than its maps."""

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
    gender_weight: NonNegative = 0.0
    """Weight of the loss of a dense layer beside the classifier that learns the speaker's gender,
    which only training uses; 0 leaves it out. Utterances of unknown gender train emotion alone."""


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


class LightSERNetSpec(SystemSpec):
    """Light-SERNet (arXiv 2110.03435): three parallel convolutions over frequency, time and both,
    five local feature blocks, and a dense layer; 460,740 parameters with four classes."""

    sections: ClassVar[frozenset[str]] = frozenset({"training"})

    kind: Literal["light_sernet"] = "light_sernet"
    dropout: Fraction = 0.3
    """Probability of dropout before the dense layer."""


class ResLSTMSASpec(SystemSpec):
    """ResLSTM-SA (arXiv 2606.03359): an LSTM of the width of its input, which is added to its
    output, then an LSTM with attention over time; 46,772 parameters with 46 features and eight
    classes."""

    sections: ClassVar[frozenset[str]] = frozenset({"training"})

    kind: Literal["reslstm_sa"] = "reslstm_sa"
    hidden: PositiveInt = 64
    """Units of the second LSTM; the first has one for each feature."""
    dropout: Fraction = 0.3
    """Probability of dropout before the dense layer."""


class TIMNetSpec(SystemSpec):
    """TIM-Net (arXiv 2211.08233): blocks of dilated causal convolutions over time, forwards and
    backwards, each of which gates its input; a learned sum over blocks answers."""

    sections: ClassVar[frozenset[str]] = frozenset({"training"})

    kind: Literal["tim_net"] = "tim_net"
    filters: PositiveInt = 39
    """Channels of every convolution."""
    blocks: Annotated[int, Field(ge=1, le=16)] = 8
    """Blocks in each direction; the dilation doubles from block to block, so that frames twice as
    far apart meet."""
    dropout: Fraction = 0.1
    """Probability of dropping a channel after each convolution."""


class FrozenEncoderSpec(SystemSpec):
    """A dense layer on the mean over time of a pretrained encoder's hidden states, whose layers are
    mixed by a learned softmax (as in SUPERB, arXiv 2105.01051). The encoder itself is not trained:
    it is ``features`` of kind ``embedding`` with ``layer: all``."""

    sections: ClassVar[frozenset[str]] = frozenset({"training"})

    kind: Literal["frozen_encoder"] = "frozen_encoder"
    dropout: Fraction = 0.1
    """Probability of dropout before the dense layer."""

    def inputs(self, features: FeatureSpec) -> dict[str, FeatureSpec]:
        if not isinstance(features, EmbeddingSpec) or features.layer != "all":
            raise ValueError(
                f"system {self.kind!r} mixes the layers of an encoder, and features are of kind "
                f"{features.kind!r}; allowed: features of kind 'embedding' with layer: all"
            )
        return super().inputs(features)


class EmotionNASSpec(SystemSpec):
    """EmotionNAS (arXiv 2203.13617): a CNN on ``features`` and an RNN on another feature. Each has
    a search of its own (section ``search``): for the CNN cells of section ``network``, and for its
    SeqNN cells. Then both are trained together, and an information supplement module adds to the
    vector of each a gated share of the other's."""

    sections: ClassVar[frozenset[str]] = frozenset({"network", "search", "training"})

    kind: Literal["emotionnas"] = "emotionnas"
    rnn_features: FeatureSpec | None = None
    """Features of the RNN, with as many frames as those of the CNN; by default the waveform, cut
    into that many frames. Embeddings of a pretrained model stand for the paper's deep features."""
    width: PositiveInt = 64
    """Units to which the supplement module brings the vector of each stream."""
    dropout: Fraction = 0.3
    """Probability of dropout before the dense layer."""
    drop_path: Fraction = 0.2
    """Probability of dropping an edge for an utterance in training, which rises linearly over the
    epochs."""
    auxiliary_weight: NonNegative = 0.4
    """Weight of the loss of an extra classifier at 2/3 of the CNN, which only training uses; 0
    leaves it out."""

    def inputs(self, features: FeatureSpec) -> dict[str, FeatureSpec]:
        shared = ("duration", "length", "padding", "trim", "deltas")
        if self.rnn_features is None:
            keys = {key: getattr(features, key) for key in ("sample_rate", "level", *shared)}
            frame_length = features.n_samples // features.n_frames
            return {"cnn": features, "rnn": WaveformSpec(frame_length=frame_length, **keys)}
        for key in (*shared, "n_frames"):
            wanted, found = getattr(features, key), getattr(self.rnn_features, key)
            # The kinds count an incomplete last frame differently.
            if abs(wanted - found) > 1 if key == "n_frames" else wanted != found:
                raise ValueError(
                    f"system.rnn_features: {key} {found!r}; allowed: {wanted!r}, as in features"
                )
        return {"cnn": features, "rnn": self.rnn_features}


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
    "light_sernet": Kind(LightSERNetSpec, "emodarts.systems.light_sernet:LightSERNetSystem"),
    "reslstm_sa": Kind(ResLSTMSASpec, "emodarts.systems.reslstm_sa:ResLSTMSASystem"),
    "tim_net": Kind(TIMNetSpec, "emodarts.systems.tim_net:TIMNetSystem"),
    "frozen_encoder": Kind(FrozenEncoderSpec, "emodarts.systems.frozen_encoder:FrozenEncoder"),
    "emotionnas": Kind(EmotionNASSpec, "emodarts.systems.emotionnas:EmotionNAS"),
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

"""Section ``training``: how a network is trained once its cells are known."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from emodarts.recipe.section import Fraction, NonNegative, Positive, PositiveInt, Section


class MaskSpec(Section):
    """SpecAugment-style masks on training features (arXiv 1904.08779), filled with the mean."""

    frequency_masks: Annotated[int, Field(ge=0)] = 0
    """Number of masks over frequency in every utterance."""
    frequency_width: Annotated[int, Field(ge=0)] = 16
    """Width of the largest mask, in coefficients or bands."""
    time_masks: Annotated[int, Field(ge=0)] = 0
    """Number of masks over time in every utterance."""
    time_width: Annotated[int, Field(ge=0)] = 16
    """Width of the largest mask, in frames after pooling."""


def _two_ends(span: tuple[float, ...]) -> tuple[float, ...]:
    if len(span) != 2 or span[0] > span[1]:
        raise ValueError(f"{list(span)}; allowed: two numbers, the lower first")
    return span


Factors = Annotated[tuple[Annotated[float, Field(ge=0.5, le=2.0)], ...], AfterValidator(_two_ends)]
Semitones = Annotated[
    tuple[Annotated[float, Field(ge=-12.0, le=12.0)], ...], AfterValidator(_two_ends)
]
Decibels = Annotated[
    tuple[Annotated[float, Field(ge=-60.0, le=60.0)], ...], AfterValidator(_two_ends)
]


class AugmentationSpec(Section):
    """Augmented copies of the audio of training utterances. In every epoch, one of the
    1 + ``copies`` versions of an utterance is drawn. Values are uniform between two ends; a
    transform that is ``null`` is left out. Transforms are applied in the order below."""

    copies: Annotated[int, Field(ge=0, le=100)] = 0
    """Number of augmented copies of each training utterance, beside the original. Their features
    are stored on disk."""
    probability: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Probability of each transform in each copy."""
    speed: Factors | None = None
    """Factor by which tempo and pitch change together, e.g. ``[0.9, 1.1]``."""
    pitch: Semitones | None = None
    """Pitch shift in semitones at the same tempo, e.g. ``[-2, 2]``; needs the extra ``augment``."""
    vtlp: Factors | None = None
    """Vocal tract length perturbation as of Etienne et al. (arXiv 1802.05630): factor of the
    frequency axis, e.g. ``[0.9, 1.1]``."""
    noise: Decibels | None = None
    """White noise at this signal-to-noise ratio in dB, e.g. ``[10, 30]``."""
    gain: Decibels | None = None
    """Change of level in dB, e.g. ``[-6, 6]``."""

    @model_validator(mode="after")
    def _possible(self) -> AugmentationSpec:
        spans = (self.speed, self.pitch, self.vtlp, self.noise, self.gain)
        enabled = any(span is not None for span in spans)
        if self.copies and not enabled:
            raise ValueError(
                f"copies {self.copies} without a transform would equal the original; "
                f"give speed, pitch, vtlp, noise or gain"
            )
        if enabled and not self.copies:
            raise ValueError("copies 0 uses no transform; allowed: copies of at least 1")
        return self


class PerturbationSpec(Section):
    """Changes of the feature maps of training utterances, drawn for each utterance in every epoch.
    Factors are log-uniform between two ends; a change that is ``null`` is left out."""

    speed: Factors | None = None
    """Factor by which tempo and all frequencies change together, e.g. ``[0.85, 1.15]``. Needs
    features with a frequency axis: ``log_mel`` or ``stft``."""
    stretch: Factors | None = None
    """Factor by which the tempo changes at the same pitch, e.g. ``[0.8, 1.25]``."""
    vtlp: Factors | None = None
    """Factor of the frequency axis at the same tempo, e.g. ``[0.9, 1.1]``: another length of the
    vocal tract. Needs features with a frequency axis."""
    equaliser: NonNegative = 0.0
    """Deviation of a random smooth curve over frequency that is added to each map, as another
    microphone or room would: in standard deviations of a band, e.g. 0.3; 0 switches it off. Needs
    features with a frequency axis."""
    mix_statistics: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Probability of averaging the mean and deviation of each band over time with those of another
    utterance of the batch (MixStyle, arXiv 2104.02008), e.g. 0.5."""


class TrainingSpec(Section):
    """How a network is trained."""

    epochs: PositiveInt = 600
    """Passes over the training utterances."""
    max_steps: PositiveInt | None = None
    """Most steps of a network: of a large corpus, fewer whole epochs are trained, at least one."""
    batch_size: Annotated[int, Field(ge=2)] = 96
    """Largest number of utterances in a batch; batches have nearly equal sizes."""
    optimiser: Literal["sgd", "adamw"] = "sgd"
    """SGD with momentum, or AdamW, which usually needs fewer epochs."""
    learning_rate: Positive = 0.025
    """Highest learning rate of the schedule."""
    momentum: Fraction = 0.9
    """Momentum of SGD; the first beta of AdamW."""
    weight_decay: NonNegative = 3e-4
    """Weight decay: added to the gradient by SGD, decoupled in AdamW."""
    gradient_clip: Positive = 5.0
    """Largest norm of the gradient over all weights; a longer gradient is scaled down to it."""
    schedule: Literal["cosine", "one_cycle", "constant"] = "cosine"
    """Schedule of the learning rate over all steps."""
    class_weights: bool = True
    """Weight classes by the inverse of their frequency among training utterances."""
    label_smoothing: Fraction = 0.0
    """Share of each target that is spread over all classes."""
    crop: Positive | None = None
    """Seconds of the stretch of each utterance that an epoch trains on, drawn anew every time.
    Answers are for whole utterances. By default all of ``features.duration``. Shorter crops train
    faster and on more varied material."""
    perturbation: PerturbationSpec = PerturbationSpec()
    masks: MaskSpec = MaskSpec()
    augmentation: AugmentationSpec = AugmentationSpec()
    mixup: NonNegative = 0.0
    """alpha of mixup (arXiv 1710.09412): two utterances of a batch and their targets are averaged
    with weights from Beta(alpha, alpha); 0 switches it off."""
    oversample: bool = False
    """Repeat utterances of smaller classes until all classes have the size of the largest, drawn
    anew in every epoch; cannot be combined with ``class_weights``, which would correct twice."""
    select: Literal["last", "ua", "loss"] = "last"
    """Which epoch gives the weights. ``last``: the last one, and in protocol ``full`` all
    development utterances train, but for a validation part that the split itself has. ``ua`` and
    ``loss``: the best on inner validation utterances, which are left out of training; with fewer
    than a few hundred of them the choice is chance."""
    ensemble: Annotated[int, Field(ge=1, le=20)] = 1
    """Number of networks that are trained from different seeds and answer together, by the mean of
    their log-probabilities. They make one model, of as many times the parameters."""
    test_speeds: Annotated[
        tuple[Annotated[float, Field(ge=0.5, le=2.0)], ...], Field(min_length=1, max_length=9)
    ] = (1.0,)
    """Speeds at which networks get what they classify (test-time augmentation): the answer is the
    mean of their log-probabilities, e.g. ``[0.9, 1.0, 1.1]``, in as many times the arithmetic. As
    ``perturbation.speed``, it needs features with a frequency axis."""
    calibration_folds: Annotated[int, Field(ge=0, le=20)] = 0
    """Where nothing is left out for validation: number of groups of development speakers that are
    left out in turn, to fit the temperature of the probabilities on the answers to them. 3 makes
    training take three times as long; 0 leaves probabilities as they are."""
    optimistic: bool = False
    """After the choice, also report what the best epoch on the test fold would have scored; keeps
    the weights of every epoch on disk until then."""

    def epochs_of(self, steps: int) -> int:
        """Number of epochs where each has ``steps``."""
        if self.max_steps is None:
            return self.epochs
        return min(self.epochs, max(1, self.max_steps // steps))

    @model_validator(mode="after")
    def _possible(self) -> TrainingSpec:
        if self.oversample and self.class_weights:
            raise ValueError(
                "oversample and class_weights both correct for the size of classes; "
                "allowed with oversample: class_weights false"
            )
        if self.calibration_folds == 1:
            raise ValueError("calibration_folds 1 leaves nothing to train on; allowed: 0, 2, ...")
        if self.calibration_folds and self.select != "last":
            raise ValueError(
                f"calibration_folds does nothing with select {self.select!r}, whose validation "
                "utterances fit the temperature; allowed: select last"
            )
        if self.ensemble > 1 and self.optimistic:
            raise ValueError(
                f"optimistic scores are of one network, and ensemble {self.ensemble} trains more; "
                "allowed: ensemble 1, or optimistic false"
            )
        return self

"""The recipe: everything that decides what a run computes, as one frozen, checked value.

A recipe is YAML. Every key has a default, a type and a range; an unknown key, a wrong type
or an impossible value raises :class:`RecipeError` that names the key and what is legal.
Defaults are the settings of emoDARTS (arXiv 2403.14083) where that paper gives them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    model_validator,
)

from emodarts import files
from emodarts.audio.specs import FEATURES, MfccSpec, Positive, PositiveInt
from emodarts.audio.specs import FeatureSpec as FeatureSpec
from emodarts.errors import RecipeError, did_you_mean
from emodarts.space.genotype import SEQUENCE_SPACES, SequenceSpace

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
NonNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class CNNSpec(_Section):
    """Searched CNN: cells in a row, reduction cells at cells // 3 and 2 * cells // 3."""

    cells: PositiveInt = 4
    """Cells in a row."""
    nodes: PositiveInt = 4
    """Intermediate nodes in every cell."""
    channels: PositiveInt = 8
    """C0: channels of the first cell's nodes; doubled by each reduction cell."""

    @property
    def reductions(self) -> frozenset[int]:
        """Positions of the reduction cells."""
        return frozenset({self.cells // 3, 2 * self.cells // 3})


class SearchedSeqNN(_Section):
    """Sequence network whose cells are searched together with the CNN's (emoDARTS)."""

    mode: Literal["searched"] = "searched"
    """Its cells are searched."""
    space: SequenceSpace = "all"
    """Candidates on every edge, by family; each keeps ``skip_connect`` and ``none``."""
    cells: PositiveInt = 4
    """Cells in a row."""
    nodes: PositiveInt = 4
    """Intermediate nodes in every cell."""
    width: PositiveInt = 128
    """H: features of every state in a cell."""

    @property
    def operations(self) -> tuple[str, ...]:
        """Candidates on every edge."""
        return SEQUENCE_SPACES[self.space]


class FixedSeqNN(_Section):
    """Sequence network given by hand, as in CNN + LSTM DARTS (arXiv 2305.14402)."""

    mode: Literal["fixed"]
    """It is given here; only the CNN is searched."""
    recurrent: Literal["lstm", "rnn"] = "lstm"
    """Kind of its layers."""
    layers: PositiveInt = 1
    """Stacked layers."""
    width: PositiveInt = 256
    """Units of each layer (of each direction)."""
    bidirectional: bool = False
    """Read the sequence in both directions."""
    attention: bool = False
    """Join to every step the context of a softmax over time."""


class NoSeqNN(_Section):
    """No sequence network: the CNN's last map is pooled over time (CNN-DARTS)."""

    mode: Literal["none"]
    """There is none."""


SeqNNSpec = Annotated[SearchedSeqNN | FixedSeqNN | NoSeqNN, Field(discriminator="mode")]


def _default_mode(value: Any) -> Any:
    """Keys of a SeqNN without a mode belong to the default mode."""
    if isinstance(value, dict) and "mode" not in value:
        return {"mode": "searched", **value}
    return value


class NetworkSpec(_Section):
    """Shape of the network: input -> CNN cells -> SeqNN -> pooling over time -> dense layer."""

    cnn: CNNSpec = CNNSpec()
    seqnn: Annotated[SeqNNSpec, BeforeValidator(_default_mode)] = SearchedSeqNN()
    frequency: Literal["join", "mean"] = "join"
    """How the last CNN map becomes a sequence: join frequency into channels, or average it."""
    pooling: Literal["attention", "mean"] = "attention"
    """Over time, before the dense layer."""
    dropout: Fraction = 0.3
    """After each cell."""


class WeightOptimiser(_Section):
    """SGD for the supernet's weights, cosine from ``learning_rate`` to its minimum."""

    learning_rate: Positive = 0.025
    """Of the first epoch."""
    learning_rate_min: NonNegative = 0.001
    """What the cosine ends at; at most ``learning_rate``."""
    momentum: Fraction = 0.9
    """Of SGD."""
    weight_decay: NonNegative = 3e-4
    """L2 penalty, added to the gradient."""
    gradient_clip: Positive = 5.0
    """Largest norm of the gradient over all weights."""

    @model_validator(mode="after")
    def _possible(self) -> WeightOptimiser:
        if self.learning_rate_min > self.learning_rate:
            raise ValueError(
                f"learning_rate_min {self.learning_rate_min} exceeds "
                f"learning_rate {self.learning_rate}"
            )
        return self


class AlphaOptimiser(_Section):
    """Adam for the architecture parameters."""

    learning_rate: Positive = 3e-4
    """Constant over the search."""
    beta1: Fraction = 0.5
    """Decay of Adam's mean of gradients."""
    beta2: Fraction = 0.999
    """Decay of Adam's mean of squared gradients."""
    weight_decay: NonNegative = 1e-3
    """L2 penalty, added to the gradient."""
    initial_sd: NonNegative = 1e-3
    """Standard deviation of the normal distribution that alphas start from."""


class SearchSpec(_Section):
    """How the genotype is found."""

    strategy: Literal["darts", "random"] = "darts"
    """``random`` draws a genotype uniformly: the control that a search must beat."""
    order: Literal[1, 2] = 2
    """Of the DARTS gradient of alpha."""
    hessian: Literal["exact", "finite_difference"] = "finite_difference"
    """Second-order term by DARTS' difference quotient, or by double backward: two to four times
    the time and several times the memory (``docs/method.md``)."""
    epsilon: Positive = 0.3
    """Of the difference quotient, over the norm of the gradient. DARTS uses 0.01, which on a
    network with ReLU and max pooling is an order of magnitude less accurate."""
    epochs: PositiveInt = 300
    """Passes over the data that trains weights."""
    warmup_epochs: Annotated[int, Field(ge=0)] = 0
    """First epochs in which only weights train."""
    batch_size: Annotated[int, Field(ge=2)] = 16
    """Utterances in a batch, at most; batches are of nearly equal size."""
    weights: WeightOptimiser = WeightOptimiser()
    alphas: AlphaOptimiser = AlphaOptimiser()
    genotype_epoch: Literal["last", "best"] = "last"
    """``best``: the epoch of the highest UA on the alpha data."""

    @model_validator(mode="after")
    def _possible(self) -> SearchSpec:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs {self.warmup_epochs} leaves none of {self.epochs} epochs for alphas"
            )
        return self


class MaskSpec(_Section):
    """SpecAugment-style masks on training features (arXiv 1904.08779), filled with the mean."""

    frequency_masks: Annotated[int, Field(ge=0)] = 0
    """Masks over frequency in every utterance."""
    frequency_width: Annotated[int, Field(ge=0)] = 16
    """Largest mask, in coefficients or bands."""
    time_masks: Annotated[int, Field(ge=0)] = 0
    """Masks over time in every utterance."""
    time_width: Annotated[int, Field(ge=0)] = 16
    """Largest mask, in frames after pooling."""


def _two_ends(span: tuple[float, ...]) -> tuple[float, ...]:
    if len(span) != 2 or span[0] > span[1]:
        raise ValueError(f"{list(span)}; legal: two numbers, the lower first")
    return span


Factors = Annotated[tuple[Annotated[float, Field(ge=0.5, le=2.0)], ...], AfterValidator(_two_ends)]
Semitones = Annotated[
    tuple[Annotated[float, Field(ge=-12.0, le=12.0)], ...], AfterValidator(_two_ends)
]
Decibels = Annotated[
    tuple[Annotated[float, Field(ge=-60.0, le=60.0)], ...], AfterValidator(_two_ends)
]


class AugmentationSpec(_Section):
    """Altered copies of the sound of training utterances. In every epoch an utterance is heard
    in one of its 1 + ``copies`` versions, drawn anew. Values are uniform between two ends; what
    is ``null`` is left out. Transforms follow each other in the order below."""

    copies: Annotated[int, Field(ge=0, le=100)] = 0
    """Of each training utterance, beside the original; their features are kept on disk."""
    probability: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Of each transform, in each copy."""
    speed: Factors | None = None
    """Factor of tempo and pitch together, e.g. ``[0.9, 1.1]``."""
    pitch: Semitones | None = None
    """Semitones at the same tempo, e.g. ``[-2, 2]``; needs the extra ``augment``."""
    vtlp: Factors | None = None
    """Vocal tract length perturbation, as of Etienne et al. (arXiv 1802.05630): factor of the
    frequency axis, e.g. ``[0.9, 1.1]``."""
    noise: Decibels | None = None
    """White noise at this ratio of signal to noise in dB, e.g. ``[10, 30]``."""
    gain: Decibels | None = None
    """dB, e.g. ``[-6, 6]``."""

    @model_validator(mode="after")
    def _possible(self) -> AugmentationSpec:
        spans = (self.speed, self.pitch, self.vtlp, self.noise, self.gain)
        enabled = any(span is not None for span in spans)
        if self.copies and not enabled:
            raise ValueError(
                f"copies {self.copies} without a transform would be the original; "
                f"give speed, pitch, vtlp, noise or gain"
            )
        if enabled and not self.copies:
            raise ValueError("copies 0 makes no use of a transform; legal: copies of at least 1")
        return self


class TrainingSpec(_Section):
    """How the discrete network is trained."""

    epochs: PositiveInt = 600
    """Passes over the training utterances."""
    batch_size: Annotated[int, Field(ge=2)] = 96
    """Utterances in a batch, at most; batches are of nearly equal size."""
    optimiser: Literal["sgd", "adamw"] = "sgd"
    """SGD with momentum, or AdamW."""
    learning_rate: Positive = 0.025
    """The highest of the schedule."""
    momentum: Fraction = 0.9
    """Of SGD; the first beta of AdamW."""
    weight_decay: NonNegative = 3e-4
    """Added to the gradient by SGD, decoupled in AdamW."""
    gradient_clip: Positive = 5.0
    """Largest norm of the gradient over all weights."""
    schedule: Literal["cosine", "one_cycle", "constant"] = "cosine"
    """Of the learning rate, over all steps."""
    class_weights: bool = True
    """Weight classes by the inverse of their frequency among training utterances."""
    label_smoothing: Fraction = 0.0
    """Share of each target that is spread over all classes."""
    masks: MaskSpec = MaskSpec()
    augmentation: AugmentationSpec = AugmentationSpec()
    """Of the sound, before features."""
    mixup: NonNegative = 0.0
    """alpha of mixup (arXiv 1710.09412): two utterances of a batch and their targets are averaged
    with weights from Beta(alpha, alpha); 0 mixes none."""
    oversample: bool = False
    """Repeat utterances of smaller classes until all classes are as large as the largest, in
    every epoch anew; not together with ``class_weights``, which would correct twice."""
    drop_path: Fraction = 0.2
    """Probability of dropping an edge of an utterance, reached linearly over the epochs."""
    auxiliary_weight: NonNegative = 0.4
    """Of the loss of an extra classifier at 2/3 of the CNN; 0 builds none."""
    cells: PositiveInt | None = None
    """CNN cells of the discrete network; default: as searched."""
    channels: PositiveInt | None = None
    """C0 of the discrete network; default: as searched."""
    seqnn_cells: PositiveInt | None = None
    """SeqNN cells of the discrete network; default: as searched."""
    select: Literal["ua", "loss", "last"] = "ua"
    """What on the inner validation utterances chooses the epoch; ``last`` chooses none."""
    optimistic: bool = False
    """After the choice, also tell what the best epoch on the test fold would have scored; keeps
    the weights of every epoch on disk until then."""

    @model_validator(mode="after")
    def _possible(self) -> TrainingSpec:
        if self.oversample and self.class_weights:
            raise ValueError(
                "oversample and class_weights both correct for the size of classes; "
                "legal with oversample: class_weights false"
            )
        return self


class EvaluationSpec(_Section):
    """Folds, seeds, and what each part of a training fold is used for."""

    #: Every legal split, as a pattern and in words; ``emodarts.splits`` makes them.
    SPLITS: ClassVar[str] = (
        r"speaker|session|groups:{k}|official(:.+)?|column|emobox|speaker-dependent(:{k})?|.+\.json"
    ).replace("{k}", "([2-9]|[1-9][0-9]{1,8})")
    LEGAL_SPLITS: ClassVar[str] = (
        "speaker, session, groups:K, official, official:PART, column, emobox, speaker-dependent, "
        "speaker-dependent:K, or a fold file FILE.json; K is at least 2"
    )

    split: str = "groups:5"
    """``speaker`` or ``session`` (leave one out), ``groups:K`` (of speakers, or of sessions whose
    partners share dialogues), ``official`` or ``official:PART`` (the publishers' parts), ``column``
    (the user's), ``emobox`` (published folds), a fold file ``FILE.json``, or ``speaker-dependent``
    or ``speaker-dependent:K`` (random utterances, 5 folds by default)."""
    allow_speaker_overlap: bool = False
    """Take given folds (official, column, emobox, a fold file) though their test shares speakers,
    sessions or dialogues with the rest, or though that cannot be checked; every table says so."""
    protocol: Literal["paper", "full"] = "full"
    """Use of a training fold. ``paper``: 70 % of it for the search and 30 % to train on; the
    search part chooses the epoch. ``full``: all of it for the search; all but some speakers to
    train on, and those choose the epoch. Where the split has a validation part of its own, that
    one chooses the epoch of ``full``, and the rest is searched and trained on."""
    folds: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """Indices of the folds to run; default: all."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**31)], ...], Field(min_length=1)] = (0,)
    """Each fold runs once for each of them."""

    @model_validator(mode="after")
    def _possible(self) -> EvaluationSpec:
        if not re.fullmatch(self.SPLITS, self.split):
            raise ValueError(f"split {self.split!r}; legal: {self.LEGAL_SPLITS}")
        given = r"official(:.+)?|column|emobox|.+\.json"
        if self.allow_speaker_overlap and not re.fullmatch(given, self.split):
            raise ValueError(
                f"allow_speaker_overlap does nothing with split {self.split!r}; it belongs to "
                "official, column, emobox and fold files"
            )
        for name in ("folds", "seeds"):
            values = getattr(self, name)
            if values is not None and len(set(values)) != len(values):
                raise ValueError(f"{name} {list(values)} names one twice")
        if self.folds is not None and not self.folds:
            raise ValueError("folds is empty; name at least one or leave it out for all")
        return self


class ComputeSpec(_Section):
    """Where it runs."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """``auto``: CUDA, else MPS, else CPU."""
    threads: PositiveInt | None = None
    """Of torch; default: its own choice. Recorded, as results depend on it bit by bit."""
    fast: bool = True
    """Compute cells in a faster order of sums: by compiled loops on a CPU, by few calls of torch
    elsewhere and for ``bf16``. Off: edge by edge. Recorded, as ``threads``."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of maps while searching and training: those of ``bf16`` take half the room; it is meant for
    GPUs. It has another result, so it is recorded, as ``threads``; it has no compiled cells, and
    searches by ``search.order`` 1 only. Weights, losses, features and test scores are float32."""


LABEL_SCHEMES: dict[str, tuple[str, ...] | None] = {
    "own": None,
    "four": ("anger", "happiness", "neutral", "sadness"),
    "four-merged": ("anger", "happiness=happiness,excitement", "neutral", "sadness"),
    "five": ("anger", "excitement", "happiness", "neutral", "sadness"),
}
"""Label sets by name: a corpus' own, the papers' four, those with excitement merged into
happiness, and with excitement as a class."""


def _label_entries(value: Any) -> Any:
    """Bring every way of writing labels to a tuple of ``name`` and ``name=source,source``."""
    if isinstance(value, dict):
        pairs = [(k, v if isinstance(v, list) else [v]) for k, v in value.items()]
        return tuple(f"{name}={','.join(map(str, sources))}" for name, sources in pairs)
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        return tuple(texts) if isinstance(texts, list) else texts
    if len(texts) == 1 and texts[0] in LABEL_SCHEMES:
        return LABEL_SCHEMES[texts[0]]
    entries = [[text] if "=" in text else text.split(",") for text in texts]
    return tuple(entry.strip() for group in entries for entry in group)


LabelSet = Annotated[
    tuple[str, ...] | None,
    BeforeValidator(_label_entries),
]


class Recipe(_Section):
    """All settings of a run. See ``docs/recipes.md`` for each key."""

    name: str = "unnamed"
    """Label in reports; default in a file: the name of the file."""
    labels: LabelSet = None
    """Classes to keep, which fixes their order; default: all that the corpus has. A class is a
    label of the corpus or a common name such as ``anger``; ``happy=hap,exc`` merges labels. Also a
    mapping (``happy: [hap, exc]``) or ``own``, ``four``, ``four-merged``, ``five``."""
    styles: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Styles of speech to keep, e.g. ``improvised`` of IEMOCAP; default: all."""
    features: SerializeAsAny[FeatureSpec] = MfccSpec()
    network: NetworkSpec = NetworkSpec()
    search: SearchSpec = SearchSpec()
    training: TrainingSpec = TrainingSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    compute: ComputeSpec = ComputeSpec()

    @model_validator(mode="after")
    def _possible(self) -> Recipe:
        if self.labels is not None:
            names = [entry.partition("=")[0].strip() for entry in self.labels]
            if len(names) < 2 or not all(names):
                hint = did_you_mean(names[0], LABEL_SCHEMES) if names else ""
                legal = f"at least 2 classes, named, or one of {', '.join(LABEL_SCHEMES)}"
                raise ValueError(f"labels {list(self.labels)}{hint}; legal: {legal}")
            if len(set(names)) != len(names):
                raise ValueError(f"labels {list(self.labels)} names one twice")
        trained = self.trained_network.cnn
        for cnn in (self.network.cnn, trained):
            smallest = 2 ** len(cnn.reductions)
            for axis, size in (
                ("frequency", self.features.n_features),
                ("time", self.features.n_frames),
            ):
                if size < smallest:
                    raise ValueError(
                        f"features of {self.features.n_features} x {self.features.n_frames} "
                        f"(frequency x time) are too small: {len(cnn.reductions)} reduction cells "
                        f"halve each axis and leave nothing of {axis}; legal: at least {smallest}"
                    )
            if self.features.n_features == self.features.n_frames == smallest:
                raise ValueError(
                    f"features of {smallest} x {smallest} are reduced to a single value, which "
                    f"batch norm cannot normalise; legal: one axis larger than {smallest}"
                )
        if self.training.seqnn_cells is not None and self.network.seqnn.mode != "searched":
            raise ValueError(
                f"training.seqnn_cells needs a searched SeqNN; "
                f"network.seqnn.mode is {self.network.seqnn.mode!r}"
            )
        return self

    @property
    def trained_network(self) -> NetworkSpec:
        """The network that is trained: the searched one, or deeper or wider if so asked."""
        changes = {"cells": self.training.cells, "channels": self.training.channels}
        cnn = self.network.cnn.model_copy(update={k: v for k, v in changes.items() if v})
        seqnn = self.network.seqnn
        if self.training.seqnn_cells is not None:
            seqnn = seqnn.model_copy(update={"cells": self.training.seqnn_cells})
        return self.network.model_copy(update={"cnn": cnn, "seqnn": seqnn})

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values with every key; :meth:`from_dict` is the inverse."""
        return self.model_dump(mode="json")

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], where: str = "recipe") -> Recipe:
        """Check and build a recipe. Raises :class:`RecipeError`, one line for each fault."""
        try:
            # Through JSON, so that strict types still take a list for a tuple.
            return cls.model_validate_json(json.dumps(value, allow_nan=True))
        except ValidationError as error:
            raise RecipeError(_explain(error, where, value)) from error
        except (TypeError, ValueError, RecursionError) as error:
            raise RecipeError(f"{where}: {error}; keys and values are plain YAML") from error

    def to_yaml(self) -> str:
        """Return the whole recipe as YAML text."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)

    def digest(self) -> str:
        """Identify what a run computes: SHA-256 over all keys but the name and the device."""
        value = self.to_dict()
        del value["name"], value["compute"]
        return files.digest_of(value)


def builtin_recipes() -> dict[str, Path]:
    """Recipes that come with the package, by name."""
    folder = Path(__file__).parent / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_recipe(source: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe from a YAML file or by the name of a built-in one.

    Parameters
    ----------
    source : path of a YAML file, or a name from :func:`builtin_recipes`.
    overrides : texts like ``"search.epochs=20"``; values are YAML.

    Raises
    ------
    RecipeError
        For a missing file, bad YAML, an unknown key, a wrong type or an impossible value.
    """
    path = Path(source)
    known = builtin_recipes()
    if not path.is_file() and str(source) in known:
        path = known[str(source)]
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise RecipeError(
            f"cannot read recipe {source}: {reason}; give a YAML file or one of {', '.join(known)}"
        ) from error
    value = _parse_yaml(text, str(source))
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise RecipeError(f"{source}: a recipe is a mapping of keys, not {type(value).__name__}")
    value.setdefault("name", path.stem)
    for override in overrides:
        _override(value, override)
    return Recipe.from_dict(value, str(source))


def _override(value: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise RecipeError(f"--set {override!r}; legal: KEY=VALUE, e.g. search.epochs=20")
    *parents, last = key.split(".")
    for parent in parents:
        inner = value.get(parent, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"--set {override!r}: {parent!r} has no keys below it")
        # A copy, as a YAML alias can make two keys share one mapping.
        value[parent] = dict(inner)
        value = value[parent]
    value[last] = _parse_yaml(text, f"--set {key}")


class _Loader(yaml.SafeLoader):
    """YAML as people write it: ``3e-4`` is a number (YAML 1.2) and a key occurs once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str | int | float) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} occurs twice", key_node.start_mark
                )
            if isinstance(key, str | int | float):
                seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+0123456789."),
)


def _parse_yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or error
        raise RecipeError(f"{where}{line}: not valid YAML: {problem}") from error
    except RecursionError as error:
        raise RecipeError(f"{where}: not valid YAML: nested too deeply") from error


def _explain(error: ValidationError, where: str, value: Mapping[str, Any]) -> str:
    """Turn pydantic's report into one line for each fault: key, value, what is legal."""
    lines = []
    for fault in error.errors():
        place = [str(p) for p in fault["loc"]]
        if place[:2] == ["network", "seqnn"]:
            # The third part is the mode that pydantic checked against, not a key.
            del place[2:3]
        key = ".".join(place)
        if fault["type"] == "extra_forbidden":
            legal = _keys_at(fault["loc"][:-1], value)
            lines.append(
                f"unknown key {key!r}{did_you_mean(place[-1], legal)}; legal: {', '.join(legal)}"
            )
        elif fault["type"] == "value_error":
            lines.append(": ".join(filter(None, (key, str(fault["ctx"]["error"])))))
        else:
            lines.append(f"{key}: {fault['input']!r}: {fault['msg']}")
    features = value.get("features")
    if any("'features." in line for line in lines) and isinstance(features, dict):
        kind = features.get("kind", "mfcc")
        lines.append(
            f"each kind has keys of its own: give the section anew, e.g. "
            f"--set 'features={{kind: {kind}, duration: 4.0}}'"
        )
    return f"{where}: " + "; ".join(dict.fromkeys(lines))


def _keys_at(location: tuple[int | str, ...], value: Mapping[str, Any]) -> list[str]:
    if location == ("features",):
        return list(FEATURES[value["features"].get("kind", "mfcc")].spec.model_fields)
    sections: dict[str, type[BaseModel]] = {
        "searched": SearchedSeqNN,
        "fixed": FixedSeqNN,
        "none": NoSeqNN,
    }
    model: type[BaseModel] = Recipe
    for part in location:
        if part in sections:
            model = sections[str(part)]
        elif part in model.model_fields:
            inner = model.model_fields[str(part)].annotation
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                model = inner
    return list(model.model_fields)

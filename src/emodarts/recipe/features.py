"""What a feature is: the keys below ``features`` in a recipe, as one frozen, checked value.

Every kind is one entry of the table :data:`FEATURES`: a class of keys, and what computes the
feature, which is named there and loaded on first use. ``docs/extending.md`` adds a kind.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator

from emodarts import files
from emodarts.errors import EmodartsError, RecipeError
from emodarts.recipe.section import Kind, KindSection, NonNegative, Positive, PositiveInt

Length = Literal["pad", "repeat", "segments"]
"""What is done with sound that is shorter or longer than a model's input."""

Transform = Callable[[Any], Any]
"""Waveforms (B, n_samples) to maps (B, F, frames); often a ``torch.nn.Module``."""


class FeatureSpec(KindSection):
    """How sound becomes a (channel, frequency, time) map. These keys are common to all kinds;
    where a kind has another default, its own section below names it."""

    default_kind: ClassVar[str] = "mfcc"

    has_bands: ClassVar[bool] = False
    """Whether the frequency axis is one of bands in Hz, which can be moved."""

    kind: str = "mfcc"
    """Which of the kinds below is computed."""
    sample_rate: Annotated[int, Field(ge=4000, le=192000)] = 16000
    """Sample rate in Hz; audio at another rate is resampled."""
    duration: Annotated[float, Field(gt=0.0, le=600.0)] = 8.0
    """Length of the network's input in seconds."""
    length: Length = "pad"
    """What is done with shorter and longer audio. ``pad`` appends zeros or cuts; ``repeat`` repeats
    the audio up to ``duration`` or cuts. ``segments`` divides longer audio into pieces of
    ``duration`` that overlap by half and averages their probabilities; it pads shorter audio."""
    padding: Literal["masked", "zeros"] = "masked"
    """What stands behind audio that is shorter than ``duration``. ``masked`` marks the frames there
    as missing: statistics, training and answers use the frames of sound alone. ``zeros`` is the
    papers' way, which takes them for sound."""
    trim: Annotated[float, Field(ge=10.0, le=100.0)] | None = None
    """Cut off what is this many dB below the loudest 32 ms, at the beginning and at the end; by
    default nothing. Silence around the speech then does not change the answer."""
    level: Annotated[float, Field(ge=-60.0, le=0.0)] | None = None
    """Bring every utterance to this level (RMS, in dB of full scale), e.g. ``-26``, so that the
    distance to the microphone does not matter; by default the level is kept."""
    pool: PositiveInt = 1
    """Join this many neighbouring frames."""
    pool_by: Literal["max", "mean"] = "max"
    """Joined frames become their maximum or their mean."""
    deltas: Literal[0, 1, 2] = 0
    """1 adds the regression slopes over 9 (pooled) frames as a second channel; 2 adds their
    slopes as a third."""

    @classmethod
    def kinds(cls) -> Mapping[str, Kind[FeatureSpec]]:
        return FEATURES

    @model_validator(mode="after")
    def _possible(self) -> FeatureSpec:
        self.check()
        if self.is_complete and self.n_frames < 1:
            raise ValueError(f"pool {self.pool} leaves no frame of {self.duration} s")
        return self

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left for the user to name, so that sizes are known."""
        return True

    @property
    @abstractmethod
    def n_features(self) -> int:
        """Size of the frequency axis."""

    @property
    @abstractmethod
    def n_steps(self) -> int:
        """Frames before pooling."""

    @property
    def n_samples(self) -> int:
        """Samples of one padded or cut utterance, or of one piece."""
        return round(self.duration * self.sample_rate)

    def frames_of(self, n_samples: Any) -> Any:
        """Frames after pooling of the first ``n_samples``, at least one: integers, or a tensor."""
        frames = self.steps_of(n_samples) // self.pool
        return max(frames, 1) if isinstance(frames, int) else frames.clamp(min=1)

    @property
    def fill(self) -> float:
        """What stands behind shorter sound."""
        return math.nan if self.padding == "masked" else 0.0

    @property
    def n_channels(self) -> int:
        """The map itself and its deltas."""
        return 1 + self.deltas

    @property
    def n_frames(self) -> int:
        """Size of the time axis, after pooling; an incomplete last group is dropped."""
        return self.n_steps // self.pool

    def steps_of(self, n_samples: Any) -> Any:
        """Frames before pooling that lie within the first ``n_samples``: integers, or a tensor."""
        return -(-n_samples * self.n_steps // self.n_samples)


class _Framed(FeatureSpec):
    """Kinds that begin with a short-time Fourier transform."""

    n_fft: Annotated[int, Field(ge=16)] = 2048
    """Samples of the Fourier transform."""
    hop_length: PositiveInt = 512
    """Samples between the centres of neighbouring frames."""

    def check(self) -> None:
        if self.hop_length > self.n_fft:
            raise ValueError(f"hop_length {self.hop_length} exceeds n_fft {self.n_fft}")
        if self.n_fft > self.n_samples:
            raise ValueError(
                f"n_fft {self.n_fft} exceeds the {self.n_samples} samples of {self.duration} s"
            )

    @property
    def n_steps(self) -> int:
        return int(self.steps_of(self.n_samples))

    def steps_of(self, n_samples: Any) -> Any:
        # An odd window has one sample less of zeros around the ends than it is long.
        return 1 + (n_samples - self.n_fft % 2) // self.hop_length


class _Mel(_Framed):
    """Kinds that go on with mel bands; the defaults are the papers'."""

    sample_rate: Annotated[int, Field(ge=4000, le=192000)] = 32750
    pool: PositiveInt = 4
    n_mels: PositiveInt = 128
    """Number of mel bands (Slaney's scale and norm)."""
    win_length: Annotated[int, Field(ge=16)] | None = None
    """Samples of the Hann window, which is centred in ``n_fft``; by default ``n_fft``."""
    fmin: NonNegative = 0.0
    """Lower edge of the mel bands in Hz. Raise it to 50 or so against hum."""
    fmax: Positive | None = None
    """Upper edge of the mel bands in Hz; by default half the sample rate. Lower it for a model that
    will be given MP3 files, since lossy formats remove the highest bands."""

    @property
    def highest(self) -> float:
        """Upper edge of the mel bands in Hz."""
        return self.fmax or self.sample_rate / 2

    def check(self) -> None:
        super().check()
        if self.win_length is not None and self.win_length > self.n_fft:
            raise ValueError(f"win_length {self.win_length} exceeds n_fft {self.n_fft}")
        if self.fmin >= self.highest:
            raise ValueError(f"fmin {self.fmin:g} is not below fmax, {self.highest:g} Hz")
        if self.n_mels > self.n_fft // 2:
            raise ValueError(
                f"n_mels {self.n_mels} exceeds n_fft // 2 = {self.n_fft // 2}: bands would be empty"
            )
        if self.fmax is not None and self.fmax > self.sample_rate / 2:
            raise ValueError(
                f"fmax {self.fmax:g} exceeds half of sample_rate, {self.sample_rate / 2:g} Hz"
            )

    @property
    def n_features(self) -> int:
        return self.n_mels


class MfccSpec(_Mel):
    """Mel-frequency cepstral coefficients: the DCT-II (orthonormal) of the log-mel map. The
    defaults are the papers'."""

    kind: Literal["mfcc"] = "mfcc"
    n_mfcc: PositiveInt | None = None
    """Number of coefficients that are kept; by default all ``n_mels``."""

    def check(self) -> None:
        if self.n_mfcc is not None and self.n_mfcc > self.n_mels:
            raise ValueError(f"n_mfcc {self.n_mfcc} exceeds n_mels {self.n_mels}")
        super().check()

    @property
    def n_features(self) -> int:
        return self.n_mfcc or self.n_mels


class LogMelSpec(_Mel):
    """Power in mel bands, in dB down to 80 below the loudest of the utterance."""

    has_bands: ClassVar[bool] = True

    kind: Literal["log_mel"] = "log_mel"


class StftSpec(_Framed):
    """Spectrogram: power in dB (the same as magnitude in dB), down to 80 below the loudest of the
    utterance. The defaults are those of EmotionNAS (arXiv 2203.13617) at 16 kHz: Hamming windows
    of 25 ms that overlap by 14 ms. The code of emoDARTS has ``win_length: 278, n_fft: 278,
    hop_length: 229``."""

    has_bands: ClassVar[bool] = True

    kind: Literal["stft"] = "stft"
    window: Literal["hann", "hamming"] = "hamming"
    """Shape of the window."""
    win_length: Annotated[int, Field(ge=16)] = 400
    """Samples of the window, which is centred in ``n_fft``."""
    n_fft: Annotated[int, Field(ge=16)] = 512
    """Samples of the Fourier transform, which gives ``n_fft // 2 + 1`` frequencies."""
    hop_length: PositiveInt = 176

    def check(self) -> None:
        if self.win_length > self.n_fft:
            raise ValueError(f"win_length {self.win_length} exceeds n_fft {self.n_fft}")
        if self.hop_length > self.win_length:
            raise ValueError(f"hop_length {self.hop_length} exceeds win_length {self.win_length}")
        super().check()

    @property
    def n_features(self) -> int:
        return 1 + self.n_fft // 2


class WaveformSpec(FeatureSpec):
    """Raw samples, cut into frames that do not overlap; an incomplete last frame is dropped."""

    kind: Literal["waveform"] = "waveform"
    frame_length: PositiveInt = 256
    """Number of samples in a frame."""

    @property
    def n_features(self) -> int:
        return self.frame_length

    @property
    def n_steps(self) -> int:
        return self.n_samples // self.frame_length

    def check(self) -> None:
        if self.frame_length > self.n_samples:
            raise ValueError(
                f"frame_length {self.frame_length} exceeds the {self.n_samples} samples of "
                f"{self.duration} s"
            )


class OpensmileSpec(FeatureSpec):
    """The 25 low-level descriptors of eGeMAPSv02 (doi 10.1109/TAFFC.2015.2457417), 100 a second;
    needs the extra ``opensmile``."""

    kind: Literal["opensmile"] = "opensmile"

    @property
    def n_features(self) -> int:
        return 25

    @property
    def n_steps(self) -> int:
        # As openSMILE counts: windows of 60 ms, whole samples between them, and one more frame.
        longest, step = (math.floor(s * self.sample_rate + 0.5) for s in (0.06, 0.01))
        return 2 + (self.n_samples - longest) // step

    def check(self) -> None:
        if self.duration < 0.06:
            raise ValueError(f"duration {self.duration} s; allowed: at least a window of 0.06 s")


class FunctionalsSpec(FeatureSpec):
    """Functionals of a whole utterance by openSMILE, as a map of one frame: a vector for
    classical systems. Padding is left out. Needs the extra ``opensmile``."""

    kind: Literal["functionals"] = "functionals"
    duration: Annotated[float, Field(gt=0.0, le=600.0)] = 30.0
    feature_set: Literal["eGeMAPSv02", "ComParE_2016"] = "eGeMAPSv02"
    """eGeMAPSv02 (doi 10.1109/TAFFC.2015.2457417) has 88 functionals, ComParE_2016 (doi
    10.21437/Interspeech.2016-129) has 6373."""

    @property
    def n_features(self) -> int:
        return {"eGeMAPSv02": 88, "ComParE_2016": 6373}[self.feature_set]

    @property
    def n_steps(self) -> int:
        return 1

    def check(self) -> None:
        if self.length == "repeat":
            raise ValueError("length repeat: copies are not speech; allowed: pad, segments")
        if self.deltas:
            raise ValueError(f"deltas {self.deltas}: one frame has no slope; allowed: 0")
        if self.duration < 0.06:
            raise ValueError(f"duration {self.duration} s; allowed: at least a window of 0.06 s")


class _Checkpoint(BaseModel):
    """The part of a checkpoint's ``config.json`` that is needed."""

    model_config = ConfigDict(frozen=True, strict=True, protected_namespaces=())

    model_type: Literal["wav2vec2", "hubert", "wavlm"]
    hidden_size: PositiveInt
    num_hidden_layers: PositiveInt
    conv_kernel: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    conv_stride: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]


class _Preprocessor(BaseModel):
    """The part of a checkpoint's ``preprocessor_config.json`` that is needed."""

    model_config = ConfigDict(frozen=True, strict=True)

    sampling_rate: PositiveInt
    do_normalize: bool = True


class EmbeddingSpec(FeatureSpec):
    """Hidden states of a wav2vec 2.0, HuBERT or WavLM model in a folder on disk, as
    ``save_pretrained`` of transformers writes it; nothing is downloaded, and weights must be
    safetensors. Needs the extra ``ssl``."""

    kind: Literal["embedding"] = "embedding"
    checkpoint: Annotated[str, Field(min_length=1)] | None = None
    """Folder of the checkpoint, with ``config.json``, ``preprocessor_config.json`` and weights;
    required for a run."""
    layer: int | Literal["all"] = -1
    """Which hidden state is taken: 0 is the input of the first transformer layer, 1 its output, and
    -1 the output of the last layer. ``all`` puts those of all layers behind one another."""

    @property
    def is_complete(self) -> bool:
        return self.checkpoint is not None

    @property
    def folder(self) -> Path:
        """That of the checkpoint. Raises :class:`RecipeError` if it is not given."""
        if self.checkpoint is None:
            raise RecipeError(
                "features.checkpoint is required: the folder of a wav2vec 2.0, HuBERT or WavLM "
                "model, e.g. --set features.checkpoint=wav2vec2-base"
            )
        return Path(self.checkpoint)

    @property
    def network(self) -> _Checkpoint:
        """Its ``config.json``. Raises :class:`RecipeError` if that cannot be read."""
        return _read_as(_Checkpoint, self.folder / "config.json")

    @property
    def preprocessor(self) -> _Preprocessor:
        """Its ``preprocessor_config.json``. Raises :class:`RecipeError` as above."""
        return _read_as(_Preprocessor, self.folder / "preprocessor_config.json")

    @property
    def n_layers(self) -> int:
        """Number of hidden states that are taken of each frame."""
        return 1 + self.network.num_hidden_layers if self.layer == "all" else 1

    @property
    def n_features(self) -> int:
        return self.n_layers * self.network.hidden_size

    @property
    def n_steps(self) -> int:
        length = self.n_samples
        network = self.network
        for kernel, stride in zip(network.conv_kernel, network.conv_stride, strict=True):
            length = max(0, (length - kernel) // stride + 1)
        return length

    def check(self) -> None:
        if not self.is_complete:
            return
        try:
            network, rate = self.network, self.preprocessor.sampling_rate
        except RecipeError as error:
            raise ValueError(f"checkpoint {self.checkpoint!r}: {error}") from error
        if len(network.conv_kernel) != len(network.conv_stride):
            raise ValueError(
                f"checkpoint {self.checkpoint!r}: config.json has {len(network.conv_kernel)} "
                f"conv_kernel and {len(network.conv_stride)} conv_stride"
            )
        if self.sample_rate != rate:
            raise ValueError(
                f"sample_rate {self.sample_rate}; allowed: {rate} Hz, the rate of the checkpoint"
            )
        layers = network.num_hidden_layers
        if self.layer != "all" and not -layers - 1 <= self.layer <= layers:
            raise ValueError(f"layer {self.layer}; allowed: {-layers - 1} to {layers}, or all")
        if self.n_steps < 1:
            raise ValueError(f"duration {self.duration} s is too short for one frame")


@dataclass(frozen=True)
class _Applied:
    """A function with the values of its keys; ``fingerprint`` is the text of its module."""

    function: Callable[..., Any]
    keys: Mapping[str, Any]
    fingerprint: str

    def __call__(self, waveform: Any) -> Any:
        return self.function(waveform, **self.keys)


class FunctionSpec(FeatureSpec):
    """Keys of a kind made from a function; its output for silence gives the size of the map."""

    function: ClassVar[Callable[..., Any]]
    arguments: ClassVar[tuple[str, ...]]

    def transform(self) -> Transform:
        """The function with the values of its keys."""
        function = type(self).function
        keys = {name: getattr(self, name) for name in self.arguments}
        return _Applied(function, keys, _text_of(function))

    @property
    def n_features(self) -> int:
        return _size_of(self)[0]

    @property
    def n_steps(self) -> int:
        return _size_of(self)[1]

    def check(self) -> None:
        try:
            _size_of(self)
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(
                f"{self.kind} fails on silence of {self.duration} s: {error}"
            ) from error


class FeatureKind(Kind[FeatureSpec]):
    """An entry of :data:`FEATURES`; its implementation makes a :data:`Transform` of a spec."""

    @classmethod
    def of(cls, function: Callable[..., Any]) -> FeatureKind:
        """Kind of a function from waveforms ``(B, n_samples)`` to maps ``(B, F, frames)``.

        Its name is that of the kind. Its keyword-only parameters are keys of the kind, with
        their types, ranges and defaults; one that is named like a common key, for example
        ``sample_rate``, receives that and may give it another default.

        Raises
        ------
        EmodartsError
            If a parameter after the first is not keyword-only, or has no type.
        """
        common = get_type_hints(FeatureSpec, include_extras=True)
        types = get_type_hints(function, include_extras=True) | common
        name = getattr(function, "__name__", "feature")
        keys: dict[str, Any] = {"kind": (Literal[name], name)}
        for parameter in list(inspect.signature(function).parameters.values())[1:]:
            if parameter.kind is not parameter.KEYWORD_ONLY or parameter.name not in types:
                raise EmodartsError(
                    f"{name}(): parameter {parameter.name!r}; allowed: the waveform, a star, then "
                    f"keys with their types, e.g. (waveform, *, frame_length: int = 400)"
                )
            default: Any = parameter.default
            if default is parameter.empty:
                field = FeatureSpec.model_fields.get(parameter.name)
                default = field.default if field else ...
            keys[parameter.name] = (types[parameter.name], default)
        spec = create_model(f"{name}_spec", __base__=FunctionSpec, **keys)
        spec.function = function
        spec.arguments = tuple(keys)[1:]
        return cls(spec, spec.transform)


FEATURES: dict[str, FeatureKind] = {
    "mfcc": FeatureKind(MfccSpec, "emodarts.audio.features:Mfcc"),
    "log_mel": FeatureKind(LogMelSpec, "emodarts.audio.features:LogMel"),
    "stft": FeatureKind(StftSpec, "emodarts.audio.features:Spectrogram"),
    "waveform": FeatureKind(WaveformSpec, "emodarts.audio.features:Frames"),
    "opensmile": FeatureKind(OpensmileSpec, "emodarts.audio.egemaps:Egemaps"),
    "functionals": FeatureKind(FunctionalsSpec, "emodarts.audio.egemaps:Functionals"),
    "embedding": FeatureKind(EmbeddingSpec, "emodarts.audio.embedding:Embedding"),
}
"""Kinds of features by name."""


_Config = TypeVar("_Config", bound=BaseModel)


def _read_as(model: type[_Config], path: Path) -> _Config:
    value = files.read_json(path, RecipeError)
    try:
        return model.model_validate_json(json.dumps(value))
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(str(p) for p in fault["loc"])
        raise RecipeError(f"{path}: {key}: {fault['msg']}") from error


def _text_of(function: Callable[..., Any]) -> str:
    """SHA-256 of a function's module, or of itself in a notebook; ``""`` where neither is kept."""
    things: tuple[Any, ...] = (inspect.getmodule(function), function)
    for thing in things:
        try:
            return hashlib.sha256(inspect.getsource(thing).encode()).hexdigest()
        except (OSError, TypeError):
            continue
    return ""


@lru_cache(maxsize=32)
def _size_of(spec: FunctionSpec) -> tuple[int, int]:
    """Frequencies and frames that a function gives."""
    import torch

    with torch.inference_mode():
        shape = tuple(spec.transform()(torch.zeros(1, spec.n_samples)).shape)
    if len(shape) != 3 or shape[0] != 1:
        raise ValueError(f"a map of shape {shape} for one waveform; allowed: (1, F, frames)")
    return shape[1], shape[2]

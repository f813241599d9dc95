"""A model as a folder of two files that needs neither recipe nor corpus, whatever the system is.

``model.safetensors`` holds what was learned; ``model.json`` holds the system and its keys, how
audio becomes its inputs, the classes and their common names, a calibration temperature, which audio
the model was trained on, where it comes from, and the digests by which an altered file is found.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from safetensors import SafetensorError
from safetensors.torch import load as parse_tensors
from safetensors.torch import save as pack_tensors
from torch import Tensor

from emodarts import files
from emodarts.corpora.utterance import Utterance
from emodarts.errors import BundleError, GenotypeError, list_some
from emodarts.genotype import Genotype
from emodarts.recipe import SYSTEMS, FeatureSpec, SystemSpec
from emodarts.scoring.calibration import calibrated
from emodarts.systems.system import Fitted, Saved

FORMAT = "emodarts.model/4"
WEIGHTS = "model.safetensors"
DESCRIPTION = "model.json"

#: Hexadecimal digits of a SHA-256 that are kept of each file that a model was trained on.
_DIGITS = 32
_STRETCH = rf"[0-9a-f]{{{_DIGITS}}}( [0-9.e+-]+ ([0-9.e+-]+|inf))?"


class _Description(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    format: str
    system: SystemSpec
    settings: dict[str, Any]
    inputs: Annotated[dict[str, FeatureSpec], Field(min_length=1)]
    fingerprints: dict[str, str]
    classes: Annotated[list[str], Field(min_length=2)]
    temperature: Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
    emotions: dict[str, list[str]]
    trained_on: list[str]
    origin: dict[str, Any]
    weights_sha256: str
    sha256: str

    @field_validator("trained_on")
    @classmethod
    def _stretches(cls, value: list[str]) -> list[str]:
        for text in value:
            if not re.fullmatch(_STRETCH, text):
                raise ValueError(f"{text!r}; allowed: DIGEST, or DIGEST START END")
        return value


@dataclass(frozen=True)
class Bundle:
    """A fitted system with all that it needs to classify audio.

    Attributes
    ----------
    system : its kind and keys.
    fitted : the system, on the CPU.
    inputs : how audio becomes each of its feature maps, by name.
    classes : labels in the order of the probabilities.
    fingerprints : of what extracts each input, e.g. of a checkpoint; see
        :attr:`FeatureExtractor.fingerprint`.
    temperature : of the probabilities of an utterance; see
        :func:`emodarts.scoring.calibration.calibrated`.
    emotions : the common names (:data:`emodarts.corpora.utterance.COMMON_EMOTIONS`) of the labels
        that each class stands for, where they have some.
    trained_on : :func:`stretch_of` every utterance that had a part in search or training, and
        :func:`sound_of` it.
    origin : corpus, recipe, fold, seed, size and notice, for people to read.
    """

    system: SystemSpec
    fitted: Fitted
    inputs: Mapping[str, FeatureSpec]
    classes: tuple[str, ...]
    fingerprints: Mapping[str, str]
    temperature: float = 1.0
    emotions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    trained_on: Sequence[str] = ()
    origin: Mapping[str, Any] = field(default_factory=dict)

    @property
    def genotype(self) -> Genotype | None:
        """The cells of the system, where it has some."""
        return self.fitted.genotype

    def was_trained_on(self, content: str, utterance: Utterance, sound: str | None = None) -> bool:
        """Whether any of an utterance's audio had a part in search or training.

        Parameters
        ----------
        content : SHA-256 of the audio file.
        sound : :class:`~emodarts.audio.duplicates.SoundDigest` of the utterance, if known.
        """
        if sound is not None and sound_of(sound) in self._stretches:
            return True
        end = math.inf if utterance.end is None else utterance.end
        known = self._stretches.get(content[:_DIGITS], ())
        return any(utterance.start < last and first < end for first, last in known)

    @cached_property
    def _stretches(self) -> dict[str, list[tuple[float, float]]]:
        found: dict[str, list[tuple[float, float]]] = {}
        for text in self.trained_on:
            content, start, end = _parse_stretch(text)
            found.setdefault(content, []).append((start, end))
        return found

    def probabilities(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Named feature maps ``(B, C, F, T)`` of pieces -> probabilities ``(B, K)``."""
        return self.fitted.probabilities(inputs)

    def joined(self, pieces: Tensor) -> NDArray[np.float64]:
        """Probabilities ``(M, K)`` of the pieces of one utterance -> of the utterance ``(K,)``.

        Their mean, calibrated.
        """
        return calibrated(pieces.double().mean(dim=0).numpy(), self.temperature)


def stretch_of(content: str, utterance: Utterance) -> str:
    """``DIGEST`` of a whole audio file, or ``DIGEST START END`` of a stretch of it in seconds.

    ``content`` is the SHA-256 of the file, whose first half is enough.
    """
    digest = content[:_DIGITS]
    if utterance.start == 0.0 and utterance.end is None:
        return digest
    end = math.inf if utterance.end is None else float(utterance.end)
    return f"{digest} {float(utterance.start)!r} {end!r}"


def sound_of(sound: str) -> str:
    """``DIGEST`` of the sound of an utterance, whose first half is enough."""
    return sound[:_DIGITS]


def n_trained_on(bundle: Bundle) -> int:
    """Number of utterances that a model was trained on: each has left a stretch and a sound."""
    return len(bundle.trained_on) // 2


def _parse_stretch(text: str) -> tuple[str, float, float]:
    digest, *ends = text.split()
    start, end = map(float, ends or ("0", "inf"))
    return digest, start, end


def save_bundle(folder: Path, bundle: Bundle) -> None:
    """Write a bundle; the description comes last and makes it whole.

    Raises
    ------
    WriteError
        If a file cannot be written.
    """
    tensors, settings = bundle.fitted.state()
    weights = pack_tensors({k: v.detach().cpu().contiguous() for k, v in tensors.items()})
    description = {
        "format": FORMAT,
        "system": bundle.system.model_dump(mode="json"),
        "settings": settings,
        "inputs": {name: spec.model_dump(mode="json") for name, spec in bundle.inputs.items()},
        "fingerprints": dict(bundle.fingerprints),
        "classes": list(bundle.classes),
        "temperature": bundle.temperature,
        "emotions": {name: list(common) for name, common in bundle.emotions.items()},
        "trained_on": list(bundle.trained_on),
        "origin": dict(bundle.origin),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }
    files.write_bytes(folder / WEIGHTS, weights)
    files.write_json(folder / DESCRIPTION, {**description, "sha256": files.digest_of(description)})


def load_bundle(folder: Path) -> Bundle:
    """Read and check a bundle.

    Raises
    ------
    BundleError
        If a file is missing or altered, or the format is unknown.
    """
    if not folder.is_dir():
        raise BundleError(
            f"no such model: {folder}; a model is a folder with {DESCRIPTION} and {WEIGHTS}"
        )
    if not (folder / DESCRIPTION).is_file():
        below = sorted(p.parent for p in folder.glob(f"**/{DESCRIPTION}"))
        hint = f"; the models of this run: {list_some(below)}" if below else ""
        raise BundleError(f"{folder} is not a model: it has no {DESCRIPTION}{hint}")
    value = files.read_json(folder / DESCRIPTION, BundleError)
    description = _check_description(folder / DESCRIPTION, value)
    tensors = _read_weights(folder / WEIGHTS, description.weights_sha256)
    system = SYSTEMS[description.system.kind].build(description.system)
    try:
        fitted: Fitted = system.restore(
            Saved(tensors, description.settings, description.inputs, tuple(description.classes))
        )
    except (GenotypeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise BundleError(f"{folder}: weights and description do not fit: {error}") from error
    return Bundle(
        system=description.system,
        fitted=fitted,
        inputs=description.inputs,
        classes=tuple(description.classes),
        fingerprints=description.fingerprints,
        temperature=description.temperature,
        emotions=description.emotions,
        trained_on=description.trained_on,
        origin=description.origin,
    )


def check_bundle(folder: Path) -> None:
    """Check that both files of a bundle are whole, without building its system.

    Raises
    ------
    BundleError
        If a file is missing or altered, or the format is unknown.
    """
    value = files.read_json(folder / DESCRIPTION, BundleError)
    description = _check_description(folder / DESCRIPTION, value)
    _read_weights(folder / WEIGHTS, description.weights_sha256)


def _check_description(path: Path, value: Any) -> _Description:
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        found = value.get("format") if isinstance(value, dict) else value
        raise BundleError(f"{path}: format is {found!r}; allowed: {FORMAT!r}")
    rest = {k: v for k, v in value.items() if k != "sha256"}
    if value.get("sha256") != files.digest_of(rest):
        raise BundleError(f"{path} was altered: its contents do not match its sha256")
    try:
        return _Description.model_validate(value, strict=False)
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(str(p) for p in fault["loc"])
        raise BundleError(f"{path}: {key}: {fault['msg']}") from error


def _read_weights(path: Path, digest: str) -> dict[str, Tensor]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}") from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise BundleError(f"{path} was altered: its SHA-256 is not the one in {DESCRIPTION}")
    try:
        return dict(parse_tensors(data))
    except SafetensorError as error:
        raise BundleError(f"{path} is not safetensors: {error}") from error

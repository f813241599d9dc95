"""A model as a folder of two files that needs neither recipe nor corpus, whatever the system is.

``model.safetensors`` holds what was learned; ``model.json`` holds the system and its keys, how
audio becomes its inputs, the classes, a calibration temperature, where the model comes from, and
the digests by which an altered file is found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as parse_tensors
from safetensors.torch import save as pack_tensors
from torch import Tensor

from emodarts import files
from emodarts.errors import BundleError, GenotypeError, list_some
from emodarts.genotype import Genotype
from emodarts.recipe import SYSTEMS, FeatureSpec, SystemSpec
from emodarts.systems.system import Fitted, Saved

FORMAT = "emodarts.model/3"
WEIGHTS = "model.safetensors"
DESCRIPTION = "model.json"


class _Description(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    format: str
    system: SystemSpec
    settings: dict[str, Any]
    inputs: Annotated[dict[str, FeatureSpec], Field(min_length=1)]
    fingerprints: dict[str, str]
    classes: Annotated[list[str], Field(min_length=2)]
    temperature: Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
    origin: dict[str, Any]
    weights_sha256: str
    sha256: str


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
    temperature : by which the logarithms of the probabilities are divided (Guo et al., 2017,
        arXiv 1706.04599); 1 leaves them as they are.
    origin : corpus, recipe, fold, seed, size and notice, for people to read.
    """

    system: SystemSpec
    fitted: Fitted
    inputs: Mapping[str, FeatureSpec]
    classes: tuple[str, ...]
    fingerprints: Mapping[str, str]
    temperature: float = 1.0
    origin: Mapping[str, Any] = field(default_factory=dict)

    @property
    def genotype(self) -> Genotype | None:
        """The cells of the system, where it has some."""
        return self.fitted.genotype

    def probabilities(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Named feature maps ``(B, C, F, T)``, as extracted -> probabilities ``(B, K)``."""
        found = self.fitted.probabilities(inputs)
        if self.temperature == 1.0:
            return found
        return torch.softmax(found.log() / self.temperature, dim=1)


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
        origin=description.origin,
    )


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

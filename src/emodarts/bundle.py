"""A model as a folder of two files that needs neither recipe nor corpus.

``model.safetensors`` holds the weights; ``model.json`` holds genotype, network, feature spec,
normalisation and labels, and the digests by which an altered file is found.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as parse_tensors
from safetensors.torch import save as pack_tensors
from torch import Tensor

from emodarts import files
from emodarts.errors import BundleError, GenotypeError, list_some
from emodarts.genotype import Genotype
from emodarts.recipe import FeatureSpec, NetworkSpec
from emodarts.systems.discrete import SearchedNetwork
from emodarts.systems.folding import fold
from emodarts.training.batches import Normalisation

FORMAT = "emodarts.model/2"
WEIGHTS = "model.safetensors"
DESCRIPTION = "model.json"


class _Description(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    format: str
    classes: list[str]
    genotype: dict[str, Any]
    network: NetworkSpec
    features: FeatureSpec
    mean: list[list[float]]
    sd: list[list[float]]
    fingerprint: str
    origin: dict[str, Any]
    weights_sha256: str
    sha256: str


@dataclass(frozen=True)
class Bundle:
    """A trained network with all that it needs to hear a file.

    Attributes
    ----------
    network : in eval mode.
    features : how sound becomes the network's input.
    normalisation : of the features, from the training utterances.
    classes : labels in the order of the logits.
    origin : corpus, recipe, fold, seed, size and notice, for people to read.
    fingerprint : of the extractor of the features, e.g. of a checkpoint; see
        :attr:`FeatureExtractor.fingerprint`.
    """

    network: SearchedNetwork
    features: FeatureSpec
    normalisation: Normalisation
    classes: tuple[str, ...]
    origin: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""

    @property
    def genotype(self) -> Genotype:
        """Of the network."""
        return self.network.genotype

    @cached_property
    def _folded(self) -> SearchedNetwork:
        return fold(self.network)

    @torch.inference_mode()
    def probabilities(self, features: Tensor) -> Tensor:
        """Features ``(B, C, F, T)``, not normalised -> probabilities ``(B, n_classes)``."""
        normalised = self.normalisation.apply(features)
        return torch.softmax(self._folded(normalised), dim=1)


def save_bundle(folder: Path, bundle: Bundle) -> None:
    """Write a bundle; the description comes last and makes it whole.

    Raises
    ------
    WriteError
        If a file cannot be written.
    """
    state = {k: v.detach().cpu().contiguous() for k, v in bundle.network.model_state().items()}
    weights = pack_tensors(state)
    description = {
        "format": FORMAT,
        "classes": list(bundle.classes),
        "genotype": bundle.genotype.to_dict(),
        "network": bundle.network.spec.model_dump(mode="json"),
        "features": bundle.features.model_dump(mode="json"),
        "mean": bundle.normalisation.mean.tolist(),
        "sd": bundle.normalisation.sd.tolist(),
        "fingerprint": bundle.fingerprint,
        "origin": bundle.origin,
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
        raise BundleError(f"{folder} is no model, it has no {DESCRIPTION}{hint}")
    value = files.read_json(folder / DESCRIPTION, BundleError)
    description = _check_description(folder / DESCRIPTION, value)
    state = _read_weights(folder / WEIGHTS, description.weights_sha256)
    try:
        network = SearchedNetwork(
            Genotype.from_dict(description.genotype),
            description.network,
            description.features.n_features,
            len(description.classes),
            n_channels=len(description.mean),
        )
        network.load_state_dict(state)
    except (GenotypeError, RuntimeError) as error:
        raise BundleError(f"{folder}: weights and description do not fit: {error}") from error
    return Bundle(
        network=network.eval(),
        features=description.features,
        normalisation=Normalisation(torch.tensor(description.mean), torch.tensor(description.sd)),
        classes=tuple(description.classes),
        fingerprint=description.fingerprint,
        origin=description.origin,
    )


def _check_description(path: Path, value: Any) -> _Description:
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        found = value.get("format") if isinstance(value, dict) else value
        raise BundleError(f"{path}: format is {found!r}; legal: {FORMAT!r}")
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

"""Hidden states of a self-supervised speech model (the extra ``ssl``)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from emodarts.errors import RecipeError, list_some
from emodarts.recipe.features import EmbeddingSpec

_CONFIGS = ("config.json", "preprocessor_config.json")
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
#: The vector that replaces masked frames in training; not used otherwise.
_TRAINING_ONLY = "masked_spec_embed"
#: As in the feature extractor of transformers.
_VARIANCE_FLOOR = 1e-7
_BLOCK = 1 << 20


class Embedding(nn.Module):
    """Hidden states of one layer, or of all, of a frozen model from a folder on disk.

    If the checkpoint requires it, the waveform is normalised to mean 0 and variance 1 over the
    utterance, padding included. There is no attention mask: padding is processed like speech.

    Attributes
    ----------
    fingerprint : SHA-256 over the configuration and the weights.
    """

    def __init__(self, spec: EmbeddingSpec) -> None:
        super().__init__()
        folder = spec.folder
        self.spec = spec
        self.normalise = spec.preprocessor.do_normalize
        self.fingerprint = _content_of(folder)
        self.network = _load(folder).float().requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Embedding:
        """Stay in eval mode: dropout and masks are for the training of the model itself."""
        return super().train(False)

    def forward(self, waveform: Tensor) -> Tensor:
        """(B, n_samples) -> (B, hidden_size, frames), or (B, layers * hidden_size, frames)."""
        if waveform.device.type == "cpu":
            # One at a time, as the rounding of a row may depend on the size of the product.
            return torch.cat([self._states(row[None]) for row in waveform])
        return self._states(waveform)

    def _states(self, waveform: Tensor) -> Tensor:
        if self.normalise:
            variance = waveform.var(dim=1, keepdim=True, correction=0)
            centred = waveform - waveform.mean(dim=1, keepdim=True)
            waveform = centred / (variance + _VARIANCE_FLOOR).sqrt()
        outputs = self.network(waveform, output_hidden_states=True)
        layers: tuple[Tensor, ...] = outputs.hidden_states  # each (B, frames, hidden_size)
        layer = self.spec.layer
        states = torch.cat(layers, dim=2) if layer == "all" else layers[layer]
        return states.transpose(1, 2)


def _content_of(folder: Path) -> str:
    """SHA-256 over configuration and weights. Raises :class:`RecipeError` without weights."""
    if not any((folder / name).is_file() for name in _WEIGHTS):
        pickled = [p.name for p in sorted(folder.glob("*.bin"))]
        found = f"only pickled weights ({list_some(pickled)})" if pickled else "no weights"
        raise RecipeError(
            f"features.checkpoint: {folder} holds {found}; it needs model.safetensors, as "
            "save_pretrained of transformers writes it"
        )
    digest = hashlib.sha256()
    try:
        for path in [*(folder / name for name in _CONFIGS), *sorted(folder.glob("*.safetensors*"))]:
            digest.update(f"{path.name} {path.stat().st_size} ".encode())
            with path.open("rb") as file:
                while block := file.read(_BLOCK):
                    digest.update(block)
    except OSError as error:
        raise RecipeError(f"features.checkpoint: cannot read {path}: {error.strerror}") from error
    return digest.hexdigest()


def _load(folder: Path) -> nn.Module:
    """Load the model without heads. Raises :class:`RecipeError` if weights are missing."""
    try:
        from transformers import AutoModel
    except ImportError as error:
        raise RecipeError(
            "features.kind: embedding needs a package that is not installed; "
            "pip install transformers (the extra `ssl`)"
        ) from error
    try:
        with _quiet():
            network, report = AutoModel.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
    except Exception as error:  # transformers and safetensors raise many types
        raise RecipeError(f"features.checkpoint: cannot load {folder}: {error}") from error
    missing = [key for key in sorted(report["missing_keys"]) if key != _TRAINING_ONLY]
    if missing:
        # transformers would initialise them at random.
        raise RecipeError(f"features.checkpoint: {folder} lacks weights: {list_some(missing)}")
    model: nn.Module = network
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the progress bar and the table of unused heads."""
    logging: Any = import_module("transformers.utils.logging")
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()

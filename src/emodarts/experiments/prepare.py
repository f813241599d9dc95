"""Features of a corpus, computed ahead of the runs that use them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from emodarts.audio.augment import variants_of
from emodarts.cache import default_cache_folder
from emodarts.corpora.utterance import Corpus
from emodarts.dataset import fill_store
from emodarts.progress import Progress
from emodarts.recipe import Recipe


def prepare(
    recipe: Recipe,
    corpus: Corpus,
    device: torch.device,
    progress: Progress,
    *,
    cache: Path | None = None,
    skip_bad: bool = False,
) -> dict[str, Any]:
    """Fill the feature store with what a recipe needs; memory does not grow with the corpus.

    Returns
    -------
    JSON values: ``corpus utterances versions bad store``.

    Raises
    ------
    AudioError
        Naming all unusable audio together.
    """
    chosen = corpus.select(recipe.labels, recipe.styles)
    store = (cache or default_cache_folder()) / "features"
    listing, bad = fill_store(recipe, chosen, store, device, progress, skip_bad=skip_bad)
    return {
        "corpus": corpus.name,
        "utterances": len(listing.utterances),
        "versions": 1 + len(variants_of(recipe.training.augmentation)),
        "bad": [{"name": name, "reason": reason} for name, reason in bad],
        "store": str(store),
    }

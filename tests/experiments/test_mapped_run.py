"""A run whose features stay on the disk leaves the bits of one that has them in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from emodarts.corpora import Corpus
from emodarts.dataset import fill_store, load_dataset
from emodarts.experiments.plan import Options
from emodarts.experiments.run import run
from emodarts.progress import Silent
from emodarts.recipe import Recipe

#: With missing frames, augmented versions and random stretches.
CHANGES = {
    "features": {"padding": "masked", "duration": 1.2},
    "training": {
        "epochs": 2,
        "crop": 0.8,
        "augmentation": {"copies": 1, "gain": [-6.0, 6.0]},
    },
    "search": {"epochs": 2},
    "evaluation": {"folds": [0]},
}


def recipe_with(recipe: Recipe, place: str) -> Recipe:
    value = recipe.to_dict()
    for section, keys in CHANGES.items():
        value[section] |= keys
    value["compute"] |= {"features": place, "fast": False}
    return Recipe.from_dict(value)


def test_results_are_the_same_bits(
    corpus: Corpus, tiny_recipe: Recipe, cache: Path, tmp_path: Path
) -> None:
    for place in ("memory", "mapped"):
        run(recipe_with(tiny_recipe, place), corpus, tmp_path / place, Options(cache=cache))
    assert list((cache / "features" / "mapped").glob("*.f32"))
    for name in ("predictions.csv", "alphas.json", "genotype.json", "model/model.safetensors"):
        one, other = (tmp_path / p / "fold-0/seed-0" / name for p in ("memory", "mapped"))
        assert one.read_bytes() == other.read_bytes(), name


@pytest.mark.parametrize(("memory_pages", "mapped"), [(4 * 10**6, False), (10, True)])
def test_auto_maps_what_is_larger_than_a_quarter_of_the_memory(
    corpus: Corpus,
    tiny_recipe: Recipe,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    memory_pages: int,
    mapped: bool,
) -> None:
    sizes = {"SC_PHYS_PAGES": memory_pages, "SC_PAGE_SIZE": 4096}
    device, store = torch.device("cpu"), cache / "features"
    listing, _ = fill_store(tiny_recipe, corpus, store, device, Silent())
    monkeypatch.setattr("os.sysconf", sizes.__getitem__)
    data = load_dataset(tiny_recipe, listing, store, device)
    assert data.maps["features"].mapped == mapped

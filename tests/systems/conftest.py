"""A small data set, its parts, and recipes of every system for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from emodarts.corpora import load_corpus
from emodarts.dataset import Dataset, fill_store, load_dataset
from emodarts.layout import TrialFolder
from emodarts.progress import Silent
from emodarts.recipe import SYSTEMS, Recipe
from emodarts.splits import Parts, make_folds, make_parts
from emodarts.systems.system import FitTask

CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def recipe_of(tiny_recipe: Recipe) -> Callable[..., Recipe]:
    """The tiny recipe with another system, without the sections that it does not use."""

    def make(kind: str = "searched", **changes: Any) -> Recipe:
        value = tiny_recipe.to_dict()
        value["compute"]["fast"] = False
        value["features"]["padding"] = "zeros"  # for systems that need maps of one length
        for section in ("network", "search", "training"):
            if section not in SYSTEMS[kind].spec.sections:
                del value[section]
        value["system"] = {"kind": kind}
        for key, change in changes.items():
            value[key] = {**value[key], **change}
        return Recipe.from_dict(value)

    return make


@pytest.fixture(scope="session")
def data(
    recipe_of: Callable[..., Recipe], tiny_emodb: Path, tmp_path_factory: pytest.TempPathFactory
) -> Dataset:
    store, recipe = tmp_path_factory.mktemp("store"), recipe_of()
    corpus = load_corpus("emodb", tiny_emodb)
    listing, _ = fill_store(recipe, corpus, store, CPU, Silent())
    return load_dataset(recipe, listing, store, CPU)


@pytest.fixture(scope="session")
def parts(data: Dataset, tiny_emodb: Path) -> Parts:
    corpus = load_corpus("emodb", tiny_emodb)
    return make_parts(data.utterances, make_folds(corpus, "groups:3").folds[0], "full", 0)


@pytest.fixture
def task_of(data: Dataset, parts: Parts, tmp_path: Path) -> Callable[..., FitTask]:
    def make(recipe: Recipe, folder: str = "trial", **changes: Any) -> FitTask:
        task = FitTask(
            recipe=recipe,
            data=data,
            parts=parts.without_test(),
            seed=1,
            folder=TrialFolder(tmp_path / folder),
            device=CPU,
            progress=Silent(),
            title="fold 0 seed 0",
        )
        return dataclasses.replace(task, **changes)

    return make

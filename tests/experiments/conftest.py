"""What tests of runs and trials share."""

from __future__ import annotations

from pathlib import Path

import pytest

from emodarts.corpora import Corpus, load_corpus
from emodarts.recipe import Recipe


@pytest.fixture(scope="module")
def corpus(tiny_emodb: Path) -> Corpus:
    return load_corpus("emodb", tiny_emodb)


@pytest.fixture
def majority(tiny_recipe: Recipe) -> Recipe:
    """A system that is fitted at once."""
    value = tiny_recipe.to_dict()
    kept = {key: value[key] for key in ("features", "evaluation", "compute")}
    return Recipe.from_dict({**kept, "system": {"kind": "majority"}})

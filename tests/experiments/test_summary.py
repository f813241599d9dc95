"""What a run must say of its searches."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from emodarts.experiments.summary import warnings_of
from emodarts.genotype import Genotype
from emodarts.recipe import load_recipe
from emodarts.searching.derivation import random_genotype

RECIPE = load_recipe("emodarts")


def warnings(genotypes: list[Genotype], origin: str = "searched", **facts: Any) -> list[str]:
    results = [
        {"fold": fold, "seed": 0, "genotype": genotype.to_dict(), **facts}
        for fold, genotype in enumerate(genotypes)
    ]
    header = {"warnings": [], "genotypes": origin, "n_folds": len(genotypes)}
    return warnings_of(results, header, RECIPE)


@pytest.fixture
def random_ones() -> list[Genotype]:
    generator = torch.Generator().manual_seed(1)
    return [random_genotype(RECIPE.network, generator) for _ in range(5)]


def test_searches_that_agree_as_random_ones_do_are_warned_of(random_ones: list[Genotype]) -> None:
    [warning] = warnings(random_ones)
    assert "the genotypes of 5 searches are indistinguishable from a random choice" in warning
    assert "emodarts headroom" in warning


def test_searches_that_agree_are_not_warned_of(random_ones: list[Genotype]) -> None:
    assert warnings([random_ones[0]] * 5) == []
    assert warnings(random_ones[:2]) == [], "two can hardly agree"
    assert warnings(random_ones, origin="random") == []


def test_a_supernet_that_was_never_above_chance_is_warned_of(random_ones: list[Genotype]) -> None:
    same = [random_ones[0]] * 3
    assert warnings(same, search={"above_chance": True}) == []
    [warning] = warnings(same, search={"above_chance": False})
    assert warning.startswith("in 3 of 3 searches the supernet was never clearly above chance")
    assert warning.endswith("is arbitrary: fold 0 seed 0, fold 1 seed 0, fold 2 seed 0")

"""The grids of the documentation: what they vary exists, and makes other recipes."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from emodarts.recipe import load_recipe

GRIDS = sorted((Path(__file__).parents[1] / "docs" / "grids").glob("*.yaml"))


@pytest.mark.parametrize("path", GRIDS, ids=lambda p: p.stem)
def test_every_combination_of_a_grid_is_a_recipe_of_its_own(path: Path) -> None:
    grid: dict[str, Any] = yaml.safe_load(path.read_text())
    recipes = grid["recipes"]
    names = (
        recipes if isinstance(recipes, list) else [n for group in recipes.values() for n in group]
    )
    combinations = list(itertools.product(*grid.get("axes", [])))
    digests = set()
    for name, choices in itertools.product(names, combinations):
        changes = dict(grid.get("set", {}))
        for choice in choices:
            changes |= choice
        overrides = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
        digests.add(load_recipe(name, overrides).digest())
    assert len(digests) == len(names) * len(combinations)

"""``docs/recipes.md`` tells of every key of a recipe as it is."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from pydantic import BaseModel

from emodarts import recipe
from emodarts.recipe.features import FEATURES

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_recipes", DOCS / "make_recipes.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(DOCS / "make_recipes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_page_is_up_to_date(script: ModuleType) -> None:
    assert (DOCS / "recipes.md").read_text(encoding="utf-8") == script.render(), (
        "run: python docs/make_recipes.py"
    )


def test_every_key_has_a_row(script: ModuleType) -> None:
    page = script.render()
    rows = set(re.findall(r"^\| `([a-z0-9_.]+)` \|", page, flags=re.MULTILINE))

    def keys(value: dict[str, object], prefix: str) -> set[str]:
        found: set[str] = set()
        for key, inner in value.items():
            name = prefix + key
            found |= keys(inner, f"{name}.") if isinstance(inner, dict) else {name}
        return found

    for kind in FEATURES.values():
        assert {f"features.{key}" for key in kind.spec.model_fields} <= rows
    for mode in ("searched", "fixed", "none"):
        full = recipe.Recipe.from_dict({"network": {"seqnn": {"mode": mode}}})
        assert keys(full.to_dict(), "") <= rows


def test_every_key_has_a_meaning(script: ModuleType) -> None:
    models = [
        m
        for m in vars(recipe).values()
        if isinstance(m, type) and issubclass(m, BaseModel) and m.__module__ == recipe.__name__
    ]
    for model in (*models, *(kind.spec for kind in FEATURES.values())):
        sections = {"cnn", "seqnn", "weights", "alphas", "masks"}
        sections |= {"features", "network", "search", "training", "evaluation", "compute"}
        assert set(model.model_fields) - sections <= set(script.meanings_of(model)), model


def test_example_of_the_page_is_a_recipe(script: ModuleType, tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", script.render(), flags=re.DOTALL)
    (tmp_path / "r.yaml").write_text(example, encoding="utf-8")
    assert recipe.load_recipe(tmp_path / "r.yaml").search.weights.learning_rate == 0.01

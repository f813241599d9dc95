"""Every built-in recipe at its smallest, from audio to one table of all."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml

from emodarts.corpora import load_corpus, synthetic
from emodarts.experiments.plan import Options
from emodarts.experiments.run import run
from emodarts.recipe import Recipe, builtin_recipes, load_recipe
from emodarts.reports.markdown import to_markdown
from emodarts.reports.report import compare, load_result

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from comparison import LEFT_OUT, SIZES, compared_recipes, smaller_recipe, write

LINEAR = ("svm", "logistic_regression")


@pytest.mark.slow
def test_every_row_of_the_comparison_is_filled_by_a_run(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic, "TAKES", 1)
    corpus = load_corpus("synthetic", tmp_path / "corpus")
    runs, searches = [], set()
    for name in compared_recipes():
        value = smaller_recipe(name, SIZES["tiny"]).to_dict()
        value["labels"] = None
        value["evaluation"] |= {"split": "groups:4", "folds": [0]}
        value["compute"] |= {"device": "cpu", "threads": 1, "fast": False}
        recipe = Recipe.from_dict(value)
        runs.append(tmp_path / name)
        run(recipe, corpus, runs[-1], Options(cache=cache))
        searches |= {name} if recipe.searches else set()
    for path in runs:
        result = load_result(path)
        assert result["name"] == path.name
        assert 0.0 <= result["ua"] <= 1.0
        assert min(result["parameters"], result["multiply_adds"]) > 0
        spent = result["cost"]
        assert ("search" in spent) == (path.name in searches)
        assert spent["training"]["peak_memory"] > 50
        assert (spent["training"]["steps"] > 0) == (result["system"] not in LINEAR)
        if path.name in searches - {"random"}:  # which draws cells and trains no candidate
            assert min(spent["search"].values()) > 0
    text = to_markdown(compare(runs))
    sections = dict(re.findall(r"^#+ (.+)\n((?:(?!#).*\n)*)", text, re.MULTILINE))
    for title in ("Result", "Classes", "Time and memory"):
        rows = re.findall(r"^\| (?!system|baseline|---)", sections[title], re.MULTILINE)
        assert len(rows) == len(runs)
    differences = re.findall(r"^\| (\S+) − (\S+) +\|", text, re.MULTILINE)
    against = {b for _, b in differences}
    assert "random" in against
    assert len(against) == 2
    assert len(differences) == 2 * (len(runs) - 1) - 1


def test_a_size_leaves_systems_as_they_are_and_gives_all_one_budget(tmp_path: Path) -> None:
    path = write(tmp_path, SIZES["core"], "EMODB")
    grid = yaml.safe_load(path.read_text())
    assert grid["folds"] == [0, 1]
    names = [Path(recipe).stem for recipe in grid["recipes"]]
    assert set(names) == set(builtin_recipes()) - set(LEFT_OUT)
    keys = [smaller_recipe(name, SIZES["core"]).to_dict() | {"name": ""} for name in names]
    assert all(keys.count(recipe) == 1 for recipe in keys)  # a grid refuses one run twice
    for name in names:
        own, written = load_recipe(name), load_recipe(tmp_path / "recipes" / f"{name}.yaml")
        assert written == smaller_recipe(name, SIZES["core"])
        assert written.name == name
        assert written.system.kind == own.system.kind
        assert written.searches == own.searches
        if own.searches:
            assert written.search.strategy == own.search.strategy
        if "training" in own.system.sections:
            # Protocol `paper` trains on 30 % of the utterances, in a quarter of the steps an epoch.
            epochs = 80 if own.evaluation.protocol == "paper" else 20
            assert (written.training.epochs, written.training.ensemble) == (epochs, 1)

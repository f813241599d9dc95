"""What the documentation says exists: links, commands, options, recipes."""

import csv
import importlib
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.nn import functional
from typer.main import get_command

import emodarts
from emodarts.cli.app import app
from emodarts.corpora import load_corpus
from emodarts.errors import RecipeError
from emodarts.experiments.plan import Options
from emodarts.experiments.run import run
from emodarts.fast import Implementation
from emodarts.layout import TrialFolder
from emodarts.recipe import SPACES, STRATEGIES, SYSTEMS, Recipe, builtin_recipes
from emodarts.reports.report import load_result
from emodarts.searching.supernet import Supernet
from toy_search import make_task, search

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
RECIPES = sorted(builtin_recipes().values())


def commands_in(text: str) -> list[list[str]]:
    """Words of every ``emodarts ...`` line, continuation lines joined, comments cut."""
    lines = text.replace("\\\n", " ").splitlines()
    found = [re.fullmatch(r"[#\s]*(?:\$ )?(emodarts [a-z].*)", line) for line in lines]
    return [shlex.split(match[1], comments=True) for match in found if match]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", [*PAGES, *RECIPES], ids=lambda p: p.name)
def test_nothing_is_left_to_fill_in(page: Path) -> None:
    assert not re.search(r"\b(TODO|TBD|FIXME|XXX|[A-Z]+_(MINUTES|TABLE))\b", page.read_text())


@pytest.mark.parametrize("page", [*PAGES, *RECIPES], ids=lambda p: p.name)
def test_commands_and_options_exist(page: Path) -> None:
    known = getattr(get_command(app), "commands", {})
    for _, command, *words in commands_in(page.read_text()):
        assert command in known, command
        options = {o for parameter in known[command].params for o in parameter.opts}
        for word in words:
            assert not word.startswith("--") or word in {*options, "--help"}, f"{command} {word}"


@pytest.mark.parametrize("page", [*PAGES, *RECIPES], ids=lambda p: p.name)
def test_commands_work_from_any_folder(page: Path) -> None:
    """Recipes are named, not files of this repository."""
    for _, command, *words in commands_in(page.read_text()):
        if command in ("run", "search", "train", "headroom", "prepare") and words[0][0] != "-":
            assert words[0] in builtin_recipes() or not (ROOT / words[0]).exists(), words


def test_the_quickstart_shows_commands() -> None:
    shown = {words[1] for words in commands_in((ROOT / "docs" / "quickstart.md").read_text())}
    assert shown >= {"corpora", "run", "search", "train", "predict", "report", "evaluate"}


def test_every_recipe_tells_its_command() -> None:
    for path in RECIPES:
        assert commands_in(path.read_text()), path.name


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Import a module that docs/extending.md shows, from a folder of its own."""
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")

    def load(name: str) -> ModuleType:
        [module] = re.findall(rf'```python\n("""{name}.py.*?)```', text, flags=re.DOTALL)
        (tmp_path / f"{name}.py").write_text(module, encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    return load


def test_example_of_a_system(
    example: Callable[[str], ModuleType],
    tiny_recipe: Recipe,
    tiny_emodb: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has a row and a bundle that classifies its training speakers."""
    monkeypatch.setitem(SYSTEMS, "nearest", SYSTEMS["majority"])  # and away at the end
    example("nearest")
    features = tiny_recipe.features.model_dump(mode="json")
    recipe = Recipe.from_dict({"features": features, "system": {"kind": "nearest"}, "name": "near"})
    corpus = load_corpus("emodb", tiny_emodb)
    result = run(recipe, corpus, tmp_path / "run", Options(cache=cache))
    assert (result["system"], result["parameters"]) == ("nearest", 4 * 16)
    assert load_result(tmp_path / "run")["cost"]["training"]["peak_memory"] > 0
    assert result["ua"] > 0.5
    model = emodarts.load(str(tmp_path / "run" / "fold-0" / "seed-0" / "model"))
    assert model.predict(corpus.utterances[0].path)[0].label in corpus.classes


@pytest.mark.parametrize("implementation", ["plain", "torch", "compiled"])
def test_example_of_a_space(
    example: Callable[[str], ModuleType],
    implementation: Implementation,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its operations count, forwards and backwards, in every implementation of the cells."""
    monkeypatch.setitem(SPACES, "wide", SPACES["all"])  # and away at the end
    example("wide")
    network = Recipe.from_dict(
        {
            "network": {
                "cnn": {"space": "wide", "cells": 3, "nodes": 2, "channels": 2},
                "seqnn": {"space": "wide", "cells": 1, "nodes": 2, "width": 3},
            }
        }
    ).network
    assert network.operations["normal"][0] == "sep_conv_7x7"
    x = torch.randn(3, 1, 12, 9, dtype=torch.float64)
    found = {}
    for name in ("plain", implementation):
        torch.manual_seed(0)
        supernet = Supernet(network, 12, 3, implementation=name).double().train()
        torch.manual_seed(1)  # of dropout
        loss = functional.cross_entropy(supernet(x), torch.tensor([0, 1, 2]))
        alphas = list(supernet.alpha_parameters().values())
        weights = [w for k, w in supernet.weight_parameters().items() if ".layers." in k]
        found[name] = torch.autograd.grad(loss, [*alphas, *weights], materialize_grads=True)
        # The columns of the new operations: without them, there would be nothing to search.
        assert all(g[:, 0].abs().max() > 1e-9 for g in found[name][: len(alphas)])
    for mine, reference in zip(found[implementation], found["plain"], strict=True):
        torch.testing.assert_close(mine, reference, atol=1e-10, rtol=1e-8)


def test_example_of_a_search_strategy(
    example: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys in a recipe, and edges that are more decided the more the penalty weighs."""
    monkeypatch.setitem(STRATEGIES, "decided", STRATEGIES["darts"])  # and away at the end
    example("decided")
    entropies = []
    for weight in (0.0, 100.0):
        keys = {"strategy": "decided", "epochs": 4, "batch_size": 6, "entropy_weight": weight}
        spec = Recipe.from_dict({"search": {**keys, "alphas": {"learning_rate": 0.1}}}).search
        folder = tmp_path / str(weight)
        search(spec, make_task(folder))
        with TrialFolder(folder).search_history.open() as file:
            entropies.append(float(list(csv.DictReader(file))[-1]["entropy_normal"]))
    assert entropies[1] < entropies[0]
    with pytest.raises(RecipeError, match="hessian"):
        Recipe.from_dict({"search": {**keys, "hessian": "exact"}})

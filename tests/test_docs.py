"""What the documentation says exists: links, commands, options, recipes."""

import csv
import importlib
import re
import shlex
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from emodarts.cli.app import app
from emodarts.errors import RecipeError
from emodarts.layout import TrialFolder
from emodarts.recipe import STRATEGIES, Recipe, builtin_recipes
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


def test_the_readme_shows_commands() -> None:
    shown = {words[1] for words in commands_in((ROOT / "README.md").read_text())}
    assert shown >= {"corpora", "run", "search", "train", "predict", "report"}


def test_every_recipe_tells_its_command() -> None:
    for path in RECIPES:
        assert commands_in(path.read_text()), path.name


def test_example_of_a_search_strategy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys in a recipe, and edges that are more decided the more the penalty weighs."""
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    [module] = re.findall(r'```python\n("""decided.py.*?)```', text, flags=re.DOTALL)
    (tmp_path / "decided.py").write_text(module, encoding="utf-8")
    monkeypatch.setitem(STRATEGIES, "decided", STRATEGIES["darts"])  # and away at the end
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "decided", raising=False)
    importlib.import_module("decided")
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

"""Options and the keys of the recipe that they set."""

from __future__ import annotations

from functools import reduce
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from typer.main import get_command

from emodarts.cli.app import app
from emodarts.cli.options import (
    PrepareRequest,
    RunRequest,
    hint_for_key,
    load_requested_recipe,
    recipe_options,
)
from emodarts.errors import RecipeError
from emodarts.recipe import ComputeSpec, EvaluationSpec, Recipe

#: Text of each option, and the value of its key.
GIVEN: dict[str, tuple[Any, Any]] = {
    "labels": (["a,b", "c"], ["a", "b", "c"]),
    "styles": ("improvised,song", ["improvised", "song"]),
    "device": ("cpu", "cpu"),
    "split": ("official", "official"),
    "allow_speaker_overlap": (True, True),
    "allow_duplicates": (True, True),
    "protocol": ("paper", "paper"),
    "folds": ("0,2", [0, 2]),
    "seeds": ("3,1", [3, 1]),
    "precision": ("bf16", "bf16"),
}


def request(**given: Any) -> RunRequest:
    return RunRequest(recipe="demo", corpus="synthetic", **given)


def value_at(recipe: Recipe, key: str) -> Any:
    return reduce(lambda value, part: value[part], key.split("."), recipe.to_dict())


def test_every_option_of_a_key_is_named_after_its_field() -> None:
    assert set(recipe_options(RunRequest)) == set(GIVEN)
    known = getattr(get_command(app), "commands", {})["run"].params
    names = {parameter.name: parameter.opts for parameter in known}
    for field in recipe_options(RunRequest):
        assert names[field] == [f"--{field.replace('_', '-')}"]


@pytest.mark.parametrize("field", GIVEN)
def test_an_option_sets_its_key_and_no_other(field: str) -> None:
    given, expected = GIVEN[field]
    split = {"split": "official"} if field == "allow_speaker_overlap" else {}
    before = load_requested_recipe(request(**split)).to_dict()
    recipe = load_requested_recipe(request(**split, **{field: given}))
    key = recipe_options(RunRequest)[field].key
    assert value_at(recipe, key) == expected
    after = recipe.to_dict()
    *parents, last = key.split(".")
    for value in (before, after):
        del reduce(lambda inner, part: inner[part], parents, value)[last]
    assert before == after


def test_an_option_counts_more_than_set() -> None:
    changes = ["evaluation.seeds=[5]", "search.epochs=7"]
    recipe = load_requested_recipe(request(changes=changes, seeds="6"))
    assert recipe.evaluation.seeds == (6,)
    assert value_at(recipe, "search.epochs") == 7


def test_features_are_prepared_with_the_same_options() -> None:
    shared = {"labels", "styles", "device"}
    assert set(recipe_options(PrepareRequest)) == shared
    recipe = load_requested_recipe(
        PrepareRequest(recipe="demo", corpus="synthetic", labels=["four"])
    )
    assert recipe.labels == ("anger", "happiness", "neutral", "sadness")


@pytest.mark.parametrize(
    ("field", "section", "key"),
    [
        ("device", ComputeSpec, "device"),
        ("precision", ComputeSpec, "precision"),
        ("protocol", EvaluationSpec, "protocol"),
    ],
)
def test_choices_are_those_of_the_recipe(field: str, section: type, key: str) -> None:
    def choices(hint: Any) -> tuple[Any, ...]:
        if get_origin(hint) is Literal:
            return get_args(hint)
        return next(found for arg in get_args(hint) if (found := choices(arg)))

    assert choices(get_type_hints(RunRequest)[field]) == choices(get_type_hints(section)[key])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"split": "random"}, "--split: evaluation: split 'random'; allowed: speaker, session"),
        ({"folds": "0,x"}, "--folds: evaluation.folds.1: 'x'"),
        ({"seeds": "1,1"}, "--seeds: evaluation: seeds [1, 1] lists a number twice"),
        ({"labels": ["foru"]}, "--labels: labels ['foru'] (did you mean 'four'?); allowed"),
        ({"changes": ["epochs"]}, "--set 'epochs'; allowed: KEY=VALUE"),
    ],
)
def test_a_wrong_value_is_named_with_its_option(given: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_requested_recipe(request(**given))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("given", "hints"),
    [
        ("--epochs 3", "--set search.epochs=3, --set training.epochs=3"),
        ("--epochs=3", "--set search.epochs=3, --set training.epochs=3"),
        ("--label-smoothing 0.1", "--set training.label_smoothing=0.1"),
        ("--training.epochs", "--set training.epochs=VALUE"),
        ("--recurrent gru", "--set system.recurrent=gru, --set network.seqnn.recurrent=gru"),
        ("--candidates 4", "--set search.candidates=4"),
    ],
)
def test_an_option_that_is_a_key_gets_a_hint(given: str, hints: str) -> None:
    words = ["quick", *given.split()]
    option = words[1].partition("=")[0]
    assert hint_for_key(option, words) == f"; keys of the recipe are set by {hints}"


def test_an_option_that_is_nothing_gets_no_hint() -> None:
    assert hint_for_key("--nonsense", ["--nonsense", "3"]) == ""
    assert hint_for_key("--pochs", ["--pochs", "3"]) == ""


def test_a_fold_file_is_a_split(tmp_path: Path) -> None:
    split = str(tmp_path / "folds.json")
    assert load_requested_recipe(request(split=split)).evaluation.split == split

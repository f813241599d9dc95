"""Runs that are resumed with more folds and seeds, and those that cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from emodarts import files
from emodarts.corpora import Corpus
from emodarts.cost import MEASURED
from emodarts.errors import RunError
from emodarts.experiments.run import Options, run
from emodarts.genotype import Genotype
from emodarts.recipe import Recipe, load_recipe


def of(recipe: Recipe, **values: Any) -> Recipe:
    evaluation = recipe.evaluation.model_copy(update=values)
    return recipe.model_copy(update={"evaluation": evaluation})


def contents(out: Path) -> dict[str, Any]:
    """What a run leaves, but for times."""
    found: dict[str, Any] = {}
    for path in sorted(p for p in out.rglob("*") if p.is_file()):
        name = str(path.relative_to(out))
        if path.name == "result.json":
            value = files.read_object(path, RunError)
            found[name] = {k: v for k, v in value.items() if k not in MEASURED}
        elif path.name not in ("environment.json", "choice.json"):
            found[name] = path.read_bytes()
    return found


@pytest.mark.parametrize(
    ("first", "second", "whole"),
    [
        ({"folds": (0,)}, {"folds": (0, 1)}, {"folds": (0, 1)}),
        ({"folds": (1,)}, {"folds": (0,)}, {"folds": (0, 1)}),
        ({"folds": (2,)}, {"folds": None}, {"folds": None}),
        ({"seeds": (3,)}, {"seeds": (3, 1)}, {"seeds": (3, 1)}),
        ({"seeds": (3,)}, {"seeds": (1,)}, {"seeds": (3, 1)}),
        ({"folds": (0,)}, {"folds": (1,), "seeds": (0, 2)}, {"folds": (0, 1), "seeds": (0, 2)}),
    ],
)
def test_folds_and_seeds_are_added_as_if_they_had_been_asked_for_at_once(
    majority: Recipe,
    corpus: Corpus,
    cache: Path,
    tmp_path: Path,
    first: dict[str, Any],
    second: dict[str, Any],
    whole: dict[str, Any],
) -> None:
    again = Options(cache=cache, resume=True)
    run(of(majority, **first), corpus, tmp_path / "added", Options(cache=cache))
    added = run(of(majority, **second), corpus, tmp_path / "added", again)
    at_once = run(of(majority, **whole), corpus, tmp_path / "at once", Options(cache=cache))
    assert added == at_once
    assert contents(tmp_path / "added") == contents(tmp_path / "at once")
    assert run(load_recipe(tmp_path / "added" / "recipe.yaml"), corpus, tmp_path / "added", again)


def test_other_settings_are_named(
    tiny_recipe: Recipe, corpus: Corpus, cache: Path, tmp_path: Path
) -> None:
    value = tiny_recipe.to_dict()
    value["search"] = {"strategy": "random"}
    begun = of(Recipe.from_dict(value), folds=(0,))
    run(begun, corpus, tmp_path / "run", Options(cache=cache, train=False))
    value["search"] = {"strategy": "halving"}
    value["training"]["epochs"] = 9
    with pytest.raises(RunError) as caught:
        run(Recipe.from_dict(value), corpus, tmp_path / "run", Options(cache=cache, resume=True))
    assert (
        'other settings: search.strategy is "random" there and "halving" here, training.epochs is '
        "4 there and 9 here; resume it" in str(caught.value)
    )


def test_given_and_searched_genotypes_do_not_mix(
    tiny_recipe: Recipe, corpus: Corpus, cache: Path, tmp_path: Path
) -> None:
    value = tiny_recipe.to_dict()
    value["search"] = {"strategy": "random"}
    begun = of(Recipe.from_dict(value), folds=(0,))
    half = Options(cache=cache, train=False)
    run(begun, corpus, tmp_path / "run", half)
    genotype = Genotype.load(tmp_path / "run" / "fold-0" / "seed-0" / "genotype.json")
    given = Options(cache=cache, search=False, genotype=genotype, resume=True)
    with pytest.raises(RunError, match=r"genotypes of .* are random; resume it without --genotype"):
        run(of(begun, folds=(1,)), corpus, tmp_path / "run", given)
    assert not (tmp_path / "run" / "fold-1").exists()

"""One trial: what it leaves, and that it can be killed at any file it writes."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from emodarts import files
from emodarts.corpora import Corpus, load_corpus
from emodarts.cost import MEASURED
from emodarts.errors import AudioError, RunError
from emodarts.experiments.plan import Options, TrialSpec, make_plan
from emodarts.experiments.run import run
from emodarts.experiments.trial import carry_out, forget_data
from emodarts.progress import Silent
from emodarts.recipe import Recipe
from emodarts.splits import make_folds, make_parts

TIMED = ("environment.json", "choice.json", "search.safetensors", "training.safetensors")


def test_protocol_and_seed_make_the_parts(
    corpus: Corpus, tiny_recipe: Recipe, cache: Path, tmp_path: Path
) -> None:
    value = tiny_recipe.to_dict()
    value["evaluation"] |= {"protocol": "paper", "folds": [1], "seeds": [0, 5]}
    make_plan(Recipe.from_dict(value), corpus, tmp_path / "run", Options(cache=cache), Silent())
    written = files.read_object(tmp_path / "run" / "folds.json", RunError, "folds")
    fold = make_folds(corpus, "groups:3").folds[1]
    for entry, seed in zip(written["folds"], (0, 5), strict=True):
        parts = make_parts(corpus.utterances, fold, "paper", seed)
        assert entry == {"fold": 1, "seed": seed, **parts.names(corpus.utterances)}


def test_a_spec_is_all_that_another_process_needs(
    tiny_emodb: Path, majority: Recipe, tmp_path: Path
) -> None:
    """The audio is not needed any more, nor anything but JSON values."""
    folder = tmp_path / "audio"
    folder.mkdir()
    for path in tiny_emodb.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    options = Options(cache=tmp_path / "cache")
    corpus = load_corpus("emodb", folder)
    plan = make_plan(majority, corpus, tmp_path / "run", options, Silent())
    for path in folder.iterdir():
        path.unlink()
    text = json.dumps(plan.trials[2].to_dict())
    assert TrialSpec(**json.loads(text)) == plan.trials[2]
    command = [sys.executable, "-m", "emodarts.experiments.trial", text]
    subprocess.run(command, check=True, cwd=tmp_path)
    result = files.read_json(tmp_path / "run" / "fold-2" / "seed-0" / "result.json", RunError)
    assert (result["fold"], result["ua"]) == (2, 0.25)
    assert not (tmp_path / "run" / "fold-1").exists()


def test_folds_and_seeds_draw_independently(
    corpus: Corpus, majority: Recipe, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = majority.to_dict()
    value["evaluation"] |= {"folds": [0, 1], "seeds": [0, 1]}
    seeds = []

    class Spy:
        def __init__(self, spec: Any) -> None:
            pass

        def fit(self, task: Any) -> Any:
            seeds.append(task.seed)
            assert task.parts.test == ()
            raise RunError("enough")

    kinds = type(majority.system).kinds()
    spied = dataclasses.replace(kinds["majority"], implementation=Spy)
    monkeypatch.setitem(kinds, "majority", spied)  # type: ignore[arg-type]
    recipe = Recipe.from_dict(value)
    plan = make_plan(recipe, corpus, tmp_path / "run", Options(cache=cache), Silent())
    for spec in plan.trials:
        with pytest.raises(RunError, match="enough"):
            carry_out(spec, Silent())
    assert len(set(seeds)) == 4


@pytest.mark.parametrize(
    ("name", "change", "error", "message"),
    [
        ("recipe.yaml", lambda t: t.replace("groups:3", "groups:2"), RunError, "not the recipe"),
        ("utterances.csv", lambda t: t.replace("anger", "fear"), RunError, "not the table"),
        ("folds.json", lambda t: t.replace('"fold": 0', '"fold": 9'), RunError, "no parts of"),
    ],
)
def test_an_altered_header_is_refused(
    corpus: Corpus,
    majority: Recipe,
    cache: Path,
    tmp_path: Path,
    name: str,
    change: Any,
    error: type[Exception],
    message: str,
) -> None:
    plan = make_plan(majority, corpus, tmp_path / "run", Options(cache=cache), Silent())
    path = tmp_path / "run" / name
    path.write_text(change(path.read_text()))
    forget_data()
    with pytest.raises(error, match=message):
        carry_out(plan.trials[0], Silent())


def test_a_store_that_was_emptied_is_named(
    corpus: Corpus, majority: Recipe, tmp_path: Path
) -> None:
    plan = make_plan(majority, corpus, tmp_path / "run", Options(cache=tmp_path), Silent())
    empty = dataclasses.replace(plan.trials[0], store=str(tmp_path / "elsewhere"))
    with pytest.raises(AudioError, match="elsewhere"):
        carry_out(empty, Silent())


def contents(out: Path) -> dict[Path, Any]:
    """What a run leaves, but for events and what holds times."""
    found: dict[Path, Any] = {}
    for path in sorted(p for p in out.rglob("*") if p.is_file()):
        name = path.relative_to(out)
        if name.name in ("search.csv", "training.csv"):
            rows = files.read_csv(path, RunError)
            found[name] = [{k: v for k, v in row.items() if k not in MEASURED} for row in rows]
        elif name.match("seed-*/result.json"):
            result = files.read_object(path, RunError)
            found[name] = {k: v for k, v in result.items() if k not in MEASURED}
        elif "events" not in name.parts and name.name not in TIMED:
            found[name] = path.read_bytes()
    return found


def test_a_run_killed_at_every_file_it_writes_ends_as_one_never_killed(
    corpus: Corpus, tiny_recipe: Recipe, cache: Path, tmp_path: Path
) -> None:
    value = tiny_recipe.to_dict()
    value["search"] |= {"epochs": 2}
    value["training"] |= {"epochs": 2, "optimistic": True}
    value["evaluation"] |= {"folds": [0]}
    recipe = Recipe.from_dict(value)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    expected = run(recipe, corpus, whole, Options(cache=cache))

    class Killed(BaseException):
        pass

    write, stopped_at = files.write_bytes, set[Path]()

    def stop(path: Path, content: bytes) -> None:
        if killed in path.parents and path not in stopped_at:
            stopped_at.add(path)
            raise Killed
        write(path, content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "write_bytes", stop)
        for _ in range(100):
            try:
                result = run(recipe, corpus, killed, Options(cache=cache, resume=killed.exists()))
                break
            except Killed:
                continue
    assert result == expected
    assert contents(killed) == contents(whole)

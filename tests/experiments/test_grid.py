"""Grids: what a file asks for, what is run, what is run again, and what the tables show."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from emodarts import files
from emodarts.cli.app import app
from emodarts.errors import EmodartsError, RecipeError, RunError
from emodarts.experiments.grid import GridFile
from emodarts.experiments.grid_plan import AskedRun, asked_runs, lay_out
from emodarts.experiments.grid_run import run_grid
from emodarts.experiments.runners import RUNNERS, Means, TrialReport
from emodarts.experiments.spec import TrialSpec
from emodarts.experiments.trial import carry_out
from emodarts.progress import Silent
from emodarts.reports.grid import grid_page, plan_page
from emodarts.reports.markdown import to_markdown
from emodarts.reports.page import write_page

FEATURES = {"sample_rate": 8000, "duration": 1.0, "n_fft": 256, "hop_length": 128, "n_mels": 16}


class Here:
    """Carries trials out in this process, but for those that are to fail, and remembers them."""

    def __init__(self) -> None:
        self.done: list[tuple[str, int | None, int]] = []
        self.failing: set[int | None] = set()

    def __call__(self, means: Means) -> Here:
        return self

    def run(self, trials: Sequence[TrialSpec]) -> Iterator[TrialReport]:
        for spec in trials:
            if spec.fold in self.failing:
                yield TrialReport(spec, {"error": "RunError", "message": "out of luck"})
                continue
            self.done.append((Path(spec.run).name.partition("-")[0], spec.fold, spec.seed))
            carry_out(spec, Silent())
            yield TrialReport(spec)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Here:
    runner = Here()
    monkeypatch.setitem(RUNNERS, "here", runner)
    return runner


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two recipes: one that answers at random, and one that always names the same class."""
    for kind in ("majority", "chance"):
        recipe = {"features": FEATURES, "system": {"kind": kind}, "compute": {"device": "cpu"}}
        text = yaml.safe_dump({**recipe, "evaluation": {"split": "groups:3"}})
        (tmp_path / f"{kind}.yaml").write_text(text)
    return tmp_path


def written(folder: Path, **keys: Any) -> GridFile:
    path = folder / "grid.yaml"
    path.write_text(yaml.safe_dump(keys, sort_keys=False))
    return GridFile.load(path)


def carry(file: GridFile, cache: Path) -> tuple[AskedRun, ...]:
    return run_grid(file, file.beside / "out", "here", Means(), Silent(), cache=cache)


def table(out: Path) -> str:
    return to_markdown(grid_page(out))


def test_a_grid_is_every_recipe_on_every_corpus_with_every_choice(folder: Path) -> None:
    file = written(
        folder,
        recipes={"plain": ["majority.yaml"], "both": ["majority.yaml", "chance.yaml"]},
        corpora={"a": {"corpus": "emodb", "split": "speaker"}, "b": {"corpus": "emodb"}},
        set={"features.n_mels": 12},
        axes=[[{"features.duration": 1.0}, {"features.duration": 2.0}]],
        seeds=[0, 2],
        only=[{"recipe": "maj*"}, {"group": "both", "corpus": ["b"]}],
        exclude=[{"recipe": "majority", "features.duration": [2.0], "corpus": "a"}],
    )
    runs = {(run.name, run.corpus): run for run in file.runs()}
    assert list(runs) == [
        ("majority, features.duration=1.0", "a"),
        ("majority, features.duration=1.0", "b"),
        ("majority, features.duration=2.0", "b"),
        ("chance, features.duration=1.0", "b"),
        ("chance, features.duration=2.0", "b"),
    ]
    first = runs["majority, features.duration=1.0", "a"]
    assert first.groups == ("plain", "both")
    assert first.recipe.evaluation.split == "speaker"
    assert first.recipe.evaluation.seeds == (0, 2)
    assert first.recipe.features.n_mels == 12


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"corpora": {"a": "x"}}, "recipes: .*Field required"),
        ({"recipes": ["majority.yaml"], "corpora": {"a": {"rot": 1}}}, "'corpora.a.rot'.*root"),
        ({"recipes": ["majority.yaml"], "corpora": {"a": {}}, "sed": 1}, "'sed'.*'set'|seeds"),
        *(
            (
                {"recipes": ["majority.yaml"], "corpora": {"a": {}}, **keys},
                "evaluation.seeds is the same for all runs; give `seeds`",
            )
            for keys in (
                {"set": {"evaluation.seeds": [1]}},
                {"axes": [[{"evaluation.seeds": [1]}]]},
                {"corpora": {"a": {"root": "a", "set": {"evaluation.seeds": [1]}}}},
            )
        ),
        ({"recipes": ["nothing"], "corpora": {"a": {}}}, "cannot read recipe nothing"),
        ({"recipes": ["majority.yaml"], "corpora": {"a": {}}, "set": {"x": 1}}, "unknown key 'x'"),
        ({"recipes": ["majority.yaml"], "corpora": {"a": {}}, "only": [{"recipe": "b"}]}, "no run"),
        ({"recipes": ["majority.yaml"], "corpora": {"a": {}}, "only": [{"y": 1}]}, "condition 'y'"),
        (
            {"recipes": ["majority.yaml"], "corpora": {"a": {}}, "axes": [[{"styles": 1}] * 2]},
            "styles",
        ),
    ],
)
def test_mistakes_in_a_grid_are_explained(folder: Path, keys: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        written(folder, **keys).runs()


def test_nothing_is_run_twice_and_only_what_is_asked_for_counts(
    folder: Path, tiny_emodb: Path, cache: Path, here: Here
) -> None:
    keys: dict[str, Any] = {
        "recipes": ["majority.yaml", "chance.yaml"],
        "corpora": {"small": {"corpus": "emodb", "root": str(tiny_emodb)}},
    }
    out = folder / "out"
    first = carry(written(folder, **keys, folds=[0, 1]), cache)
    assert here.done == [(kind, k, 0) for kind in ("majority", "chance") for k in (0, 1)]
    assert table(out).count("not all folds ran: 2 of 3") == 1
    before = first[0].folder.result.read_bytes()

    here.done.clear()
    carry(written(folder, **keys, folds=[0, 1]), cache)
    assert here.done == []

    # An added seed and an added fold run alone; as if they had been asked for at once.
    more = written(folder, **keys, seeds=[0, 1])
    planned = [each.asked for each in lay_out(more, out, cache / "features")]
    assert [len(each.trials) for each in planned] == [6, 6]
    page = to_markdown(plan_page(planned, 2))
    assert page.count("|      6 |    4 |") == 2
    assert "About" in page
    assert "unknown" not in page
    runs = carry(more, cache)
    assert len(here.done) == 8
    assert [run.path for run in runs] == [run.path for run in first]
    assert files.read_json(runs[0].folder.result, RunError)["seeds"] == [0, 1]
    assert "not all folds ran" not in table(out)

    # What is no longer asked for leaves the tables and stays on the disk.
    here.done.clear()
    carry(written(folder, **{**keys, "recipes": ["majority.yaml"]}, folds=[0, 1]), cache)
    assert here.done == []
    assert runs[0].folder.result.read_bytes() == before
    assert "chance |" not in table(out).replace("baseline: chance |", "")
    assert runs[1].folder.result.is_file()
    assert (runs[0].path / "fold-2" / "seed-1" / "result.json").is_file()

    # A changed key, other labels and a renamed recipe.
    changed = {**keys, "set": {"features.n_mels": 12}}
    again = carry(written(folder, **changed, folds=[0]), cache)
    assert len(here.done) == 2
    assert {run.path for run in again}.isdisjoint(run.path for run in first)
    (folder / "majority.yaml").rename(folder / "same.yaml")
    here.done.clear()
    renamed = carry(written(folder, **{**keys, "recipes": ["same.yaml"]}, folds=[0, 1]), cache)
    assert (here.done, renamed[0].path) == ([], first[0].path)
    assert "| same " in table(out)


def test_changed_audio_is_another_run(
    folder: Path, tiny_emodb: Path, cache: Path, here: Here
) -> None:
    audio = folder / "audio"
    shutil.copytree(tiny_emodb, audio)
    keys = {"recipes": ["majority.yaml"], "corpora": {"emodb": "audio"}}
    store = cache / "features"
    first = lay_out(written(folder, **keys), folder / "out", store)[0].asked.path
    assert lay_out(written(folder, **keys), folder / "out", store)[0].asked.path == first
    some = sorted(audio.iterdir())
    some[0].write_bytes(some[1].read_bytes())
    assert lay_out(written(folder, **keys), folder / "out", store)[0].asked.path != first


def test_a_grid_goes_on_without_what_fails_and_never_averages_silently(
    folder: Path, tiny_emodb: Path, cache: Path, here: Here
) -> None:
    bad = folder / "bad"
    bad.mkdir()
    for path in tiny_emodb.iterdir():
        (bad / path.name).write_bytes(path.read_bytes())
    (bad / path.name).write_bytes(b"no audio")
    min(other for other in bad.iterdir() if other.name != path.name).unlink()
    keys: dict[str, Any] = {
        "recipes": ["majority.yaml", "chance.yaml"],
        "corpora": {
            "bad": {"corpus": "emodb", "root": "bad"},
            "small": {"corpus": "emodb", "root": str(tiny_emodb)},
        },
        "seeds": [0, 1],
    }
    here.failing = {1}
    file, out = written(folder, **keys), folder / "out"
    runs = carry(file, cache)
    states = {run.title: [t.state for t in run.states()] for run in runs}
    assert states["majority on bad"] == ["failed"] * 6
    assert states["majority on small"] == [*["done"] * 2, *["failed"] * 2, *["done"] * 2]
    result = files.read_json(runs[2].folder.result, RunError)
    assert result["name"] == "majority (2 of 3 folds)"
    assert result["n_test"] == 48
    assert result["warnings"][0] == (
        "scores are of 2 of 3 folds: fold 1 seed 0 failed: out of luck"
    )
    text = table(out)
    assert (
        "no scores of majority on bad, chance on bad: no fold is finished with every seed" in text
    )
    assert path.name in text
    assert "| majority (2 of 3 folds) " in text
    write_page([out], out / "page.html")
    page = (out / "page.html").read_text()
    for part in ("no scores of majority on bad", "majority (2 of 3 folds)", "Verdict"):
        assert part in page

    here.failing = set()
    here.done.clear()
    (bad / path.name).write_bytes((tiny_emodb / path.name).read_bytes())
    carry(file, cache)
    assert {t.state for run in asked_runs(out) for t in run.states()} == {"done"}
    assert len([1 for _, fold, _ in here.done if fold == 1]) == 8
    assert "2 of 3 folds" not in table(out)


def test_a_run_folder_that_was_half_copied_is_completed(
    folder: Path, tiny_emodb: Path, cache: Path, here: Here
) -> None:
    keys = {
        "recipes": ["majority.yaml"],
        "corpora": {"small": {"corpus": "emodb", "root": str(tiny_emodb)}},
    }
    file = written(folder, **keys)
    [run] = carry(file, cache)
    whole = folder / "whole"
    shutil.copytree(run.path, whole)
    lines = run.folder.trial(0, 0).predictions.read_text().splitlines(keepends=True)
    run.folder.trial(0, 0).predictions.write_text("".join(lines[:-3]))
    model = run.folder.trial(1, 0).model / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-1])
    (run.path / "fold-2" / "seed-0" / "result.json").unlink()
    (run.path / ".result.json.0123456789abcdef0123456789abcdef").write_text("{")
    here.done.clear()
    carry(file, cache)
    assert [fold for _, fold, _ in here.done] == [0, 1, 2]
    assert sorted(p.name for p in run.path.glob("fold-*/*broken*")) == ["seed-0.broken-1"] * 2
    for name in ("result.json", "predictions.csv", "fold-1/seed-0/model/model.safetensors"):
        assert (run.path / name).read_bytes() == (whole / name).read_bytes()

    run.folder.environment.unlink()
    here.done.clear()
    carry(file, cache)
    assert len(here.done) == 3
    assert len(list(run.path.with_name(f"{run.path.name}.broken-1").glob("fold-*/seed-0"))) == 3


def test_the_command_says_what_failed_and_the_same_command_completes_it(
    folder: Path, tiny_emodb: Path, cache: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RUNNERS, "local", here)
    written(
        folder,
        recipes={"simple": ["majority.yaml"]},
        corpora={"small": {"corpus": "emodb", "root": str(tiny_emodb)}},
    )

    def emodarts(*arguments: str | Path) -> Result:
        return CliRunner().invoke(app, list(map(str, arguments)))

    command = ("grid", folder / "grid.yaml", "--out", folder / "out", "--cache", cache)
    planned = emodarts(*command, "--dry-run")
    assert "No estimate of 3 trials" in planned.stdout
    assert not (folder / "out").exists()
    here.failing = {1}
    done = emodarts(*command)
    assert done.exit_code == 2
    assert "simple: small" in done.stdout
    assert "majority (2 of 3 folds)" in done.stdout
    assert "error: majority on small: fold 1 seed 0: out of luck" in done.stderr
    facts = json.loads(emodarts("grid", folder / "out", "--status", "--json").stdout)
    assert facts["trials"] == {"done": 2, "running": 0, "failed": 1, "waiting": 0}
    assert facts["runs"][0]["trials"][1]["reason"] == "out of luck"
    assert "out of luck" in emodarts("grid", folder / "out", "--status").stdout
    here.failing = set()
    assert emodarts(*command, "--only", "1").exit_code == 0
    shown = emodarts("report", folder / "out").stdout
    assert "2 of 3 folds" not in shown
    assert (folder / "out" / "comparison.md").read_text() == shown
    assert "allowed: 1 to 1" in str(emodarts(*command, "--only", "2").exception)
    assert "is a folder" in str(emodarts("grid", folder / "out").exception)


def test_the_plan_of_a_grid_is_refused_if_it_is_none(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not the folder of a grid"):
        asked_runs(tmp_path)
    (tmp_path / "grid.json").write_text(json.dumps({"format": "emodarts.grid/1", "runs": [{}]}))
    with pytest.raises(EmodartsError, match="is broken"):
        asked_runs(tmp_path)

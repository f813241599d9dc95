"""The state of runs from their files: whole, half-written, vanishing and of other kinds."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from commands import emodarts, refused
from emodarts import files
from emodarts.errors import RunError
from emodarts.experiments.state import find_runs, state_of
from emodarts.genotype import Edge, Genotype
from emodarts.recipe import Recipe

NOW = 1_000_000.0
PAIR = Edge("lstm", 0), Edge("rnn", 1)
GENOTYPE = Genotype(sequence=(PAIR, (Edge("lstm", 0), Edge("lstm", 2)))).to_dict()


@pytest.fixture
def run(tiny_recipe: Recipe, tmp_path: Path) -> Path:
    """Fold 0 is done, 1 trains, 2 searches, 3 waits, 4 was left long ago, 5 failed."""
    run = tmp_path / "runs" / "one"
    texts = {
        "recipe.yaml": tiny_recipe.to_yaml(),
        "data.json": json.dumps({"corpus": "emodb", "all_data": False}),
        "folds.json": json.dumps({"folds": [{"fold": k, "seed": 0} for k in range(6)]}),
        ".lock": "process 7 on here",
        "fold-0/seed-0/search.csv": "epoch,alpha_ua,seconds\n1,0.2,40.0\n2,0.3,40.0\n3,0.3,40.0\n",
        "fold-0/seed-0/training.csv": "epoch,train_ua,seconds\n"
        + "".join(f"{k},0.4,5.0\n" for k in range(1, 5)),
        "fold-0/seed-0/result.json": json.dumps({"seed": 0, "ua": 0.5, "genotype": GENOTYPE}),
        "fold-1/seed-0/search.csv": "epoch,alpha_ua,seconds\n1,0.2,40.0\n",
        "fold-1/seed-0/training.csv": "epoch,train_ua,validation_ua,seconds\n1,0.4,0.35,6.0\n",
        "fold-2/seed-0/search.csv": "epoch,alpha_ua,seconds\n1,0.2,30.0\n2,0.25,50.0\n",
        "fold-2/seed-0/alphas.json": json.dumps([{"genotype": GENOTYPE}]),
        "fold-4/seed-0/search.csv": "epoch,alpha_ua,seconds\n1,0.2,10.0\n",
        "fold-5/seed-0/search.csv": "epoch,alpha_ua,seconds\n1,0.2,10.0\n",
        "fold-5/seed-0/failure.json": json.dumps({"message": "the loss is nan"}),
    }
    for name, text in texts.items():
        path = run / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        age = 4000.0 if "fold-4" in name else 10.0
        os.utime(path, (NOW - age, NOW - age))
    return run


def test_stage_epoch_ua_operations_and_time_left(run: Path) -> None:
    state = state_of(run, NOW)
    done, training, searching, waiting, stopped, failed = state.trials
    statuses = ["done", "running", "running", "waiting", "stopped", "failed"]
    assert [t.status for t in state.trials] == statuses
    assert failed.failure == "the loss is nan"
    assert (done.ua, done.seconds, state.ua) == (0.5, 140.0, 0.5)
    assert (training.stage, training.epoch, training.epochs) == ("training", 1, 4)
    assert (training.ua, training.left) == (0.35, 3 * 6.0)
    assert (searching.stage, searching.epoch, searching.epochs) == ("search", 2, 3)
    # The finished trial took 140 s in all and this one 80 s so far, more than its last epoch says.
    assert (searching.ua, searching.left) == (0.25, 60.0)
    assert searching.leading == {"sequence": [("lstm", 3), ("rnn", 1)]}
    assert (waiting.stage, waiting.silent) == (None, None)
    assert (stopped.silent, stopped.epoch) == (4000.0, 1)
    assert state.process == "process 7 on here"


def test_a_trial_whose_process_lives_is_running_however_long_its_epoch(run: Path) -> None:
    with files.locked(run / "fold-4" / "seed-0", RunError):
        os.utime(run / "fold-4" / "seed-0" / files.LOCK, (NOW - 4000, NOW - 4000))
        assert state_of(run, NOW).trials[4].status == "running"
    assert state_of(run, NOW).trials[4].status == "stopped"


def test_most_steps_of_a_training_bound_its_epochs(run: Path, tiny_recipe: Recipe) -> None:
    bounded = tiny_recipe.training.model_copy(update={"max_steps": 50})
    recipe = tiny_recipe.model_copy(update={"training": bounded})
    (run / "recipe.yaml").write_text(recipe.to_yaml())
    (run / "fold-1/seed-0/training.csv").write_text("epoch,train_ua,steps,seconds\n1,0.4,20,6.0\n")
    training = state_of(run, NOW).trials[1]
    assert (training.epoch, training.epochs, training.left) == (1, 2, 6.0)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("kept", [True, False], ids=["cut", "gone"])
def test_any_file_may_be_cut_or_gone(run: Path, share: float, kept: bool) -> None:
    for path in sorted(p for p in run.rglob("*") if p.is_file()):
        whole = path.read_bytes()
        if kept:
            path.write_bytes(whole[: int(share * len(whole))])
        else:
            path.unlink()
        state = state_of(run, NOW)
        if path.parent == run and path.name != ".lock":
            assert state.fault is not None or len(state.trials) == 6
        else:
            assert len(state.trials) == 6
        path.write_bytes(whole)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("folds.json", '{"folds": [3]}'),
        ("folds.json", '{"folds": [{"fold": "x", "seed": 0}]}'),
        ("data.json", "[]"),
        ("recipe.yaml", "- not a recipe"),
    ],
)
def test_a_header_of_another_kind_is_named(run: Path, name: str, text: str) -> None:
    (run / name).write_text(text)
    state = state_of(run, NOW)
    assert state.fault
    assert state.trials == ()


@pytest.mark.parametrize("text", ["{}", "[]", "7", '{"seed": 0, "ua": "much", "genotype": 3}'])
def test_a_result_of_another_kind_harms_nothing(run: Path, text: str) -> None:
    (run / "fold-0" / "seed-0" / "result.json").write_text(text)
    assert state_of(run, NOW).trials[1].status == "running"


def test_runs_are_found_below_a_folder_and_none_inside_another(run: Path) -> None:
    second = run.parents[1] / "grid" / "a" / "b"
    second.mkdir(parents=True)
    (second / "recipe.yaml").write_text("")
    inner = run / "fold-0"
    (inner / "recipe.yaml").write_text("")
    aside = run.with_name(f"{run.name}.broken-1")
    aside.mkdir()
    (aside / "recipe.yaml").write_text("")
    assert find_runs(run.parents[1]) == [second, run]
    assert find_runs(run.parents[1] / "nowhere") == []


def test_watch_shows_one_state_of_all_runs_and_changes_nothing(run: Path) -> None:
    folder = run.parents[1]
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in run.rglob("*") if p.is_file()}
    text = emodarts("watch", folder, "--once", "--debug").stdout
    assert "tiny on emodb; 1 of 6 trials done" in " ".join(text.split())
    assert "fold 2 seed 0" in text
    assert "sequence lstm 3, rnn 1" in " ".join(text.split())
    assert "the loss is nan" in " ".join(text.split())
    [state] = json.loads(emodarts("watch", folder, "--json").stdout)
    assert [t["epoch"] for t in state["trials"]] == [0, 1, 2, 0, 1, 1]
    after = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in run.rglob("*") if p.is_file()}
    assert after == before
    assert "no such folder" in refused("watch", folder / "nowhere")

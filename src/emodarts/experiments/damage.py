"""Damaged files of a run, e.g. half copied from another machine: set aside, never deleted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from emodarts import files
from emodarts.bundle import check_bundle
from emodarts.checkpoint import load_tensors
from emodarts.dataset import Listing
from emodarts.errors import EmodartsError, RunError
from emodarts.experiments.compute import recorded_compute
from emodarts.layout import SET_ASIDE, RunFolder, TrialFolder
from emodarts.recipe import load_recipe
from emodarts.scoring.predictions import read_predictions


def set_damage_aside(run: RunFolder, trials: Sequence[tuple[int | None, int]]) -> list[str]:
    """Look at the files of a run that this process has locked, and move what is damaged.

    A damaged header takes the whole run with it, a damaged file of a trial that trial. They are
    kept under a name that ends in ``.broken-N``, and are computed again.

    Parameters
    ----------
    trials : fold and seed of each trial to look at; one that another process carries out is left.

    Returns
    -------
    What was moved and why, a sentence each.

    Raises
    ------
    WriteError
        If a folder cannot be moved.
    """
    folders = [run.trial(fold, seed) for fold, seed in trials]
    fault = _fault_of_header(run, any(folder.path.is_dir() for folder in folders))
    if fault is not None:
        aside = _free_name(run.path)
        aside.mkdir()
        for path in list(run.path.iterdir()):
            if path.name != files.LOCK:
                path.rename(aside / path.name)
        return [f"{fault}; what was in {run.path} is kept in {aside}, and computed again"]
    moved = []
    for folder in folders:
        if not folder.path.is_dir() or files.holder(folder.path) is not None:
            continue
        fault = _fault_of_trial(folder)
        if fault is not None:
            aside = _free_name(folder.path)
            folder.path.rename(aside)
            moved.append(f"{fault}; the trial is kept in {aside}, and computed again")
    return moved


def _free_name(path: Path) -> Path:
    number = 1
    while (name := path.with_name(f"{path.name}{SET_ASIDE}{number}")).exists():
        number += 1
    return name


def _fault_of_header(run: RunFolder, begun: bool) -> str | None:
    """What is wrong with the files that a plan writes; ``begun`` says that there are trials."""
    header = (run.recipe, run.utterances, run.environment, run.folds, run.data)
    if not begun and not any(path.is_file() for path in header):
        return None
    for path in header:
        if not path.is_file() and (begun or run.data.is_file() or path == run.recipe):
            return f"{path} is missing"
    try:
        load_recipe(run.recipe)
        if run.environment.is_file():
            recorded_compute(run)
        if run.data.is_file():
            keys = ("corpus", "notice", "classes", "fingerprints", "digest", "n_folds")
            data = files.read_object(run.data, RunError, *keys)
            files.read_object(run.folds, RunError, "folds")
            listing = Listing.from_rows(data, files.read_csv(run.utterances, RunError))
            if listing.digest != data["digest"]:
                return f"{run.utterances} is not the table that the run was planned with"
    except EmodartsError as error:
        return str(error)
    return None


def _fault_of_trial(folder: TrialFolder) -> str | None:
    """What is wrong with the files of a trial, finished or not."""
    try:
        for path in sorted(folder.path.rglob("*")):
            if path.name.startswith(".") or not path.is_file():
                continue
            if path.suffix == ".json":
                files.read_json(path, RunError)
            elif path.suffix == ".csv":
                files.read_csv(path, RunError)
            elif path.suffix == ".safetensors":
                load_tensors(path)
        if folder.result.is_file():
            result = files.read_object(folder.result, RunError, "fold", "seed", "parameters")
            check_bundle(folder.model)
            n_test = result.get("n_test")
            if n_test is not None and len(read_predictions(folder.predictions)[0]) != n_test:
                return f"{folder.predictions} has not all of the {n_test} predictions"
    except EmodartsError as error:
        return str(error)
    return None

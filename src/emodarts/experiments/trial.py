"""One trial, from the folder of its run to a tested model. Runs in any process.

``python -m emodarts.experiments.trial SPEC`` carries out a :class:`TrialSpec` given as JSON.
"""

from __future__ import annotations

import _thread
import json
import os
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch

from emodarts import files, parallel
from emodarts.bundle import Bundle, save_bundle, sound_of, stretch_of
from emodarts.dataset import Dataset, Listing, load_dataset
from emodarts.errors import EmodartsError, RunError, TrainingError
from emodarts.experiments.calibration import calibrate, utterance_probabilities
from emodarts.experiments.compute import recorded_compute
from emodarts.experiments.local import side_by_side
from emodarts.experiments.spec import TrialSpec
from emodarts.fast import keep_freed_memory
from emodarts.genotype import Genotype
from emodarts.layout import RunFolder, TrialFolder
from emodarts.progress import Lines, Progress, show_warnings_plainly
from emodarts.recipe import SYSTEMS, Recipe, SystemSpec, load_recipe
from emodarts.recipe.system import BASELINES
from emodarts.runtime import configure, derive_seed
from emodarts.scoring.calibration import calibrated
from emodarts.scoring.metrics import METRICS, score
from emodarts.scoring.predictions import Prediction, write_predictions
from emodarts.searching.candidate import Candidate
from emodarts.splits import Parts
from emodarts.systems.system import FitTask, Fitted, Outcome
from emodarts.tracking.trials import tracked


def carry_out(spec: TrialSpec, progress: Progress) -> dict[str, Any]:
    """Carry out a trial, or go on with one that was interrupted; a finished one is only read.

    A trial that another process carries out is waited for.

    Returns
    -------
    The contents of the trial's ``result.json``, or with ``stage="search"`` its fold, seed and
    genotype, or of a candidate its ``ua``.

    Raises
    ------
    EmodartsError
        Of the part that failed; what was finished stays in the folder.
    """
    if is_finished(spec):
        return _read(spec)
    place = _place(spec).path  # of processes that search together, the first has it
    with files.locked(place, RunError, wait=True) if parallel.leads() else nullcontext():
        # Whoever had the folder may have finished the trial.
        return _read(spec) if is_finished(spec) else _compute(spec, progress)


def _read(spec: TrialSpec) -> dict[str, Any]:
    """What a finished trial left."""
    if spec.candidate is None and spec.stage == "search":
        return _found(spec, Genotype.load(_place(spec).genotype))
    keys = ("fold", "seed", "parameters") if spec.candidate is None else ("ua",)
    return files.read_object(_place(spec).result, RunError, *keys)


def _compute(spec: TrialSpec, progress: Progress) -> dict[str, Any]:
    run = RunFolder(Path(spec.run))
    task, parts = make_task(spec, progress)
    system = SYSTEMS[task.recipe.system.kind].build(task.recipe.system)
    if spec.candidate is not None:
        with _explained_memory():
            return {"ua": system.cross_validate(task, Candidate.from_dict(spec.candidate))}
    with _explained_memory(), _tracked(spec, task):
        if spec.stage == "search":
            return _found(spec, system.search(task))
        return _test(spec, run, task, system.fit(task), parts)


def _tracked(spec: TrialSpec, task: FitTask) -> AbstractContextManager[None]:
    """Track a trial where its recipe says so; of several processes, the first does."""
    recipe, listing = task.recipe, task.data.listing
    facts = {
        **recipe.to_dict(),
        "corpus": listing.corpus,
        "data_digest": listing.digest,
        "fold": spec.fold,
        "seed": spec.seed,
    }
    name = f"{recipe.name} on {listing.corpus}, {spec.title}"
    uri = recipe.compute.mlflow if parallel.leads() else None
    return tracked(task.folder, uri, name, facts)


def is_finished(spec: TrialSpec) -> bool:
    """Whether a trial has left all that it is to leave."""
    place = _place(spec)
    searched = spec.candidate is None and spec.stage == "search"
    return (place.genotype if searched else place.result).is_file()


def _place(spec: TrialSpec) -> TrialFolder:
    """Folder of what the trial leaves."""
    if spec.candidate is None:
        return spec.folder
    return Candidate.from_dict(spec.candidate).folder(spec.folder)


def make_task(spec: TrialSpec, progress: Progress) -> tuple[FitTask, Parts]:
    """What a system is fitted to in a trial, and all parts of its fold, the test included.

    Raises
    ------
    EmodartsError
        If the folder of the run is not as it was planned.
    """
    run = RunFolder(Path(spec.run))
    recipe = load_recipe(run.recipe)
    if recipe.digest() != spec.recipe_digest:
        raise RunError(f"{run.recipe} is not the recipe that this trial was planned with")
    recipe = recipe.model_copy(update={"compute": recorded_compute(run, recipe.compute)})
    device = configure(recipe.compute)
    data = _dataset(run, spec.store, recipe, device)
    parts = _parts(run, spec, data)
    task = FitTask(
        recipe=recipe,
        data=data,
        parts=parts.without_test(),
        seed=derive_seed(spec.seed, "fold", spec.fold or 0),  # folds of one seed draw independently
        folder=spec.folder,
        device=device,
        progress=progress,
        title=replace(spec, candidate=None).title,  # candidates name themselves
        candidates_ahead=None if spec.jobs == 1 else partial(_train_candidates, spec),
    )
    return task, parts


def _train_candidates(spec: TrialSpec, candidates: Sequence[Candidate]) -> Iterator[TrialSpec]:
    """Train candidates of a trial in processes of their own; yield each that is finished."""
    trials = [replace(spec, candidate=each.to_dict(), jobs=1) for each in candidates]
    waiting = [trial for trial in trials if not is_finished(trial)]
    yield from (trial for trial in trials if trial not in waiting)
    if len(waiting) > 1:
        yield from side_by_side(waiting, spec.jobs)


def _found(spec: TrialSpec, genotype: Genotype) -> dict[str, Any]:
    return {"fold": spec.fold, "seed": spec.seed, "genotype": genotype.to_dict()}


def forget_data() -> None:
    """Free the feature maps that the last trial left in memory for the next."""
    _read_dataset.cache_clear()


def _dataset(run: RunFolder, store: str, recipe: Recipe, device: torch.device) -> Dataset:
    header = files.read_object(run.data, RunError, "corpus", "digest", "classes", "fingerprints")
    return _read_dataset(run, store, header["digest"], recipe, device)


@lru_cache(maxsize=1)
def _read_dataset(
    run: RunFolder, store: str, digest: str, recipe: Recipe, device: torch.device
) -> Dataset:
    header = files.read_object(run.data, RunError, "corpus", "notice", "classes", "fingerprints")
    listing = Listing.from_rows(header, files.read_csv(run.utterances, RunError))
    if listing.digest != digest:
        raise RunError(f"{run.utterances} is not the table that the run was planned with")
    return load_dataset(recipe, listing, Path(store), device)


def _parts(run: RunFolder, spec: TrialSpec, data: Dataset) -> Parts:
    """The parts that the plan wrote."""
    wanted = (spec.fold or 0, spec.seed)
    entries = files.read_object(run.folds, RunError, "folds")["folds"]
    for entry in entries:
        if (entry["fold"], entry["seed"]) == wanted:
            return Parts.from_names(entry, data.utterances)
    raise RunError(f"{run.folds} has no parts of {spec.title}")


def _test(
    spec: TrialSpec, run: RunFolder, task: FitTask, outcome: Outcome, parts: Parts
) -> dict[str, Any]:
    """Test a fitted system and write what the trial is to leave; ``result.json`` comes last."""
    folder, recipe, listing = task.folder, task.recipe, task.data.listing
    genotype = outcome.fitted.genotype
    calibration = calibrate(task, outcome)
    facts: dict[str, Any] = {
        "fold": spec.fold,
        "seed": spec.seed,
        "system": recipe.system.kind,
        **outcome.details,
        "parameters": outcome.cost.parameters,
        "multiply_adds": outcome.cost.multiply_adds,
        "genotype": None if genotype is None else genotype.to_dict(),
        "calibration": calibration.to_dict(),
    }
    if parts.test:
        predictions = classify(spec, task.data, outcome.fitted, parts, calibration.temperature)
        write_predictions(folder.predictions, predictions, task.data.classes)
        facts |= _scores(predictions, task.data.classes)
    if outcome.members and parts.test:
        facts["members"] = [
            _means(_scores(classify(spec, task.data, member, parts), task.data.classes))
            for member in outcome.members
        ]
    if outcome.epochs is not None and parts.test:
        _write_optimistic(spec, task, outcome.epochs, parts)
    bundle = Bundle(
        system=recipe.system,
        fitted=outcome.fitted,
        inputs=recipe.inputs,
        classes=task.data.classes,
        fingerprints=listing.fingerprints,
        temperature=calibration.temperature,
        emotions=files.read_object(run.data, RunError, "emotions")["emotions"],
        trained_on=[
            *(stretch_of(listing.contents[i], listing.utterances[i]) for i in parts.development),
            *(sound_of(listing.sounds[i]) for i in parts.development),
        ],
        origin={
            "corpus": listing.corpus,
            "notice": listing.notice,
            "data_digest": listing.digest,
            "recipe": recipe.name,
            "recipe_digest": recipe.digest(),
            **facts,
        },
    )
    save_bundle(folder.model, bundle)
    cost = outcome.cost
    result = {
        **facts,
        "seconds": round(cost.seconds, 3),
        "cost": {
            "search": None if cost.search is None else cost.search.to_dict(),
            "training": cost.training.to_dict(),
        },
    }
    if parts.test:
        result["baselines"] = _baselines(spec, task, parts)
    files.write_json(folder.result, result)
    # Only now: a run that is killed before and resumed needs them again.
    for needed in (folder.epochs, folder.calibration):
        shutil.rmtree(needed, ignore_errors=True)
    return result


def classify(
    spec: TrialSpec, data: Dataset, fitted: Fitted, parts: Parts, temperature: float = 1.0
) -> list[Prediction]:
    """Classify the test utterances, each by itself, as a model classifies a file."""
    predictions = []
    found = calibrated(utterance_probabilities(data, fitted, parts.test), temperature)
    for index, probabilities in zip(parts.test, found, strict=True):
        utterance = data.utterances[index]
        predictions.append(
            Prediction(
                name=utterance.name,
                speaker=utterance.speaker,
                fold=spec.fold or 0,
                seed=spec.seed,
                label=utterance.known_label(),
                predicted=data.classes[int(probabilities.argmax())],
                probabilities=tuple(probabilities.tolist()),
            )
        )
    return predictions


def _scores(predictions: Sequence[Prediction], classes: Sequence[str]) -> dict[str, Any]:
    scores = score([p.label for p in predictions], [p.predicted for p in predictions], classes)
    return {
        "n_test": len(predictions),
        "ua": scores.ua,
        "wa": scores.wa,
        "macro_f1": scores.macro_f1,
        "confusion": [list(row) for row in scores.confusion],
        "absent_classes": list(scores.absent),
    }


def _means(scores: Mapping[str, Any]) -> dict[str, float]:
    return {metric: scores[metric] for metric in METRICS}


def _baselines(spec: TrialSpec, task: FitTask, parts: Parts) -> dict[str, dict[str, float]]:
    """Scores of simple systems on the same fold."""
    found = {}
    for kind in BASELINES:
        fitted = SYSTEMS[kind].build(SystemSpec(kind=kind)).fit(task).fitted
        predictions = classify(spec, task.data, fitted, parts)
        found[kind] = _means(_scores(predictions, task.data.classes))
    return found


def _write_optimistic(
    spec: TrialSpec, task: FitTask, epochs: Iterator[Fitted], parts: Parts
) -> None:
    """Score every epoch on the test fold, now that the choice is made, and keep the best."""
    best: dict[str, Any] = {}
    for fitted in epochs:
        scores = _scores(classify(spec, task.data, fitted, parts), task.data.classes)
        for metric in ("ua", "wa"):
            key = f"test_{metric}_of_best_test_epoch"
            best[key] = max(best.get(key, 0.0), scores[metric])
    warning = "optimistic: the epoch is chosen on the test fold, and for each score anew"
    files.write_json(task.folder.optimistic, {**best, "warning": warning})


@contextmanager
def _explained_memory() -> Iterator[None]:
    """Say what to make smaller; on the CPU torch has no exception of its own for this."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "DefaultCPUAllocator" not in str(
            error
        ):
            raise
        raise TrainingError(
            "the network does not fit in memory; lower search.batch_size, training.batch_size, "
            "network.cnn.channels or network.seqnn.width, or choose a smaller network.seqnn.space"
        ) from error


def main(text: str, ends_with: str = "") -> int:
    """Carry out a trial given as JSON, and print why it failed as JSON, if it does.

    ``ends_with`` is ``"stdin"`` if this process is to end when its standard input does, and to
    stop as by Ctrl-C when it gets a byte there.
    """
    keep_freed_memory()
    show_warnings_plainly()
    try:
        if ends_with == "stdin":
            # A cluster may send it to all processes of a job; what began this one obeys for it.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            threading.Thread(target=_obey_input, daemon=True).start()
        carry_out(TrialSpec(**json.loads(text)), Lines())
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if not isinstance(error, EmodartsError):
            traceback.print_exc()
        sys.stdout.write(json.dumps({"error": type(error).__name__, "message": str(error)}))
        return 2
    return 0


def _obey_input() -> None:
    if os.read(0, 1):
        _thread.interrupt_main()
        os.read(0, 1)
    os._exit(1)  # as if killed: what is being written is as it was, and can be resumed


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

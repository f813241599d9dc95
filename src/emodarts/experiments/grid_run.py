"""A grid carried out: its runs are planned, their trials run anywhere, and each is summed up."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

from emodarts import files
from emodarts.cache import default_cache_folder
from emodarts.errors import EmodartsError, RecipeError, RunError, WriteError
from emodarts.experiments.damage import set_damage_aside
from emodarts.experiments.grid import GridFile
from emodarts.experiments.grid_plan import AskedRun, LaidOut, lay_out, write_plan
from emodarts.experiments.plan import Options, make_plan
from emodarts.experiments.runners import Means, Runner, make_runner
from emodarts.experiments.spec import TrialSpec
from emodarts.experiments.summary import summarise
from emodarts.experiments.trial import forget_data, is_finished
from emodarts.layout import GridFolder
from emodarts.progress import Progress


def store_of(cache: Path | None) -> Path:
    """Folder of the feature store in a cache folder, by default the user's."""
    return (cache or default_cache_folder()) / "features"


def run_grid(
    file: GridFile,
    out: Path,
    runner: str,
    means: Means,
    progress: Progress,
    *,
    cache: Path | None = None,
    skip_bad: bool = False,
    only: int | None = None,
) -> tuple[AskedRun, ...]:
    """Carry out all trials of a grid that are not finished; sum up every run.

    What fails is recorded in its folder and does not keep the rest from being done. Finished
    trials are not repeated. Folds that are not finished with every seed are left out of the scores
    of their run, which says so.

    Parameters
    ----------
    out : folder of the grid; other processes are refused meanwhile.
    runner : a name in ``RUNNERS``.
    only : number of the one run to carry out, from 1, in the order of the result.

    Returns
    -------
    The runs; their folders show what failed.

    Raises
    ------
    EmodartsError
        If the grid file, a corpus, a split or the runner cannot be used.
    """
    carrier = make_runner(runner, replace(means, logged=True, scratch=GridFolder(out).slurm))
    with files.locked(out, RunError), ExitStack() as locks:
        laid_out = lay_out(file, out, store_of(cache), skip_bad=skip_bad)
        if only is not None and not 1 <= only <= len(laid_out):
            raise RecipeError(f"--only {only}; allowed: 1 to {len(laid_out)}, see --dry-run")
        write_plan(out, file, [each.asked for each in laid_out])
        chosen = laid_out if only is None else [laid_out[only - 1]]
        planned: dict[AskedRun, tuple[TrialSpec, ...]] = {}
        for number, each in enumerate(chosen):
            progress.begin(f"run {number + 1} of {len(chosen)}: {each.asked.title}", 0, 1)
            try:
                locks.enter_context(files.locked(each.asked.path, RunError))
                options = Options(
                    skip_bad=skip_bad,
                    cache=cache,
                    jobs=(means.jobs or 1) if runner == "local" else 1,
                    asked_only=True,
                )
                planned[each.asked] = _plan(each, options, runner, progress)
            except EmodartsError as error:
                _record(
                    each.asked.folder.failure,
                    {"error": type(error).__name__, "message": str(error)},
                )
        forget_data()
        _carry_out(planned, carrier, progress)
        runs = tuple(each.asked for each in laid_out)
        sum_up(runs)
    return runs


def _plan(
    each: LaidOut, options: Options, runner: str, progress: Progress
) -> tuple[TrialSpec, ...]:
    """Plan one run, or go on with it."""
    asked, recipe, run = each.asked, each.run.recipe, each.asked.folder
    run.failure.unlink(missing_ok=True)
    try:
        moved = set_damage_aside(run, asked.trials)
    except OSError as error:
        raise WriteError(f"cannot set aside what is damaged in {run.path}: {error}") from error
    for text in moved:
        progress.begin(f"damaged: {text}", 0, 1)
    if runner != "local" and recipe.compute.threads is None and not run.environment.is_file():
        # What a scheduler gives a trial must not depend on the machine that plans.
        compute = recipe.compute.model_copy(update={"threads": 1})
        recipe = recipe.model_copy(update={"compute": compute})
    occupied = any(path.name != files.LOCK for path in run.path.iterdir())
    plan = make_plan(recipe, each.corpus, run.path, replace(options, resume=occupied), progress)
    return plan.trials


def _carry_out(
    planned: Mapping[AskedRun, Sequence[TrialSpec]], carrier: Runner, progress: Progress
) -> None:
    """Run what is not finished, and record what fails."""
    owners = {spec: run for run, specs in planned.items() for spec in specs}
    waiting = [spec for spec in owners if not is_finished(spec)]
    done, failed = len(owners) - len(waiting), 0
    for spec in waiting:
        spec.folder.failure.unlink(missing_ok=True)
    if not waiting:
        return
    progress.begin(f"{done} of {len(owners)} trials are finished", done, len(owners))
    for report in carrier.run(waiting):
        run = owners[report.spec]
        if report.failure is None:
            done += 1
        else:
            failed += 1
            _record(report.spec.folder.failure, report.failure)
            reason = report.failure["message"]
            progress.begin(f"failed: {run.title}, {report.spec.title}: {reason}", done, len(owners))
        lost = f", {failed} failed" if failed else ""
        text = f"{done} of {len(owners)} trials are finished{lost}"
        progress.begin(text, done, len(owners))


def _record(path: Path, failure: Mapping[str, str]) -> None:
    """Write why something failed, if that can be written."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    with suppress(EmodartsError, OSError):
        files.write_json(path, {**failure, "when": now})


def sum_up(runs: Sequence[AskedRun]) -> None:
    """Bring the result of every run up to date: of the folds that are finished with every seed."""
    for run in runs:
        states = run.states()
        unfinished = {
            state.fold: f"fold {state.fold} seed {state.seed} "
            + (f"failed: {state.reason}" if state.state == "failed" else "is not finished")
            for state in reversed(states)
            if state.state != "done"
        }
        lost = dict(sorted(unfinished.items()))
        whole = [trial for trial in run.trials if trial[0] not in lost]
        try:
            if not whole:
                # It would be of other trials than those that are asked for.
                run.folder.result.unlink(missing_ok=True)
            elif lost or not _is_current(run):
                summarise(run.folder, whole, lost, run.name)
        except (EmodartsError, OSError) as error:
            _record(run.folder.failure, {"error": type(error).__name__, "message": str(error)})


def _is_current(run: AskedRun) -> bool:
    """Whether the result is of all trials that are asked for, and of no others."""
    try:
        result = files.read_object(run.folder.result, RunError, "name", "folds")
        found = [(f["fold"], seed["seed"]) for f in result["folds"] for seed in f["seeds"]]
    except (EmodartsError, LookupError, TypeError):
        return False
    return result["name"] == run.name and sorted(found) == sorted(run.trials)

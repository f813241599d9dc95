"""A run: a recipe on a corpus, over folds and seeds, in one directory that can be resumed.

It is planned (``plan``), its trials are carried out (``local``, ``trial``), and what they leave is
summed up (``summary``).
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from emodarts import files, parallel
from emodarts.corpora.utterance import Corpus
from emodarts.errors import RecipeError, RunError
from emodarts.experiments.plan import Options, Plan, make_plan
from emodarts.experiments.summary import summarise, warnings_of
from emodarts.experiments.trials import run_trials
from emodarts.genotype import Genotype
from emodarts.layout import RunFolder
from emodarts.progress import Progress, Silent
from emodarts.recipe import STRATEGIES, OneShotSpec, Recipe


def run(
    recipe: Recipe,
    corpus: Corpus,
    out: str | Path,
    options: Options | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Carry out a recipe on a corpus; return what ``result.json`` in ``out`` holds.

    Half a run, and one without a test fold, have no such file: they return
    ``{"name": ..., "trials": [...], "warnings": [...]}`` with the genotype of every fold and seed.

    Nothing but a lock is written to ``out`` before recipe, audio, folds and genotype have been
    checked. Another process that uses ``out`` meanwhile is refused. Processes of ``torchrun``
    search together, and the first of them writes.

    Raises
    ------
    EmodartsError
        Of the part that found the fault; see :mod:`emodarts.errors`.
    """
    options, progress = options or Options(), progress or Silent()
    with parallel.joined(recipe.compute.device):
        if parallel.size() == 1:
            return _run(recipe, corpus, Path(out), options, progress)
        _check_parallel(recipe, options)
        return _run(recipe, corpus, Path(out), options, progress if parallel.leads() else Silent())


def _check_parallel(recipe: Recipe, options: Options) -> None:
    """Refuse what several processes do not do together."""
    if options.stage != "search" or options.jobs != 1:
        raise RunError(
            f"{parallel.size()} processes only search together: start `emodarts search` with "
            "torchrun and without --jobs, then `emodarts train --resume` without torchrun"
        )
    if recipe.system.kind != "searched" or not isinstance(recipe.search, OneShotSpec):
        one_shot = [n for n, kind in STRATEGIES.items() if issubclass(kind.spec, OneShotSpec)]
        raise RecipeError(
            f"system {recipe.system.kind!r} with search.strategy {recipe.search.strategy!r} is not "
            f"searched by several processes; allowed: system 'searched' with {', '.join(one_shot)}"
        )


def _run(
    recipe: Recipe, corpus: Corpus, out: Path, options: Options, progress: Progress
) -> dict[str, Any]:
    with files.locked(out, RunError) if parallel.leads() else nullcontext():
        made = parallel.of_first(
            lambda: make_plan(recipe, corpus, out, options, progress).to_dict()
        )
        plan = Plan.from_dict(made)
        results = run_trials(plan.trials, plan.jobs, progress)
        if options.stage == "search" or options.all_data:
            keys = ("warnings", "genotypes", "n_folds")
            header = files.read_object(RunFolder(out).data, RunError, *keys)
            warnings = warnings_of(results, header, recipe)
            return {"name": recipe.name, "trials": results, "warnings": warnings}
        return summarise(RunFolder(out), [(trial.fold, trial.seed) for trial in plan.trials])


def search(
    recipe: Recipe,
    corpus: Corpus,
    out: str | Path,
    options: Options | None = None,
    progress: Progress | None = None,
) -> list[Genotype]:
    """First half of a run: a genotype for every fold and, within it, every seed.

    Raises as :func:`run` does.
    """
    half = replace(options or Options(), train=False)
    found = run(recipe, corpus, out, half, progress)
    return [Genotype.from_dict(trial["genotype"]) for trial in found["trials"]]


def train(
    recipe: Recipe,
    corpus: Corpus,
    out: str | Path,
    genotype: Genotype | None = None,
    options: Options | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Second half of a run, of a given genotype or of those that :func:`search` left in ``out``.

    Returns and raises as :func:`run` does.
    """
    half = replace(options or Options(), search=False, genotype=genotype)
    return run(recipe, corpus, out, half, progress)

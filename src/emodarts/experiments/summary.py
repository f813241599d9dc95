"""The result of a run, from the folders of its finished trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from emodarts import files
from emodarts.errors import RunError, list_some
from emodarts.genotype import Genotype
from emodarts.layout import RunFolder
from emodarts.recipe import NetworkSpec, Recipe, load_recipe
from emodarts.recipe.system import BASELINES
from emodarts.scoring.calibration import calibrated, calibration_error
from emodarts.scoring.metrics import METRICS, UA_DEFINITION, WA_DEFINITION, aggregate
from emodarts.scoring.predictions import Prediction, read_predictions, write_predictions
from emodarts.searching.agreement import agreement

FORMAT = "emodarts.result/2"

#: Two genotypes can hardly agree beyond chance.
_FEWEST_TO_AGREE = 3

#: What of a trial stands beside its scores.
_KEPT = ("epoch", "parameters", "multiply_adds", "genotype", "search", "calibration")


def summarise(
    run: RunFolder,
    trials: Sequence[tuple[int | None, int]],
    left_out: Mapping[int, str] | None = None,
    name: str | None = None,
) -> dict[str, Any]:
    """Score folds and seeds of a run; write its predictions and ``result.json``.

    Parameters
    ----------
    trials : fold and seed of each; folds that count have every seed, and all are finished.
    left_out : other folds that were asked for, and why they do not count.
    name : by default that of the recipe.

    Returns
    -------
    The contents of ``result.json``. If folds are left out, its name and its warnings say so.

    Raises
    ------
    RunError
        If a trial is not finished, or a file is broken.
    """
    recipe = load_recipe(run.recipe)
    header = files.read_object(
        run.data, RunError, "corpus", "notice", "classes", "warnings", "n_folds"
    )
    classes = tuple(header["classes"])
    folders = [run.trial(fold, seed) for fold, seed in trials]
    predictions = [p for folder in folders for p in read_predictions(folder.predictions)[0]]
    write_predictions(run.predictions, predictions, classes)
    results = [
        files.read_object(folder.result, RunError, "fold", "seed", "parameters", "baselines")
        for folder in folders
    ]
    scores = aggregate(predictions, classes)
    details = {(r["fold"], r["seed"]): r for r in results}
    for fold in scores["folds"]:
        for seed in fold["seeds"]:
            detail = details[fold["fold"], seed["seed"]]
            seed.update({key: detail[key] for key in _KEPT if key in detail})
    if recipe.training.optimistic:
        values = [files.read_object(f.optimistic, RunError, "warning") for f in folders]
        means = {key: fmean(v[key] for v in values) for key in values[0] if key != "warning"}
        files.write_json(run.optimistic, {**means, "warning": values[0]["warning"]})
    n_folds, lost = len(scores["folds"]), left_out or {}
    share = f"{n_folds} of {n_folds + len(lost)} folds"
    result = {
        "format": FORMAT,
        "name": f"{name or recipe.name} ({share})" if lost else name or recipe.name,
        "system": recipe.system.kind,
        "corpus": header["corpus"],
        "notice": header["notice"],
        "protocol": recipe.evaluation.protocol,
        "split": recipe.evaluation.split,
        "labels": None if recipe.labels is None else list(recipe.labels),
        "seeds": list(dict.fromkeys(seed for _, seed in trials)),
        "definitions": {"ua": UA_DEFINITION, "wa": WA_DEFINITION},
        "genotypes": header["genotypes"],
        "warnings": [
            *([f"scores are of {share}: {list_some(lost.values(), 3)}"] if lost else []),
            *warnings_of(results, header, recipe, len(lost)),
        ],
        **scores,
        "parameters": round(fmean(r["parameters"] for r in results)),
        "multiply_adds": round(fmean(r["multiply_adds"] for r in results)),
        **_single_networks(results),
        "calibration": _calibration(predictions, details, classes),
        "baselines": _baselines(results, len(classes)),
    }
    files.write_json(run.result, result)
    return result


def warnings_of(
    results: Sequence[Mapping[str, Any]],
    header: Mapping[str, Any],
    recipe: Recipe,
    n_lost: int = 0,
) -> list[str]:
    """What every table must say of a run.

    Parameters
    ----------
    results : of its trials.
    header : its ``data.json``.
    recipe : its recipe.
    n_lost : folds that were asked for and are not among the results.
    """
    n_asked, n_folds = len({r["fold"] for r in results}) + n_lost, header["n_folds"]
    return [
        *([f"not all folds ran: {n_asked} of {n_folds}"] if n_asked < n_folds else []),
        *header["warnings"],
        *_arbitrary(results),
        *_as_random(results, header["genotypes"], recipe.network),
        *_collapses(results, header["genotypes"]),
    ]


def describe_state(out: Path) -> str:
    """How far a run that was stopped has come, after the word "stopped"."""
    run = RunFolder(out)
    if not run.data.is_file():
        return "before the first trial; features that were computed are kept"
    apart = not files.read_object(run.data, RunError, "all_data")["all_data"]
    trials = [
        run.trial(entry["fold"] if apart else None, entry["seed"])
        for entry in files.read_object(run.folds, RunError, "folds")["folds"]
    ]
    done = sum(trial.result.is_file() for trial in trials)
    found = sum(trial.genotype.is_file() for trial in trials)
    searched = f" and a genotype found for {found}" if found else ""
    return (
        f"with {done} of {len(trials)} trials finished{searched}; others continue after their last "
        "whole epoch"
    )


def _arbitrary(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """A warning of searches whose supernet learned nothing."""
    searches = [r for r in results if "search" in r]
    blind = [r for r in searches if not r["search"]["above_chance"]]
    if not blind:
        return []
    where = list_some(map(_title, blind), 3)
    return [
        f"in {len(blind)} of {len(searches)} searches the supernet was never clearly above chance "
        f"on the data for alphas, so the genotype is arbitrary: {where}"
    ]


def _as_random(
    results: Sequence[Mapping[str, Any]], origin: str | None, spec: NetworkSpec
) -> list[str]:
    """A warning of searches whose cells agree no more than random ones do."""
    if origin != "searched":
        return []
    genotypes = [Genotype.from_dict(r["genotype"]) for r in results]
    if len(genotypes) < _FEWEST_TO_AGREE or not all(g.cells for g in genotypes):
        return []
    found = agreement(genotypes, spec)
    if not found.is_random:
        return []
    return [
        f"the genotypes of {len(genotypes)} searches are indistinguishable from a random choice: "
        f"two of them have {100 * found.found:.1f} % of their edges in common, random ones "
        f"{100 * found.expected:.1f} % (p = {found.p:.2f}). Compare with random cells "
        "(search: {strategy: random}); whether genotypes differ at all: emodarts headroom"
    ]


def _title(result: Mapping[str, Any]) -> str:
    fold, seed = result["fold"], result["seed"]
    return f"seed {seed}" if fold is None else f"fold {fold} seed {seed}"


def _collapses(results: Sequence[Mapping[str, Any]], origin: str | None) -> list[str]:
    """A warning of genotypes that mostly consist of skip connections, and what to do.

    Parameters
    ----------
    results : ``fold``, ``seed`` and ``genotype`` of trials.
    origin : of their genotypes; only those of a search can have collapsed.
    """
    if origin != "searched":
        return []
    found = {_title(r): Genotype.from_dict(r["genotype"]).collapsed_cells() for r in results}
    listed = [f"{where} ({', '.join(cells)})" for where, cells in found.items() if cells]
    if not listed:
        return []
    return [
        f"{len(listed)} of {len(found)} searches collapsed: most edges of a cell are skip "
        f"connections, {list_some(listed, 3)}. Keep cells of an earlier epoch "
        "(search.genotype_epoch: best), search for fewer epochs (search.epochs), and compare with "
        "random cells (search: {strategy: random})"
    ]


def _calibration(
    predictions: Sequence[Prediction],
    details: Mapping[tuple[int, int], Mapping[str, Any]],
    classes: Sequence[str],
) -> dict[str, Any]:
    """ECE of all test predictions, before and after the temperature of their trial."""
    facts = [d["calibration"] for d in details.values()]
    found = np.array([p.probabilities for p in predictions])
    temperatures = [details[p.fold, p.seed]["calibration"]["temperature"] for p in predictions]
    # The inverse of a temperature is a temperature.
    pairs = zip(found, temperatures, strict=True)
    before = np.stack([calibrated(row, 1 / temperature) for row, temperature in pairs])
    truth = np.array([classes.index(p.label) for p in predictions])
    return {
        "fitted_on": facts[0]["fitted_on"],
        "temperature": fmean(f["temperature"] for f in facts),
        "ece_before": calibration_error(before, truth),
        "ece": calibration_error(found, truth),
    }


def _single_networks(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Scores of one network of an ensemble: the mean over its networks, as over seeds."""
    if not all("members" in r for r in results):
        return {}
    found: dict[str, float | None] = {}
    n_members = len(results[0]["members"])
    for metric in METRICS:
        by_fold: dict[int, list[float]] = {}
        by_network: dict[tuple[int, int], list[float]] = {}
        for r in results:
            for k, member in enumerate(r["members"]):
                by_fold.setdefault(r["fold"], []).append(member[metric])
                by_network.setdefault((r["seed"], k), []).append(member[metric])
        folds = [fmean(values) for values in by_fold.values()]
        found[metric] = fmean(folds)
        found[f"{metric}_sd_folds"] = stdev(folds) if len(folds) > 1 else None
        found[f"{metric}_sd_seeds"] = stdev(map(fmean, by_network.values()))
    return {"single_network": {"networks": n_members, **found}}


def _baselines(results: Sequence[dict[str, Any]], n_classes: int) -> dict[str, dict[str, Any]]:
    """Means over folds; chance is what uniform answers score on average."""
    by_fold = {r["fold"]: r["baselines"] for r in results}  # the same for every seed
    means = {
        kind: {
            metric: fmean(fold[kind][metric] for fold in by_fold.values())
            for metric in ("ua", "wa", "macro_f1")
        }
        for kind in BASELINES
    }
    even = 1.0 / n_classes
    return {"chance": {"ua": even, "wa": even, "macro_f1": None}, **means}

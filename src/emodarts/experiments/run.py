"""A run: a recipe on a corpus, over folds and seeds, in one directory that can be resumed."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from emodarts import files
from emodarts.corpora.utterance import Corpus
from emodarts.errors import RecipeError, RunError, TrainingError, list_some
from emodarts.experiments.dataset import Dataset, load_dataset
from emodarts.experiments.trial import (
    GENOTYPE,
    OPTIMISTIC,
    PREDICTIONS,
    RESULT,
    Trial,
    search_trial,
    train_trial,
    trial_predictions,
)
from emodarts.fast import resolve
from emodarts.models.baselines import logistic_regression, majority_answer, mean_features
from emodarts.models.network import SearchedNetwork
from emodarts.progress import Progress, Silent
from emodarts.recipe import Recipe
from emodarts.runtime import configure, describe_environment
from emodarts.searching.loop import require_precise_enough
from emodarts.space.genotype import Genotype
from emodarts.splits import Fold, deployment_fold, make_folds, make_parts
from emodarts.training.metrics import (
    UA_DEFINITION,
    WA_DEFINITION,
    Prediction,
    aggregate,
    write_predictions,
)

FORMAT = "emodarts.result/1"
RECIPE = "recipe.yaml"
DATA = "data.json"
UTTERANCES = "utterances.csv"
FOLDS = "folds.json"
ENVIRONMENT = "environment.json"


@dataclass(frozen=True)
class Options:
    """What a recipe does not say: how much of a run to do, where its files are, how to go on.

    Attributes
    ----------
    resume : continue the run in the directory instead of refusing it.
    skip_bad : go on without utterances whose audio is unusable.
    cache : folder of the feature store; default: the user's cache folder.
    search, train : which halves to do.
    genotype : train this one instead of searching.
    all_data : no test fold: the model to deploy.
    """

    resume: bool = False
    skip_bad: bool = False
    cache: Path | None = None
    search: bool = True
    train: bool = True
    genotype: Genotype | None = None
    all_data: bool = False


def run(
    recipe: Recipe,
    corpus: Corpus,
    out: str | Path,
    options: Options | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Carry out a recipe on a corpus; return what ``result.json`` in ``out`` holds.

    Half a run, and one that tests on nobody, have no such file: they return
    ``{"name": ..., "trials": [...]}`` with the genotype of every fold and seed.

    Nothing is written to ``out`` before recipe, audio, folds and network have been checked.

    Raises
    ------
    EmodartsError
        Of the part that found the fault; see :mod:`emodarts.errors`.
    """
    options, progress, out = options or Options(), progress or Silent(), Path(out)
    if options.resume:
        files.remove_leftovers(out)
    _check_directory(out, options)
    asked = recipe
    if options.resume:
        recipe = _with_recorded_compute(recipe, out)
    if options.search and options.genotype is None:
        require_precise_enough(recipe.search, recipe.compute.precision)
    device = configure(recipe.compute)
    unread = corpus.skipped
    corpus = corpus.select(recipe.labels, recipe.styles)
    _folds(recipe, corpus, options)  # refuse bad folds before hours of extraction
    data, header = load_dataset(
        recipe, corpus, device, progress, cache=options.cache, skip_bad=options.skip_bad
    )
    bad = tuple((name, reason) for name, reason in header["bad"])
    heard = replace(corpus, utterances=data.utterances, skipped=corpus.skipped + bad)
    folds, told = _folds(recipe, heard, options)
    if unread:
        reasons = Counter(reason for _, reason in unread).most_common()
        listed = list_some([f"{n:,} {reason}" for reason, n in reasons], 3)
        told = (*told, f"the reader of the corpus left out {len(unread):,}: {listed}")
    trials = _trials(recipe, data, folds, out, device, options)
    _check_genotypes(recipe, data, trials, options)
    _write_header(out, asked, recipe, data, header, trials, device, options)
    results = []
    for trial in trials:
        with _explained_memory():
            results.append(_carry_out(trial, data, options, progress))
    if not options.train or options.all_data:
        return {"name": recipe.name, "trials": results}
    result = _summarise(recipe, data, header, folds, told, trials, results, options)
    files.write_json(out / RESULT, result)
    return result


def _carry_out(trial: Trial, data: Dataset, options: Options, progress: Progress) -> dict[str, Any]:
    genotype = options.genotype
    if genotype is None:
        genotype = search_trial(trial, data, progress)
    if options.train:
        return train_trial(trial, data, genotype, progress)
    return {"fold": trial.fold, "seed": trial.seed, "genotype": genotype.to_dict()}


@contextmanager
def _explained_memory() -> Iterator[None]:
    """Tell what to make smaller; on the CPU torch has no exception of its own for this."""
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


def _check_directory(out: Path, options: Options) -> None:
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file; --out needs a folder")
    occupied = out.is_dir() and any(out.iterdir())
    if occupied and not options.resume:
        raise RunError(f"{out} is not empty; give --resume to continue it, or another --out")
    if occupied and not (out / RECIPE).is_file():
        raise RunError(f"{out} is not empty and holds no run ({RECIPE} is missing)")


def _with_recorded_compute(recipe: Recipe, out: Path) -> Recipe:
    """Device, threads, order of sums and precision decide the bits; a resumed run keeps its own."""
    if not (out / ENVIRONMENT).is_file():
        return recipe
    recorded = files.read_object(out / ENVIRONMENT, RunError, "device", "threads", "fast")
    asked = recipe.compute
    for key in ("device", "threads"):
        wanted = getattr(asked, key)
        if wanted not in ("auto", None, recorded[key]):
            raise _begun_otherwise(out, key, recorded[key], wanted)
    fast = recorded["fast"] != "plain"
    # The default is no wish: the option need not be repeated.
    if "fast" in asked.model_fields_set and asked.fast != fast:
        raise _begun_otherwise(out, "compute.fast", str(fast).lower(), str(asked.fast).lower())
    precision = recorded.get("precision", "fp32")  # all that there was at first
    if "precision" in asked.model_fields_set and asked.precision != precision:
        raise _begun_otherwise(out, "compute.precision", precision, asked.precision)
    cells = resolve(fast, torch.device(recorded["device"]), precision)
    if cells != recorded["fast"]:
        raise RunError(
            f"{out} was begun with {recorded['fast']!r} cells, and this installation has {cells!r} "
            "ones for it; continue it where numba can be imported as it could there"
        )
    compute = {
        "device": recorded["device"],
        "threads": recorded["threads"],
        "fast": fast,
        "precision": precision,
    }
    return Recipe.from_dict({**recipe.to_dict(), "compute": compute}, str(out / ENVIRONMENT))


def _begun_otherwise(out: Path, key: str, recorded: object, wanted: object) -> RunError:
    return RunError(
        f"{out} was begun with {key} {recorded}, and a resumed run must end as one never stopped; "
        f"leave {key} {wanted} out, or give another --out"
    )


def _folds(recipe: Recipe, corpus: Corpus, options: Options) -> tuple[list[Fold], tuple[str, ...]]:
    """The folds that are asked for, and what every table of their scores must say.

    Their parts are made once for a look, so that what cannot be divided is refused at once.
    """
    asked = recipe.evaluation
    told: tuple[str, ...] = ()
    if options.all_data:
        folds = [deployment_fold(corpus.utterances)]
    else:
        made = make_folds(corpus, asked.split, asked.allow_speaker_overlap)
        by_index, told = {fold.index: fold for fold in made.folds}, made.warnings
        numbers = sorted(by_index if asked.folds is None else asked.folds)
        if unknown := [k for k in numbers if k not in by_index]:
            raise RecipeError(
                f"evaluation.folds: no fold {unknown[0]}; split {asked.split!r} has folds "
                f"{', '.join(map(str, by_index))}"
            )
        folds = [by_index[k] for k in numbers]
        if len(folds) < len(by_index):
            told = (*told, f"not all folds ran: {len(folds)} of {len(by_index)}")
    for fold in folds:
        for seed in asked.seeds:
            make_parts(corpus.utterances, fold, asked.protocol, seed)
    return folds, told


def _trials(
    recipe: Recipe,
    data: Dataset,
    folds: Sequence[Fold],
    out: Path,
    device: torch.device,
    options: Options,
) -> list[Trial]:
    trials = []
    for fold in folds:
        place = out if options.all_data else out / f"fold-{fold.index}"
        for seed in recipe.evaluation.seeds:
            parts = make_parts(data.utterances, fold, recipe.evaluation.protocol, seed)
            folder = place / f"seed-{seed}"
            trials.append(Trial(recipe, fold.index, seed, parts, folder, device))
    return trials


def _check_genotypes(
    recipe: Recipe, data: Dataset, trials: Sequence[Trial], options: Options
) -> None:
    """Refuse now what would fail after hours: a genotype that does not fit, or none at all."""
    if options.genotype is not None:
        n_classes = len(data.classes)
        n_features = recipe.features.n_features
        SearchedNetwork(options.genotype, recipe.trained_network, n_features, n_classes)
        for path in (trial.folder / GENOTYPE for trial in trials):
            if path.is_file() and Genotype.load(path) != options.genotype:
                raise RunError(
                    f"{path} holds other cells than the genotype that is given; "
                    "resume with those cells, or give another --out"
                )
    elif not options.search:
        missing = [t.folder / GENOTYPE for t in trials if not (t.folder / GENOTYPE).is_file()]
        if missing:
            raise RunError(
                f"no genotype to train: {missing[0]} is missing; give --genotype FILE, or the "
                "--out of a finished `emodarts search` with --resume"
            )


def _write_header(
    out: Path,
    asked: Recipe,
    recipe: Recipe,
    data: Dataset,
    header: dict[str, Any],
    trials: Sequence[Trial],
    device: torch.device,
    options: Options,
) -> None:
    folds = {
        "split": None if options.all_data else recipe.evaluation.split,
        "protocol": recipe.evaluation.protocol,
        "folds": [
            {"fold": t.fold, "seed": t.seed, **t.parts.names(data.utterances)} for t in trials
        ],
    }
    if (out / DATA).is_file():
        _check_same_run(out, recipe, data, options, folds)
        return
    # As asked: what a resumed run computes with is what the environment records.
    files.write_text(out / RECIPE, asked.to_yaml())
    rows = header["utterances"]
    files.write_csv(out / UTTERANCES, list(rows[0]), rows)
    files.write_json(out / FOLDS, folds)
    started = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    files.write_json(
        out / ENVIRONMENT,
        {
            **describe_environment(device),
            "fast": resolve(recipe.compute.fast, device, recipe.compute.precision),
            "precision": recipe.compute.precision,
            "started": started,
        },
    )
    # Last, as its presence says that the header is whole.
    kept = {k: v for k, v in header.items() if k != "utterances"}
    files.write_json(
        out / DATA, {**kept, "recipe_digest": recipe.digest(), "all_data": options.all_data}
    )


def _check_same_run(
    out: Path, recipe: Recipe, data: Dataset, options: Options, folds: dict[str, Any]
) -> None:
    recorded = files.read_object(out / DATA, RunError, "recipe_digest", "digest", "all_data")
    if recorded["all_data"] != options.all_data:
        raise RunError(
            f"{out} was begun {'with' if recorded['all_data'] else 'without'} --all-data; "
            "resume it so, or give another --out"
        )
    if recorded["recipe_digest"] != recipe.digest():
        raise RunError(
            f"{out} holds a run of another recipe (see {RECIPE} there); "
            "resume it with the same settings, or give another --out"
        )
    if recorded["digest"] != data.digest:
        raise RunError(
            f"{out} holds a run on other data (see {UTTERANCES} there); "
            "resume it with the same files and labels, or give another --out"
        )
    if files.read_object(out / FOLDS, RunError, "folds") != folds:
        raise RunError(
            f"{out} holds a run on other folds (see {FOLDS} there); "
            "resume it with the same fold file, or give another --out"
        )


def _summarise(
    recipe: Recipe,
    data: Dataset,
    header: dict[str, Any],
    folds: Sequence[Fold],
    told: Sequence[str],
    trials: Sequence[Trial],
    results: Sequence[dict[str, Any]],
    options: Options,
) -> dict[str, Any]:
    """Write the predictions of all folds; return the contents of ``result.json``."""
    predictions = [p for trial in trials for p in trial_predictions(trial)]
    out = trials[0].folder.parents[1]
    write_predictions(out / PREDICTIONS, predictions, data.classes)
    scores = aggregate(predictions, data.classes)
    details = {(r["fold"], r["seed"]): r for r in results}
    kept = ("epoch", "parameters", "multiply_adds", "genotype")
    for fold in scores["folds"]:
        for seed in fold["seeds"]:
            detail = details[fold["fold"], seed["seed"]]
            seed.update({key: detail[key] for key in kept})
    if recipe.training.optimistic:
        _write_optimistic(out, trials)
    return {
        "format": FORMAT,
        "name": recipe.name,
        "corpus": data.corpus,
        "notice": data.notice,
        "protocol": recipe.evaluation.protocol,
        "split": recipe.evaluation.split,
        "labels": None if recipe.labels is None else list(recipe.labels),
        "seeds": list(recipe.evaluation.seeds),
        "definitions": {"ua": UA_DEFINITION, "wa": WA_DEFINITION},
        "genotypes": _genotype_origin(recipe, options),
        "warnings": [*told, *_warnings(recipe, header, options)],
        **scores,
        "parameters": round(fmean(r["parameters"] for r in results)),
        "multiply_adds": round(fmean(r["multiply_adds"] for r in results)),
        "baselines": _baselines(recipe, data, folds),
    }


def _genotype_origin(recipe: Recipe, options: Options) -> str:
    if options.genotype is not None:
        return "given"
    return "random" if recipe.search.strategy == "random" else "searched"


def _warnings(recipe: Recipe, header: dict[str, Any], options: Options) -> list[str]:
    warnings = []
    if header["bad"]:
        warnings.append(f"{len(header['bad'])} utterances with unusable audio were left out")
    origin = _genotype_origin(recipe, options)
    if origin == "given":
        warnings.append(
            "the genotype was given, not searched in each fold: its search may have heard "
            "test speakers"
        )
    elif origin == "random":
        warnings.append("the genotypes were drawn at random, not searched")
    return warnings


def _baselines(recipe: Recipe, data: Dataset, folds: Sequence[Fold]) -> dict[str, Any]:
    """Scores of simple answers on the same folds, fitted to the whole training folds."""
    means = data.per_utterance(mean_features(data.features, recipe.features))
    majority, linear = [], []
    for fold in folds:
        development, test = list(fold.development), list(fold.test)
        labels = data.labels(fold.development)
        majority += _as_predictions(data, fold, majority_answer(labels, len(test)))
        answers = logistic_regression(means[development], labels, means[test])
        linear += _as_predictions(data, fold, answers)
    even = 1.0 / len(data.classes)
    return {
        "chance": {"ua": even, "wa": even, "macro_f1": None},
        "majority": _three_scores(majority, data.classes),
        "logistic_regression": _three_scores(linear, data.classes),
    }


def _as_predictions(data: Dataset, fold: Fold, answers: Iterable[str]) -> list[Prediction]:
    return [
        Prediction(
            name=data.utterances[i].name,
            speaker=data.utterances[i].speaker,
            fold=fold.index,
            seed=0,
            label=data.utterances[i].known_label(),
            predicted=answer,
            probabilities=tuple(float(answer == name) for name in data.classes),
        )
        for i, answer in zip(fold.test, answers, strict=True)
    ]


def _three_scores(predictions: Sequence[Prediction], classes: Sequence[str]) -> dict[str, float]:
    scores = aggregate(predictions, classes)
    return {metric: scores[metric] for metric in ("ua", "wa", "macro_f1")}


def _write_optimistic(out: Path, trials: Sequence[Trial]) -> None:
    """Mean of what the published way of scoring would report; see contract of ``trial``."""
    values = [files.read_object(t.folder / OPTIMISTIC, RunError, "warning") for t in trials]
    keys = [key for key in values[0] if key != "warning"]
    means = {key: fmean(v[key] for v in values) for key in keys}
    files.write_json(out / OPTIMISTIC, {**means, "warning": values[0]["warning"]})

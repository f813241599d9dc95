"""The plan of a run: everything is checked, and written to its folder, before a trial begins."""

from __future__ import annotations

import datetime
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from emodarts import files
from emodarts.audio.survey import count_longer
from emodarts.cache import default_cache_folder
from emodarts.corpora.spelling import common_emotion
from emodarts.corpora.utterance import Corpus, Utterance
from emodarts.dataset import Listing, fill_store
from emodarts.errors import CorpusError, RecipeError, RunError, list_some
from emodarts.experiments.compute import Compute, free_keys, settle_compute
from emodarts.experiments.spec import Stage, TrialSpec
from emodarts.genotype import Genotype
from emodarts.layout import RunFolder
from emodarts.progress import Progress
from emodarts.recipe import (
    SYSTEMS,
    EvaluationSpec,
    FeatureSpec,
    Recipe,
    differing_keys,
    load_recipe,
)
from emodarts.recipe.system import SearchedSpec
from emodarts.runtime import configure, describe_environment
from emodarts.splits import (
    Fold,
    Folds,
    Parts,
    deployment_fold,
    make_folds,
    make_parts,
    settle_duplicates,
    shared_speakers,
)
from emodarts.tracking.trials import prepare


@dataclass(frozen=True)
class Options:
    """What a recipe leaves open: how much of a run to do, where its files are, how to continue.

    Attributes
    ----------
    resume : continue the run in the directory instead of refusing it.
    skip_bad : go on without utterances whose audio is unusable.
    cache : folder of the feature store; by default the user's cache folder.
    search, train : which halves to do.
    genotype : train this one instead of searching.
    asked : dotted keys of the recipe that were asked for by name, and that a given genotype must
        not decide otherwise.
    all_data : hold out no test fold; the model is to be deployed.
    jobs : trials that run side by side, each in a process of its own; ``auto`` is one for each
        thread that torch would use on a CPU, and 1 on other devices.
    asked_only : plan only the folds and seeds that are asked for; otherwise, those that the folder
        has besides are part of the run.
    """

    resume: bool = False
    skip_bad: bool = False
    cache: Path | None = None
    search: bool = True
    train: bool = True
    genotype: Genotype | None = None
    asked: tuple[str, ...] = ()
    all_data: bool = False
    jobs: int | Literal["auto"] = 1
    asked_only: bool = False

    @property
    def stage(self) -> Stage:
        """Where a trial ends."""
        return "fit" if self.train else "search"


@dataclass(frozen=True)
class Plan:
    """What a run will do.

    Attributes
    ----------
    trials : of all folds and seeds, finished ones included.
    jobs : trials that run side by side.
    """

    trials: tuple[TrialSpec, ...]
    jobs: int

    def to_dict(self) -> dict[str, Any]:
        """JSON values; :meth:`from_dict` is the inverse."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Plan:
        """The inverse of :meth:`to_dict`."""
        return cls(tuple(TrialSpec(**trial) for trial in value["trials"]), value["jobs"])


#: A recall of 0.8 on 300 utterances has a standard error of 2.3 points, as epochs differ among each
#: other.
_ENOUGH_TO_CHOOSE = 300


@dataclass(frozen=True)
class _Division:
    """Folds that are asked for, and the parts of each with each seed."""

    parts: dict[tuple[int, int], Parts]
    warnings: tuple[str, ...]
    n_folds: int

    def to_dict(
        self, recipe: Recipe, utterances: Sequence[Utterance], all_data: bool
    ) -> dict[str, Any]:
        """Contents of ``folds.json``."""
        return {
            "split": None if all_data else recipe.evaluation.split,
            "protocol": recipe.evaluation.protocol,
            "folds": [
                {"fold": fold, "seed": seed, **parts.names(utterances)}
                for (fold, seed), parts in self.parts.items()
            ],
        }


def make_plan(
    recipe: Recipe, corpus: Corpus, out: Path, options: Options, progress: Progress
) -> Plan:
    """Check a run, fill the feature store, and write the header of the run's folder.

    Nothing is written to ``out`` before recipe, audio, folds and genotype have been checked.

    Raises
    ------
    EmodartsError
        Of the part that found the fault; see :mod:`emodarts.errors`.
    """
    run = RunFolder(out)
    if options.resume:
        files.remove_leftovers(out)
    _check_directory(run, options)
    _check_halves(recipe, options)
    asked, wanted = recipe, recipe.evaluation
    if options.resume and run.recipe.is_file():
        recipe, asked = _continued(recipe, run)
    compute = settle_compute(recipe.compute, run if options.resume else None, options.jobs)
    recipe = recipe.model_copy(update={"compute": compute.spec})
    if options.search and options.genotype is None and recipe.searches:
        try:
            recipe.search.check_precision(recipe.compute.precision)
        except ValueError as error:
            raise RecipeError(str(error)) from error
    device = configure(recipe.compute)
    chosen = corpus.select(recipe.labels, recipe.styles)
    _check_classes(chosen)
    division = _divide(recipe, chosen, options)  # refuse bad folds before hours of extraction
    store = (options.cache or default_cache_folder()) / "features"
    listing, bad = fill_store(recipe, chosen, store, device, progress, skip_bad=options.skip_bad)
    if bad:
        usable = replace(chosen, utterances=listing.utterances, skipped=chosen.skipped + bad)
        division = _divide(recipe, usable, options)
    duplicates = settle_duplicates(
        listing.utterances,
        listing.sounds,
        division.parts.values(),
        recipe.evaluation.allow_duplicates,
    )
    trials = tuple(
        TrialSpec(
            run=str(out.resolve()),
            store=str(store.resolve()),
            recipe_digest=recipe.digest(),
            fold=None if options.all_data else fold,
            seed=seed,
            stage=options.stage,
        )
        for fold, seed in division.parts
        if not options.asked_only
        or (seed in wanted.seeds and (wanted.folds is None or fold in wanted.folds))
    )
    _check_genotypes(recipe, listing, run, trials, options)
    header = {
        "corpus": listing.corpus,
        "notice": listing.notice,
        "digest": listing.digest,
        "fingerprints": dict(listing.fingerprints),
        "classes": list(listing.classes),
        "emotions": _common_names(corpus, chosen),
        "n_utterances": len(listing.utterances),
        "n_speakers": len({u.speaker for u in listing.utterances} - {None}),
        "skipped": [list(pair) for pair in chosen.skipped],
        "bad": [list(pair) for pair in bad],
        "recipe_digest": recipe.digest(),
        "all_data": options.all_data,
        "n_folds": division.n_folds,
        "genotypes": _origin(recipe, options),
        "warnings": [
            *division.warnings,
            *duplicates,
            *corpus.spelling_warnings(recipe.labels),
            *_left_out(corpus.skipped),
            *_shortened(recipe.features, listing.utterances),
            *_unknown_genders(recipe, listing.utterances),
            *_warnings(len(bad), _origin(recipe, options)),
        ],
    }
    folds = division.to_dict(recipe, listing.utterances, options.all_data)
    if run.data.is_file():
        _check_same_run(run, header, folds)
    # First, as it makes the folder that of a run. As asked: what a resumed run computes with is
    # what the environment records.
    files.write_text(run.recipe, asked.to_yaml())
    if not run.data.is_file():
        _write_facts(run, listing, compute, device)
    files.write_json(run.folds, folds)
    files.write_json(run.data, header)  # last, as its presence says that the header is whole
    if recipe.compute.mlflow is not None:
        prepare(recipe.compute.mlflow)
    if options.genotype is not None:
        for trial in trials:
            options.genotype.save(run.trial(trial.fold, trial.seed).genotype)
    return Plan(trials, compute.jobs)


def _common_names(corpus: Corpus, chosen: Corpus) -> dict[str, list[str]]:
    """Common names of the labels of ``corpus`` that each class of ``chosen`` is made of."""
    labels = {u.name: u.known_label() for u in corpus if u.label is not None}
    found: dict[str, set[str]] = {name: set() for name in chosen.classes}
    for utterance in chosen:
        label = labels[utterance.name]
        common = corpus.emotions.get(label) or common_emotion(label)
        if common is not None:
            found[utterance.known_label()].add(common)
    return {name: sorted(common) for name, common in found.items()}


def _check_directory(run: RunFolder, options: Options) -> None:
    out = run.path
    occupied = out.is_dir() and any(path.name != files.LOCK for path in out.iterdir())
    if occupied and not options.resume:
        raise RunError(f"{out} is not empty; give --resume to continue it, or another --out")
    if occupied and not run.recipe.is_file():
        raise RunError(f"{out} is not empty and holds no run ({run.recipe.name} is missing)")


def _continued(recipe: Recipe, run: RunFolder) -> tuple[Recipe, Recipe]:
    """The recipe, and that in the folder of the run, with the folds and seeds of both.

    Raises
    ------
    RunError
        Naming the keys in which they differ otherwise.
    """
    recorded = load_recipe(run.recipe)
    if differing := differing_keys([recorded, recipe]):
        listed = [
            f"{key} is {json.dumps(there)} there and {json.dumps(here)} here"
            for key, (there, here) in differing.items()
        ]
        raise RunError(
            f"{run.path} holds a run with other settings: {list_some(listed)}; resume it with the "
            "same settings, or give another --out"
        )
    was, now = recorded.evaluation, recipe.evaluation
    both = {
        "folds": None
        if was.folds is None or now.folds is None
        else tuple(sorted({*was.folds, *now.folds})),
        "seeds": tuple(dict.fromkeys((*was.seeds, *now.seeds))),
    }
    return (
        recipe.model_copy(update={"evaluation": now.model_copy(update=both)}),
        recorded.model_copy(
            update={
                "evaluation": was.model_copy(update=both),
                "compute": recorded.compute.model_copy(update=free_keys(recipe.compute)),
            }
        ),
    )


def _check_classes(corpus: Corpus) -> None:
    """Refuse what leaves nothing to tell apart, before any feature is computed."""
    if len(corpus.classes) < 2:
        raise CorpusError(
            f"all {len(corpus):,} utterances of corpus {corpus.name!r} have the label "
            f"{corpus.classes[0]!r}; at least 2 classes are needed: check which column or part of "
            "the path gives the emotion"
        )


def _check_halves(recipe: Recipe, options: Options) -> None:
    """Refuse half a run of a system that has no halves."""
    if recipe.searches:
        return
    if not options.train or options.genotype is not None:
        raise RecipeError(
            f"recipe {recipe.name!r} with system {recipe.system.kind!r} searches no genotype; use "
            "`emodarts run`, or `emodarts train --all-data` for the model to deploy"
        )


def _divide(recipe: Recipe, corpus: Corpus, options: Options) -> _Division:
    """Make the folds that are asked for and their parts, and what every table must say of them."""
    asked = recipe.evaluation
    warnings: tuple[str, ...] = ()
    n_folds = 1
    if options.all_data:
        folds = [deployment_fold(corpus.utterances)]
    else:
        made = make_folds(corpus, asked.split, asked.allow_speaker_overlap)
        folds, warnings, n_folds = asked_folds(asked, made), made.warnings, len(made.folds)
    chooses = "training" in recipe.system.sections and recipe.training.select != "last"
    parts = {
        (fold.index, seed): make_parts(
            corpus.utterances,
            fold,
            asked.protocol,
            seed,
            asked.search_halves,
            chooses,
            recipe.searches,
        )
        for fold in folds
        for seed in asked.seeds
    }
    warnings = (*warnings, *_narrow_folds(corpus, parts))
    fewest = min(len(each.validation) for each in parts.values())
    if chooses and fewest < _ENOUGH_TO_CHOOSE:
        warnings = (
            *warnings,
            f"the epoch is chosen on as few as {fewest} utterances, where chance decides between "
            "epochs; training.select: last trains on them, too",
        )
    if recipe.searches and asked.search_halves == "speakers":
        shared = sum(shared_speakers(corpus.utterances, made) for made in parts.values())
        if shared:
            warnings = (
                *warnings,
                f"in {shared} of {len(parts)} searches, alphas were judged on speakers that train "
                "the weights: they are too few, or the split does not keep speakers apart",
            )
    return _Division(parts, warnings, n_folds)


def asked_folds(asked: EvaluationSpec, made: Folds) -> list[Fold]:
    """The folds of a recipe among all of its split; raises :class:`RecipeError` for one more."""
    by_index = {fold.index: fold for fold in made.folds}
    numbers = sorted(by_index if asked.folds is None else asked.folds)
    if unknown := [k for k in numbers if k not in by_index]:
        raise RecipeError(
            f"evaluation.folds: no fold {unknown[0]}; split {asked.split!r} has folds "
            f"{', '.join(map(str, by_index))}"
        )
    return [by_index[k] for k in numbers]


def _narrow_folds(corpus: Corpus, parts: Mapping[tuple[int, int], Parts]) -> list[str]:
    """A warning of folds whose test part lacks classes."""
    tested = {
        fold: len({corpus.utterances[i].label for i in each.test})
        for (fold, _), each in parts.items()
        if each.test
    }
    of = len(corpus.classes)
    narrow = [f"fold {fold} tests {n} of {of} classes" for fold, n in tested.items() if n < of]
    if not narrow:
        return []
    return [
        f"{list_some(narrow, 3)}: UA and macro F1 of such a fold are means over the classes that "
        "it tests, and its macro F1 is too high, as nothing of the other classes can be mistaken "
        "for them; the pooled UA counts every class"
    ]


def _check_genotypes(
    recipe: Recipe,
    listing: Listing,
    run: RunFolder,
    trials: Sequence[TrialSpec],
    options: Options,
) -> None:
    """Refuse now what would fail after hours: a genotype that does not fit, or none at all."""
    if not recipe.searches:
        return
    paths = [run.trial(trial.fold, trial.seed).genotype for trial in trials]
    if options.genotype is not None:
        system = SYSTEMS[recipe.system.kind].build(recipe.system)
        system.check(options.genotype, recipe, len(listing.classes), options.asked)
        for path in paths:
            if path.is_file() and Genotype.load(path) != options.genotype:
                raise RunError(
                    f"{path} holds other cells than the genotype that is given; "
                    "resume with those cells, or give another --out"
                )
    elif not options.search:
        missing = [path for path in paths if not path.is_file()]
        if missing:
            raise RunError(
                f"no genotype to train: {missing[0]} is missing; give --genotype FILE, or the "
                "--out of a finished `emodarts search` with --resume"
            )


def _origin(recipe: Recipe, options: Options) -> str | None:
    """Where the genotypes come from; None: there is nothing to search."""
    if not recipe.searches:
        return None
    if options.genotype is not None:
        return "given"
    return "random" if recipe.search.strategy == "random" else "searched"


def _left_out(skipped: Sequence[tuple[str, str]]) -> list[str]:
    if not skipped:
        return []
    reasons = Counter(reason for _, reason in skipped).most_common()
    listed = list_some([f"{n:,} {reason}" for reason, n in reasons], 3)
    return [f"the reader of the corpus left out {len(skipped):,}: {listed}"]


def _shortened(spec: FeatureSpec, utterances: Sequence[Utterance]) -> list[str]:
    """How many utterances a recipe cuts that takes only the beginning of long ones."""
    longer = 0 if spec.length == "segments" else count_longer(utterances, spec.duration)
    if not longer:
        return []
    return [
        f"{longer:,} of {len(utterances):,} utterances are longer than {spec.duration:g} s and "
        "were cut (features.length)"
    ]


def _unknown_genders(recipe: Recipe, utterances: Sequence[Utterance]) -> list[str]:
    """What of a corpus cannot train a classifier of genders that the recipe asks for."""
    system = recipe.system
    unknown = sum(u.gender is None for u in utterances)
    if not (unknown and isinstance(system, SearchedSpec) and system.gender_weight):
        return []
    which = "all" if unknown == len(utterances) else f"{unknown:,} of {len(utterances):,}"
    return [
        f"{which} utterances lack the speaker's gender, and train emotion alone in spite of "
        f"system.gender_weight {system.gender_weight:g}"
    ]


def _warnings(n_bad: int, origin: str | None) -> list[str]:
    warnings = []
    if n_bad:
        warnings.append(f"{n_bad} utterances with unusable audio were left out")
    if origin == "given":
        warnings.append(
            "the genotype was given, not searched in each fold: its search may have used test "
            "speakers"
        )
    elif origin == "random":
        warnings.append("the genotypes were drawn at random, not searched")
    return warnings


def _write_facts(run: RunFolder, listing: Listing, compute: Compute, device: torch.device) -> None:
    """Write what stays as it is when folds and seeds are added."""
    rows = listing.rows()
    files.write_csv(run.utterances, list(rows[0]), rows)
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    environment = {**describe_environment(device), **compute.record(), "started": started}
    files.write_json(run.environment, environment)


def _check_same_run(run: RunFolder, header: Mapping[str, Any], folds: Mapping[str, Any]) -> None:
    recorded = files.read_object(run.data, RunError, "genotypes", "digest", "all_data")
    out = run.path
    if recorded["all_data"] != header["all_data"]:
        raise RunError(
            f"{out} was begun {'with' if recorded['all_data'] else 'without'} --all-data; "
            "resume it the same way, or give another --out"
        )
    if recorded["genotypes"] != header["genotypes"]:
        raise RunError(
            f"the genotypes of {out} are {recorded['genotypes']}; resume it "
            f"{'with' if recorded['genotypes'] == 'given' else 'without'} --genotype, or give "
            "another --out"
        )
    if recorded["digest"] != header["digest"]:
        raise RunError(
            f"{out} holds a run on other data (see {run.utterances.name} there); "
            "resume it with the same files and labels, or give another --out"
        )
    begun = files.read_object(run.folds, RunError, "split", "protocol", "folds")
    if any(entry not in folds["folds"] for entry in begun["folds"]):
        raise RunError(
            f"{out} holds a run on other folds (see {run.folds.name} there); "
            "resume it with the same fold file, or give another --out"
        )

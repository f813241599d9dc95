"""Headroom: whether genotypes of a space differ by more than seeds do, on inner data alone."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emodarts import files
from emodarts.corpora.utterance import Corpus
from emodarts.errors import RecipeError, RunError
from emodarts.experiments.plan import Options, make_plan
from emodarts.experiments.trials import run_trials
from emodarts.layout import RunFolder
from emodarts.progress import Progress, Silent
from emodarts.recipe import Recipe
from emodarts.recipe.system import SearchedSpec
from emodarts.runtime import derive_seed
from emodarts.scoring import variance
from emodarts.searching.candidate import Candidate
from emodarts.searching.derivation import different_genotypes


def headroom(
    recipe: Recipe,
    corpus: Corpus,
    out: str | Path,
    n_genotypes: int,
    inner_folds: int = 3,
    options: Options | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train random genotypes with every seed of a recipe; return what ``headroom.json`` holds.

    The network of a genotype is judged by the UA of the pooled predictions of inner folds, which
    leave groups of development speakers out; test speakers are used for nothing. With several
    folds, scores are means over them. Finished trainings in ``out`` are not repeated.

    Raises
    ------
    RecipeError
        If the system searches no genotype, or for fewer than two seeds or genotypes.
    EmodartsError
        Of the part that found another fault.
    """
    options, progress = options or Options(), progress or Silent()
    system = recipe.system
    if not isinstance(system, SearchedSpec):
        raise RecipeError(f"system {system.kind!r} has no genotypes; allowed: system searched")
    seeds = recipe.evaluation.seeds
    if min(len(seeds), n_genotypes) < 2:
        raise RecipeError(
            f"{n_genotypes} genotypes with {len(seeds)} seeds; allowed: at least 2 of each, e.g. "
            "--genotypes 8 --seeds 0,1,2"
        )
    generator = torch.Generator().manual_seed(derive_seed(0, "headroom"))
    genotypes = different_genotypes(recipe.network, n_genotypes, generator)
    if len(genotypes) < n_genotypes:
        raise RecipeError(
            f"the search space of this network has fewer than {n_genotypes} genotypes; "
            "search more cells, or set network.cnn.space=extended"
        )
    run = RunFolder(Path(out))
    with files.locked(run.path, RunError):
        plan = make_plan(recipe, corpus, run.path, replace(options, train=False), progress)
        trials = [trial for trial in plan.trials if trial.seed == seeds[0]]
        candidates = [
            Candidate(genotype, seed, inner_folds).to_dict()
            for genotype in genotypes
            for seed in seeds
        ]
        specs = [replace(trial, candidate=each) for trial in trials for each in candidates]
        found = [result["ua"] for result in run_trials(specs, plan.jobs, progress)]
        means = np.reshape(found, (len(trials), n_genotypes, len(seeds))).mean(axis=0)
        result = {
            "name": recipe.name,
            "corpus": files.read_object(run.data, RunError, "corpus")["corpus"],
            "folds": [trial.fold for trial in trials],
            "inner_folds": inner_folds,
            "seeds": list(seeds),
            "genotypes": [genotype.to_dict() for genotype in genotypes],
            "ua": means.tolist(),
            **asdict(variance.headroom(means)),
        }
        files.write_json(run.headroom, result)
    return result

"""Which training settings help: many small networks trained in lockstep on one device.

    python benchmarks/lockstep.py --corpus emodb --root DIR --device cuda \\
        --setting "smooth:label_smoothing=0.2,stretch=[0.8,1.25]" --setting plain:speed=null \\
        --setting long:training.epochs=240 --setting all:features.trim=null

Trains settings x seeds x inner folds of a recipe without cells; the first setting is `base`, the
recipe as it is. Of each fold the test group is left out, the next group is judged and all others
train. Over the folds every group is judged, so that a chosen setting needs other speakers for a
score that is not optimistic. `--set` changes the recipe for all networks.

Settings of learning rate, loss, perturbation, masks and dropout are trained together, by the last
name of their keys; those of any other key, with its section before it, after them, together where
they agree in it. With --json what is done is written after each such group.

The networks differ from those of a run in their batches: all have one size and one number of steps,
that of the average training part, and a network that is through with its utterances begins again
within a batch. The last weights count, and the seeds stand for the members of an ensemble. On a GPU
products are in TF32. Where that matters, `--folds FILE` writes the inner folds and trains nothing;
`emodarts run --split FILE` then trains on them.
"""

from __future__ import annotations

import argparse
import json
import operator
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from emodarts import Recipe, files, load_corpus, load_recipe
from emodarts.audio.features import band_frequencies
from emodarts.cache import default_cache_folder
from emodarts.dataset import Dataset, fill_store, load_dataset
from emodarts.errors import EmodartsError, RecipeError, did_you_mean
from emodarts.progress import for_terminal
from emodarts.runtime import derive_seed, resolve_device
from emodarts.splits import Indices, make_folds
from emodarts.splits.checks import check_classes
from emodarts.training.batches import (
    Normalisation,
    class_weights,
    join_pieces,
    loss_and_ua,
    require_finite,
)
from emodarts.training.fit import learning_rate
from emodarts.training.views import Hearing, valid_frames
from measure import parser, seconds, size_of, write
from stacked import AdamW, Stack, Views, build, cross_entropy, require_stackable

_TRAINING = ("learning_rate", "schedule", "weight_decay", "label_smoothing", "class_weights")
_PERTURBATION = ("speed", "stretch", "vtlp", "equaliser", "mix_statistics")
_MASKS = ("frequency_masks", "frequency_width", "time_masks", "time_width")
#: What may differ between networks that train together, by the last name of the recipe's key.
KEYS = {
    "dropout": "network.dropout",
    **{key: f"training.{key}" for key in _TRAINING},
    **{key: f"training.perturbation.{key}" for key in _PERTURBATION},
    **{key: f"training.masks.{key}" for key in _MASKS},
}
#: Seeds, and what changes the recipe.
SIZES: dict[str, tuple[int, list[str]]] = {
    "full": (3, []),
    "quick": (1, ["training.epochs=10"]),
    "small": (1, ["training.epochs=1"]),
}
#: Rows that a network answers for at once.
ANSWERS = 16
#: Networks that train at once, at most, so that they fit into the memory of a GPU.
NETWORKS = 300


@dataclass(frozen=True)
class Trial:
    """A network, what trains it and what judges it."""

    setting: str
    recipe: Recipe
    seed: int
    fold: int
    train: Indices
    judged: Indices


def parse_setting(text: str, recipe: str, overrides: Sequence[str]) -> tuple[str, Recipe]:
    """``NAME:KEY=VALUE,...`` -> the name and the recipe, with ``overrides`` and then these.

    A key is one of :data:`KEYS` or any of the recipe with its sections, as in ``training.epochs``.

    Raises
    ------
    RecipeError
        For another form, an unknown key or a value that the recipe refuses.
    """
    name, _, changes = text.partition(":")
    own = []
    for change in re.split(r",(?![^\[{]*[\]}])", changes) if changes else []:
        key, equals, value = change.partition("=")
        if not equals or (key not in KEYS and "." not in key):
            raise RecipeError(
                f"setting {text!r}: {change!r}{did_you_mean(key, KEYS)}; "
                f"allowed: KEY=VALUE with {', '.join(KEYS)}, or SECTION.KEY=VALUE"
            )
        own.append(f"{KEYS.get(key, key)}={value}")
    found = load_recipe(recipe, [*overrides, *own])
    require_stackable(found)
    return name, found


def in_groups(settings: Sequence[tuple[str, Recipe]], most: int) -> list[list[tuple[str, Recipe]]]:
    """Settings that can train together, at most so many: they differ in :data:`KEYS` alone."""
    found: dict[str, list[tuple[str, Recipe]]] = {}
    for name, recipe in settings:
        value = recipe.to_dict()
        for key in KEYS.values():
            *sections, last = key.split(".")
            reduce(operator.getitem, sections, value).pop(last)
        found.setdefault(json.dumps(value), []).append((name, recipe))
    return [group[k : k + most] for group in found.values() for k in range(0, len(group), most)]


def make_trials(
    data: Dataset, settings: Sequence[tuple[str, Recipe]], tests: Sequence[Indices], seeds: int
) -> list[Trial]:
    """Settings x seeds x folds, whose test parts are ``tests``.

    Raises
    ------
    SplitError
        If a class is missing where the groups of two folds are left out.
    """
    trials = []
    for fold, test in enumerate(tests):
        judged = tests[(fold + 1) % len(tests)]
        train = tuple(sorted({i for part in tests for i in part} - {*test, *judged}))
        check_classes(data.utterances, train, data.classes, f"training in inner fold {fold}")
        trials += [
            Trial(name, recipe, seed, fold, train, judged)
            for name, recipe in settings
            for seed in range(seeds)
        ]
    return trials


def inner_folds(
    data: Dataset, base: tuple[str, Recipe], tests: Sequence[Indices]
) -> dict[str, list[dict[str, list[str]]]]:
    """The inner folds as a fold file (docs/protocols.md)."""

    def names(part: Indices) -> list[str]:
        return [data.utterances[i].name for i in part]

    trials = make_trials(data, [base], tests, seeds=1)
    return {"folds": [{"train": names(t.train), "test": names(t.judged)} for t in trials]}


class Training:
    """Networks of trials while they are trained.

    Parameters
    ----------
    trials : whose recipes differ in :data:`KEYS` alone.
    """

    def __init__(self, data: Dataset, trials: Sequence[Trial], device: torch.device) -> None:
        def each(value: Callable[[Recipe], float]) -> Tensor:
            return torch.tensor([value(t.recipe) for t in trials], device=device)

        recipe, n_classes = trials[0].recipe, len(data.classes)
        spec = recipe.training
        self.data, self.trials = data, trials
        (maps,) = data.maps.values()
        self.features = maps.features.to(device)
        targets = data.targets(tuple(range(len(data.utterances))))
        self.targets = (targets if data.owners is None else targets[data.owners]).to(device)
        of_fold = {t.fold: data.normalisation(t.train) for t in trials}
        mean = torch.stack([of_fold[t.fold].mean for t in trials])
        sd = torch.stack([of_fold[t.fold].sd for t in trials])
        self.normalisation = Normalisation(mean[:, None].to(device), sd[:, None].to(device))
        torch.manual_seed(derive_seed("views"))
        self.views = Views([t.recipe for t in trials], device)
        self.hearing: Hearing | None = None
        if spec.test_speeds != (1.0,):
            (features,) = recipe.inputs.values()
            bands = cast(Tensor, band_frequencies(features))
            self.hearing = Hearing(spec.test_speeds, bands).to(device)
        self.dropout = each(lambda r: r.network.dropout)
        self.smoothing = each(lambda r: r.training.label_smoothing)
        weights = [
            class_weights(data.targets(t.train), n_classes)
            if t.recipe.training.class_weights
            else torch.ones(n_classes)
            for t in trials
        ]
        self.weights = torch.stack(weights).to(device)
        # What has one seed and fold has the same first weights and batches in every setting.
        networks = [
            build(t.recipe, n_classes, derive_seed(t.seed, "network", t.fold)) for t in trials
        ]
        self.stack = Stack(networks, device)
        rows = [data.rows(t.train)[0] for t in trials]
        self.epoch = -(-round(statistics.mean(map(len, rows))) // spec.batch_size)
        self.steps = spec.epochs * self.epoch
        batches = [
            _batches(own, self.steps, spec.batch_size, derive_seed(t.seed, "batches", t.fold))
            for t, own in zip(trials, rows, strict=True)
        ]
        self.batches = torch.stack(batches, 1).to(device)
        rates = [
            [learning_rate(t.recipe.training, k, self.steps) for t in trials]
            for k in range(self.steps)
        ]
        self.rates = torch.tensor(rates, device=device)
        self.optimiser = AdamW(
            list(self.stack.parameters.values()),
            each(lambda r: r.training.weight_decay),
            spec.momentum,
            spec.gradient_clip,
        )
        self.done = torch.zeros(1, dtype=torch.long, device=device)
        self.right = torch.zeros(self.steps, len(trials), device=device)

    def run(self) -> None:
        """Take all steps, on a GPU as a CUDA graph: a step is a thousand small kernels."""
        if self.features.device.type != "cuda":
            for _ in range(self.steps):
                self._step()
            return
        warm_up = min(3, self.steps)
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(warm_up):
                self._step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._step()
        for _ in range(self.steps - warm_up):
            graph.replay()

    def _step(self) -> None:
        # A graph keeps every number that Python puts in, and cannot wait for one to come out.
        index = self.batches.index_select(0, self.done)[0]
        features = self.views.draw(self.normalisation.apply(self.features[index]))
        targets = self.targets[index]
        logits = self.stack(features, self.dropout)
        losses = cross_entropy(logits, targets, self.weights, self.smoothing)
        gradients = torch.autograd.grad(losses.sum(), list(self.stack.parameters.values()))
        self.optimiser.step(gradients, self.rates.index_select(0, self.done)[0])
        right = (logits.argmax(2) == targets).float().mean(1)
        self.right.index_copy_(0, self.done, right[None])
        self.done += 1

    def accuracy(self) -> list[float]:
        """Share of right answers of each network in its last epoch, to what it is trained on."""
        return self.right[-self.epoch :].mean(0).tolist()

    @torch.no_grad()
    def answers(self) -> list[Tensor]:
        """Log-probabilities ``(n, K)`` of each network for the utterances that judge it.

        Raises
        ------
        TrainingError
            If a network has diverged.
        """
        rows, positions = zip(*(self.data.rows(t.judged) for t in self.trials), strict=True)
        lengths = valid_frames(self.features).cpu()
        orders = [torch.argsort(lengths[own]) for own in rows]
        most = max(map(len, rows))
        # A network with fewer rows answers its longest again.
        index = torch.stack(
            [
                own[order][torch.arange(most).clamp(max=len(own) - 1)]
                for own, order in zip(rows, orders, strict=True)
            ]
        )
        found = []
        for some in torch.split(index, ANSWERS, dim=1):
            features = self.features[some.to(self.features.device)][..., : int(lengths[some].max())]
            found.append(self._logits(self.normalisation.apply(features)).cpu())
        answers = []
        for trial, logits, order, position in zip(
            self.trials, torch.cat(found, 1), orders, positions, strict=True
        ):
            require_finite(float(logits.sum()), f"setting {trial.setting!r}: the sum of logits")
            own = logits[: len(order)][torch.argsort(order)]
            answers.append(join_pieces(own, position).float().log_softmax(1))
        return answers

    def _logits(self, features: Tensor) -> Tensor:
        """Normalised maps ``(N, B, C, F, T)`` -> logits ``(N, B, K)``, as a trained one answers."""
        if self.hearing is None:
            return self.stack(features)
        heard = self.hearing(features.flatten(0, 1))
        views = [maps.view(*features.shape[:4], -1) for maps in heard]
        return torch.stack([self.stack(view).log_softmax(2) for view in views]).mean(0)


def _batches(rows: Tensor, steps: int, size: int, seed: int) -> Tensor:
    """Rows of each step ``(steps, size)``: one shuffle after another."""
    generator = torch.Generator().manual_seed(seed)
    shuffles = -(-steps * size // len(rows))
    order = torch.cat([torch.randperm(len(rows), generator=generator) for _ in range(shuffles)])
    return rows[order[: steps * size]].view(steps, size)


def scores(training: Training) -> dict[str, dict[str, Any]]:
    """Of each setting: UA of the seeds, their mean, deviation and joint answer, as fractions."""
    found: dict[str, dict[Indices, list[Tensor]]] = {}
    right: dict[str, list[float]] = {}
    for trial, answer, accuracy in zip(
        training.trials, training.answers(), training.accuracy(), strict=True
    ):
        found.setdefault(trial.setting, {}).setdefault(trial.judged, []).append(answer)
        right.setdefault(trial.setting, []).append(accuracy)

    def ua(answer: Tensor, judged: Indices) -> float:
        return loss_and_ua(answer, training.data.targets(judged))[1]

    result = {}
    for setting, folds in found.items():
        single = [[ua(answer, judged) for answer in answers] for judged, answers in folds.items()]
        joint = [ua(torch.stack(answers).mean(0), judged) for judged, answers in folds.items()]
        seeds = [statistics.mean(of_folds) for of_folds in zip(*single, strict=True)]
        result[setting] = {
            "ua": statistics.mean(seeds),
            "sd": statistics.stdev(seeds) if len(seeds) > 1 else None,
            "joint_ua": statistics.mean(joint),
            "training_accuracy": statistics.mean(right[setting]),
            "seeds": seeds,
            "folds": [statistics.mean(of_seeds) for of_seeds in single],
        }
    return result


class Reader:
    """Reads a corpus as recipes ask for it."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        options = dict(option.split("=", 1) for option in arguments.corpus_option)
        self.corpus = load_corpus(arguments.corpus, arguments.root, **options)
        self.store = (arguments.cache or default_cache_folder()) / "features"

    def read(self, recipe: Recipe) -> tuple[Dataset, list[Indices]]:
        """Features, and the test group of each fold of the recipe's split."""
        corpus, cpu = self.corpus.select(recipe.labels, recipe.styles), torch.device("cpu")
        listing, _ = fill_store(recipe, corpus, self.store, cpu, for_terminal())
        split = recipe.evaluation
        usable = replace(corpus, utterances=listing.utterances)
        folds = make_folds(usable, split.split, split.allow_speaker_overlap).folds
        return load_dataset(recipe, listing, self.store, cpu), [fold.test for fold in folds]


def main() -> None:
    """Print a table of the settings, and write it as JSON if asked."""
    taking = parser(__doc__)
    taking.add_argument("--corpus", required=True, help="name of a reader")
    taking.add_argument("--root", type=Path, metavar="DIR")
    taking.add_argument("--corpus-option", action="append", default=[], metavar="KEY=VALUE")
    taking.add_argument("--cache", type=Path, metavar="DIR")
    taking.add_argument("--recipe", default="default")
    taking.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    taking.add_argument("--setting", action="append", default=[], metavar="NAME:KEY=VALUE,...")
    taking.add_argument("--seeds", type=int, help="default: 3")
    taking.add_argument("--device", default="auto", help="default: auto")
    taking.add_argument("--folds", type=Path, metavar="FILE", help="only write the inner folds")
    arguments = taking.parse_args()
    seeds, overrides = SIZES[size_of(arguments)]
    seeds, overrides = arguments.seeds or seeds, [*overrides, *arguments.set]
    try:
        device = resolve_device(arguments.device)
        settings = [
            parse_setting(s, arguments.recipe, overrides) for s in ("base", *arguments.setting)
        ]
        if len({name for name, _ in settings}) < len(settings):
            raise RecipeError("two settings have one name, or one has the name 'base'")
        reader = Reader(arguments)
        if arguments.folds is not None:
            data, tests = reader.read(settings[0][1])
            files.write_json(arguments.folds, inner_folds(data, settings[0], tests))
            print(f"{len(tests)} inner folds: {arguments.folds}")
            return
        if device.type == "cuda":
            torch.set_float32_matmul_precision("high")
        folds = len(reader.read(settings[0][1])[1])
        result: dict[str, Any] = {"groups": [], "settings": {}}
        print(f"{'setting':16} {'UA %':>6} {'sd':>5} {'joint':>6} {'training':>8}", flush=True)
        for group in in_groups(settings, max(1, NETWORKS // (seeds * folds))):
            data, tests = reader.read(group[0][1])
            training = Training(data, make_trials(data, group, tests, seeds), device)
            took = seconds(training.run, device)
            found = scores(training)
            for name, row in found.items():
                _show(name, row)
            done = {"networks": len(training.trials), "steps": training.steps, "seconds": took}
            result["groups"].append(done)
            result["settings"] |= found
            write("lockstep", arguments, result, device)
    except EmodartsError as error:
        taking.exit(2, f"error: {error}\n")
    for done in result["groups"]:
        print("{networks} networks, {steps} steps: {seconds:.0f} s".format(**done))


def _show(name: str, row: dict[str, Any]) -> None:
    sd = "-" if row["sd"] is None else f"{100 * row['sd']:.1f}"
    numbers = (100 * row[key] for key in ("ua", "joint_ua", "training_accuracy"))
    mean, joint, right = (f"{number:.1f}" for number in numbers)
    print(f"{name:16} {mean:>6} {sd:>5} {joint:>6} {right:>8}", flush=True)


if __name__ == "__main__":
    main()

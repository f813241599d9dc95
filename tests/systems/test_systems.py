"""Every system: what it is fitted to, what it gives, and that it survives a bundle."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from emodarts.bundle import Bundle, load_bundle, save_bundle
from emodarts.corpora import load_corpus
from emodarts.dataset import Dataset, Maps
from emodarts.experiments.plan import Options
from emodarts.experiments.run import run
from emodarts.fast import Implementation, classes_of
from emodarts.genotype import Genotype
from emodarts.recipe import SYSTEMS, FeatureSpec, Kind, Recipe, SystemSpec
from emodarts.scoring.predictions import read_predictions
from emodarts.searching.candidate import Candidate
from emodarts.searching.derivation import random_genotype
from emodarts.serving.model import Model
from emodarts.space.cell import Cell
from emodarts.splits import Parts
from emodarts.systems.classical import mean_cepstrum, mean_of_all
from emodarts.systems.count import count_multiply_adds, count_parameters
from emodarts.systems.hand_made import HandMadeNetwork
from emodarts.systems.system import Cost, FitTask, Outcome, Saved
from emodarts.training.batches import Normalisation
from emodarts.training.fit import Trained

RecipeOf = Callable[..., Recipe]
TaskOf = Callable[..., FitTask]

#: Others have tests of their own, with the inputs that they need.
TAKE_ANY_MAP = [kind for kind in SYSTEMS if kind not in ("frozen_encoder", "emotionnas")]


def system_of(recipe: Recipe) -> Any:
    spec: SystemSpec = recipe.system
    return SYSTEMS[spec.kind].build(spec)


def bits(outcome: Outcome) -> tuple[dict[str, bytes], Any]:
    tensors, settings = outcome.fitted.state()
    return {k: v.contiguous().numpy().tobytes() for k, v in tensors.items()}, settings


@pytest.mark.parametrize("kind", TAKE_ANY_MAP)
def test_test_utterances_decide_nothing(
    kind: str, recipe_of: RecipeOf, task_of: TaskOf, data: Dataset, parts: Parts
) -> None:
    """Other features and labels in the test fold leave what is fitted bit by bit."""
    test = list(parts.test)
    features = data.maps["features"].features.clone()
    features[test] = 100 * torch.randn_like(features[test])
    utterances = list(data.utterances)
    for i in test:
        utterances[i] = dataclasses.replace(utterances[i], label="anger")
    listing = dataclasses.replace(data.listing, utterances=tuple(utterances))
    other = Dataset(listing, {"features": Maps(features)})
    recipe = recipe_of(kind)
    first = system_of(recipe).fit(task_of(recipe, "a"))
    second = system_of(recipe).fit(task_of(recipe, "b", data=other))
    assert bits(first) == bits(second)
    assert first.fitted.genotype == second.fitted.genotype


@pytest.mark.parametrize("kind", TAKE_ANY_MAP)
def test_a_row_depends_on_that_row_alone_and_survives_a_bundle(
    kind: str, recipe_of: RecipeOf, task_of: TaskOf, data: Dataset, tmp_path: Path
) -> None:
    recipe = recipe_of(kind)
    outcome = system_of(recipe).fit(task_of(recipe))
    inputs = data.inputs(tuple(range(17)))
    found = outcome.fitted.probabilities(inputs)
    assert found.shape == (17, 4)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(17, dtype=found.dtype))
    alone = torch.cat([outcome.fitted.probabilities(data.inputs((i,))) for i in range(17)])
    torch.testing.assert_close(found, alone, atol=1e-5, rtol=0)
    bundle = Bundle(
        recipe.system, outcome.fitted, recipe.inputs, data.classes, {"features": ""}, origin={}
    )
    save_bundle(tmp_path / "model", bundle)
    again = load_bundle(tmp_path / "model")
    assert again.system == recipe.system
    assert again.genotype == outcome.fitted.genotype
    assert torch.equal(again.probabilities(inputs), found)


def test_a_temperature_flattens_and_keeps_the_order(
    recipe_of: RecipeOf, task_of: TaskOf, data: Dataset, tmp_path: Path
) -> None:
    recipe = recipe_of("svm")
    fitted = system_of(recipe).fit(task_of(recipe)).fitted
    bundle = Bundle(recipe.system, fitted, recipe.inputs, data.classes, {"features": ""}, 3.0)
    save_bundle(tmp_path, bundle)
    pieces = fitted.probabilities(data.inputs((0, 1, 2)))
    plain, flat = pieces.double().mean(dim=0).numpy(), load_bundle(tmp_path).joined(pieces)
    np.testing.assert_allclose(flat, plain ** (1 / 3) / (plain ** (1 / 3)).sum())
    assert np.array_equal(flat.argsort(), plain.argsort())


# --- networks ---


def test_an_ensemble_answers_with_the_mean_of_its_networks_log_probabilities(
    recipe_of: RecipeOf, task_of: TaskOf, data: Dataset, tmp_path: Path
) -> None:
    alone = system_of(recipe_of("cnn")).fit(task_of(recipe_of("cnn"), "alone"))
    recipe = recipe_of("cnn", training={"ensemble": 3})
    outcome = system_of(recipe).fit(task_of(recipe, "together"))
    assert outcome.cost.parameters == 3 * alone.cost.parameters
    assert outcome.cost.multiply_adds == 3 * alone.cost.multiply_adds
    tensors, settings = outcome.fitted.state()
    first = {k: v for k, v in tensors.items() if k.startswith("network.members.0.")}
    single, _ = alone.fitted.state()
    for name, tensor in first.items():
        assert torch.equal(tensor, single[name.replace("members.0.", "")])

    inputs = data.inputs((0, 1, 2))
    logs = []
    for k in range(3):
        prefix = f"network.members.{k}."
        own = {
            name.replace(prefix, "network."): tensor
            for name, tensor in tensors.items()
            if name.startswith((prefix, "normalisation."))
        }
        saved = Saved(own, {**settings, "members": 1}, recipe.inputs, data.classes)
        logs.append(system_of(recipe).restore(saved).probabilities(inputs).log())
    assert not torch.allclose(logs[0], logs[1], atol=1e-3)
    expected = torch.softmax(torch.stack(logs).mean(dim=0), dim=1)
    torch.testing.assert_close(outcome.fitted.probabilities(inputs), expected)

    bundle = Bundle(recipe.system, outcome.fitted, recipe.inputs, data.classes, {"features": ""})
    save_bundle(tmp_path / "model", bundle)
    again = load_bundle(tmp_path / "model").probabilities(inputs)
    assert torch.equal(again, outcome.fitted.probabilities(inputs))


@pytest.mark.parametrize("members", [1, 2])
def test_answers_at_several_speeds_are_joined_and_survive_a_bundle(
    members: int, recipe_of: RecipeOf, task_of: TaskOf, data: Dataset, tmp_path: Path
) -> None:
    """Training is the same; the answer is the mean of log-probabilities over speeds."""
    inputs, found = data.inputs((0, 1, 2)), {}
    value = recipe_of(training={"ensemble": members}).to_dict()
    n_bands = data.maps["features"].features.shape[2]
    value["features"] = {"kind": "log_mel", "sample_rate": 8000, "n_mels": n_bands}
    for speeds in ((1.0,), (0.8,), (1.25,), (0.8, 1.0, 1.25)):
        value["training"]["test_speeds"] = speeds
        recipe = Recipe.from_dict(value)
        outcome = system_of(recipe).fit(task_of(recipe, str(speeds)))
        found[speeds] = outcome.fitted.probabilities(inputs)
        bundle = Bundle(
            recipe.system, outcome.fitted, recipe.inputs, data.classes, {"features": ""}
        )
        save_bundle(tmp_path / str(speeds), bundle)
        again = load_bundle(tmp_path / str(speeds)).probabilities(inputs)
        assert torch.equal(again, found[speeds])
        if speeds == (1.0,):
            once = outcome.cost
    all_speeds = (0.8, 1.0, 1.25)
    logs = [found[(speed,)].log() for speed in all_speeds]
    assert not torch.allclose(logs[0], logs[2], atol=1e-3)
    expected = torch.softmax(torch.stack(logs).mean(dim=0), dim=1)
    torch.testing.assert_close(found[all_speeds], expected)
    assert outcome.cost.parameters == once.parameters
    assert 2.5 < outcome.cost.multiply_adds / once.multiply_adds < 3.5


def test_missing_frames_have_no_part_in_an_answer(recipe_of: RecipeOf, task_of: TaskOf) -> None:
    """Whatever stands behind the frames of sound: a batch of any lengths, or each map cut."""
    task = task_of(recipe_of(features={"padding": "masked"}))
    features = task.data.maps["features"].features.clone()
    for row in range(len(features)):
        features[row, ..., 10 + row % 7 :] = torch.nan
    task = dataclasses.replace(task, data=Dataset(task.data.listing, {"features": Maps(features)}))
    fitted = system_of(task.recipe).fit(task).fitted
    found = fitted.probabilities({"features": features[:14]})
    assert torch.isfinite(found).all()
    for row in range(14):
        cut = features[row : row + 1, ..., : 10 + row % 7]
        torch.testing.assert_close(found[row : row + 1], fitted.probabilities({"features": cut}))


def test_weights_come_from_the_parts_that_train_them(
    recipe_of: RecipeOf, task_of: TaskOf, data: Dataset, parts: Parts
) -> None:
    """Normalised by the utterances that train, and by no others."""
    recipe = recipe_of()
    outcome = system_of(recipe).fit(task_of(recipe))
    used = outcome.fitted.normalisation
    train = data.maps["features"].features[list(parts.train)].double()
    torch.testing.assert_close(used.mean, train.mean(dim=(0, 3)).float())
    torch.testing.assert_close(used.sd, train.std(dim=(0, 3), correction=0).float())
    everything = data.maps["features"].features.double().mean(dim=(0, 3)).float()
    assert not torch.allclose(used.mean, everything)


@pytest.mark.parametrize(("asked", "implementation"), [(True, "compiled"), (False, "plain")])
def test_a_network_trains_as_compute_fast_says_and_is_tested_as_it_is_saved(
    asked: bool,
    implementation: Implementation,
    recipe_of: RecipeOf,
    task_of: TaskOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if implementation == "compiled":
        pytest.importorskip("numba")

    def trained(network: Any, *_: Any, **__: Any) -> Trained:
        assert {type(c) for c in network.cnn_cells} == {classes_of(implementation).cnn_cell}
        assert (network.drop_path, network.auxiliary_weight) == (0.3, 0.7)
        with torch.no_grad():
            network.stem[0].weight.fill_(0.25)
        return Trained(1, [{"validation_ua": 0.5}])

    monkeypatch.setattr("emodarts.systems.neural.train_network", trained)
    settings = {"drop_path": 0.3, "auxiliary_weight": 0.7}
    recipe = recipe_of(compute={"fast": asked}, system=settings)
    task = task_of(recipe)
    random_genotype(recipe.network, torch.Generator().manual_seed(0)).save(task.folder.genotype)
    outcome = system_of(recipe).fit(task)
    assert {type(c) for c in outcome.fitted.network.cnn_cells} == {Cell}
    assert not outcome.fitted.network.training
    assert (outcome.fitted.network.stem[0].weight == 0.25).all()
    assert outcome.details == {"epoch": 1, "validation_ua": 0.5}


class Judge:
    """A strategy from outside the package that judges two genotypes."""

    seen: ClassVar[list[tuple[Any, float]]] = []

    def __init__(self, spec: Any) -> None:
        self.spec = spec

    def search(self, task: Any) -> Any:
        Judge.seen.clear()
        drawn = [random_genotype(task.network, torch.Generator().manual_seed(k)) for k in (0, 1, 0)]
        Judge.seen.extend((genotype, task.evaluate(genotype)) for genotype in drawn)
        return max(Judge.seen, key=lambda pair: pair[1])[0]


def test_a_strategy_from_outside_judges_genotypes_on_inner_data(
    recipe_of: RecipeOf, task_of: TaskOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    from emodarts.recipe import STRATEGIES, RandomSpec

    class JudgeSpec(RandomSpec):
        strategy: Literal["judge"] = "judge"  # type: ignore[assignment]

    monkeypatch.setitem(STRATEGIES, "judge", Kind(JudgeSpec, Judge))
    value = recipe_of().to_dict()
    recipe = Recipe.from_dict({**value, "search": {"strategy": "judge"}})
    task = task_of(recipe)
    genotype = system_of(recipe).search(task)
    (_, first), (_, second), (_, again) = Judge.seen
    assert first == again
    assert 0 <= min(first, second) <= max(first, second) <= 1
    assert len(list(task.folder.candidates.iterdir())) == 2  # the third was not trained again
    best = Judge.seen[0 if first >= second else 1][0]
    assert genotype == best
    trained = next(task.folder.candidates.iterdir()) / "training.csv"
    before = trained.stat().st_mtime_ns
    task.folder.genotype.unlink()
    assert system_of(recipe).search(task) == genotype
    assert trained.stat().st_mtime_ns == before


# --- the hand-made CNN ---


def test_the_hand_made_cnn_has_the_published_size() -> None:
    """35,017 parameters (arXiv 2305.14402, Table 1), and multiply-adds counted by hand."""
    spec = SYSTEMS["cnn"].spec()
    network = HandMadeNetwork(spec, maps_of(1, 128, 128), 4)
    assert count_parameters(network) == 5 + (33 * 33 * 32 + 32) + (32 * 4 + 4) == 35_017
    convolution, dense = 66 * 66 * 4, 33 * 33 * 32 + 32 * 4
    assert count_multiply_adds(network, (1, 128, 128)) == convolution + dense
    assert network(torch.randn(2, 1, 128, 128)).shape == (2, 4)


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (40, 65), (128, 128)])
def test_the_hand_made_cnn_takes_maps_of_any_size(shape: tuple[int, int]) -> None:
    network = HandMadeNetwork(SYSTEMS["cnn"].spec(), maps_of(2, *shape), 3)
    assert network(torch.randn(2, 2, *shape)).shape == (2, 3)


def test_missing_frames_are_zeros_to_the_hand_made_cnn() -> None:
    network = HandMadeNetwork(SYSTEMS["cnn"].spec(), maps_of(1, 8, 30), 3).eval()
    shorter = torch.randn(2, 1, 8, 20)
    zeros, missing = torch.zeros(2, 1, 8, 10), torch.full((2, 1, 8, 10), torch.nan)
    expected = network(torch.cat([shorter, zeros], dim=3))
    assert torch.equal(network(torch.cat([shorter, missing], dim=3)), expected)
    assert torch.equal(network(shorter), expected)


def maps_of(n_channels: int, n_features: int, n_frames: int) -> Any:
    return SimpleNamespace(n_channels=n_channels, n_features=n_features, n_frames=n_frames)


# --- linear models ---


def test_coefficients_are_averaged_over_frames_and_log_mels_transformed_first() -> None:
    features = torch.randn(3, 1, 64, 9)
    mean = features[:, 0].double().mean(dim=2).numpy()
    mfcc = FeatureSpec(kind="mfcc", n_mels=64, n_mfcc=64)
    np.testing.assert_allclose(mean_cepstrum(features, mfcc), mean[:, :40])
    k, n = np.mgrid[:40, :64]
    cosines = np.sqrt(2 / 64) * np.cos(np.pi * k * (n + 0.5) / 64)
    cosines[0] /= np.sqrt(2)
    log_mel = FeatureSpec(kind="log_mel", n_mels=64)
    np.testing.assert_allclose(mean_cepstrum(features, log_mel), mean @ cosines.T, atol=1e-12)


def test_all_features_of_other_kinds_count_and_deltas_do_not() -> None:
    features = torch.randn(3, 2, 64, 9)
    spec = FeatureSpec(kind="waveform", frame_length=64, deltas=1)
    mean = features[:, 0].double().mean(dim=2).numpy()
    np.testing.assert_allclose(mean_cepstrum(features, spec), mean)
    with_deltas = FeatureSpec(n_mels=64, deltas=1)
    np.testing.assert_allclose(mean_cepstrum(features, with_deltas), mean[:, :40])
    everything = features.double().mean(dim=3).flatten(1).numpy()
    np.testing.assert_allclose(mean_of_all(features, spec), everything)


@pytest.mark.parametrize("kind", ["svm", "logistic_regression"])
@pytest.mark.parametrize("n_classes", [2, 4])
def test_a_linear_model_answers_as_its_estimator(
    kind: str,
    n_classes: int,
    recipe_of: RecipeOf,
    task_of: TaskOf,
    data: Dataset,
    parts: Parts,
) -> None:
    classes = data.classes[:n_classes]
    kept = {i for i, u in enumerate(data.utterances) if u.label in classes}
    listing = dataclasses.replace(data.listing, classes=classes)
    fewer = dataclasses.replace(data, listing=listing)
    chosen = Parts(*(tuple(i for i in p if i in kept) for p in (parts.train, (), (), (), ())))
    recipe = recipe_of(kind)
    system = system_of(recipe)
    fitted = system.fit(task_of(recipe, data=fewer, parts=chosen)).fitted
    features = data.maps["features"].features[list(chosen.development)]
    x = type(system).pool(features, recipe.features)
    estimator = system.estimator(1)
    standard = (x - x.mean(axis=0)) / x.std(axis=0)
    targets = fewer.targets(chosen.development).numpy()
    estimator.fit(standard, targets)
    test = data.inputs(tuple(sorted(kept)))
    z = (type(system).pool(test["features"], recipe.features) - x.mean(axis=0)) / x.std(axis=0)
    answers = fitted.probabilities(test).argmax(dim=1).numpy()
    np.testing.assert_array_equal(answers, estimator.predict(z))


def test_a_linear_model_reads_few_rows_at_once(
    recipe_of: RecipeOf, task_of: TaskOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of("svm")
    whole = bits(system_of(recipe).fit(task_of(recipe)))
    seen: list[int] = []

    def pool(features: Tensor, spec: FeatureSpec) -> NDArray[np.float64]:
        seen.append(len(features))
        return mean_cepstrum(features, spec)

    system = system_of(recipe)
    monkeypatch.setattr("emodarts.systems.classical._ROWS_AT_ONCE", 3)
    monkeypatch.setattr(type(system), "pool", staticmethod(pool))
    assert bits(system.fit(task_of(recipe))) == whole
    assert max(seen) == 3


@pytest.mark.parametrize("kind", ["svm", "logistic_regression", "majority"])
def test_systems_that_choose_nothing_are_fitted_to_the_whole_training_fold(
    kind: str, recipe_of: RecipeOf, task_of: TaskOf, data: Dataset, parts: Parts
) -> None:
    recipe = recipe_of(kind)
    whole = bits(system_of(recipe).fit(task_of(recipe)))
    development = parts.development
    assert set(development) | set(parts.test) == set(range(len(data.utterances)))
    same = Parts(development, (), (), (), ())
    assert bits(system_of(recipe).fit(task_of(recipe, parts=same))) == whole


def test_majority_is_the_most_frequent_class_and_ties_go_to_the_first(
    recipe_of: RecipeOf, task_of: TaskOf, data: Dataset
) -> None:
    def answer(labels: Sequence[str]) -> str:
        utterances = tuple(
            dataclasses.replace(u, label=label)
            for u, label in zip(data.utterances, labels, strict=False)
        )
        listing = dataclasses.replace(data.listing, utterances=utterances)
        chosen = Parts(tuple(range(len(labels))), (), (), (), ())
        recipe = recipe_of("majority")
        changed = dataclasses.replace(data, listing=listing)
        fitted = system_of(recipe).fit(task_of(recipe, data=changed, parts=chosen)).fitted
        return data.classes[int(fitted.probabilities(data.inputs((0,)))[0].argmax())]

    assert answer(["sadness", "anger", "sadness"]) == "sadness"
    assert answer(["sadness", "anger"]) == "anger"


def test_chance_draws_every_class(recipe_of: RecipeOf, task_of: TaskOf, data: Dataset) -> None:
    recipe = recipe_of("chance")
    fitted = system_of(recipe).fit(task_of(recipe)).fitted
    drawn = fitted.probabilities({"features": torch.randn(4000, 1, 2, 2)}).mean(dim=0)
    torch.testing.assert_close(drawn, torch.full((4,), 0.25).double(), atol=0.03, rtol=0)


# --- a system from outside the package, with two inputs ---


class TwoStreamsSpec(SystemSpec):
    """Nearest class mean of the loudness of two maps."""

    kind: Literal["two-streams"] = "two-streams"
    second: FeatureSpec

    def inputs(self, features: FeatureSpec) -> dict[str, FeatureSpec]:
        return {"first": features, "second": self.second}


class TwoStreams:
    def __init__(self, spec: TwoStreamsSpec, means: Tensor | None = None) -> None:
        self.spec, self.means = spec, means

    genotype = None

    def fit(self, task: FitTask) -> Outcome:
        indices = task.parts.development
        x, targets = self._levels(task.data.inputs(indices)), task.data.targets(indices)
        means = torch.stack([x[targets == k].mean(dim=0) for k in range(task.n_classes)])
        return Outcome(TwoStreams(self.spec, means), Cost(means.numel(), means.numel()))

    def probabilities(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return torch.softmax(-torch.cdist(self._levels(inputs), self.means), dim=1)

    def _levels(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([inputs[n].mean(dim=(1, 2, 3)) for n in ("first", "second")], 1)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {"means": self.means}, {}

    def restore(self, saved: Saved) -> TwoStreams:
        return TwoStreams(self.spec, saved.tensors["means"])


def test_a_system_from_outside_takes_two_inputs_from_audio_to_a_bundle(
    recipe_of: RecipeOf,
    tiny_emodb: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(SYSTEMS, "two-streams", Kind(TwoStreamsSpec, TwoStreams))
    value = recipe_of("majority").to_dict()
    second = {"kind": "waveform", "sample_rate": 8000, "duration": 1.0, "frame_length": 80}
    recipe = Recipe.from_dict(
        {**value, "system": {"kind": "two-streams", "second": second}, "name": "two"}
    )
    corpus = load_corpus("emodb", tiny_emodb)
    result = run(recipe, corpus, tmp_path / "run", Options(cache=cache))
    assert (result["system"], result["parameters"], result["genotypes"]) == ("two-streams", 8, None)
    trial = tmp_path / "run" / "fold-0" / "seed-0"
    model = Model.load(trial / "model")
    assert set(model.bundle.inputs) == {"first", "second"}
    paths = {u.name: u.path for u in corpus}
    for p in read_predictions(trial / "predictions.csv")[0]:
        [answer] = model.predict(paths[p.name])
        assert tuple(answer.probabilities.values()) == p.probabilities


def test_normalisation_standardises_over_pieces_and_frames() -> None:
    features = 3 + 2 * torch.randn(50, 2, 5, 40)
    normalised = Normalisation.fit(features).apply(features)
    torch.testing.assert_close(normalised.mean(dim=(0, 3)), torch.zeros(2, 5), atol=1e-5, rtol=0)
    torch.testing.assert_close(normalised.std(dim=(0, 3)), torch.ones(2, 5), atol=1e-3, rtol=0)


def test_candidates_are_judged_on_inner_speakers_and_never_trained_again(
    recipe_of: RecipeOf, task_of: TaskOf
) -> None:
    value = recipe_of().to_dict()
    rounds = [[2, 1], [1, 2]]
    value["search"] = {"strategy": "halving", "rounds": rounds, "inner_folds": 2, "epochs": 1}
    recipe = Recipe.from_dict(value)
    task = task_of(recipe)
    system = system_of(recipe)
    found = system.search(task)
    results = sorted(task.folder.candidates.rglob("result.json"))
    assert len(results) == 2  # a single candidate that is left needs no further training
    assert {json.loads(path.read_text())["apart"] for path in results} == {"speakers"}
    stamps = [path.stat().st_mtime_ns for path in results]
    task.folder.genotype.unlink()
    assert system.search(task) == found
    assert [path.stat().st_mtime_ns for path in results] == stamps
    assert 0.0 <= system.cross_validate(task, Candidate(found, 0, 2, 1)) <= 1.0


def test_macro_choices_of_a_genotype_survive_a_bundle(
    recipe_of: RecipeOf, task_of: TaskOf, data: Dataset
) -> None:
    recipe = recipe_of(training={"epochs": 1})
    macro = {
        "stem": {"channels": [3, 4], "frequency_strides": [2, 2], "time_strides": [2, 1]},
        "cnn.cells": 0,
        "seqnn": {"mode": "fixed", "recurrent": "gru", "width": 4},
        "projection": 5,
        "pooling": "statistics",
    }
    task = task_of(recipe)
    Genotype(macro=macro).save(task.folder.genotype)
    outcome = system_of(recipe).fit(task)
    tensors, settings = outcome.fitted.state()
    saved = Saved(tensors, json.loads(json.dumps(settings)), recipe.inputs, data.classes)
    restored = system_of(recipe).restore(saved)
    inputs = data.inputs(tuple(range(5)))
    assert torch.equal(restored.probabilities(inputs), outcome.fitted.probabilities(inputs))
    gru = 3 * 4 * (5 + 4 + 2)
    stem = 9 * 3 + 9 * 3 * 4 + 2 * (3 + 4)
    assert outcome.cost.parameters == stem + (4 * 4 + 1) * 5 + gru + (2 * 4 + 1) * 4

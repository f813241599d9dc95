"""EmotionNAS: two streams searched apart, and what the network that joins them computes."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from emodarts.bundle import Bundle, load_bundle, save_bundle
from emodarts.corpora import load_corpus
from emodarts.cost import Spent
from emodarts.dataset import Dataset, Maps
from emodarts.errors import GenotypeError, RecipeError
from emodarts.experiments.plan import Options
from emodarts.experiments.run import run
from emodarts.genotype import Genotype
from emodarts.recipe import SYSTEMS, CNNSpec, NetworkSpec, NoSeqNN, Recipe, load_recipe
from emodarts.scoring.predictions import read_predictions
from emodarts.searching.derivation import random_genotype
from emodarts.serving.model import Model
from emodarts.splits import Parts
from emodarts.systems.count import count_multiply_adds, count_parameters
from emodarts.systems.discrete import DiscreteNetwork
from emodarts.systems.emotionnas import InformationSupplement, TwoStreams
from emodarts.systems.neural import joined
from emodarts.systems.system import FitTask
from killing import Kill, Killed

RecipeOf = Callable[..., Recipe]
TaskOf = Callable[..., FitTask]


@pytest.fixture
def recipe(recipe_of: RecipeOf) -> Recipe:
    """With waveform frames for the RNN, as many as the CNN has frames."""
    search = {"epochs": 1, "warmup_epochs": 0}
    return recipe_of("emotionnas", search=search, training={"epochs": 1}, system={"width": 3})


@pytest.fixture
def task(recipe: Recipe, task_of: TaskOf, data: Dataset) -> FitTask:
    """Maps of noise for the RNN, a little longer for the CNN than for the RNN."""
    torch.manual_seed(0)
    maps = data.maps["features"].features
    second = torch.randn(len(maps), 1, recipe.inputs["rnn"].n_features, maps.shape[3] - 1)
    return task_of(recipe, data=replace(data, maps={"cnn": Maps(maps), "rnn": Maps(second)}))


def system_of(recipe: Recipe) -> Any:
    return SYSTEMS["emotionnas"].build(recipe.system)


def test_streams_are_searched_apart(recipe: Recipe, task: FitTask, task_of: TaskOf) -> None:
    """Each as if it were all: the CNN's cells do not depend on the RNN's input, and in reverse."""
    genotype = system_of(recipe).search(task)
    assert set(genotype.cells) >= {"reduction", "sequence"}
    for name, cells in (("cnn", {"normal", "reduction"}), ("rnn", {"sequence"})):
        folder = task.folder.stream(name)
        assert folder.search_history.is_file()
        own = Genotype.load(folder.genotype).cells
        assert own == {k: v for k, v in genotype.cells.items() if k in cells}

    alone = recipe.model_copy(
        update={
            "system": SYSTEMS["searched"].spec(),
            "network": recipe.network.model_copy(update={"seqnn": NoSeqNN(mode="none")}),
        }
    )
    data = replace(task.data, maps={"features": task.data.maps["cnn"]})
    found = SYSTEMS["searched"].build(alone.system).search(task_of(alone, "alone", data=data))
    assert found.cells == Genotype.load(task.folder.stream("cnn").genotype).cells


def test_an_utterance_depends_on_itself_and_survives_a_bundle(
    recipe: Recipe, task: FitTask, tmp_path: Path
) -> None:
    outcome = system_of(recipe).fit(task)
    inputs = task.data.inputs(tuple(range(7)))
    for row in range(7):
        inputs["cnn"][row, ..., 20 + 2 * row :] = torch.nan
        inputs["rnn"][row, ..., 20 + 2 * row :] = torch.nan
    found = outcome.fitted.probabilities(inputs)
    assert torch.isfinite(found).all()
    for row in range(7):
        alone = {k: v[row : row + 1, ..., : 20 + 2 * row] for k, v in inputs.items()}
        torch.testing.assert_close(outcome.fitted.probabilities(alone), found[row : row + 1])
    bundle = Bundle(
        recipe.system,
        outcome.fitted,
        recipe.inputs,
        task.data.classes,
        dict.fromkeys(recipe.inputs, ""),
    )
    save_bundle(tmp_path / "model", bundle)
    again = load_bundle(tmp_path / "model")
    assert again.genotype == outcome.fitted.genotype
    assert torch.equal(again.probabilities(inputs), found)
    other = {**inputs, "rnn": torch.randn_like(inputs["rnn"])}
    assert not torch.allclose(outcome.fitted.probabilities(other), found, atol=1e-4)


def test_test_utterances_decide_nothing(
    recipe: Recipe, task: FitTask, task_of: TaskOf, parts: Parts
) -> None:
    test = list(parts.test)
    maps = {name: m.features.clone() for name, m in task.data.maps.items()}
    for features in maps.values():
        features[test] = 100 * torch.randn_like(features[test])
    data = replace(task.data, maps={name: Maps(features) for name, features in maps.items()})
    first = system_of(recipe).fit(task).fitted
    second = system_of(recipe).fit(task_of(recipe, "other", data=data)).fitted
    assert first.genotype == second.genotype
    one, other = first.state()[0], second.state()[0]
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_search_is_part_of_the_cost_and_is_not_repeated(recipe: Recipe, task: FitTask) -> None:
    system = system_of(recipe)
    genotype = system.search(task)
    histories = [task.folder.stream(name).search_history for name in ("cnn", "rnn")]
    before = [path.stat().st_mtime_ns for path in histories]
    task.folder.genotype.unlink()
    outcome = system.fit(task)
    assert outcome.fitted.genotype == genotype
    assert [path.stat().st_mtime_ns for path in histories] == before
    choices = [task.folder.stream(name).choice for name in ("cnn", "rnn")]
    written = [json.loads(path.read_text()) for path in choices]
    spent = sum((Spent.of(row) for row in [*_rows(*histories), *written]), Spent())
    assert outcome.cost.search == spent
    trained = sum(map(Spent.of, _rows(task.folder.training_history)), Spent())
    assert outcome.cost.training == trained
    assert outcome.cost.seconds == pytest.approx(spent.seconds + trained.seconds)


def test_searches_and_training_killed_and_resumed_end_as_ones_never_killed(
    recipe: Recipe, task: FitTask, task_of: TaskOf
) -> None:
    """Killed in the search of each stream and in the training of both, after a first epoch."""
    value = recipe.to_dict()
    value["search"]["epochs"], value["training"]["epochs"] = 2, 2
    recipe = Recipe.from_dict(value)
    whole = system_of(recipe).fit(replace(task, recipe=recipe)).fitted
    killed = replace(task, recipe=recipe, folder=task_of(recipe, "killed").folder)
    folder = killed.folder
    steps = int(_rows(task.folder.stream("cnn").search_history)[0]["steps"])
    # The last step of a second epoch, counted from the second epoch in which the life before ended.
    for left, history, end in (
        (2 * steps, folder.stream("cnn").search_history, folder.stream("cnn").genotype),
        (3 * steps, folder.stream("rnn").search_history, folder.stream("rnn").genotype),
        (steps + 2, folder.training_history, folder.result),
    ):
        with pytest.raises(Killed):
            system_of(recipe).fit(replace(killed, progress=Kill(left)))
        assert len(_rows(history)) == 1
        assert not end.exists()
    assert folder.genotype.is_file()
    resumed = system_of(recipe).fit(killed).fitted
    assert resumed.genotype == whole.genotype
    one, other = whole.state()[0], resumed.state()[0]
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def _rows(*histories: Path) -> list[dict[str, str]]:
    return [row for path in histories for row in csv.DictReader(path.read_text().splitlines())]


def test_it_runs_from_audio_to_a_bundle(
    recipe: Recipe, tiny_emodb: Path, cache: Path, tmp_path: Path
) -> None:
    value = recipe.to_dict()
    value["evaluation"]["folds"] = [0]
    recipe = Recipe.from_dict(value)
    corpus = load_corpus("emodb", tiny_emodb)
    result = run(recipe, corpus, tmp_path / "run", Options(cache=cache))
    assert (result["system"], result["genotypes"]) == ("emotionnas", "searched")
    trial = tmp_path / "run" / "fold-0" / "seed-0"
    model = Model.load(trial / "model")
    assert set(model.bundle.inputs) == {"cnn", "rnn"}
    paths = {u.name: u.path for u in corpus}
    for p in read_predictions(trial / "predictions.csv")[0][:4]:
        [answer] = model.predict(paths[p.name])
        assert tuple(answer.probabilities.values()) == p.probabilities


def test_each_vector_is_supplemented_by_a_gated_share_of_the_other() -> None:
    supplement = InformationSupplement((5, 7), 3)
    first, second = torch.randn(4, 5), torch.randn(4, 7)
    a, b = supplement.enter[0](first), supplement.enter[1](second)
    torch.nn.init.zeros_(supplement.gates[0].weight)
    torch.nn.init.constant_(supplement.gates[0].bias, -50.0)  # the first takes nothing
    torch.nn.init.zeros_(supplement.gates[1].weight)
    torch.nn.init.constant_(supplement.gates[1].bias, 50.0)  # the second takes all
    torch.testing.assert_close(supplement(first, second), torch.cat([a, b + a], dim=1))


def test_size_is_that_of_the_streams_and_the_module() -> None:
    network = NetworkSpec(cnn=CNNSpec(cells=3, nodes=2, channels=2))
    streams, sizes, costs, widths = [], [], [], []
    for spec, features in (
        (network.model_copy(update={"seqnn": NoSeqNN(mode="none")}), 10),
        (network.model_copy(update={"cnn": CNNSpec(cells=0, channels=1)}), 6),
    ):
        genotype = random_genotype(spec, torch.Generator().manual_seed(0))
        stream = DiscreteNetwork(genotype, spec, features, 4)
        width = stream.classifier.in_features
        sizes.append(count_parameters(stream) - 4 * width - 4)
        costs.append(count_multiply_adds(stream, (1, features, 12)) - 4 * width)
        widths.append(width)
        streams.append(stream)
    both = TwoStreams(streams[0], streams[1], 8, 0.3)
    module = sum(widths) * 8 + 2 * (16 * 8) + 16 * 4
    biases = 4 * 8 + 4
    assert count_parameters(both) == sum(sizes) + module + biases
    assert count_multiply_adds(both, (1, 16, 12)) == sum(costs) + module


def test_maps_are_joined_frame_by_frame() -> None:
    first, second = torch.randn(2, 1, 3, 5), torch.randn(2, 1, 4, 6)
    second[1, ..., 3:] = torch.nan
    found = joined([first, second])
    assert found.shape == (2, 1, 7, 5)
    assert torch.equal(found[0, :, :3], first[0])
    assert torch.equal(found[0, :, 3:], second[0, ..., :5])
    assert torch.isnan(found[1, ..., 3:]).all()
    assert not torch.isnan(found[1, ..., :3]).any()
    assert joined([first]) is first


def test_streams_of_the_recipe_are_those_of_the_recipes_of_one_stream() -> None:
    both = load_recipe("emotionnas")
    for name, features in both.inputs.items():
        alone = load_recipe(f"emotionnas-{name}")
        assert alone.features == features
        assert (alone.search, alone.training) == (both.search, both.training)
        part = {"cnn": "cnn", "rnn": "seqnn"}[name]
        assert getattr(alone.network, part) == getattr(both.network, part)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"system": {"rnn_features": {"kind": "waveform", "duration": 2.0}}},
            r"system.rnn_features: duration 2.0; allowed: 1.0, as in features",
        ),
        (
            {"system": {"rnn_features": {"kind": "waveform", "duration": 1.0}}},
            r"system.rnn_features: padding 'masked'; allowed: 'zeros'",
        ),
        (
            {"system": {"rnn_features": {"kind": "waveform", "duration": 1.0, "padding": "zeros"}}},
            r"system.rnn_features: n_frames 62; allowed: 15",
        ),
        (
            {
                "features": {"kind": "stft", "n_fft": 512, "hop_length": 128, "win_length": 256},
                "training": {"perturbation": {"speed": [0.9, 1.1]}},
            },
            r"features of kind 'waveform' have no frequency axis",
        ),
    ],
)
def test_a_mistake_is_explained(changes: Any, message: str, recipe: Recipe) -> None:
    value = recipe.to_dict()
    if changes.get("features"):
        common = {"sample_rate": 8000, "duration": 1.0, "padding": "zeros"}
        value["features"] = {**common, **changes.pop("features")}
    for section, keys in changes.items():
        value[section] = {**value[section], **keys}
    with pytest.raises(RecipeError, match=message):
        Recipe.from_dict(value)


def test_a_genotype_that_does_not_fit_is_refused(recipe: Recipe) -> None:
    system = system_of(recipe)
    genotype = random_genotype(recipe.network, torch.Generator().manual_seed(0))
    system.check(genotype, recipe, 4)
    with pytest.raises(GenotypeError, match="no sequence cell"):
        system.check(replace(genotype, sequence=None), recipe, 4)
    extended = {**recipe.to_dict()["network"]}
    extended["cnn"] = {**extended["cnn"], "space": "extended"}
    other = Recipe.from_dict({**recipe.to_dict(), "network": extended})
    with pytest.raises(RecipeError, match="has choices around the cells"):
        system.check(genotype, other, 4)

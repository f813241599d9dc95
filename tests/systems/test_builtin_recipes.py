"""The built-in recipes: their headers, their networks by a hand count, and what they differ in."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from emodarts.errors import RecipeError
from emodarts.genotype import Edge, Genotype
from emodarts.recipe import (
    SPACES,
    DartsSpec,
    FixedSeqNN,
    NetworkSpec,
    Recipe,
    SearchedSeqNN,
    builtin_recipes,
    differing_keys,
    load_recipe,
    read_header,
)
from emodarts.searching.derivation import random_genotype
from emodarts.systems.count import count_multiply_adds, count_parameters
from emodarts.systems.discrete import DiscreteNetwork
from emodarts.systems.listing import list_recipes
from emodarts.systems.neural import training_views
from emodarts.systems.searched import Searched
from emodarts.systems.system import FitTask

#: Recipes of the two papers, and of systems that they compare with, as published.
PAPERS = (
    *("emodarts", "emodarts-lstm", "emodarts-rnn", "emodarts-lstm-att", "emodarts-rnn-att"),
    *("cnn-darts", "cnn-darts-c8", "cnn-lstm-darts", "cnn-lstm-att-darts"),
    *("cnn-he", "cnn-lstm-he", "cnn-lstm-att-he", "rnn-he", "lstm-he"),
    *("emotionnas", "emotionnas-cnn", "emotionnas-rnn", "wu-darts", "wu-uniform"),
)


@pytest.mark.parametrize("path", builtin_recipes().values(), ids=lambda p: p.stem)
def test_the_first_line_is_a_title(path: Path) -> None:
    first, second, *_ = path.read_text(encoding="utf-8").splitlines()
    header = read_header(path.stem)
    assert len(header.title) <= 100
    assert "arXiv" not in header.title
    assert "doi" not in header.title
    assert second == "#" or first.endswith("."), f"the title goes on behind {first!r}"


def test_a_first_line_that_is_no_title(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.yaml"
    monkeypatch.setattr("emodarts.recipe.loading.builtin_recipes", lambda: {"mine": path})
    for text in ("labels: null\n", "#\n# Too late\n", "", "# (arXiv 2403.14083)\n"):
        path.write_text(text)
        with pytest.raises(RecipeError, match=r"line 1: .*; allowed: # TITLE \(PAPER\)"):
            read_header("mine")
    for text, title, paper in (
        ("# A title\n", "A title", None),
        ("# A (small) title (arXiv 2403.14083)", "A (small) title", "arXiv 2403.14083"),
        ("# A title (doi 10.1/a-b.c): more.\n", "A title: more", "doi 10.1/a-b.c"),
        ("# A title (INTERSPEECH 2018)\n", "A title", "INTERSPEECH 2018"),
    ):
        path.write_text(text)
        assert (read_header("mine").title, read_header("mine").paper) == (title, paper)
    with pytest.raises(RecipeError, match=r"no recipe 'min' .did you mean 'mine'"):
        read_header("min")


# --- sizes ---


def stem_by_hand(
    channels: tuple[int, ...], strides: tuple[int, ...], shape: tuple[int, int]
) -> tuple[int, int, tuple[int, int]]:
    """Parameters, multiply-adds and map of 3 x 3 convolutions with batch norm.

    ``strides`` are over frequency; time is halved by the first two of more than one block.
    """
    parameters = multiply_adds = 0
    rows, frames = shape
    before = 1
    for k, (after, stride) in enumerate(zip(channels, strides, strict=True)):
        rows = -(-rows // stride)
        frames = -(-frames // (2 if stride > 1 and k < 2 else 1))
        parameters += 9 * before * after + 2 * after
        multiply_adds += 9 * before * after * rows * frames
        before = after
    return parameters, multiply_adds, (rows, frames)


def lstm_by_hand(inputs: int, width: int) -> tuple[int, int]:
    """Parameters of a bidirectional LSTM, and its multiply-adds at each step."""
    return 2 * 4 * width * (inputs + width + 2), 2 * width * (4 * (inputs + width) + 3)


@pytest.mark.parametrize(
    ("name", "channels", "shape", "attention"),
    [
        ("liu-cnn-bilstm", (16, 32, 64), (128, 128), True),
        ("etienne-cnn-lstm", (16, 24, 32, 48), (257, 501), False),
    ],
)
def test_plain_networks_have_the_size_of_a_hand_count(
    name: str, channels: tuple[int, ...], shape: tuple[int, int], attention: bool
) -> None:
    """3 x 3 convolutions of stride 2, a bidirectional LSTM of 128 units, a dense layer."""
    recipe = load_recipe(name)
    assert (recipe.features.n_features, recipe.features.n_frames) == shape
    parameters, multiply_adds, (rows, steps) = stem_by_hand(channels, (2,) * len(channels), shape)
    lstm, each = lstm_by_hand(channels[-1] * rows, 128)
    parameters += lstm + (257 if attention else 0) + 257 * 4
    multiply_adds += steps * (each + (256 if attention else 0)) + 256 * 4
    assert Searched(recipe.system).parameters(recipe, 4) == parameters
    network = DiscreteNetwork(Genotype(), recipe.trained_network, shape[0], 4)
    assert count_parameters(network) == parameters
    assert count_multiply_adds(network, (1, *shape)) == multiply_adds


#: The operation that a test puts on every edge: parameters and multiply-adds at each place.
CNN_EDGES: Mapping[str, Callable[[int], tuple[int, int]]] = {
    "dil_conv_3x3": lambda c: (9 * c + c * c + 2 * c, 9 * c + c * c),
    "conv_3x3": lambda c: (9 * c * c + 2 * c, 9 * c * c),
}


def recurrent_edge(name: str, h: int) -> tuple[int, int]:
    """Parameters and multiply-adds at each step of ``lstm_2``, ``rnn_att_1`` and their like."""
    kind, *attention, layers = name.split("_")
    gates, products = (4, 3) if kind == "lstm" else (1, 0)
    directions = 2 if attention else 1
    inputs, parameters, multiply_adds = h, 0, 0
    for _ in range(int(layers)):
        parameters += directions * gates * h * (inputs + h + 2)
        multiply_adds += directions * h * (gates * (inputs + h) + products)
        inputs = directions * h
    if attention:  # a score, and a projection of step and context
        parameters += 2 * h + 1 + 4 * h * h + h
        multiply_adds += 2 * h + 4 * h * h
    return parameters, multiply_adds


def network_by_hand(
    spec: NetworkSpec, shape: tuple[int, int], cnn: str, sequence: str
) -> tuple[int, int]:
    """Parameters and multiply-adds for four classes, all edges coming from a cell's two inputs."""
    rows, frames = shape
    parameters, multiply_adds, _ = stem_by_hand((3 * spec.cnn.channels,), (1,), shape)
    n, c = spec.cnn.cells, spec.cnn.channels
    maps = [(3 * c, rows, frames)] * 2
    for position in range(n):
        reduces = position in (n // 3, 2 * n // 3)
        c *= 2 if reduces else 1
        _, rows, frames = maps[1]
        parameters += sum(m[0] * c + 2 * c for m in maps)
        multiply_adds += sum(m[0] for m in maps) * c * rows * frames  # at the size of the second
        if reduces:
            rows, frames = -(-rows // 2), -(-frames // 2)
        own, each = CNN_EDGES[cnn](c)
        parameters += 2 * spec.cnn.nodes * own
        multiply_adds += 2 * spec.cnn.nodes * each * rows * frames
        maps = [maps[1], (spec.cnn.nodes * c, rows, frames)]
    widths = [m[0] * m[1] if spec.frequency == "join" else m[0] for m in maps]
    match spec.seqnn:
        case SearchedSeqNN(cells=cells, nodes=nodes, width=h):
            for _ in range(cells):
                own, each = recurrent_edge(sequence, h)
                parameters += sum(w * h + h for w in widths) + 2 * nodes * own
                multiply_adds += frames * (sum(widths) * h + 2 * nodes * each)
                widths = [widths[1], nodes * h]
        case FixedSeqNN(layers=layers, width=h, attention=attention):
            inputs = widths[1]
            for _ in range(layers):
                parameters += 4 * h * (inputs + h + 2)
                multiply_adds += frames * h * (4 * (inputs + h) + 3)
                inputs = h
            if attention:
                parameters += h + 1 + 2 * h * h + h
                multiply_adds += frames * (h + 2 * h * h)
            widths[1] = h
    if spec.pooling == "attention":
        parameters += widths[1] + 1
        multiply_adds += frames * widths[1]
    return parameters + 4 * (widths[1] + 1), multiply_adds + 4 * widths[1]


@pytest.mark.parametrize(
    ("name", "overrides", "cnn", "sequence"),
    [
        ("cnn-darts", (), "dil_conv_3x3", ""),
        ("cnn-darts-c8", (), "dil_conv_3x3", ""),
        ("cnn-lstm-darts", (), "dil_conv_3x3", ""),
        ("cnn-lstm-att-darts", (), "dil_conv_3x3", ""),
        ("cnn-lstm-att-darts", ("network.seqnn.layers=3",), "dil_conv_3x3", ""),
        ("emodarts", (), "dil_conv_3x3", "lstm_1"),
        ("emodarts-lstm", (), "dil_conv_3x3", "lstm_2"),
        ("emodarts-rnn", (), "dil_conv_3x3", "rnn_4"),
        ("emodarts-lstm-att", (), "dil_conv_3x3", "lstm_att_1"),
        ("emodarts-rnn-att", (), "dil_conv_3x3", "rnn_att_2"),
        ("wu-uniform", (), "conv_3x3", "lstm_att_1"),
    ],
)
def test_searched_networks_have_the_size_of_a_hand_count(
    name: str, overrides: tuple[str, ...], cnn: str, sequence: str
) -> None:
    recipe = load_recipe(name, overrides)
    spec = recipe.trained_network
    edges = {"normal": cnn, "reduction": cnn, "sequence": sequence}
    cells = {
        cell: tuple((Edge(edges[cell], 0), Edge(edges[cell], 1)) for _ in range(nodes))
        for cell, nodes in spec.nodes.items()
    }
    shape = recipe.features.n_features, recipe.features.n_frames
    network = DiscreteNetwork(Genotype(**cells), spec, shape[0], 4, auxiliary_weight=0.4)
    found = count_parameters(network), count_multiply_adds(network, (1, *shape))
    assert found == network_by_hand(spec, shape, cnn, sequence)


def test_a_network_of_chosen_sizes_has_the_size_of_a_hand_count() -> None:
    """Three convolutions, a projection, two bidirectional GRU layers, attention."""
    recipe = load_recipe("zhang-controller")
    macro = {
        "stem": SPACES["sizes"].macro["stem"][7],
        "projection": 64,
        "seqnn": {"mode": "fixed", "recurrent": "gru"},
        "seqnn.layers": 2,
        "seqnn.width": 32,
        "seqnn.bidirectional": True,
        "pooling": "attention",
    }
    assert macro["stem"]["channels"] == [32, 32, 32]
    shape = recipe.features.n_features, recipe.features.n_frames
    parameters, multiply_adds, (rows, steps) = stem_by_hand((32,) * 3, (2,) * 3, shape)
    parameters += 32 * rows * 64 + 64
    each = 32 * rows * 64
    for _ in range(2):  # both layers read 64: the projection, and the directions of the first
        parameters += 2 * 3 * 32 * (64 + 32 + 2)
        each += 2 * 32 * (3 * (64 + 32) + 3)
    parameters += 64 + 1 + (64 + 1) * 4
    multiply_adds += steps * (each + 64) + 64 * 4
    network = DiscreteNetwork(Genotype(macro=macro), recipe.trained_network, shape[0], 4)
    assert count_parameters(network) == parameters
    assert count_multiply_adds(network, (1, *shape)) == multiply_adds


# --- what recipes differ in ---


@pytest.mark.parametrize(
    ("name", "other", "keys"),
    [
        ("cnn-darts-c8", "cnn-darts", {"network.cnn.cells"}),
        ("cnn-lstm-att-darts", "cnn-lstm-darts", {"network.seqnn.attention"}),
        *(
            (f"emodarts-{space}", "emodarts", {"network.seqnn.space"})
            for space in ("lstm", "rnn", "lstm-att", "rnn-att")
        ),
        ("wu-darts", "wu-uniform", {"search.relaxation.path_dropout"}),
        ("cnn-lstm-att-he", "cnn-lstm-he", {"system.attention"}),
    ],
)
def test_variants_differ_in_one_key(name: str, other: str, keys: set[str]) -> None:
    assert set(differing_keys([load_recipe(name), load_recipe(other)])) == keys


@pytest.mark.parametrize("name", ["cnn-he", "cnn-lstm-he", "cnn-lstm-att-he", "rnn-he", "lstm-he"])
def test_hand_engineered_networks_are_trained_as_the_searched_ones(name: str) -> None:
    recipe, searched = load_recipe(name), load_recipe("emodarts")
    for section in ("labels", "features", "training", "evaluation"):
        assert getattr(recipe, section) == getattr(searched, section)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        *(
            (f"{name}-he-tuned", {"system.kind"})
            for name in ("cnn-lstm", "cnn-lstm-att", "rnn", "lstm")
        ),
        (
            "cnn-he-tuned",
            {"system.kind", "features.duration", "training.crop", "training.test_speeds"},
        ),
    ],
)
def test_tuned_hand_engineered_networks_are_trained_as_the_default(
    name: str, keys: set[str]
) -> None:
    assert set(differing_keys([load_recipe(name), load_recipe("default")])) == keys


@pytest.mark.parametrize("name", PAPERS)
def test_recipes_of_the_papers_keep_what_the_papers_do(name: str) -> None:
    recipe = load_recipe(name)
    assert all(spec.padding == "zeros" for spec in recipe.inputs.values())
    assert recipe.evaluation.search_halves == "utterances"
    assert recipe.training.select == "ua"
    assert recipe.training.test_speeds == (1.0,)
    if recipe.searches and recipe.network.seqnn.mode == "searched":
        assert not recipe.network.seqnn.normalise
    if recipe.searches and isinstance(recipe.search, DartsSpec):
        assert (recipe.search.warmup, recipe.search.class_weights) == ("fixed", False)


def test_what_default_trains_on_is_perturbed() -> None:
    recipe = load_recipe("default")
    views = training_views(recipe)
    assert views is not None
    assert views.perturbation == recipe.training.perturbation
    assert views.frames == recipe.training.crop * 50
    assert len(views.bands) == recipe.features.n_features


@pytest.mark.parametrize("n_classes", [3, 10])
def test_default_has_at_most_half_a_million_parameters(n_classes: int) -> None:
    recipe = load_recipe("default")
    assert Searched(recipe.system).parameters(recipe, n_classes) <= 500_000


def test_listed_recipes_have_a_strategy_where_something_is_searched() -> None:
    listed = list_recipes()
    assert set(listed) == set(builtin_recipes())
    for name, row in listed.items():
        recipe = load_recipe(name)
        assert row.system == recipe.system.kind
        assert row.strategy == (recipe.search.strategy if recipe.searches else None)
        assert not (recipe.searches and row.parameters)
        assert row.paper is None or re.match(r"arXiv \d|doi 10\.|[A-Z]\w+ \d{4}$", row.paper)
    assert listed["cnn-he"].parameters == 35_017
    assert listed["cnn-lstm-he"].parameters == 175_273
    assert listed["light-sernet"].parameters == 3 * 460_740
    assert listed["frozen-encoder"].parameters is None
    assert listed["svm-compare"].parameters == 4 * (6373 + 1)
    assert listed["logistic-egemaps"].parameters == 4 * (88 + 1)
    assert listed["default"].parameters == 3 * listed["quick"].parameters


# --- choices of layers and sizes ---


def test_choices_of_layers_and_sizes_make_networks() -> None:
    """Every choice occurs in a network that answers, and decides its layers."""
    spec = load_recipe("zhang-controller").network
    choices = {key: list(values) for key, values in SPACES["sizes"].macro.items()}
    most = max(map(len, choices.values()))
    for k in range(most):
        macro = {key: values[k % len(values)] for key, values in choices.items()}
        genotype = random_genotype(spec, torch.Generator().manual_seed(0), macro)
        network = DiscreteNetwork(genotype, spec, 128, 4)
        assert len([m for m in network.stem if isinstance(m, torch.nn.Conv2d)]) == k // 3 + 1
        assert network.fixed is not None
        layer = network.fixed.recurrent
        assert layer.num_layers == macro["seqnn.layers"]
        assert layer.hidden_size == macro["seqnn.width"]
        assert type(layer).__name__.lower() == macro["seqnn"]["recurrent"]
        assert network(torch.randn(2, 1, 128, 16)).shape == (2, 4)


def test_a_controller_chooses_layers_and_sizes(
    recipe_of: Callable[..., Recipe], task_of: Callable[..., FitTask]
) -> None:
    value = recipe_of(training={"epochs": 1}).to_dict()
    value["network"] = {"cnn": {"space": "sizes", "cells": 0}, "seqnn": {"mode": "none"}}
    value["search"] = {"strategy": "controller", "evaluations": 3, "batch": 2, "hidden": 4}
    recipe = Recipe.from_dict(value)
    task = task_of(recipe)
    genotype = Searched(recipe.system).search(task)
    assert set(genotype.macro) == set(SPACES["sizes"].macro)
    assert genotype.cells == {}
    assert 1 <= len(list(task.folder.candidates.iterdir())) <= 3
    again = dataclasses.replace(task, folder=task_of(recipe, "again").folder)
    assert Searched(recipe.system).search(again) == genotype

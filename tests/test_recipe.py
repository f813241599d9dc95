"""Recipes: the papers' defaults, YAML in and out, and a clear message for every mistake."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from emodarts.errors import RecipeError
from emodarts.genotype import SKIP
from emodarts.recipe import (
    SPACES,
    CNNSpec,
    FixedSeqNN,
    NoSeqNN,
    RandomSpec,
    Recipe,
    SearchedSeqNN,
    builtin_recipes,
    load_recipe,
)

CNN_OPERATIONS = tuple(SPACES["all"].cnn)


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def load(folder: Path, text: str, *overrides: str) -> Recipe:
    return load_recipe(write(folder, text), overrides)


# --- the papers' settings: arXiv 2305.14402 (P1), arXiv 2403.14083 (P2) and their code ---


@pytest.mark.parametrize(
    ("key", "value", "origin"),
    [
        ("features.kind", "mfcc", "P1, P2"),
        ("features.sample_rate", 32750, "code"),
        ("features.duration", 8.0, "P1, P2"),
        ("features.n_fft", 2048, "code (librosa's default)"),
        ("features.hop_length", 512, "code (librosa's default)"),
        ("features.n_mels", 128, "code (librosa's default)"),
        ("features.n_features", 128, "P1, P2: 128 coefficients"),
        ("features.pool", 4, "P1, P2: 128 x 512 pooled to 128 x 128"),
        ("features.n_frames", 128, "P1, P2"),
        ("network.cnn.cells", 4, "P1, P2: C = 4"),
        ("network.cnn.nodes", 4, "code"),
        ("network.cnn.channels", 8, "code: C0"),
        ("network.seqnn.mode", "searched", "P2"),
        ("network.seqnn.space", "all", "P2"),
        ("network.seqnn.cells", 4, "code"),
        ("network.seqnn.nodes", 4, "code"),
        ("network.seqnn.width", 128, "code"),
        ("network.dropout", 0.3, "P1"),
        ("search.strategy", "darts", "P1, P2"),
        ("search.order", 2, "P1"),
        ("search.epochs", 300, "P1"),
        ("search.weights.learning_rate", 0.025, "P1"),
        ("search.weights.learning_rate_min", 0.001, "P1"),
        ("search.weights.momentum", 0.9, "P1"),
        ("search.weights.weight_decay", 3e-4, "P1"),
        ("search.weights.gradient_clip", 5.0, "code"),
        ("search.alphas.learning_rate", 3e-4, "P1"),
        ("search.alphas.beta1", 0.5, "P1"),
        ("search.alphas.beta2", 0.999, "P1"),
        ("search.alphas.weight_decay", 1e-3, "P1"),
        ("search.alphas.initial_sd", 1e-3, "code"),
        ("training.epochs", 600, "code"),
        ("training.batch_size", 96, "code"),
        ("system.auxiliary_weight", 0.4, "code"),
        ("system.drop_path", 0.2, "code"),
        ("training.class_weights", True, "code"),
        ("evaluation.split", "groups:5", "P1, P2: five folds"),
    ],
)
def test_default_is_the_papers(key: str, value: object, origin: str) -> None:
    found: Any = Recipe()
    for part in key.split("."):
        found = getattr(found, part)
    assert found == value, f"{key}, given by {origin}"
    assert type(found) is type(value)


def test_default_frames_before_pooling() -> None:
    spec = Recipe.from_dict({"features": {"pool": 1}}).features
    assert spec.n_samples == 262_000
    assert spec.n_frames == 512


@pytest.mark.parametrize(
    ("cells", "positions"),
    [
        (0, set()),
        (1, {0}),
        (2, {0, 1}),
        (3, {1, 2}),
        (4, {1, 2}),
        (6, {2, 4}),
        (8, {2, 5}),
        (20, {6, 13}),
    ],
)
def test_reductions_stand_at_one_and_two_thirds(cells: int, positions: set[int]) -> None:
    assert CNNSpec(cells=cells).reductions == positions


def test_candidates_are_the_papers() -> None:
    assert set(CNN_OPERATIONS) == {
        *("max_pool_3x3", "avg_pool_3x3", "skip_connect", "none"),
        *("sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5"),
    }
    assert set(SearchedSeqNN().operations) == {
        *(f"lstm_{n}" for n in range(1, 5)),
        *(f"rnn_{n}" for n in range(1, 5)),
        *("lstm_att_1", "lstm_att_2", "rnn_att_1", "rnn_att_2", "skip_connect", "none"),
    }
    for space in ("lstm", "rnn", "lstm_att", "rnn_att"):
        operations = set(SearchedSeqNN(space=space).operations)
        assert {"skip_connect", "none"} < operations
        assert all(o.rpartition("_")[0] == space for o in operations - {"skip_connect", "none"})


def test_fixed_lstm_is_that_of_the_first_paper() -> None:
    spec = FixedSeqNN(mode="fixed")
    assert (spec.recurrent, spec.width, spec.attention) == ("lstm", 256, False)


# --- YAML in and out ---


def test_empty_file_is_the_default_with_its_name(tmp_path: Path) -> None:
    assert load(tmp_path, "") == Recipe(name="mine")
    assert load(tmp_path, "name: other\n").name == "other"


RECIPES = [
    {},
    {"labels": ["anger", "no", "1"], "evaluation": {"folds": [2, 0], "seeds": [3, 1]}},
    {"network": {"seqnn": {"mode": "none"}}, "system": {"cells": 8, "channels": 16}},
    {"network": {"seqnn": {"mode": "fixed", "attention": True}}, "search": {"order": 1}},
    {"network": {"seqnn": {"space": "rnn"}}, "system": {"seqnn_cells": 2}},
    {"search": {"strategy": "random", "candidates": 3}},
    {
        "system": {"kind": "cnn", "dropout": 0.1},
        "training": {"epochs": 3},
    },
    {"system": {"kind": "svm"}, "features": {"kind": "functionals"}},
    {"features": {"kind": "log_mel", "sample_rate": 16000, "duration": 2.5}},
]


@pytest.mark.parametrize("value", RECIPES)
def test_yaml_round_trip(tmp_path: Path, value: dict[str, Any]) -> None:
    recipe = Recipe.from_dict(value)
    again = load(tmp_path, recipe.to_yaml())
    assert again == recipe
    assert again.digest() == recipe.digest()
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


@pytest.mark.parametrize("name", sorted(builtin_recipes()))
def test_builtin_recipes_load_by_name(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert load_recipe(builtin_recipes()[name]) == recipe


@pytest.mark.parametrize(
    ("text", "value"),
    [("3e-4", 3e-4), ("1E-2", 0.01), ("2.5e-2", 0.025), (".5e-1", 0.05), ("1", 1.0), ("0.1", 0.1)],
)
def test_numbers_as_people_write_them(tmp_path: Path, text: str, value: float) -> None:
    recipe = load(tmp_path, f"search: {{alphas: {{learning_rate: {text}}}}}")
    assert recipe.search.alphas.learning_rate == value
    assert type(recipe.search.alphas.learning_rate) is float
    assert load(tmp_path, "", f"search.alphas.learning_rate={text}") == recipe


def test_plain_yaml_is_left_alone(tmp_path: Path) -> None:
    assert yaml.safe_load("3e-4") == "3e-4", "our reading of 3e-4 must not leak into PyYAML"


def test_anchors_and_merge_keys(tmp_path: Path) -> None:
    recipe = load(
        tmp_path,
        "search: &s {epochs: 7}\ntraining: {<<: *s, mixup: 0.1}\n",
        "search.epochs=8",
    )
    assert (recipe.search.epochs, recipe.training.epochs) == (8, 7)
    recipe = load(tmp_path, "search: &s {epochs: 7}\ntraining: *s\n", "search.epochs=8")
    assert (recipe.search.epochs, recipe.training.epochs) == (8, 7)


def test_seqnn_without_mode_is_searched() -> None:
    assert Recipe.from_dict({"network": {"seqnn": {"width": 32}}}).network.seqnn == SearchedSeqNN(
        width=32
    )
    assert isinstance(
        Recipe.from_dict({"network": {"seqnn": {"mode": "none"}}}).network.seqnn, NoSeqNN
    )


# --- mistakes: every message names the key, the value and what is legal ---


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("search:\n  epochs: 3\n  epochs: 4\n", r"mine\.yaml, line 3: .*'epochs' occurs twice"),
        ("search: [\n", r"mine\.yaml, line 2: not valid YAML"),
        ("- search\n", r"mine\.yaml: a recipe is a mapping of keys, not list"),
        ("just words\n", "not str"),
        ("a: !!python/name:os.system\n", r"line 1: .*could not determine a constructor"),
        ("a: &x [*x]\n", r"mine\.yaml: Circular reference"),
        ("name: 2024-01-01\n", r"mine\.yaml: .*date.*plain YAML"),
        ("[" * 5000, "nested too deeply"),
        ("? [a]\n: 1\n", "unhashable key"),
    ],
)
def test_bad_yaml_names_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load(tmp_path, text)


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"absent: No such file.*one of .*quick"):
        load_recipe("absent")
    with pytest.raises(RecipeError, match="Is a directory"):
        load_recipe(tmp_path)
    (tmp_path / "latin").write_bytes(b"name: caf\xe9")
    with pytest.raises(RecipeError, match="not UTF-8"):
        load_recipe(tmp_path / "latin")


@pytest.mark.parametrize(
    ("value", "messages"),
    [
        # unknown keys
        (
            {"serach": {}},
            ["'serach'", "did you mean 'search'?", "allowed: name, labels, styles, features"],
        ),
        ({"search": {"epoch": 3}}, ["'search.epoch'", "did you mean 'epochs'?", "batch_size"]),
        ({"search": {"weights": {"momentun": 0.9}}}, ["'search.weights.momentun'", "'momentum'"]),
        ({"network": {"seqnn": {"layer": 3}}}, ["'network.seqnn.layer'", "allowed: mode, space"]),
        (
            {"network": {"seqnn": {"mode": "fixed", "cells": 3}}},
            ["'network.seqnn.cells'", "allowed: mode, recurrent"],
        ),
        ({"network": {"seqnn": {"mode": "none", "width": 3}}}, ["'network.seqnn.width'"]),
        ({"network": {"seqnn": {"fixed": 3}}}, ["'network.seqnn.fixed'", "allowed: mode, space"]),
        ({"searched": 1}, ["'searched'"]),
        # wrong types
        ({"search": {"epochs": "20"}}, ["search.epochs: '20'", "integer"]),
        ({"search": {"epochs": 20.0}}, ["search.epochs: 20.0", "integer"]),
        ({"search": {"epochs": True}}, ["search.epochs: True", "integer"]),
        ({"search": {"epochs": None}}, ["search.epochs: None", "integer"]),
        ({"search": 3}, ["search: 3", "object"]),
        ({"search": None}, ["search: None", "object"]),
        ({"name": 3}, ["name: 3", "string"]),
        ({"labels": "anger"}, ["labels ['anger']; allowed: at least 2 classes", "four-merged"]),
        ({"labels": []}, ["labels []; allowed: at least 2 classes"]),
        ({"labels": "four-mergd"}, ["did you mean 'four-merged'?"]),
        ({"compute": {"fast": "eager"}}, ["compute.fast", "boolean"]),
        ({"labels": ["anger", False]}, ["labels.1: False", "string"]),
        ({"training": {"class_weights": 1}}, ["training.class_weights: 1", "boolean"]),
        ({"network": {"seqnn": {"width": 3.5}}}, ["network.seqnn.width: 3.5"]),
        ({"network": {"seqnn": {"mode": "lstm"}}}, ["network.seqnn", "'lstm'", "'fixed', 'none'"]),
        ({"network": {"seqnn": 5}}, ["network.seqnn: 5"]),
        # values out of range
        (
            {"network": {"cnn": {"cells": -1}}},
            ["network.cnn.cells: -1", "greater than or equal to 0"],
        ),
        ({"network": {"seqnn": {"cells": 0}}}, ["network.seqnn.cells: 0"]),
        ({"network": {"dropout": 1.0}}, ["network.dropout: 1.0", "less than 1"]),
        ({"network": {"dropout": float("nan")}}, ["network.dropout: nan"]),
        ({"search": {"weights": {"learning_rate": float("inf")}}}, ["learning_rate: inf"]),
        ({"search": {"order": 3}}, ["search.order: 3", "1 or 2"]),
        ({"search": {"batch_size": 1}}, ["search.batch_size: 1"]),
        ({"features": 3}, ["features: 3", "object"]),
        (
            {"features": {"kind": "mfc"}},
            ["features.kind: 'mfc'", "did you mean 'mfcc'?", "allowed: mfcc, log_mel, stft"],
        ),
        ({"features": {"kind": ["mfcc"]}}, ["features.kind: ['mfcc']", "allowed: mfcc, log_mel"]),
        ({"features": {"deltas": 3}}, ["features.deltas: 3", "0, 1 or 2"]),
        (
            {"features": {"n_mfc": 3}},
            ["'features.n_mfc'", "'n_mfcc'?", "allowed: kind"],
        ),
        ({"features": {"kind": "stft", "n_mels": 3}}, ["'features.n_mels'", "allowed: kind"]),
        ({"features": {"kind": "embedding"}}, ["features.checkpoint", "required"]),
        ({"features": {"duration": 0.0}}, ["features.duration: 0.0"]),
        ({"labels": ["anger"]}, ["labels", "allowed: at least 2 classes"]),
        ({"evaluation": {"seeds": []}}, ["evaluation.seeds", "at least 1"]),
        ({"evaluation": {"seeds": [-1]}}, ["evaluation.seeds.0: -1"]),
        ({"evaluation": {"folds": [-1]}}, ["evaluation.folds.0: -1"]),
        # values that cannot be together
        ({"features": {"n_mfcc": 129}}, ["features: n_mfcc 129 exceeds n_mels 128"]),
        ({"features": {"fmax": 20000.0}}, ["fmax 20000 exceeds half of sample_rate, 16375 Hz"]),
        ({"features": {"kind": "log_mel", "n_mfcc": 40}}, ["unknown key 'features.n_mfcc'"]),
        (
            {"features": {"kind": "stft", "n_fft": 256}},
            ["features: win_length 400 exceeds n_fft 256"],
        ),
        (
            {"features": {"kind": "stft", "hop_length": 500}},
            ["features: hop_length 500 exceeds win_length 400"],
        ),
        (
            {"features": {"kind": "waveform", "frame_length": 8001, "duration": 0.5}},
            ["frame_length 8001 exceeds the 8000 samples of 0.5 s"],
        ),
        ({"features": {"kind": "opensmile", "duration": 0.05}}, ["at least a window of 0.06 s"]),
        (
            {"features": {"kind": "embedding", "checkpoint": "no/such"}},
            ["features: checkpoint 'no/such': no such file: no/such/config.json"],
        ),
        ({"features": {"hop_length": 4096}}, ["hop_length 4096 exceeds n_fft 2048"]),
        ({"features": {"duration": 0.01}}, ["n_fft 2048 exceeds the 328 samples of 0.01 s"]),
        ({"features": {"n_fft": 128, "hop_length": 64}}, ["n_mels 128 exceeds n_fft // 2 = 64"]),
        ({"features": {"pool": 600}}, ["pool 600 leaves no frame"]),
        ({"network": {"stem": {"channel": [8]}}}, ["'network.stem.channel'", "allowed: channels"]),
        (
            {"network": {"stem": {"channels": [8, 16], "frequency_strides": [2, 2]}}},
            ["network.stem: time_strides [2, 2, 1, 1] for 2 blocks", "allowed: 2 strides"],
        ),
        (
            {"network": {"stem": {"kernel": [3, 4]}}},
            ["network.stem.kernel: [3, 4]; allowed: two odd sizes"],
        ),
        (
            {"features": {"n_mfcc": 60}, "network": {"stem": {}}},
            ["60 x 128", "stem's strides", "of frequency", "at least 64"],
        ),
        (
            {"network": {"seqnn": {"mode": "fixed", "recurrent": "tcn", "bidirectional": True}}},
            ["network.seqnn: recurrent 'tcn' has no direction", "allowed: bidirectional false"],
        ),
        (
            {"network": {"cnn": {"cells": 0}, "seqnn": {"mode": "none"}}},
            ["search.strategy 'darts': the network has no cells", "strategy: random"],
        ),
        ({"features": {"n_mfcc": 3}}, ["3 x 128", "2 reduction cells", "of frequency", "least 4"]),
        ({"features": {"pool": 200}}, ["128 x 2", "of time", "at least 4"]),
        ({"search": {"epochs": 5, "warmup_epochs": 5}}, ["warmup_epochs 5", "none of 5 epochs"]),
        (
            {"search": {"weights": {"learning_rate": 1e-4}}},
            ["search.weights: learning_rate_min 0.001 exceeds learning_rate 0.0001"],
        ),
        (
            {"evaluation": {"seeds": [1, 2, 1]}},
            ["evaluation: seeds [1, 2, 1] lists a number"],
        ),
        ({"evaluation": {"folds": [0, 0]}}, ["folds [0, 0] lists a number twice"]),
        ({"evaluation": {"folds": []}}, ["folds is empty"]),
        ({"labels": ["anger", "anger"]}, ["labels ['anger', 'anger'] lists a class twice"]),
        (
            {"network": {"seqnn": {"mode": "none"}}, "system": {"seqnn_cells": 2}},
            ["system.seqnn_cells", "'none'"],
        ),
        # keys and sections of another kind
        (
            {"search": {"strategy": "random", "epochs": 3}},
            [
                "unknown key 'search.epochs'; allowed: strategy, candidates",
                "each strategy has keys",
            ],
        ),
        ({"search": {"strategy": "rndom"}}, ["search.strategy: 'rndom'", "did you mean 'random'?"]),
        ({"system": {"kind": "svm", "cells": 3}}, ["'system.cells'", "allowed: kind, cost"]),
        (
            {"system": {"kind": "svm"}, "search": {"epochs": 3}},
            ["section 'search' does nothing with system 'svm'"],
        ),
        (
            {"system": {"kind": "cnn"}, "network": {}},
            ["section 'network' does nothing with system 'cnn'; sections of that system: training"],
        ),
        ({"network": {"cnn": {"space": "lsmt"}}}, ["network.cnn.space: 'lsmt'", "'lstm'"]),
        (
            {"network": {"seqnn": {"space": "every"}}},
            ["network.seqnn.space: 'every'", "allowed: all, lstm, rnn, lstm_att, rnn_att"],
        ),
        *(
            ({"evaluation": {"split": split}}, [f"split {split!r}", "speaker, session, groups:K"])
            for split in ("", "groups", "groups:", "groups:0", "groups:1", "groups:-2", "speakers")
        ),
        *(
            (
                {"network": {"cnn": {"cells": cells}}, "system": {"cells": 3}},
                ["system.cells 3 needs a normal cell", f"network.cnn.cells {cells}", "allowed: "],
            )
            for cells in (1, 2)
        ),
        (
            {"system": {"kind": "cnn"}, "training": {"crop": 2.0}},
            ["training.crop", "weights for every frame", "allowed: null"],
        ),
        (
            {"system": {"kind": "cnn"}, "training": {"test_speeds": [0.9, 1.0]}},
            ["training.test_speeds: system 'cnn'", "weights for every frame", "allowed: [1.0]"],
        ),
        *(
            (
                {"training": value},
                [f"training.{key} changes frequencies", "'mfcc' have no frequency axis", "log_mel"],
            )
            for key, value in (
                ("test_speeds", {"test_speeds": [0.9, 1.0]}),
                ("perturbation.equaliser", {"perturbation": {"equaliser": 0.3}}),
            )
        ),
        *(
            (
                {
                    "features": {"kind": "log_mel"},
                    "system": {"kind": "emotionnas", "rnn_features": {"kind": "log_mel"}},
                    "training": value,
                },
                [f"training.{key} changes the frequencies of one map", "joins 2"],
            )
            for key, value in (
                ("test_speeds", {"test_speeds": [0.9, 1.0]}),
                ("perturbation.speed", {"perturbation": {"speed": [0.9, 1.1]}}),
            )
        ),
    ],
)
def test_mistake_is_explained(value: dict[str, Any], messages: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.from_dict(value, "mine.yaml")
    assert str(caught.value).startswith("mine.yaml: ")
    for message in messages:
        assert message in str(caught.value)


def test_reduction_fits_a_smaller_map_with_fewer_cells() -> None:
    value = {"features": {"n_mfcc": 3}, "network": {"cnn": {"cells": 1}}}
    assert Recipe.from_dict(value).features.n_features == 3
    with pytest.raises(RecipeError, match="2 reduction cells, which halve each axis"):
        Recipe.from_dict({**value, "system": {"cells": 2}})


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.from_dict({"search": {"epochs": 0, "batch_size": "x"}, "trainig": {}})
    for key in ("search.epochs", "search.batch_size", "did you mean 'training'?"):
        assert key in str(caught.value)


KEYS = st.sampled_from(
    [
        "search",
        "network",
        "seqnn",
        "cnn",
        "mode",
        "cells",
        "epochs",
        "labels",
        "evaluation",
        "seeds",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@given(value=st.dictionaries(KEYS, JSON, max_size=4))
def test_any_mapping_gives_a_recipe_or_a_recipe_error(value: dict[str, Any]) -> None:
    try:
        recipe = Recipe.from_dict(value)
    except RecipeError:
        return
    assert Recipe.from_dict(recipe.to_dict()) == recipe


# --- labels ---


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("labels: [sad, glad]", ("sad", "glad")),
        ("labels: 'sad, glad'", ("sad", "glad")),
        ("labels: ['happy=hap,exc', sad]", ("happy=hap,exc", "sad")),
        ("labels: {happy: [hap, exc], sad: sad}", ("happy=hap,exc", "sad=sad")),
        ("labels: own", None),
        ("labels: four", ("anger", "happiness", "neutral", "sadness")),
        ("labels: [four]", ("anger", "happiness", "neutral", "sadness")),
        (
            "labels: four-merged",
            ("anger", "happiness=happiness,excitement", "neutral", "sadness"),
        ),
        ("labels: five", ("anger", "excitement", "happiness", "neutral", "sadness")),
    ],
)
def test_labels(tmp_path: Path, text: str, labels: tuple[str, ...] | None) -> None:
    recipe = load(tmp_path, text)
    assert recipe.labels == labels
    assert Recipe.from_dict(recipe.to_dict()) == recipe


# --- overrides ---


def test_overrides(tmp_path: Path) -> None:
    recipe = load(
        tmp_path,
        "search: {epochs: 9, order: 1}\n",
        "search.epochs=20",
        "search.weights.learning_rate=1e-2",
        "network.seqnn={mode: fixed, layers: 2}",
        "labels=[a, b]",
        "evaluation.seeds=[4]",
        "training.class_weights=false",
        "search.epochs=21",
    )
    assert (recipe.search.epochs, recipe.search.order) == (21, 1)
    assert recipe.search.weights.learning_rate == 0.01
    assert recipe.network.seqnn == FixedSeqNN(mode="fixed", layers=2)
    assert recipe.labels == ("a", "b")
    assert recipe.evaluation.seeds == (4,)
    assert recipe.training.class_weights is False


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("search.epochs", "--set 'search.epochs'; allowed: KEY=VALUE"),
        ("=3", "--set '=3'; allowed: KEY=VALUE"),
        ("name.first=3", "'name' has no keys below it"),
        ("search.epochs=[", "--set search.epochs, line 1: not valid YAML"),
        ("search.epoch=3", "'search.epoch' (did you mean 'epochs'?)"),
        ("serach.epochs=3", "'serach' (did you mean 'search'?)"),
        ("search.epochs=many", "search.epochs: 'many'"),
        ("search.epochs=", "search.epochs: None"),
        ("search=", "search: None"),
    ],
)
def test_bad_override(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, "name: x\n", override)
    assert message in str(caught.value)


# --- digest ---


def leaves(value: dict[str, Any], prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for key, inner in value.items():
        found += leaves(inner, (*prefix, key)) if isinstance(inner, dict) else [(*prefix, key)]
    return found


def changed(value: dict[str, Any], leaf: tuple[str, ...]) -> list[dict[str, Any]]:
    """The recipe with another legal value at one key, as many as are found."""
    old: Any = value
    for key in leaf:
        old = old[key]
    match old:
        case bool():
            candidates: list[Any] = [not old]
        case int() | float():
            candidates = [old + 1, old + 2, old * 2, old / 2, 0.5]
        case None:
            candidates = [2, 64, -20.0, 0.3, ["a", "b"], [0.8, 1.2], [1], {}, "sqlite:///x.db"]
        case list():
            candidates = [[7], [0.6, 0.7], [{"cells": 3}]]
        case _:
            candidates = ["other", "log_mel", "fixed", "lstm", "mean", "random", "exact", "best"]
            candidates += ["finite_difference", "adamw", "constant", "last", "speaker", "paper"]
            candidates += ["cpu", "repeat", "bf16", "svm", "zeros", "ua", "utterances"]
            candidates += ["gumbel", "perturbation", "mapped"]
    found = []
    for candidate in candidates:
        new = copy.deepcopy(value)
        place = new
        for key in leaf[:-1]:
            place = place[key]
        if leaf == ("network", "seqnn", "mode"):
            new["network"]["seqnn"] = {"mode": candidate}
        elif leaf in (("features", "kind"), ("search", "strategy")):
            new[leaf[0]] = {leaf[1]: candidate}
        elif leaf == ("system", "kind"):
            new = {"system": {"kind": candidate}}
        else:
            place[leaf[-1]] = candidate
        try:
            Recipe.from_dict(new)
        except RecipeError:
            continue
        if candidate != old:
            found.append(new)
    return found


def base_of(leaf: tuple[str, ...]) -> dict[str, Any]:
    """A recipe in which the key may have another value: some are legal only with others."""
    value = Recipe().to_dict()
    if leaf[:2] == ("training", "augmentation"):
        spans = {key: [0.8, 1.2] for key in ("speed", "pitch", "vtlp", "noise", "gain")}
        value["training"]["augmentation"] |= {"copies": 1, **spans}
    if leaf[:2] == ("training", "perturbation") or leaf == ("training", "test_speeds"):
        value["features"] = {"kind": "log_mel"}
    if leaf == ("training", "oversample"):
        value["training"]["class_weights"] = False
    if leaf == ("training", "calibration_folds"):
        value["training"]["select"] = "last"
    for penalty, relaxation in (("zero_one", "sigmoid"), ("anchor", "dirichlet")):
        if leaf == ("search", "penalties", penalty):
            value["search"]["relaxation"]["kind"] = relaxation
    if leaf == ("evaluation", "allow_speaker_overlap"):
        value["evaluation"]["split"] = "official"
    return value


@pytest.mark.parametrize("leaf", leaves(Recipe().to_dict()), ids=".".join)
def test_digest_covers_every_key_that_a_trial_depends_on(leaf: tuple[str, ...]) -> None:
    base = base_of(leaf)
    others = changed(base, leaf)
    assert others, "the test knows no other legal value"
    same = leaf[0] in ("name", "compute") or leaf[1:] in (("folds",), ("seeds",))
    for other in others:
        assert (Recipe.from_dict(other).digest() == Recipe.from_dict(base).digest()) is same


def test_digest_is_the_same_for_the_same_meaning(tmp_path: Path) -> None:
    assert load(tmp_path, "features: {duration: 8}").digest() == Recipe().digest()
    assert load(tmp_path, "search: {order: 2, epochs: 300}").digest() == Recipe().digest()


# --- frozen ---


def test_recipe_and_sections_are_frozen() -> None:
    recipe = Recipe()
    sections = [
        recipe,
        *(getattr(recipe, n) for n in ("features", "network", "search", "training")),
    ]
    sections += [recipe.network.cnn, recipe.network.seqnn, recipe.search.alphas, recipe.compute]
    for section in sections:
        assert isinstance(section, BaseModel)
        name = next(iter(type(section).model_fields))
        with pytest.raises(ValidationError, match="frozen"):
            setattr(section, name, getattr(section, name))
    assert hash(recipe) == hash(Recipe())


def test_trained_network_may_be_deeper_and_wider() -> None:
    recipe = Recipe.from_dict({"system": {"cells": 8, "channels": 16, "seqnn_cells": 2}})
    assert recipe.trained_network.cnn == CNNSpec(cells=8, channels=16)
    assert recipe.trained_network.seqnn == SearchedSeqNN(cells=2)
    assert recipe.network == Recipe().network
    assert Recipe().trained_network == Recipe().network


def test_a_recipe_extends_another(tmp_path: Path) -> None:
    """Sections join, sections of another kind replace, unused ones are not inherited."""
    write(tmp_path, "features: {kind: log_mel, n_mels: 32}\nsearch: {epochs: 7, order: 1}\n")
    (tmp_path / "mine.yaml").rename(tmp_path / "base.yaml")
    found = load(tmp_path, "extends: base.yaml\nsearch: {epochs: 9}\nfeatures: {hop_length: 200}\n")
    assert (
        found.features == load_recipe(tmp_path / "base.yaml", ["features.hop_length=200"]).features
    )
    assert (found.search.epochs, found.search.order) == (9, 1)  # type: ignore[attr-defined]
    assert found.name == "mine"
    other = load(tmp_path, "extends: base.yaml\nsearch: {strategy: random}\n")
    assert other.search == RandomSpec()
    classical = load(tmp_path, "extends: base.yaml\nsystem: {kind: svm}\n")
    assert classical.features == load_recipe(tmp_path / "base.yaml").features
    assert "search" not in classical.model_fields_set


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("mine.yaml", "extends itself"),
        ("absent", "cannot read recipe absent"),
        ("[default]", "allowed: the name or file of a recipe"),
    ],
)
def test_a_recipe_that_cannot_be_extended(tmp_path: Path, base: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load(tmp_path, f"extends: {base}\n")


def test_auxiliary_skips_need_a_skip_among_the_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    known = SPACES["all"]
    without = {name: operation for name, operation in known.cnn.items() if name != SKIP}
    monkeypatch.setitem(SPACES, "own", replace(known, cnn=without))
    value = {"network": {"cnn": {"space": "own"}}, "search": {"auxiliary_skip": True}}
    with pytest.raises(RecipeError, match=r"auxiliary_skip needs skip_connect.*cell 'normal'"):
        Recipe.from_dict(value)

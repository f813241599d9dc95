"""The temperature of a trial comes from utterances that were held out, never from its test."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from emodarts.corpora import load_corpus
from emodarts.errors import RecipeError
from emodarts.experiments.plan import Options
from emodarts.experiments.run import run
from emodarts.recipe import Recipe
from emodarts.serving.model import Model

FEATURES = {
    "kind": "mfcc",
    "sample_rate": 8000,
    "duration": 0.4,
    "length": "segments",
    "n_fft": 256,
    "hop_length": 128,
    "n_mels": 16,
}
STEM = {"channels": [2], "frequency_strides": [4], "time_strides": [4]}
SEQNN = {"mode": "fixed", "recurrent": "lstm", "layers": 1, "width": 4}


@pytest.mark.parametrize(
    ("protocol", "folds", "fitted_on"),
    [("full", 2, "inner folds"), ("paper", 0, "validation"), ("full", 0, "nothing")],
)
def test_predictions_are_those_of_the_calibrated_model(
    protocol: str, folds: int, fitted_on: str, tiny_emodb: Path, cache: Path, tmp_path: Path
) -> None:
    recipe = Recipe.from_dict(
        {
            "features": FEATURES,
            "network": {"stem": STEM, "cnn": {"cells": 0}, "seqnn": SEQNN},
            "search": {"strategy": "random"},
            "training": {"calibration_folds": folds, "epochs": 2, "ensemble": 2},
            "evaluation": {"protocol": protocol, "split": "groups:3", "folds": [0]},
            "compute": {"device": "cpu", "threads": 1},
        }
    )
    result = run(recipe, load_corpus("emodb", tiny_emodb), tmp_path / "run", Options(cache=cache))
    facts = result["calibration"]
    assert facts["fitted_on"] == fitted_on
    assert (facts["temperature"] == 1.0) == (fitted_on == "nothing")
    assert (facts["ece"] == pytest.approx(facts["ece_before"])) == (fitted_on == "nothing")
    trial = tmp_path / "run" / "fold-0" / "seed-0"
    model = Model.load(trial / "model")
    assert model.bundle.temperature == facts["temperature"]
    assert not (trial / "calibration").exists()
    with (tmp_path / "run" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        [answer] = model.predict(tiny_emodb / f"{row['name']}.wav")
        assert answer.label == row["predicted"]
        assert list(answer.probabilities.values()) == [
            float(row[f"p_{name}"]) for name in model.classes
        ]


def test_a_system_that_is_fitted_to_its_validation_is_not_calibrated_on_it(
    tiny_emodb: Path, cache: Path, tmp_path: Path
) -> None:
    recipe = Recipe.from_dict(
        {
            "features": FEATURES,
            "system": {"kind": "logistic_regression"},
            "evaluation": {"protocol": "paper", "split": "groups:3", "folds": [0]},
            "compute": {"device": "cpu", "threads": 1},
        }
    )
    result = run(recipe, load_corpus("emodb", tiny_emodb), tmp_path / "run", Options(cache=cache))
    assert result["calibration"]["fitted_on"] == "nothing"


@pytest.mark.parametrize(
    ("training", "reason"),
    [
        ({"calibration_folds": 1}, "nothing to train on"),
        ({"calibration_folds": 2, "select": "ua"}, "does nothing"),
    ],
)
def test_calibration_that_is_not_possible_is_refused(
    training: dict[str, object], reason: str
) -> None:
    with pytest.raises(RecipeError, match=reason):
        Recipe.from_dict({"training": training})

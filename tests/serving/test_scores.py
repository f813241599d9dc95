"""Test scores and answers follow one rule, for utterances shorter and longer than the input."""

from __future__ import annotations

from pathlib import Path

import pytest

from emodarts.corpora import load_corpus
from emodarts.experiments.run import Options, run
from emodarts.layout import RunFolder
from emodarts.recipe import load_recipe
from emodarts.scoring.predictions import read_predictions
from emodarts.serving.model import Model

WARNING = "72 of 72 utterances are longer than 0.4 s and were cut (features.length)"


@pytest.mark.parametrize(
    ("length", "duration", "warnings"),
    [("segments", 0.4, []), ("pad", 0.4, [WARNING]), ("pad", 1.5, [])],
)
def test_predict_gives_the_scored_probabilities_bit_for_bit(
    tiny_recipe_file: Path,
    tiny_emodb: Path,
    tmp_path: Path,
    length: str,
    duration: float,
    warnings: list[str],
) -> None:
    changes = [f"features.length={length}", f"features.duration={duration}"]
    recipe = load_recipe(tiny_recipe_file, [*changes, "evaluation.folds=[0]"])
    corpus = load_corpus("emodb", tiny_emodb)
    result = run(recipe, corpus, tmp_path / "run", Options(cache=tmp_path / "cache"))
    assert [text for text in result["warnings"] if "longer" in text] == warnings
    folder = RunFolder(tmp_path / "run")
    model = Model.load(folder.trial(0, 0).model)
    paths = {u.name: u.path for u in corpus}
    predictions, *_ = read_predictions(folder.predictions)
    assert len(predictions) == 24
    for prediction in predictions:
        (answer,) = model.predict(paths[prediction.name])
        assert list(answer.probabilities.values()) == list(prediction.probabilities)

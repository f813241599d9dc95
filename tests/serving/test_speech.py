"""The default recipe on real speech: one rule for scores and answers, and silence that counts for
nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from emodarts.audio.io import load_audio
from emodarts.corpora import Corpus, load_corpus
from emodarts.experiments.run import Options, run
from emodarts.layout import RunFolder
from emodarts.recipe import load_recipe
from emodarts.scoring.predictions import Prediction, read_predictions
from emodarts.serving.model import Model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def speech(emodb_root: Path) -> Corpus:
    return load_corpus("emodb", emodb_root)


@pytest.fixture(scope="module")
def trained(speech: Corpus, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    changes = ["labels=four", "training.epochs=12", "training.ensemble=1", "evaluation.folds=[0]"]
    recipe = load_recipe("default", [*changes, "compute.threads=1", "compute.device=cpu"])
    folder = tmp_path_factory.mktemp("speech")
    result = run(recipe, speech, folder / "run", Options(cache=folder / "cache"))
    assert result["ua"] > 0.5  # it has learned something that silence could spoil
    return RunFolder(folder / "run")


@pytest.fixture(scope="module")
def model(trained: RunFolder) -> Model:
    return Model.load(trained.trial(0, 0).model)


@pytest.fixture(scope="module")
def tested(trained: RunFolder) -> tuple[Prediction, ...]:
    return read_predictions(trained.predictions)[0]


def test_predict_gives_the_scored_probabilities_bit_for_bit(
    model: Model, tested: tuple[Prediction, ...], speech: Corpus
) -> None:
    paths = {u.name: u.path for u in speech}
    for prediction in tested[::5]:
        (answer,) = model.predict(paths[prediction.name])
        assert list(answer.probabilities.values()) == list(prediction.probabilities)


@pytest.mark.parametrize("floor", [0.0, 10 ** (-70 / 20)])
@pytest.mark.parametrize(("before", "after"), [(0.5, 0.0), (0.0, 0.5), (1.0, 2.0)])
def test_silence_and_faint_noise_around_speech_change_no_answer(
    model: Model,
    tested: tuple[Prediction, ...],
    speech: Corpus,
    before: float,
    after: float,
    floor: float,
) -> None:
    paths = {u.name: u.path for u in speech}
    generator = np.random.default_rng(0)
    differences = []
    for prediction in tested[::4]:
        sound = load_audio(paths[prediction.name], 16000)
        quiet = [floor * generator.standard_normal(round(s * 16000)) for s in (before, after)]
        around = np.concatenate([quiet[0], sound, quiet[1]]).astype(np.float32)
        (answer,) = model.predict(around, sample_rate=16000)
        found = np.array(list(answer.probabilities.values()))
        differences.append(np.abs(found - prediction.probabilities).max())
    assert np.mean(differences) < 0.01
    assert max(differences) < 0.05

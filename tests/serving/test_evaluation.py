"""A model on a labelled corpus: which labels match, what is refused, and that scores are right."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from emodarts import files
from emodarts.audio.survey import check_all
from emodarts.bundle import Bundle, sound_of
from emodarts.corpora import Corpus, Utterance
from emodarts.errors import AudioError, BundleError, CorpusError
from emodarts.progress import Silent
from emodarts.recipe import FeatureSpec, SystemSpec
from emodarts.reports.evaluation import evaluation_page
from emodarts.reports.markdown import to_markdown
from emodarts.serving.evaluation import evaluate, match_labels
from emodarts.serving.model import Model

RATE = 4000
WAVE = FeatureSpec(kind="waveform", sample_rate=RATE, duration=1.0, frame_length=40)


class Loud:
    """Class 0 for quiet sound and class 1 for loud sound; the third class is never answered."""

    genotype = None

    def probabilities(self, inputs: Mapping[str, Tensor]) -> Tensor:
        (features,) = inputs.values()
        loud = (features.abs().nanmean(dim=(1, 2, 3)) > 0.13).double()
        return torch.stack([0.8 - 0.7 * loud, 0.1 + 0.7 * loud, torch.full_like(loud, 0.1)], 1)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {}, {}


def model(
    classes: tuple[str, ...] = ("neutral", "anger", "fear"),
    emotions: Mapping[str, list[str]] | None = None,
    trained_on: tuple[str, ...] = (),
) -> Model:
    return Model(
        Bundle(
            SystemSpec(kind="chance"),
            Loud(),
            {"features": WAVE},
            classes,
            {"features": ""},
            emotions=emotions or {},
            trained_on=trained_on,
            origin={"corpus": "toy", "recipe": "r", "fold": 2, "seed": 5, "notice": ""},
        )
    )


def corpus(
    folder: Path,
    rows: list[tuple[str, str | None, float]],
    emotions: Mapping[str, str] | None = None,
) -> Corpus:
    """Files of noise by name, label and level, each by a speaker of its own."""
    generator = np.random.default_rng(0)
    syllables = 0.02 + np.sin(3 * np.pi * np.arange(RATE) / RATE) ** 2  # as speech has
    found = []
    for name, label, level in rows:
        sound = level * syllables * np.sign(generator.standard_normal(RATE))
        soundfile.write(folder / f"{name}.wav", sound, RATE)
        found.append(Utterance(name, folder / f"{name}.wav", label, f"speaker {name}"))
    labels = tuple(sorted({label for _, label, _ in rows if label is not None}))
    return Corpus("other", tuple(found), labels, emotions=emotions or {})


@pytest.mark.parametrize(
    ("classes", "emotions", "labels", "common", "expected"),
    [
        # By common names, whatever the spelling on either side.
        (("anger", "neutral"), {}, ("ANG", "Neutral"), {}, {"ANG": "anger", "Neutral": "neutral"}),
        (("W", "N"), {"W": ["anger"], "N": ["neutral"]}, ("ang",), {}, {"ang": "W"}),
        (
            ("anger", "fear"),
            {},
            ("W", "A"),
            {"W": "anger", "A": "fear"},
            {"W": "anger", "A": "fear"},
        ),
        # A merged class takes each of its labels.
        (
            ("happiness", "anger"),
            {"happiness": ["excitement", "happiness"], "anger": ["anger"]},
            ("exc", "hap", "sad"),
            {},
            {"exc": "happiness", "hap": "happiness"},
        ),
        # The same letter of two languages is not the same emotion.
        (("A", "T"), {"A": ["fear"], "T": ["sadness"]}, ("A",), {"A": "anger"}, {}),
        # Labels without a common name match by spelling, and ambiguous ones, too.
        (
            ("bored to tears", "anger"),
            {},
            ("bored to tears",),
            {},
            {"bored to tears": "bored to tears"},
        ),
        (
            ("hot", "cold"),
            {"hot": ["anger"], "cold": ["anger"]},
            ("anger", "cold"),
            {"cold": "anger"},
            {"cold": "cold"},
        ),
    ],
)
def test_labels_match_classes_by_their_common_names(
    tmp_path: Path,
    classes: tuple[str, ...],
    emotions: Mapping[str, list[str]],
    labels: tuple[str, ...],
    common: Mapping[str, str],
    expected: dict[str, str],
) -> None:
    utterances = tuple(Utterance(label, tmp_path, label, None) for label in labels)
    listed = Corpus("other", utterances, labels, emotions=common)
    assert match_labels(listed, model((*classes, "x"), emotions).bundle) == expected


ROWS = [
    *[(f"n{k}", "Neu", 0.1) for k in range(3)],
    ("n3", "Neu", 0.5),
    ("a0", "angry", 0.5),
    ("a1", "angry", 0.1),
    ("b0", "bored", 0.1),
    ("u0", None, 0.1),
]


def test_scores_are_those_of_the_answers(tmp_path: Path) -> None:
    found = evaluate(model(), corpus(tmp_path, ROWS), Silent())
    result = found.result
    assert result["confusion"] == [[3, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert result["ua"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert result["wa"] == pytest.approx(4 / 6)
    assert result["mapping"] == {
        "Neu": {"class": "neutral", "utterances": 4},
        "angry": {"class": "anger", "utterances": 2},
    }
    assert result["left_out"] == {"label bored is no class of the model": 1, "no label": 1}
    assert result["warnings"] == ["no utterance of class fear was scored"]
    assert [p.name for p in found.predictions] == ["n0", "n1", "n2", "n3", "a0", "a1"]
    text = to_markdown(evaluation_page(json.loads(json.dumps(result))))
    assert text.count("UA: unweighted accuracy") == 1
    assert "| UA       | 62.5 |" in text
    assert "Left out: label bored is no class of the model (1); no label (1)." in text
    assert "| neutral |       3 |     1 |    0 |" in text
    assert "**Warning:** no utterance of class fear was scored" in text


def test_labels_can_be_given(tmp_path: Path) -> None:
    listed = corpus(tmp_path, ROWS)
    found = evaluate(model(), listed, Silent(), ["neutral=bored", "anger=angry"])
    assert found.result["confusion"] == [[1, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert found.result["left_out"] == {"label Neu is not selected": 4, "no label": 1}
    with pytest.raises(
        CorpusError, match=r"'angr' is no class of the model \(did you mean 'anger'"
    ):
        evaluate(model(), listed, Silent(), ["angr=angry", "neutral=Neu"])
    with pytest.raises(
        CorpusError, match=r"no label of the corpus is a class of the model \(x, y, z"
    ):
        evaluate(model(("x", "y", "z")), listed, Silent())


def test_what_the_model_was_trained_on_is_refused_whatever_its_name(tmp_path: Path) -> None:
    listed = corpus(tmp_path, ROWS)
    contents = [files.sha256_of(u.path)[:32] for u in listed]
    trained = model(trained_on=(contents[0], f"{contents[4]} 0.25 0.5"))
    with pytest.raises(BundleError, match=r"on 2 of these 6 utterances \(n0, a0\).*--skip-trained"):
        evaluate(trained, listed, Silent())
    found = evaluate(trained, listed, Silent(), skip_trained=True)
    assert [p.name for p in found.predictions] == ["n1", "n2", "n3", "a1"]
    assert found.result["left_out"]["the model was trained on it"] == 2
    with pytest.raises(BundleError, match=r"on 6 of these 6 utterances.*give another corpus"):
        evaluate(model(trained_on=tuple(contents)), listed, Silent(), skip_trained=True)


def test_what_the_model_was_trained_on_is_refused_in_another_container_too(tmp_path: Path) -> None:
    listed = corpus(tmp_path, ROWS)
    sounds = check_all(listed.utterances).sounds
    samples, _ = soundfile.read(tmp_path / "n0.wav", dtype="int16")
    padded = np.concatenate([np.zeros(500, np.int16), samples])
    soundfile.write(tmp_path / "n0.flac", padded, RATE, subtype="PCM_16")
    copied = [replace(u, path=u.path.with_suffix(".flac")) if u.name == "n0" else u for u in listed]
    other = Corpus("other", tuple(copied), listed.classes)
    with pytest.raises(BundleError, match=r"on 1 of these 6 utterances \(n0\)"):
        evaluate(model(trained_on=(sound_of(str(sounds[0])),)), other, Silent())


def test_unusable_audio_is_named_or_left_out(tmp_path: Path) -> None:
    listed = corpus(tmp_path, ROWS)
    (tmp_path / "n1.wav").write_text("not a sound")
    (tmp_path / "a1.wav").unlink()
    with pytest.raises(
        AudioError, match=r"2 of 6 utterances have unusable audio:\n.*a1.wav.*\n.*n1"
    ):
        evaluate(model(), listed, Silent())
    found = evaluate(model(), listed, Silent(), skip_bad=True)
    assert found.result["left_out"]["unusable audio"] == 2
    assert found.result["n_test"] == 4

"""Predictions survive their file, and each utterance counts once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from toy_predictions import prediction, two_by_two

from emodarts.errors import RunError
from emodarts.scoring.predictions import (
    Prediction,
    by_fold_and_seed,
    read_predictions,
    write_predictions,
)


def test_predictions_come_back_exactly(tmp_path: Path) -> None:
    third = 1 / 3
    predictions = (
        Prediction('we "said", ähm', None, 0, 7, "a,b", "c", (third, 1 - third)),
        Prediction("x", "s 1", 3, 0, "c", "c", (5e-324, 0.1 + 0.2)),
    )
    path = tmp_path / "predictions.csv"
    write_predictions(path, predictions, ("a,b", "c"))
    assert read_predictions(path) == (predictions, ("a,b", "c"))
    header = path.read_text().splitlines()[0]
    assert header == 'fold,seed,name,speaker,label,predicted,"p_a,b",p_c'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no predictions"),
        ("fold,seed,name,speaker,label,predicted,p_a\n", "has no predictions"),
        ("fold,seed,name,label,predicted,p_a\n0,0,x,a,a,1\n", "no column 'speaker'"),
        ("fold,seed,name,speaker,label,predicted\n0,0,x,s,a,a\n", "no column 'p_<class>'"),
        ("fold,seed,name,speaker,label,predicted,p_a\n0,0,x,s,b,a,1\n", "line 2: label is 'b'"),
        ("fold,seed,name,speaker,label,predicted,p_a\n0,0,x,s,a,b,1\n", "line 2: predicted is 'b'"),
        ("fold,seed,name,speaker,label,predicted,p_a\n0,0,x,s,a,a,nan\n", "line 2.*not all finite"),
        ("fold,seed,name,speaker,label,predicted,p_a\n0,zero,x,s,a,a,1\n", "line 2.*'zero'"),
        ("fold,seed,name,speaker,label,predicted,p_a\n0,0,x,s,a,a\n", "line 2"),
        ("fold,seed,name,speaker,label,predicted,p_a\n0,0,x,s,a,a,1,1\n", "line 2"),
    ],
)
def test_bad_prediction_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "predictions.csv"
    path.write_text(text)
    with pytest.raises(RunError, match=message) as caught:
        read_predictions(path)
    assert str(path) in str(caught.value)


def test_missing_prediction_file(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such file"):
        read_predictions(tmp_path / "nowhere.csv")


def test_write_refuses_a_wrong_number_of_probabilities(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="2 probabilities for 3 classes"):
        write_predictions(tmp_path / "p.csv", [prediction("x", "a", "a")], ("a", "b", "c"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (prediction("0-0", "a", "a", fold=1), "tested in fold 0 and in fold 1"),
        (prediction("0-0", "a", "a"), "fold 0, seed 0: 0-0 predicted more than once"),
        (prediction("new", "a", "a"), "cover different utterances.*new"),
        (prediction("0-0", "a", "a", seed=2), "cover different utterances"),
        (prediction("new", "a", "joy", fold=2), "cover different utterances"),
    ],
)
def test_each_utterance_counts_once(extra: Prediction, message: str) -> None:
    predictions = [*two_by_two(), extra]
    if extra.fold == 1:
        predictions.append(replace(extra, seed=1))
    with pytest.raises(RunError, match=message):
        by_fold_and_seed(predictions)


@pytest.mark.parametrize("change", [{"label": "b"}, {"speaker": "s9"}])
def test_the_truth_is_the_same_for_every_seed(change: dict[str, str]) -> None:
    first, *others = two_by_two()
    with pytest.raises(RunError, match="'0-0' changes between seeds"):
        by_fold_and_seed([replace(first, **change), *others])


def test_no_predictions_are_refused() -> None:
    with pytest.raises(RunError, match="no predictions"):
        by_fold_and_seed([])

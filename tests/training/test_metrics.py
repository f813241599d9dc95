"""Scores against hand-made numbers, scikit-learn, and the rules of counting once."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, recall_score

from emodarts.errors import RunError
from emodarts.training import metrics
from emodarts.training.metrics import (
    Prediction,
    aggregate,
    paired_test,
    read_predictions,
    score,
    write_predictions,
)

CLASSES = ("anger", "happiness", "sadness")
AB = ("a", "b")


def said(
    name: str,
    label: str,
    predicted: str,
    *,
    speaker: str | None = "s0",
    fold: int = 0,
    seed: int = 0,
) -> Prediction:
    return Prediction(name, speaker, fold, seed, label, predicted, (0.5, 0.5))


def speakers_alike(n_speakers: int, wrong: int = 1) -> list[Prediction]:
    """Each speaker says 4 of class a, of which ``wrong`` are missed, and 2 right ones of b."""
    return [
        said(
            f"{speaker}-{i}",
            "a" if i < 4 else "b",
            "b" if i < wrong or i >= 4 else "a",
            speaker=f"s{speaker}",
        )
        for speaker in range(n_speakers)
        for i in range(6)
    ]


# One set of utterances


def test_scores_of_a_hand_made_example() -> None:
    truth = ["anger"] * 4 + ["happiness"] * 2 + ["sadness"]
    predicted = ["anger"] * 3 + ["sadness"] + ["happiness", "anger"] + ["sadness"]
    scores = score(truth, predicted, CLASSES)
    # Recalls 3/4, 1/2, 1/1; precisions 3/4, 1/1, 1/2; F1 3/4, 2/3, 2/3.
    assert scores.ua == pytest.approx((0.75 + 0.5 + 1) / 3)
    assert scores.wa == pytest.approx(5 / 7)
    assert scores.macro_f1 == pytest.approx((3 / 4 + 2 / 3 + 2 / 3) / 3)
    assert scores.confusion == ((3, 0, 1), (1, 1, 0), (0, 0, 1))
    assert scores.absent == ()


def test_class_absent_from_the_truth_is_left_out_and_named() -> None:
    scores = score(["anger", "anger", "sadness"], ["anger", "happiness", "sadness"], CLASSES)
    assert scores.absent == ("happiness",)
    assert scores.ua == pytest.approx((0.5 + 1) / 2)
    assert scores.macro_f1 == pytest.approx((2 / 3 + 1) / 2)
    assert scores.wa == pytest.approx(2 / 3)


def test_class_never_predicted_counts_as_zero() -> None:
    scores = score(["anger", "sadness"], ["anger", "anger"], CLASSES)
    assert scores.ua == pytest.approx(0.5)
    assert scores.macro_f1 == pytest.approx((2 / 3 + 0) / 2)


@given(
    st.integers(2, 5).flatmap(
        lambda n: st.lists(st.tuples(*[st.integers(0, n - 1)] * 2), min_size=1, max_size=40).map(
            lambda pairs: (n, pairs)
        )
    )
)
@settings(max_examples=100, deadline=None)
def test_scores_agree_with_sklearn(example: tuple[int, list[tuple[int, int]]]) -> None:
    n, pairs = example
    classes = [f"c{i}" for i in range(n)]
    truth, predicted = ([classes[pair[k]] for pair in pairs] for k in (0, 1))
    present = [c for c in classes if c in truth]
    scores = score(truth, predicted, classes)
    # balanced_accuracy_score is this mean of recalls; it warns of absent classes.
    recall = recall_score(truth, predicted, labels=present, average="macro")
    assert scores.ua == pytest.approx(recall, abs=1e-12)
    assert scores.wa == pytest.approx(accuracy_score(truth, predicted), abs=1e-12)
    f1 = f1_score(truth, predicted, labels=present, average="macro")
    assert scores.macro_f1 == pytest.approx(f1, abs=1e-12)
    assert np.array_equal(scores.confusion, confusion_matrix(truth, predicted, labels=classes))
    assert set(scores.absent) == set(classes) - set(truth)


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_ua_is_sklearns_balanced_accuracy() -> None:
    from sklearn.metrics import balanced_accuracy_score

    truth, predicted = list("aaabbc"), list("aabbca")
    expected = balanced_accuracy_score(truth, predicted)
    assert score(truth, predicted, ("a", "b", "c", "d")).ua == pytest.approx(expected)


@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [
        ([], [], "at least one utterance"),
        (["a"], ["a", "b"], "2 predictions of 1 utterances"),
        (["a"], ["joy"], r"unknown class joy; legal: a, b"),
        (["joy"], ["a"], r"unknown class joy; legal: a, b"),
    ],
)
def test_score_refuses(truth: list[str], predicted: list[str], message: str) -> None:
    with pytest.raises(RunError, match=message):
        score(truth, predicted, AB)


# Files


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
        ("", "holds no predictions"),
        ("fold,seed,name,speaker,label,predicted,p_a\n", "holds no predictions"),
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
        write_predictions(tmp_path / "p.csv", [said("x", "anger", "anger")], CLASSES)
    assert not list(tmp_path.iterdir())


# A whole run


def two_by_two() -> list[Prediction]:
    """Two folds with two seeds; fold 1 has no utterance of class b."""
    answers = {  # (fold, seed): predicted for the truth a a b, or a a
        (0, 0): "aab",  # UA 1, WA 1
        (0, 1): "aba",  # UA 1/4, WA 1/3
        (1, 0): "ab",  # UA 1/2, WA 1/2
        (1, 1): "bb",  # UA 0, WA 0
    }
    return [
        said(f"{fold}-{i}", label, predicted, speaker=f"s{fold}-{i % 2}", fold=fold, seed=seed)
        for (fold, seed), text in answers.items()
        for i, (label, predicted) in enumerate(zip("aab" if fold == 0 else "aa", text, strict=True))
    ]


def test_means_are_over_folds_of_the_mean_over_seeds() -> None:
    result = aggregate(two_by_two(), AB)
    ua = [(1 + 0.25) / 2, (0.5 + 0) / 2]
    wa = [(1 + 1 / 3) / 2, (0.5 + 0) / 2]
    assert result["ua"] == pytest.approx(np.mean(ua))
    assert result["wa"] == pytest.approx(np.mean(wa))
    assert result["ua_sd_folds"] == pytest.approx(np.std(ua, ddof=1))
    assert result["wa_sd_folds"] == pytest.approx(np.std(wa, ddof=1))
    assert result["ua_sd_seeds"] == pytest.approx(np.std([(1 + 0.5) / 2, (0.25 + 0) / 2], ddof=1))
    assert [f["ua"] for f in result["folds"]] == pytest.approx(ua)
    assert [s["ua"] for s in result["folds"][0]["seeds"]] == pytest.approx([1, 0.25])
    assert result["folds"][1]["absent_classes"] == ["b"]
    assert result["folds"][0]["absent_classes"] == []
    assert result["folds"][0]["test_speakers"] == ["s0-0", "s0-1"]


def test_every_utterance_counts_once() -> None:
    result = aggregate(two_by_two(), AB)
    assert result["n_test"] == 5
    assert [f["n_test"] for f in result["folds"]] == [3, 2]
    assert result["confusion"] == [[4, 4], [1, 1]]  # 5 utterances x 2 seeds


def test_pooled_scores_are_those_of_one_big_set() -> None:
    predictions = two_by_two()
    by_seed = [
        score([p.label for p in run], [p.predicted for p in run], AB)
        for run in ([p for p in predictions if p.seed == seed] for seed in (0, 1))
    ]
    pooled = aggregate(predictions, AB)["pooled"]
    for metric in ("ua", "wa", "macro_f1"):
        assert pooled[metric] == pytest.approx(np.mean([getattr(s, metric) for s in by_seed]))


def test_result_is_json_and_does_not_depend_on_order() -> None:
    predictions = two_by_two()
    first = aggregate(predictions, AB)
    assert json.loads(json.dumps(first, allow_nan=False)) == first
    assert aggregate(predictions[::-1], AB) == first


def test_a_single_fold_and_seed_has_no_spread() -> None:
    result = aggregate(speakers_alike(2), AB)
    spread = [value for key, value in result.items() if "_sd_" in key]
    assert spread == [None] * 6


def test_interval_is_a_point_when_speakers_are_alike() -> None:
    pooled = aggregate(speakers_alike(5), AB)["pooled"]
    assert pooled["ua"] == pytest.approx((3 / 4 + 1) / 2)
    assert pooled["ua_interval"] == pytest.approx([pooled["ua"]] * 2)
    assert pooled["wa_interval"] == pytest.approx([pooled["wa"]] * 2)
    assert pooled["bootstrap_unit"] == "speaker"


def test_interval_is_wider_when_errors_belong_to_few_speakers() -> None:
    """The same 12 utterances and errors: spread over speakers, or all of one speaker."""
    spread = speakers_alike(4)
    names = [p.name for p in spread if p.label == "a"]
    missed = set(names[:4])  # all a utterances of the first speaker
    bunched = [replace(p, predicted="b" if p.name in missed else p.label) for p in spread]
    pooled_spread, pooled_bunched = (aggregate(p, AB)["pooled"] for p in (spread, bunched))
    assert pooled_spread["wa"] == pytest.approx(pooled_bunched["wa"])
    low, high = pooled_bunched["wa_interval"]
    assert high - low > 0.1
    assert low < pooled_bunched["wa"] < high


def test_interval_is_that_of_all_resamples_of_two_speakers() -> None:
    """Of two speakers, one right and one wrong: WA 0, 1/2, 1 with weights 1/4, 1/2, 1/4."""
    two = [said("x", "a", "a", speaker="s"), said("y", "a", "b", speaker="t")]
    pooled = aggregate(two, AB)["pooled"]
    assert pooled["wa_interval"] == pytest.approx([0, 1])
    assert pooled["wa"] == pytest.approx(0.5)


def test_bootstrap_has_the_standard_error_of_a_mean() -> None:
    """For speakers with one utterance each, the error of WA is sqrt(p (1 - p) / n)."""
    n, right = 100, 80
    counts = np.zeros((n, 1, 2, 2))
    counts[:right, 0, 0, 0] = 1
    counts[right:, 0, 0, 1] = 1
    samples = np.concatenate(list(metrics._bootstrap(counts)))
    assert samples.shape == (metrics.BOOTSTRAP_SAMPLES, 3)
    assert samples[:, 1].mean() == pytest.approx(0.8, abs=0.003)
    assert samples[:, 1].std() == pytest.approx(np.sqrt(0.8 * 0.2 / n), rel=0.05)


def test_interval_covers_95_percent() -> None:
    """WA of resampled speakers with one utterance each is Binomial(100, 0.8) / 100.

    Its 2.5 and 97.5 % points are 72 and 88 (cdf at 87: 0.9747), its 5 and 95 % points 73, 86.
    """
    predictions = [said(f"{i}", "a", "ab"[i < 20], speaker=f"s{i}") for i in range(100)]
    low, high = aggregate(predictions, AB)["pooled"]["wa_interval"]
    assert low == pytest.approx(0.72, abs=0.005)
    assert high == pytest.approx(0.875, abs=0.0051)


def test_resamples_without_a_class_use_the_present_ones() -> None:
    two = [said("x", "a", "a", speaker="s"), said("y", "b", "b", speaker="t")]
    assert aggregate(two, AB)["pooled"]["ua_interval"] == pytest.approx([1, 1])


@given(st.lists(st.tuples(*[st.integers(0, 1)] * 2, st.integers(0, 4)), min_size=2, max_size=30))
@settings(max_examples=25, deadline=None)
def test_interval_contains_the_pooled_wa(rows: list[tuple[int, int, int]]) -> None:
    rows = [*rows, (0, 0, 5)]
    predictions = [
        said(f"{i}", AB[label], AB[guess], speaker=f"s{who}")
        for i, (label, guess, who) in enumerate(rows)
    ]
    pooled = aggregate(predictions, AB)["pooled"]
    if pooled["wa_interval"] is not None:
        low, high = pooled["wa_interval"]
        assert low - 1e-12 <= pooled["wa"] <= high + 1e-12


def test_a_single_speaker_has_no_interval() -> None:
    assert aggregate(speakers_alike(1), AB)["pooled"]["ua_interval"] is None


def test_unknown_speakers_are_resampled_as_utterances() -> None:
    predictions = [replace(p, speaker=None) for p in speakers_alike(2)]
    result = aggregate(predictions, AB)
    low, high = result["pooled"]["wa_interval"]
    assert result["pooled"]["bootstrap_unit"] == "utterance"
    assert low < high
    assert result["folds"][0]["test_speakers"] == []


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (said("0-0", "a", "a", fold=1), "tested in fold 0 and in fold 1"),
        (said("0-0", "a", "a"), "fold 0, seed 0: 0-0 predicted more than once"),
        (said("new", "a", "a"), "cover different utterances.*new"),
        (said("0-0", "a", "a", seed=2), "cover different utterances"),
        (said("new", "a", "joy", fold=2), "cover different utterances"),
    ],
)
def test_aggregate_refuses_what_does_not_count_once(extra: Prediction, message: str) -> None:
    predictions = [*two_by_two(), extra]
    if extra.fold == 1:
        predictions.append(replace(extra, seed=1))
    with pytest.raises(RunError, match=message):
        aggregate(predictions, AB)


def test_aggregate_refuses_a_truth_that_changes() -> None:
    first, *others = two_by_two()
    with pytest.raises(RunError, match="'0-0' changes between seeds"):
        aggregate([replace(first, label="b"), *others], AB)


def test_aggregate_refuses_nothing_and_unknown_classes() -> None:
    with pytest.raises(RunError, match="no predictions"):
        aggregate([], AB)
    with pytest.raises(RunError, match="unknown class joy"):
        aggregate([said("x", "a", "joy")], AB)
    with pytest.raises(RunError, match="name one twice"):
        aggregate([said("x", "a", "a")], ("a", "a"))


# Two systems


def test_identical_systems_do_not_differ() -> None:
    test = paired_test(speakers_alike(4), speakers_alike(4), AB)
    assert test["ua"] == {"difference": 0, "p": 1}
    assert test["wa"] == {"difference": 0, "p": 1}
    assert (test["n_speakers"], test["n_utterances"]) == (4, 24)


def test_p_value_is_exact_for_few_speakers() -> None:
    """Five equal differences: only 2 of the 32 sign patterns are as extreme."""
    test = paired_test(speakers_alike(5, wrong=1), speakers_alike(5, wrong=3), AB)
    assert test["ua"]["p"] == pytest.approx(2 / 32)
    assert test["ua"]["difference"] == pytest.approx(2 / 4 / 2)
    assert test["wa"]["difference"] == pytest.approx(2 / 6)


def test_p_value_counts_sign_flips_and_speakers_weigh_alike() -> None:
    """Against all sign flips by hand; one speaker has twice the utterances of the others."""
    right = [[1, 1, 1, 1, 0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 1], [1, 1, 1, 1], [1, 0, 0, 0]]
    a = [
        said(f"{s}-{i}", "a", "ba"[ok], speaker=f"s{s}")
        for s, row in enumerate(right)
        for i, ok in enumerate(row)
    ]
    b = [replace(p, predicted="b") for p in a]
    differences = np.array([np.mean(row) for row in right])
    flips = np.array(list(itertools.product([1, -1], repeat=5))) @ differences / 5
    test = paired_test(a, b, AB)
    assert test["wa"]["difference"] == pytest.approx(differences.mean())
    extreme = np.mean(np.abs(flips) >= differences.mean() - 1e-12)
    assert test["wa"]["p"] == pytest.approx(extreme)


def test_paired_test_is_symmetric_and_averages_over_seeds() -> None:
    a = two_by_two()
    b = [p for p in a if p.seed == 0]
    forward, backward = paired_test(a, b, AB), paired_test(b, a, AB)
    assert forward["wa"]["difference"] == pytest.approx(-backward["wa"]["difference"])
    assert forward["wa"]["p"] == pytest.approx(backward["wa"]["p"])
    # WA by speaker with seeds 0 and 1: 1 and 1/2, 1 and 0, 1 and 0, 0 and 0.
    expected = np.mean([3 / 4 - 1, 1 / 2 - 1, 1 / 2 - 1, 0 - 0])
    assert forward["wa"]["difference"] == pytest.approx(expected)


def test_many_speakers_use_drawn_flips_with_a_fixed_seed() -> None:
    a, b = speakers_alike(30, wrong=1), speakers_alike(30, wrong=2)
    test = paired_test(a, b, AB)
    assert test["wa"]["p"] <= 2 * 1 / (metrics.PERMUTATIONS + 1)
    assert paired_test(a, b, AB) == test


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (speakers_alike(2), speakers_alike(3), "different utterances: 12 and 18, 6 of them"),
        (speakers_alike(1), speakers_alike(1), "at least two speakers"),
        (
            speakers_alike(2),
            [replace(p, label="b") for p in speakers_alike(2)],
            "another label or speaker",
        ),
        (
            [replace(p, speaker=None) for p in speakers_alike(2)],
            [replace(p, speaker=None) for p in speakers_alike(2)],
            "12 utterance.s. have none",
        ),
    ],
)
def test_paired_test_refuses(a: list[Prediction], b: list[Prediction], message: str) -> None:
    with pytest.raises(RunError, match=message):
        paired_test(a, b, AB)


def test_import_needs_neither_scipy_nor_sklearn_nor_torch() -> None:
    code = (
        "import sys, emodarts.training.metrics;"
        "sys.exit(any(m in sys.modules for m in ('scipy', 'sklearn', 'torch', 'matplotlib')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""Scores against hand-made numbers, scikit-learn, and the rules of counting once."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, recall_score
from toy_predictions import AB, prediction, speakers_alike, two_by_two

from emodarts.errors import RunError
from emodarts.scoring.metrics import aggregate, macro_f1, score, ua, wa
from emodarts.scoring.metrics import confusion_matrix as count_confusions

CLASSES = ("anger", "happiness", "sadness")

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


@given(st.integers(1, 12), st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_scores_of_matrices_are_those_of_utterances(n: int, seed: int) -> None:
    """Many matrices at a time, one at a time, and with classes that never occur."""
    generator = np.random.default_rng(seed)
    truth, predicted = generator.integers(0, n, (2, 3, 20))
    matrices = np.stack([count_confusions(t, p, n) for t, p in zip(truth, predicted, strict=True)])
    wider = np.pad(matrices, [(0, 0), (1, 2), (1, 2)])
    for metric in (ua, wa, macro_f1):
        values = metric(matrices)
        assert values.tolist() == [float(metric(matrix)) for matrix in matrices]
        assert values.tolist() == metric(wider).tolist()
    names = [str(k) for k in range(n)]
    one = score([names[k] for k in truth[0]], [names[k] for k in predicted[0]], names)
    values = [metric(matrices)[0] for metric in (ua, wa, macro_f1)]
    assert [one.ua, one.wa, one.macro_f1] == values


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
        (["a"], ["joy"], r"unknown class joy; allowed: a, b"),
        (["joy"], ["a"], r"unknown class joy; allowed: a, b"),
    ],
)
def test_score_refuses(truth: list[str], predicted: list[str], message: str) -> None:
    with pytest.raises(RunError, match=message):
        score(truth, predicted, AB)


# A whole run


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


def test_interval_is_that_of_all_resamples_of_three_speakers() -> None:
    """One right and two wrong: WA 0, 1/3, 2/3, 1 with weights 8/27, 12/27, 6/27, 1/27 > 2.5 %."""
    three = [prediction(who, "a", "ab"[who > "s"], speaker=who) for who in "stu"]
    pooled = aggregate(three, AB)["pooled"]
    assert pooled["wa_interval"] == pytest.approx([0, 1])
    assert pooled["wa"] == pytest.approx(1 / 3)


def test_interval_covers_95_percent() -> None:
    """WA of resampled speakers with one utterance each is Binomial(100, 0.8) / 100.

    Its 2.5 and 97.5 % points are 72 and 88 (cdf at 87: 0.9747), its 5 and 95 % points 73, 86.
    """
    predictions = [prediction(f"{i}", "a", "ab"[i < 20], speaker=f"s{i}") for i in range(100)]
    low, high = aggregate(predictions, AB)["pooled"]["wa_interval"]
    assert low == pytest.approx(0.72, abs=0.005)
    assert high == pytest.approx(0.875, abs=0.0051)


def test_resamples_without_a_class_use_the_present_ones() -> None:
    three = [
        prediction(who, label, label, speaker=who) for who, label in zip("stu", "aab", strict=True)
    ]
    assert aggregate(three, AB)["pooled"]["ua_interval"] == pytest.approx([1, 1])


@given(st.lists(st.tuples(*[st.integers(0, 1)] * 2, st.integers(0, 4)), min_size=2, max_size=30))
@settings(max_examples=25, deadline=None)
def test_interval_contains_the_pooled_wa(rows: list[tuple[int, int, int]]) -> None:
    rows = [*rows, (0, 0, 5)]
    predictions = [
        prediction(f"{i}", AB[label], AB[guess], speaker=f"s{who}")
        for i, (label, guess, who) in enumerate(rows)
    ]
    pooled = aggregate(predictions, AB)["pooled"]
    if pooled["wa_interval"] is not None:
        low, high = pooled["wa_interval"]
        assert low - 1e-12 <= pooled["wa"] <= high + 1e-12


@pytest.mark.parametrize("speakers", [1, 2])
def test_one_or_two_speakers_have_no_interval(speakers: int) -> None:
    pooled = aggregate(speakers_alike(speakers), AB)["pooled"]
    assert [pooled[f"{metric}_interval"] for metric in ("ua", "wa", "macro_f1")] == [None] * 3


def test_unknown_speakers_are_resampled_as_utterances() -> None:
    predictions = [replace(p, speaker=None) for p in speakers_alike(2)]
    result = aggregate(predictions, AB)
    low, high = result["pooled"]["wa_interval"]
    assert result["pooled"]["bootstrap_unit"] == "utterance"
    assert low < high
    assert result["folds"][0]["test_speakers"] == []


@pytest.mark.parametrize(
    ("predicted", "classes", "message"),
    [("joy", AB, "unknown class joy"), ("a", ("a", "a"), "a class occurs twice in a, a")],
)
def test_aggregate_refuses(predicted: str, classes: tuple[str, ...], message: str) -> None:
    with pytest.raises(RunError, match=message):
        aggregate([prediction("x", "a", predicted)], classes)


def test_import_needs_neither_scipy_nor_sklearn_nor_torch() -> None:
    code = (
        "import sys, emodarts.scoring.comparison, emodarts.scoring.metrics;"
        "sys.exit(any(m in sys.modules for m in ('scipy', 'sklearn', 'torch', 'matplotlib')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

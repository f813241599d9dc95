"""The verdict: who is named as the winner, and what is called chance."""

from __future__ import annotations

from typing import Any

import pytest

from emodarts.reports.verdict import verdict


def result(name: str, ua: float, interval: tuple[float, float] | None, **more: Any) -> dict:
    return {
        "name": name,
        "corpus": "toy",
        "classes": ["a", "b"],
        "n_test": 40,
        "seeds": [0, 1],
        "folds": [{"test_speakers": list("uvw")}, {"test_speakers": list("xyz")}],
        "ua": ua,
        "ua_sd_folds": 0.02,
        "pooled": {"ua_interval": interval, "bootstrap_unit": "speaker"},
        "baselines": {"chance": {"ua": 0.5}, "logistic_regression": {"ua": 0.7}},
        **more,
    }


def paired(p: float, difference: float = 0.1) -> dict[str, Any]:
    return {"n_speakers": 10, "n_utterances": 40, "ua": {"difference": difference, "p": p}}


@pytest.mark.parametrize(
    ("interval", "end"),
    [
        ((0.72, 0.85), "lies above that value, so the lead is more than chance."),
        ((0.65, 0.85), "includes that value, so the difference could be chance."),
        ((0.55, 0.69), "lies below that value, so the deficit is more than chance."),
        (None, "cannot show whether that is more than chance."),
    ],
)
def test_one_run_against_its_best_baseline(interval: tuple[float, float] | None, end: str) -> None:
    text = verdict([result("net", 0.8, interval)], {}).text
    assert text.startswith(
        "net was tested on 40 utterances by 6 speakers from toy (2 classes, 2 folds, 2 seeds). Its "
        "UA is 80.0 %, 10.0 points above the baseline logistic regression (70.0 %). "
    )
    assert text.endswith(end)


def test_one_run_that_equals_its_baseline() -> None:
    text = verdict([result("net", 0.7, (0.6, 0.8), seeds=[0])], {}).text
    assert "(2 classes, 2 folds, 1 seed)" in text
    assert "Its UA is 70.0 %, the same as the baseline logistic regression. The 95 %" in text


def test_few_speakers_prove_nothing() -> None:
    few = [{"test_speakers": ["x"]}, {"test_speakers": ["y"]}]
    text = verdict([result("net", 0.99, (0.98, 1.0), folds=few)], {}).text
    assert text.endswith(
        "Fewer than 6 known speakers cannot show whether that is more than chance."
    )


def test_the_winner_of_several_is_tested_with_a_correction() -> None:
    results = [result(name, ua, None) for name, ua in (("a", 0.7), ("b", 0.9), ("c", 0.8))]
    tests = {("a", "b"): paired(0.001, -0.2), ("b", "c"): paired(0.03), ("a", "c"): paired(0.9)}
    text = verdict(results, tests).text
    assert text == (
        "a, b and c were tested on 40 utterances by 6 speakers from toy (2 classes, 2 folds, 2 "
        "seeds). b has the highest UA, 90.0 %, 10.0 points above c, the next best (80.0 %). The "
        "lead over c could be chance: a paired test over 10 speakers gives p = 0.060 after Holm's "
        "correction for 3 pairs."
    )
    del tests["b", "c"]
    assert (
        "The lead over a, the best that it was tested against, is more than chance: a paired test"
        in verdict(results, tests).text
    )
    assert "No paired test of b was possible" in verdict(results, {}).text


@pytest.mark.parametrize(
    ("uas", "test", "parts"),
    [
        (
            (0.81, 0.8),
            paired(0.0002),
            ("a has the highest UA, 81.0 %, 1.0 point above b (80.0 %).", "chance: a paired test "),
        ),
        (
            (0.8, 0.8),
            paired(1.0, 0.0),
            ("a and b share the highest UA, 80.0 %.", "The difference between them could be"),
        ),
        # Folds of different sizes: the mean over folds and that over speakers may disagree.
        ((0.81, 0.8), paired(0.01, -0.1), ("is no evidence for a: in the mean over speakers, b",)),
    ],
)
def test_two_systems_that_differ_or_tie(
    uas: tuple[float, float], test: dict[str, Any], parts: tuple[str, ...]
) -> None:
    results = [result(name, ua, None) for name, ua in zip("ab", uas, strict=True)]
    text = verdict(results, {("a", "b"): test}).text
    assert all(part in text for part in parts), text
    assert ("p < 0.001." in text) == (test["ua"]["p"] < 0.001)


def test_a_part_of_the_test_set_wins_nothing() -> None:
    part = result("b (1 of 2 folds)", 0.95, None, n_test=20)
    text = verdict([result("a", 0.8, None), part, result("c", 0.7, None)], {}).text
    assert text.startswith("a and c were tested on 40 utterances")
    assert "a has the highest UA, 80.0 %, 10.0 points above c (70.0 %)." in text
    assert text.endswith("b (1 of 2 folds) was tested on less and left out here.")
    alone = verdict([result("a", 0.8, (0.75, 0.9)), part], {}).text
    assert alone.startswith("a was tested on 40 utterances")
    assert "b (1 of 2 folds) was tested on less" in alone


def test_a_baseline_that_beats_the_winner_is_named() -> None:
    text = verdict([result("a", 0.6, None), result("b", 0.5, None)], {}).text
    assert (
        "a has the highest UA, 60.0 %, 10.0 points above b (50.0 %), but the baseline logistic "
        "regression has 70.0 %. No paired test" in text
    )


def test_many_systems_are_counted() -> None:
    results = [result(f"s{k}", 0.9 - 0.01 * k, None) for k in range(9)]
    assert verdict(results, {}).text.startswith("s0, s1, s2, s3, s4 and 4 others were tested on")


def test_runs_on_different_corpora_have_no_winner() -> None:
    text = verdict([result("a", 0.7, None), result("b", 0.9, None, corpus="other")], {}).text
    assert text.startswith("a and b were tested on different corpora or classes. No winner")
    assert "highest" not in text

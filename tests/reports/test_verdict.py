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
        ((0.72, 0.85), "lies above that, so the lead is more than chance among these speakers."),
        ((0.65, 0.85), "includes that, so the difference may be chance."),
        ((0.55, 0.69), "lies below that, so the loss is more than chance among these speakers."),
        (None, "it cannot be said whether that is more than chance."),
    ],
)
def test_one_run_against_its_best_baseline(interval: tuple[float, float] | None, end: str) -> None:
    text = verdict([result("net", 0.8, interval)], {}).text
    assert text.startswith(
        "net was tested on 40 utterances of 6 speakers of toy with 2 classes, in 2 folds with 2 "
        "seeds. Its UA is 80.0 % ± 2.0, 10.0 points above the baseline logistic regression (70.0 %)"
    )
    assert text.endswith(end)


def test_few_speakers_prove_nothing() -> None:
    few = [{"test_speakers": ["x"]}, {"test_speakers": ["y"]}]
    text = verdict([result("net", 0.99, (0.98, 1.0), folds=few)], {}).text
    assert "With fewer than 6 known speakers it cannot be said" in text


def test_the_winner_of_several_is_tested_with_a_correction() -> None:
    results = [result(name, ua, None) for name, ua in (("a", 0.7), ("b", 0.9), ("c", 0.8))]
    tests = {("a", "b"): paired(0.001), ("b", "c"): paired(0.03), ("a", "c"): paired(0.9)}
    text = verdict(results, tests).text
    assert "b has the highest UA, 90.0 % ± 2.0, 10.0 points above the next, c (80.0 %" in text
    assert text.endswith(
        "Its lead over c may be chance (paired test over 10 speakers, p = 0.0600 after Holm's "
        "correction for 3 pairs)."
    )
    del tests["b", "c"]
    assert "Its lead over a is more than chance" in verdict(results, tests).text
    assert "No paired test of the winner was possible" in verdict(results, {}).text


def test_runs_on_different_corpora_have_no_winner() -> None:
    text = verdict([result("a", 0.7, None), result("b", 0.9, None, corpus="other")], {}).text
    assert "none of them wins" in text
    assert "highest" not in text

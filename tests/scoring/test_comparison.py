"""The paired test against sign flips that are counted by hand."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from toy_predictions import AB, prediction, speakers_alike, two_by_two

from emodarts.errors import RunError
from emodarts.scoring.comparison import PERMUTATIONS, holm, paired_test
from emodarts.scoring.predictions import Prediction


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
        prediction(f"{s}-{i}", "a", "ba"[ok], speaker=f"s{s}")
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
    assert test["wa"]["p"] <= 2 * 1 / (PERMUTATIONS + 1)
    assert paired_test(a, b, AB) == test


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (speakers_alike(2), speakers_alike(3), "different utterances: 12 and 18, 6 of them"),
        (speakers_alike(1), speakers_alike(1), "at least two speakers"),
        (
            speakers_alike(2),
            [replace(p, label="b") for p in speakers_alike(2)],
            "label or speaker of .* differs between the systems",
        ),
        (
            [replace(p, speaker=None) for p in speakers_alike(2)],
            [replace(p, speaker=None) for p in speakers_alike(2)],
            "12 utterances have no speaker",
        ),
    ],
)
def test_paired_test_refuses(a: list[Prediction], b: list[Prediction], message: str) -> None:
    with pytest.raises(RunError, match=message):
        paired_test(a, b, AB)


def test_holm_by_hand() -> None:
    # Sorted: 0.01 * 4, 0.02 * 3, 0.03 * 2, and 0.8; the third is not less than the second.
    assert holm([0.03, 0.01, 0.8, 0.02]) == pytest.approx([0.06, 0.04, 0.8, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []

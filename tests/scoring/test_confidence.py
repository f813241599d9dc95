"""Reliability, its expected error and the surest mistakes, against values made by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from emodarts.scoring.confidence import BINS, reliability, surest_mistakes
from emodarts.scoring.predictions import Prediction

AB = ("a", "b")


def answer(name: str, label: str, share_of_a: float, seed: int = 0) -> Prediction:
    said = "a" if share_of_a >= 0.5 else "b"
    return Prediction(name, "s", 0, seed, label, said, (share_of_a, 1 - share_of_a))


def test_ece_of_a_hand_count() -> None:
    # Bin (0.6, 0.7]: confidences 0.65 and 0.65, one right. Bin (0.9, 1]: 0.95 and 1, both right.
    items = [answer("1", "a", 0.65), answer("2", "b", 0.65)]
    items += [answer("3", "b", 0.05), answer("4", "a", 1.0)]
    found = reliability(items, AB)
    assert found.ece == pytest.approx((2 * 0.15 + 2 * 0.025) / 4)
    assert found.confidence == pytest.approx((0.65 + 0.65 + 0.95 + 1.0) / 4)
    assert found.accuracy == 0.75
    assert [b.count for b in found.bins] == [0, 0, 0, 0, 0, 0, 2, 0, 0, 2]
    assert (found.bins[6].confidence, found.bins[6].accuracy) == (pytest.approx(0.65), 0.5)
    assert math.isnan(found.bins[0].accuracy)


def test_ece_is_that_of_its_definition_on_random_answers() -> None:
    generator = np.random.default_rng(0)
    shares = generator.dirichlet(np.ones(3), 500)
    labels = generator.choice(list("abc"), 500)
    items = [
        Prediction(str(k), None, 0, 0, label, "abc"[row.argmax()], tuple(row))
        for k, (row, label) in enumerate(zip(shares, labels, strict=True))
    ]
    confidence = shares.max(1)
    right = np.array([p.predicted == p.label for p in items])
    expected = 0.0
    for k in range(BINS):
        inside = (confidence > k / BINS) & (confidence <= (k + 1) / BINS)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert reliability(items, tuple("abc")).ece == pytest.approx(expected)


@pytest.mark.parametrize(("share", "bin_number"), [(1.0, 9), (0.5, 4), (0.9, 8)])
def test_an_edge_belongs_to_the_bin_below(share: float, bin_number: int) -> None:
    found = reliability([answer("1", "a", share)], AB)
    assert found.bins[bin_number].count == 1


def test_mistakes_are_means_over_seeds_and_the_surest_comes_first() -> None:
    items = [answer("right", "a", 0.99), answer("right", "a", 0.97, seed=1)]
    items += [answer("sure", "b", 0.9), answer("sure", "b", 0.8, seed=1)]
    items += [answer("unsure", "a", 0.4), answer("unsure", "a", 0.5, seed=1)]
    items += [answer("outvoted", "a", 0.2), answer("outvoted", "a", 0.9, seed=1)]
    found = surest_mistakes(items, AB, 5)
    assert [m.name for m in found] == ["sure", "unsure"]
    assert (found[0].answer, found[0].label) == ("a", "b")
    assert found[0].confidence == pytest.approx(0.85)
    assert found[0].truth == pytest.approx(0.15)
    assert [m.name for m in surest_mistakes(items, AB, 1)] == ["sure"]

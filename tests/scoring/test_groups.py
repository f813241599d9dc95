"""Scores of groups of utterances, and the gaps between them."""

from __future__ import annotations

import pytest
from toy_predictions import AB, prediction, two_by_two

from emodarts.scoring.groups import gap, scores_by_group


def test_scores_of_two_genders_by_hand() -> None:
    items = [
        prediction("1", "a", "a", speaker="x"),
        prediction("2", "a", "b", speaker="x"),
        prediction("3", "b", "b", speaker="y"),
        prediction("4", "a", "a", speaker="z"),
        prediction("5", "a", "a", speaker="z"),
        prediction("6", "b", "b", speaker=None),
    ]
    gender = {"1": "female", "2": "female", "3": "female", "4": "male", "5": "male"}
    found = scores_by_group(items, gender, AB)
    assert list(found) == ["female", "male"]
    female, male = found.values()
    assert (female.n_utterances, female.n_speakers) == (3, 2)
    assert female.ua == 0.75
    assert female.wa == pytest.approx(2 / 3)
    assert female.recalls == (0.5, 1.0)
    # Without any b, UA is over a alone, and there is no recall of b.
    assert (male.ua, male.recalls) == (1.0, (1.0, None))


def test_seeds_are_averaged_and_utterances_counted_once() -> None:
    items = two_by_two()
    found = scores_by_group(items, {p.name: f"fold {p.fold}" for p in items}, AB)
    assert found["fold 0"].n_utterances == 3
    assert found["fold 0"].ua == pytest.approx((1 + 1 / 4) / 2)
    assert found["fold 1"].wa == pytest.approx((1 / 2 + 0) / 2)


def test_no_groups() -> None:
    assert scores_by_group(two_by_two(), {}, AB) == {}


def test_a_gap_needs_all_values() -> None:
    assert gap([0.5, 0.75, 0.6]) == 0.25
    assert gap([0.5, None]) is None
    assert gap([0.5]) is None

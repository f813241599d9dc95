"""A fold is two sides and what the split sets aside; its utterances are on one side each."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from emodarts.splits import Fold

SOME = st.sets(st.integers(0, 20))


@given(SOME, SOME, SOME, SOME)
def test_sides_are_disjoint_and_what_leaves_the_test_is_used_for_nothing(
    train: set[int], validation: set[int], test: set[int], left_out: set[int]
) -> None:
    train, validation = train - validation - test, validation - test
    members = tuple(sorted(train | validation | test))
    fold = Fold(3, members, tuple(sorted(test)), tuple(sorted(validation)))
    assert fold.development == tuple(sorted(train | validation))
    assert fold.train == tuple(sorted(train))
    fewer = fold.without_tests(left_out & test)
    assert set(fewer.test) == test - left_out
    assert (fewer.development, fewer.validation) == (fold.development, fold.validation)

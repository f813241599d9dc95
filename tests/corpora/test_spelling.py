"""Spellings of emotions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emodarts.corpora.spelling import common_emotion
from emodarts.corpora.utterance import COMMON_EMOTIONS


def test_every_common_name_spells_itself_and_so_does_its_code() -> None:
    codes = {common_emotion(name[:3]) for name in COMMON_EMOTIONS}
    assert codes == set(COMMON_EMOTIONS)
    assert [common_emotion(name) for name in COMMON_EMOTIONS] == list(COMMON_EMOTIONS)


@pytest.mark.parametrize(
    ("spelling", "common"),
    [("ANG", "anger"), (" Angry\t", "anger"), ("Fearful", "fear"), ("joy", "happiness"),
     ("SURPRISED", "surprise"), ("fru", "frustration")],
)  # fmt: skip
def test_spellings(spelling: str, common: str) -> None:
    assert common_emotion(spelling) == common


@pytest.mark.parametrize("label", ["", "xxx", "A", "F", "no agreement", "unhappy", "angry2"])
def test_what_spells_none(label: str) -> None:
    assert common_emotion(label) is None


@given(st.text())
def test_any_text_gives_a_common_name_or_none(label: str) -> None:
    assert common_emotion(label) in (None, *COMMON_EMOTIONS)

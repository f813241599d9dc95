"""Sound that would be both trained and tested on."""

from __future__ import annotations

import pytest
from toy_corpora import corpus

from emodarts.errors import SplitError
from emodarts.splits import Parts, make_folds, make_parts, settle_duplicates

TOY = corpus()
UTTERANCES = TOY.utterances
PARTS = [
    make_parts(UTTERANCES, fold, "full", 0) for fold in make_folds(TOY, "speaker").folds
]  # fmt: skip


def sounds(*same: tuple[int, ...]) -> list[str]:
    """A sound for each utterance; those of a group share theirs."""
    found = [u.name for u in UTTERANCES]
    for group in same:
        for index in group:
            found[index] = found[group[0]]
    return found


def of(speaker: str) -> list[int]:
    return [i for i, u in enumerate(UTTERANCES) if u.speaker == speaker]


def test_a_pair_of_two_speakers_is_refused_by_name() -> None:
    one, other = of("00")[3], of("05")[7]
    with pytest.raises(SplitError) as caught:
        settle_duplicates(UTTERANCES, sounds((one, other)), PARTS, allowed=False)
    text = str(caught.value)
    assert "1 sound(s) are in test and training" in text
    pair = f"{UTTERANCES[one].name} (speaker 00) = {UTTERANCES[other].name} (speaker 05)"
    assert pair in text
    assert "--allow-duplicates" in text
    (warning,) = settle_duplicates(UTTERANCES, sounds((one, other)), PARTS, allowed=True)
    assert pair in warning


def test_every_sound_is_counted_once() -> None:
    groups = tuple(tuple(of(speaker)[k] for speaker in ("00", "01", "02")) for k in (0, 4))
    (warning,) = settle_duplicates(UTTERANCES, sounds(*groups), PARTS, allowed=True)
    assert warning.startswith("2 sound(s)")
    assert warning.count(" = ") == 2


def test_a_pair_on_one_side_is_no_matter() -> None:
    first, second = of("00")[:2]
    assert settle_duplicates(UTTERANCES, sounds((first, second)), PARTS, allowed=False) == ()
    whole = Parts((), (), tuple(range(len(UTTERANCES))), (), ())
    across = sounds((of("00")[0], of("01")[0]))
    assert settle_duplicates(UTTERANCES, across, [whole], allowed=False) == ()


def test_a_pair_of_which_one_has_no_part_is_no_matter() -> None:
    across = sounds((of("00")[0], of("01")[0]))
    test, trained = tuple(of("00")), tuple(of("02"))
    assert settle_duplicates(UTTERANCES, across, [Parts((), (), trained, (), test)], False) == ()

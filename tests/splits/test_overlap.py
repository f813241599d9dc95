"""Predefined folds that test on training or unknown speakers: refused, or allowed on request."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from toy_corpora import changed, corpus, corpus_of, parted, unknown, values

from emodarts.corpora.utterance import PublishedFold, Utterance
from emodarts.errors import SplitError
from emodarts.splits import make_folds, make_parts

EMOBOX = Path(__file__).resolve().parents[3] / "shared" / "data" / "emobox"


def test_unknown_speakers_of_published_parts_train_and_are_not_tested() -> None:
    source = unknown(
        parted(corpus(), "Train", "Train", "Train", "Train", "Dev", "Test"), "01", "06"
    )
    made = make_folds(source, "official")
    (fold,) = made.folds
    assert values(source, fold.test, "speaker") == {"05", "07"}
    assert None in values(source, fold.train, "speaker")
    assert fold.speakers_apart
    assert made.warnings == (
        "24 utterances of unknown speakers are left out of the test",
        "24 training utterances are of unknown speakers that may be test speakers",
    )
    (fold,) = (allowed := make_folds(source, "official", allow_speaker_overlap=True)).folds
    assert values(source, fold.test, "speaker") == {"05", "07", None}
    assert not fold.speakers_apart
    assert allowed.warnings[0].startswith("24 test utterances are of unknown speakers that may")
    # Without a validation part some of the known speakers choose the epoch.
    inner = unknown(parted(corpus(), *["Train"] * 5, "Test"), "01")
    parts = make_parts(inner.utterances, make_folds(inner, "official").folds[0], "full", 0)
    assert None in values(inner, parts.train, "speaker")
    assert None not in values(inner, parts.validation, "speaker")
    assert len(parts.train) + len(parts.validation) == 5 * 24
    with pytest.raises(SplitError, match=r"no test utterance has a known speaker.*--allow-speaker"):
        make_folds(unknown(inner, "05", "06", "07"), "official")


def test_folds_without_any_known_speaker_need_the_option() -> None:
    source = unknown(parted(corpus(), *["Train"] * 6, "Test"))
    with pytest.raises(SplitError, match=r"neither speakers nor sessions.*--allow-speaker-overlap"):
        make_folds(source, "official")
    made = make_folds(source, "official", allow_speaker_overlap=True)
    assert len(made.folds[0].test) == 48
    assert made.warnings[0].endswith("test speakers may also be in training")
    assert len(make_parts(source.utterances, made.folds[0], "full", 0).validation) == 29
    by_session = unknown(parted(corpus(sessions=True), *["Train"] * 6, "Test"))
    assert "sessions are used instead" in make_folds(by_session, "official").warnings[0]


@pytest.mark.parametrize("tie", ["speaker", "session", "dialogue"])
def test_predefined_folds_that_overlap_need_the_option_and_give_a_warning(tie: str) -> None:
    base = parted(corpus(), *["Train"] * 5, "Dev", "Test")
    whose = {"speaker": "00", "session": "s", "dialogue": "d"}[tie]
    source = changed(base, lambda u: {tie: whose} if u.name in ("00-anger-1", "07-anger-0") else {})
    with pytest.raises(
        SplitError, match=rf"{tie} {whose} in test and training.*--allow-speaker-overlap"
    ):
        make_folds(source, "official")
    made = make_folds(source, "official", allow_speaker_overlap=True)
    assert f"{tie} {whose} in test and training: scores are higher" in made.warnings[0]
    assert not made.folds[0].speakers_apart
    assert len(made.folds[0].test) == 48
    for protocol in ("paper", "full"):
        assert make_parts(source.utterances, made.folds[0], protocol, 0).test == made.folds[0].test
    # The option changes nothing where there is no overlap.
    assert make_folds(base, "official", True) == make_folds(base, "official")


def test_the_published_folds_of_emodb_overlap() -> None:
    """The real lists: all 10 speakers are in training and test of each of the five folds."""
    if not EMOBOX.is_dir():
        pytest.skip(f"no lists of EmoBox in {EMOBOX}")

    def rows(fold: int, part: str) -> list[dict[str, str]]:
        text = (EMOBOX / f"emodb/fold_{fold}/emodb_{part}_fold_{fold}.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]

    utterances = [
        Utterance(r["key"], Path(r["wav"]), r["emo"], r["key"].removeprefix("emodb-")[:2])
        for part in ("train", "test")
        for r in rows(1, part)
    ]
    lists = [[[r["key"] for r in rows(k, p)] for p in ("train", "test")] for k in range(1, 6)]
    source = corpus_of(
        sorted(utterances, key=lambda u: u.name),
        folds=tuple(PublishedFold(tuple(train), (), tuple(test)) for train, test in lists),
    )
    with pytest.raises(
        SplitError, match="speaker 03, 08, 09, 10, 11 and 5 more in test and training"
    ):
        make_folds(source, "emobox")
    made = make_folds(source, "emobox", allow_speaker_overlap=True)
    assert [len(fold.test) for fold in made.folds] == [107] * 5
    assert len(made.warnings) == 1
    assert "speaker 03, 08, 09, 10, 11 and 5 more" in made.warnings[0]

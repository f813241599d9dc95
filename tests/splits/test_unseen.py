"""Nobody is on both sides, everybody is tested once, whoever shares a recording stays together."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from toy_corpora import LABELS, changed, corpus, corpus_of, parted, unknown, values

from emodarts.corpora import load_corpus
from emodarts.corpora.utterance import Corpus
from emodarts.errors import SplitError
from emodarts.splits import make_folds, make_parts


@pytest.mark.parametrize("sessions", [False, True])
@pytest.mark.parametrize("split", ["speaker", "session", "groups:2", "groups:4", "groups:8"])
def test_every_utterance_is_tested_once_on_an_unseen_speaker(split: str, sessions: bool) -> None:
    """Partners of a session stay together, so there are four to divide and not eight."""
    source = corpus(sessions=sessions)
    expected = {"speaker": 8, "session": 4, "groups:2": 2, "groups:4": 4, "groups:8": 8}[split]
    refusals = {
        ("speaker", True): "00 and 01 share session session 0, .*; use split session or groups:K",
        ("session", False): "192 utterance.s. have no session",
        ("groups:8", True): "the corpus has 4 sessions; allowed: groups:2 to groups:4",
    }
    if (split, sessions) in refusals:
        with pytest.raises(SplitError, match=refusals[split, sessions]):
            make_folds(source, split)
        return
    made = make_folds(source, split)
    assert made.warnings == ()
    assert [fold.index for fold in made.folds] == list(range(expected))
    assert sorted(i for fold in made.folds for i in fold.test) == list(range(len(source)))
    for fold in made.folds:
        assert sorted((*fold.development, *fold.test)) == list(range(len(source)))
        assert fold.speakers_apart
        assert fold.members is made.folds[0].members  # thousands of folds fit in memory
        for tie in ("speaker", "session", "dialogue"):
            seen = values(source, fold.development, tie) - {None}
            assert seen.isdisjoint(values(source, fold.test, tie))


def test_what_is_tied_through_others_stays_together() -> None:
    """00 and 01 share a dialogue, 01 and 02 a session: 00, 01, 02 are one, though 00 and 02 share
    nothing."""
    source = changed(
        corpus(4),
        lambda u: {
            "dialogue": "d" if u.speaker in ("00", "01") and u.label == "anger" else None,
            "session": "s" if u.speaker in ("01", "02") and u.label == "sadness" else None,
        },
    )
    tested = [values(source, fold.test, "speaker") for fold in make_folds(source, "groups:2").folds]
    assert sorted(map(sorted, tested)) == [["00", "01", "02"], ["03"]]
    with pytest.raises(SplitError, match=r"01 and 02 share session s, .*use split groups:K"):
        make_folds(source, "speaker")
    with pytest.raises(SplitError, match="2 groups of speakers who share no session or dialogue"):
        make_folds(source, "groups:3")
    roaming = changed(
        corpus(sessions=True), lambda u: {"speaker": "00"} if u.speaker == "07" else {}
    )
    with pytest.raises(SplitError, match=r"session 0 and session 3 share speaker 00.*groups:K"):
        make_folds(roaming, "session")
    assert len(make_folds(roaming, "groups:3").folds) == 3


def worst_share(source: Corpus, attribute: str, split: str) -> float:
    """Largest difference between a fold's share of a value and that of the whole corpus."""
    whole = source.count(attribute)
    worst = 0.0
    for fold in make_folds(source, split).folds:
        counts = Counter(getattr(source.utterances[i], attribute) for i in fold.test)
        for value, n in whole.items():
            worst = max(worst, abs(counts[value] / len(fold.test) - n / len(source)))
    return worst


def test_groups_are_balanced_by_gender_and_class(emodb_root: Path) -> None:
    # 24 speakers, 12 of each gender, with 10 to 13 utterances of each class.
    many = corpus_of(
        [
            u
            for u in corpus(24, each=13).utterances
            if int(u.name.split("-")[2])
            < 10 + (7 * int(u.speaker or 0) + 3 * LABELS.index(u.label or "")) % 4
        ]
    )
    for split in ("groups:4", "groups:6"):
        assert worst_share(many, "gender", split) < 0.03
        assert worst_share(many, "label", split) < 0.03
        sizes = [len(fold.test) for fold in make_folds(many, split).folds]
        assert max(sizes) < 1.05 * min(sizes)
    # Half the speakers of each gender never speak two of the classes: gender alone cannot do it.
    halves = corpus_of(
        [
            u
            for u in corpus(16).utterances
            if (u.label in LABELS[:2]) == (int(u.speaker or 0) // 2 % 2 == 0)
        ]
    )
    assert worst_share(halves, "gender", "groups:4") == 0
    assert worst_share(halves, "label", "groups:4") == 0
    # Two speakers a fold: one female and one male, whose numbers of utterances differ.
    real = load_corpus("emodb", emodb_root).select(LABELS)
    assert worst_share(real, "gender", "groups:5") < 0.13
    assert worst_share(real, "label", "groups:5") < 0.10
    for fold in make_folds(real, "groups:5").folds:
        assert values(real, fold.test, "gender") == {"female", "male"}


@pytest.mark.parametrize("split", ["speaker", "session", "groups:3"])
def test_unknown_speakers_are_in_no_part_of_a_split_by_speakers(split: str) -> None:
    source = unknown(corpus(sessions=split == "session"), "02", "05")
    made = make_folds(source, split)
    assert made.warnings == (
        "48 utterances of unknown speakers are left out, as they may be of a test speaker",
    )
    for fold in made.folds:
        assert None not in values(source, (*fold.development, *fold.test), "speaker")
        assert make_parts(source.utterances, fold, "paper", 0).test == fold.test
    assert sum(len(fold.test) for fold in made.folds) == 144


@pytest.mark.parametrize("split", ["session", "groups:4"])
def test_sessions_are_used_if_no_speaker_is_known(split: str) -> None:
    nameless = unknown(corpus(sessions=True))
    made = make_folds(nameless, split)
    assert len(made.folds) == 4
    assert "names no speakers: its sessions are used instead" in made.warnings[0]
    parts = make_parts(nameless.utterances, made.folds[1], "full", 0)
    assert values(nameless, parts.validation, "session").isdisjoint(
        values(nameless, parts.train, "session")
    )


def test_a_split_by_speaker_does_not_use_sessions() -> None:
    with pytest.raises(SplitError, match=r"96 .*no speaker.*session, column, speaker-dependent"):
        make_folds(unknown(corpus(4, sessions=True)), "speaker")


@pytest.mark.parametrize("split", ["speaker", "groups:2"])
def test_neither_speakers_nor_sessions(split: str) -> None:
    with pytest.raises(SplitError, match="use split column, speaker-dependent"):
        make_folds(unknown(corpus()), split)


@pytest.mark.parametrize("split", ["speaker", "groups:3", "speaker-dependent:2"])
def test_pooling_of_official_parts_gives_a_warning(split: str) -> None:
    source = parted(corpus(), "Train", "Development", "Test1")
    assert "parts of its own (Train, Development, Test1)" in make_folds(source, split).warnings[-1]
    assert not any("of its own" in warning for warning in make_folds(corpus(), split).warnings)

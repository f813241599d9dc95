"""Parts share nothing that the protocol forbids, and depend on the seed alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from toy_corpora import LABELS, corpus, corpus_of, values

from emodarts.errors import SplitError
from emodarts.splits import Fold, Protocol, make_folds, make_parts, shared_speakers
from emodarts.splits.parts import Halves


@pytest.mark.parametrize("protocol", ["paper", "full"])
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("halves", ["speakers", "utterances"])
@pytest.mark.parametrize("split", ["groups:4", "session", "speaker-dependent"])
def test_parts_share_nothing_that_the_protocol_forbids(
    protocol: Protocol, seed: int, split: str, halves: Halves
) -> None:
    source = corpus(sessions=split == "session")
    for fold in make_folds(source, split).folds:
        parts = make_parts(source.utterances, fold, protocol, seed, halves)
        weights, alphas = set(parts.search_weights), set(parts.search_alphas)
        train, validation, test = set(parts.train), set(parts.validation), set(parts.test)
        assert weights.isdisjoint(alphas)
        assert train.isdisjoint(validation)
        assert test.isdisjoint(weights | alphas | train | validation)
        assert train | validation == set(fold.development)
        if protocol == "paper":
            assert validation == weights | alphas  # search and training are disjoint
            assert abs(len(validation) / len(fold.development) - 0.7) < 0.02
        else:
            assert weights | alphas == set(fold.development)
            if split != "speaker-dependent":
                for tie in ("speaker", "session", "dialogue"):
                    trained = values(source, parts.train, tie) - {None}
                    assert trained.isdisjoint(values(source, parts.validation, tie))
            else:  # validated as it is tested: on pairs that were seen
                assert abs(len(validation) / len(fold.development) - 0.2) < 0.02
                assert values(source, parts.train, "speaker") == set(source.count("speaker"))
        for part in (weights, alphas, train, validation):
            assert values(source, list(part), "label") == set(LABELS)
        apart = halves == "speakers" and split == "groups:4"  # 6 speakers, but 3 sessions
        assert shared_speakers(source.utterances, parts) != apart
        for label in LABELS:
            counts = [
                sum(source.utterances[i].label == label for i in part) for part in (weights, alphas)
            ]
            assert abs(counts[0] - counts[1]) <= (6 if apart else 1)


def test_without_a_search_nothing_is_halved() -> None:
    """A class with one utterance in a training fold then needs no second one."""
    whole = corpus()
    last = whole.utterances[-1]
    others = [u for u in whole.utterances if u.label != last.label]
    source = corpus_of([*others, last])
    test = tuple(i for i, u in enumerate(source.utterances) if u.speaker == "00")
    fold = Fold(0, tuple(range(len(source.utterances))), test)
    with pytest.raises(SplitError, match="too few utterances"):
        make_parts(source.utterances, fold, "full", 0, choose_epoch=False)
    parts = make_parts(source.utterances, fold, "full", 0, choose_epoch=False, searches=False)
    assert parts.search_weights == parts.search_alphas == parts.train == fold.development


def test_parts_depend_on_the_seed_and_on_nothing_else() -> None:
    source = corpus()
    fold = make_folds(source, "groups:4").folds[0]
    drawn_anew: dict[Protocol, tuple[str, str]] = {
        "full": ("search_weights", "validation"),
        "paper": ("search_weights", "train"),
    }
    for protocol, names in drawn_anew.items():
        drawn = [make_parts(source.utterances, fold, protocol, seed) for seed in range(6)]
        assert drawn[3] == make_parts(source.utterances, fold, protocol, 3)
        for name in names:
            assert len({getattr(parts, name) for parts in drawn}) > 1


def test_impossible_parts_are_refused() -> None:
    two = corpus(2)
    with pytest.raises(SplitError, match="to choose the epoch, but it has 1"):
        make_parts(two.utterances, make_folds(two, "speaker").folds[0], "full", 0)
    single = corpus_of([u for u in corpus(4) if u.label != "anger" or u.speaker in ("00", "01")])
    with pytest.raises(SplitError, match="no choice of inner validation speakers leaves every"):
        make_parts(single.utterances, make_folds(single, "speaker").folds[0], "full", 0)
    nine = corpus(3, each=1).utterances[:9]
    with pytest.raises(SplitError, match="too few"):
        make_parts(nine, Fold(0, tuple(range(9)), ()), "paper", 0)
    with pytest.raises(SplitError, match="too few utterances"):
        make_parts(nine[:5], Fold(0, (0, 1, 2, 3, 4), ()), "paper", 0)


def test_every_speaker_may_choose_the_epoch() -> None:
    source = corpus(n_speakers=11)
    big = replace(
        source,
        utterances=(
            *source.utterances,
            *(
                replace(u, name=f"{u.name}-{k}")
                for u in source
                for k in range(3)
                if u.speaker == "00"
            ),
        ),
    )
    fold = make_folds(big, "speaker").folds[10]
    chosen = [
        values(big, make_parts(big.utterances, fold, "full", seed).validation, "speaker")
        for seed in range(20)
    ]
    assert set().union(*chosen) == {f"{k:02d}" for k in range(10)}


@pytest.mark.parametrize("split", ["groups:4", "session", "speaker-dependent"])
def test_all_development_utterances_train_where_no_epoch_is_chosen(split: str) -> None:
    source = corpus(sessions=split == "session")
    for fold in make_folds(source, split).folds:
        parts = make_parts(source.utterances, fold, "full", 0, choose_epoch=False)
        assert parts.train == fold.development
        assert parts.validation == ()
        chosen = make_parts(source.utterances, fold, "full", 0)
        assert chosen.search_weights == parts.search_weights


def test_recorded_parts_without_validation_cannot_choose_an_epoch() -> None:
    source = corpus()
    fold = make_folds(source, "groups:4").folds[0]
    parts = make_parts(source.utterances, fold, "full", 0, choose_epoch=False)
    recorded = replace(fold, recorded={("full", 0): parts}, source="folds.json")
    assert make_parts(source.utterances, recorded, "full", 0, choose_epoch=False) == parts
    with pytest.raises(SplitError, match=r"folds.json, fold 0: validation is empty.*select: last"):
        make_parts(source.utterances, recorded, "full", 0)


@pytest.mark.parametrize(("n_speakers", "apart"), [(4, False), (5, True), (9, True)])
def test_halves_share_no_speaker_where_there_are_four(n_speakers: int, apart: bool) -> None:
    source = corpus(n_speakers)
    for fold in make_folds(source, "speaker").folds:
        for seed in range(3):
            parts = make_parts(source.utterances, fold, "full", seed)
            assert shared_speakers(source.utterances, parts) != apart


def test_halves_of_speakers_who_lack_a_class_are_of_utterances() -> None:
    source = corpus_of([u for u in corpus(6) if u.label != "anger" or u.speaker in ("00", "01")])
    fold = make_folds(source, "speaker").folds[0]
    parts = make_parts(source.utterances, fold, "paper", 0)
    assert shared_speakers(source.utterances, parts)
    assert values(source, parts.search_alphas, "label") == set(LABELS)

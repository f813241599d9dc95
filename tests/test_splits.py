"""Folds and parts: nobody is on both sides, everybody is tested once."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emodarts.corpora.utterance import Utterance
from emodarts.errors import SplitError
from emodarts.splits import Fold, check_disjoint, deployment_fold, make_folds, make_parts

LABELS = ("anger", "happiness", "neutral", "sadness")


def corpus(
    n_speakers: int = 8, each: int = 6, labels: tuple[str, ...] = LABELS, sessions: bool = False
) -> list[Utterance]:
    return [
        Utterance(
            name=f"{s:02d}-{label}-{k}",
            path=Path(f"{s}.wav"),
            label=label,
            speaker=f"{s:02d}",
            gender="female" if s % 2 else "male",
            session=f"session {s // 2}" if sessions else None,
            dialogue=f"dialogue {s // 2} {k}" if sessions else None,
        )
        for s in range(n_speakers)
        for label in labels
        for k in range(each)
    ]


@pytest.mark.parametrize("split", ["speaker", "session", "groups:2", "groups:4", "groups:8"])
def test_every_utterance_is_tested_once_by_networks_that_never_heard_its_speaker(
    split: str,
) -> None:
    utterances = corpus(sessions=split == "session")
    folds = make_folds(utterances, split)
    assert sorted(i for fold in folds for i in fold.test) == list(range(len(utterances)))
    for fold in folds:
        assert sorted((*fold.development, *fold.test)) == list(range(len(utterances)))
        heard = {utterances[i].speaker for i in fold.development}
        assert heard.isdisjoint({utterances[i].speaker for i in fold.test})
    expected = {"speaker": 8, "session": 4, "groups:2": 2, "groups:4": 4, "groups:8": 8}
    assert len(folds) == expected[split]


def test_groups_are_balanced_by_gender_and_class() -> None:
    utterances = corpus(10)
    for fold in make_folds(utterances, "groups:5"):
        tested = [utterances[i] for i in fold.test]
        assert {u.gender for u in tested} == {"female", "male"}
        assert len({u.speaker for u in tested}) == 2


@pytest.mark.parametrize("protocol", ["paper", "full"])
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("sessions", [False, True])
def test_parts_share_nothing_that_the_protocol_forbids(
    protocol: str, seed: int, sessions: bool
) -> None:
    utterances = corpus(sessions=sessions)
    split = "session" if sessions else "groups:4"
    for fold in make_folds(utterances, split):
        parts = make_parts(utterances, fold, protocol, seed)  # type: ignore[arg-type]
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
            unit = "session" if sessions else "speaker"
            trained = {getattr(utterances[i], unit) for i in train}
            assert trained.isdisjoint({getattr(utterances[i], unit) for i in validation})
        for part in (weights, alphas, train, validation):
            assert {utterances[i].label for i in part} == set(LABELS)
        for label in LABELS:
            halves = [sum(utterances[i].label == label for i in part) for part in (weights, alphas)]
            assert abs(halves[0] - halves[1]) <= 1


def test_parts_depend_on_the_seed_and_on_nothing_else() -> None:
    utterances = corpus()
    fold = make_folds(utterances, "groups:4")[0]
    assert make_parts(utterances, fold, "full", 3) == make_parts(utterances, fold, "full", 3)
    for protocol, drawn_anew in (
        ("full", ("search_weights", "validation")),
        ("paper", ("search_weights", "train")),
    ):
        drawn = [make_parts(utterances, fold, protocol, seed) for seed in range(6)]  # type: ignore[arg-type]
        for name in drawn_anew:
            assert len({getattr(parts, name) for parts in drawn}) > 1


@pytest.mark.parametrize("attribute", ["name", "speaker", "session", "dialogue"])
def test_an_overlap_raises_and_is_named(attribute: str) -> None:
    shared = {"name": "same", "speaker": "same", "session": "same", "dialogue": "same"}
    first, second = (
        Utterance(
            **{  # type: ignore[arg-type]
                **{key: f"{key} {k}" for key in shared},
                attribute: "same",
                "path": Path("x.wav"),
                "label": "anger",
            }
        )
        for k in range(2)
    )
    with pytest.raises(SplitError, match=rf"{attribute} same on both sides"):
        check_disjoint([first, second], (0,), (1,), "fold 0")


def test_a_session_split_notices_a_speaker_of_two_sessions() -> None:
    utterances = corpus(sessions=True)
    roaming = utterances[0]
    utterances[-1] = Utterance(
        "roamer", roaming.path, "sadness", roaming.speaker, session="session 3"
    )
    with pytest.raises(SplitError, match="speaker 00 on both sides"):
        make_folds(utterances, "session")


@pytest.mark.parametrize(
    ("utterances", "split", "message"),
    [
        (corpus(4), "groups:5", "groups:2 to groups:4"),
        (corpus(4), "groups:1", "between 2 and"),
        (corpus(1), "speaker", "at least 2 speakers"),
        (corpus(4), "session", "no session"),
        (corpus(4), "random", "legal: speaker, session, groups:K"),
        (
            [u for u in corpus(4) if u.label != "anger" or u.speaker == "00"],
            "speaker",
            "training part of fold 0 has no utterance of class anger",
        ),
    ],
)
def test_impossible_folds_are_refused(
    utterances: list[Utterance], split: str, message: str
) -> None:
    with pytest.raises(SplitError, match=message):
        make_folds(utterances, split)


def test_impossible_parts_are_refused() -> None:
    two = corpus(2)
    with pytest.raises(SplitError, match="to choose the epoch, but the fold has 1"):
        make_parts(two, make_folds(two, "speaker")[0], "full", 0)
    single = [u for u in corpus(4) if u.label != "anger" or u.speaker in ("00", "01")]
    with pytest.raises(SplitError, match="no choice of inner validation speakers leaves every"):
        make_parts(single, make_folds(single, "speaker")[0], "full", 0)
    nine = corpus(3, each=1)[:9]
    with pytest.raises(SplitError, match="too few"):
        make_parts(nine, Fold(0, tuple(range(9)), ()), "paper", 0)
    few = corpus(3, each=1)
    with pytest.raises(SplitError, match="too few utterances"):
        make_parts(few[:5], Fold(0, (0, 1, 2, 3, 4), ()), "paper", 0)


def test_a_deployment_fold_tests_on_nobody() -> None:
    utterances = corpus()
    fold = deployment_fold(utterances)
    assert fold.test == ()
    assert len(fold.development) == len(utterances)
    assert make_parts(utterances, fold, "full", 0).test == ()


@given(st.lists(st.tuples(st.integers(0, 6), st.sampled_from(LABELS)), min_size=1, max_size=60))
def test_any_corpus_gives_disjoint_folds_or_a_split_error(rows: list[tuple[int, str]]) -> None:
    utterances = [
        Utterance(f"{k}", Path(f"{k}.wav"), label, f"{speaker}")
        for k, (speaker, label) in enumerate(rows)
    ]
    for split in ("speaker", "groups:3"):
        try:
            folds = make_folds(utterances, split)
            for fold in folds:
                make_parts(utterances, fold, "full", 0)
        except SplitError:
            continue
        assert sorted(i for fold in folds for i in fold.test) == list(range(len(utterances)))

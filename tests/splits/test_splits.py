"""Any corpus gives disjoint folds or an error that says why, and a recipe takes every split."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_corpora import LABELS, corpus, corpus_of, parted, unknown, values

from emodarts.corpora.utterance import Corpus, PublishedFold, Utterance
from emodarts.errors import RecipeError, SplitError
from emodarts.recipe import Recipe
from emodarts.splits import Parts, Protocol, deployment_fold, make_folds, make_parts


@pytest.mark.parametrize(
    ("source", "split", "message"),
    [
        (corpus(4), "groups:5", "the corpus has 4 speakers; allowed: groups:2 to groups:4"),
        (corpus(1), "speaker", "at least 2 speakers; the corpus has 1"),
        (corpus(1), "groups:2", "at least 2 speakers; the corpus has 1"),
        (corpus(4), "session", "no session"),
        (corpus(4), "random", "allowed: speaker, session, groups:K"),
        (corpus(4), "official", "needs a part named Train; .*: none"),
        (parted(corpus(4), "Train"), "official", "no part named Test or Test1; .*: Train"),
        (parted(corpus(4), "Dev", "Test"), "column", "needs a part named Train"),
        (parted(corpus(4), "a"), "column", "a fold for each utterance; values in the corpus: a"),
        (corpus(4), "emobox", "no published folds"),
        (corpus(1, each=2), "speaker-dependent:3", "no class has 3 utterances"),
        (
            corpus_of([u for u in corpus(4) if u.label != "anger" or u.speaker == "00"]),
            "speaker",
            "training part of fold 0 has no utterance of class anger",
        ),
    ],
)
def test_impossible_folds_are_refused(source: Corpus, split: str, message: str) -> None:
    with pytest.raises(SplitError, match=message):
        make_folds(source, split)


def test_a_deployment_fold_has_no_test_part() -> None:
    for utterances in (corpus().utterances, unknown(corpus()).utterances):
        fold = deployment_fold(utterances)
        assert fold.test == ()
        assert len(fold.development) == len(utterances)
        parts = make_parts(utterances, fold, "full", 0)
        assert parts.test == ()
        assert len(parts.train) + len(parts.validation) == len(utterances)


SPLITS = ("speaker", "groups:3", "session", "official", "column", "emobox", "speaker-dependent:3")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(LABELS[:3]),
            st.sampled_from([None, "a", "b", "c", "d", "e"]),
            st.sampled_from([None, "s", "t", "u"]),
            st.sampled_from([None, "Train", "dev", "Test", "Test1"]),
        ),
        min_size=1,
        max_size=60,
    ),
    st.sampled_from(SPLITS),
    st.booleans(),
    st.sampled_from(["paper", "full"]),
)
def test_any_corpus_gives_disjoint_folds_or_a_split_error(
    rows: list[tuple[str, str | None, str | None, str | None]],
    split: str,
    allow: bool,
    protocol: Protocol,
) -> None:
    source = corpus_of(
        [
            Utterance(f"{k:02d}", Path("x"), label, speaker, session=session, split=part)
            for k, (label, speaker, session, part) in enumerate(rows)
        ]
    )
    source = replace(
        source,
        folds=(
            PublishedFold(
                *(tuple(u.name for u in source if u.split == p) for p in ("Train", "dev", "Test"))
            ),
        ),
    )
    try:
        made = make_folds(source, split, allow)
    except SplitError:
        return
    independent = split in ("speaker", "groups:3", "session")
    tested = [i for fold in made.folds for i in fold.test]
    assert len(set(tested)) == len(tested)
    if split == "speaker-dependent:3":
        assert len(tested) == len(rows)
    if independent and all(u.speaker for u in source):
        assert len(tested) == len(rows)
    for fold in made.folds:
        sides = (fold.development, fold.test)
        assert set(sides[0]).isdisjoint(sides[1])
        overlap = any(
            (values(source, sides[0], tie) & values(source, sides[1], tie)) - {None}
            for tie in ("speaker", "session")
        )
        unknown_all = all(u.speaker is None for u in source)
        blind = None in values(source, fold.test, "session" if unknown_all else "speaker")
        if split != "speaker-dependent:3":
            assert fold.speakers_apart == (not overlap and not blind)
        if independent or (not allow and split != "speaker-dependent:3"):
            assert not overlap
            assert not blind
        elif overlap or blind:
            assert made.warnings
        try:
            parts = make_parts(source.utterances, fold, protocol, 0)
        except SplitError:
            continue
        assert isinstance(parts, Parts)
        assert parts.test == fold.test


@pytest.mark.parametrize(
    "split",
    [
        *("speaker", "session", "groups:2", "groups:10", "official", "official:Test1", "column"),
        *("emobox", "speaker-dependent", "speaker-dependent:2", "runs/a b/folds.json"),
    ],
)
def test_a_recipe_takes_every_split_and_the_option_only_where_it_matters(split: str) -> None:
    assert Recipe.from_dict({"evaluation": {"split": split}}).evaluation.split == split
    value = {"evaluation": {"split": split, "allow_speaker_overlap": True}}
    if split.startswith(("official", "column", "emobox", "runs")):
        assert Recipe.from_dict(value).evaluation.allow_speaker_overlap
    else:
        with pytest.raises(RecipeError, match="allow_speaker_overlap does nothing with split"):
            Recipe.from_dict(value)


@pytest.mark.parametrize(
    "split",
    ["official:", "emobox:1", "speaker-dependent:1", "speaker-dependent:", ".json", "a.JSON"],
)
def test_a_recipe_refuses_other_splits(split: str) -> None:
    with pytest.raises(RecipeError, match=": speaker, session, groups:K, official"):
        Recipe.from_dict({"evaluation": {"split": split}})
    with pytest.raises(SplitError, match=": speaker, session, groups:K, official"):
        make_folds(corpus(2), split)

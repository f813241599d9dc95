"""A corpus has unique names, and classes in an order that nothing changes."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from emodarts.corpora.utterance import Corpus, Utterance
from emodarts.errors import CorpusError


def said(name: str, label: str, folder: str = ".") -> Utterance:
    return Utterance(name, Path(folder) / f"{name}.wav", label, "s1")


THREE = (said("a", "sad"), said("b", "calm"), said("c", "sad"))


def test_holds_what_it_is_given() -> None:
    corpus = Corpus("toy", THREE, ("calm", "sad"))
    assert len(corpus) == 3
    assert tuple(corpus) == THREE
    with pytest.raises(FrozenInstanceError):
        corpus.name = "other"  # type: ignore[misc]


def test_nothing_is_no_corpus() -> None:
    with pytest.raises(CorpusError, match="no utterances"):
        Corpus("toy", (), ("sad",))


def test_same_name_twice_names_both_files() -> None:
    with pytest.raises(CorpusError, match=r"'a' in x/a\.wav and y/a\.wav"):
        Corpus("toy", (said("a", "sad", "x"), said("a", "sad", "y")), ("sad",))


def test_label_outside_the_classes() -> None:
    with pytest.raises(CorpusError, match=r"label\(s\) sad are not among the classes calm"):
        Corpus("toy", THREE, ("calm",))


def test_select_fixes_the_order_and_tells_what_it_left() -> None:
    corpus = Corpus("toy", (*THREE, said("d", "glad")), ("calm", "glad", "sad"), "a toy")
    chosen = corpus.select(("sad", "calm"))
    assert chosen.classes == ("sad", "calm")
    assert [u.name for u in chosen] == ["a", "b", "c"]
    assert chosen.notice == "a toy"
    assert chosen.skipped == (("d", "label glad not asked for"),)


def test_select_what_is_not_there() -> None:
    with pytest.raises(CorpusError, match="no utterance labelled"):
        Corpus("toy", THREE, ("calm", "glad", "sad")).select(("glad", "sad"))

"""A corpus has unique names, and classes in an order that nothing changes."""

from __future__ import annotations

import shlex
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest

from emodarts.corpora.utterance import Corpus, PublishedFold, Utterance
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


def test_select_fixes_the_order_and_lists_what_it_skips() -> None:
    corpus = Corpus("toy", (*THREE, said("d", "glad")), ("calm", "glad", "sad"), "a toy")
    chosen = corpus.select(("sad", "calm"))
    assert chosen.classes == ("sad", "calm")
    assert [u.name for u in chosen] == ["a", "b", "c"]
    assert chosen.notice == "a toy"
    assert chosen.skipped == (("d", "label glad is not selected"),)


def emotional() -> Corpus:
    """A corpus with labels of its own, two styles, and a turn without consensus."""
    found = [("a", "hap", "said"), ("b", "exc", "sung"), ("c", "neu", "said"), ("d", "ang", "sung")]
    utterances = [replace(said(n, label), style=style) for n, label, style in found]
    return Corpus(
        "toy",
        (*utterances, replace(said("e", "neu"), label=None)),
        ("ang", "exc", "hap", "neu"),
        emotions={"ang": "anger", "exc": "excitement", "hap": "happiness", "neu": "neutral"},
        folds=(PublishedFold(("a", "b"), (), ("c", "d", "e")),),
    )


def labels_of(corpus: Corpus) -> dict[str, str | None]:
    return {u.name: u.label for u in corpus}


def test_select_knows_own_and_common_names_and_merges() -> None:
    corpus = emotional()
    assert corpus.select(("neutral", "ang")).classes == ("neutral", "ang")
    merged = corpus.select(("happy=hap, exc", "calm=neutral"))
    assert merged.classes == ("happy", "calm")
    assert labels_of(merged) == {"a": "happy", "b": "happy", "c": "calm"}
    assert dict(merged.skipped) == {"d": "label ang is not selected", "e": "no label"}
    assert merged.folds == (PublishedFold(("a", "b"), (), ("c",)),)


def test_select_keeps_every_label_by_default_and_no_utterance_without() -> None:
    assert labels_of(emotional().select()) == {"a": "hap", "b": "exc", "c": "neu", "d": "ang"}


def test_a_merged_class_has_the_common_name_that_all_its_labels_share() -> None:
    mixed = emotional().select(("up=hap,exc", "calm=neu"))
    assert mixed.emotions == {"calm": "neutral"}
    with pytest.raises(CorpusError, match="no utterance labelled 'happiness'"):
        mixed.select(("happiness", "calm"))
    assert emotional().select(("joy=hap", "calm=neu")).emotions["joy"] == "happiness"


def test_select_keeps_styles() -> None:
    said_only = emotional().select(("hap", "neu"), ("said",))
    assert labels_of(said_only) == {"a": "hap", "c": "neu"}
    assert dict(said_only.skipped)["b"] == "style sung is not selected"


@pytest.mark.parametrize(
    ("labels", "styles", "message"),
    [
        (("glad", "neu"), None, "no utterance labelled 'glad'; its labels are ang, exc, hap"),
        (("happines", "neu"), None, r"did you mean 'happiness'\?"),
        (("x=hap,exc", "y=happiness"), None, "hap of corpus 'toy' is given twice"),
        (("ang", "neu"), ("said",), "no utterance labelled ang; the selected utterances have neu"),
        (("ang", "neu"), ("shouted",), "no utterance of style shouted; allowed: said, sung"),
    ],
)
def test_select_what_is_not_there(
    labels: tuple[str, ...], styles: tuple[str, ...] | None, message: str
) -> None:
    with pytest.raises(CorpusError, match=message):
        emotional().select(labels, styles)


def test_an_utterance_without_a_label_cannot_be_scored() -> None:
    with pytest.raises(CorpusError, match="'e' has no label"):
        next(u for u in emotional() if u.name == "e").known_label()


def test_a_corpus_prints_as_a_short_line() -> None:
    many = tuple(said(f"{k}", "sad") for k in range(5000))
    text = str(Corpus("toy", many, ("sad",)))
    assert text == repr(Corpus("toy", many, ("sad",)))
    assert "toy: 5000 utterances" in text
    assert "sad 5000" in text
    assert len(text) < 100


def spelt(*labels: str) -> Corpus:
    return Corpus("toy", tuple(said(str(k), label) for k, label in enumerate(labels)), labels)


@pytest.mark.parametrize(
    "labels",
    [
        ("Happy", "happy", "sad"),
        ("very happy", "very  happy", "sad"),
        ("very happy", "Very_Happy", "sad"),
        ("fröhlich", "fro\u0308hlich", "sad"),
    ],
)
def test_labels_that_differ_in_case_or_spaces_only(labels: tuple[str, ...]) -> None:
    corpus = spelt(*labels)
    (warning,) = corpus.spelling_warnings()
    assert repr(labels[0]) in warning
    assert repr(labels[1]) in warning
    words = shlex.split(warning.partition("to merge them: ")[2])
    assert words[::2] == ["--labels", "--labels"]
    merged = corpus.select(words[1::2])
    assert merged.classes == (labels[0], "sad")
    assert merged.count("label") == {labels[0]: 2, "sad": 1}
    assert corpus.spelling_warnings(words[1::2]) == ()


def test_only_what_is_not_one_class_is_warned_of() -> None:
    assert spelt("happy", "sad").spelling_warnings() == ()
    corpus = spelt("Happy", "angry", "happy", "sad")
    assert corpus.spelling_warnings(("angry", "sad")) == ()
    (warning,) = corpus.spelling_warnings(("up=happy,angry", "sad"))
    assert warning.endswith("--labels up=Happy,happy,angry --labels sad")
    (warning,) = spelt("a,b", "A,b").spelling_warnings()
    assert "rename them" in warning

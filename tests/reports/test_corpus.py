"""A corpus summarised: counts, sums and bars are those of its utterances."""

from dataclasses import replace
from pathlib import Path

import pytest

from emodarts.audio.survey import Checked, Header
from emodarts.corpora.utterance import Corpus, Utterance
from emodarts.reports.corpus import corpus_page, describe_corpus
from emodarts.reports.markdown import to_markdown

A = Path("a.wav")
UTTERANCES = (
    Utterance("a", A, "hap", "ann", gender="female", session="1", style="said", split="Train"),
    Utterance("b", A, "hap", "bob", 1.0, 3.5, gender="male", session="1", split="Test"),
    Utterance("c", A, "neu", None, 2.0),
    Utterance("d", A, None, "ann"),
)
HEADERS = [Header(4.0, 8000), Header(4.0, 8000), Header(6.0, 16000), None]
CORPUS = Corpus(
    "toy",
    UTTERANCES,
    ("hap", "neu"),
    "a toy",
    (*((f"x{k}", "debris") for k in range(7)), ("y", "no label file")),
    {"hap": "happiness", "neu": "neutral", "sad": "sadness"},
)


def page_of(corpus: Corpus, headers: list[Header | None]) -> str:
    return to_markdown(corpus_page(corpus, headers, describe_corpus(corpus, headers)))


def test_facts() -> None:
    facts = describe_corpus(CORPUS, HEADERS)
    assert facts["classes"] == {"hap": 2, "neu": 1}
    assert facts["speakers"] == {"ann": 2, "bob": 1}
    assert facts["genders"] == {"female": 1, "male": 1}
    assert (facts["sessions"], facts["styles"]) == ({"1": 2}, {"said": 1})
    assert facts["splits"] == {"Test": 1, "Train": 1}
    assert (facts["utterances"], facts["unlabelled"], facts["unknown_speaker"]) == (4, 1, 1)
    assert facts["duration_s"] == 4.0 + 2.5 + 4.0
    assert facts["durations"]["shortest"] == 2.5
    assert facts["durations"]["median"] == facts["durations"]["longest"] == 4.0
    assert sum(facts["durations"]["histogram"]["counts"]) == 3
    assert facts["sample_rates"] == {"8000": 2, "16000": 1}
    assert facts["without_header"] == 1
    assert facts["emotions"] == {"hap": "happiness", "neu": "neutral"}
    assert facts["skipped"][-1] == {"name": "y", "reason": "no label file"}


def test_page_shows_counts_durations_and_what_was_skipped() -> None:
    page = page_of(CORPUS, HEADERS)
    assert page.startswith(
        "toy: 4 utterances, 0:00:10 of audio, 1 without a label, 1 without a speaker"
    )
    lines = [" ".join(line.split()) for line in page.splitlines()]
    assert "| hap (happiness) | 2 | 50.0% | 0:00:06 | 3.25 |" in lines
    assert "| ann | 2 | 50.0% | 0:00:04 | 4.00 | 1 | 0 |" in lines
    assert "sample rates: 8,000 Hz (2), 16,000 Hz (1)" in lines
    assert "| debris | 7 | x0 |" in lines
    assert "files with an unreadable header: 1;" in page
    bars = [line for line in page.splitlines() if "█" in line]
    assert len(bars) == 2
    assert bars[1].count("█") == 2 * bars[0].count("█")
    assert page.endswith("a toy")


@pytest.mark.parametrize("headers", [[None] * 4, [Header(2.0, 8000)] * 4])
def test_a_corpus_without_headers_or_with_equal_durations(headers: list[Header | None]) -> None:
    page = page_of(CORPUS, headers)
    assert ("durations" in page) == (headers[0] is not None)


def test_many_speakers_and_reasons_stay_readable() -> None:
    many = tuple(Utterance(f"{k:03}", A, "hap", f"s{k:03}") for k in range(500))
    skipped = tuple((f"n{k}", f"reason {k}") for k in range(100))
    corpus = Corpus("toy", many, ("hap",), "", skipped)
    page = page_of(corpus, [None] * 500)
    assert len(page.splitlines()) < 100
    assert "and 470 more speakers" in page
    assert "and 70 more reasons" in page
    assert len(describe_corpus(corpus, [None] * 500)["speakers"]) == 500


@pytest.mark.parametrize("spread", [0.0, 1e-16, 1e-9, 0.05, 0.4])
@pytest.mark.parametrize("shortest", [0.0, 0.1, 0.3, 2.95, 3600.0])
def test_a_histogram_of_nearly_equal_durations_counts_all(shortest: float, spread: float) -> None:
    lengths = (shortest, shortest + spread / 2, shortest + spread)
    many = tuple(Utterance(str(k), A, "hap", "s") for k in range(3))
    corpus = Corpus("toy", many, ("hap",))
    headers: list[Header | None] = [Header(length, 8000) for length in lengths]
    histogram = describe_corpus(corpus, headers)["durations"]["histogram"]
    assert sum(histogram["counts"]) == 3
    edges = [f"{edge:.1f}" for edge in histogram["edges"]]
    assert len(set(edges)) == len(edges)
    page_of(corpus, headers)


def test_rows_whose_difference_is_rounded() -> None:
    rows = tuple(Utterance(f"{s}", A, "hap", "s", s, e) for s, e in ((0.1, 0.4), (0.2, 0.5)))
    page_of(Corpus("toy", rows, ("hap",)), [Header(1.0, 8000)] * 2)


def test_speakers_by_classes() -> None:
    facts = describe_corpus(CORPUS, HEADERS)
    assert facts["speakers_by_class"] == {"ann": {"hap": 1, "neu": 0}, "bob": {"hap": 1, "neu": 0}}
    assert facts["warnings"] == ["2 of 2 speakers speak one class only: ann, bob"]
    balanced = tuple(Utterance(f"{k}{c}", A, c, str(k)) for k in range(3) for c in ("hap", "neu"))
    corpus = Corpus("toy", balanced, ("hap", "neu"))
    assert describe_corpus(corpus, [None] * 6)["warnings"] == []
    lines = [" ".join(line.split()) for line in page_of(corpus, [None] * 6).splitlines()]
    assert "| 0 | 2 | 33.3% | 0:00:00 | – | 1 | 1 |" in lines


def test_names_with_line_breaks_stay_in_their_row() -> None:
    odd = (
        Utterance("a\nb", Path("a"), "hap\n|y", "an\nn"),
        Utterance("c", Path("a"), "hap\n|y", "bob"),
    )
    corpus = Corpus("toy", odd, ("hap\n|y",), "", (("x\ny", "no\nreason"),))
    checked = Checked((), ("same", "same"))
    headers: list[Header | None] = [Header(1.0, 8000)] * 2
    page = to_markdown(corpus_page(corpus, headers, describe_corpus(corpus, headers, checked)))
    for row in ("| a b = c | an n, bob | hap \\|y |", "| no reason | 1 | x y |"):
        assert row in [" ".join(line.split()) for line in page.splitlines()]


def test_what_decoding_has_shown_is_told() -> None:
    clean = describe_corpus(CORPUS, HEADERS, Checked((), ("1", "2", "3", "4")))
    assert (clean["bad"], clean["same_sound"]) == ([], [])
    page = to_markdown(corpus_page(CORPUS, HEADERS, clean))
    assert "all 4 utterances have usable audio, and no two have the same sound" in page
    same = describe_corpus(CORPUS, HEADERS, Checked((("d", "silent"),), ("1", "1", "2", None)))
    assert same["bad"] == [{"name": "d", "reason": "silent"}]
    assert same["same_sound"] == [["a", "b"]]
    page = to_markdown(corpus_page(CORPUS, HEADERS, same))
    assert "usable audio" not in page
    assert "| a = b | ann, bob | hap |" in [" ".join(line.split()) for line in page.splitlines()]
    assert "bad" not in describe_corpus(CORPUS, HEADERS)


def test_columns_under_other_names_and_headers_that_state_too_little_are_said() -> None:
    corpus = replace(
        CORPUS, columns={"wav": "file", "spk": "speaker", "emotion": "emotion", "x": ""}
    )
    headers = [*HEADERS[:3], Header(4.0, 8000, "the header states 4.0 s")]
    page = page_of(corpus, headers)
    assert "columns read: wav as file, spk as speaker, emotion; columns not read: 'x'" in page
    assert "1 file has a header that states too little, e.g. a.wav: the header states 4.0" in page
    assert "columns" not in page_of(CORPUS, HEADERS)


@pytest.mark.parametrize(("scale", "hint"), [(1000, True), (10, False)])
def test_segments_beyond_their_file_are_warned_of(scale: int, hint: bool) -> None:
    rows = tuple(Utterance(f"{k}", A, "hap", "s", k * scale, (k + 1) * scale) for k in range(3))
    corpus = Corpus("toy", rows, ("hap",))
    facts = describe_corpus(corpus, [Header(3.0, 8000)] * 3)
    assert facts["beyond_file"] == ["0", "1", "2"]
    (warning,) = facts["warnings"]
    assert f"0: 0 s to {scale} s of 3 s" in warning
    assert ("milliseconds" in warning) == hint
    assert facts["durations"]["longest"] == 3.0

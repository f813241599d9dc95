"""A corpus at a glance: counts, durations, sample rates, and what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from emodarts.audio.survey import Header, duration_of
from emodarts.corpora.utterance import Corpus
from emodarts.reports.tables import markdown_table

_GROUPS = {
    "classes": "label",
    "speakers": "speaker",
    "genders": "gender",
    "sessions": "session",
    "styles": "style",
    "splits": "split",
}
_BARS = 40
_BINS = 12
_MOST_ROWS = 30


def describe_corpus(corpus: Corpus, headers: Sequence[Header | None]) -> dict[str, Any]:
    """Everything that is known of a corpus without decoding sound.

    Parameters
    ----------
    headers : of each utterance's file; None where it cannot be read.

    Returns
    -------
    JSON values: ``corpus utterances unlabelled classes speakers genders sessions styles splits``
    (each of the last six from name to number of utterances), ``unknown_speaker``, ``emotions``
    (common names of the classes), ``duration_s`` in all and
    ``durations`` (s; None without a header), ``sample_rates`` (Hz to number), ``without_header``,
    ``skipped`` and ``notice``.
    """
    seconds = [
        duration_of(u, header)
        for u, header in zip(corpus.utterances, headers, strict=True)
        if header is not None
    ]
    counts, edges = np.histogram(seconds, bins=_BINS)
    rates = Counter(header.sample_rate for header in headers if header is not None)
    return {
        "corpus": corpus.name,
        "utterances": len(corpus),
        "unlabelled": sum(u.label is None for u in corpus),
        "unknown_speaker": sum(u.speaker is None for u in corpus),
        **{
            group: corpus.count(attribute, corpus.classes if attribute == "label" else None)
            for group, attribute in _GROUPS.items()
        },
        "emotions": {own: corpus.emotions[own] for own in corpus.classes if own in corpus.emotions},
        "duration_s": round(sum(seconds), 3),
        "durations": {
            "shortest": min(seconds, default=None),
            "median": median(seconds) if seconds else None,
            "longest": max(seconds, default=None),
            "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
        },
        "sample_rates": {str(rate): n for rate, n in sorted(rates.items())},
        "without_header": sum(header is None for header in headers),
        "skipped": [{"name": name, "reason": reason} for name, reason in corpus.skipped],
        "notice": corpus.notice,
    }


def corpus_page(corpus: Corpus, headers: Sequence[Header | None]) -> str:
    """What :func:`describe_corpus` tells, as tables and a histogram to read in a terminal."""
    facts = describe_corpus(corpus, headers)
    told = [f"{facts['utterances']:,} utterances"]
    if facts["duration_s"]:
        told.append(f"{_clock(facts['duration_s'])} of sound")
    for key, words in (
        ("unlabelled", "without a label"),
        ("unknown_speaker", "of no known speaker"),
    ):
        if facts[key]:
            told.append(f"{facts[key]:,} {words}")
    parts = [f"{corpus.name}: " + ", ".join(told)]
    seconds = [
        None if header is None else duration_of(u, header)
        for u, header in zip(corpus.utterances, headers, strict=True)
    ]
    for group, attribute in _GROUPS.items():
        if facts[group]:
            parts.append(_group_table(corpus, group, attribute, facts[group], seconds))
    parts += _sound_lines(facts)
    if corpus.skipped:
        parts.append(_skipped_table(corpus.skipped))
    if corpus.notice:
        parts.append(corpus.notice)
    return "\n\n".join(parts)


def _group_table(
    corpus: Corpus,
    group: str,
    attribute: str,
    counts: Mapping[str, int],
    seconds: Sequence[float | None],
) -> str:
    lengths: dict[str, list[float]] = {name: [] for name in counts}
    for utterance, length in zip(corpus.utterances, seconds, strict=True):
        name = getattr(utterance, attribute)
        if name is not None and length is not None:
            lengths[name].append(length)
    rows = []
    for name, n in list(counts.items())[:_MOST_ROWS]:
        common = corpus.emotions.get(name, name) if attribute == "label" else name
        shown = name if common == name else f"{name} ({common})"
        total = sum(lengths[name])
        mean = f"{total / len(lengths[name]):.2f}" if lengths[name] else "–"
        rows.append([shown, f"{n:,}", f"{n / len(corpus):.1%}", _clock(total), mean])
    table = markdown_table([group, "utterances", "share", "sound", "mean s"], rows)
    more = len(counts) - _MOST_ROWS
    return table if more <= 0 else f"{table}\n\n… and {more:,} more {group} (--json has them all)"


def _sound_lines(facts: Mapping[str, Any]) -> list[str]:
    lines = []
    spread = facts["durations"]
    if facts["duration_s"]:
        lines.append(
            f"durations: {spread['shortest']:.2f} s to {spread['longest']:.2f} s, "
            f"median {spread['median']:.2f} s"
        )
        lines.append(_bars(**spread["histogram"]))
        rates = [f"{int(rate):,} Hz ({n:,})" for rate, n in facts["sample_rates"].items()]
        lines.append("sample rates: " + ", ".join(rates))
    if facts["without_header"]:
        lines.append(
            f"files without a header that can be read: {facts['without_header']:,}; "
            "--check tells what is wrong with them"
        )
    return lines


def _bars(edges: Sequence[float], counts: Sequence[int]) -> str:
    """Histogram in text, one line a bin."""
    most = max(counts)
    width = max(len(f"{edge:.1f}") for edge in edges)
    return "\n".join(
        f"{low:{width}.1f} to {high:{width}.1f} s  {'█' * round(_BARS * n / most)} {n:,}"
        for low, high, n in zip(edges, edges[1:], counts, strict=False)
    )


def _skipped_table(skipped: Sequence[tuple[str, str]]) -> str:
    examples = {reason: name for name, reason in reversed(skipped)}
    counts = Counter(reason for _, reason in skipped)
    rows = [[reason, f"{n:,}", examples[reason]] for reason, n in counts.most_common(_MOST_ROWS)]
    more = len(counts) - len(rows)
    table = markdown_table(["skipped because", "files or utterances", "e.g."], rows)
    return table if not more else f"{table}\n\n… and {more:,} more reasons (--json has them all)"


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"

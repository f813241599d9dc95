"""A summary of a corpus: counts, durations, sample rates, and what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from emodarts.audio.survey import Header, duration_of
from emodarts.corpora.utterance import Corpus
from emodarts.reports.document import Block, Section, Table, numbers, words
from emodarts.reports.tables import NOTHING

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
    """Collect what is known of a corpus without decoding audio.

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


def corpus_page(corpus: Corpus, headers: Sequence[Header | None]) -> Section:
    """Show what :func:`describe_corpus` returns as tables."""
    facts = describe_corpus(corpus, headers)
    counts = [f"{facts['utterances']:,} utterances"]
    if facts["duration_s"]:
        counts.append(f"{_clock(facts['duration_s'])} of audio")
    for key, missing in (("unlabelled", "label"), ("unknown_speaker", "speaker")):
        if facts[key]:
            counts.append(f"{facts[key]:,} without a {missing}")
    seconds = [
        None if header is None else duration_of(u, header)
        for u, header in zip(corpus.utterances, headers, strict=True)
    ]
    groups = [
        _group_table(corpus, group, attribute, facts[group], seconds)
        for group, attribute in _GROUPS.items()
        if facts[group]
    ]
    blocks = (f"{corpus.name}: {', '.join(counts)}", *groups, *_audio_blocks(facts))
    skipped = (_skipped_table(corpus.skipped),) if corpus.skipped else ()
    notice = (corpus.notice,) if corpus.notice else ()
    return Section("", (*blocks, *skipped, *notice))


def _group_table(
    corpus: Corpus,
    group: str,
    attribute: str,
    counts: Mapping[str, int],
    seconds: Sequence[float | None],
) -> Table:
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
        mean = f"{total / len(lengths[name]):.2f}" if lengths[name] else NOTHING
        rows.append((shown, f"{n:,}", f"{n / len(corpus):.1%}", _clock(total), mean))
    columns = (*words(group), *numbers("utterances", "share", "duration", "mean, s"))
    return Table(columns, tuple(rows), _not_shown(len(counts), group))


def _audio_blocks(facts: Mapping[str, Any]) -> list[Block]:
    blocks: list[Block] = []
    spread = facts["durations"]
    if facts["duration_s"]:
        blocks.append(
            f"durations: {spread['shortest']:.2f} s to {spread['longest']:.2f} s, "
            f"median {spread['median']:.2f} s"
        )
        blocks.append(_histogram(**spread["histogram"]))
        rates = [f"{int(rate):,} Hz ({n:,})" for rate, n in facts["sample_rates"].items()]
        blocks.append("sample rates: " + ", ".join(rates))
    if facts["without_header"]:
        blocks.append(
            f"files with an unreadable header: {facts['without_header']:,}; --check shows what is "
            "wrong with them"
        )
    return blocks


def _histogram(edges: Sequence[float], counts: Sequence[int]) -> Table:
    most = max(counts)
    rows = tuple(
        (f"{low:.1f} to {high:.1f} s", f"{n:,}", "█" * round(_BARS * n / most))
        for low, high, n in zip(edges, edges[1:], counts, strict=False)
    )
    return Table((*numbers("duration", "utterances"), *words("")), rows)


def _skipped_table(skipped: Sequence[tuple[str, str]]) -> Table:
    examples = {reason: name for name, reason in reversed(skipped)}
    counts = Counter(reason for _, reason in skipped)
    rows = tuple((reason, f"{n:,}", examples[reason]) for reason, n in counts.most_common())
    columns = (*words("reason for skipping"), *numbers("files or utterances"), *words("example"))
    return Table(columns, rows[:_MOST_ROWS], _not_shown(len(rows), "reasons"))


def _not_shown(n: int, what: str) -> tuple[str, ...]:
    more = n - _MOST_ROWS
    return (f"… and {more:,} more {what}; --json lists all",) if more > 0 else ()


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"

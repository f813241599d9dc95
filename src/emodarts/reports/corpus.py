"""A summary of a corpus: counts, durations, sample rates, and what was left out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emodarts.audio.duplicates import group_same
from emodarts.audio.survey import (
    Checked,
    Header,
    beyond_file,
    duration_of,
    in_milliseconds,
    same_stretches,
)
from emodarts.corpora.utterance import Corpus
from emodarts.errors import list_some
from emodarts.reports.document import Block, Remark, Section, Table, numbers, words
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
_MOST_CLASSES = 12
_MOST_SAME = 4


def describe_corpus(
    corpus: Corpus,
    headers: Sequence[Header | None],
    checked: Checked | None = None,
    warnings: Sequence[str] = (),
) -> dict[str, Any]:
    """Collect what is known of a corpus.

    Parameters
    ----------
    headers : of each utterance's file; None where it cannot be read.
    checked : what decoding has shown, if all audio was decoded.
    warnings : found before, to show with the rest.

    Returns
    -------
    JSON values: ``corpus utterances unlabelled classes speakers genders sessions styles splits``
    (each of the last six from name to number of utterances), ``unknown_speaker``,
    ``speakers_by_class`` (numbers of utterances, by speaker and class), ``emotions``
    (common names of the classes), ``columns`` (of a table, with the field that each was read as),
    ``duration_s`` in all and
    ``durations`` (s; None without a header), ``sample_rates`` (Hz to number), ``without_header``,
    ``beyond_file`` (names of utterances that end after their file), ``same_sound`` (lists of names;
    without ``checked``, of the same stretch of the same file only), ``skipped``, ``warnings`` and
    ``notice``; with ``checked`` also ``bad``.
    """
    seconds = [
        duration_of(u, header)
        for u, header in zip(corpus.utterances, headers, strict=True)
        if header is not None
    ]
    counts, edges = _bins(seconds)
    rates = Counter(header.sample_rate for header in headers if header is not None)
    groups = (
        same_stretches(corpus.utterances, headers)
        if checked is None
        else group_same(checked.sounds)
    )
    beyond = beyond_file(corpus.utterances, headers)
    by_class = _speakers_by_class(corpus)
    bad = [{"name": name, "reason": reason} for name, reason in checked.bad] if checked else []
    return {
        "corpus": corpus.name,
        "utterances": len(corpus),
        "unlabelled": sum(u.label is None for u in corpus),
        "unknown_speaker": sum(u.speaker is None for u in corpus),
        **{
            group: corpus.count(attribute, corpus.classes if attribute == "label" else None)
            for group, attribute in _GROUPS.items()
        },
        "speakers_by_class": by_class,
        "emotions": {own: corpus.emotions[own] for own in corpus.classes if own in corpus.emotions},
        "columns": dict(corpus.columns),
        "duration_s": round(sum(seconds), 3),
        "durations": {
            "shortest": min(seconds, default=None),
            "median": median(seconds) if seconds else None,
            "longest": max(seconds, default=None),
            "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
        },
        "sample_rates": {str(rate): n for rate, n in sorted(rates.items())},
        "without_header": sum(header is None for header in headers),
        "beyond_file": [corpus.utterances[index].name for index in beyond],
        "same_sound": [[corpus.utterances[index].name for index in group] for group in groups],
        "skipped": [{"name": name, "reason": reason} for name, reason in corpus.skipped],
        "warnings": [
            *warnings,
            *_of_one_class(by_class),
            *_beyond(corpus, headers, beyond),
            *_noted(corpus, headers),
        ],
        "notice": corpus.notice,
        **({"bad": bad} if checked else {}),
    }


def corpus_page(
    corpus: Corpus, headers: Sequence[Header | None], facts: Mapping[str, Any]
) -> Section:
    """Show what :func:`describe_corpus` returns as tables."""
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
        _group_table(corpus, group, attribute, facts, seconds)
        for group, attribute in _GROUPS.items()
        if facts[group]
    ]
    columns = _columns_read(facts["columns"])
    blocks = (f"{corpus.name}: {', '.join(counts)}", *columns, *groups, *_audio_blocks(facts))
    same = (_same_table(corpus, facts["same_sound"]),) if facts["same_sound"] else ()
    skipped = (_skipped_table(corpus.skipped),) if corpus.skipped else ()
    warnings = (Remark("Warning", text) for text in facts["warnings"])
    verdict = (_verdict(facts),) if facts.get("bad") == [] else ()
    notice = (corpus.notice,) if corpus.notice else ()
    return Section("", (*blocks, *same, *skipped, *warnings, *verdict, *notice))


def _columns_read(columns: Mapping[str, str]) -> tuple[str, ...]:
    """What each column was read as, and those that were not read."""
    read = [
        column if field == column else f"{column} as {field}"
        for column, field in columns.items()
        if field
    ]
    unread = [repr(column) for column, field in columns.items() if not field]
    parts = [f"columns read: {list_some(read, 20)}"] if read else []
    parts += [f"columns not read: {list_some(unread, 20)}"] if unread else []
    return ("; ".join(parts),) if parts else ()


def _speakers_by_class(corpus: Corpus) -> dict[str, dict[str, int]]:
    """Number of utterances of each speaker in each class."""
    counts = Counter((u.speaker, u.label) for u in corpus)
    return {
        speaker: {label: counts[speaker, label] for label in corpus.classes}
        for speaker in corpus.count("speaker")
        if corpus.classes
    }


def _of_one_class(by_class: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Warn of speakers whose voice alone tells the class."""
    lone = [who for who, counts in by_class.items() if sum(n > 0 for n in counts.values()) == 1]
    if not lone or len(next(iter(by_class.values()))) == 1:
        return []
    speak = "speaks" if len(lone) == 1 else "speak"
    return [f"{len(lone)} of {len(by_class)} speakers {speak} one class only: {list_some(lone)}"]


def _beyond(corpus: Corpus, headers: Sequence[Header | None], beyond: Sequence[int]) -> list[str]:
    """Warn of utterances that end after their file."""
    if not beyond:
        return []
    first = corpus.utterances[beyond[0]]
    header = headers[beyond[0]]
    end = (
        "1 utterance begins or ends"
        if len(beyond) == 1
        else f"{len(beyond):,} utterances begin or end"
    )
    text = f"{end} after their file, e.g. {first.name}"
    if header is not None:
        text += f": {first.start:g} s to {'the end' if first.end is None else f'{first.end:g} s'}"
        text += f" of {header.duration:g} s"
    if in_milliseconds(corpus.utterances, headers):
        text += "; as milliseconds they fit: divide start and end by 1000, as they are seconds"
    return [text]


def _noted(corpus: Corpus, headers: Sequence[Header | None]) -> list[str]:
    """Warn of files whose header states too little."""
    notes = {u.path: h.note for u, h in zip(corpus, headers, strict=True) if h is not None}
    noted = [(path, note) for path, note in notes.items() if note]
    if not noted:
        return []
    path, note = noted[0]
    have = (
        "1 file has a header that states"
        if len(noted) == 1
        else f"{len(noted):,} files have headers that state"
    )
    return [f"{have} too little, e.g. {path}: {note}"]


def _verdict(facts: Mapping[str, Any]) -> str:
    same = len(facts["same_sound"])
    others = (
        f"{same:,} sound(s) have several names, as listed" if same else "no two have the same sound"
    )
    return f"check: all {facts['utterances']:,} utterances have usable audio, and {others}"


def _group_table(
    corpus: Corpus,
    group: str,
    attribute: str,
    facts: Mapping[str, Any],
    seconds: Sequence[float | None],
) -> Table:
    """Utterances of each class, speaker and so on; those of a speaker also by class."""
    counts: Mapping[str, int] = facts[group]
    lengths: dict[str, list[float]] = {name: [] for name in counts}
    for utterance, length in zip(corpus.utterances, seconds, strict=True):
        name = getattr(utterance, attribute)
        if name is not None and length is not None:
            lengths[name].append(length)
    by_class = facts["speakers_by_class"] if group == "speakers" else {}
    classes = corpus.classes[:_MOST_CLASSES] if by_class and len(corpus.classes) > 1 else ()
    rows = []
    for name, n in list(counts.items())[:_MOST_ROWS]:
        common = corpus.emotions.get(name, name) if attribute == "label" else name
        shown = name if common == name else f"{name} ({common})"
        total = sum(lengths[name])
        mean = f"{total / len(lengths[name]):.2f}" if lengths[name] else NOTHING
        in_classes = [f"{by_class[name][label]:,}" for label in classes]
        rows.append((shown, f"{n:,}", f"{n / len(corpus):.1%}", _clock(total), mean, *in_classes))
    columns = (*words(group), *numbers("utterances", "share", "duration", "mean, s", *classes))
    caption = _not_shown(len(counts), group)
    if classes and len(classes) < len(corpus.classes):
        more = len(corpus.classes) - len(classes)
        caption += (f"… and {more:,} more classes; --json lists all",)
    return Table(columns, tuple(rows), caption)


def _same_table(corpus: Corpus, groups: Sequence[Sequence[str]]) -> Table:
    """Utterances that share their sound, those of several speakers first."""
    by_name = {u.name: u for u in corpus}
    rows = []
    for group in groups:
        members = [by_name[name] for name in group]
        speakers = list(dict.fromkeys(u.speaker or "unknown" for u in members))
        labels = list(dict.fromkeys(u.label or "none" for u in members))
        cells = (_some(group, " = "), _some(speakers, ", "), _some(labels, ", "))
        rows.append((len(speakers), cells))
    rows.sort(key=lambda row: -row[0])
    return Table(
        words("same sound", "speakers", "labels"),
        tuple(cells for _, cells in rows[:_MOST_ROWS]),
        _not_shown(len(rows), "sounds with several names"),
    )


def _some(items: Sequence[str], between: str) -> str:
    return between.join([*items[:_MOST_SAME], *(["…"] if len(items) > _MOST_SAME else [])])


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
        advice = "" if "bad" in facts else "; --check shows what is wrong with them"
        blocks.append(f"files with an unreadable header: {facts['without_header']:,}{advice}")
    return blocks


def _bins(seconds: Sequence[float]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Counts of a histogram and the edges of its bins, which are at least 0.1 s wide."""
    low, high = min(seconds, default=0.0), max(seconds, default=0.0)
    tenths = np.arange(math.floor(10 * low), math.floor(10 * high) + 2) / 10
    edges = tenths if len(tenths) <= _BINS else np.linspace(low, high, _BINS + 1)
    counts, edges = np.histogram(seconds, edges)
    return counts, edges


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

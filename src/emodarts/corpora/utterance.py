"""Utterances of a corpus: labels, speakers and the audio files that hold them."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from emodarts.errors import CorpusError, did_you_mean, list_some

COMMON_EMOTIONS = (
    "anger",
    "boredom",
    "calm",
    "contempt",
    "disgust",
    "excitement",
    "fear",
    "frustration",
    "happiness",
    "neutral",
    "sadness",
    "surprise",
    "other",
)
"""Common names to which readers map their corpus' labels, so that a recipe fits many corpora."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """A labelled segment of speech.

    Attributes
    ----------
    name : unique within its corpus; written to predictions and fold files.
    path : audio file.
    label : emotion, in the corpus' own spelling; None if the corpus gives none or its raters did
        not agree. Such an utterance can be classified but not scored.
    speaker : unique within the corpus, or None if unknown.
    start, end : segment of the file in seconds; ``end`` None is the end of the file.
    gender : ``"female"``, ``"male"`` or None.
    session, dialogue : recordings that share speakers; None if the corpus has none.
    style : how the speech was elicited, e.g. ``"improvised"``, ``"scripted"``, ``"song"``, or the
        corpus' letter for it; None if there is only one style.
    split : partition given by the corpus' publishers or the user's table, e.g. ``"Train"``.
    valence, arousal, dominance : mean ratings on the corpus' own scale, or None.
    """

    name: str
    path: Path
    label: str | None
    speaker: str | None
    start: float = 0.0
    end: float | None = None
    gender: str | None = None
    session: str | None = None
    dialogue: str | None = None
    style: str | None = None
    split: str | None = None
    valence: float | None = None
    arousal: float | None = None
    dominance: float | None = None

    def known_label(self) -> str:
        """The label. Raises :class:`CorpusError` if there is none."""
        if self.label is None:
            raise CorpusError(
                f"utterance {self.name!r} has no label; it cannot be used for training or scored"
            )
        return self.label


@dataclass(frozen=True, slots=True)
class PublishedFold:
    """A fold published with a corpus, as utterance names."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


@dataclass(frozen=True, repr=False)
class Corpus:
    """Utterances with unique names and a fixed class order.

    Attributes
    ----------
    name : of the reader, e.g. ``"emodb"``.
    utterances : sorted by name.
    classes : every label in use, in the order of all files and matrices.
    notice : a warning to print wherever scores on this corpus are shown, or ``""``.
    skipped : utterances and files that are not used: ``(name, reason)``.
    emotions : maps the corpus' own labels to :data:`COMMON_EMOTIONS`.
    folds : published folds in order, for ``--split emobox``.
    columns : field that each column of a table holds; ``""`` if it is not read.

    Raises
    ------
    CorpusError
        If there are no utterances, two have the same name, or a label is not in ``classes``.
    """

    name: str
    utterances: tuple[Utterance, ...]
    classes: tuple[str, ...]
    notice: str = ""
    skipped: tuple[tuple[str, str], ...] = ()
    emotions: Mapping[str, str] = field(default_factory=dict)
    folds: tuple[PublishedFold, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.utterances:
            raise CorpusError(f"corpus {self.name!r} has no utterances")
        twice = [n for n, k in Counter(u.name for u in self.utterances).items() if k > 1]
        if twice:
            where = [str(u.path) for u in self.utterances if u.name == twice[0]]
            raise CorpusError(
                f"corpus {self.name!r}: {len(twice)} utterance name(s) occur more than once, "
                f"e.g. {twice[0]!r} in {' and '.join(where)}; each name must be unique"
            )
        unknown = sorted(
            {u.label for u in self.utterances if u.label is not None} - set(self.classes)
        )
        if unknown:
            raise CorpusError(
                f"corpus {self.name!r}: label(s) {list_some(unknown)} are not among the "
                f"classes {', '.join(self.classes)}"
            )

    def __repr__(self) -> str:
        speakers = len({u.speaker for u in self.utterances} - {None})
        classes = ", ".join(
            f"{label} {n}" for label, n in self.count("label", self.classes).items()
        )
        return (
            f"<corpus {self.name}: {len(self)} utterances, {speakers or 'unknown'} speakers; "
            f"{classes or 'no labels'}>"
        )

    def __len__(self) -> int:
        return len(self.utterances)

    def __iter__(self) -> Iterator[Utterance]:
        return iter(self.utterances)

    def count(self, attribute: str, order: tuple[str, ...] | None = None) -> dict[str, int]:
        """Number of utterances by label, speaker, gender, session, dialogue, style or split.

        ``order`` gives the keys; without it they are sorted and None is not counted.
        """
        counts = Counter(getattr(u, attribute) for u in self.utterances)
        return {key: counts[key] for key in order or sorted(counts.keys() - {None})}

    def spelling_warnings(self, labels: Sequence[str] | None = None) -> tuple[str, ...]:
        """Warn of labels that differ in case or spaces only and are not one class.

        Parameters
        ----------
        labels : as in :meth:`select`; None keeps every label as a class of its own.
        """
        chosen = {own: own for own in self.classes} if labels is None else self._merged(labels)
        alike: dict[str, list[str]] = {}
        for own in self.classes:
            alike.setdefault(_letters(own), []).append(own)
        apart = [same for same in alike.values() if len({chosen.get(own) for own in same}) > 1]
        if not apart:
            return ()
        # Every class again, as --labels keeps what it names and no more.
        homes: dict[str, str] = {}
        merged: dict[str, list[str]] = {}
        for own, name in chosen.items():
            if _letters(own) not in homes:
                homes[_letters(own)] = name
                merged.setdefault(name, []).extend(alike[_letters(own)])
        entries = [
            name if owns == [name] else f"{name}={','.join(owns)}" for name, owns in merged.items()
        ]
        advice = " ".join(f"--labels {shlex.quote(entry)}" for entry in entries)
        if any("," in own or "=" in own for own in self.classes):
            advice = "rename them in the corpus, as --labels cannot name a label with , or ="
        named = list_some(" and ".join(map(repr, same)) for same in apart)
        return (f"labels that differ in case or spaces only: {named}; to merge them: {advice}",)

    def select(
        self, labels: Sequence[str] | None = None, styles: Sequence[str] | None = None
    ) -> Corpus:
        """Keep the utterances of some labels and styles; ``skipped`` gets the others with a reason.

        Parameters
        ----------
        labels : classes in their order. ``"anger"`` is a label of the corpus or, if it has no
            such label, a common emotion; ``"happy=hap,exc"`` merges labels under a new name.
            None keeps every label. Utterances without a label are always left out.
        styles : values of :attr:`Utterance.style`. None keeps all.

        Raises
        ------
        CorpusError
            If a label or style does not occur in the corpus, or a label is given twice.
        """
        chosen = {own: own for own in self.classes} if labels is None else self._merged(labels)
        if styles is not None:
            self._check_styles(styles)
        kept, left = [], []
        for u in self.utterances:
            if styles is not None and u.style not in styles:
                left.append((u.name, f"style {u.style} is not selected"))
            elif u.label is None:
                left.append((u.name, "no label"))
            elif u.label not in chosen:
                left.append((u.name, f"label {u.label} is not selected"))
            else:
                kept.append(replace(u, label=chosen[u.label]))
        order = dict.fromkeys(chosen.values())
        present = {u.label for u in kept}
        if missing := [name for name in order if name not in present]:
            raise CorpusError(
                f"corpus {self.name!r} has no utterance labelled {list_some(missing)}; "
                f"the selected utterances have {', '.join(sorted(filter(None, present))) or 'none'}"
            )
        names = {u.name for u in kept}
        return Corpus(
            self.name,
            tuple(kept),
            tuple(order),
            self.notice,
            self.skipped + tuple(left),
            self._emotions_of(chosen),
            tuple(
                PublishedFold(
                    *(
                        tuple(name for name in part if name in names)
                        for part in (fold.train, fold.validation, fold.test)
                    )
                )
                for fold in self.folds
            ),
            self.columns,
        )

    def _emotions_of(self, chosen: Mapping[str, str]) -> dict[str, str]:
        """Common name of each class whose labels all share one."""
        names: dict[str, set[str | None]] = {}
        for own, name in chosen.items():
            names.setdefault(name, set()).add(self.emotions.get(own))
        return {
            name: common
            for name, found in names.items()
            if len(found) == 1 and (common := next(iter(found))) is not None
        }

    def _merged(self, labels: Sequence[str]) -> dict[str, str]:
        """Map from the corpus' labels to the requested classes, in the order of the classes."""
        chosen: dict[str, str] = {}
        for entry in labels:
            name, equals, sources = entry.partition("=")
            for source in sources.split(",") if equals else [name]:
                own = self._own_labels(source.strip())
                if twice := [label for label in own if label in chosen]:
                    raise CorpusError(
                        f"labels {' '.join(labels)}: {twice[0]} of corpus {self.name!r} is given "
                        "twice; each label belongs to one class"
                    )
                chosen.update(dict.fromkeys(own, name.strip()))
        return chosen

    def _own_labels(self, source: str) -> list[str]:
        if source in self.classes:
            return [source]
        own = [label for label in self.classes if self.emotions.get(label) == source]
        if not own:
            known = dict.fromkeys([*self.classes, *(self.emotions.get(c, c) for c in self.classes)])
            raise CorpusError(
                f"corpus {self.name!r} has no utterance labelled {source!r}"
                f"{did_you_mean(source, known)}; its labels are {', '.join(known)}. "
                "Map them with --labels anger=LABEL for each class, or keep all with --labels own"
            )
        return own

    def _check_styles(self, styles: Sequence[str]) -> None:
        present = self.count("style")
        if unknown := [style for style in styles if style not in present]:
            raise CorpusError(
                f"corpus {self.name!r} has no utterance of style {list_some(unknown)}"
                f"{did_you_mean(unknown[0], present)}; allowed: {', '.join(present) or 'none'}"
            )


def _letters(label: str) -> str:
    """A label without case, spaces, hyphens and ways to encode the same letters."""
    return re.sub(r"[\s_-]+", "", unicodedata.normalize("NFKC", label).casefold())

"""What a corpus yields: utterances, and where to look for their sound."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from emodarts.errors import CorpusError, list_some


@dataclass(frozen=True, slots=True)
class Utterance:
    """One labelled stretch of speech.

    Attributes
    ----------
    name : unique within its corpus; written to predictions and fold files.
    path : audio file.
    label : emotion, in the corpus' own class names.
    speaker : unique within the corpus, or None where the corpus does not say.
    start, end : stretch of the file in seconds; ``end`` None is the end of the file.
    gender : ``"female"``, ``"male"`` or None.
    session, dialogue : recordings that share talkers; None where there are none.
    """

    name: str
    path: Path
    label: str
    speaker: str | None
    start: float = 0.0
    end: float | None = None
    gender: str | None = None
    session: str | None = None
    dialogue: str | None = None


@dataclass(frozen=True)
class Corpus:
    """Utterances with unique names and a fixed class order.

    Attributes
    ----------
    name : of the reader, e.g. ``"emodb"``.
    utterances : sorted by name.
    classes : every label in use, in the order that all files and matrices keep.
    notice : a warning to print wherever scores on this corpus are shown, or ``""``.
    skipped : what was found and left out, with the reason: ``(name, reason)``.

    Raises
    ------
    CorpusError
        For no utterances, two of the same name, or a label outside ``classes``.
    """

    name: str
    utterances: tuple[Utterance, ...]
    classes: tuple[str, ...]
    notice: str = ""
    skipped: tuple[tuple[str, str], ...] = ()

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
        unknown = sorted({u.label for u in self.utterances} - set(self.classes))
        if unknown:
            raise CorpusError(
                f"corpus {self.name!r}: label(s) {list_some(unknown)} are not among the "
                f"classes {', '.join(self.classes)}"
            )

    def __len__(self) -> int:
        return len(self.utterances)

    def __iter__(self) -> Iterator[Utterance]:
        return iter(self.utterances)

    def count(self, attribute: str, order: tuple[str, ...] | None = None) -> dict[str, int]:
        """Number of utterances by label, speaker, gender, session or dialogue.

        ``order`` gives the keys; otherwise they are sorted, and None is not counted.
        """
        counts = Counter(getattr(u, attribute) for u in self.utterances)
        return {key: counts[key] for key in order or sorted(counts.keys() - {None})}

    def select(self, labels: tuple[str, ...]) -> Corpus:
        """Keep the utterances of ``labels``, which becomes the class order.

        Raises
        ------
        CorpusError
            If a label does not occur in the corpus.
        """
        present = {u.label for u in self.utterances}
        missing = [label for label in labels if label not in present]
        if missing:
            raise CorpusError(
                f"corpus {self.name!r} has no utterance labelled {list_some(missing)}; "
                f"its labels are {', '.join(c for c in self.classes if c in present)}"
            )
        kept = tuple(u for u in self.utterances if u.label in labels)
        left = tuple(
            (u.name, f"label {u.label} not asked for")
            for u in self.utterances
            if u.label not in labels
        )
        return Corpus(self.name, kept, labels, self.notice, self.skipped + left)

"""Corpora: who spoke what with which emotion, one reader for each.

Listing opens no sound, and importing this package loads no numerical library.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from emodarts.corpora.emodb import read_emodb
from emodarts.corpora.synthetic import read_synthetic
from emodarts.corpora.utterance import Corpus, Utterance
from emodarts.errors import CorpusError, did_you_mean

Reader = Callable[[Path | None], Corpus]
"""From the corpus' folder, None where none was named, to its utterances."""

READERS: dict[str, Reader] = {
    "emodb": read_emodb,
    "synthetic": read_synthetic,
}

__all__ = ["READERS", "Corpus", "Reader", "Utterance", "describe_readers", "load_corpus"]


def load_corpus(name: str, root: str | Path | None = None) -> Corpus:
    """List a corpus by the name of its reader.

    Raises
    ------
    CorpusError
        For an unknown name, or a folder without that corpus.
    """
    if name not in READERS:
        raise CorpusError(
            f"unknown corpus {name!r}{did_you_mean(name, READERS)}; legal: {', '.join(READERS)}"
        )
    return READERS[name](None if root is None else Path(root))


def describe_readers() -> dict[str, str]:
    """What each reader reads, in a line: the first of its module's documentation."""
    documents = {name: sys.modules[reader.__module__].__doc__ for name, reader in READERS.items()}
    return {name: (text or "").splitlines()[0] for name, text in documents.items()}

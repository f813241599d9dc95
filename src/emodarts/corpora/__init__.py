"""Corpora: who spoke what with which emotion, one reader for each.

Listing opens no sound, and importing this package loads no numerical library.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path

from emodarts.corpora.audformat_tables import read_audformat
from emodarts.corpora.audiofolder import read_audiofolder
from emodarts.corpora.crema_d import read_crema_d
from emodarts.corpora.emobox import read_emobox
from emodarts.corpora.emodb import read_emodb
from emodarts.corpora.iemocap import read_iemocap
from emodarts.corpora.msp_improv import read_msp_improv
from emodarts.corpora.msp_podcast import read_msp_podcast
from emodarts.corpora.ravdess import read_ravdess
from emodarts.corpora.synthetic import read_synthetic
from emodarts.corpora.table import read_table
from emodarts.corpora.utterance import Corpus, Utterance
from emodarts.errors import CorpusError, did_you_mean

Reader = Callable[..., Corpus]
"""From the corpus' folder, None where none was named, to its utterances. Keyword-only
parameters, all text with a default, are the reader's options."""

READERS: dict[str, Reader] = {
    "iemocap": read_iemocap,
    "msp-improv": read_msp_improv,
    "msp-podcast": read_msp_podcast,
    "emodb": read_emodb,
    "ravdess": read_ravdess,
    "crema-d": read_crema_d,
    "table": read_table,
    "audiofolder": read_audiofolder,
    "audformat": read_audformat,
    "emobox": read_emobox,
    "synthetic": read_synthetic,
}

__all__ = [
    "READERS",
    "Corpus",
    "Reader",
    "Utterance",
    "describe_readers",
    "load_corpus",
    "reader_options",
]


def load_corpus(name: str, root: str | Path | None = None, **options: str) -> Corpus:
    """List a corpus by the name of its reader.

    Parameters
    ----------
    root : folder of the corpus, or the file that lists it.
    options : of this reader only, e.g. ``emotion="label"`` for ``table``; see
        :func:`reader_options`.

    Raises
    ------
    CorpusError
        For an unknown name or option, or a folder without that corpus.
    """
    if name not in READERS:
        raise CorpusError(
            f"unknown corpus {name!r}{did_you_mean(name, READERS)}; legal: {', '.join(READERS)}"
        )
    legal = reader_options(name)
    for option in options:
        if option not in legal:
            raise CorpusError(
                f"corpus {name!r} has no option {option!r}{did_you_mean(option, legal)}; "
                f"legal: {', '.join(legal) or 'none'}"
            )
    return READERS[name](None if root is None else Path(root), **options)


def reader_options(name: str) -> tuple[str, ...]:
    """Options of a reader."""
    parameters = inspect.signature(READERS[name]).parameters.values()
    return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)


def describe_readers() -> dict[str, str]:
    """What each reader reads, in a line: the first of its module's documentation."""
    documents = {name: sys.modules[reader.__module__].__doc__ for name, reader in READERS.items()}
    return {name: (text or "").splitlines()[0] for name, text in documents.items()}

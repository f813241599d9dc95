"""Corpora of emotional speech, one reader for each; ``READERS`` lists them.

Readers open no audio file, and importing this package does not load torch.
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
from emodarts.corpora.schemes import SCHEMES, Scheme
from emodarts.corpora.synthetic import read_synthetic
from emodarts.corpora.table import read_table
from emodarts.corpora.utterance import Corpus, Utterance
from emodarts.errors import CorpusError, did_you_mean

Reader = Callable[..., Corpus]
"""Maps the corpus' folder, or None if none was given, to its utterances. The keyword-only
parameters are the reader's options; each is a string with a default."""

READERS: dict[str, Reader] = {
    "iemocap": read_iemocap,
    "msp-improv": read_msp_improv,
    "msp-podcast": read_msp_podcast,
    "emodb": read_emodb,
    "ravdess": read_ravdess,
    "crema-d": read_crema_d,
    **SCHEMES,
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
    """List the utterances of a corpus.

    Parameters
    ----------
    name : a key of ``READERS``.
    root : folder of the corpus, or the file that lists it.
    options : options of this reader, e.g. ``emotion="label"`` for ``table``; see
        :func:`reader_options`.

    Raises
    ------
    CorpusError
        If the name or an option is unknown, or the folder does not hold that corpus.
    """
    if name not in READERS:
        raise CorpusError(
            f"unknown corpus {name!r}{did_you_mean(name, READERS)}; allowed: {', '.join(READERS)}"
        )
    allowed = reader_options(name)
    for option in options:
        if option not in allowed:
            raise CorpusError(
                f"corpus {name!r} has no option {option!r}{did_you_mean(option, allowed)}; "
                f"allowed: {', '.join(allowed) or 'none'}"
            )
    return READERS[name](None if root is None else Path(root), **options)


def reader_options(name: str) -> tuple[str, ...]:
    """Names of a reader's options."""
    parameters = inspect.signature(READERS[name]).parameters.values()
    return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)


def describe_readers() -> dict[str, str]:
    """A description of each reader: its title, or the first line of its module's docstring."""
    documents = {
        name: reader.title if isinstance(reader, Scheme) else sys.modules[reader.__module__].__doc__
        for name, reader in READERS.items()
    }
    return {name: (text or "").splitlines()[0] for name, text in documents.items()}

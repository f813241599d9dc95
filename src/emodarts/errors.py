"""Errors of the project: one root, one subclass for each part of the house.

The command line prints the message of any :class:`EmodartsError` as one clear
text and exits with code 2. A message names what was wrong, where, and what is legal.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class EmodartsError(Exception):
    """Root of every error that a user can cause and mend."""


class RecipeError(EmodartsError):
    """A recipe has an unknown key, a wrong type or an impossible value."""


class CorpusError(EmodartsError):
    """A corpus cannot be read: folder, file names or labels."""


class AudioError(EmodartsError):
    """An audio file cannot be decoded or holds no usable sound."""


class SplitError(EmodartsError):
    """Folds cannot be made as asked, or two parts share what they must not share."""


class GenotypeError(EmodartsError):
    """A genotype has an unknown operation or an edge that cannot exist."""


class ShapeError(EmodartsError, ValueError):
    """A tensor has the wrong number of dimensions or a wrong size."""


class TrainingError(EmodartsError):
    """A search or a training diverged."""


class CheckpointError(EmodartsError):
    """A checkpoint is missing, altered, or belongs to another run."""


class BundleError(EmodartsError):
    """A model bundle is missing a file, was altered, or has an unknown format."""


class RunError(EmodartsError):
    """A run directory cannot be used as asked."""


class WriteError(EmodartsError):
    """A file cannot be written: disk full, no permission, no such folder."""


def list_some(items: Iterable[object], most: int = 5) -> str:
    """Join items for a message: the first ``most``, then how many more there are."""
    listed = [str(item) for item in items]
    text = ", ".join(listed[:most])
    return text if len(listed) <= most else f"{text} and {len(listed) - most} more"


def list_lines(items: Sequence[str], most: int) -> str:
    """List items below a message, one an indented line: the first ``most``, then how many more."""
    more = [f"and {len(items) - most} more"] if len(items) > most else []
    return "".join(f"\n  {line}" for line in [*items[:most], *more])


def did_you_mean(word: str, legal: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the nearest legal word, else ``""``."""
    near = difflib.get_close_matches(word, list(legal), n=1, cutoff=0.6)
    return f" (did you mean {near[0]!r}?)" if near else ""

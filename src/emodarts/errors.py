"""Errors: a common base class, and one subclass for each part of the package.

The command line prints the message of any :class:`EmodartsError` and exits with code 2. A message
says what is wrong, where, and what is allowed or what to do.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence


class EmodartsError(Exception):
    """Base class of all errors that a user can cause and fix."""


class RecipeError(EmodartsError):
    """A recipe has an unknown key, a wrong type or an impossible value."""


class CorpusError(EmodartsError):
    """A corpus cannot be read: its folder, file names or labels are wrong."""


class AudioError(EmodartsError):
    """An audio file is missing, cannot be decoded or has no usable sound."""


class SplitError(EmodartsError):
    """The requested folds are impossible, or two parts share what they must not."""


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


class ExportError(EmodartsError):
    """A model cannot be exported, or what was exported answers differently."""


class RunError(EmodartsError):
    """A run folder cannot be used in the requested way."""


class WriteError(EmodartsError):
    """A file cannot be written, e.g. because the disk is full."""


def list_some(items: Iterable[object], most: int = 5) -> str:
    """Join items for a message: the first ``most`` and the number of the rest."""
    listed = [str(item) for item in items]
    text = ", ".join(listed[:most])
    return text if len(listed) <= most else f"{text} and {len(listed) - most} more"


def list_lines(items: Sequence[str], most: int) -> str:
    """Indented lines to append to a message: the first ``most`` and the number of the rest."""
    more = [f"and {len(items) - most} more"] if len(items) > most else []
    return "".join(f"\n  {line}" for line in [*items[:most], *more])


def name_once(name: str, fault: str) -> str:
    """``"name: fault"``, or the fault alone where it begins with a path that ends in the name."""
    path = f"/{fault}"
    return fault if f"/{name}." in path or f"/{name}: " in path else f"{name}: {fault}"


def list_skipped(skipped: Sequence[tuple[object, str]]) -> str:
    """A line to append to a message for each reason: the number of files and their names."""
    reasons = dict.fromkeys(reason for _, reason in skipped)
    return "".join(
        f"\n  {len(names)} skipped: {reason}: {list_some(map(shown, names))}"
        for reason in reasons
        for names in [[name for name, why in skipped if why == reason]]
    )


def shown(name: object) -> str:
    """A name on one line: line breaks, control characters and undecodable bytes are escaped."""
    return re.sub(
        r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]",
        lambda found: found[0].encode("unicode_escape").decode(),
        str(name),
    )


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the most similar allowed word, else ``""``."""
    near = difflib.get_close_matches(word, list(allowed), n=1, cutoff=0.6)
    return f" (did you mean {near[0]!r}?)" if near else ""

"""Predefined splits: by the corpus' publishers or by a column of a table."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from emodarts.corpora.utterance import Corpus, Utterance
from emodarts.errors import SplitError, list_some
from emodarts.splits.checks import refuse_in_both
from emodarts.splits.fold import Fold, Folds, Indices, as_indices

#: Names of published parts in lower case, without spaces, ``_`` and ``-``.
_TRAIN = frozenset({"train", "training"})
_VALIDATION = frozenset({"validation", "valid", "val", "development", "devel", "dev"})


def given_fold(
    utterances: Sequence[Utterance],
    index: int,
    train: Indices,
    validation: Indices,
    test: Indices,
    source: str = "",
) -> Fold:
    """A fold of predefined parts. Raises :class:`SplitError` if an utterance is in two of them."""
    members = as_indices({*train, *validation, *test})
    fold = Fold(index, members, test, validation, source=source)
    refuse_in_both(utterances, train, validation, f"{fold.where}: train and validation")
    refuse_in_both(utterances, train + validation, test, f"{fold.where}: test and the rest")
    return fold


def warn_of_unused(
    utterances: Sequence[Utterance], folds: Sequence[Fold], split: str
) -> tuple[str, ...]:
    """Warn of utterances without a part in some fold."""
    unused: set[int] = set()
    for fold in folds:
        unused |= set(range(len(utterances))).difference(fold.members)
    if not unused:
        return ()
    return (
        f"split {split!r} leaves {len(unused)} utterances out of some folds, as it assigns them no "
        f"part, e.g. {utterances[min(unused)].name}",
    )


def official(utterances: Sequence[Utterance], split: str, asked: str) -> Folds:
    """The one fold of split ``official``, or of ``official:asked``."""
    parts: dict[str, list[int]] = {}
    shown: dict[str, str] = {}
    for i, u in enumerate(utterances):
        if u.split is not None:
            parts.setdefault(_plain(u.split), []).append(i)
            shown[_plain(u.split)] = u.split
    present = ", ".join(shown.values()) or "none"
    train = as_indices(i for name in parts.keys() & _TRAIN for i in parts[name])
    if not train:
        raise SplitError(
            f"split {split!r} needs a part named Train; parts of the corpus: {present}"
        )
    tests = sorted((name for name in parts if re.fullmatch("test[0-9]*", name)), key=_natural)
    test = _plain(asked) if asked else next(iter(tests), None)
    if test is None or test not in parts or test in _TRAIN:
        wanted = f"has no part {asked!r} to test on" if asked else "has no part named Test or Test1"
        raise SplitError(
            f"split {split!r} {wanted}; parts with labels: {present}. Parts without labels "
            "can be classified (emodarts predict --corpus ... --part NAME) but not scored"
        )
    validation = as_indices(
        i for name in parts.keys() & (_VALIDATION - {test}) for i in parts[name]
    )
    fold = given_fold(utterances, 0, train, validation, as_indices(parts[test]))
    used = set(fold.members)
    others = Counter(u.split or "no part" for i, u in enumerate(utterances) if i not in used)
    warnings = (
        f"{n} utterances of {part} are left out: split {split!r} tests on {shown[test]}"
        for part, n in sorted(others.items())
    )
    return Folds((fold,), tuple(warnings))


def column(utterances: Sequence[Utterance]) -> Folds:
    """Folds of split ``column``: one as ``official``, or one for each value."""
    parts: dict[str, list[int]] = {}
    for i, u in enumerate(utterances):
        if u.split is not None:
            parts.setdefault(u.split, []).append(i)
    values = sorted(parts, key=lambda value: (_natural(value), value))
    if any(_plain(value) in _TRAIN | _VALIDATION for value in values):
        return official(utterances, "column", "")
    if len(values) < 2:
        raise SplitError(
            "split 'column' needs a column with names of parts (Train, Validation, Test) or with "
            f"a fold for each utterance; values in the corpus: {list_some(values) or 'none'}"
        )
    members = tuple(i for i, u in enumerate(utterances) if u.split is not None)
    folds = tuple(Fold(k, members, tuple(parts[value])) for k, value in enumerate(values))
    return Folds(folds, warn_of_unused(utterances, folds, "column"))


def emobox(corpus: Corpus) -> Folds:
    """Folds of split ``emobox``: those published with the corpus."""
    if not corpus.folds:
        raise SplitError(
            f"corpus {corpus.name!r} has no published folds; split 'emobox' needs the lists of "
            "EmoBox (corpus emobox)"
        )
    rows = {u.name: i for i, u in enumerate(corpus.utterances)}
    folds = []
    for index, published in enumerate(corpus.folds):
        train, validation, test = (
            as_indices(rows[name] for name in set(part) if name in rows)
            for part in (published.train, published.validation, published.test)
        )
        folds.append(given_fold(corpus.utterances, index, train, validation, test))
    return Folds(tuple(folds), warn_of_unused(corpus.utterances, folds, "emobox"))


def _plain(part: str) -> str:
    """Name of a part, normalised across publishers."""
    return re.sub(r"[\s_-]", "", part).casefold()


def _natural(name: str) -> list[str | int]:
    """Sorting key that puts fold 2 before fold 10."""
    pieces = re.split(r"([0-9]{1,9})", name)
    return [int(piece) if k % 2 else piece for k, piece in enumerate(pieces)]

"""Checks of parts: nothing shared that must not be, and every class present."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from emodarts.corpora.utterance import Utterance
from emodarts.errors import SplitError, list_some
from emodarts.splits.fold import Indices
from emodarts.splits.speakers import TIES


def check_disjoint(
    utterances: Sequence[Utterance],
    first: Indices,
    second: Indices,
    where: str,
    attributes: Sequence[str] = ("name", *TIES),
) -> None:
    """Raise :class:`SplitError` if two parts share an utterance, speaker, session or dialogue."""
    for attribute in attributes:
        if shared := shared_values(utterances, first, second, attribute):
            raise SplitError(
                f"{where}: {attribute} {list_some(shared)} is on both sides of the test split; "
                f"test utterances must share no {attribute} with the others"
            )


def shared_values(
    utterances: Sequence[Utterance], first: Indices, second: Indices, attribute: str
) -> list[str]:
    """Values of an attribute that occur in both parts."""
    values = [
        {getattr(utterances[i], attribute) for i in part} - {None} for part in (first, second)
    ]
    return sorted(values[0] & values[1])


def refuse_in_both(
    utterances: Sequence[Utterance], first: Indices, second: Indices, which: str
) -> None:
    """Refuse an utterance in two parts that must be disjoint."""
    if shared := shared_values(utterances, first, second, "name"):
        raise SplitError(f"{which} share utterance {list_some(map(repr, shared))}")


def check_classes(
    utterances: Sequence[Utterance], part: Indices, classes: Collection[str], where: str
) -> None:
    """Raise :class:`SplitError` if a part has no utterance of one of the classes."""
    missing = set(classes)
    for i in part:
        missing.discard(utterances[i].known_label())
        if not missing:
            return
    raise SplitError(
        f"{where} has no utterance of class {list_some(sorted(missing))}; every class needs "
        "speakers outside the test fold: use fewer folds or fewer classes (recipe key labels)"
    )

"""Data types: the folds of a corpus, and the parts of a fold."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from emodarts.corpora.utterance import Utterance

Indices = tuple[int, ...]
Protocol = Literal["paper", "full"]

PARTS = ("search_weights", "search_alphas", "train", "validation", "test")


@dataclass(frozen=True)
class Parts:
    """Use of the utterances of one fold, as indices into a corpus.

    Attributes
    ----------
    search_weights, search_alphas : halves of the search data.
    train : trains the discrete network; also gives normalisation and class weights.
    validation : chooses the epoch.
    test : is only scored.
    """

    search_weights: Indices
    search_alphas: Indices
    train: Indices
    validation: Indices
    test: Indices

    @property
    def development(self) -> Indices:
        """All utterances that are not tested on."""
        return as_indices(
            {*self.search_weights, *self.search_alphas, *self.train, *self.validation}
        )

    def without_test(self) -> Parts:
        """The same parts with no utterance to test on."""
        return replace(self, test=())

    @classmethod
    def from_names(
        cls, names: Mapping[str, Sequence[str]], utterances: Sequence[Utterance]
    ) -> Parts:
        """The inverse of :meth:`names`. Raises ``KeyError`` for an unknown name or part."""
        place = {u.name: i for i, u in enumerate(utterances)}
        return cls(*(tuple(place[name] for name in names[part]) for part in PARTS))

    def names(self, utterances: Sequence[Utterance]) -> dict[str, list[str]]:
        """Utterance names by part, for ``folds.json``."""
        return {part: [utterances[i].name for i in getattr(self, part)] for part in PARTS}


@dataclass(frozen=True)
class Fold:
    """Utterances to develop on and to test on, as indices into a corpus.

    Development utterances are computed on demand and folds share ``members``, as a large corpus
    has thousands of speakers to leave out.

    Attributes
    ----------
    index : number of the fold.
    members : all utterances of the fold, including the test.
    test : is only scored.
    validation : utterances outside the test with which the split chooses the epoch.
    speakers_apart : whether every test utterance is of a known speaker, and shares no speaker,
        session or dialogue with the development utterances.
    recorded : the only parts of a fold that a run recorded, by protocol and seed.
    source : file from which the fold was read, for messages.
    """

    index: int
    members: Indices
    test: Indices
    validation: Indices = ()
    speakers_apart: bool = True
    recorded: Mapping[tuple[Protocol, int], Parts] = field(default_factory=dict)
    source: str = ""

    @property
    def where(self) -> str:
        """Name of the fold for messages."""
        return f"{self.source}, fold {self.index}" if self.source else f"fold {self.index}"

    @property
    def development(self) -> Indices:
        """All utterances outside the test, including ``validation``."""
        return _without(self.members, self.test)

    @property
    def train(self) -> Indices:
        """Development utterances outside ``validation``."""
        return _without(self.development, self.validation)

    def without_tests(self, left_out: Collection[int]) -> Fold:
        """The fold without some of its test utterances, which then have no use."""
        return replace(
            self, members=_without(self.members, left_out), test=_without(self.test, left_out)
        )


@dataclass(frozen=True)
class Folds:
    """Folds of a corpus.

    Attributes
    ----------
    folds : in order of their numbers.
    warnings : to print with every table of scores on these folds.
    """

    folds: tuple[Fold, ...]
    warnings: tuple[str, ...] = ()


def as_indices(values: Iterable[int]) -> Indices:
    """Sorted indices, also from an array."""
    return tuple(sorted(int(i) for i in values))


def _without(part: Indices, left_out: Collection[int]) -> Indices:
    if not left_out:
        return part
    left_out = frozenset(left_out)
    return tuple(i for i in part if i not in left_out)

"""What a split makes: folds of a corpus, and the parts of one."""

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
    """What each utterance of one fold is used for, as indices into a corpus.

    Attributes
    ----------
    search_weights, search_alphas : halves of the search data.
    train : of the discrete network; also gives normalisation and class weights.
    validation : chooses the epoch.
    test : decides nothing.
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

    def names(self, utterances: Sequence[Utterance]) -> dict[str, list[str]]:
        """Utterance names by part, for ``folds.json``."""
        return {part: [utterances[i].name for i in getattr(self, part)] for part in PARTS}


@dataclass(frozen=True)
class Fold:
    """Utterances to develop on and to test on, as indices into a corpus.

    What is not tested is computed when it is asked for: to leave out each of the thousands of
    speakers of a large corpus, the folds share one ``members``.

    Attributes
    ----------
    index : number of the fold.
    members : all that the fold uses, tested or not.
    test : decides nothing.
    validation : those not tested that the split itself sets aside to choose the epoch.
    speakers_apart : whether every test utterance is of a known speaker, and shares no speaker,
        session or dialogue with the development utterances.
    recorded : parts by protocol and seed, of a fold that a finished run wrote; no others exist.
    source : file that the fold was read from, for messages.
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
        """The fold in words."""
        return f"{self.source}, fold {self.index}" if self.source else f"fold {self.index}"

    @property
    def development(self) -> Indices:
        """All that are not tested, with those of ``validation``."""
        return _without(self.members, self.test)

    @property
    def train(self) -> Indices:
        """Development utterances that the split does not set aside."""
        return _without(self.development, self.validation)

    def without_tests(self, left_out: Collection[int]) -> Fold:
        """The fold without some of its test utterances; it uses them for nothing else."""
        return replace(
            self, members=_without(self.members, left_out), test=_without(self.test, left_out)
        )


@dataclass(frozen=True)
class Folds:
    """What a split makes of a corpus.

    Attributes
    ----------
    folds : in the order of their numbers.
    warnings : what every table of scores on these folds must say.
    """

    folds: tuple[Fold, ...]
    warnings: tuple[str, ...] = ()


def as_indices(values: Iterable[int]) -> Indices:
    """Sorted indices, of an array too."""
    return tuple(sorted(int(i) for i in values))


def _without(part: Indices, left_out: Collection[int]) -> Indices:
    if not left_out:
        return part
    left_out = frozenset(left_out)
    return tuple(i for i in part if i not in left_out)

"""Folds, and the parts of a training fold: who is searched, trained, validated and tested on.

Everything here works on indices into a corpus. Three rules hold for every split:

* An utterance is on one side of the test, never on both.
* Test utterances share no speaker, session or dialogue with the others. Where a split cannot keep
  that (``speaker-dependent``, or published folds that are let through on demand), it says so in a
  warning that the run carries into every table.
* An utterance of an unknown speaker, in a corpus that names others, may be anybody: it is never in
  a test that claims unseen speakers.

Anything else raises :class:`SplitError`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from emodarts.corpora.utterance import Corpus, Utterance
from emodarts.errors import SplitError, list_some
from emodarts.recipe import EvaluationSpec
from emodarts.splits.checks import check_classes, check_disjoint
from emodarts.splits.fold import Fold, Folds, Indices, Parts, Protocol
from emodarts.splits.fold_file import read_fold_file
from emodarts.splits.given import column, emobox, official
from emodarts.splits.overlap import settle_overlap
from emodarts.splits.parts import make_parts
from emodarts.splits.speaker_dependent import speaker_dependent
from emodarts.splits.talkers import what_tells_talkers
from emodarts.splits.unseen import unseen_speakers

__all__ = [
    "Fold",
    "Folds",
    "Indices",
    "Parts",
    "Protocol",
    "check_disjoint",
    "deployment_fold",
    "make_folds",
    "make_parts",
]


def make_folds(corpus: Corpus, split: str, allow_speaker_overlap: bool = False) -> Folds:
    """Divide a corpus into folds.

    Splits that test on unseen speakers. What shares a speaker, session or dialogue, directly or
    through others, stays together: in IEMOCAP, whose partners share dialogues, that is a session.
    Where the corpus names no speaker at all, its sessions tell talkers apart, and a warning says
    so. Where it names some, utterances of unknown speakers are left out of all parts.

    * ``speaker`` leaves one speaker out, if no two share a session or dialogue.
    * ``session`` leaves one session out, if no two share a speaker.
    * ``groups:K`` makes K groups of what must stay together, balanced by class and gender.

    Splits that were given. Utterances of unknown speakers stay in training and are left out of
    the test; where neither speakers nor sessions are known, or the test shares a speaker, session
    or dialogue with the rest, the fold is refused. ``allow_speaker_overlap`` takes such folds as
    they are, unknown speakers included, with a warning.

    * ``official`` or ``official:PART`` follows :attr:`Utterance.split`: one fold that trains on
      Train, chooses the epoch on Validation (or Development, dev, valid), and tests on PART or,
      without it, on Test or the first of Test1, Test2 and so on. Upper and lower case are one.
    * ``column`` follows :attr:`Utterance.split` of the user's own table: as ``official`` if it
      names a training or validation part; else each value is the test part of one fold.
    * ``emobox`` follows :attr:`Corpus.folds`.
    * ``FILE.json`` follows a fold file: one that a run wrote repeats its parts exactly, for its
      protocol and seeds; one made by hand lists the names of ``train``, ``test`` and, at will,
      ``validation`` of each fold. Names that :attr:`Corpus.skipped` tells are left out.

    ``speaker-dependent`` or ``speaker-dependent:K`` (default 5) makes random folds of utterances,
    stratified by class, always the same; test speakers are heard in training, as a warning says.

    Parameters
    ----------
    corpus : its utterances have labels; :attr:`Corpus.select` leaves no others.

    Raises
    ------
    SplitError
        If the corpus lacks what the split needs, if a fold tests on nobody or trains without one
        of the classes, if an utterance is on both sides or tested twice, if the test shares what
        it must not share, or for any fault of a fold file.
    """
    if not re.fullmatch(EvaluationSpec.SPLITS, split):
        raise SplitError(f"unknown split {split!r}; legal: {EvaluationSpec.LEGAL_SPLITS}")
    utterances = corpus.utterances
    kind, _, choice = ("file", "", "") if split.endswith(".json") else split.partition(":")
    if kind in ("speaker", "session", "groups"):
        made = unseen_speakers(utterances, kind, choice)
    elif kind == "speaker-dependent":
        made = speaker_dependent(utterances, choice)
    else:
        if kind == "official":
            given = official(utterances, split, choice)
        elif kind == "column":
            given = column(utterances)
        elif kind == "emobox":
            given = emobox(corpus)
        else:
            given = read_fold_file(corpus, Path(split))
        made = settle_overlap(utterances, given, split, allow_speaker_overlap)
    _check_folds(utterances, made.folds, split)
    parts = list(dict.fromkeys(u.split for u in utterances if u.split is not None))
    if parts and kind not in ("official", "column", "file"):
        ignored = (
            f"the corpus has parts of its own ({list_some(parts)}), which split {split!r} does not "
            "follow: scores cannot be compared with those on its official test"
        )
        made = replace(made, warnings=(*made.warnings, ignored))
    return made


def _check_folds(utterances: Sequence[Utterance], folds: Sequence[Fold], split: str) -> None:
    """Refuse folds that test on nobody, train without a class or test an utterance again."""
    classes = {u.known_label() for u in utterances}
    tested: dict[int, Fold] = {}
    for fold in folds:
        if not fold.test:
            raise SplitError(f"{fold.where} tests on nobody; split {split!r} leaves no utterance")
        check_classes(utterances, fold.train, classes, f"the training part of {fold.where}")
        for i in fold.test:
            if i in tested:
                raise SplitError(
                    f"utterance {utterances[i].name!r} is tested in {tested[i].where} and in "
                    f"{fold.where}; each is tested once, or scores would count it twice"
                )
            tested[i] = fold


def deployment_fold(utterances: Sequence[Utterance]) -> Fold:
    """A fold that tests on nobody, for the model to deploy."""
    apart = what_tells_talkers(utterances) is not None
    return Fold(0, tuple(range(len(utterances))), (), speakers_apart=apart)

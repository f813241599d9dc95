"""Folds, and the parts of a training fold for search, training, validation and test.

Everything here works on indices into a corpus. Four rules hold for every split:

* No utterance is in both the test part and another part.
* Test utterances share no speaker, session or dialogue with the others. A split that cannot
  guarantee this (``speaker-dependent``, or published folds that are explicitly allowed) gives a
  warning that is printed with every table.
* No test utterance sounds exactly as another one, unless that is allowed, with a warning, too.
* In a corpus that names speakers, an utterance of an unknown speaker may be of any of them: it is
  never part of a test on unseen speakers.

Everything else raises :class:`SplitError`.
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
from emodarts.splits.duplicates import settle_duplicates
from emodarts.splits.fold import Fold, Folds, Indices, Parts, Protocol
from emodarts.splits.fold_file import read_fold_file
from emodarts.splits.given import column, emobox, official
from emodarts.splits.overlap import settle_overlap
from emodarts.splits.parts import make_parts, shared_speakers
from emodarts.splits.speaker_dependent import speaker_dependent
from emodarts.splits.speakers import speaker_attribute
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
    "settle_duplicates",
    "shared_speakers",
]


def make_folds(corpus: Corpus, split: str, allow_speaker_overlap: bool = False) -> Folds:
    """Divide a corpus into folds.

    Splits that test on unseen speakers. Utterances that share a speaker, session or dialogue,
    directly or through others, stay together: in IEMOCAP, whose partners share dialogues, that is
    a session. If the corpus names no speakers, its sessions are used as speakers, with a warning.
    If it names some, utterances of unknown speakers are left out of all parts.

    * ``speaker`` leaves one speaker out, if no two share a session or dialogue.
    * ``session`` leaves one session out, if no two share a speaker.
    * ``groups:K`` makes K groups of what must stay together, balanced by class and gender.

    Predefined splits. Utterances of unknown speakers are used for training and left out of the
    test. A fold is refused if neither speakers nor sessions are known, or if the test shares a
    speaker, session or dialogue with the rest. ``allow_speaker_overlap`` accepts such folds
    unchanged, including unknown speakers, with a warning.

    * ``official`` or ``official:PART`` follows :attr:`Utterance.split`: one fold that trains on
      Train, chooses the epoch on Validation (or Development, dev, valid), and tests on PART; the
      default is Test, or the first of Test1, Test2 and so on. Case is ignored.
    * ``column`` follows :attr:`Utterance.split` of the user's own table: like ``official`` if it
      names a training or validation part, otherwise each value is the test part of one fold.
    * ``emobox`` follows :attr:`Corpus.folds`.
    * ``FILE.json`` follows a fold file. A file written by a run repeats its parts exactly, for its
      protocol and seeds. A hand-made file lists the names in ``train``, ``test`` and optionally
      ``validation`` of each fold. Names in :attr:`Corpus.skipped` are left out.

    ``speaker-dependent`` or ``speaker-dependent:K`` (default 5) makes random but reproducible
    folds of utterances, stratified by class. Test speakers also occur in training, with a warning.

    Parameters
    ----------
    corpus : utterances with labels, as :attr:`Corpus.select` returns them.

    Raises
    ------
    SplitError
        If the corpus lacks what the split needs, if a fold has no test utterances or no training
        utterances of a class, if an utterance is in two parts or tested twice, if the test shares
        a speaker, session or dialogue with the rest, or if a fold file is wrong.
    """
    if not re.fullmatch(EvaluationSpec.SPLITS, split):
        raise SplitError(f"unknown split {split!r}; allowed: {EvaluationSpec.LEGAL_SPLITS}")
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
            f"the corpus has parts of its own ({list_some(parts)}), which split {split!r} ignores: "
            "scores cannot be compared with those on its official test part"
        )
        made = replace(made, warnings=(*made.warnings, ignored))
    return made


def _check_folds(utterances: Sequence[Utterance], folds: Sequence[Fold], split: str) -> None:
    """Refuse folds with an empty test, without training data of a class, or testing twice."""
    classes = {u.known_label() for u in utterances}
    tested: dict[int, Fold] = {}
    for fold in folds:
        if not fold.test:
            raise SplitError(f"{fold.where} has no test utterances with split {split!r}")
        check_classes(utterances, fold.train, classes, f"the training part of {fold.where}")
        for i in fold.test:
            if i in tested:
                raise SplitError(
                    f"utterance {utterances[i].name!r} is tested in {tested[i].where} and in "
                    f"{fold.where}; each utterance must be tested once"
                )
            tested[i] = fold


def deployment_fold(utterances: Sequence[Utterance]) -> Fold:
    """A fold without a test part, for the model to deploy."""
    apart = speaker_attribute(utterances) is not None
    return Fold(0, tuple(range(len(utterances))), (), speakers_apart=apart)

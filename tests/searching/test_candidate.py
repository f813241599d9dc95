"""Candidates that are judged on inner folds."""

import json
from dataclasses import replace
from pathlib import Path

from emodarts.genotype import Genotype
from emodarts.layout import TrialFolder
from emodarts.searching.candidate import Candidate

CANDIDATE = Candidate(Genotype(macro={"pooling": "mean"}), seed=1, inner_folds=2, epochs=5)


def test_a_candidate_survives_json() -> None:
    assert Candidate.from_dict(json.loads(json.dumps(CANDIDATE.to_dict()))) == CANDIDATE


def test_what_is_trained_otherwise_is_kept_elsewhere() -> None:
    others = [
        replace(CANDIDATE, genotype=Genotype()),
        replace(CANDIDATE, seed=2),
        replace(CANDIDATE, inner_folds=3),
        replace(CANDIDATE, epochs=None),
    ]
    folders = {each.folder(TrialFolder(Path("trial"))).path for each in [CANDIDATE, *others]}
    assert len(folders) == 5

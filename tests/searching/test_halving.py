"""Successive halving: who is trained how often, who wins, and what a resumed search repeats."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from emodarts.errors import RecipeError
from emodarts.genotype import Genotype
from emodarts.layout import TrialFolder
from emodarts.recipe import CNNSpec, FixedSeqNN, HalvingSpec, NetworkSpec, Recipe
from emodarts.runtime import derive_seed
from emodarts.searching.candidate import Candidate
from killing import Kill, Killed
from toy_search import SPEC as DARTS
from toy_search import make_task, search

NETWORK = NetworkSpec(
    cnn=CNNSpec(space="extended", cells=0), seqnn=FixedSeqNN(mode="fixed", width=8)
)
SMALL = DARTS.model_copy(update={"order": 1, "epochs": 2})
SPEC = HalvingSpec(rounds=((8, 1), (4, 2), (2, 4)), inner_folds=2, epochs=5)


class Judge:
    """UA of a genotype: better with a planted choice, and noise of the seed that is larger."""

    def __init__(self, killed_at: int | None = None) -> None:
        self.asked: list[tuple[str, int]] = []
        self.killed_at = killed_at

    def __call__(self, asked: Sequence[Candidate]) -> list[float]:
        assert {(each.inner_folds, each.epochs) for each in asked} == {(2, 5)}
        return [self.judge(each.genotype, each.seed) for each in asked]

    def judge(self, genotype: Genotype, seed: int) -> float:
        """UA of one training."""
        if len(self.asked) == self.killed_at:
            raise Killed
        self.asked.append((json.dumps(genotype.to_dict()), seed))
        return 0.5 + 0.2 * (genotype.macro.get("pooling") == "mean") + 0.01 * (seed % 2)


def halve(folder: Path, judge: Judge, spec: HalvingSpec = SPEC, seed: int = 0) -> Genotype:
    task = make_task(folder, network=NETWORK, cross_validate=judge, seed=seed)
    return search(spec, task)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_planted_better_choice_wins(tmp_path: Path, seed: int) -> None:
    judge = Judge()
    assert halve(tmp_path, judge, seed=seed).macro["pooling"] == "mean"
    asked = [genotype for genotype, _ in judge.asked]
    assert len(set(asked)) == 8
    assert json.loads(asked[0])["macro"] == {}  # the recipe's own network takes part
    assert [len(set(asked[:8])), len(set(asked[8:16])), len(set(asked[16:]))] == [8, 4, 2]
    assert {seed for _, seed in judge.asked[16:]} == {0, 1, 2, 3}


def test_every_candidate_round_and_score_is_recorded(tmp_path: Path) -> None:
    found = halve(tmp_path, Judge())
    record = json.loads(TrialFolder(tmp_path).halving.read_text())
    assert [len(r) for r in record["rounds"]] == [8, 4, 2]
    assert [len(r[0]["ua"]) for r in record["rounds"]] == [1, 2, 4]
    for before, after in zip(record["rounds"], record["rounds"][1:], strict=False):
        better = [entry["candidate"] for entry in before[: len(after)]]
        assert {entry["candidate"] for entry in after} == set(better)
        assert [entry["mean"] for entry in before] == sorted(
            (entry["mean"] for entry in before), reverse=True
        )
    winner = record["rounds"][-1][0]["candidate"]
    assert Genotype.from_dict(record["candidates"][winner]) == found


def test_a_resumed_search_asks_the_same_and_ends_the_same(tmp_path: Path) -> None:
    whole = Judge()
    found = halve(tmp_path / "whole", whole)
    stopped = Judge(killed_at=10)
    with pytest.raises(Killed):
        halve(tmp_path / "stopped", stopped)
    again = Judge()
    assert halve(tmp_path / "stopped", again) == found
    assert stopped.asked == whole.asked[:10]
    assert again.asked == whole.asked


def test_a_network_with_nothing_to_choose_is_not_trained(tmp_path: Path) -> None:
    fixed = NetworkSpec(cnn=CNNSpec(cells=0), seqnn=FixedSeqNN(mode="fixed", width=8))
    judge = Judge()
    assert search(SPEC, make_task(tmp_path, network=fixed, cross_validate=judge)) == Genotype()
    assert judge.asked == []


def test_darts_proposes_candidates_and_does_so_once(tmp_path: Path) -> None:
    keys = {"rounds": [[5, 1], [2, 2]], "inner_folds": 2, "epochs": 5, "proposals": 2}
    keys["darts"] = SMALL.model_dump(mode="json")
    spec = Recipe.from_dict({"search": {"strategy": "halving", **keys}}).search
    judge = Judge()
    search(spec, make_task(tmp_path, cross_validate=judge))
    _own, *proposed = [json.loads(genotype) for genotype, _ in judge.asked[:3]]
    darts = [
        search(SMALL, make_task(tmp_path / str(k), seed=derive_seed(0, "proposal", k))).to_dict()
        for k in range(2)
    ]
    assert proposed == darts
    again = Judge()
    # A finished proposal is read.
    search(spec, make_task(tmp_path, Kill(1), cross_validate=again))
    assert again.asked == judge.asked


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"search": {"proposals": 16}}, "proposals 16 of 16 candidates"),
        (
            {
                "search": {"proposals": 1},
                "network": {"cnn": {"cells": 0}, "seqnn": {"mode": "none"}},
            },
            "no cells for DARTS",
        ),
    ],
)
def test_proposals_that_cannot_be(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Recipe.from_dict({**keys, "search": {"strategy": "halving", **keys["search"]}})

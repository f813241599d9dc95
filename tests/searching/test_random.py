"""Random search: one draw, or the best of several."""

from pathlib import Path

import pytest
import torch

from emodarts.genotype import Genotype
from emodarts.recipe import RandomSpec
from emodarts.runtime import derive_seed
from emodarts.searching.derivation import random_genotype
from killing import Kill, Killed
from toy_search import NETWORK, make_task, search

SEVERAL = RandomSpec(candidates=5)


class Evaluation:
    """Scores genotypes in the order of their first evaluation; counts what had to be trained."""

    def __init__(self, *scores: float, killed_at: int | None = None) -> None:
        self.scores, self.killed_at = list(scores), killed_at
        self.known: dict[Genotype, float] = {}

    def __call__(self, genotype: Genotype) -> float:
        if genotype not in self.known:
            if len(self.known) == self.killed_at:
                raise Killed
            self.known[genotype] = self.scores[len(self.known)]
        return self.known[genotype]


def drawn(count: int, seed: int = 0) -> list[Genotype]:
    generator = torch.Generator().manual_seed(derive_seed(seed, "random genotype"))
    return [random_genotype(NETWORK, generator) for _ in range(count)]


def test_one_genotype_needs_no_training(tmp_path: Path) -> None:
    found = [search(RandomSpec(), make_task(tmp_path, Kill(1), seed=s)) for s in (0, 0, 1, 2)]
    assert found == [drawn(1, seed)[0] for seed in (0, 0, 1, 2)]
    assert len(set(found)) == 3
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("scores", "best"), [((0.3, 0.5, 0.4, 0.2, 0.1), 1), ((0.3, 0.3, 0.6, 0.6, 0.6), 2)]
)
def test_the_first_of_the_best_is_kept(
    tmp_path: Path, scores: tuple[float, ...], best: int
) -> None:
    found = search(SEVERAL, make_task(tmp_path, evaluate=Evaluation(*scores)))
    assert found == drawn(5)[best]


def test_a_resumed_search_evaluates_what_is_left(tmp_path: Path) -> None:
    evaluation = Evaluation(0.1, 0.5, 0.2, 0.4, 0.3, killed_at=3)
    with pytest.raises(Killed):
        search(SEVERAL, make_task(tmp_path, evaluate=evaluation))
    assert list(evaluation.known) == drawn(3)
    evaluation.killed_at = None
    assert search(SEVERAL, make_task(tmp_path, evaluate=evaluation)) == drawn(5)[1]
    assert list(evaluation.known) == drawn(5)

"""Searches whose right answer is known: the planted tasks of ``emodarts.searching.toys``.

``benchmarks/strategies.py`` shows every strategy on them, with more seeds.
"""

import csv
from pathlib import Path
from typing import Literal

import pytest
import torch

from emodarts.layout import TrialFolder
from emodarts.progress import Silent
from emodarts.recipe import DartsSpec, TrainingSpec
from emodarts.recipe.search import AlphaOptimiser, WeightOptimiser
from emodarts.searching.toys import Toy, one_candidate, order_of_events, pulse_pairs
from emodarts.systems.discrete import DiscreteNetwork
from emodarts.training.batches import loss_and_ua, predict_logits
from emodarts.training.fit import train_network
from toy_search import search

TRAINING = TrainingSpec(
    epochs=10,
    batch_size=16,
    optimiser="adamw",
    learning_rate=1e-2,
    weight_decay=1e-2,
    schedule="one_cycle",
    select="last",
)


def first_order(epochs: int) -> DartsSpec:
    """A search that moves alphas after a warm-up of at most 0.6 of its epochs."""
    return DartsSpec(
        order=1,
        epochs=epochs,
        warmup_share=0.6,
        batch_size=16,
        weights=WeightOptimiser(learning_rate=0.1),
        alphas=AlphaOptimiser(learning_rate=2e-2),
    )


def retrained(toy: Toy, genotype: object, folder: Path, seed: int) -> float:
    """UA on the test part of the network of a genotype."""
    torch.manual_seed(seed)
    network = DiscreteNetwork(genotype, toy.network, toy.test.features.shape[2], 2)  # type: ignore[arg-type]
    parts = toy.weights, toy.alphas
    options = {"seed": seed, "folder": TrialFolder(folder), "progress": Silent(), "title": "train"}
    train_network(network, *parts, TRAINING, 2, **options)  # type: ignore[arg-type]
    return loss_and_ua(predict_logits(network, toy.test.features), toy.test.targets)[1]


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_one_candidate_that_passes_the_signal_is_found_on_every_edge(
    seed: int, order: Literal[1, 2], tmp_path: Path
) -> None:
    """In 100 steps."""
    toy = one_candidate(seed)
    alphas = AlphaOptimiser(learning_rate=5e-2)
    spec = DartsSpec(order=order, epochs=20, batch_size=12, warmup="fixed", alphas=alphas)
    found = search(spec, toy.task(tmp_path, seed))
    operations = {e.operation for cell in found.cells.values() for node in cell for e in node}
    assert operations == {toy.answer}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_only_candidate_that_spans_a_lag_is_found_on_both_edges(
    seed: int, tmp_path: Path
) -> None:
    toy = pulse_pairs(seed)
    found = search(first_order(epochs=24), toy.task(tmp_path, seed))
    assert [e.operation for node in found.cells["reduction"] for e in node] == [toy.answer] * 2


@pytest.mark.slow
@pytest.mark.parametrize("space", ["lstm_att", "lstm"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_recurrent_layer_is_found_where_nothing_else_decides(
    seed: int, space: str, tmp_path: Path
) -> None:
    toy = order_of_events(space, seed)
    found = search(first_order(epochs=14), toy.task(tmp_path, seed))
    with TrialFolder(tmp_path).search_history.open() as file:
        last = list(csv.DictReader(file))[-1]
    assert float(last["alpha_ua"]) >= 0.9  # with equally loud candidates the supernet learns
    assert found.skip_counts()["sequence"] == 0
    assert retrained(toy, found, tmp_path, seed) >= 0.9

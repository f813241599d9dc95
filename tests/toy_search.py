"""A search of a second, for the tests of strategies."""

import json
from pathlib import Path
from typing import Any

import torch

from emodarts.genotype import Genotype
from emodarts.layout import TrialFolder
from emodarts.progress import Progress, Silent
from emodarts.recipe import (
    STRATEGIES,
    CNNSpec,
    ComputeSpec,
    DartsSpec,
    NetworkSpec,
    SearchedSeqNN,
    SearchSpec,
)
from emodarts.recipe.search import AlphaOptimiser
from emodarts.searching.strategy import SearchTask
from emodarts.training.batches import Part

NETWORK = NetworkSpec(
    cnn=CNNSpec(cells=3, nodes=1, channels=2),
    seqnn=SearchedSeqNN(space="lstm_att", cells=1, nodes=1, width=4),
)
CPU = torch.device("cpu")
#: Two steps an epoch.
SPEC = DartsSpec(
    epochs=4,
    warmup="fixed",
    warmup_epochs=1,
    batch_size=6,
    alphas=AlphaOptimiser(learning_rate=0.1),
)


def halves() -> tuple[Part, Part]:
    """Data for weights and for alphas."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(20) % 3
    features = torch.randn(20, 1, 8, 10, generator=generator) + targets.view(-1, 1, 1, 1)
    return Part(features[:10], targets[:10]), Part(features[10:], targets[10:])


def never(*asked: object) -> float:
    raise AssertionError("nothing was to be evaluated")


def make_task(folder: Path, progress: Progress | None = None, **changes: Any) -> SearchTask:
    weights, alphas = halves()
    settings: dict[str, Any] = {
        "network": NETWORK,
        "weights": weights,
        "alphas": alphas,
        "n_classes": 3,
        "seed": 0,
        "folder": TrialFolder(folder),
        "device": CPU,
        "compute": ComputeSpec(fast=False),
        "progress": progress or Silent(),
        "title": "search",
        "evaluate": never,
        "cross_validate": never,
    }
    return SearchTask(**{**settings, **changes})


def search(spec: SearchSpec, task: SearchTask) -> Genotype:
    """Search with the strategy that a recipe would get."""
    found: Genotype = STRATEGIES[spec.strategy].build(spec).search(task)
    return found


def records(folder: Path) -> list[dict[str, Any]]:
    """Alphas and genotype of every epoch."""
    value: list[dict[str, Any]] = json.loads(TrialFolder(folder).alphas.read_text())
    return value

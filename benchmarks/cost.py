"""What a run costs: how its time grows with utterances, cells, nodes and folds, and an estimate.

    python benchmarks/cost.py [--json FILE]
    python benchmarks/cost.py --estimate --utterances 200000 --gpus 1,16

The first measures epochs of a search and of a training on made-up maps (32 x 32), in processor
seconds of one thread, and fits ``fixed + per_utterance * n`` and a power law in cells and in nodes.
Folds and seeds multiply the time of a trial: with K folds, each has (K - 1) / K of the corpus.

The second computes the time of the papers' search on GPUs from the work of a step, which
docs/performance.md gives, and from a rate and a latency that are assumed, not measured.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emodarts.fast import keep_freed_memory
from emodarts.genotype import Genotype
from emodarts.layout import TrialFolder
from emodarts.progress import Silent
from emodarts.recipe import (
    STRATEGIES,
    CNNSpec,
    ComputeSpec,
    NetworkSpec,
    Recipe,
    SearchedSeqNN,
    SearchSpec,
    TrainingSpec,
)
from emodarts.runtime import configure
from emodarts.searching.derivation import random_genotype
from emodarts.searching.strategy import SearchTask
from emodarts.searching.supernet import Supernet
from emodarts.systems.discrete import DiscreteNetwork
from emodarts.training.batches import Part
from emodarts.training.fit import train_network
from measure import parser, size_of, write
from scaling import power_law

SIZE, N_CLASSES, BATCH = 32, 4, 16
SIZES: dict[str, dict[str, tuple[int, ...]]] = {
    "full": {"utterances": (64, 128, 256), "cells": (3, 4, 6), "nodes": (1, 2, 4)},
    "quick": {"utterances": (32, 64, 128), "cells": (3, 4, 6), "nodes": (1, 2, 3)},
    "small": {"utterances": (8, 16, 24), "cells": (3, 4, 5), "nodes": (1, 2, 3)},
}
#: Multiply-adds of a first-order step of the papers' supernet with batch 16 (docs/performance.md):
#: 100e9 of the CNN; the SeqNN took 3.94 s at 58 % of 128 GFLOP/s.
STEP_FLOP = 2 * 100e9 + 3.94 * 0.58 * 128e9
STEP_BATCH = 16
#: Passes through the supernet: 2 of a first-order step, 5 of a second-order one by differences.
PASSES = {1: 2, 2: 5}
#: A forward pass alone, as a share of a pass forward and backward.
FORWARD = 1 / 3


def network_of(cells: int, nodes: int) -> NetworkSpec:
    """A small network."""
    return NetworkSpec(
        cnn=CNNSpec(cells=cells, nodes=nodes, channels=4),
        seqnn=SearchedSeqNN(space="lstm_att", cells=1, nodes=nodes, width=16),
    )


def part_of(n: int) -> Part:
    """Made-up features."""
    return Part(torch.randn(n, 1, SIZE, SIZE), torch.arange(n) % N_CLASSES)


def never(*asked: object) -> float:
    """Stand for what a one-shot search does not ask for."""
    raise NotImplementedError


def search_epoch(n: int, cells: int, nodes: int) -> float:
    """Processor seconds of an epoch of first-order search; each half has n utterances."""
    spec = SearchSpec(
        **{"strategy": "darts", "order": 1, "epochs": 1, "batch_size": BATCH},
        **{"warmup": "fixed", "warmup_epochs": 0},
    )
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        task = SearchTask(
            network=network_of(cells, nodes),
            weights=part_of(n),
            alphas=part_of(n),
            n_classes=N_CLASSES,
            seed=0,
            folder=TrialFolder(Path(folder)),
            device=torch.device("cpu"),
            compute=ComputeSpec(fast=False),
            progress=Silent(),
            title="search",
            evaluate=never,
            cross_validate=never,
        )
        strategy = STRATEGIES["darts"].build(spec)
        begun = time.process_time()
        strategy.search(task)
        return time.process_time() - begun


def training_epoch(n: int, cells: int, nodes: int) -> float:
    """Processor seconds of an epoch of training of the discrete network."""
    spec = network_of(cells, nodes)
    genotype: Genotype = random_genotype(spec, torch.Generator().manual_seed(0))
    network = DiscreteNetwork(genotype, spec, SIZE, N_CLASSES)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.process_time()
        train_network(
            network,
            part_of(n),
            None,
            TrainingSpec(epochs=1, batch_size=BATCH),
            N_CLASSES,
            seed=0,
            folder=TrialFolder(Path(folder)),
            progress=Silent(),
            title="training",
        )
        return time.process_time() - begun


def measure(sizes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """Seconds of every size, and the laws that they follow."""
    base = {name: values[0] for name, values in sizes.items()}
    found: dict[str, Any] = {}
    for what, epoch in (("search", search_epoch), ("training", training_epoch)):
        epoch(base["utterances"], base["cells"], base["nodes"])  # loads what is loaded once
        for name, values in sizes.items():
            taken = [
                epoch(*({**base, name: v}[k] for k in ("utterances", "cells", "nodes")))
                for v in values
            ]
            law: dict[str, float]
            if name == "utterances":
                slope, fixed = np.polyfit(values, taken, 1)
                law = {"fixed_s": float(fixed), "per_utterance_s": float(slope)}
                text = f"{fixed:.2f} s + {1000 * slope:.1f} ms for each"
            else:
                law = power_law(values, taken)
                low, high = law["low"], law["high"]
                text = f"~ {name} ** {law['exponent']:.2f} ({low:.2f} to {high:.2f})"
            seconds = ", ".join(f"{v}: {t:.2f} s" for v, t in zip(values, taken, strict=True))
            print(f"{what} epoch over {name}: {seconds}; {text}", flush=True)
            found[f"{what}_{name}"] = {"values": list(values), "seconds": taken, "law": law}
    return found


def estimate(
    n: int, gpus: int, batch: int, order: int, epochs: int, tflops: float, latency_us: float
) -> dict[str, float]:
    """Hours of one search, half of whose n utterances train weights, on some GPUs.

    ``batch`` is that of one GPU. Processes join the moments of every batch norm in every pass,
    forward and backward, which costs a latency each.
    """
    flop = STEP_FLOP / STEP_BATCH * PASSES[order] / PASSES[1]  # of an utterance that trains weights
    steps = n / 2 / (batch * gpus)
    computing = steps * batch * flop / (tflops * 1e12)
    judging = n / 2 / gpus * STEP_FLOP / STEP_BATCH / PASSES[1] * FORWARD / (tflops * 1e12)
    norms = batch_norms() * 2 * PASSES[order] if gpus > 1 else 0
    waiting = steps * norms * latency_us * 1e-6
    epoch = computing + judging + waiting
    return {"epoch_min": epoch / 60, "hours": epochs * epoch / 3600, "waiting": waiting / epoch}


def batch_norms() -> int:
    """Batch norms of the papers' supernet."""
    recipe = Recipe.from_dict({"network": {"seqnn": {"mode": "none"}}})
    network = recipe.network.model_copy(update={"cnn": CNNSpec(cells=4, nodes=4, channels=8)})
    supernet = Supernet(network, 128, N_CLASSES)
    return sum(isinstance(m, torch.nn.BatchNorm2d) for m in supernet.modules())


def print_estimates(arguments: argparse.Namespace) -> dict[str, Any]:
    """Print and return the estimate for each number of GPUs."""
    found = {}
    rate, latency = arguments.tflops, arguments.latency
    print(f"assumed: {rate:g} TFLOP/s, {latency:g} us a collective, batch {arguments.batch} a GPU")
    for gpus in map(int, arguments.gpus.split(",")):
        for order in PASSES:
            one = estimate(
                *(arguments.utterances, gpus, arguments.batch, order, arguments.epochs),
                *(rate, latency),
            )
            print(
                f"{gpus:3} GPUs, order {order}: {one['epoch_min']:.1f} min an epoch, "
                f"{one['hours']:.1f} h for {arguments.epochs} epochs "
                f"({100 * one['waiting']:.0f} % of it waiting for others)"
            )
            found[f"{gpus}_order_{order}"] = one
    return found


def main() -> None:
    """Print laws or estimates; write them as JSON if asked."""
    taking = parser(__doc__)
    taking.add_argument("--estimate", action="store_true")
    taking.add_argument("--utterances", type=int, default=200_000)
    taking.add_argument("--gpus", default="1,16")
    taking.add_argument("--batch", type=int, default=64, help="of each GPU")
    taking.add_argument("--epochs", type=int, default=50)
    taking.add_argument("--tflops", type=float, default=10.0, help="assumed rate of a GPU")
    taking.add_argument("--latency", type=float, default=30.0, help="assumed, in microseconds")
    arguments = taking.parse_args()
    device = configure(ComputeSpec(device="cpu", threads=1))
    if arguments.estimate:
        found = print_estimates(arguments)
    else:
        keep_freed_memory()
        found = measure(SIZES[size_of(arguments)])
    write("cost", arguments, found, device)


if __name__ == "__main__":
    main()

"""Planted tasks: searches whose right answer is known, for the tests of every strategy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from emodarts.genotype import SKIP, Genotype
from emodarts.layout import TrialFolder
from emodarts.progress import Silent
from emodarts.recipe import CNNSpec, ComputeSpec, NetworkSpec, NoSeqNN, SearchedSeqNN
from emodarts.recipe.spaces import SPACES, Operation, Operations
from emodarts.searching.strategy import Evaluate, SearchTask
from emodarts.training.batches import Part


@dataclass(frozen=True)
class Toy:
    """A task of two classes.

    Attributes
    ----------
    network : what is searched.
    weights, alphas, test : data for weights, for alphas, and to score a trained network on.
    answer : the operation that belongs on every edge, or None where a trained network must tell.
    """

    network: NetworkSpec
    weights: Part
    alphas: Part
    test: Part
    answer: str | None = None

    def task(
        self,
        folder: Path,
        seed: int,
        evaluate: Evaluate | None = None,
        compute: ComputeSpec | None = None,
    ) -> SearchTask:
        """What a strategy is given; ``evaluate`` is for strategies that train genotypes."""
        evaluate = evaluate or _cannot_evaluate
        return SearchTask(
            network=self.network,
            weights=self.weights,
            alphas=self.alphas,
            n_classes=2,
            seed=seed,
            folder=TrialFolder(folder),
            device=torch.device("cpu"),
            compute=compute or ComputeSpec(fast=False),
            progress=Silent(),
            title="search",
            evaluate=evaluate,
            cross_validate=lambda asked: [evaluate(candidate.genotype) for candidate in asked],
        )


def _cannot_evaluate(genotype: Genotype, epochs: int | None = None) -> float:
    raise ValueError("this strategy trains genotypes; give Toy.task a function that does")


# One candidate passes the signal


class _Signal(nn.Module):
    def __init__(self, stride: int, dim: int) -> None:
        super().__init__()
        self.stride, self.dim = stride, dim

    def forward(self, x: Tensor) -> Tensor:
        """Every ``stride``-th value, with mean 0 and variance 1 over all."""
        x = x[:, :, :: self.stride, :: self.stride] if self.dim == 4 else x
        return functional.layer_norm(x, x.shape)


class _Noise(_Signal):
    def forward(self, x: Tensor) -> Tensor:
        """Noise of the same shape and variance."""
        return torch.randn_like(super().forward(x))


PASSES = "passes"
_KINDS = {"noise_1": _Noise, PASSES: _Signal, "noise_2": _Noise, "noise_3": _Noise}


class _PlantedCNN(CNNSpec):
    @property
    def operations(self) -> Operations:
        return {
            name: Operation(lambda channels, stride, affine, kind=kind: kind(stride, 4))
            for name, kind in _KINDS.items()
        }


class _PlantedSeqNN(SearchedSeqNN):
    @property
    def operations(self) -> Operations:
        return {
            name: Operation(lambda width, kind=kind: kind(1, 3)) for name, kind in _KINDS.items()
        }


def one_candidate(seed: int, size: int = 60, cells: int = 1) -> Toy:
    """One candidate of four passes the signal; the others give noise of the same variance.

    ``cells`` are of the CNN; with 3 there is a normal one among them.
    """
    network = NetworkSpec(
        cnn=_PlantedCNN(cells=cells, nodes=1, channels=2),
        seqnn=_PlantedSeqNN(cells=1, nodes=1, width=4),
        pooling="mean",
        dropout=0.0,
    )

    def draw(targets: Tensor, generator: torch.Generator) -> Tensor:
        x = torch.randn(len(targets), 4, 8, generator=generator)
        return x + (targets - 0.5)[:, None, None]

    return _toy(network, draw, seed, size, PASSES)


# A lag that one candidate spans

_LAG = 5


def pulse_pairs(seed: int, size: int = 128) -> Toy:
    """Two pulses 5 frames apart, or 9 to 16: of all candidates, sep_conv_5x5 alone tells them.

    Behind a mean over time nothing is told but what a ReLU or a maximum sees. Counting the stem,
    that is 7 frames in the middle of sep_conv_5x5, 5 of sep_conv_3x3 and of a pool, and 3 of all
    others.
    """
    network = NetworkSpec(
        cnn=CNNSpec(cells=1, nodes=1, channels=4),
        seqnn=NoSeqNN(mode="none"),
        pooling="mean",
        dropout=0.0,
    )
    length = 32

    def draw(targets: Tensor, generator: torch.Generator) -> Tensor:
        x = 0.1 * torch.randn(len(targets), 2, length, generator=generator)
        for row, target in zip(x, targets.tolist(), strict=True):
            lag = _LAG if target else _uniform(9, 17, generator)
            start = _uniform(4, length - 4 - lag, generator)
            row[:, start] += 3.0
            row[:, start + lag] += 3.0
        return x

    return _toy(network, draw, seed, size, "sep_conv_5x5")


# The order of two events


class _PoolingCNN(CNNSpec):
    @property
    def operations(self) -> Operations:
        known = SPACES["all"].cnn
        return {name: known[name] for name in ("max_pool_3x3", SKIP)}


def order_of_events(space: str, seed: int, size: int = 96) -> Toy:
    """Two different events at random positions; the class is which of them comes first.

    They are 8 frames apart at least; stem and CNN cell read 5.
    """
    network = NetworkSpec(
        cnn=_PoolingCNN(cells=1, nodes=1, channels=4),
        seqnn=SearchedSeqNN(space=space, cells=1, nodes=1, width=16),
        dropout=0.0,
    )
    length = 24

    def draw(targets: Tensor, generator: torch.Generator) -> Tensor:
        x = 0.1 * torch.randn(len(targets), 4, length, generator=generator)
        for row, target in zip(x, targets.tolist(), strict=True):
            gap = _uniform(8, 17, generator)
            start = _uniform(2, length - 4 - gap, generator)
            first, second = (row[:2], row[2:]) if target else (row[2:], row[:2])
            first[:, start : start + 2] += 2.0
            second[:, start + gap : start + gap + 2] += 2.0
        return x

    return _toy(network, draw, seed, size)


def _uniform(low: int, high: int, generator: torch.Generator) -> int:
    return int(torch.randint(low, high, (), generator=generator))


def _toy(
    network: NetworkSpec,
    draw: Callable[[Tensor, torch.Generator], Tensor],
    seed: int,
    size: int,
    answer: str | None = None,
) -> Toy:
    """Draw three parts of ``size`` utterances (N, 1, F, T), half of them of each class."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(size) % 2
    weights, alphas, test = (Part(draw(targets, generator)[:, None], targets) for _ in range(3))
    return Toy(network, weights, alphas, test, answer)

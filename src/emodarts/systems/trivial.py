"""Systems that learn nothing from audio: any other must beat them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from emodarts.recipe.system import ChanceSpec, MajoritySpec
from emodarts.systems.system import Cost, FitTask, Outcome, Saved


@dataclass(frozen=True)
class Constant:
    """The same class probabilities ``(K,)`` for every utterance."""

    shares: Tensor

    genotype = None

    def probabilities(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """``(B, K)``."""
        features = next(iter(inputs.values()))
        return self.shares.expand(len(features), -1)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The probabilities."""
        return {"shares": self.shares}, {}


class Majority:
    """The most frequent class of the development utterances; ties go to the first class."""

    def __init__(self, spec: MajoritySpec) -> None:
        self.spec = spec

    def fit(self, task: FitTask) -> Outcome:
        """Count the classes."""
        targets = task.data.targets(task.parts.development)
        counts = torch.bincount(targets, minlength=task.n_classes)
        shares = torch.zeros(task.n_classes, dtype=torch.float64)
        shares[int(counts.numpy().argmax())] = 1.0  # the first of several, unlike torch's
        return Outcome(Constant(shares), Cost(0, 0))

    def restore(self, saved: Saved) -> Constant:
        """The answer of stored probabilities. Raises ``ValueError`` if they do not fit."""
        shares = saved.tensors["shares"]
        if shares.shape != (len(saved.classes),):
            raise ValueError(f"{len(shares)} probabilities for {len(saved.classes)} classes")
        return Constant(shares)


@dataclass(frozen=True)
class Draw:
    """A class for every utterance, drawn uniformly by the bits of its features."""

    n_classes: int

    genotype = None

    def probabilities(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """``(B, K)``, all on one class."""
        features = next(iter(inputs.values()))
        rows = (hashlib.sha256(row.contiguous().numpy().tobytes()).digest() for row in features)
        drawn = [int.from_bytes(digest[:8], "big") % self.n_classes for digest in rows]
        return torch.eye(self.n_classes, dtype=torch.float64)[drawn]

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Nothing was learned."""
        return {}, {}


class Chance:
    """Random answers: what a protocol gives to a system that knows nothing."""

    def __init__(self, spec: ChanceSpec) -> None:
        self.spec = spec

    def fit(self, task: FitTask) -> Outcome:
        """Nothing is learned."""
        return Outcome(Draw(task.n_classes), Cost(0, 0))

    def restore(self, saved: Saved) -> Draw:
        """The same answers."""
        return Draw(len(saved.classes))

"""Accuracy and cost of the second-order gradient: exact, or the difference quotient.

    python benchmarks/hessian.py [--set KEY=VALUE ...] [--json FILE]

Errors are relative to the exact gradient in float64 on a supernet of the size of `cells`, at its
start and after some steps, on made-up features, for two lengths of the step that the second-order
gradient looks ahead. Costs are ratios to a first-order step of alphas, each measured in a process
of its own, in turn. `--set` changes the recipe, e.g. network.seqnn.normalise=false.
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from emodarts.fast import resolve
from emodarts.recipe import CNNSpec, NetworkSpec, SearchedSeqNN, load_recipe
from emodarts.searching.gradients import (
    Batch,
    LookAhead,
    first_order_gradient,
    second_order_gradient,
)
from emodarts.searching.supernet import Supernet
from emodarts.systems.neural import training_views
from measure import in_fresh_process, parser, seconds, size_of, write

EPSILONS = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
#: Training steps before the errors are measured.
STEPS = {"full": (0, 30), "quick": (0,), "small": (0,)}
#: Network and map that stand for those of `cells` in tests.
SMALL = NetworkSpec(
    cnn=CNNSpec(cells=3, nodes=1, channels=2),
    seqnn=SearchedSeqNN(space="rnn_att", cells=1, nodes=1, width=4),
)
SMALL_MAP = (10, 12)
N_CLASSES = 4
#: Learning rates: of DARTS, which trains the weights, and a tenth of it to look ahead.
RATES = (0.025, 0.0025)
METHODS = ("first order", "finite difference", "exact")


def build(size: str, changes: Sequence[str]) -> tuple[Supernet, int, int]:
    """The supernet of `cells`, and the size of its features."""
    recipe = load_recipe("cells", changes)
    spec, n_features, n_frames = SMALL, *SMALL_MAP
    if size != "small":
        views = training_views(recipe)
        spec, n_features, n_frames = recipe.network, recipe.features.n_features, views.frames
    torch.manual_seed(0)
    implementation = resolve(True, torch.device("cpu"))
    supernet = Supernet(spec, n_features, N_CLASSES, implementation=implementation)
    return supernet.train(), n_features, n_frames


class Batches:
    """Noisy class prototypes, so that there is something to learn."""

    def __init__(self, n_features: int, n_frames: int, size: int = 16) -> None:
        self.generator = torch.Generator().manual_seed(0)
        shape = (N_CLASSES, 1, n_features, n_frames)
        self.prototypes = torch.randn(shape, generator=self.generator)
        self.size = size

    def draw(self) -> Batch:
        """Features (B, 1, F, T) and targets (B,)."""
        targets = torch.randint(N_CLASSES, (self.size,), generator=self.generator)
        clean = self.prototypes[targets]
        return 0.7 * clean + torch.randn(clean.shape, generator=self.generator), targets


def gradient(
    method: str, supernet: Supernet, train: Batch, validation: Batch, rate: float, eps: float
) -> Tensor:
    """Gradient of all alphas in one vector."""
    loss = functional.cross_entropy
    if method == "first order":
        found = first_order_gradient(supernet, validation, loss)
    else:
        found = second_order_gradient(
            supernet,
            train,
            validation,
            loss,
            LookAhead(rate, 0.9, 3e-4, {}),
            hessian="exact" if method == "exact" else "finite_difference",
            epsilon=eps,
        )
    return torch.cat([g.flatten().double() for g in found.values()])


def measure_accuracy(size: str, changes: Sequence[str]) -> list[dict[str, Any]]:
    """Relative errors for both rates, after each number of training steps."""
    rows = []
    for steps in STEPS[size]:
        supernet, n_features, n_frames = build(size, changes)
        batches = Batches(n_features, n_frames, 8)
        optimiser = torch.optim.SGD(supernet.parameters(), lr=RATES[0], momentum=0.9)
        for _ in range(steps):
            features, targets = batches.draw()
            optimiser.zero_grad()
            functional.cross_entropy(supernet(features), targets).backward()
            torch.nn.utils.clip_grad_norm_(supernet.parameters(), 5.0)
            optimiser.step()
        drawn = batches.draw(), batches.draw()
        for rate in RATES:
            rows.append({"rate": rate, "steps": steps, "errors": errors(supernet, *drawn, rate)})
    return rows


def errors(supernet: Supernet, train: Batch, validation: Batch, rate: float) -> dict[str, float]:
    """Relative errors of each method in float32 against the exact one in float64."""
    # Masks are drawn in the precision of the pass: without dropout both precisions agree.
    supernet.network.dropout.p = 0.0
    double = copy.deepcopy(supernet).double()
    in_double = [(features.double(), targets) for features, targets in (train, validation)]
    reference = gradient("exact", double, *in_double, rate, 1.0)
    asked = [("first order", "first order", 1.0), ("exact float32", "exact", 1.0)]
    asked += [(f"eps {eps:g}", "finite difference", eps) for eps in EPSILONS]
    found = {}
    for name, method, eps in asked:
        difference = gradient(method, supernet, train, validation, rate, eps) - reference
        found[name] = float(difference.norm() / reference.norm())
    return found


def cost(method: str, size: str, changes: Sequence[str]) -> float:
    """Seconds (median of three) of a step of alphas."""
    supernet, n_features, n_frames = build(size, changes)
    batches = Batches(n_features, n_frames)
    train, validation = batches.draw(), batches.draw()
    given = supernet, train, validation, RATES[0], 0.3
    gradient("first order", *given)
    return statistics.median(seconds(lambda: gradient(method, *given)) for _ in range(3))


def measure_cost(size: str, changes: Sequence[str]) -> dict[str, dict[str, float]]:
    """Time and peak memory of each method over those of first order."""
    found = {method: in_fresh_process(cost, method, size, changes) for method in METHODS}
    first, memory = found["first order"]
    return {
        m: {"time_ratio": s / first, "memory_ratio": p["peak"] / memory["peak"]}
        for m, (s, p) in found.items()
    }


def main() -> None:
    """Print both tables, and write them as JSON if asked."""
    taking = parser(__doc__)
    taking.add_argument("--set", action="append", default=[], help="of the recipe", dest="changes")
    arguments = taking.parse_args()
    size, changes = size_of(arguments), arguments.changes
    costs, accuracy = measure_cost(size, changes), measure_accuracy(size, changes)
    print("step of alphas   time  peak memory (over first order)")
    for method, ratios in costs.items():
        print(f"{method:16} {ratios['time_ratio']:4.1f}  {ratios['memory_ratio']:4.1f}")
    for row in accuracy:
        print(f"\nrelative error, rate {row['rate']:g}, after {row['steps']} steps")
        for name, value in row["errors"].items():
            print(f"{name:16} {value:.1e}")
    write("hessian", arguments, {"cost": costs, "accuracy": accuracy}, torch.device("cpu"))


if __name__ == "__main__":
    main()

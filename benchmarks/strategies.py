"""Every search strategy on tasks whose answer is known, and what an epoch of it takes.

    python benchmarks/strategies.py [--json FILE] [--only gdas,snas]

Each strategy has the keys of its recipe, with the epochs (in each stage) and rates of the toy, and
searches every toy of ``emodarts.searching.toys`` with three seeds. ``candidate`` and ``lag`` count
the searches that end with the planted operation on every edge, ``recurrent`` those whose network
tells the order of two events (UA of at least 0.9); in brackets is the mean UA of the networks
found, trained anew. Strategies that train one genotype after the other get 24. ``plain`` and
``fast`` are the processor seconds of a step that trains alphas and weights, on one thread, in the
supernet of recipe ``cells`` with maps of 64 x 50 and batches of 16, without and with compiled
cells, which only some strategies can use.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from emodarts.errors import EmodartsError
from emodarts.fast import keep_freed_memory
from emodarts.genotype import SKIP, Genotype
from emodarts.layout import TrialFolder
from emodarts.progress import Silent
from emodarts.recipe import STRATEGIES, ComputeSpec, Recipe, TrainingSpec, load_recipe
from emodarts.recipe.search import SearchSpec
from emodarts.runtime import configure
from emodarts.searching.strategy import SearchTask
from emodarts.searching.toys import Toy, one_candidate, order_of_events, pulse_pairs
from emodarts.systems.discrete import DiscreteNetwork
from emodarts.training.batches import Part, loss_and_ua, predict_logits
from emodarts.training.fit import train_network
from measure import parser, size_of, write

#: Recipes whose search is tried; ``cells`` is DARTS itself, of first order.
ONE_SHOT = (
    *("cells", "pc-darts", "gdas", "drnas", "snas", "fair-darts", "darts-minus", "p-darts"),
    *("smooth-darts", "beta-darts", "darts-pt", "shared-random"),
)
TRAINING_EACH: dict[str, dict[str, Any]] = {
    "random": {"candidates": 24},
    "evolution": {"population": 8, "sample": 3, "evaluations": 24, "epochs": None},
    "controller": {"evaluations": 24, "epochs": None},
    "halving": {"rounds": [[16, 1], [8, 2]], "epochs": None},
}
TOYS: dict[str, tuple[Callable[[int], Toy], dict[str, Any]]] = {
    "candidate": (
        one_candidate,
        {
            **{"epochs": 20, "batch_size": 12, "alphas": {"learning_rate": 5e-2}},
            **{"warmup": "fixed", "warmup_epochs": 0},
        },
    ),
    "lag": (
        pulse_pairs,
        {
            **{"epochs": 24, "batch_size": 16, "alphas": {"learning_rate": 2e-2}},
            **{"warmup": "above_chance", "warmup_share": 0.6, "weights": {"learning_rate": 0.1}},
        },
    ),
    "recurrent": (
        lambda seed: order_of_events("lstm", seed),
        {
            **{"epochs": 14, "batch_size": 16, "alphas": {"learning_rate": 2e-2}},
            **{"warmup": "above_chance", "warmup_share": 0.6, "weights": {"learning_rate": 0.1}},
        },
    ),
}
#: Needs a normal cell, which a CNN of one cell has not; with three, the other toys would have
#: other answers.
DEEPER = ("p-darts", "candidate")
SEEDS = {"full": (0, 1, 2), "quick": (0,), "small": (0,)}
_TRAINING = TrainingSpec(
    epochs=10,
    batch_size=16,
    optimiser="adamw",
    learning_rate=1e-2,
    weight_decay=1e-2,
    schedule="one_cycle",
)


def search_of(name: str, keys: dict[str, Any]) -> SearchSpec:
    """The search of a recipe with other keys; ``epochs`` are those of a stage."""
    own = load_recipe(name).search.model_dump(mode="json")
    if name in TRAINING_EACH:
        keys = TRAINING_EACH[name]
    elif stages := own.get("stages"):
        keys = {**keys, "epochs": keys["epochs"] * len(stages)}
    merged = {
        key: {**own[key], **value} if isinstance(value, dict) else value
        for key, value in keys.items()
    }
    found: SearchSpec = Recipe.from_dict({"search": {**own, **merged}}).search
    return found


def what_lacks(name: str, toy: Toy) -> str | None:
    """What a strategy needs and a toy has not; None if it can be searched."""
    if name == "p-darts" and "normal" not in toy.network.cnn.cell_names:
        return "there is no normal cell"
    if name == "darts-minus" and any(SKIP not in o for o in toy.network.operations.values()):
        return f"no candidate is {SKIP}"
    return None


def trained(toy: Toy, genotype: Genotype, seed: int, judged_on: Part) -> float:
    """UA of the network of a genotype, trained on the data for weights."""
    torch.manual_seed(seed)
    network = DiscreteNetwork(genotype, toy.network, toy.test.features.shape[2], 2)
    with tempfile.TemporaryDirectory() as folder:
        where = {"folder": TrialFolder(Path(folder)), "progress": Silent(), "title": "train"}
        train_network(network, toy.weights, None, _TRAINING, 2, seed=seed, **where)  # type: ignore[arg-type]
    return loss_and_ua(predict_logits(network, judged_on.features), judged_on.targets)[1]


@dataclass(frozen=True)
class Found:
    """Whether a search found what is planted, and the UA of its network, trained anew."""

    planted: bool
    ua: float


def find(name: str, toy_name: str, seed: int, epochs: int | None = None) -> Found | str:
    """Search a toy; the reason if a strategy cannot."""
    make, keys = TOYS[toy_name]
    toy = one_candidate(seed, cells=3) if (name, toy_name) == DEEPER else make(seed)
    if lacking := what_lacks(name, toy):
        return lacking
    try:
        spec = search_of(name, keys if epochs is None else {**keys, "epochs": epochs})
        with tempfile.TemporaryDirectory() as folder:
            task = toy.task(
                Path(folder),
                seed,
                lambda genotype, _=None: trained(toy, genotype, seed, toy.alphas),
            )
            found: Genotype = STRATEGIES[spec.strategy].build(spec).search(task)
    except EmodartsError as error:
        return str(error)
    ua = trained(toy, found, seed, toy.test)
    operations = {e.operation for cell in found.cells.values() for node in cell for e in node}
    return Found(ua >= 0.9 if toy.answer is None else operations == {toy.answer}, ua)


class Clock(Silent):
    """Notes the processor time at the end of each step."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def advance(self, **values: float) -> None:
        """End a step."""
        self.ends.append(time.process_time())


def step_seconds(name: str, fast: bool, n_steps: int) -> float:
    """Processor seconds of the median step of a recipe's search."""
    recipe = load_recipe("cells")
    part = Part(torch.randn(16 * n_steps, 1, 64, 50), torch.arange(16 * n_steps) % 4)
    keys = {"epochs": 3, "batch_size": 16, "warmup": "fixed", "warmup_epochs": 0}
    spec, clock = search_of(name, keys), Clock()
    with tempfile.TemporaryDirectory() as folder:
        task = SearchTask(
            network=recipe.network,
            weights=part,
            alphas=part,
            n_classes=4,
            seed=0,
            folder=TrialFolder(Path(folder)),
            device=torch.device("cpu"),
            compute=ComputeSpec(fast=fast),
            progress=clock,
            title="search",
            evaluate=lambda *asked: 0.0,
            cross_validate=lambda asked: [0.0] * len(asked),
        )
        STRATEGIES[spec.strategy].build(spec).search(task)
    return statistics.median(b - a for a, b in pairwise(clock.ends))


def measure(names: Sequence[str], seeds: Sequence[int], epochs: int | None) -> dict[str, Any]:
    """Print and return a row for each strategy."""
    head = (*TOYS, "plain s", "fast s")
    print(f"{'strategy':14}" + "".join(f"{column:>15}" for column in head))
    rows: dict[str, Any] = {}
    for name in names:
        row: dict[str, Any] = {}
        for toy in TOYS:
            found = [find(name, toy, seed, epochs) for seed in seeds]
            reasons = [each for each in found if isinstance(each, str)]
            ends = [each for each in found if isinstance(each, Found)]
            row[toy] = reasons[0] if reasons else _summary(ends)
        shown = [_shown(row[toy], len(seeds)) for toy in TOYS]
        if name in ONE_SHOT:
            row["step_s"] = [step_seconds(name, fast, 2 if epochs else 4) for fast in (False, True)]
            shown += [f"{seconds:.3f}" for seconds in row["step_s"]]
        print(f"{name:14}" + "".join(f"{each:>15}" for each in shown), flush=True)
        rows[name] = row
    for name, row in rows.items():
        for toy in TOYS:
            if isinstance(row[toy], str):
                print(f"{name}, {toy}: {row[toy]}")
    return {"strategies": rows, "seeds": list(seeds)}


def _summary(found: Sequence[Found]) -> dict[str, float]:
    return {
        "planted": sum(each.planted for each in found),
        "ua": statistics.mean(each.ua for each in found),
    }


def _shown(entry: dict[str, float] | str, searches: int) -> str:
    if isinstance(entry, str):
        return "cannot"
    return f"{entry['planted']} of {searches} ({entry['ua']:.2f})"


def main() -> None:
    """Print the table; write it as JSON if asked."""
    taking = parser(__doc__)
    taking.add_argument("--only", help="recipes, by commas")
    arguments = taking.parse_args()
    names = arguments.only.split(",") if arguments.only else [*ONE_SHOT, *TRAINING_EACH]
    device = configure(ComputeSpec(device="cpu", threads=1))
    keep_freed_memory()
    size = size_of(arguments)
    found = measure(names, SEEDS[size], 1 if size == "small" else None)
    write("strategies", arguments, found, device)


if __name__ == "__main__":
    main()

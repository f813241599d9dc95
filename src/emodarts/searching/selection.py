"""DARTS-PT (arXiv 2108.04392): candidates whose removal hurts the supernet make the genotype."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from emodarts import parallel
from emodarts.genotype import EDGES_PER_NODE, NONE, Edge, Genotype
from emodarts.runtime import derive_seed
from emodarts.searching.mixing import Mixing
from emodarts.searching.one_shot import Search
from emodarts.space.cell import edges
from emodarts.training.batches import shuffled_batches

#: Higher is better: UA on the data for alphas, and their loss between equals.
Merit = tuple[float, float]


def select_by_perturbation(search: Search, tune_epochs: int) -> Genotype:
    """Decide the operation of every edge, then the edges of every node, in random order.

    The operation that stays is the one without which the supernet is worst; likewise the two edges
    of a node. After each decision the weights are trained for ``tune_epochs``.
    """
    order = torch.Generator().manual_seed(derive_seed(search.task.seed, "selection"))
    spec = search.task.network
    kept = {
        name: torch.ones(len(edges(nodes)), len(spec.operations[name]), dtype=torch.bool)
        for name, nodes in spec.nodes.items()
    }
    tuned = 0

    def tune() -> None:
        nonlocal tuned
        for _ in range(tune_epochs):
            _train(search, kept, tuned)
            tuned += 1

    places = [(name, row) for name, rows in kept.items() for row in range(len(rows))]
    progress = search.task.progress
    progress.start(f"{search.task.title}, selection", len(places) + sum(spec.nodes.values()))
    for k in torch.randperm(len(places), generator=order).tolist():
        name, row = places[k]
        candidates = [c for c, op in enumerate(spec.operations[name]) if op != NONE]
        best = _worst_without(search, kept, name, [(row, c) for c in candidates])
        kept[name][row] = False
        kept[name][row, candidates[best]] = True
        tune()
        progress.advance()
    for name, nodes in spec.nodes.items():
        ends = edges(nodes)
        for node in torch.randperm(nodes, generator=order).tolist():
            rows = [row for row, (_, to) in enumerate(ends) if to == node]
            for _ in range(len(rows) - EDGES_PER_NODE):
                merits = [_merit(search, _without(kept, name, row)) for row in rows]
                weakest = max(range(len(rows)), key=lambda k: merits[k])
                kept[name][rows.pop(weakest)] = False
            if len(ends) > EDGES_PER_NODE * nodes:
                tune()
            progress.advance()
    return _genotype(kept, spec.operations, spec.nodes)


def _worst_without(
    search: Search, kept: Mapping[str, Tensor], name: str, places: Sequence[tuple[int, int]]
) -> int:
    """Which of some candidates costs most when it is removed; the first of equals."""
    merits = [_merit(search, _without(kept, name, row, column)) for row, column in places]
    return min(range(len(places)), key=lambda k: (merits[k], k))


def _without(
    kept: Mapping[str, Tensor], name: str, row: int, column: int | None = None
) -> dict[str, Tensor]:
    """The mask without one candidate, or without a whole edge."""
    left = {key: mask.clone() for key, mask in kept.items()}
    left[name][row, slice(None) if column is None else column] = False
    return left


def masked(mixing: Mixing, kept: Mapping[str, Tensor]) -> Mixing:
    """Weights of the candidates that are kept, scaled up to the old sum of their edge."""

    def mix(alphas: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = {}
        for name, weights in mixing(alphas).items():
            left = weights * kept[name].to(weights)
            total = left.sum(dim=-1, keepdim=True)
            scale = weights.sum(dim=-1, keepdim=True) / total.clamp_min(1e-12)
            found[name] = left * scale
        return found

    return mix


def _merit(search: Search, kept: Mapping[str, Tensor]) -> Merit:
    loss, ua = search.judge(masked(search.mixing, kept))
    return ua, -loss


def _train(search: Search, kept: Mapping[str, Tensor], epoch: int) -> None:
    """One pass over the data for weights, with the candidates that are left."""
    task, spec = search.task, search.spec
    seed = derive_seed(task.seed, "selection", epoch)
    torch.manual_seed(seed)
    search.supernet.train()
    search.supernet.mixing = masked(search.mixing, kept)
    for index in shuffled_batches(len(task.weights), spec.batch_size, seed):
        batch = parallel.own(task.weights.batch(index))
        search.step_weights(batch, f"selection, epoch {epoch + 1}")
    search.supernet.mixing = search.mixing


def _genotype(
    kept: Mapping[str, Tensor],
    operations: Mapping[str, Sequence[str]],
    nodes: Mapping[str, int],
) -> Genotype:
    cells: dict[str, Any] = {}
    for name, mask in kept.items():
        into: list[list[Edge]] = [[] for _ in range(nodes[name])]
        for row, (source, node) in enumerate(edges(nodes[name])):
            if mask[row].any():
                column = int(mask[row].to(torch.int8).argmax())
                into[node].append(Edge(operations[name][column], source))
        cells[name] = tuple(map(tuple, into))
    return Genotype(**cells)

"""Stages of a search that grows deeper while candidates drop out (P-DARTS, arXiv 1904.12760)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from emodarts.genotype import NONE, SKIP
from emodarts.recipe import NetworkSpec
from emodarts.recipe.search import StageSpec
from emodarts.searching.edges import SkipDropout
from emodarts.searching.mixing import Mixing
from emodarts.searching.one_shot import Search
from emodarts.searching.stops import OF_ONE_SUPERNET

#: Columns of the candidates that each edge still has, by cell.
Kept = Mapping[str, Sequence[Sequence[int]]]


def first_epoch(stages: int, stage: int, epochs: int) -> int:
    """The epoch, from 0, that a stage begins with."""
    return stage * epochs // stages


def enter(search: Search, stages: Sequence[StageSpec]) -> None:
    """Before an epoch: begin the next stage where it is time; let the dropout of skips decay."""
    stage = search.memory.get("stage", 0)
    begin, end = (first_epoch(len(stages), k, search.spec.epochs) for k in (stage, stage + 1))
    if search.epoch >= end:
        stage, begin = stage + 1, end
        end = first_epoch(len(stages), stage + 1, search.spec.epochs)
        if stages[stage].candidates is not None:
            weights = search.mixing(search.supernet.alpha_parameters())
            search.memory["kept"] = strongest(
                weights, search.task.network.operations, stages[stage].candidates
            )
        search.memory["stage"] = stage
        for key in OF_ONE_SUPERNET:
            search.memory.pop(key, None)
        search.begin(begin, end - begin)
        search.build()
    probability = stages[stage].skip_dropout * (1 - (search.epoch - begin) / (end - begin))
    for module in search.supernet.modules():
        if isinstance(module, SkipDropout):
            module.dropout.p = probability


def strongest(
    weights: Mapping[str, Tensor], operations: Mapping[str, Sequence[str]], count: int
) -> dict[str, list[list[int]]]:
    """Columns of the ``count`` strongest candidates of every edge, in order.

    One of them is neither ``none`` nor a skip connection, where there is one, so that an operation
    is left for the genotype, and for a limit of skip connections.

    Parameters
    ----------
    weights : (E, O) of each cell.
    operations : names of its O candidates.
    """
    kept: dict[str, list[list[int]]] = {}
    for name, of_cell in weights.items():
        computing = [k for k, o in enumerate(operations[name]) if o not in (NONE, SKIP)]
        kept[name] = []
        for row in of_cell.tolist():
            ranked = sorted(range(len(row)), key=lambda k: -row[k])
            columns = ranked[:count]
            if computing and not set(computing) & set(columns):
                columns[-1] = max(computing, key=lambda k: row[k])
            kept[name].append(sorted(columns))
    return kept


def network_of(network: NetworkSpec, stage: StageSpec) -> NetworkSpec:
    """The network that is searched in a stage."""
    cnn = network.cnn.model_copy(update={"cells": stage.cells})
    return network.model_copy(update={"cnn": cnn})


def restricted(mixing: Mixing, kept: Kept) -> Mixing:
    """Candidates that dropped out have an alpha of minus infinity, and weight 0."""

    def mix(alphas: Mapping[str, Tensor]) -> dict[str, Tensor]:
        left = dict(alphas)
        for name, columns in kept.items():
            allowed = torch.zeros_like(alphas[name], dtype=torch.bool)
            allowed.scatter_(1, torch.tensor(columns, device=alphas[name].device), True)
            left[name] = alphas[name].masked_fill(~allowed, -torch.inf)
        return mixing(left)

    return mix

"""DARTS (arXiv 1806.09055), first and second order, and the methods that change a part of it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from emodarts.genotype import Genotype
from emodarts.recipe import DartsSpec
from emodarts.searching import relaxation, stages, stops
from emodarts.searching.derivation import derive_genotype
from emodarts.searching.edges import AuxiliarySkip, Edges
from emodarts.searching.gradients import Batch, second_order_gradient
from emodarts.searching.mixing import Mixing
from emodarts.searching.one_shot import (
    Hooks,
    Search,
    add_edge_parameters,
    build_supernet,
    choose,
    first_order,
    search_one_shot,
)
from emodarts.searching.penalties import total
from emodarts.searching.selection import select_by_perturbation
from emodarts.searching.smoothing import perturbed
from emodarts.searching.strategy import SearchTask
from emodarts.searching.supernet import Supernet


class Darts:
    """Alphas weight all candidates and descend on the loss of their own half of the data."""

    def __init__(self, spec: DartsSpec) -> None:
        self.spec = spec

    def search(self, task: SearchTask) -> Genotype:
        """As :func:`emodarts.searching.one_shot.search_one_shot`."""
        spec = self.spec
        disturbs = spec.smoothing.kind != "none" or spec.relaxation.path_dropout > 0
        matching = spec.stop.gradient_matching
        hooks = Hooks(
            build=self._build,
            weights=self._weights,
            draw=self._draw,
            disturb=self._disturb if disturbs else None,
            gradient=first_order if spec.order == 1 else self.second_order,
            penalty=self._penalty if spec.penalties.any else None,
            adjust=None if matching is None else stops.GradientMatching(matching),
            begin_epoch=self._begin_epoch,
            derive=self._derive,
            choose=self._choose,
        )
        return search_one_shot(spec, task, hooks)

    def second_order(self, search: Search, train: Batch, validation: Batch) -> dict[str, Tensor]:
        """Total derivative of the validation loss past the next step of the weights."""
        return second_order_gradient(
            search.supernet,
            train,
            validation,
            search.loss,
            search.look_ahead(),
            hessian=self.spec.hessian,
            epsilon=self.spec.epsilon,
        )

    def _build(self, search: Search) -> Supernet:
        spec, network = self.spec, search.task.network
        edges = Edges(
            sparse=spec.relaxation.kind == "one_hot" or bool(spec.stages),
            parts=spec.partial_channels,
            auxiliary_skip=spec.auxiliary_skip,
            skip_dropout=any(stage.skip_dropout > 0 for stage in spec.stages),
        )
        if spec.stages:
            network = stages.network_of(network, spec.stages[search.memory.get("stage", 0)])
        supernet = build_supernet(search, edges.builder, network)
        if spec.edge_normalisation:
            add_edge_parameters(supernet, spec.alphas.initial_sd)
        return supernet

    def _weights(self, search: Search, alphas: Mapping[str, Tensor]) -> dict[str, Tensor]:
        expected = relaxation.EXPECTED[self.spec.relaxation.kind]
        return self._mixing(search, dict.fromkeys(search.task.network.nodes, expected))(alphas)

    def _draw(self, search: Search, train: Batch) -> Mixing:
        drawn = relaxation.draw(self.spec.relaxation, _of_cells(search), search.share)
        return self._mixing(search, drawn)

    def _mixing(self, search: Search, weigh: Mapping[str, relaxation.Weigh]) -> Mixing:
        return stages.restricted(relaxation.mixing(weigh), search.memory.get("kept", {}))

    def _disturb(self, search: Search, train: Batch, mixing: Mixing) -> Mixing:
        spec = self.spec
        if spec.relaxation.path_dropout > 0:
            mixing = relaxation.without_paths(
                mixing(search.supernet.alpha_parameters()), spec.relaxation.path_dropout
            )
        if spec.smoothing.kind != "none":
            size = relaxation.at(spec.smoothing.size, search.share)
            mixing = perturbed(search, train, mixing, spec.smoothing, size)
        return mixing

    def _penalty(self, search: Search) -> Tensor:
        weights = search.mixing(search.supernet.alpha_parameters())
        return total(self.spec.penalties, _of_cells(search), weights, search.share)

    def _begin_epoch(self, search: Search) -> None:
        spec = self.spec
        if spec.stages:
            stages.enter(search, spec.stages)
        for module in search.supernet.modules():
            if isinstance(module, AuxiliarySkip):
                module.weight = 1.0 - search.share
        self._stop_if_due(search)

    def _stop_if_due(self, search: Search) -> None:
        """Stop by what the epochs that are done have led to."""
        limit, factor = self.spec.stop.skips, self.spec.stop.eigenvalue
        if factor is not None:
            values = search.memory.setdefault("eigenvalues", [])
        if not search.rows or search.rows[-1]["warm_up"]:
            return
        if limit is not None:
            searched = sum(not row["warm_up"] for row in search.rows)
            if stops.exceeds_skips(search.records[-searched:], limit):
                search.stop(before=1)
        if factor is not None:
            values.append(stops.dominant_eigenvalue(search, search.alpha_batch()))
            if stops.has_grown(values, factor):
                search.stop(before=stops.WINDOW)

    def _derive(self, search: Search) -> Genotype:
        return derive_genotype(
            search.supernet.alpha_parameters(),
            search.task.network,
            search.mixing,
            self.spec.derivation.max_skips,
        )

    def _choose(self, search: Search) -> Genotype:
        if "stopped" not in search.memory:
            self._stop_if_due(search)  # the last epoch counts like every other
        if self.spec.derivation.by == "perturbation":
            return select_by_perturbation(search, self.spec.derivation.tune_epochs)
        return choose(search)


def _of_cells(search: Search) -> dict[str, Tensor]:
    """Alphas of the candidates, without those of edges."""
    parameters = search.supernet.alpha_parameters()
    return {name: parameters[name] for name in search.task.network.nodes}

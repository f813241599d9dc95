"""DARTS (arXiv 1806.09055), first and second order."""

from __future__ import annotations

from torch import Tensor

from emodarts.genotype import Genotype
from emodarts.recipe import DartsSpec
from emodarts.searching.gradients import Batch, second_order_gradient
from emodarts.searching.one_shot import Hooks, Search, first_order, search_one_shot
from emodarts.searching.strategy import SearchTask


class Darts:
    """Alphas weight all candidates and descend on the loss of their own half of the data."""

    def __init__(self, spec: DartsSpec) -> None:
        self.spec = spec

    def search(self, task: SearchTask) -> Genotype:
        """As :func:`emodarts.searching.one_shot.search_one_shot`."""
        gradient = first_order if self.spec.order == 1 else self.second_order
        return search_one_shot(self.spec, task, Hooks(gradient=gradient))

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

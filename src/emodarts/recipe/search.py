"""Section ``search``: how the genotype is found. Every strategy has keys of its own.

A strategy is a class of keys and a line of :data:`STRATEGIES` here, and a file in
``searching/strategies/``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from emodarts.recipe.section import (
    Fraction,
    Kind,
    KindSection,
    NonNegative,
    Positive,
    PositiveInt,
    Section,
)

Precision = Literal["fp32", "bf16"]


class WeightOptimiser(Section):
    """SGD for the weights of the supernet, with a cosine schedule over epochs."""

    learning_rate: Positive = 0.025
    """Learning rate of the first epoch."""
    learning_rate_min: NonNegative = 0.001
    """Learning rate at the end of the cosine; at most ``learning_rate``."""
    momentum: Fraction = 0.9
    """Momentum of SGD."""
    weight_decay: NonNegative = 3e-4
    """L2 penalty, which is added to the gradient."""
    gradient_clip: Positive = 5.0
    """Largest norm of the gradient over all weights; a longer gradient is scaled down to it."""

    @model_validator(mode="after")
    def _possible(self) -> WeightOptimiser:
        if self.learning_rate_min > self.learning_rate:
            raise ValueError(
                f"learning_rate_min {self.learning_rate_min} exceeds "
                f"learning_rate {self.learning_rate}"
            )
        return self


class AlphaOptimiser(Section):
    """Adam for the architecture parameters."""

    learning_rate: Positive = 3e-4
    """Learning rate, constant over the search; raise it for a short search."""
    beta1: Fraction = 0.5
    """Decay of Adam's running mean of gradients."""
    beta2: Fraction = 0.999
    """Decay of Adam's running mean of squared gradients."""
    weight_decay: NonNegative = 1e-3
    """L2 penalty, which is added to the gradient."""
    initial_sd: NonNegative = 1e-3
    """Standard deviation of the normal distribution from which alphas start."""


class SearchSpec(KindSection):
    """How the genotype is found."""

    kind_key: ClassVar[str] = "strategy"
    default_kind: ClassVar[str] = "darts"

    strategy: str = "darts"
    """Search strategy; each of those below has keys of its own."""

    @classmethod
    def kinds(cls) -> Mapping[str, Kind[SearchSpec]]:
        return STRATEGIES

    def check_precision(self, precision: Precision) -> None:
        """Raise ``ValueError`` if maps of that precision are too coarse for the search."""


class OneShotSpec(SearchSpec):
    """Keys of the strategies that train a supernet and its alphas by gradient."""

    epochs: PositiveInt = 300
    """Passes over the data that trains the weights."""
    warmup: Literal["above_chance", "fixed"] = "above_chance"
    """When alphas begin to train: once the supernet is clearly above chance on their data
    (``docs/method.md``), or after ``warmup_epochs`` in any case. Alphas of untrained candidates
    learn which of them are loud."""
    warmup_epochs: Annotated[int, Field(ge=0)] = 0
    """Least number of first epochs in which only the weights are trained; with ``warmup: fixed``
    their number."""
    warmup_share: Fraction = 0.5
    """Largest share of all epochs that waiting for a supernet above chance may take."""
    class_weights: bool = True
    """Weight classes in both losses by the inverse of their frequency in the data for weights, as
    ``training.class_weights`` does, so that search and training have one objective."""
    batch_size: Annotated[int, Field(ge=2)] = 16
    """Largest number of utterances in a batch; batches have nearly equal sizes."""
    weights: WeightOptimiser = WeightOptimiser()
    alphas: AlphaOptimiser = AlphaOptimiser()
    genotype_epoch: Literal["last", "best"] = "last"
    """Epoch whose alphas give the genotype: the last, or that of the highest UA on the data for
    alphas."""

    @property
    def longest_warmup(self) -> int:
        """Largest number of warm-up epochs."""
        waited = 0 if self.warmup == "fixed" else int(self.warmup_share * self.epochs)
        return max(self.warmup_epochs, waited)

    def check(self) -> None:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs {self.warmup_epochs} leaves none of {self.epochs} epochs for alphas"
            )


class DartsSpec(OneShotSpec):
    """DARTS (arXiv 1806.09055): gradient descent on alphas that weight all candidates."""

    strategy: Literal["darts"] = "darts"
    order: Literal[1, 2] = 2
    """Order of the gradient of alpha. 1 takes a third of the time or less; 2 looks one step of the
    weights ahead, as in the papers."""
    hessian: Literal["exact", "finite_difference"] = "finite_difference"
    """How second order multiplies by the Hessian: by DARTS' difference quotient, or by double
    backward, which takes two to four times as long and several times the memory
    (``docs/method.md``)."""
    epsilon: Positive = 0.3
    """Step of the difference quotient, divided by the norm of the gradient. DARTS uses 0.01, which
    on a network with ReLU and max pooling is an order of magnitude less accurate."""

    def check_precision(self, precision: Precision) -> None:
        if precision != "fp32" and self.order == 2:
            raise ValueError(
                f"search.order: 2 with compute.precision {precision}: rounding changes the "
                "gradient as much as its second-order term does, which would cost several times "
                "the time for nothing; allowed: search.order 1, or compute.precision fp32"
            )


class RandomSpec(SearchSpec):
    """Genotypes drawn uniformly: the control that every search must beat."""

    strategy: Literal["random"] = "random"
    candidates: PositiveInt = 1
    """Number of genotypes that are drawn. With more than one, each is trained on the part for
    weights and the one with the highest UA on the part for alphas is kept."""


Round = Annotated[tuple[PositiveInt, ...], Field(min_length=2, max_length=2)]


class HalvingSpec(SearchSpec):
    """Successive halving: random genotypes are trained with one seed, the better half with more
    seeds, and so on. The first candidate has the network of the recipe as it is; the others also
    draw the choices that the space of ``network.cnn.space`` offers around the cells."""

    strategy: Literal["halving"] = "halving"
    rounds: Annotated[tuple[Round, ...], Field(min_length=1)] = ((16, 1), (8, 2), (4, 4), (2, 8))
    """Candidates and seeds of each round. Trainings of earlier rounds are not repeated, so that a
    round with twice the seeds trains each of its candidates as often again. Raise the seeds where
    results differ much between seeds (``emodarts headroom`` shows it)."""
    inner_folds: Annotated[int, Field(ge=2)] = 3
    """Groups of development speakers that are left out in turn; a candidate is judged by the UA of
    the predictions of all groups together. With too few speakers, utterances are left out."""
    epochs: PositiveInt | None = None
    """Epochs of each candidate's training, whose last weights are judged; by default
    ``training.epochs``. Fewer are quicker, but favour networks that learn quickly."""

    def check(self) -> None:
        counts, seeds = zip(*self.rounds, strict=True)
        if sorted(counts, reverse=True) != list(counts) or sorted(seeds) != list(seeds):
            raise ValueError(
                f"rounds {[list(r) for r in self.rounds]}; allowed: from round to round no more "
                "candidates and no fewer seeds"
            )


STRATEGIES: dict[str, Kind[SearchSpec]] = {
    "darts": Kind(DartsSpec, "emodarts.searching.strategies.darts:Darts"),
    "random": Kind(RandomSpec, "emodarts.searching.strategies.random:RandomSearch"),
    "halving": Kind(HalvingSpec, "emodarts.searching.strategies.halving:Halving"),
}
"""Search strategies by name. An implementation is made with its keys and is a
:class:`emodarts.searching.strategy.Strategy`."""

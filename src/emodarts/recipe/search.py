"""Section ``search``: how the genotype is found. Every strategy has keys of its own.

A strategy is a class of keys and a line of :data:`STRATEGIES` here, and a file in
``searching/strategies/``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

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
    (``docs/method.md``), or after ``warmup_epochs`` with ``fixed``. Alphas of untrained candidates
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

    def longest_warmup(self, epochs: int) -> int:
        """Largest number of warm-up epochs of a supernet that is trained for ``epochs``."""
        waited = 0 if self.warmup == "fixed" else int(self.warmup_share * epochs)
        return max(self.warmup_epochs, waited)

    def check(self) -> None:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs {self.warmup_epochs} leaves none of {self.epochs} epochs for alphas"
            )


def _two_values(span: tuple[float, ...]) -> tuple[float, ...]:
    if len(span) != 2:
        raise ValueError(f"{list(span)}; allowed: two numbers, at the first and the last epoch")
    return span


Ramp = Annotated[tuple[NonNegative, ...], AfterValidator(_two_values)]


class RelaxationSpec(Section):
    """How alphas become the weights of the candidates of an edge."""

    kind: Literal["softmax", "sigmoid", "gumbel", "one_hot", "dirichlet"] = "softmax"
    """``softmax`` is that of DARTS; ``sigmoid`` weighs each candidate by itself (FairDARTS, arXiv
    1911.12126). The others are drawn in every step: ``gumbel`` a tempered Gumbel-softmax (SNAS,
    arXiv 1812.09926), ``one_hot`` a single candidate, the only one that is computed (GDAS, arXiv
    1910.04465), ``dirichlet`` from Dir(1 + elu(alpha)) (DrNAS, arXiv 2006.10355)."""
    temperature: Ramp = (10.0, 0.1)
    """Temperature of ``gumbel`` and ``one_hot`` at the first and the last epoch; linear between."""
    path_dropout: Fraction = 0.0
    """Probability that a candidate path is dropped, drawn uniformly for every step that trains
    weights, so that all candidates are trained alike (Wu et al., arXiv 2203.16928). The weights of
    the others are scaled up to the same sum."""

    @model_validator(mode="after")
    def _possible(self) -> RelaxationSpec:
        if min(self.temperature) <= 0:
            raise ValueError(f"temperature {list(self.temperature)}; allowed: above 0")
        return self


class PenaltySpec(Section):
    """What is added to the loss of the alphas; 0 leaves a term out."""

    beta_decay: NonNegative = 0.0
    """Weight at the last epoch, from 0 at the first, of the mean over edges of logsumexp(alpha)
    (beta-DARTS, arXiv 2203.01665, which uses 50)."""
    zero_one: NonNegative = 0.0
    """Weight of ``-mean (w - 0.5)^2``, which drives sigmoid weights to 0 or 1 (FairDARTS, which
    uses 10)."""
    anchor: NonNegative = 0.0
    """Weight of the Kullback-Leibler divergence of the Dirichlet distributions from the uniform one
    (DrNAS, which uses 1e-3)."""

    @property
    def any(self) -> bool:
        """Whether there is a penalty."""
        return max(self.beta_decay, self.zero_one, self.anchor) > 0


class SmoothingSpec(Section):
    """Perturbation of the candidates' weights while the weights of the network are trained
    (SmoothDARTS, arXiv 2002.05283)."""

    kind: Literal["none", "random", "adversarial"] = "none"
    """``random``: uniform noise. ``adversarial``: the perturbation that raises the training loss
    most, by projected gradient ascent, at ``steps`` more passes a step."""
    size: Ramp = (0.03, 0.3)
    """Largest change of a weight, at the first and the last epoch; linear between."""
    steps: PositiveInt = 7
    """Steps of gradient ascent of ``adversarial``."""


class StopSpec(Section):
    """When the search of alphas ends early; ``null`` leaves a rule out."""

    skips: PositiveInt | None = None
    """End when a derived cell that had fewer skip connections has this many, with the genotype of
    the epoch before (DARTS+, arXiv 1909.06035, which uses 2 in a normal cell)."""
    eigenvalue: Annotated[float, Field(gt=1.0)] | None = None
    """End when the dominant eigenvalue of the Hessian of the alphas' loss, averaged over 5 epochs,
    has grown by this factor within 5 epochs, with the genotype of 5 epochs before (RobustDARTS,
    arXiv 1909.09656, which uses 1.3). Each epoch takes some 20 passes more."""
    gradient_matching: Annotated[float, Field(ge=-1.0, le=1.0)] | None = None
    """Train the weights of a candidate no more once the mean cosine between its gradients on the
    two halves of the data over 20 steps is below this (OLES, NeurIPS 2023, which uses 0.3). A step
    takes one more pass."""


class DerivationSpec(Section):
    """How the genotype is derived from the supernet."""

    by: Literal["weights", "perturbation"] = "weights"
    """``weights``: the strongest candidates, as DARTS. ``perturbation``: edge by edge the candidate
    whose removal costs the supernet most UA on the data for alphas, with some training between
    (DARTS-PT, arXiv 2108.04392)."""
    tune_epochs: Annotated[int, Field(ge=0)] = 1
    """Epochs for which ``perturbation`` trains the weights after each decision (paper: 5)."""
    max_skips: Annotated[int, Field(ge=0)] | None = None
    """Largest number of skip connections in a derived cell; the weakest give way (P-DARTS, arXiv
    1904.12760, which uses 2)."""


class StageSpec(Section):
    """A stage of a progressive search (P-DARTS)."""

    cells: Annotated[int, Field(ge=3)]
    """CNN cells of the supernet in this stage; those of the last stage need not be those of
    ``network.cnn.cells``, which are trained."""
    candidates: PositiveInt | None = None
    """Candidates that each edge keeps from the stage before, the strongest; by default all."""
    skip_dropout: Fraction = 0.0
    """Probability of dropout behind skip connections at the start of the stage, which decays to
    0."""


class DartsSpec(OneShotSpec):
    """DARTS (arXiv 1806.09055): gradient descent on alphas that weight all candidates; and what
    later methods changed in it, as parts that can be combined."""

    strategy: Literal["darts"] = "darts"
    order: Literal[1, 2] = 2
    """Order of the gradient of alpha. 1 takes a third of the time or less; 2 looks one step of the
    weights ahead, as in the papers. With ``network.seqnn.normalise`` the papers' learning rate is
    too long a step for 2 (``docs/method.md``)."""
    hessian: Literal["exact", "finite_difference"] = "finite_difference"
    """How second order multiplies by the Hessian: by DARTS' difference quotient, or by double
    backward, which takes two to four times as long and several times the memory
    (``docs/method.md``)."""
    epsilon: Positive = 0.3
    """Step of the difference quotient, divided by the norm of the gradient. DARTS uses 0.01, which
    on a network with ReLU and max pooling is several times less accurate."""
    relaxation: RelaxationSpec = RelaxationSpec()
    partial_channels: PositiveInt = 1
    """K: candidates see one K-th of the channels, the others pass untouched (PC-DARTS, arXiv
    1907.05737, which uses 4), for a cheaper supernet in which skips have less of an advantage."""
    edge_normalisation: bool = False
    """Also weigh the edges into each node, by a softmax of parameters of their own (PC-DARTS)."""
    auxiliary_skip: bool = False
    """Add a skip connection to every edge, whose weight falls from 1 to 0 over the epochs, so that
    the candidate need not help training (DARTS-, arXiv 2009.01027)."""
    penalties: PenaltySpec = PenaltySpec()
    smoothing: SmoothingSpec = SmoothingSpec()
    stages: tuple[StageSpec, ...] = ()
    """Stages of a search that grows deeper with fewer candidates (P-DARTS); the epochs are divided
    evenly among them, and alphas start anew in each. By default one stage."""
    stop: StopSpec = StopSpec()
    derivation: DerivationSpec = DerivationSpec()

    def check(self) -> None:
        super().check()
        for fault, what, reason in self._conflicts():
            if fault:
                raise ValueError(f"{what}: {reason}")
        if self.stages:
            self._check_stages()

    def _check_stages(self) -> None:
        if self.stages[0].candidates is not None:
            raise ValueError(
                f"stages: the first has candidates {self.stages[0].candidates}, and none before it "
                "tells which are the strongest; allowed: null"
            )
        shortest = self.epochs // len(self.stages)
        if shortest <= self.warmup_epochs:
            raise ValueError(
                f"{len(self.stages)} stages of {self.epochs} epochs leave none for alphas after "
                f"{self.warmup_epochs} warmup_epochs; allowed: fewer stages, or more epochs"
            )

    def _conflicts(self) -> list[tuple[bool, str, str]]:
        kind, penalties = self.relaxation.kind, self.penalties
        given = f" with relaxation.kind {kind!r}"
        by_removal = self.derivation.by == "perturbation"
        return [
            (
                kind == "sigmoid" and self.partial_channels > 1,
                f"partial_channels{given}",
                "weights that do not sum to 1 would scale the channels that pass untouched; "
                "allowed: another relaxation, or partial_channels 1",
            ),
            (
                kind == "one_hot" and self.smoothing.kind != "none",
                f"smoothing{given}",
                "a perturbation gives weight to candidates that are not computed; "
                "allowed: smoothing.kind none, or relaxation.kind gumbel",
            ),
            (
                kind == "one_hot" and self.relaxation.path_dropout > 0,
                f"relaxation.path_dropout{given}",
                "only one path is there; allowed: path_dropout 0",
            ),
            (
                kind == "one_hot" and by_removal,
                f"derivation.by perturbation{given}",
                "no candidate can be removed from a single one; allowed: derivation.by weights",
            ),
            (
                by_removal and self.derivation.max_skips is not None,
                "derivation.max_skips",
                "derivation.by perturbation chooses without regard to it; "
                "allowed: derivation.by weights, or max_skips null",
            ),
            (
                by_removal and self.genotype_epoch == "best",
                "genotype_epoch best",
                "derivation.by perturbation goes on from the last epoch; "
                "allowed: derivation.by weights, or genotype_epoch last",
            ),
            (
                by_removal and (self.stop.skips is not None or self.stop.eigenvalue is not None),
                "stop",
                "derivation.by perturbation goes on from the last epoch, and not from the one "
                "before the collapse; allowed: derivation.by weights, or no stop.skips and "
                "stop.eigenvalue",
            ),
            (
                kind == "dirichlet" and bool(self.stages),
                f"stages{given}",
                "a candidate that dropped out has no concentration; allowed: another relaxation",
            ),
            (
                kind != "sigmoid" and penalties.zero_one > 0,
                f"penalties.zero_one{given}",
                "it is for sigmoid weights, each of which may be 0 or 1; "
                "allowed: relaxation.kind sigmoid, or zero_one 0",
            ),
            (
                kind != "dirichlet" and penalties.anchor > 0,
                f"penalties.anchor{given}",
                "there is no Dirichlet distribution; "
                "allowed: relaxation.kind dirichlet, or anchor 0",
            ),
        ]

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


class SharedRandomSpec(OneShotSpec):
    """Random search with shared weights (arXiv 1902.07638): each step trains a genotype that is
    drawn for it, with the weights of one supernet; then random genotypes are judged with those
    weights."""

    strategy: Literal["shared_random"] = "shared_random"
    candidates: PositiveInt = 100
    """Number of genotypes that are judged on the data for alphas; the best is kept."""


class EvolutionSpec(SearchSpec):
    """Regularised evolution (arXiv 1802.01548): the best of a sample has a child, which differs in
    one decision, and the oldest of the population dies."""

    strategy: Literal["evolution"] = "evolution"
    population: Annotated[int, Field(ge=2)] = 16
    """Number of genotypes that are alive; the first are random."""
    sample: PositiveInt = 4
    """Number of genotypes from which the parent is the best; at most ``population``."""
    evaluations: PositiveInt = 48
    """Number of genotypes in all, each trained on the part for weights and judged by its UA on the
    part for alphas; the best of all is kept."""
    epochs: PositiveInt | None = None
    """Epochs of each genotype's training; by default ``training.epochs``. Fewer are quicker, but
    favour networks that learn quickly."""

    def check(self) -> None:
        for key, value in (("sample", self.sample), ("evaluations", self.evaluations)):
            low = key == "evaluations"
            if value < self.population if low else value > self.population:
                raise ValueError(
                    f"{key} {value} with population {self.population}; "
                    f"allowed: at {'least' if low else 'most'} {self.population}"
                )


class ControllerSpec(SearchSpec):
    """A recurrent controller that learns by policy gradient to make good decisions (arXiv
    1611.01578)."""

    strategy: Literal["controller"] = "controller"
    evaluations: PositiveInt = 48
    """Number of genotypes that the controller tries, each trained on the part for weights; their UA
    on the part for alphas is the reward, and the best of all is kept."""
    epochs: PositiveInt | None = None
    """Epochs of each genotype's training; by default ``training.epochs``. Fewer are quicker, but
    favour networks that learn quickly."""
    batch: PositiveInt = 4
    """Number of genotypes before each step of the controller."""
    hidden: PositiveInt = 64
    """Units of the controller's LSTM."""
    learning_rate: Positive = 1e-2
    """Learning rate of the controller's Adam."""
    baseline_decay: Fraction = 0.8
    """Decay of the running mean of rewards, which is subtracted from them."""
    entropy_weight: NonNegative = 1e-2
    """Weight of the entropy of the decisions in the controller's objective; more explores more."""


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
    the predictions of all groups together, by one network at one speed, whatever
    ``training.ensemble`` and ``training.test_speeds`` say. With too few speakers, utterances are
    left out."""
    proposals: Annotated[int, Field(ge=0)] = 0
    """Number of candidates whose cells are found by searches of DARTS with different seeds, in the
    network of the recipe; the others are random. At most the candidates of the first round less
    one."""
    darts: DartsSpec = DartsSpec(order=1, epochs=20)
    """Keys of the searches that make ``proposals``."""
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
        if self.proposals >= counts[0]:
            raise ValueError(
                f"proposals {self.proposals} of {counts[0]} candidates; allowed: fewer, as the "
                "network of the recipe with random cells takes part"
            )


STRATEGIES: dict[str, Kind[SearchSpec]] = {
    "darts": Kind(DartsSpec, "emodarts.searching.strategies.darts:Darts"),
    "random": Kind(RandomSpec, "emodarts.searching.strategies.random:RandomSearch"),
    "shared_random": Kind(
        SharedRandomSpec, "emodarts.searching.strategies.shared_random:SharedRandomSearch"
    ),
    "evolution": Kind(EvolutionSpec, "emodarts.searching.strategies.evolution:Evolution"),
    "controller": Kind(ControllerSpec, "emodarts.searching.strategies.controller:Controller"),
    "halving": Kind(HalvingSpec, "emodarts.searching.strategies.halving:Halving"),
}
"""Search strategies by name. An implementation is made with its keys and is a
:class:`emodarts.searching.strategy.Strategy`."""

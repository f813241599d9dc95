"""The loop that one-shot strategies share: train a supernet's weights and alphas in turn.

A strategy is a set of :class:`Hooks`; without any, the search is DARTS of first order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from emodarts import files, parallel
from emodarts.checkpoint import pack_optimiser, unpack_optimiser, with_prefix, without_prefix
from emodarts.cost import Meter
from emodarts.errors import RecipeError
from emodarts.fast import resolve
from emodarts.genotype import Genotype
from emodarts.recipe import NetworkSpec, OneShotSpec
from emodarts.runtime import derive_seed
from emodarts.searching.derivation import derive_genotype
from emodarts.searching.gradients import (
    Batch,
    LookAhead,
    first_order_gradient,
    random_state,
    restore_random_state,
)
from emodarts.searching.mixing import EDGES, Mixing, softmax
from emodarts.searching.strategy import SearchTask
from emodarts.searching.supernet import EdgeBuilder, Supernet, mixed_edge
from emodarts.training.batches import (
    class_weights,
    endless_batches,
    join_pieces,
    loss_and_ua,
    n_batches,
    predict_logits,
    require_finite,
    shuffled_batches,
)
from emodarts.training.epochs import run_epochs

#: Least distance from chance, in UA, that counts as clear.
_LEAST_MARGIN = 0.05


def build_supernet(
    search: Search, edge: EdgeBuilder = mixed_edge, network: NetworkSpec | None = None
) -> Supernet:
    """The supernet of the task, with ``edge`` as the module of every edge; or another network's."""
    task = search.task
    n_channels, n_features = task.weights.features.shape[1:3]
    return Supernet(
        network or task.network,
        n_features,
        task.n_classes,
        search.spec.alphas.initial_sd,
        n_channels,
        # Fast cells know the batch of one process only.
        implementation=resolve(
            task.compute.fast and parallel.size() == 1, task.device, task.compute.precision
        ),
        precision=task.compute.precision,
        edge=edge,
    )


def add_edge_parameters(supernet: Supernet, initial_sd: float) -> None:
    """Give every edge a parameter of its own, as :func:`relaxation.mixing` uses."""
    for name, alpha in list(supernet.alpha_parameters().items()):
        supernet.alphas[name + EDGES] = nn.Parameter(initial_sd * torch.randn(len(alpha)))


def first_order(search: Search, train: Batch, validation: Batch) -> dict[str, Tensor]:
    """Gradient of the validation loss at the present weights."""
    return first_order_gradient(search.supernet, validation, search.loss)


def derive(search: Search) -> Genotype:
    """The strongest candidates by ``Hooks.weights``."""
    alphas, network = search.supernet.alpha_parameters(), search.task.network
    return derive_genotype(alphas, network, search.mixing)


def choose(search: Search) -> Genotype:
    """The genotype of the last epoch, or of the one with the highest UA on the alpha data.

    Of a search that was stopped, that of the epoch that the stop names.
    """
    chosen = len(search.records) - 1
    if "stopped" in search.memory:
        return Genotype.from_dict(search.records[search.memory["stopped"]]["genotype"])
    if search.spec.genotype_epoch == "best":
        searched = [k for k, row in enumerate(search.history) if not row["warm_up"]]
        chosen = max(searched, key=lambda k: search.history[k]["alpha_ua"], default=chosen)
    return Genotype.from_dict(search.records[chosen]["genotype"])


def ua_above_chance(targets: Tensor, n_classes: int) -> float:
    """The UA from which on answers are clearly better than chance.

    ``1 / K + max(2 s, 0.05)`` with ``s`` the standard error of the UA of uniform answers,
    ``s^2 = sum_k p (1 - p) / n_k / K^2`` for ``p = 1 / K`` and ``n_k`` utterances of class k.
    """
    chance = 1 / n_classes
    counts = torch.bincount(targets, minlength=n_classes).clamp_min(1).double()
    error = math.sqrt(float((chance * (1 - chance) / counts).sum())) / n_classes
    return chance + max(2 * error, _LEAST_MARGIN)


def signal_to_noise(gradients: Sequence[Tensor]) -> float | None:
    """Norm of the mean gradient of some steps, divided by that of its standard error.

    ``|mean_t g_t| / sqrt(sum_i var_t(g_ti) / n)`` over n steps, with the variance of each of the
    components i with n - 1. Gradients that are noise alone have about 1; None for fewer than two
    steps and for gradients that do not differ.
    """
    if len(gradients) < 2:
        return None
    steps = torch.stack(list(gradients)).flatten(1).cpu().double()
    error = float(steps.var(dim=0).sum().div(len(steps)).sqrt())
    return float(steps.mean(dim=0).norm()) / error if error > 0 else None


@dataclass(frozen=True)
class Hooks:
    """How a one-shot strategy differs from DARTS of first order.

    Attributes
    ----------
    build : how the supernet and its edges are built. Further architecture parameters may be put
        into its ``alphas``.
    weights : how alphas become weights where nothing is drawn: in the scores of an epoch and in
        the derivation.
    draw : draws how alphas become weights in one step: called once, with the training batch; all
        passes of the step use what it returns. By default ``weights``.
    disturb : how alphas become weights in the pass of a step that trains the weights, from the
        training batch and what ``draw`` returned; by default as in the others.
    gradient : gradient of the alphas, by name, from a training and a validation batch.
    penalty : a scalar that is added to the loss of the alphas; a function of the alphas.
    adjust : changes the gradients of the weights, by name, before they are used; called with the
        validation batch of the step, once the warm-up is over.
    begin_epoch : called before every epoch. It may set ``search.memory``, call ``search.build()``
        for another supernet, or ``search.stop()``.
    derive : the genotype of the present alphas, for the record of an epoch.
    choose : the genotype that the search ends with.
    """

    build: Callable[[Search], Supernet] = build_supernet
    weights: Callable[[Search, Mapping[str, Tensor]], dict[str, Tensor]] = lambda search, alphas: (
        softmax(alphas)
    )
    draw: Callable[[Search, Batch], Mixing] = lambda search, train: search.mixing
    disturb: Callable[[Search, Batch, Mixing], Mixing] | None = None
    gradient: Callable[[Search, Batch, Batch], dict[str, Tensor]] = first_order
    penalty: Callable[[Search], Tensor] | None = None
    adjust: Callable[[Search, Batch, dict[str, Tensor | None]], None] | None = None
    begin_epoch: Callable[[Search], None] = lambda search: None
    derive: Callable[[Search], Genotype] = derive
    choose: Callable[[Search], Genotype] = choose


def search_one_shot(spec: OneShotSpec, task: SearchTask, hooks: Hooks | None = None) -> Genotype:
    """Search, or go on from the checkpoint in the folder of the task.

    Every epoch writes its scores (losses, UA, skips, entropies), alphas and genotype, whether it
    was of the warm-up, whether the supernet is clearly above chance, and for each cell the
    :func:`signal_to_noise` of the gradient of its alphas. What the choice at the end costs is
    written apart.

    Raises
    ------
    CheckpointError
        If the checkpoint is broken.
    TrainingError
        If the loss is not finite.
    RecipeError
        If a batch has fewer rows than there are processes.
    """
    for part in (task.weights, task.alphas):
        fewest = len(part) // n_batches(len(part), spec.batch_size)
        if fewest < parallel.size():
            raise RecipeError(
                f"search.batch_size {spec.batch_size}: a batch of {fewest} rows cannot be divided "
                f"among {parallel.size()} processes"
            )
    search = Search(spec, task, hooks or Hooks())
    run_epochs(
        search,
        spec.epochs,
        stage="search",
        folder=task.folder,
        progress=task.progress,
        title=task.title,
        steps=len(shuffled_batches(len(task.weights), spec.batch_size, 0)),
    )
    meter, before = Meter(), search.steps
    genotype = search.hooks.choose(search)
    if parallel.leads():
        files.write_json(task.folder.choice, meter.spent(search.steps - before).to_dict())
    return genotype


class Search:
    """A search between its epochs; what hooks read and may change.

    Attributes
    ----------
    spec, task, hooks : what is searched, and how.
    history : scalars of every epoch that is done.
    records : epoch, alphas and genotype of every epoch that is done, as JSON values.
    memory : JSON values that a strategy keeps from epoch to epoch.
    steps : updates of the weights in this process.
    loss : of logits (B, K) and class indices (B,); of weights and alphas alike.
    supernet, weight_optimiser, alpha_optimiser : made by :meth:`build`.
    """

    def __init__(self, spec: OneShotSpec, task: SearchTask, hooks: Hooks) -> None:
        self.spec, self.task, self.hooks = spec, task, hooks
        self.history: list[dict[str, Any]] = []
        self.records: list[dict[str, Any]] = []
        self.memory: dict[str, Any] = {}
        self.steps = 0
        self._gradients: dict[str, list[Tensor]] = {}
        weights = class_weights(task.weights.targets, task.n_classes)
        self._class_weights = weights if spec.class_weights else None
        self.build()

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of weights and alphas alike; of several processes, the part of this one."""
        weights = self._class_weights
        weights = None if weights is None else weights.to(logits.dtype)
        mean = functional.cross_entropy(logits, targets, weight=weights)
        mass = len(targets) if weights is None else weights[targets].sum()
        return parallel.part_of_mean(mean, mass)

    @property
    def epoch(self) -> int:
        """Number of epochs that are done."""
        return len(self.history)

    @property
    def share(self) -> float:
        """Share of the epochs that are done: 0 in the first epoch, 1 in the last."""
        return self.epoch / max(self.spec.epochs - 1, 1)

    @property
    def mixing(self) -> Mixing:
        """How alphas become weights where nothing is drawn."""
        return partial(self.hooks.weights, self)

    def build(self) -> None:
        """Build the supernet and its optimisers."""
        torch.manual_seed(derive_seed(self.task.seed, "supernet"))
        weights, alphas = self.spec.weights, self.spec.alphas
        self.supernet = self.hooks.build(self).to(self.task.device)
        self.supernet.mixing = self.mixing
        parallel.join_batch_norms(self.supernet)
        self.weight_optimiser = torch.optim.SGD(
            self.supernet.weight_parameters().values(),
            lr=weights.learning_rate,
            momentum=weights.momentum,
            weight_decay=weights.weight_decay,
        )
        self.alpha_optimiser = torch.optim.Adam(
            self.supernet.alpha_parameters().values(),
            lr=alphas.learning_rate,
            betas=(alphas.beta1, alphas.beta2),
            weight_decay=alphas.weight_decay,
        )

    def begin(self, epoch: int, epochs: int) -> None:
        """Let warm-up and learning rate begin anew with an epoch, for some epochs."""
        self.memory["span"] = [epoch, epochs]

    def stop(self, before: int = 0) -> None:
        """End the search with the epochs that are done.

        :func:`choose` then takes the genotype of as many epochs ``before`` the last.
        """
        self.memory["stopped"] = max(len(self.records) - 1 - before, 0)

    def alpha_batch(self) -> Batch:
        """A batch of the data for alphas, the same in every call of an epoch."""
        return next(self._alpha_batches())

    def judge(self, mixing: Mixing | None = None) -> tuple[float, float]:
        """Loss and UA on the data for alphas; ``mixing`` stands for that of the search."""
        part = self.task.alphas
        self.supernet.mixing = mixing or self.mixing
        try:
            rows = parallel.share(len(part))
            logits = parallel.gathered(predict_logits(self.supernet, part.features[rows]))
            logits = join_pieces(logits, part.owners)
        finally:
            self.supernet.mixing = self.mixing
        return loss_and_ua(logits, part.utterance_targets)

    def look_ahead(self) -> LookAhead:
        """The step that the optimiser of the weights takes next."""
        [group] = self.weight_optimiser.param_groups
        state = self.weight_optimiser.state
        buffers = {
            name: state[w]["momentum_buffer"]
            for name, w in self.supernet.weight_parameters().items()
            if state[w].get("momentum_buffer") is not None
        }
        return LookAhead(group["lr"], group["momentum"], group["weight_decay"], buffers)

    def run_epoch(self) -> dict[str, Any] | None:
        """One pass over the data for weights, unless the strategy stops."""
        task, spec, epoch = self.task, self.spec, self.epoch
        torch.manual_seed(derive_seed(task.seed, "search epoch", epoch))
        self.hooks.begin_epoch(self)
        if "stopped" in self.memory:
            return None
        rate = self._learning_rate()
        for group in self.weight_optimiser.param_groups:
            group["lr"] = rate
        self.supernet.train()
        alpha_batches = self._alpha_batches()
        batches = shuffled_batches(
            len(task.weights), spec.batch_size, derive_seed(task.seed, "search weights", epoch)
        )
        total, self._gradients = 0.0, {}
        warm_up = self._warms_up()
        for step, index in enumerate(batches):
            torch.manual_seed(derive_seed(task.seed, "search step", epoch, step))
            where = f"search epoch {epoch + 1}, step {step + 1}"
            train = parallel.own(task.weights.batch(index))
            mixing = self.supernet.mixing = self.hooks.draw(self, train)
            if parallel.size() > 1:  # what is drawn from here on is of the own rows
                torch.manual_seed(
                    derive_seed(task.seed, "search step", epoch, step, parallel.rank())
                )
            validation = None if warm_up else next(alpha_batches)
            if validation is not None:
                self._step_alphas(train, validation)
            if self.hooks.disturb is not None:
                masks = random_state(task.device)
                if parallel.size() > 1:  # the same perturbation in all processes
                    torch.manual_seed(derive_seed(task.seed, "search disturbs", epoch, step))
                self.supernet.mixing = self.hooks.disturb(self, train, mixing)
                restore_random_state(task.device, masks)
            loss, ua = self.step_weights(train, where, validation)
            total += loss * len(index)
            task.progress.advance(loss=loss, ua=ua)
        self.supernet.mixing = self.mixing
        alpha_loss, alpha_ua = self.judge()
        eigenvalues = self.memory.get("eigenvalues")
        return {
            "steps": len(batches),
            "learning_rate": rate,
            "weight_loss": total / len(task.weights),
            "alpha_loss": alpha_loss,
            "alpha_ua": alpha_ua,
            "warm_up": int(warm_up),
            "above_chance": int(alpha_ua > self._threshold()),
            **self._record(),
            **({} if eigenvalues is None else {"eigenvalue": (eigenvalues or [None])[-1]}),
        }

    def _warms_up(self) -> bool:
        """Whether the next epoch trains the weights alone."""
        first, epochs = self._span
        if self.epoch - first < self.spec.warmup_epochs:
            return True
        if self.epoch - first >= self.spec.longest_warmup(epochs):
            return False
        # Once alphas train, they go on.
        return all(row["warm_up"] and not row["above_chance"] for row in self.rows[-1:])

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The history of the present supernet."""
        return self.history[self._span[0] :]

    @property
    def _span(self) -> tuple[int, int]:
        """First epoch and number of epochs of the present supernet."""
        first, epochs = self.memory.get("span", (0, self.spec.epochs))
        return first, epochs

    def _threshold(self) -> float:
        return ua_above_chance(self.task.alphas.utterance_targets, self.task.n_classes)

    def _learning_rate(self) -> float:
        """Cosine over epochs, as in DARTS."""
        high, low = self.spec.weights.learning_rate, self.spec.weights.learning_rate_min
        first, epochs = self._span
        return low + 0.5 * (high - low) * (1 + math.cos(math.pi * (self.epoch - first) / epochs))

    def _alpha_batches(self) -> Iterator[Batch]:
        def seed(cycle: int) -> int:
            return derive_seed(self.task.seed, "search alphas", self.epoch, cycle)

        part = self.task.alphas
        for index in endless_batches(len(part), self.spec.batch_size, seed):
            yield parallel.own(part.batch(index))

    def _step_alphas(self, train: Batch, validation: Batch) -> None:
        device = train[0].device
        masks = random_state(device)
        gradients = self.hooks.gradient(self, train, validation)
        alphas = self.supernet.alpha_parameters()
        if self.hooks.penalty is not None:
            penalty = torch.autograd.grad(
                self.hooks.penalty(self), list(alphas.values()), materialize_grads=True
            )
            for name, gradient in zip(alphas, penalty, strict=True):
                gradients[name] = gradients[name] + gradient
        for name, alpha in alphas.items():
            alpha.grad = gradients[name]
            self._gradients.setdefault(name, []).append(gradients[name].detach().clone())
        self.alpha_optimiser.step()
        # The training pass uses the dropout masks that the look-ahead step used.
        restore_random_state(device, masks)

    def step_weights(
        self, train: Batch, where: str, validation: Batch | None = None
    ) -> tuple[float, float]:
        """One step of the weights; returns loss and UA before it. ``where`` is for errors."""
        logits = self.supernet(train[0])
        loss = self.loss(logits, train[1])
        weights = self.supernet.weight_parameters()
        gradients: dict[str, Tensor | None] = dict(
            zip(
                weights,
                parallel.total(
                    torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
                ),
                strict=True,
            )
        )
        if self.hooks.adjust is not None and validation is not None:
            self.hooks.adjust(self, validation, gradients)
        for name, parameter in weights.items():
            parameter.grad = gradients[name]
        norm = torch.nn.utils.clip_grad_norm_(weights.values(), self.spec.weights.gradient_clip)
        require_finite(float(norm), f"{where}: the gradient norm")
        self.weight_optimiser.step()
        self.steps += 1
        self.weight_optimiser.zero_grad()  # a copy of all weights that the next step does not need
        value, ua = loss_and_ua(*map(parallel.gathered, (logits.detach(), train[1])))
        require_finite(value, f"{where}: the loss")
        return value, ua

    def _record(self) -> dict[str, float | None]:
        """Write alphas and genotype of all epochs; return what search.csv has of this one."""
        genotype = self.hooks.derive(self)
        alphas = self.supernet.alpha_parameters()
        record = {
            "epoch": self.epoch + 1,
            "alphas": {name: a.detach().cpu().tolist() for name, a in alphas.items()},
            "genotype": genotype.to_dict(),
        }
        self.records.append(record)
        if parallel.leads():
            files.write_json(self.task.folder.alphas, self.records)
        entropies = {
            f"entropy_{name}": float(torch.special.entr(w.detach()).sum(dim=1).mean())
            for name, w in self.supernet.edge_weights().items()
        }
        skips = {f"skips_{name}": count for name, count in genotype.skip_counts().items()}
        ratios = {
            f"alpha_snr_{name}": signal_to_noise(self._gradients.get(name, ()))
            for name in self.task.network.nodes
        }
        return {**skips, **entropies, **ratios}

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = {
            **with_prefix("supernet", self.supernet.state_dict()),
            **pack_optimiser("weight_optimiser", self.weight_optimiser),
            **pack_optimiser("alpha_optimiser", self.alpha_optimiser),
        }
        [group] = self.weight_optimiser.param_groups
        return tensors, {
            "records": self.records,
            "memory": self.memory,
            "learning_rate": group["lr"],  # a choice at the end may train on
        }

    def restore(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        self.records, self.memory = list(values["records"]), dict(values["memory"])
        self.build()  # again, as a strategy may have built another supernet since
        self.supernet.load_state_dict(without_prefix("supernet", tensors))
        unpack_optimiser("weight_optimiser", self.weight_optimiser, tensors)
        [group] = self.weight_optimiser.param_groups
        group["lr"] = values["learning_rate"]
        unpack_optimiser("alpha_optimiser", self.alpha_optimiser, tensors)

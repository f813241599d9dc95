"""Search for a genotype: alternate steps of alphas and weights on two halves of the data."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from emodarts import files
from emodarts.batches import (
    Part,
    endless_batches,
    join_pieces,
    loss_and_ua,
    predict_logits,
    require_finite,
    shuffled_batches,
)
from emodarts.checkpoint import (
    load_tensors,
    pack_optimiser,
    save_tensors,
    unpack_optimiser,
    with_prefix,
    without_prefix,
)
from emodarts.errors import CheckpointError, RecipeError
from emodarts.events import EventWriter
from emodarts.fast import resolve
from emodarts.progress import Progress
from emodarts.recipe import NetworkSpec, SearchSpec
from emodarts.runtime import Precision, derive_seed
from emodarts.searching.derive import derive_genotype, random_genotype
from emodarts.searching.gradients import (
    Batch,
    LookAhead,
    first_order_gradient,
    random_state,
    restore_random_state,
    second_order_gradient,
)
from emodarts.searching.supernet import Supernet
from emodarts.space.genotype import Genotype

CHECKPOINT = "search.safetensors"
HISTORY = "search.csv"
ALPHAS = "alphas.json"


@dataclass(frozen=True)
class SearchData:
    """The two halves of the search part: one trains weights, the other alphas."""

    weights: Part
    alphas: Part
    n_classes: int


def search_genotype(
    spec: SearchSpec,
    network: NetworkSpec,
    data: SearchData,
    *,
    seed: int,
    folder: Path,
    device: torch.device,
    progress: Progress,
    task: str = "search",
    fast: bool = True,
    precision: Precision = "fp32",
) -> Genotype:
    """Find a genotype; continue from ``folder`` if a killed search left a checkpoint there.

    ``fast`` and ``precision`` say how cells are computed, as in ``ComputeSpec``.

    Every epoch writes ``search.csv`` (losses, UA, skips, entropies), ``alphas.json`` (alphas and
    genotype) and a checkpoint.

    Raises
    ------
    CheckpointError
        If the checkpoint in ``folder`` is broken.
    RecipeError
        If ``precision`` is too coarse for this search; see :func:`require_precise_enough`.
    """
    require_precise_enough(spec, precision)
    if spec.strategy == "random":
        generator = torch.Generator().manual_seed(derive_seed(seed, "random genotype"))
        return random_genotype(network, generator)
    searcher = _Searcher(spec, network, data, seed, device, fast, precision)
    checkpoint = folder / CHECKPOINT
    if checkpoint.is_file():
        searcher.restore(checkpoint)
    steps = len(shuffled_batches(len(data.weights), spec.batch_size, 0))
    progress.start(task, spec.epochs * steps, searcher.epoch * steps)
    with EventWriter(folder / "events", searcher.epoch) as events:
        while searcher.epoch < spec.epochs:
            record = searcher.run_epoch(progress)
            # The checkpoint comes last: a run killed before it does the epoch again.
            write_record(folder, searcher.history)
            searcher.save(checkpoint)
            events.write("search", record["epoch"], record["scalars"])
    return searcher.chosen_genotype()


def require_precise_enough(spec: SearchSpec, precision: Precision) -> None:
    """Raise :class:`RecipeError` if rounding alters gradients as much as their second order."""
    if precision != "fp32" and spec.strategy == "darts" and spec.order == 2:
        raise RecipeError(
            f"search.order: 2 with compute.precision {precision}: rounding alters the gradient as "
            "much as its second-order term does, which would cost several times the time for "
            "nothing; legal: search.order 1, or compute.precision fp32"
        )


def write_record(folder: Path, history: Sequence[dict[str, Any]]) -> None:
    """Write the scalars of every epoch as CSV, and alphas and genotypes as JSON."""
    rows = [{"epoch": r["epoch"], **r["scalars"]} for r in history]
    files.write_csv(folder / HISTORY, list(rows[0]), rows)
    kept = ("epoch", "alphas", "genotype")
    files.write_json(folder / ALPHAS, [{k: r[k] for k in kept} for r in history])


class _Searcher:
    """State of a search between epochs."""

    def __init__(
        self,
        spec: SearchSpec,
        network: NetworkSpec,
        data: SearchData,
        seed: int,
        device: torch.device,
        fast: bool = True,
        precision: Precision = "fp32",
    ) -> None:
        self.spec, self.network_spec, self.data, self.seed = spec, network, data, seed
        self.epoch = 0
        self.history: list[dict[str, Any]] = []
        torch.manual_seed(derive_seed(seed, "supernet"))
        n_channels, n_features = data.weights.features.shape[1:3]
        self.supernet = Supernet(
            network,
            n_features,
            data.n_classes,
            spec.alphas.initial_sd,
            n_channels,
            implementation=resolve(fast, device, precision),
            precision=precision,
        )
        self.supernet.to(device)
        self.weights = self.supernet.weight_parameters()
        self.alphas = self.supernet.alpha_parameters()
        self.weight_optimiser = torch.optim.SGD(
            self.weights.values(),
            lr=spec.weights.learning_rate,
            momentum=spec.weights.momentum,
            weight_decay=spec.weights.weight_decay,
        )
        self.alpha_optimiser = torch.optim.Adam(
            self.alphas.values(),
            lr=spec.alphas.learning_rate,
            betas=(spec.alphas.beta1, spec.alphas.beta2),
            weight_decay=spec.alphas.weight_decay,
        )

    def run_epoch(self, progress: Progress) -> dict[str, Any]:
        """One pass over the weight data; return the epoch's record."""
        begun = time.monotonic()
        epoch = self.epoch
        rate = self._learning_rate()
        for group in self.weight_optimiser.param_groups:
            group["lr"] = rate
        searches = epoch >= self.spec.warmup_epochs
        self.supernet.train()
        size = self.spec.batch_size
        alpha_batches = self._alpha_batches()
        total = 0.0
        batches = shuffled_batches(
            len(self.data.weights), size, derive_seed(self.seed, "search weights", epoch)
        )
        for step, index in enumerate(batches):
            torch.manual_seed(derive_seed(self.seed, "search step", epoch, step))
            train = self.data.weights.batch(index)
            if searches:
                self._step_alphas(train, next(alpha_batches), rate)
            loss, ua = self._step_weights(train)
            require_finite(loss, f"search epoch {epoch + 1}, step {step + 1}: the loss")
            total += loss * len(index)
            progress.advance(loss=loss, ua=ua)
        self.epoch += 1
        record = self._record(rate, total / len(self.data.weights), time.monotonic() - begun)
        self.history.append(record)
        return record

    def _learning_rate(self) -> float:
        """Cosine over epochs, as in DARTS."""
        high, low = self.spec.weights.learning_rate, self.spec.weights.learning_rate_min
        return low + 0.5 * (high - low) * (1 + math.cos(math.pi * self.epoch / self.spec.epochs))

    def _alpha_batches(self) -> Iterator[Batch]:
        def seed(cycle: int) -> int:
            return derive_seed(self.seed, "search alphas", self.epoch, cycle)

        part = self.data.alphas
        for index in endless_batches(len(part), self.spec.batch_size, seed):
            yield part.batch(index)

    def _step_alphas(self, train: Batch, validation: Batch, rate: float) -> None:
        device = train[0].device
        masks = random_state(device)
        loss: Callable[[Tensor, Tensor], Tensor] = functional.cross_entropy
        if self.spec.order == 1:
            gradients = first_order_gradient(self.supernet, validation, loss)
        else:
            state = self.weight_optimiser.state
            ahead = LookAhead(
                rate,
                self.spec.weights.momentum,
                self.spec.weights.weight_decay,
                {
                    name: state[w]["momentum_buffer"]
                    for name, w in self.weights.items()
                    if state[w].get("momentum_buffer") is not None
                },
            )
            gradients = second_order_gradient(
                self.supernet,
                train,
                validation,
                loss,
                ahead,
                hessian=self.spec.hessian,
                epsilon=self.spec.epsilon,
            )
        for name, gradient in gradients.items():
            self.alphas[name].grad = gradient
        self.alpha_optimiser.step()
        # The training pass uses the dropout masks that the look-ahead step used.
        restore_random_state(device, masks)

    def _step_weights(self, train: Batch) -> tuple[float, float]:
        logits = self.supernet(train[0])
        loss = functional.cross_entropy(logits, train[1])
        parameters = list(self.weights.values())
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.spec.weights.gradient_clip)
        require_finite(float(norm), f"search epoch {self.epoch + 1}: the gradient norm")
        self.weight_optimiser.step()
        self.weight_optimiser.zero_grad()  # a copy of all weights that the next step does not need
        return loss_and_ua(logits.detach(), train[1])

    def _record(self, rate: float, weight_loss: float, seconds: float) -> dict[str, Any]:
        alphas = self.data.alphas
        logits = join_pieces(predict_logits(self.supernet, alphas.features), alphas.owners)
        alpha_loss, alpha_ua = loss_and_ua(logits, alphas.utterance_targets)
        genotype = derive_genotype(self.alphas, self.network_spec)
        weights = self.supernet.edge_weights()
        entropies = {
            f"entropy_{name}": float(torch.special.entr(w.detach()).sum(dim=1).mean())
            for name, w in weights.items()
        }
        skips = {f"skips_{name}": count for name, count in genotype.skip_counts().items()}
        return {
            "epoch": self.epoch,
            "scalars": {
                "learning_rate": rate,
                "weight_loss": weight_loss,
                "alpha_loss": alpha_loss,
                "alpha_ua": alpha_ua,
                **skips,
                **entropies,
                "seconds": round(seconds, 3),
            },
            "alphas": {name: a.detach().cpu().tolist() for name, a in self.alphas.items()},
            "genotype": genotype.to_dict(),
        }

    def chosen_genotype(self) -> Genotype:
        """Of the last epoch, or of the one with the highest UA on the alpha data."""
        record = self.history[-1]
        if self.spec.genotype_epoch == "best":
            searched = self.history[self.spec.warmup_epochs :]
            record = max(searched, key=lambda r: (r["scalars"]["alpha_ua"], -r["epoch"]))
        return Genotype.from_dict(record["genotype"])

    def save(self, path: Path) -> None:
        tensors = {
            **with_prefix("supernet", self.supernet.state_dict()),
            **pack_optimiser("weight_optimiser", self.weight_optimiser),
            **pack_optimiser("alpha_optimiser", self.alpha_optimiser),
        }
        save_tensors(path, tensors, {"epoch": self.epoch, "history": self.history})

    def restore(self, path: Path) -> None:
        tensors, state = load_tensors(path)
        try:
            self.supernet.load_state_dict(without_prefix("supernet", tensors))
            unpack_optimiser("weight_optimiser", self.weight_optimiser, tensors)
            unpack_optimiser("alpha_optimiser", self.alpha_optimiser, tensors)
            self.epoch, self.history = int(state["epoch"]), list(state["history"])
        except (KeyError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{path} is not a checkpoint of this search: {error}") from error

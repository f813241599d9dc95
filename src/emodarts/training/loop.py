"""Train the discrete network; the epoch is chosen on inner validation utterances."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from emodarts import files
from emodarts.checkpoint import (
    load_tensors,
    pack_optimiser,
    save_tensors,
    unpack_optimiser,
    with_prefix,
    without_prefix,
)
from emodarts.errors import CheckpointError
from emodarts.events import EventWriter
from emodarts.progress import Progress
from emodarts.recipe import TrainingSpec
from emodarts.runtime import Precision, at_least_single, autocast, derive_seed
from emodarts.systems.discrete import DiscreteNetwork
from emodarts.training.augment import Mixture, balanced_rows, mask_features
from emodarts.training.batches import (
    Part,
    class_weights,
    join_pieces,
    loss_and_ua,
    predict_logits,
    require_finite,
    shuffled_batches,
)

CHECKPOINT = "training.safetensors"
HISTORY = "training.csv"
EPOCHS = "epochs"

#: Share of the steps in which a one-cycle schedule rises, and its first and last rate as a
#: share of the highest and of the first (the defaults of torch's OneCycleLR).
_RISE, _FIRST, _LAST = 0.3, 1 / 25, 1e-4


def learning_rate(spec: TrainingSpec, step: int, n_steps: int) -> float:
    """Rate at ``step`` of ``n_steps``; ``one_cycle`` rises from 1/25 for 30 % of the steps.

    Closed forms of torch's CosineAnnealingLR and OneCycleLR, so that a resumed run needs no
    state of a scheduler.
    """
    highest = spec.learning_rate
    match spec.schedule:
        case "cosine":
            return _cosine(highest, 0.0, step / n_steps)
        case "one_cycle":
            top = _RISE * n_steps - 1
            if step <= top:
                return _cosine(_FIRST * highest, highest, step / max(top, 1.0))
            return _cosine(highest, _FIRST * _LAST * highest, (step - top) / (n_steps - 1 - top))
    return highest


def _cosine(start: float, end: float, share: float) -> float:
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * share))


@dataclass(frozen=True)
class Trained:
    """Outcome of a training.

    Attributes
    ----------
    epoch : the chosen one, from 1.
    history : one dictionary an epoch, as in ``training.csv``.
    """

    epoch: int
    history: list[dict[str, Any]]


def train_network(
    network: DiscreteNetwork,
    train: Part,
    validation: Part,
    spec: TrainingSpec,
    n_classes: int,
    *,
    seed: int,
    folder: Path,
    progress: Progress,
    task: str = "train",
    precision: Precision = "fp32",
) -> Trained:
    """Train ``network`` in place and leave it with the weights of the chosen epoch.

    ``precision`` is that of its maps, as in ``ComputeSpec``; ``bf16`` needs a network that is not
    compiled. The inner validation has it too, as a choice between epochs is no score.

    The epoch is the one with the highest UA on ``validation`` (the lower loss decides between
    equals), with the lowest loss, or the last. Continues from ``folder`` if a killed training
    left a checkpoint there. Every epoch writes ``training.csv`` and a checkpoint, and
    ``epochs/<n>.safetensors`` if the optimistic score is asked for.

    Raises
    ------
    CheckpointError
        If the checkpoint in ``folder`` is broken.
    """
    trainer = _Trainer(network, train, validation, spec, n_classes, seed, precision)
    checkpoint = folder / CHECKPOINT
    if checkpoint.is_file():
        trainer.restore(checkpoint)
    progress.start(task, spec.epochs, trainer.epoch)
    with EventWriter(folder / "events", trainer.epoch) as events:
        while trainer.epoch < spec.epochs:
            row = trainer.run_epoch()
            if spec.optimistic:
                save_tensors(epoch_file(folder, trainer.epoch), network.model_state())
            # The checkpoint comes last: a run killed before it does the epoch again.
            files.write_csv(folder / HISTORY, list(row), trainer.history)
            trainer.save(checkpoint)
            scalars = {k: v for k, v in row.items() if k != "epoch"}
            events.write("training", trainer.epoch, scalars)
            progress.advance(loss=row["train_loss"], ua=row["validation_ua"])
    network.load_state_dict(trainer.best_state, strict=False)
    return Trained(trainer.best_epoch, trainer.history)


def epoch_file(folder: Path, epoch: int) -> Path:
    """Where the weights of an epoch are kept when the optimistic score is asked for."""
    return folder / EPOCHS / f"{epoch:04d}.safetensors"


class _Trainer:
    """State of a training between epochs."""

    def __init__(
        self,
        network: DiscreteNetwork,
        train: Part,
        validation: Part,
        spec: TrainingSpec,
        n_classes: int,
        seed: int,
        precision: Precision = "fp32",
    ) -> None:
        self.network, self.train, self.validation = network, train, validation
        self.spec, self.seed, self.precision = spec, seed, precision
        self.weights = class_weights(train.targets, n_classes) if spec.class_weights else None
        self.optimiser = _optimiser(network, spec)
        self.epoch = 0
        self.history: list[dict[str, Any]] = []
        self.best_epoch = 0
        self.best_state: dict[str, Tensor] = {}

    def run_epoch(self) -> dict[str, Any]:
        """One pass over the training utterances; return the epoch's row.

        Its ``train_loss`` and ``train_ua`` are of what the network answered in training mode:
        to masked and augmented features, and with mixup to each mixture, judged by the target
        that weighs more in it.
        """
        begun = time.monotonic()
        spec, epoch = self.spec, self.epoch
        torch.manual_seed(derive_seed(self.seed, "training", epoch))
        self.network.train()
        self.network.set_drop_path(spec.drop_path * epoch / spec.epochs)
        rows, versions = self._epoch_rows()
        mixing = np.random.default_rng(derive_seed(self.seed, "training mixtures", epoch))
        batches = shuffled_batches(
            len(rows), spec.batch_size, derive_seed(self.seed, "training batches", epoch)
        )
        total, logits, targets = 0.0, [], []
        for step, index in enumerate(batches):
            rate = learning_rate(spec, epoch * len(batches) + step, spec.epochs * len(batches))
            features, target = self.train.batch(rows[index], versions[index])
            mixture = None
            if spec.mixup > 0:
                mixture = Mixture.draw(len(index), spec.mixup, mixing)
                features = mixture.of(features)
            loss, out = self._step(mask_features(features, spec.masks), target, rate, mixture)
            require_finite(loss, f"training epoch {epoch + 1}, step {step + 1}: the loss")
            total += loss * len(index)
            logits.append(out)
            targets.append(target)
        train_loss, train_ua = loss_and_ua(torch.cat(logits), torch.cat(targets))
        validation = self.validation
        with autocast(self.precision, validation.features.device):
            logits_of_pieces = predict_logits(self.network, validation.features)
        out = join_pieces(at_least_single(logits_of_pieces), validation.owners)
        validation_loss, validation_ua = loss_and_ua(out, validation.utterance_targets)
        right = out.argmax(dim=1) == validation.utterance_targets
        self.epoch += 1
        row = {
            "epoch": self.epoch,
            "learning_rate": rate,
            "objective": total / len(rows),
            "train_loss": train_loss,
            "train_ua": train_ua,
            "validation_loss": validation_loss,
            "validation_ua": validation_ua,
            "validation_wa": float(right.cpu().double().mean()),
            "seconds": round(time.monotonic() - begun, 3),
        }
        self.history.append(row)
        self._keep_if_best()
        return row

    def _epoch_rows(self) -> tuple[Tensor, Tensor]:
        """Rows of the training part that this epoch hears, and the version of each."""
        train, epoch = self.train, self.epoch
        if self.spec.oversample:
            seed = derive_seed(self.seed, "training rows", epoch)
            rows = balanced_rows(train.targets.cpu(), seed)
        else:
            rows = torch.arange(len(train))
        generator = torch.Generator().manual_seed(
            derive_seed(self.seed, "training versions", epoch)
        )
        return rows, torch.randint(train.n_versions, rows.shape, generator=generator)

    def _step(
        self, features: Tensor, target: Tensor, rate: float, mixture: Mixture | None = None
    ) -> tuple[float, Tensor]:
        spec = self.spec
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        with autocast(self.precision, features.device):
            logits, extra = self.network.forward_with_auxiliary(features)
        logits = at_least_single(logits)
        if extra is not None:
            extra = at_least_single(extra)

        def criterion(truth: Tensor) -> Tensor:
            loss = self._cross_entropy(logits, truth)
            if extra is not None:
                loss = loss + spec.auxiliary_weight * self._cross_entropy(extra, truth)
            return loss

        loss = criterion(target) if mixture is None else mixture.loss(criterion, target)
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), spec.gradient_clip)
        require_finite(float(norm), f"training epoch {self.epoch + 1}: the gradient norm")
        self.optimiser.step()
        return loss.item(), logits.detach()

    def _cross_entropy(self, logits: Tensor, target: Tensor) -> Tensor:
        return functional.cross_entropy(
            logits, target, weight=self.weights, label_smoothing=self.spec.label_smoothing
        )

    def _keep_if_best(self) -> None:
        if self.spec.select == "last":
            best = self.epoch
        elif self.spec.select == "loss":
            best = min(self.history, key=lambda r: r["validation_loss"])["epoch"]
        else:
            best = max(self.history, key=lambda r: (r["validation_ua"], -r["validation_loss"]))[
                "epoch"
            ]
        if best == self.epoch:
            self.best_epoch = best
            self.best_state = {k: v.clone() for k, v in self.network.model_state().items()}

    def save(self, path: Path) -> None:
        tensors = {
            **with_prefix("network", self.network.state_dict()),
            **with_prefix("best", self.best_state),
            **pack_optimiser("optimiser", self.optimiser),
        }
        state = {"epoch": self.epoch, "best_epoch": self.best_epoch, "history": self.history}
        save_tensors(path, tensors, state)

    def restore(self, path: Path) -> None:
        tensors, state = load_tensors(path)
        try:
            self.network.load_state_dict(without_prefix("network", tensors))
            unpack_optimiser("optimiser", self.optimiser, tensors)
            self.best_state = without_prefix("best", tensors)
            self.epoch, self.best_epoch = int(state["epoch"]), int(state["best_epoch"])
            self.history = list(state["history"])
        except (KeyError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"{path} is not a checkpoint of this training: {error}"
            ) from error


def _optimiser(network: DiscreteNetwork, spec: TrainingSpec) -> torch.optim.Optimizer:
    parameters = network.parameters()
    if spec.optimiser == "sgd":
        return torch.optim.SGD(
            parameters, spec.learning_rate, spec.momentum, weight_decay=spec.weight_decay
        )
    return torch.optim.AdamW(
        parameters,
        spec.learning_rate,
        (spec.momentum, 0.999),
        weight_decay=spec.weight_decay,
    )

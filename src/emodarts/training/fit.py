"""Train a network by a fixed schedule; the epoch may be chosen on inner validation utterances."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from emodarts.checkpoint import (
    pack_optimiser,
    save_tensors,
    unpack_optimiser,
    with_prefix,
    without_prefix,
)
from emodarts.layout import TrialFolder
from emodarts.progress import Progress
from emodarts.recipe import TrainingSpec
from emodarts.recipe.search import Precision
from emodarts.runtime import at_least_single, autocast, derive_seed
from emodarts.training.augment import Mixture, balanced_rows, mask_features
from emodarts.training.batches import (
    UNKNOWN,
    Part,
    class_weights,
    gender_loss,
    join_pieces,
    loss_and_ua,
    n_batches,
    predict_logits,
    require_finite,
    shuffled_batches,
)
from emodarts.training.classifier import Classifier, Head
from emodarts.training.epochs import run_epochs

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
    network: Classifier,
    train: Part,
    validation: Part | None,
    spec: TrainingSpec,
    n_classes: int,
    *,
    seed: int,
    folder: TrialFolder,
    progress: Progress,
    title: str,
    precision: Precision = "fp32",
) -> Trained:
    """Train ``network`` in place and leave it with the weights of the chosen epoch.

    ``precision`` is that of its maps, as in ``ComputeSpec``; ``bf16`` needs a network that is not
    compiled. The inner validation has it too, as a choice between epochs is no score.

    The epoch is the last, or the one with the highest UA on ``validation`` (the lower loss decides
    between equals), or with the lowest loss; without a ``validation`` it can only be the last.
    Continues from ``folder`` if a training that was stopped left a checkpoint there. The weights of
    each epoch are kept if the optimistic score is asked for.

    Raises
    ------
    CheckpointError
        If the checkpoint in ``folder`` is broken.
    TrainingError
        If the loss is not finite.
    """
    fit = _Fit(network, train, validation, spec, n_classes, seed, folder, progress, precision)
    run_epochs(fit, fit.epochs, stage="training", folder=folder, progress=progress, title=title)
    network.load_state_dict(fit.best_state, strict=False)
    return Trained(fit.best["epoch"], fit.history)


class _Fit:
    """A training between its epochs."""

    def __init__(
        self,
        network: Classifier,
        train: Part,
        validation: Part | None,
        spec: TrainingSpec,
        n_classes: int,
        seed: int,
        folder: TrialFolder,
        progress: Progress,
        precision: Precision,
    ) -> None:
        self.network, self.train, self.validation = network, train, validation
        self.spec, self.seed, self.precision = spec, seed, precision
        self.folder, self.progress = folder, progress
        self.weights = class_weights(train.targets, n_classes) if spec.class_weights else None
        unknown = torch.full_like(train.targets, UNKNOWN)
        self.genders = unknown if train.genders is None else train.genders
        rows, _ = self._epoch_rows(0)  # as many as in every epoch
        self.epochs = spec.epochs_of(n_batches(len(rows), spec.batch_size))
        self.optimiser = _optimiser(network, spec)
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {}
        self.best_state: dict[str, Tensor] = {}

    def run_epoch(self) -> dict[str, Any]:
        """One pass over the training utterances.

        ``train_loss`` and ``train_ua`` are of the answers in training mode: to masked and
        augmented features, and with mixup to each mixture, judged by the target that weighs more
        in it. ``gender_loss``, where there is something to learn, is the mean over utterances of
        known gender.
        """
        spec, epoch = self.spec, len(self.history)
        torch.manual_seed(derive_seed(self.seed, "training", epoch))
        self.network.train()
        self.network.begin_epoch(epoch / self.epochs)
        rows, versions = self._epoch_rows(epoch)
        mixing = np.random.default_rng(derive_seed(self.seed, "training mixtures", epoch))
        batches = shuffled_batches(
            len(rows), spec.batch_size, derive_seed(self.seed, "training batches", epoch)
        )
        total, logits, targets, of_gender, genders = 0.0, [], [], [], []
        for step, index in enumerate(batches):
            rate = learning_rate(spec, epoch * len(batches) + step, self.epochs * len(batches))
            features, target = self.train.batch(rows[index], versions[index])
            mixture = None
            if spec.mixup > 0:
                mixture = Mixture.draw(len(index), spec.mixup, mixing)
                features = mixture.of(features)
            where = f"training epoch {epoch + 1}, step {step + 1}"
            features = mask_features(features, spec.masks)
            gender = self.genders[rows[index].to(self.genders.device)]
            loss, out, heads = self._step(features, target, gender, rate, mixture, where)
            total += loss * len(index)
            logits.append(out)
            targets.append(target)
            of_gender += [h.logits.detach() for h in heads if h.target == "gender"]
            genders.append(gender)
        train_loss, train_ua = loss_and_ua(torch.cat(logits), torch.cat(targets))
        row = {
            "steps": len(batches),
            "learning_rate": rate,
            "objective": total / len(rows),
            "train_loss": train_loss,
            "train_ua": train_ua,
            **_learned_gender(of_gender, torch.cat(genders)),
            **self._validate(),
        }
        self._keep_if_best({"epoch": epoch + 1, **row})
        if spec.optimistic:
            save_tensors(self.folder.epoch_weights(epoch + 1), self.network.model_state())
        self.progress.advance(loss=train_loss, ua=row.get("validation_ua", train_ua))
        return row

    def _epoch_rows(self, epoch: int) -> tuple[Tensor, Tensor]:
        """Rows of the training part that an epoch uses, and the version of each."""
        if self.spec.oversample:
            seed = derive_seed(self.seed, "training rows", epoch)
            rows = balanced_rows(self.train.targets.cpu(), seed)
        else:
            rows = torch.arange(len(self.train))
        generator = torch.Generator().manual_seed(
            derive_seed(self.seed, "training versions", epoch)
        )
        return rows, torch.randint(self.train.n_versions, rows.shape, generator=generator)

    def _step(
        self,
        features: Tensor,
        target: Tensor,
        gender: Tensor,
        rate: float,
        mixture: Mixture | None,
        where: str,
    ) -> tuple[float, Tensor, list[Head]]:
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        with autocast(self.precision, features.device):
            logits, extra = self.network.forward_with_auxiliary(features)
        logits = at_least_single(logits)
        heads = [head._replace(logits=at_least_single(head.logits)) for head in extra]

        def criterion(truth: Tensor, gender: Tensor) -> Tensor:
            loss = self._cross_entropy(logits, truth)
            for head in heads:
                if head.target == "gender":
                    own = gender_loss(head.logits, gender)
                else:
                    own = self._cross_entropy(head.logits, truth)
                loss = loss + head.weight * own
            return loss

        targets = target, gender
        loss = criterion(*targets) if mixture is None else mixture.loss(criterion, *targets)
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.spec.gradient_clip)
        require_finite(float(norm), f"{where}: the gradient norm")
        self.optimiser.step()
        require_finite(loss.item(), f"{where}: the loss")
        return loss.item(), logits.detach(), heads

    def _cross_entropy(self, logits: Tensor, target: Tensor) -> Tensor:
        return functional.cross_entropy(
            logits, target, weight=self.weights, label_smoothing=self.spec.label_smoothing
        )

    def _validate(self) -> dict[str, float]:
        part = self.validation
        if part is None:
            return {}
        with autocast(self.precision, part.features.device):
            logits_of_pieces = predict_logits(self.network, part.features)
        out = join_pieces(at_least_single(logits_of_pieces), part.owners)
        loss, ua = loss_and_ua(out, part.utterance_targets)
        right = out.argmax(dim=1) == part.utterance_targets
        return {
            "validation_loss": loss,
            "validation_ua": ua,
            "validation_wa": float(right.cpu().double().mean()),
        }

    def _keep_if_best(self, row: dict[str, Any]) -> None:
        if not self.best or self._merit(row) > self._merit(self.best):
            self.best = row
            self.best_state = {k: v.clone() for k, v in self.network.model_state().items()}

    def _merit(self, row: dict[str, Any]) -> tuple[float, ...]:
        match self.spec.select:
            case "ua":
                return row["validation_ua"], -row["validation_loss"]
            case "loss":
                return (-row["validation_loss"],)
        return (row["epoch"],)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = {
            **with_prefix("network", self.network.state_dict()),
            **with_prefix("best", self.best_state),
            **pack_optimiser("optimiser", self.optimiser),
        }
        return tensors, {"best": self.best}

    def restore(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        self.network.load_state_dict(without_prefix("network", tensors))
        unpack_optimiser("optimiser", self.optimiser, tensors)
        self.best_state = without_prefix("best", tensors)
        self.best = dict(values["best"])


def _learned_gender(logits: list[Tensor], genders: Tensor) -> dict[str, float]:
    if not logits or (genders == UNKNOWN).all():
        return {}
    return {
        "gender_loss": float(
            functional.cross_entropy(torch.cat(logits), genders, ignore_index=UNKNOWN)
        )
    }


def _optimiser(network: Classifier, spec: TrainingSpec) -> torch.optim.Optimizer:
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

"""Training: schedules, masks, the choice of the epoch, and that it resumes bit by bit."""

from pathlib import Path
from typing import Any

import pytest
import torch

from emodarts.batches import (
    Normalisation,
    Part,
    class_weights,
    loss_and_ua,
    predict_logits,
    shuffled_batches,
)
from emodarts.models.network import SearchedNetwork
from emodarts.progress import Silent
from emodarts.recipe import CNNSpec, MaskSpec, NetworkSpec, SearchedSeqNN, TrainingSpec
from emodarts.searching.derive import random_genotype
from emodarts.training import loop
from emodarts.training.loop import Trained, epoch_file, learning_rate, mask_features, train_network

NETWORK = NetworkSpec(
    cnn=CNNSpec(cells=3, nodes=1, channels=2),
    seqnn=SearchedSeqNN(space="lstm_att", cells=1, nodes=1, width=4),
)
SPEC = TrainingSpec(
    epochs=4,
    batch_size=8,
    optimiser="adamw",
    learning_rate=0.01,
    masks=MaskSpec(frequency_masks=1, frequency_width=2, time_masks=1, time_width=3),
)


def parts() -> tuple[Part, Part]:
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(40) % 3
    features = torch.randn(40, 1, 8, 10, generator=generator) + targets.view(-1, 1, 1, 1)
    return Part(features[:25], targets[:25]), Part(features[25:], targets[25:])


def train(
    folder: Path, spec: TrainingSpec = SPEC, seed: int = 0
) -> tuple[SearchedNetwork, Trained]:
    torch.manual_seed(seed)
    genotype = random_genotype(NETWORK, torch.Generator().manual_seed(0))
    network = SearchedNetwork(genotype, NETWORK, 8, 3, auxiliary=spec.auxiliary_weight > 0)
    trained = train_network(network, *parts(), spec, 3, seed=seed, folder=folder, progress=Silent())
    return network, trained


def scores(trained: Trained) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in trained.history]


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_a_resumed_training_is_the_training_that_was_never_stopped(
    tmp_path: Path, optimiser: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = SPEC.model_copy(update={"optimiser": optimiser})
    whole, expected = train(tmp_path / "whole", spec)

    class Killed(Exception):
        pass

    original = loop._Trainer.run_epoch

    def stop(self: Any) -> Any:
        if self.epoch == 2:
            raise Killed
        return original(self)

    monkeypatch.setattr(loop._Trainer, "run_epoch", stop)
    with pytest.raises(Killed):
        train(tmp_path / "killed", spec)
    monkeypatch.undo()
    network, trained = train(tmp_path / "killed", spec)
    assert scores(trained) == scores(expected)
    assert trained.epoch == expected.epoch
    for name, value in whole.model_state().items():
        assert torch.equal(network.model_state()[name], value), name


@pytest.mark.parametrize("select", ["ua", "loss", "last"])
def test_the_network_is_left_at_the_epoch_that_validation_chooses(
    tmp_path: Path, select: str
) -> None:
    spec = SPEC.model_copy(update={"select": select, "optimistic": True, "epochs": 6})
    network, trained = train(tmp_path, spec)
    rows = trained.history
    best = {
        "ua": max(rows, key=lambda r: (r["validation_ua"], -r["validation_loss"]))["epoch"],
        "loss": min(rows, key=lambda r: r["validation_loss"])["epoch"],
        "last": 6,
    }[select]
    assert trained.epoch == best
    kept, _ = loop.load_tensors(epoch_file(tmp_path, best))
    for name, value in network.model_state().items():
        assert torch.equal(kept[name], value), name
    logits = predict_logits(network, parts()[1].features)
    ua = loop.loss_and_ua(logits, parts()[1].targets)[1]
    assert ua == rows[best - 1]["validation_ua"]


def test_training_learns(tmp_path: Path) -> None:
    _, trained = train(tmp_path, SPEC.model_copy(update={"epochs": 25}))
    assert trained.history[-1]["train_loss"] < 0.7 * trained.history[0]["train_loss"]
    assert max(row["validation_ua"] for row in trained.history) > 0.6


@pytest.mark.parametrize(
    "change",
    [
        {"label_smoothing": 0.2},
        {"class_weights": False},
        {"auxiliary_weight": 0.0},
        {"drop_path": 0.0},
        {"masks": MaskSpec()},
        {"schedule": "constant"},
        {"schedule": "one_cycle"},
        {"optimiser": "sgd"},
        {"momentum": 0.5},
        {"weight_decay": 0.5},
        {"gradient_clip": 0.01},
        {"batch_size": 5},
    ],
    ids=str,
)
def test_every_setting_does_something(tmp_path: Path, change: dict[str, Any]) -> None:
    _, base = train(tmp_path / "base")
    _, other = train(tmp_path / "other", SPEC.model_copy(update=change))
    assert scores(base) != scores(other)


def test_cosine_equals_torchs_schedule() -> None:
    spec = SPEC.model_copy(update={"schedule": "cosine"})
    optimiser = torch.optim.SGD([torch.zeros(1)], lr=spec.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 30)
    for step in range(30):
        assert learning_rate(spec, step, 30) == pytest.approx(schedule.get_last_lr()[0])
        optimiser.step()
        schedule.step()


@pytest.mark.parametrize("n_steps", [10, 33, 100])
def test_one_cycle_equals_torchs_schedule(n_steps: int) -> None:
    spec = SPEC.model_copy(update={"schedule": "one_cycle"})
    optimiser = torch.optim.SGD([torch.zeros(1)], lr=1.0, momentum=0.9)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=spec.learning_rate, total_steps=n_steps
    )
    for step in range(n_steps):
        expected = schedule.get_last_lr()[0]
        assert learning_rate(spec, step, n_steps) == pytest.approx(expected, rel=1e-6, abs=1e-12)
        optimiser.step()
        if step < n_steps - 1:
            schedule.step()


def test_one_cycle_survives_the_shortest_training() -> None:
    spec = SPEC.model_copy(update={"schedule": "one_cycle"})
    for n_steps in (1, 2, 3, 4):
        rates = [learning_rate(spec, step, n_steps) for step in range(n_steps)]
        assert all(0 < rate <= spec.learning_rate for rate in rates)


def test_masks_zero_whole_bands_and_stretches_of_legal_width() -> None:
    features = torch.ones(200, 1, 12, 20)
    torch.manual_seed(0)
    out = mask_features(features, MaskSpec(frequency_masks=1, frequency_width=4))
    bands = (out == 0).all(dim=3).sum(dim=(1, 2))  # (B,) masked bands
    assert torch.equal((out == 0).sum(dim=(1, 2, 3)), bands * 20)
    assert set(bands.tolist()) == {0, 1, 2, 3, 4}
    out = mask_features(features, MaskSpec(time_masks=2, time_width=3))
    frames = (out == 0).all(dim=2).sum(dim=(1, 2))
    assert torch.equal((out == 0).sum(dim=(1, 2, 3)), frames * 12)
    assert int(frames.max()) == 6
    assert mask_features(features, MaskSpec()) is features
    wide = mask_features(features, MaskSpec(time_masks=1, time_width=1000))
    assert wide.shape == features.shape


def test_ua_is_the_mean_recall_of_the_classes_that_occur() -> None:
    logits = torch.eye(4)[[0, 0, 1, 2, 2]]
    targets = torch.tensor([0, 0, 0, 2, 2])
    loss, ua = loss_and_ua(logits, targets)
    assert ua == pytest.approx((2 / 3 + 1) / 2)
    right, wrong = torch.tensor([1.0, 0, 0, 0]).log_softmax(0)[:2].tolist()
    assert loss == pytest.approx(-(4 * right + wrong) / 5)


def test_class_weights_undo_the_class_frequencies() -> None:
    targets = torch.tensor([0, 0, 0, 1, 2, 2])
    weights = class_weights(targets, 3)
    torch.testing.assert_close(weights, torch.tensor([6 / 9, 6 / 3, 6 / 6]))
    torch.testing.assert_close(weights[targets].mean(), torch.tensor(1.0))


@pytest.mark.parametrize(("n", "size"), [(1, 4), (17, 16), (32, 16), (33, 16), (7, 100)])
def test_batches_hold_every_index_once_in_nearly_equal_sizes(n: int, size: int) -> None:
    batches = shuffled_batches(n, size, 0)
    assert sorted(torch.cat(batches).tolist()) == list(range(n))
    sizes = [len(b) for b in batches]
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1


def test_normalisation_is_of_each_coefficient() -> None:
    features = 5 * torch.randn(30, 1, 4, 9) + torch.arange(4.0).view(1, 1, 4, 1)
    normalisation = Normalisation.fit(features)
    out = normalisation.apply(features)
    torch.testing.assert_close(out.mean(dim=(0, 1, 3)), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.std(dim=(0, 1, 3), correction=0), torch.ones(4))
    constant = Normalisation.fit(torch.zeros(3, 1, 2, 2)).apply(torch.zeros(3, 1, 2, 2))
    assert torch.isfinite(constant).all()

"""Training: schedules, masks, the choice of the epoch, and that it resumes bit by bit."""

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from emodarts.batches import (
    Normalisation,
    Part,
    class_weights,
    endless_batches,
    loss_and_ua,
    shuffled_batches,
)
from emodarts.models.network import DropPath, SearchedNetwork
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


class Killed(Exception):
    pass


def train_until(folder: Path, spec: TrainingSpec, epoch: int) -> None:
    """Train, and be killed after some epochs."""
    original = loop._Trainer.run_epoch

    def stop(self: Any) -> Any:
        if self.epoch == epoch:
            raise Killed
        return original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._Trainer, "run_epoch", stop)
        with pytest.raises(Killed):
            train(folder, spec)


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_a_resumed_training_is_the_training_that_was_never_stopped(
    tmp_path: Path, optimiser: str
) -> None:
    spec = SPEC.model_copy(update={"optimiser": optimiser})
    whole, expected = train(tmp_path / "whole", spec)
    train_until(tmp_path / "killed", spec, 2)
    network, trained = train(tmp_path / "killed", spec)
    assert scores(trained) == scores(expected)
    assert trained.epoch == expected.epoch
    for name, value in whole.model_state().items():
        assert torch.equal(network.model_state()[name], value), name


@pytest.mark.parametrize("killed_after", [None, 5])
@pytest.mark.parametrize(("select", "best"), [("ua", 3), ("loss", 4), ("last", 6)])
def test_the_network_is_left_at_the_epoch_that_validation_chooses(
    tmp_path: Path,
    select: str,
    best: int,
    killed_after: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = iter([(1.0, 0.5), (0.8, 0.9), (0.7, 0.9), (0.6, 0.4), (0.9, 0.3), (1.1, 0.2)])
    n_validation = len(parts()[1])

    def scripted(logits: Tensor, targets: Tensor) -> tuple[float, float]:
        return next(script) if len(targets) == n_validation else loss_and_ua(logits, targets)

    monkeypatch.setattr(loop, "loss_and_ua", scripted)
    spec = SPEC.model_copy(update={"select": select, "optimistic": True, "epochs": 6})
    if killed_after is not None:
        train_until(tmp_path, spec, killed_after)
    network, trained = train(tmp_path, spec)
    assert trained.epoch == best
    kept, _ = loop.load_tensors(epoch_file(tmp_path, best))
    for name, value in network.model_state().items():
        assert torch.equal(kept[name], value), name


def test_every_epoch_hears_all_in_another_order_with_other_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[Tensor] = []
    states: list[bytes] = []

    def spy(features: Tensor, spec: MaskSpec) -> Tensor:
        heard.append(features[:, 0, 0, 0])
        states.append(torch.get_rng_state().numpy().tobytes())
        return mask_features(features, spec)

    monkeypatch.setattr(loop, "mask_features", spy)
    network, _ = train(tmp_path)
    epochs = torch.cat(heard).view(4, 25)
    everybody = parts()[0].features[:, 0, 0, 0].sort().values
    assert torch.equal(epochs.sort(dim=1).values, everybody.expand(4, 25))
    assert len({tuple(order.tolist()) for order in epochs}) == 4
    assert len(set(states)) == len(states)
    # The probability of dropping a path grows from 0 by a quarter of 0.2 an epoch.
    dropped = {m.probability for m in network.modules() if isinstance(m, DropPath)}
    assert [round(p, 9) for p in dropped] == [0.15]


def test_the_objective_weighs_classes_and_adds_the_auxiliary_head() -> None:
    genotype = random_genotype(NETWORK, torch.Generator().manual_seed(0))
    network = SearchedNetwork(genotype, NETWORK, 8, 3, auxiliary=True).eval()
    train, validation = parts()
    logits, extra = network.forward_with_auxiliary(train.features)
    assert extra is not None
    weight = 25 / (3 * torch.bincount(train.targets))
    main, auxiliary = (
        functional.cross_entropy(x, train.targets, weight=weight) for x in (logits, extra)
    )
    trainer = loop._Trainer(network, train, validation, SPEC, 3, 0)
    loss, _ = trainer._step(train.features, train.targets, 0.01)
    assert loss == pytest.approx((main + 0.4 * auxiliary).item())


def test_training_learns(tmp_path: Path) -> None:
    network, trained = train(tmp_path, SPEC.model_copy(update={"epochs": 25}))
    rows, validation = trained.history, parts()[1]
    assert rows[-1]["train_loss"] < 0.7 * rows[0]["train_loss"]
    assert max(row["validation_ua"] for row in rows) > 0.6
    chosen = rows[trained.epoch - 1]
    with torch.inference_mode():
        loss, ua = loss_and_ua(network.eval()(validation.features), validation.targets)
    assert chosen["validation_ua"] == ua
    assert chosen["validation_loss"] == pytest.approx(loss)


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


def test_endless_batches_shuffle_every_cycle_anew() -> None:
    batches = islice(endless_batches(7, 3, lambda cycle: 10 + cycle), 9)
    expected = [batch for seed in (10, 11, 12) for batch in shuffled_batches(7, 3, seed)]
    assert all(torch.equal(a, b) for a, b in zip(batches, expected, strict=True))
    assert not torch.equal(torch.cat(expected[:3]), torch.cat(expected[3:6]))


def test_normalisation_is_of_each_coefficient() -> None:
    features = 5 * torch.randn(30, 1, 4, 9) + torch.arange(4.0).view(1, 1, 4, 1)
    normalisation = Normalisation.fit(features)
    out = normalisation.apply(features)
    torch.testing.assert_close(out.mean(dim=(0, 1, 3)), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.std(dim=(0, 1, 3), correction=0), torch.ones(4))
    constant = Normalisation.fit(torch.zeros(3, 1, 2, 2)).apply(torch.zeros(3, 1, 2, 2))
    assert torch.isfinite(constant).all()

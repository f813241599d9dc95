"""Training: schedules, draws, the choice of the epoch, and that it resumes bit by bit."""

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
from emodarts.models.network import SearchedNetwork
from emodarts.progress import Silent
from emodarts.recipe import CNNSpec, MaskSpec, NetworkSpec, SearchedSeqNN, TrainingSpec
from emodarts.searching.derive import random_genotype
from emodarts.space.cell import DropPath
from emodarts.training import loop
from emodarts.training.augment import Mixture, mask_features
from emodarts.training.loop import Trained, epoch_file, learning_rate, train_network

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


#: All that draws at random while a network trains.
DRAWN = SPEC.model_copy(update={"class_weights": False, "oversample": True, "mixup": 0.4})


def parts(n_variants: int = 0) -> tuple[Part, Part]:
    """Training and validation utterances; variants are the features plus 100, 200, ..."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(40) % 3
    features = torch.randn(40, 1, 8, 10, generator=generator) + targets.view(-1, 1, 1, 1)
    variants = torch.stack(
        [features[:25] + 100 * v for v in range(1, n_variants + 1)] or [features]
    )
    return (
        Part(features[:25], targets[:25], None, variants if n_variants else None),
        Part(features[25:], targets[25:]),
    )


def train(
    folder: Path, spec: TrainingSpec = SPEC, seed: int = 0, n_variants: int = 0
) -> tuple[SearchedNetwork, Trained]:
    torch.manual_seed(seed)
    genotype = random_genotype(NETWORK, torch.Generator().manual_seed(0))
    network = SearchedNetwork(genotype, NETWORK, 8, 3, auxiliary=spec.auxiliary_weight > 0)
    trained = train_network(
        network, *parts(n_variants), spec, 3, seed=seed, folder=folder, progress=Silent()
    )
    return network, trained


def scores(trained: Trained) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in trained.history]


class Killed(Exception):
    pass


def train_until(folder: Path, spec: TrainingSpec, epoch: int, n_variants: int = 0) -> None:
    """Train, and be killed after some epochs."""
    original = loop._Trainer.run_epoch

    def stop(self: Any) -> Any:
        if self.epoch == epoch:
            raise Killed
        return original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._Trainer, "run_epoch", stop)
        with pytest.raises(Killed):
            train(folder, spec, n_variants=n_variants)


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
@pytest.mark.parametrize(("base", "n_variants"), [(SPEC, 0), (DRAWN, 2)], ids=["plain", "drawn"])
def test_a_resumed_training_is_the_training_that_was_never_stopped(
    tmp_path: Path, optimiser: str, base: TrainingSpec, n_variants: int
) -> None:
    spec = base.model_copy(update={"optimiser": optimiser})
    whole, expected = train(tmp_path / "whole", spec, n_variants=n_variants)
    train_until(tmp_path / "killed", spec, 2, n_variants)
    network, trained = train(tmp_path / "killed", spec, n_variants=n_variants)
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


def heard_in(folder: Path, spec: TrainingSpec, n_variants: int = 0) -> list[Tensor]:
    """One feature of every utterance that each epoch gives to the network, without masks."""
    heard: list[list[Tensor]] = []
    epoch, step = loop._Trainer.run_epoch, loop._Trainer._step

    def run_epoch(self: Any) -> Any:
        heard.append([])
        return epoch(self)

    def run_step(self: Any, features: Tensor, *rest: Any) -> Any:
        heard[-1].append(features[:, 0, 0, 0].clone())
        return step(self, features, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._Trainer, "run_epoch", run_epoch)
        patch.setattr(loop._Trainer, "_step", run_step)
        train(folder, spec.model_copy(update={"masks": MaskSpec()}), n_variants=n_variants)
    return [torch.cat(batches) for batches in heard]


def test_every_epoch_draws_a_version_of_each_utterance(tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"epochs": 12})
    original = parts()[0].features[:, 0, 0, 0]
    chosen = []
    for values in heard_in(tmp_path, spec, n_variants=2):
        version = (values / 100).round()
        utterance = (values - 100 * version)[:, None].sub(original).abs().argmin(dim=1)
        assert utterance.sort().values.tolist() == list(range(25))
        chosen.append(version[utterance.argsort()])
    drawn = torch.stack(chosen)  # (epochs, utterances)
    assert set(drawn.flatten().tolist()) == {0.0, 1.0, 2.0}
    # 300 draws of three versions: each 100 on average, with a deviation of 8.
    assert all(70 <= int((drawn == v).sum()) <= 130 for v in (0, 1, 2))
    assert all(len(set(versions.tolist())) > 1 for versions in drawn.T)


def test_oversampling_repeats_the_smaller_classes_in_every_epoch(tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"class_weights": False, "oversample": True})
    training = parts()[0]
    assert torch.bincount(training.targets).tolist() == [9, 8, 8]
    repeated = set()
    for values in heard_in(tmp_path, spec):
        utterance = values[:, None].sub(training.features[:, 0, 0, 0]).abs().argmin(dim=1)
        assert torch.bincount(training.targets[utterance]).tolist() == [9, 9, 9]
        times = torch.bincount(utterance)
        assert sorted(times.tolist()) == [1] * 23 + [2] * 2
        repeated.add(tuple(torch.nonzero(times == 2)[:, 0].tolist()))
    assert len(repeated) > 1
    # Without weights, smoothing and a second head, the objective is the mean loss of the epoch.
    _, trained = train(tmp_path / "plain", spec.model_copy(update={"auxiliary_weight": 0.0}))
    for row in trained.history:
        assert row["objective"] == pytest.approx(row["train_loss"], rel=1e-5)


def test_a_repeated_utterance_is_heard_in_several_versions(tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"class_weights": False, "oversample": True, "epochs": 6})
    original = parts()[0].features[:, 0, 0, 0]
    differ = 0
    for values in heard_in(tmp_path, spec, n_variants=9):
        version = (values / 100).round()
        utterance = (values - 100 * version)[:, None].sub(original).abs().argmin(dim=1)
        for twice in torch.nonzero(torch.bincount(utterance) == 2)[:, 0]:
            differ += len(version[utterance == twice].unique()) - 1
    # 12 repetitions, of which nine in ten draw another version than the first time.
    assert differ >= 7


def test_mixup_mixes_what_is_heard_with_what_is_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch, its mixture and its targets belong together, and train UA is of the leaders."""
    training, steps = parts()[0], []
    step, score = loop._Trainer._step, loop.loss_and_ua
    scored: list[Tensor] = []

    def run_step(
        self: Any, features: Tensor, target: Tensor, rate: float, mixture: Mixture
    ) -> tuple[float, Tensor]:
        steps.append((features[:, 0, 0, 0].clone(), target, mixture))
        return step(self, features, target, rate, mixture)

    def run_score(logits: Tensor, targets: Tensor) -> tuple[float, float]:
        scored.append(targets)
        return score(logits, targets)

    monkeypatch.setattr(loop._Trainer, "_step", run_step)
    monkeypatch.setattr(loop, "loss_and_ua", run_score)
    train(tmp_path, SPEC.model_copy(update={"mixup": 1.0, "masks": MaskSpec(), "epochs": 3}))
    weights = [mixture.weight for *_, mixture in steps]
    assert len(set(weights)) == len(weights)
    original = training.features[:, 0, 0, 0]
    pairs = torch.cartesian_prod(torch.arange(25), torch.arange(25))
    for heard, target, mixture in steps:
        mixed = (
            mixture.weight * original[pairs[:, 0]] + (1 - mixture.weight) * original[pairs[:, 1]]
        )
        leader, partner = pairs[heard[:, None].sub(mixed).abs().argmin(dim=1)].T
        assert torch.equal(training.targets[leader], target)
        assert torch.equal(leader[mixture.partners], partner)
    everybody = training.targets.sort().values
    for targets in scored[::2]:
        assert torch.equal(targets.sort().values, everybody)


@pytest.mark.parametrize("mixed", [False, True])
def test_the_objective_weighs_classes_and_adds_the_auxiliary_head(mixed: bool) -> None:
    genotype = random_genotype(NETWORK, torch.Generator().manual_seed(0))
    network = SearchedNetwork(genotype, NETWORK, 8, 3, auxiliary=True).eval()
    train, validation = parts()
    logits, extra = network.forward_with_auxiliary(train.features)
    assert extra is not None
    weight = 25 / (3 * torch.bincount(train.targets))
    mixture = Mixture(0.7, torch.randperm(25)) if mixed else None
    truth = functional.one_hot(train.targets, 3).float()
    if mixture is not None:
        truth = mixture.of(truth)
    # Each utterance's targets, smoothed, times the weights of their classes.
    truth = weight * (0.9 * truth + 0.1 / 3)
    main, auxiliary = (-(truth * x.log_softmax(1)).sum() / 25 for x in (logits, extra))
    spec = SPEC.model_copy(update={"label_smoothing": 0.1})
    trainer = loop._Trainer(network, train, validation, spec, 3, 0)
    loss, _ = trainer._step(train.features, train.targets, 0.01, mixture)
    assert loss == pytest.approx((main + 0.4 * auxiliary).item())


def test_validation_counts_utterances_and_not_their_pieces(tmp_path: Path) -> None:
    network, _ = train(tmp_path)
    training, validation = parts()
    owners = torch.tensor([0, 0, 0, 0, 1, 2, 2, 3, 4, 4, 4, 5, 6, 6, 6])
    pieces = Part(validation.features, torch.tensor([0, 1, 2, 0, 1, 2, 0])[owners], owners)
    row = loop._Trainer(network, training, pieces, SPEC, 3, 0).run_epoch()
    with torch.inference_mode():
        probabilities = network.eval()(validation.features).softmax(dim=1)
    joined = torch.stack([probabilities[owners == k].mean(dim=0) for k in range(7)])
    loss, ua = loss_and_ua(joined.log(), torch.tensor([0, 1, 2, 0, 1, 2, 0]))
    assert (row["validation_loss"], row["validation_ua"]) == pytest.approx((loss, ua))


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
        {"mixup": 0.5},
        {"oversample": True},
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

"""Training: schedules, draws, the choice of the epoch, and that it resumes bit by bit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from emodarts.checkpoint import load_tensors
from emodarts.cost import MEASURED
from emodarts.errors import TrainingError
from emodarts.layout import TrialFolder
from emodarts.progress import Progress, Silent
from emodarts.recipe import MaskSpec, PerturbationSpec, TrainingSpec
from emodarts.training.augment import Mixture
from emodarts.training.batches import Part, loss_and_ua
from emodarts.training.classifier import Classifier, Head
from emodarts.training.fit import Trained, learning_rate, train_network
from emodarts.training.views import Views
from killing import Kill, Killed

SPEC = TrainingSpec(
    epochs=4,
    batch_size=8,
    optimiser="adamw",
    learning_rate=0.01,
    masks=MaskSpec(frequency_masks=1, frequency_width=2, time_masks=1, time_width=3),
)
#: All that draws at random while a network trains.
DRAWN = SPEC.model_copy(update={"class_weights": False, "oversample": True, "mixup": 0.4})
PLAIN = SPEC.model_copy(update={"masks": MaskSpec()})
#: Stretches of a map, with every change of it.
PERTURBED = Views(
    6,
    PerturbationSpec(
        speed=(0.8, 1.2), stretch=(0.8, 1.2), vtlp=(0.9, 1.1), equaliser=0.3, mix_statistics=0.5
    ),
    torch.linspace(50, 4000, 8),
)


class Small(Classifier):
    """A convolution with batch norm and dropout; remembers what it was given in training."""

    def __init__(self, auxiliary_weight: float = 0.4) -> None:
        super().__init__()
        self.auxiliary_weight = auxiliary_weight
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2))
        self.main = nn.Linear(4, 3)
        self.extra = nn.Linear(4, 3)
        self.shares: list[float] = []
        self.given: list[list[Tensor]] = []

    def begin_epoch(self, share: float) -> None:
        self.shares.append(share)
        self.given.append([])

    def forward(self, features: Tensor) -> Tensor:
        answer: Tensor = self.main(self.body(features).mean(dim=(2, 3)))
        return answer

    def forward_with_auxiliary(self, features: Tensor) -> tuple[Tensor, list[Head]]:
        self.given[-1].append(features.clone())
        pooled = self.body(features).mean(dim=(2, 3))
        weight = self.auxiliary_weight
        return self.main(pooled), [Head(self.extra(pooled), weight)] if weight else []

    def model_state(self) -> dict[str, Tensor]:
        return {k: v for k, v in self.state_dict().items() if not k.startswith("extra.")}

    def marks(self) -> list[Tensor]:
        """The first value of every utterance of every epoch."""
        return [torch.cat([x[:, 0, 0, 0] for x in batches]) for batches in self.given]


def parts(n_variants: int = 0, views: Views | None = None) -> tuple[Part, Part]:
    """Training and validation utterances; variants are the features plus 100, 200, ..."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(40) % 3
    features = torch.randn(40, 1, 8, 10, generator=generator) + targets.view(-1, 1, 1, 1)
    variants = tuple(features[:25] + 100 * v for v in range(1, n_variants + 1))
    return (
        Part(features[:25], targets[:25], None, variants, views),
        Part(features[25:], targets[25:]),
    )


def train(
    folder: Path,
    spec: TrainingSpec = SPEC,
    *,
    n_variants: int = 0,
    views: Views | None = None,
    network: Small | None = None,
    validation: Part | None = None,
    progress: Progress | None = None,
) -> tuple[Small, Trained]:
    torch.manual_seed(0)
    network = network or Small()
    training, other = parts(n_variants, views)
    trained = train_network(
        network,
        training,
        validation or other,
        spec,
        3,
        seed=0,
        folder=TrialFolder(folder),
        progress=progress or Silent(),
        title="train",
    )
    return network, trained


def scores(trained: Trained) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in MEASURED} for row in trained.history]


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
@pytest.mark.parametrize(
    ("base", "n_variants", "views"),
    [(SPEC, 0, None), (DRAWN, 2, None), (SPEC, 0, PERTURBED)],
    ids=["plain", "drawn", "perturbed"],
)
def test_a_resumed_training_is_the_training_that_was_never_stopped(
    tmp_path: Path, optimiser: str, base: TrainingSpec, n_variants: int, views: Views | None
) -> None:
    spec = base.model_copy(update={"optimiser": optimiser})
    given: dict[str, Any] = {"n_variants": n_variants, "views": views}
    whole, expected = train(tmp_path / "whole", spec, **given)
    with pytest.raises(Killed):
        train(tmp_path / "killed", spec, progress=Kill(3), **given)
    network, trained = train(tmp_path / "killed", spec, **given)
    assert network.shares == [0.5, 0.75]
    assert scores(trained) == scores(expected)
    assert trained.epoch == expected.epoch
    for name, value in whole.model_state().items():
        assert torch.equal(network.model_state()[name], value), name


class Scripted(Small):
    """Validates as a script says: utterances that are right, and how sure the answers are."""

    SCRIPT = ((8, 1.0), (13, 12.0), (13, 10.0), (9, 0.5), (6, 1.0), (5, 1.0))

    def forward(self, features: Tensor) -> Tensor:
        right, scale = self.SCRIPT[round(self.shares[-1] * len(self.SCRIPT))]
        answers = parts()[1].targets.clone()
        answers[right:] = (answers[right:] + 1) % 3
        return scale * functional.one_hot(answers, 3).float()


@pytest.mark.parametrize("killed_after", [None, 2, 5])
@pytest.mark.parametrize(("select", "best"), [("ua", 3), ("loss", 4), ("last", 6)])
def test_the_network_is_left_at_the_epoch_that_validation_chooses(
    tmp_path: Path, select: str, best: int, killed_after: int | None
) -> None:
    spec = SPEC.model_copy(update={"select": select, "optimistic": True, "epochs": 6})
    if killed_after is not None:
        with pytest.raises(Killed):
            train(tmp_path, spec, network=Scripted(), progress=Kill(killed_after + 1))
    network, trained = train(tmp_path, spec, network=Scripted())
    assert trained.epoch == best
    kept, _ = load_tensors(TrialFolder(tmp_path).epoch_weights(best))
    for name, value in network.model_state().items():
        assert torch.equal(kept[name], value), name


def test_every_epoch_uses_all_in_another_order_with_other_masks(tmp_path: Path) -> None:
    network, _ = train(tmp_path, PLAIN)
    epochs = torch.stack(network.marks())
    everybody = parts()[0].features[:, 0, 0, 0].sort().values
    assert torch.equal(epochs.sort(dim=1).values, everybody.expand(4, 25))
    assert len({tuple(order.tolist()) for order in epochs}) == 4
    masked, _ = train(tmp_path / "masked")
    zeros = [tuple((torch.cat(x) == 0).flatten().tolist()) for x in masked.given]
    assert len(set(zeros)) == 4


def test_the_network_learns_how_far_the_training_is(tmp_path: Path) -> None:
    network, _ = train(tmp_path)
    assert network.shares == [0.0, 0.25, 0.5, 0.75]


def test_most_steps_shorten_the_schedule_by_whole_epochs(tmp_path: Path) -> None:
    """25 utterances make 4 steps of at most 8. Of at most 13 they make 2, and oversampled 3."""
    one_cycle = SPEC.model_copy(update={"schedule": "one_cycle"})
    short = one_cycle.model_copy(update={"epochs": 2})
    for most, equal in ((11, short), (16, one_cycle), (100, one_cycle)):
        bounded = one_cycle.model_copy(update={"max_steps": most})
        network, trained = train(tmp_path / str(most), bounded)
        _, expected = train(tmp_path / f"as-{most}", equal)
        assert scores(trained) == scores(expected)
        assert network.shares == [k / equal.epochs for k in range(equal.epochs)]
    _, least = train(tmp_path / "least", SPEC.model_copy(update={"max_steps": 1}))
    assert [row["steps"] for row in least.history] == [4]
    fewer = {"max_steps": 8, "batch_size": 13, "class_weights": False}
    for repeated, steps in ((False, [2, 2, 2, 2]), (True, [3, 3])):
        spec = SPEC.model_copy(update={**fewer, "oversample": repeated})
        _, trained = train(tmp_path / f"oversample-{repeated}", spec)
        assert [row["steps"] for row in trained.history] == steps


def test_every_epoch_draws_a_version_of_each_utterance(tmp_path: Path) -> None:
    spec = PLAIN.model_copy(update={"epochs": 12})
    original = parts()[0].features[:, 0, 0, 0]
    network, _ = train(tmp_path, spec, n_variants=2)
    chosen = []
    for values in network.marks():
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
    spec = PLAIN.model_copy(update={"class_weights": False, "oversample": True})
    training = parts()[0]
    assert torch.bincount(training.targets).tolist() == [9, 8, 8]
    repeated = set()
    network, trained = train(tmp_path, spec, network=Small(auxiliary_weight=0.0))
    for values in network.marks():
        utterance = values[:, None].sub(training.features[:, 0, 0, 0]).abs().argmin(dim=1)
        assert torch.bincount(training.targets[utterance]).tolist() == [9, 9, 9]
        times = torch.bincount(utterance)
        assert sorted(times.tolist()) == [1] * 23 + [2] * 2
        repeated.add(tuple(torch.nonzero(times == 2)[:, 0].tolist()))
    assert len(repeated) > 1
    # Without weights, smoothing and a second head, the objective is the mean loss of the epoch.
    for row in trained.history:
        assert row["objective"] == pytest.approx(row["train_loss"], rel=1e-5)


def test_a_repeated_utterance_is_used_in_several_versions(tmp_path: Path) -> None:
    spec = PLAIN.model_copy(update={"class_weights": False, "oversample": True, "epochs": 6})
    original = parts()[0].features[:, 0, 0, 0]
    network, _ = train(tmp_path, spec, n_variants=9)
    differ = 0
    for values in network.marks():
        version = (values / 100).round()
        utterance = (values - 100 * version)[:, None].sub(original).abs().argmin(dim=1)
        for twice in torch.nonzero(torch.bincount(utterance) == 2)[:, 0]:
            differ += len(version[utterance == twice].unique()) - 1
    # 12 repetitions, of which nine in ten draw another version than the first time.
    assert differ >= 7


@pytest.mark.parametrize("mixed", [False, True])
def test_the_objective_weighs_classes_smooths_and_adds_the_auxiliary_head(
    tmp_path: Path, mixed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the batch that the network was given: which utterances are in it, in which share."""
    mixtures: list[Mixture] = []
    draw = Mixture.draw

    def drawn(n: int, alpha: float, generator: np.random.Generator) -> Mixture:
        mixtures.append(draw(n, alpha, generator))
        return mixtures[-1]

    monkeypatch.setattr(Mixture, "draw", drawn)
    keys = {"epochs": 1, "batch_size": 25, "label_smoothing": 0.1, "mixup": 1.0 * mixed}
    network = Small()
    network.body[3] = nn.Identity()  # dropout would be drawn again below
    before = {k: v.clone() for k, v in network.state_dict().items()}
    _, trained = train(tmp_path, PLAIN.model_copy(update=keys), network=network)
    [[given]] = network.given
    training = parts()[0]
    truth = functional.one_hot(training.targets, 3).float()
    if mixed:
        [mixture] = mixtures
        weight, original = mixture.weight, training.features
        pairs = torch.cartesian_prod(torch.arange(25), torch.arange(25))
        blends = weight * original[pairs[:, 0]] + (1 - weight) * original[pairs[:, 1]]
        found = torch.cdist(given.flatten(1), blends.flatten(1)).argmin(dim=1)
        leader, partner = pairs[found].T
        assert torch.equal(leader[mixture.partners], partner)
        truth = weight * truth[leader] + (1 - weight) * truth[partner]
    else:
        leader = torch.cdist(given.flatten(1), training.features.flatten(1)).argmin(dim=1)
        truth = truth[leader]
    assert sorted(leader.tolist()) == list(range(25))
    network.load_state_dict(before)
    logits, [(extra, _, _)] = network.train().forward_with_auxiliary(given)
    # Each utterance's targets, smoothed, times the weights of their classes.
    truth = 25 / (3 * torch.bincount(training.targets)) * (0.9 * truth + 0.1 / 3)
    main, auxiliary = (-(truth * x.log_softmax(1)).sum() / 25 for x in (logits, extra))
    [row] = trained.history
    assert row["objective"] == pytest.approx((main + 0.4 * auxiliary).item(), rel=1e-5)
    # Loss and UA of the answers are by the targets that weigh more in the mixtures.
    loss, ua = loss_and_ua(logits.detach(), training.targets[leader])
    assert (row["train_loss"], row["train_ua"]) == (pytest.approx(loss), ua)


def test_validation_counts_utterances_and_not_their_pieces(tmp_path: Path) -> None:
    owners = torch.tensor([0, 0, 0, 0, 1, 2, 2, 3, 4, 4, 4, 5, 6, 6, 6])
    targets = torch.tensor([0, 1, 2, 0, 1, 2, 0])
    features = parts()[1].features
    network, trained = train(
        tmp_path,
        SPEC.model_copy(update={"select": "last"}),
        validation=Part(features, targets[owners], owners),
    )
    with torch.inference_mode():
        probabilities = network.eval()(features).softmax(dim=1)
    joined = torch.stack([probabilities[owners == k].mean(dim=0) for k in range(7)])
    row = trained.history[-1]
    expected = loss_and_ua(joined.log(), targets)
    assert (row["validation_loss"], row["validation_ua"]) == pytest.approx(expected)


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


def test_a_diverging_training_says_so(tmp_path: Path) -> None:
    wild = SPEC.model_copy(update={"optimiser": "sgd", "learning_rate": 1e38})
    with pytest.raises(TrainingError, match=r"training epoch .* lower the learning rate"):
        train(tmp_path, wild)


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

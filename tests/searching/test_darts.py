"""DARTS: what trains when, what is recorded, and that it resumes bit by bit."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from emodarts.cost import MEASURED
from emodarts.errors import CheckpointError, TrainingError
from emodarts.genotype import Genotype
from emodarts.layout import TrialFolder
from emodarts.recipe.search import AlphaOptimiser, WeightOptimiser
from emodarts.searching.gradients import (
    Batch,
    frozen_running_statistics,
    look_ahead,
    random_state,
    restore_random_state,
)
from emodarts.searching.one_shot import (
    Hooks,
    Search,
    signal_to_noise,
    ua_above_chance,
)
from emodarts.searching.strategies.darts import Darts
from emodarts.training.batches import Part, loss_and_ua, predict_logits
from killing import Kill, Killed
from toy_search import CPU, SPEC, make_task, records, search

SHORT = SPEC.model_copy(update={"epochs": 3})


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("short")
    search(SHORT, make_task(folder))
    return records(folder)


def table(folder: Path) -> list[dict[str, str]]:
    with TrialFolder(folder).search_history.open() as file:
        return list(csv.DictReader(file))


def position(part: Part, batch: Batch) -> list[int]:
    """Which utterances of a part are in a batch; fails if one is not of that part."""
    same = (batch[0][:, None] == part.features).flatten(2).all(dim=2)
    assert torch.equal(same.sum(dim=1), torch.ones(len(batch[1]), dtype=torch.long))
    return same.nonzero()[:, 1].tolist()


@pytest.mark.parametrize("order", [1, 2])
def test_alphas_stand_still_in_warm_up_and_move_after_it(tmp_path: Path, order: int) -> None:
    genotype = search(SPEC.model_copy(update={"order": order}), make_task(tmp_path))
    epochs = records(tmp_path)
    assert len(epochs) == 4
    start = Search(SPEC, make_task(tmp_path), Hooks()).supernet.alpha_parameters()
    for name in ("normal", "reduction", "sequence"):
        assert epochs[0]["alphas"][name] == start[name].tolist()
        assert epochs[1]["alphas"][name] != epochs[0]["alphas"][name]
    assert Genotype.from_dict(epochs[-1]["genotype"]) == genotype


def test_the_record_of_an_epoch_is_complete(tmp_path: Path) -> None:
    search(SPEC, make_task(tmp_path))
    rows = table(tmp_path)
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4]
    cells = ("normal", "reduction", "sequence")
    assert set(rows[0]) == {
        "epoch",
        "learning_rate",
        "weight_loss",
        "alpha_loss",
        "alpha_ua",
        "steps",
        *MEASURED[:3],
        *(f"skips_{c}" for c in cells),
        *(f"entropy_{c}" for c in cells),
        *(f"alpha_snr_{c}" for c in cells),
        "warm_up",
        "above_chance",
    }
    record = records(tmp_path)[-1]
    genotype = Genotype.from_dict(record["genotype"])
    for name, count in genotype.skip_counts().items():
        assert int(rows[-1][f"skips_{name}"]) == count
        weights = torch.softmax(torch.tensor(record["alphas"][name]), dim=1)
        entropy = -(weights * weights.log()).sum(dim=1).mean()
        assert float(rows[-1][f"entropy_{name}"]) == pytest.approx(float(entropy), abs=1e-5)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("step", [1, 4, 7])
def test_a_resumed_search_is_the_search_that_was_never_stopped(
    tmp_path: Path, order: int, step: int
) -> None:
    spec = SPEC.model_copy(update={"order": order})
    genotype = search(spec, make_task(tmp_path / "whole"))
    with pytest.raises(Killed):
        search(spec, make_task(tmp_path / "killed", Kill(step)))
    torch.manual_seed(99)  # whatever else has drawn numbers in the new process
    assert search(spec, make_task(tmp_path / "killed")) == genotype
    assert records(tmp_path / "killed") == records(tmp_path / "whole")


def test_a_finished_search_is_not_repeated(tmp_path: Path) -> None:
    genotype = search(SPEC, make_task(tmp_path))
    assert search(SPEC, make_task(tmp_path, Kill(1))) == genotype


def test_seeds_differ_and_repeat(tmp_path: Path) -> None:
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        search(SPEC, make_task(tmp_path / folder, seed=seed))
    assert records(tmp_path / "a") == records(tmp_path / "b")
    assert records(tmp_path / "a") != records(tmp_path / "c")


def test_weights_step_to_where_the_alphas_look(tmp_path: Path) -> None:
    """While alphas stand still, each look-ahead is the step that follows it, masks and all."""
    spec = SPEC.model_copy(
        update={
            "warmup_epochs": 0,
            "class_weights": False,
            "weights": WeightOptimiser(gradient_clip=1e9),
            "alphas": AlphaOptimiser().model_copy(update={"learning_rate": 0.0}),
        }
    )
    task = make_task(tmp_path)
    aheads: list[list[Tensor]] = []
    used: list[tuple[list[int], list[int]]] = []

    def gradient(search: Search, train: Batch, validation: Batch) -> dict[str, Tensor]:
        supernet, step = search.supernet, search.look_ahead()
        weights = supernet.weight_parameters()
        assert supernet.training
        if aheads:
            torch.testing.assert_close([w.detach() for w in weights.values()], aheads[-1])
        masks = random_state(CPU)
        with frozen_running_statistics(supernet):
            value = functional.cross_entropy(supernet(train[0]), train[1])
            found = torch.autograd.grad(value, list(weights.values()))
        restore_random_state(CPU, masks)
        aheads.append(look_ahead(weights, found, step))
        used.append((position(task.weights, train), position(task.alphas, validation)))
        return Darts(spec).second_order(search, train, validation)

    searched = Search(spec, task, Hooks(gradient=gradient))
    for _ in range(3):
        scalars = searched.run_epoch()
        assert scalars is not None
        searched.history.append(scalars)
    weights = searched.supernet.weight_parameters().values()
    torch.testing.assert_close([w.detach() for w in weights], aheads[-1])
    logits = predict_logits(searched.supernet, task.alphas.features)
    assert (scalars["alpha_loss"], scalars["alpha_ua"]) == loss_and_ua(logits, task.alphas.targets)
    # Two steps an epoch: each half is used once, in another order every epoch.
    for part in zip(*used, strict=True):
        epochs = [
            tuple(first + second) for first, second in zip(part[::2], part[1::2], strict=True)
        ]
        assert [sorted(order) for order in epochs] == [list(range(10))] * 3
        assert len(set(epochs)) == 3


@pytest.mark.parametrize(
    ("section", "change"),
    [
        (None, {"order": 1}),
        (None, {"hessian": "exact"}),
        (None, {"epsilon": 0.01}),
        (None, {"warmup_epochs": 0}),
        (None, {"class_weights": False}),
        (None, {"batch_size": 4}),
        ("weights", {"learning_rate": 0.01}),
        ("weights", {"learning_rate_min": 0.02}),
        ("weights", {"momentum": 0.5}),
        ("weights", {"weight_decay": 0.1}),
        ("weights", {"gradient_clip": 0.1}),
        ("alphas", {"learning_rate": 0.01}),
        ("alphas", {"beta1": 0.9}),
        ("alphas", {"beta2": 0.9}),
        ("alphas", {"weight_decay": 0.1}),
        ("alphas", {"initial_sd": 0.1}),
    ],
    ids=str,
)
def test_every_setting_does_something(
    tmp_path: Path, short: list[dict[str, Any]], section: str | None, change: dict[str, Any]
) -> None:
    if section is not None:
        change = {section: getattr(SHORT, section).model_copy(update=change)}
    search(SHORT.model_copy(update=change), make_task(tmp_path))
    assert records(tmp_path)[-1] != short[-1]


def test_the_rate_of_the_weights_is_torchs_cosine(tmp_path: Path) -> None:
    search(SPEC, make_task(tmp_path))
    weights = SPEC.weights
    optimiser = torch.optim.SGD([torch.zeros(1)], lr=weights.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimiser, SPEC.epochs, weights.learning_rate_min
    )
    for row in table(tmp_path):
        assert float(row["learning_rate"]) == pytest.approx(schedule.get_last_lr()[0])
        optimiser.step()
        schedule.step()


def test_the_supernet_learns(tmp_path: Path) -> None:
    search(SPEC.model_copy(update={"epochs": 15, "order": 1}), make_task(tmp_path))
    losses = [float(row["weight_loss"]) for row in table(tmp_path)]
    assert losses[-1] < 0.8 * losses[0]


def test_best_epoch_is_offered(tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"genotype_epoch": "best"})
    genotype = search(spec, make_task(tmp_path))
    uas = [float(row["alpha_ua"]) for row in table(tmp_path)]
    best = 1 + max(range(3), key=lambda k: uas[1 + k])  # the warm-up epoch is not asked
    assert Genotype.from_dict(records(tmp_path)[best]["genotype"]) == genotype


def test_a_diverging_search_says_so(tmp_path: Path) -> None:
    wild = WeightOptimiser(learning_rate=1e30, gradient_clip=1e30)
    with pytest.raises(TrainingError, match=r"search epoch .* lower the learning rate"):
        search(SPEC.model_copy(update={"weights": wild}), make_task(tmp_path))


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    task = make_task(tmp_path)
    search(SPEC, task)
    network = task.network.model_copy(update={"dropout": 0.1, "pooling": "mean"})
    with pytest.raises(CheckpointError, match=r"search\.safetensors is not a checkpoint of"):
        search(SPEC, make_task(tmp_path, network=network))


def test_warm_up_waits_for_a_supernet_above_chance_but_not_for_ever(tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"epochs": 10, "warmup": "above_chance", "warmup_share": 0.7})
    search(spec, make_task(tmp_path / "blind", alphas=blind()))
    rows = table(tmp_path / "blind")
    assert [row["warm_up"] for row in rows] == ["1"] * 7 + ["0"] * 3
    assert {row["above_chance"] for row in rows} == {"0"}
    search(spec, make_task(tmp_path / "seeing"))
    rows = table(tmp_path / "seeing")
    waited = [row["above_chance"] for row in rows].index("1") + 1
    assert waited < 7
    assert [row["warm_up"] for row in rows] == ["1"] * waited + ["0"] * (10 - waited)
    assert all((row["alpha_snr_sequence"] == "") == (row["warm_up"] == "1") for row in rows)


def blind() -> Part:
    """Data of three classes, all of whose features are equal."""
    return Part(torch.zeros(12, 1, 8, 10), torch.arange(12) % 3)


@pytest.mark.parametrize("step", [5, 9])
def test_a_search_that_is_resumed_warms_up_as_long(tmp_path: Path, step: int) -> None:
    spec = SPEC.model_copy(update={"epochs": 6, "warmup": "above_chance"})
    search(spec, make_task(tmp_path / "whole"))
    with pytest.raises(Killed):
        search(spec, make_task(tmp_path / "killed", Kill(step)))
    search(spec, make_task(tmp_path / "killed"))
    assert records(tmp_path / "killed") == records(tmp_path / "whole")


def test_uniform_answers_are_seldom_above_chance() -> None:
    targets = torch.repeat_interleave(torch.arange(3), torch.tensor([10, 20, 60]))
    generator = torch.Generator().manual_seed(0)
    uas = [loss_and_ua(torch.rand(90, 3, generator=generator), targets)[1] for _ in range(1000)]
    error = torch.tensor(uas).std().item()
    threshold = ua_above_chance(targets, 3)
    assert threshold == pytest.approx(1 / 3 + 2 * error, abs=0.01)
    assert ua_above_chance(targets.repeat(1000), 3) == pytest.approx(1 / 3 + 0.05)


def test_signal_to_noise_is_one_for_noise_and_grows_with_the_signal() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = [torch.randn(30, 8, generator=generator) for _ in range(16)]
    ratio = signal_to_noise(noise)
    assert ratio is not None
    assert abs(ratio - 1) < 0.15
    signal = signal_to_noise([2 + gradient for gradient in noise])
    assert signal is not None
    assert abs(signal - (1 + 4 * 16) ** 0.5) < 0.5
    assert signal_to_noise(noise[:1]) is None

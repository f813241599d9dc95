"""The search loop: what trains when, what is recorded, and that it resumes bit by bit."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from emodarts.searching.loop import SearchData, search_genotype

from emodarts.errors import CheckpointError, TrainingError
from emodarts.genotype import Genotype
from emodarts.progress import Silent
from emodarts.recipe import (
    AlphaOptimiser,
    CNNSpec,
    NetworkSpec,
    SearchedSeqNN,
    SearchSpec,
    WeightOptimiser,
)
from emodarts.searching import loop
from emodarts.searching.gradients import (
    Batch,
    LookAhead,
    frozen_running_statistics,
    look_ahead,
    random_state,
    restore_random_state,
)
from emodarts.searching.supernet import Supernet
from emodarts.training.batches import Part, loss_and_ua, predict_logits

NETWORK = NetworkSpec(
    cnn=CNNSpec(cells=3, nodes=1, channels=2),
    seqnn=SearchedSeqNN(space="lstm_att", cells=1, nodes=1, width=4),
)
CPU = torch.device("cpu")
SPEC = SearchSpec(epochs=4, warmup_epochs=1, batch_size=6, alphas=AlphaOptimiser(learning_rate=0.1))


@pytest.fixture
def data() -> SearchData:
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(20) % 3
    features = torch.randn(20, 1, 8, 10, generator=generator) + targets.view(-1, 1, 1, 1)
    return SearchData(Part(features[:10], targets[:10]), Part(features[10:], targets[10:]), 3)


def search(folder: Path, data: SearchData, spec: SearchSpec = SPEC, seed: int = 0) -> Genotype:
    return search_genotype(
        spec,
        NETWORK,
        data,
        seed=seed,
        folder=folder,
        device=CPU,
        progress=Silent(),
    )


def position(part: Part, batch: Batch) -> list[int]:
    """Which utterances of a part are in a batch; fails if one is not of that part."""
    same = (batch[0][:, None] == part.features).flatten(2).all(dim=2)
    assert torch.equal(same.sum(dim=1), torch.ones(len(batch[1]), dtype=torch.long))
    return same.nonzero()[:, 1].tolist()


def alphas(folder: Path) -> list[dict[str, Any]]:
    value: list[dict[str, Any]] = json.loads((folder / "alphas.json").read_text())
    return value


@pytest.mark.parametrize("order", [1, 2])
def test_alphas_stand_still_in_warm_up_and_move_after_it(
    tmp_path: Path, data: SearchData, order: int
) -> None:
    genotype = search(tmp_path, data, SPEC.model_copy(update={"order": order}))
    records = alphas(tmp_path)
    assert len(records) == 4
    start = loop._Searcher(SPEC, NETWORK, data, 0, CPU).alphas
    for name in ("normal", "reduction", "sequence"):
        assert records[0]["alphas"][name] == start[name].tolist()
        assert records[1]["alphas"][name] != records[0]["alphas"][name]
    assert Genotype.from_dict(records[-1]["genotype"]) == genotype


def test_the_record_of_an_epoch_is_complete(tmp_path: Path, data: SearchData) -> None:
    search(tmp_path, data)
    with (tmp_path / "search.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4]
    cells = ("normal", "reduction", "sequence")
    assert set(rows[0]) == {
        "epoch",
        "learning_rate",
        "weight_loss",
        "alpha_loss",
        "alpha_ua",
        "seconds",
        *(f"skips_{c}" for c in cells),
        *(f"entropy_{c}" for c in cells),
    }
    record = alphas(tmp_path)[-1]
    genotype = Genotype.from_dict(record["genotype"])
    for name, count in genotype.skip_counts().items():
        assert int(rows[-1][f"skips_{name}"]) == count
        weights = torch.softmax(torch.tensor(record["alphas"][name]), dim=1)
        entropy = -(weights * weights.log()).sum(dim=1).mean()
        assert float(rows[-1][f"entropy_{name}"]) == pytest.approx(float(entropy), abs=1e-5)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("killed_after", [1, 3])
def test_a_resumed_search_is_the_search_that_was_never_stopped(
    tmp_path: Path,
    data: SearchData,
    order: int,
    killed_after: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = SPEC.model_copy(update={"order": order})
    search(tmp_path / "whole", data, spec)

    class Killed(Exception):
        pass

    original = loop._Searcher.run_epoch

    def stop(self: Any, progress: Any) -> Any:
        if self.epoch == killed_after:
            raise Killed
        return original(self, progress)

    monkeypatch.setattr(loop._Searcher, "run_epoch", stop)
    with pytest.raises(Killed):
        search(tmp_path / "killed", data, spec)
    monkeypatch.undo()
    torch.manual_seed(99)  # whatever else has drawn numbers in the new process
    search(tmp_path / "killed", data, spec)
    assert alphas(tmp_path / "killed") == alphas(tmp_path / "whole")


def test_seeds_differ_and_repeat(tmp_path: Path, data: SearchData) -> None:
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        search(tmp_path / folder, data, seed=seed)
    assert alphas(tmp_path / "a") == alphas(tmp_path / "b")
    assert alphas(tmp_path / "a") != alphas(tmp_path / "c")


def test_weights_step_to_where_the_alphas_look(
    data: SearchData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While alphas stand still, each look-ahead is the step that follows it, masks and all."""
    spec = SPEC.model_copy(
        update={
            "warmup_epochs": 0,
            "weights": WeightOptimiser(gradient_clip=1e9),
            "alphas": AlphaOptimiser().model_copy(update={"learning_rate": 0.0}),
        }
    )
    searcher = loop._Searcher(spec, NETWORK, data, 0, CPU)
    weights = searcher.weights
    aheads: list[list[torch.Tensor]] = []
    heard: list[tuple[list[int], list[int]]] = []
    original = loop.second_order_gradient

    def spy(
        supernet: Supernet, train: Batch, validation: Batch, loss: Any, step: LookAhead, **how: Any
    ) -> Any:
        assert supernet.training
        if aheads:
            torch.testing.assert_close([w.detach() for w in weights.values()], aheads[-1])
        masks = random_state(CPU)
        with frozen_running_statistics(supernet):
            value = loss(supernet(train[0]), train[1])
            gradient = torch.autograd.grad(value, list(weights.values()))
        restore_random_state(CPU, masks)
        aheads.append(look_ahead(weights, gradient, step))
        heard.append((position(data.weights, train), position(data.alphas, validation)))
        return original(supernet, train, validation, loss, step, **how)

    monkeypatch.setattr(loop, "second_order_gradient", spy)
    for _ in range(3):
        scalars = searcher.run_epoch(Silent())["scalars"]
    torch.testing.assert_close([w.detach() for w in weights.values()], aheads[-1])
    logits = predict_logits(searcher.supernet, data.alphas.features)
    assert (scalars["alpha_loss"], scalars["alpha_ua"]) == loss_and_ua(logits, data.alphas.targets)
    # Two steps an epoch: each half is heard once, in another order every epoch.
    for part in zip(*heard, strict=True):
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
    tmp_path: Path, data: SearchData, section: str | None, change: dict[str, Any]
) -> None:
    base = SPEC.model_copy(update={"epochs": 3})
    if section is not None:
        change = {section: getattr(base, section).model_copy(update=change)}
    search(tmp_path / "base", data, base)
    search(tmp_path / "other", data, base.model_copy(update=change))
    assert alphas(tmp_path / "base")[-1] != alphas(tmp_path / "other")[-1]


def test_the_rate_of_the_weights_is_torchs_cosine(tmp_path: Path, data: SearchData) -> None:
    search(tmp_path, data)
    with (tmp_path / "search.csv").open() as file:
        rates = [float(row["learning_rate"]) for row in csv.DictReader(file)]
    weights = SPEC.weights
    optimiser = torch.optim.SGD([torch.zeros(1)], lr=weights.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimiser, SPEC.epochs, weights.learning_rate_min
    )
    for rate in rates:
        assert rate == pytest.approx(schedule.get_last_lr()[0])
        optimiser.step()
        schedule.step()


def test_the_supernet_learns(tmp_path: Path, data: SearchData) -> None:
    search(tmp_path, data, SPEC.model_copy(update={"epochs": 15}))
    with (tmp_path / "search.csv").open() as file:
        losses = [float(row["weight_loss"]) for row in csv.DictReader(file)]
    assert losses[-1] < 0.8 * losses[0]


def test_best_epoch_is_offered(tmp_path: Path, data: SearchData) -> None:
    genotype = search(tmp_path, data, SPEC.model_copy(update={"genotype_epoch": "best"}))
    with (tmp_path / "search.csv").open() as file:
        uas = [float(row["alpha_ua"]) for row in csv.DictReader(file)]
    best = 1 + max(range(3), key=lambda k: uas[1 + k])  # the warm-up epoch has no say
    assert Genotype.from_dict(alphas(tmp_path)[best]["genotype"]) == genotype


def test_random_genotypes_need_no_training(tmp_path: Path, data: SearchData) -> None:
    spec = SPEC.model_copy(update={"strategy": "random"})
    drawn = [search(tmp_path, data, spec, seed) for seed in (0, 0, 1, 2)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 1
    assert not list(tmp_path.iterdir())


def test_a_diverging_search_says_so(tmp_path: Path, data: SearchData) -> None:
    wild = WeightOptimiser(learning_rate=1e30, gradient_clip=1e30)
    with pytest.raises(TrainingError, match="lower the learning rate"):
        search(tmp_path, data, SPEC.model_copy(update={"weights": wild}))


def test_a_broken_checkpoint_is_refused(tmp_path: Path, data: SearchData) -> None:
    search(tmp_path, data)
    path = tmp_path / loop.CHECKPOINT
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        search(tmp_path, data)

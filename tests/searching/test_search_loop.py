"""The search loop: what trains when, what is recorded, and that it resumes bit by bit."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from emodarts.batches import Part
from emodarts.errors import CheckpointError, TrainingError
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
from emodarts.searching.loop import SearchData, search_genotype
from emodarts.space.genotype import Genotype

NETWORK = NetworkSpec(
    cnn=CNNSpec(cells=3, nodes=1, channels=2),
    seqnn=SearchedSeqNN(space="lstm_att", cells=1, nodes=1, width=4),
)
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
        device=torch.device("cpu"),
        progress=Silent(),
    )


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
    start = loop._Searcher(SPEC, NETWORK, data, 0, torch.device("cpu")).alphas
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
    assert float(rows[0]["learning_rate"]) == 0.025
    assert 0.001 < float(rows[-1]["learning_rate"]) < float(rows[0]["learning_rate"])
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


def test_orders_give_different_alphas(tmp_path: Path, data: SearchData) -> None:
    for order in (1, 2):
        search(tmp_path / str(order), data, SPEC.model_copy(update={"order": order}))
    assert alphas(tmp_path / "1") != alphas(tmp_path / "2")


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

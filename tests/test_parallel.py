"""Two processes on loopback search as one does with the joined batch, and notice if they part."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from emodarts.checkpoint import load_tensors
from emodarts.corpora import load_corpus
from emodarts.errors import CheckpointError, EmodartsError, RunError
from emodarts.experiments.plan import Options
from emodarts.experiments.run import run
from emodarts.files import read_csv
from emodarts.genotype import Genotype
from emodarts.layout import TrialFolder
from emodarts.recipe import Recipe
from parallel_search import EXACT, SPEC, gradients
from toy_search import make_task, records, search

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


def two_processes(*command: str | Path) -> subprocess.CompletedProcess[str]:
    here = str(Path(__file__).parent)
    path = os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*TORCHRUN, *map(str, command)],
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("together")
    two_processes(Path(__file__).with_name("parallel_search.py"), folder)
    return folder


def test_gradients_of_both_orders_are_those_of_the_joined_batch(together: Path) -> None:
    one, other = (load_tensors(together / f"rank-{k}" / "gradients")[0] for k in (0, 1))
    expected = gradients()
    assert one.keys() == expected.keys()
    assert any(name.startswith("exact.") for name in one)
    for name, value in expected.items():
        assert torch.equal(one[name], other[name]), name
        torch.testing.assert_close(one[name], value, rtol=1e-9, atol=1e-12, msg=name)


def test_a_search_ends_as_that_of_one_process(together: Path, tmp_path: Path) -> None:
    genotype = search(SPEC, make_task(tmp_path, network=EXACT))
    for rank in (0, 1):
        assert Genotype.load(together / f"rank-{rank}" / "genotype.json") == genotype
    for one, other in zip(records(together / "search"), records(tmp_path), strict=True):
        for cell, alphas in one["alphas"].items():
            torch.testing.assert_close(
                torch.tensor(alphas), torch.tensor(other["alphas"][cell]), rtol=0, atol=1e-4
            )
    histories = (
        read_csv(TrialFolder(p).search_history, RunError) for p in (together / "search", tmp_path)
    )
    for one_row, other_row in zip(*histories, strict=True):
        for key in ("weight_loss", "alpha_loss", "alpha_ua"):
            assert float(one_row[key]) == pytest.approx(float(other_row[key]), abs=1e-3)


def test_another_number_of_processes_does_not_go_on(together: Path) -> None:
    with pytest.raises(CheckpointError, match="written by 2 processes and there are 1 now"):
        search(SPEC, make_task(together / "search", network=EXACT))


def test_alphas_that_part_end_the_search_before_its_checkpoint(together: Path) -> None:
    for rank in (0, 1):
        message = (together / f"rank-{rank}" / "error.txt").read_text()
        assert "search epoch 2: supernet.alphas." in message
        assert "of process 1 differs from that of process 0" in message
    folder = TrialFolder(together / "parted")
    assert len(read_csv(folder.search_history, RunError)) == 1
    assert len(load_tensors(folder.search_checkpoint)[1]["history"]) == 1


def test_the_command_line_searches_in_two_processes(
    tiny: tuple[str | Path, ...], tmp_path: Path
) -> None:
    quick = ("--set", "search.epochs=2", "--set", "compute.fast=false", "--folds", "0")
    done = two_processes("-m", "emodarts", "search", *tiny, *quick, "--out", tmp_path / "run")
    assert done.stdout.count("genotype.json") == 1
    assert (tmp_path / "run" / "fold-0" / "seed-0" / "genotype.json").is_file()


@pytest.mark.parametrize(
    ("options", "strategy", "message"),
    [
        (Options(), "darts", "2 processes only search together: .*emodarts train --resume"),
        (Options(train=False, jobs=2), "darts", "without --jobs"),
        (Options(train=False), "halving", "'halving' is not searched by several processes"),
    ],
)
def test_what_processes_do_not_do_together_is_refused(
    tiny_recipe: Recipe,
    tiny_emodb: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: Options,
    strategy: str,
    message: str,
) -> None:
    value = {**tiny_recipe.to_dict(), "search": {"strategy": strategy}}
    monkeypatch.setattr("emodarts.parallel.size", lambda: 2)
    with pytest.raises(EmodartsError, match=message):
        run(Recipe.from_dict(value), load_corpus("emodb", tiny_emodb), tmp_path / "run", options)
    assert not (tmp_path / "run").exists()

"""How a run is computed: what is settled, recorded, and kept when it is resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from emodarts.errors import RunError
from emodarts.experiments.compute import recorded_compute, settle_compute
from emodarts.layout import RunFolder
from emodarts.recipe import ComputeSpec

RECORDED = {"device": "cpu", "threads": 3, "cells": "plain", "precision": "fp32"}


def record(folder: Path, **changes: Any) -> RunFolder:
    (folder / "environment.json").write_text(json.dumps({**RECORDED, **changes}))
    return RunFolder(folder)


@pytest.fixture
def four_threads() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("spec", "jobs", "settled"),
    [
        (ComputeSpec(), 1, (4, 1)),
        (ComputeSpec(), 2, (2, 2)),
        (ComputeSpec(), 3, (1, 3)),
        (ComputeSpec(), 9, (1, 9)),
        (ComputeSpec(), "auto", (1, 4)),
        (ComputeSpec(threads=2), "auto", (2, 2)),
        (ComputeSpec(threads=8), "auto", (8, 1)),
        (ComputeSpec(threads=2), 3, (2, 3)),
    ],
)
def test_threads_are_divided_among_jobs(
    four_threads: None, spec: ComputeSpec, jobs: Any, settled: tuple[int, int]
) -> None:
    found = settle_compute(spec, None, jobs)
    assert (found.spec.threads, found.jobs) == settled
    assert found.spec.device != "auto"


def test_what_is_recorded_is_read_again(tmp_path: Path) -> None:
    settled = settle_compute(ComputeSpec(device="cpu", threads=2, fast=False), None)
    run = record(tmp_path, **settled.record())
    assert recorded_compute(run) == settled.spec
    assert settle_compute(ComputeSpec(), run, "auto").spec == settled.spec


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"device": "cuda"}, "begun with device cpu, .*leave device cuda out"),
        ({"threads": 2}, "begun with threads 3, .*leave threads 2 out"),
        ({"fast": True}, r"begun with compute\.fast false, .*leave compute\.fast true out"),
        ({"precision": "bf16"}, r"begun with compute\.precision fp32, .*bf16 out"),
    ],
)
def test_another_explicit_wish_is_refused_on_resume(
    tmp_path: Path, asked: dict[str, Any], message: str
) -> None:
    with pytest.raises(RunError, match=message):
        settle_compute(ComputeSpec(**asked), record(tmp_path))


def test_cells_that_cannot_be_computed_here_are_refused(tmp_path: Path) -> None:
    run = record(tmp_path, cells="torch")  # of a run without numba, say
    here = settle_compute(ComputeSpec(device="cpu"), None).cells
    if here == "torch":
        pytest.skip("numba is not installed")
    with pytest.raises(RunError, match=f"begun with torch cells, .*\\({here} would be\\)"):
        settle_compute(ComputeSpec(), run)

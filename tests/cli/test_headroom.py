"""``emodarts headroom`` on a tiny corpus: its page, its numbers, and a second start."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from commands import emodarts, refused
from emodarts.scoring.variance import headroom

QUICK = (
    *("--set", "training.epochs=2", "--set", "compute.fast=false"),
    *("--genotypes", "2", "--inner-folds", "2", "--folds", "0"),
)


@pytest.fixture(scope="module")
def measured(tiny: tuple[str | Path, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("headroom") / "run"
    text = emodarts("headroom", *tiny, *QUICK, "--seeds", "0,1", "--out", out).stdout
    assert (out / "headroom.md").read_text().strip() in text
    return out


def test_the_page_says_what_the_numbers_say(measured: Path) -> None:
    found = json.loads((measured / "headroom.json").read_text())
    assert np.array(found["ua"]).shape == (2, 2)
    assert {key: found[key] for key in ("f", "p", "gain")} == {
        key: getattr(headroom(found["ua"]), key) for key in ("f", "p", "gain")
    }
    assert found["folds"] == [0]
    page = (measured / "headroom.md").read_text()
    assert f"at least {found['seeds_needed']} seeds" in page
    assert ("cannot be told from seeds" in page) == (found["p"] >= 0.05)


def test_nothing_is_trained_twice(measured: Path, tiny: tuple[str | Path, ...]) -> None:
    results = sorted(measured.rglob("seed-*/result.json"))
    assert len(results) == 4
    stamps = [path.stat().st_mtime_ns for path in results]
    again = emodarts(
        "headroom", *tiny, *QUICK, "--seeds", "0,1", "--out", measured, "--resume", "--json"
    )
    assert json.loads(again.stdout) == json.loads((measured / "headroom.json").read_text())
    assert [path.stat().st_mtime_ns for path in results] == stamps


@pytest.mark.slow
def test_candidates_side_by_side_have_the_scores_of_candidates_in_turn(
    measured: Path, tiny: tuple[str | Path, ...], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    emodarts("headroom", *tiny, *QUICK, "--seeds", "0,1", "--jobs", "2", "--out", out)
    one, two = (json.loads((p / "headroom.json").read_text()) for p in (measured, out))
    assert two == one


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--seeds", "0"), "2 genotypes with 1 seeds; allowed: at least 2 of each"),
        (
            (
                *("--seeds", "0,1", "--set", "search={strategy: random}"),
                *("--set", "network={cnn: {cells: 0}, seqnn: {mode: none}}"),
            ),
            "fewer than 2 genotypes; search more cells",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused(
    tiny: tuple[str | Path, ...], tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    assert message in refused("headroom", *tiny, *QUICK, *options, "--out", tmp_path / "run")

"""Ctrl-C, SIGTERM and second runs: what is said, and that it works."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

from commands import refused, start
from emodarts import files
from emodarts.errors import RunError


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while not path.is_file():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(("jobs", "number"), [("1", signal.SIGINT), ("2", signal.SIGTERM)])
def test_a_stopped_run_says_how_to_go_on(
    tiny: tuple[str | Path, ...], tmp_path: Path, jobs: str, number: signal.Signals
) -> None:
    out = tmp_path / "a run"
    longer = ("--set", "training.epochs=2000", "--set", "search={strategy: random}")
    command = ("run", *tiny, *longer, "--folds", "0,1", "--jobs", jobs, "--out", out)
    with start(*command) as process:
        wait_for(out / "fold-0" / "seed-0" / "training.csv", process)
        assert f"in use by process {process.pid} on" in refused(*command, "--resume")
        os.killpg(process.pid, number)  # as a terminal and ``timeout`` do
        # Which waits for all trials, as they write there, too.
        _, error = process.communicate(timeout=300)
    assert process.returncode == 128 + number, error
    assert "Traceback" not in error
    [line] = [line for line in error.splitlines() if line.startswith("Stopped")]
    assert "with 0 of 2 trials finished and" in line
    words = shlex.split(line.partition("To go on:  ")[2])
    assert words == ["emodarts", *map(str, command), "--resume"]
    assert not (out / ".lock").exists()


@pytest.mark.slow
def test_trials_side_by_side_end_with_a_killed_run(
    tiny: tuple[str | Path, ...], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    longer = ("--set", "training.epochs=20000", "--set", "search={strategy: random}")
    with start("run", *tiny, *longer, "--folds", "0,1", "--jobs", "2", "--out", out) as process:
        wait_for(out / "fold-1" / "seed-0" / "training.csv", process)
        process.kill()
        process.communicate(timeout=300)  # which waits for all trials, as they write there, too
    with files.locked(out, RunError):
        assert not (out / "result.json").exists()


def test_a_run_that_is_stopped_before_its_first_trial_leaves_no_folder(
    tiny_recipe_file: Path, tiny_emodb: Path, tmp_path: Path
) -> None:
    """The features, of 128 long files, are not all computed when the store has its first entry."""
    out, cache = tmp_path / "run", tmp_path / "cache"
    slow = ("--set", "features={duration: 60.0, sample_rate: 48000}")
    command = ("run", tiny_recipe_file, *slow, "--corpus", "emodb", "--root", tiny_emodb)
    with start(*command, "--cache", cache, "--out", out) as process:
        deadline = time.monotonic() + 300
        while not any(p.is_file() for p in cache.rglob("*")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
        os.killpg(process.pid, signal.SIGTERM)
        _, error = process.communicate(timeout=300)
    assert process.returncode == 128 + signal.SIGTERM, error
    assert re.search(
        r"^Stopped before the first trial; features .* are kept. To go on", error, re.M
    )
    assert not out.exists()

"""Features on the disk equal those in memory, and a damaged file is made again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from emodarts.audio.mapped import mapped_features
from emodarts.errors import AudioError

SHAPE = (1, 3, 4)
#: Pieces of three utterances.
STORED = [np.random.default_rng(k).standard_normal((k + 1, *SHAPE), np.float32) for k in (0, 2, 1)]


def never() -> Iterator[NDArray[np.float32]]:
    raise AssertionError("the file was there")
    yield


def test_rows_and_owners_are_those_in_memory_and_are_read_once(tmp_path: Path) -> None:
    features, owners = mapped_features(tmp_path, ["a", "b", "c"], SHAPE, STORED)
    assert torch.equal(features, torch.from_numpy(np.concatenate(STORED)))
    assert owners.tolist() == [0, 1, 1, 1, 2, 2]
    again, _ = mapped_features(tmp_path, ["a", "b", "c"], SHAPE, never())
    assert torch.equal(features, again)
    other, _ = mapped_features(tmp_path, ["a", "b", "d"], SHAPE, STORED[:2])
    assert len(other) == 4


@pytest.mark.parametrize("suffix", [".f32", ".json"])
@pytest.mark.parametrize("kept", [0, 20, None], ids=["empty", "cut", "gone"])
def test_a_file_that_is_not_whole_is_made_again(
    tmp_path: Path, suffix: str, kept: int | None
) -> None:
    before = mapped_features(tmp_path, ["a", "b", "c"], SHAPE, STORED)[0].clone()
    [path] = (tmp_path / "mapped").glob(f"*{suffix}")
    data = path.read_bytes()
    path.unlink()
    if kept is not None:
        path.write_bytes(data[:kept])
    assert torch.equal(mapped_features(tmp_path, ["a", "b", "c"], SHAPE, STORED)[0], before)


def test_a_failed_copy_leaves_nothing_that_counts(tmp_path: Path) -> None:
    def broken() -> Iterator[NDArray[np.float32]]:
        yield STORED[0]
        raise AudioError("the next one is missing")

    with pytest.raises(AudioError, match="missing"):
        mapped_features(tmp_path, ["a", "b", "c"], SHAPE, broken())
    assert [path.suffix for path in (tmp_path / "mapped").iterdir()] == [".lock"]
    assert len(mapped_features(tmp_path, ["a", "b", "c"], SHAPE, STORED)[0]) == 6


def test_processes_copy_in_turn(tmp_path: Path) -> None:
    """The second waits for the first, and then reads what the first has written."""
    code = f"""
import sys, time
import numpy as np
from pathlib import Path
from emodarts.audio.mapped import mapped_features
def stored():
    print("copies", flush=True)
    time.sleep(1.0)
    yield np.ones((2, *{SHAPE}), np.float32)
features, _ = mapped_features(Path({str(tmp_path)!r}), ["a"], {SHAPE}, stored())
print(features.sum().item())
"""
    command = [sys.executable, "-c", code]
    first, second = (subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2))
    texts = sorted(process.communicate(timeout=300)[0] for process in (first, second))
    assert texts == ["24.0\n", "copies\n24.0\n"]

"""The loop over epochs: what it writes, and that it resumes wherever it was stopped."""

import csv
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from emodarts import files
from emodarts.checkpoint import load_tensors
from emodarts.cost import MEASURED
from emodarts.errors import CheckpointError
from emodarts.layout import TrialFolder
from emodarts.progress import Silent
from emodarts.stopping import Terminated, sigterm_interrupts
from emodarts.training.epochs import run_epochs
from killing import Killed


class Doubling:
    """Its tensor doubles in every epoch; ends early if asked to."""

    def __init__(self, last: int = 99) -> None:
        self.history: list[dict[str, Any]] = []
        self.value, self.last, self.ran = torch.ones(2), last, 0

    def run_epoch(self) -> dict[str, Any] | None:
        if len(self.history) == self.last:
            return None
        self.ran += 1
        self.value = 2 * self.value
        return {"steps": 3, "value": float(self.value[0])}

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {"value": self.value}, {"last": self.last}

    def restore(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        self.value, self.last = tensors["value"], int(values["last"])


class Steps(Silent):
    """Remembers what was started."""

    def __init__(self) -> None:
        self.started: list[tuple[str, int, int]] = []

    def start(self, task: str, total: int, done: int = 0) -> None:
        self.started.append((task, total, done))


def run(folder: Path, process: Doubling, n_epochs: int = 4, stage: Any = "training") -> Steps:
    steps = Steps()
    run_epochs(
        process,
        n_epochs,
        stage=stage,
        folder=TrialFolder(folder),
        progress=steps,
        title="doubling",
        steps=5,
    )
    return steps


def values(process: Doubling) -> list[float]:
    return [row["value"] for row in process.history]


def test_history_and_checkpoint_are_written(tmp_path: Path) -> None:
    process = Doubling()
    assert run(tmp_path, process).started == [("doubling", 20, 0)]
    assert values(process) == [2.0, 4.0, 8.0, 16.0]
    with TrialFolder(tmp_path).training_history.open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["epoch", "steps", "value", *MEASURED[:3]]
    assert [(row["epoch"], float(row["value"])) for row in rows] == [
        (str(k), 2.0**k) for k in (1, 2, 3, 4)
    ]
    tensors, state = load_tensors(TrialFolder(tmp_path).training_checkpoint)
    assert tensors["value"].tolist() == [16.0, 16.0]
    assert state["history"] == process.history


def test_stages_have_files_of_their_own(tmp_path: Path) -> None:
    run(tmp_path, Doubling(), 1, "search")
    run(tmp_path, other := Doubling(), 2, "training")
    assert values(other) == [2.0, 4.0]
    folder = TrialFolder(tmp_path)
    written = {p for p in tmp_path.iterdir() if p.is_file()}
    assert written == {
        folder.search_history,
        folder.search_checkpoint,
        folder.training_history,
        folder.training_checkpoint,
    }


@pytest.mark.parametrize("write", range(1, 9))
def test_killed_before_any_write_it_ends_as_one_never_killed(
    tmp_path: Path, write: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every epoch writes a table and, last, a checkpoint."""
    original, left = files.write_bytes, [write]

    def kill(path: Path, content: bytes) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        original(path, content)

    monkeypatch.setattr(files, "write_bytes", kill)
    with pytest.raises(Killed):
        run(tmp_path, Doubling())
    monkeypatch.undo()
    process, done = Doubling(), (write - 1) // 2
    assert run(tmp_path, process).started == [("doubling", 20, 5 * done)]
    assert process.ran == 4 - done
    assert values(process) == [2.0, 4.0, 8.0, 16.0]


def test_a_process_may_end_early_and_does_so_again(tmp_path: Path) -> None:
    run(tmp_path, Doubling(last=2))
    again = Doubling()
    run(tmp_path, again)
    assert (values(again), again.ran) == ([2.0, 4.0], 0)


def test_a_broken_checkpoint_is_refused(tmp_path: Path) -> None:
    run(tmp_path, Doubling())
    path = TrialFolder(tmp_path).training_checkpoint
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        run(tmp_path, Doubling())


def test_a_checkpoint_of_another_process_is_refused(tmp_path: Path) -> None:
    class Other(Doubling):
        def restore(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
            self.value = tensors["weight"]

    run(tmp_path, Doubling())
    message = r"training\.safetensors is not a checkpoint of this training: 'weight'"
    with pytest.raises(CheckpointError, match=message):
        run(tmp_path, Other())


class Ended(Doubling):
    """A cluster ends it in its second epoch, with a signal that comes twice."""

    def run_epoch(self) -> dict[str, Any] | None:
        for _ in range(2 if self.ran == 1 else 0):
            signal.raise_signal(signal.SIGTERM)
        return super().run_epoch()


def test_sigterm_stops_after_the_epoch(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    process = Ended()
    with pytest.raises(Terminated), sigterm_interrupts():
        run(tmp_path, process)
    assert values(process) == [2.0, 4.0]
    assert signal.getsignal(signal.SIGTERM) == before
    again = Doubling()
    run(tmp_path, again)
    assert (values(again), again.ran) == ([2.0, 4.0, 8.0, 16.0], 2)


def test_sigterm_interrupts_once() -> None:
    with sigterm_interrupts():
        with pytest.raises(Terminated):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)

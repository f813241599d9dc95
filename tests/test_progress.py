"""What is said of the time that is left, on a clock that the test sets."""

from __future__ import annotations

import re

import pytest

from emodarts.progress import Lines


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class Watched:
    """Lines, and a task of equally long steps."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.clock, self.capsys = Clock(), capsys
        self.lines = Lines(self.clock)

    def task(self, total: int, step: float, first: float | None = None, done: int = 0) -> list[str]:
        """What is printed of a task."""
        self.capsys.readouterr()
        self.lines.start("train", total, done)
        for k in range(done, total):
            self.clock.seconds += step if k > done or first is None else first
            self.lines.advance(loss=1.0)
        return self.capsys.readouterr().err.splitlines()

    def part(self, done: int, total: int) -> str:
        self.capsys.readouterr()
        self.lines.begin(f"fold {done + 1} of {total}", done, total)
        return self.capsys.readouterr().err.strip()


@pytest.fixture
def watched(capsys: pytest.CaptureFixture[str]) -> Watched:
    return Watched(capsys)


def test_no_time_is_left_before_it_can_be_told(watched: Watched) -> None:
    """A first step of a minute, which compiles, says nothing of the other 99, of 2 s each."""
    first, *later = watched.task(100, step=2.0, first=60.0)
    assert first == "train 1/100  loss 1.000"
    assert re.fullmatch(r"train 6/100  loss 1.000  3:08 left", later[0])
    assert later[-1] == "train 100/100  loss 1.000  258.0 s"


def test_few_seconds_tell_nothing(watched: Watched) -> None:
    assert watched.task(50, step=0.1) == [
        "train 1/50  loss 1.000",
        "train 50/50  loss 1.000  5.0 s",
    ]


def test_a_resumed_task_counts_what_it_did_itself(watched: Watched) -> None:
    lines = watched.task(100, step=2.0, done=90)
    assert lines[0] == "train 91/100  loss 1.000"
    assert lines[1] == "train 96/100  loss 1.000  0:08 left"


def test_the_time_of_the_whole_run_is_told_after_a_part(watched: Watched) -> None:
    """Three parts of 100 s, the first of which another process has done."""
    assert watched.part(1, 4) == "fold 2 of 4"
    first = watched.task(10, step=10.0)  # three parts of 100 s, if they have no other task
    assert first[4] == "train 5/10  loss 1.000  0:50 left, at least 4:10 left of the whole run"
    assert watched.part(2, 4) == "fold 3 of 4  3:20 left of the whole run"
    lines = watched.task(10, step=10.0)
    assert lines[0] == "train 1/10  loss 1.000  3:10 left of the whole run"
    assert lines[4] == "train 5/10  loss 1.000  0:50 left, 2:30 left of the whole run"
    assert watched.part(3, 4) == "fold 4 of 4  1:40 left of the whole run"


def test_what_a_resumed_grid_found_done_is_not_taken_for_its_speed(watched: Watched) -> None:
    """A grid looks through its runs, one by one, before its trials begin."""
    watched.part(0, 1)
    watched.task(10, step=10.0)
    assert watched.part(25, 46) == "fold 26 of 46"
    watched.task(10, step=10.0)
    assert watched.part(26, 46) == "fold 27 of 46  33:20 left of the whole run"


def test_the_whole_run_takes_no_less_than_its_task(watched: Watched) -> None:
    watched.part(0, 2)
    watched.task(10, step=1.0)
    watched.part(1, 2)
    assert (
        watched.task(20, step=10.0)[5]
        == "train 6/20  loss 1.000  2:20 left, 2:20 left of the whole run"
    )

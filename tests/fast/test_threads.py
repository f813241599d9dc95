"""Threads that are kept."""

import multiprocessing
import threading
import time
from collections.abc import Iterator

import pytest
import torch

from emodarts.fast.threads import in_threads


@pytest.fixture(params=[1, 2, 4])
def n_threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_each_item_is_worked_on_once_and_side_by_side(n_threads: int) -> None:
    together = threading.Barrier(n_threads, timeout=10)
    seen: dict[int, int] = {}

    def work(k: int) -> None:
        if k < n_threads:
            together.wait()
        seen[k] = threading.get_ident()

    in_threads(work, range(9))
    assert sorted(seen) == list(range(9))
    assert len({seen[k] for k in range(n_threads)}) == n_threads
    assert threading.get_ident() in seen.values()
    in_threads(work, [])


@pytest.mark.parametrize("fails", range(3))
def test_an_error_comes_when_all_threads_are_done(fails: int, n_threads: int) -> None:
    running: set[int] = set()

    def work(k: int) -> None:
        running.add(k)
        time.sleep(0.02)
        running.remove(k)
        if k == fails:
            raise ValueError(f"in {k}")

    with pytest.raises(ValueError, match=f"in {fails}"):
        in_threads(work, range(3))
    assert not running


def _sum_in_threads() -> int:
    torch.set_num_threads(3)
    found = [0] * 3
    in_threads(lambda k: found.__setitem__(k, k + 1), range(3))
    return sum(found)


@pytest.mark.usefixtures("n_threads")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_fork_has_threads_of_its_own() -> None:
    _sum_in_threads()
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply_async(_sum_in_threads).get(timeout=20) == 6

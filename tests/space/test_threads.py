"""Threads that are kept."""

import multiprocessing
import threading
import time

import pytest

from emodarts.space.threads import executor, in_threads


@pytest.mark.parametrize("n_threads", [1, 2, 4])
def test_each_number_is_worked_on_once_in_a_thread_of_its_own(n_threads: int) -> None:
    together = threading.Barrier(n_threads, timeout=10)
    seen: dict[int, int] = {}

    def work(k: int) -> None:
        together.wait()
        seen[k] = threading.get_ident()

    in_threads(work, n_threads)
    assert sorted(seen) == list(range(n_threads))
    assert len(set(seen.values())) == n_threads
    assert seen[0] == threading.get_ident()


@pytest.mark.parametrize("fails", [0, 1])
def test_an_error_comes_when_all_threads_are_done(fails: int) -> None:
    done: list[int] = []

    def work(k: int) -> None:
        if k == fails:
            raise ValueError(f"in {k}")
        time.sleep(0.05)
        done.append(k)

    with pytest.raises(ValueError, match=f"in {fails}"):
        in_threads(work, 3)
    assert sorted(done) == sorted({0, 1, 2} - {fails})


def test_threads_are_kept() -> None:
    assert executor(2) is executor(2)
    assert executor(2) is not executor(3)


def _sum_in_threads() -> int:
    found = [0] * 3
    in_threads(lambda k: found.__setitem__(k, k + 1), 3)
    return sum(found)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_fork_has_threads_of_its_own() -> None:
    _sum_in_threads()
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply_async(_sum_in_threads).get(timeout=20) == 6

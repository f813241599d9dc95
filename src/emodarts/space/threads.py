"""Threads that are kept, as many as torch uses."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

_executors: dict[tuple[int, int], ThreadPoolExecutor] = {}


def executor(n_threads: int) -> ThreadPoolExecutor:
    """So many threads of this process."""
    key = (os.getpid(), n_threads)  # threads do not survive a fork
    if key not in _executors:
        _executors[key] = ThreadPoolExecutor(n_threads, "emodarts")
    return _executors[key]


def in_threads(work: Callable[[int], None], n_threads: int) -> None:
    """Call ``work`` with 0, 1, ... in a thread each, with 0 in this one, and wait for all."""
    if n_threads <= 1:
        work(0)
        return
    others = [executor(n_threads - 1).submit(work, k) for k in range(1, n_threads)]
    try:
        work(0)
    finally:
        wait(others)
    for other in others:
        other.result()

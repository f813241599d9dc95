"""Threads that are kept, as many as torch uses."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import torch

_T = TypeVar("_T")
_executors: dict[tuple[int, int], ThreadPoolExecutor] = {}


def _executor(n_threads: int) -> ThreadPoolExecutor:
    key = (os.getpid(), n_threads)  # threads do not survive a fork
    if key not in _executors:
        _executors[key] = ThreadPoolExecutor(n_threads, "emodarts")
    return _executors[key]


def in_threads(work: Callable[[_T], None], items: Iterable[_T]) -> None:
    """Call ``work`` with every item and wait for all.

    Each of as many threads as torch has, of which this is one, takes the next item when it is done
    with one. Work that holds Python's lock only briefly runs side by side.
    """
    remaining = iter(list(items))  # the next one of which only one thread gets

    def take() -> None:
        for item in remaining:
            work(item)

    n_others = torch.get_num_threads() - 1
    others = [_executor(n_others).submit(take) for _ in range(n_others)]
    try:
        take()
    finally:
        wait(others)
    for other in others:
        other.result()

"""A thread on each processor that a contender may use: for what all of them are to do at once."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from threading import Barrier

import numpy as np
from numpy.typing import NDArray


@lru_cache
def pool(threads: int) -> ThreadPoolExecutor:
    """Make threads that stay, each on a processor of its own: the system would only slowly spread them."""
    if not hasattr(os, "sched_setaffinity"):
        return ThreadPoolExecutor(threads)
    processors = iter(sorted(os.sched_getaffinity(0)))
    return ThreadPoolExecutor(threads, initializer=lambda: os.sched_setaffinity(0, [next(processors)]))


def evict(size: int, threads: int) -> None:
    """Read so many bytes of other memory on each processor, as what a program does between two layers would.

    What is larger than a cache by half or more leaves nothing else in it.
    """
    other = _other(size)
    if threads == 1:
        other.max()
        return
    barrier = Barrier(threads)  # so that no thread takes another one's turn

    def read(_: int) -> None:
        barrier.wait()
        other.max()

    list(pool(threads).map(read, range(threads)))


@lru_cache(maxsize=1)
def _other(size: int) -> NDArray[np.float32]:
    return np.ones(size // 4, np.float32)

"""Callers on threads of their own: many that start together, or one that is caught inside a call."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np

import pyconv

PATIENCE = 60  # seconds after which whatever has not ended never will


def together(call: Callable[[int], Any], count: int) -> list[Any]:
    """Make the calls 0, 1, ... on as many threads, all at once; return the results, or raise the first error."""
    barrier = threading.Barrier(count)

    def wait_and_call(index: int) -> Any:
        barrier.wait(PATIENCE)
        return call(index)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(wait_and_call, range(count)))


def long_convolution() -> Callable[[], np.ndarray]:
    """Make a call of 100 GFLOP, at least half a second on two cores, that gives its lock back only to compute."""
    images = np.full((1, 64, 256, 256), 0.5, np.float32)
    layer = pyconv.Conv2d(64, 64, 15, rng=0).eval()
    layer(images[:, :, :16, :16])
    layer(images[:, :, :80, :80], num_threads=2)  # the weights are packed, the threads are there
    return lambda: layer(images, num_threads=2)


@contextmanager
def inside(call: Callable[[], Any]) -> Iterator[Callable[[], bool]]:
    """Run the block while another thread is inside `call`; yield a function that tells whether it still is.

    Python's own switching between threads is put off, so that the lock changes hands only where a thread gives it up.
    This one goes on where the other does so: in `call`, or, if that never does, after it. Where there is no lock, it
    waits for the other to begin.
    """
    begun, over = threading.Event(), threading.Event()

    def run() -> None:
        begun.set()
        call()
        over.set()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    thread = threading.Thread(target=run)
    try:
        thread.start()
        begun.wait()
        yield lambda: not over.is_set()
    finally:
        thread.join()
        sys.setswitchinterval(interval)

"""The processors that a run may use, and a thread on each of them for what all are to do at once."""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from threading import Barrier

import numpy as np
from numpy.typing import NDArray

from pyconv._system import read_text
from pyconv.bench.errors import BenchError

_CORE = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


def cpus() -> list[int]:
    """Name the processors that this process may use, one of each core before the second of any.

    Two processors of a core share its arithmetic units: N threads are to have N cores where there are so many.
    """
    if not hasattr(os, "sched_getaffinity"):
        return list(range(os.cpu_count() or 1))
    allowed = sorted(os.sched_getaffinity(0))
    seen: Counter[str] = Counter()
    turns = {}
    for cpu in allowed:
        core = _core(cpu)
        turns[cpu] = seen[core]
        seen[core] += 1
    return sorted(allowed, key=turns.__getitem__)


def check_unbound() -> None:
    """Refuse what OpenMP would do by itself: bind all processes to one processor, or use fewer threads."""
    for name in ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY"):
        value = os.environ.get(name, "")
        if value and value.lower() != "false":
            raise BenchError(f"{name}={value} binds threads to processors, which the benchmark does itself: unset it")
    if os.environ.get("OMP_THREAD_LIMIT"):
        raise BenchError(f"OMP_THREAD_LIMIT={os.environ['OMP_THREAD_LIMIT']} would hold for every contender: unset it")


def _core(cpu: int) -> str:
    """Name a processor's core by the processors that it has; where the system does not tell, each is one."""
    try:
        return read_text(_CORE.format(cpu)).strip()
    except OSError:
        return str(cpu)


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

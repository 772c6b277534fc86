"""How to time on a machine that is not quiet: contenders in turn, round by round, and the yardsticks in between.

Neighbours on shared cores slow everything down, by up to 40 % and for seconds at a time. So a figure means something
only beside figures of the same rounds: a ratio of medians, or a percentage of a peak that was sampled in between. A
percentage is taken from the best decile of rounds, of the peak as of the contender.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from pyconv._dispatch import kernels

# A sample of the peak: some 3 ms at 100 GFLOP/s.
_PEAK_STEPS = 400_000
# glibc's numbers of the two options (malloc.h).
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
# Twice the usual third level cache, so that a copy streams through memory.
_COPY_BYTES = 256 << 20


def keep_freed_memory() -> None:
    """Keep freed memory in the process, where the C library allows it.

    Otherwise every large result may come from fresh pages, which cost more than some layers: for whichever contender
    the heap happens to be so, not by any merit of the other.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_TRIM_THRESHOLD, 1 << 30)
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)


def seconds(call: Callable[[], object]) -> float:
    """Time one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def peak_gflops(dtype: str = "float32") -> float:
    """Sample the multiply-add peak of one core, in the instruction set in use."""
    module = kernels().module
    steps = _PEAK_STEPS * 16 // module.vector_bytes()
    start = time.perf_counter()
    operations = module.multiply_adds(dtype, steps)
    return float(operations) / (time.perf_counter() - start) / 1e9


def bandwidth_gbytes(rounds: int = 5) -> float:
    """Measure the memory bandwidth of one core: bytes read and written by a large copy."""
    source = np.ones(_COPY_BYTES // 8)
    target = np.zeros_like(source)
    best = min(seconds(lambda: np.copyto(target, source)) for _ in range(rounds))
    return 2 * source.nbytes / best / 1e9


@dataclass
class Samples:
    """Seconds of each contender and GFLOP/s of the peak, round by round."""

    times: dict[str, list[float]] = field(default_factory=dict)
    peaks: list[float] = field(default_factory=list)

    def median(self, name: str) -> float:
        """Median seconds of a contender."""
        return float(np.median(self.times[name]))

    def best_decile(self, name: str) -> float:
        """Seconds that one round in ten undercuts."""
        return float(np.percentile(self.times[name], 10))

    def gflops(self, name: str, flops: int) -> float:
        """GFLOP/s of the best decile of rounds."""
        return flops / 1e9 / self.best_decile(name)


def one_round(contenders: Mapping[str, Callable[[], object]], samples: Samples) -> None:
    """Time every contender once, each after an untimed call, and the peak."""
    samples.peaks.append(peak_gflops())
    for name, call in contenders.items():
        call()
        samples.times.setdefault(name, []).append(seconds(call))


def geometric_mean(values: list[float]) -> float:
    """Average ratios and percentages."""
    return float(np.exp(np.mean(np.log(values))))

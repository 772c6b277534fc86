"""What the machine itself does: multiply-adds with nothing to wait for, a large copy, one tile of a kernel alone.

Neighbours on shared cores slow everything down, by up to 40 % and for seconds at a time. So the peak is sampled all
through a run, and compared by its best decile.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from functools import partial
from threading import Barrier

import numpy as np
from numpy.typing import NDArray

from pyconv._dispatch import kernels
from pyconv._dtypes import sums_integers
from pyconv._execute import CACHES
from pyconv._plan import Plan
from pyconv._prices import even_tails
from pyconv._tiles import ceil_div
from pyconv.bench.processors import pool

Tile = tuple[str, int, int, int]  # role, NV, M, kernel width

# A sample of the peak: some 4 ms at 100 GFLOP/s, to which the fractions of one by which threads begin late are little.
_PEAK_STEPS = 4_000_000
# Several times the usual third level cache, so that a copy streams through memory.
_COPY_BYTES = 256 << 20
# Bytes between the source and the target. Processors tell stores from later loads by the last 12 bits of their
# addresses: where these are the same in both, copying takes three to four times as long (measured).
_COPY_APART = 2048
_TILE_FLOPS = 100_000_000
_WHOLE_CORE: Tile = ("oc", 2, 4, 1)


def peak_gflops(dtype: str, threads: int) -> float:
    """Sample the multiply-add peak of so many cores, in the instruction set in use."""
    module = kernels(integers=sums_integers(dtype)).module
    steps = _PEAK_STEPS * 16 // module.vector_bytes()
    return _rate([lambda: int(module.multiply_adds(dtype, steps))] * threads)


def bandwidth_gbytes(threads: int) -> float:
    """Measure memory bandwidth: bytes read and written by a large copy, of which every thread does its part."""
    source, target = copied_arrays()

    def copy(part: slice) -> int:
        np.copyto(target[part], source[part])
        return 2 * source[part].nbytes

    bounds = np.linspace(0, source.size, threads + 1).astype(int)
    calls = [partial(copy, slice(*ends)) for ends in itertools.pairwise(bounds)]
    rates: list[float] = []
    for _ in range(2):
        done, starts, ends = zip(*_at_once(calls), strict=True)
        rates.append(sum(done) / (max(ends) - min(starts)) / 1e9)
    return max(rates)


def copied_arrays() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the source and the target of the copy, in pages that have been written to."""
    n, between = _COPY_BYTES // 8, _COPY_APART // 8
    memory = np.ones(2 * n + between)
    return memory[:n], memory[n + between :]


def _rate(calls: Sequence[Callable[[], int]]) -> float:
    """Add what each call did in its own time, all made at once, in 1e9 / s."""
    return float(sum(done / (end - start) for done, start, end in _at_once(calls)) / 1e9)


def _at_once(calls: Sequence[Callable[[], int]]) -> list[tuple[int, float, float]]:
    """Make all calls at once, each in a thread of its own; return what each did, from when to when."""
    barrier = Barrier(len(calls))

    def timed(call: Callable[[], int]) -> tuple[int, float, float]:
        barrier.wait()
        start = time.perf_counter()
        done = call()
        return done, start, time.perf_counter()

    return [timed(calls[0])] if len(calls) == 1 else list(pool(len(calls)).map(timed, calls))


def tiles_of(plan: Plan) -> list[Tile]:
    """Name every tile that a plan runs, except those of depthwise convolutions, which cannot be run alone."""
    p, tile = plan.problem, plan.tile
    if tile.role in ("dw", "dc"):
        return []
    vectors, scalars = p.oc // p.g, plan.blocks.ow_blk
    if tile.role == "ow":
        vectors, scalars = scalars, vectors
    return [
        (tile.role, nv, m, p.kw)
        for nv, _ in even_tails(ceil_div(vectors, tile.lanes), tile.NV)
        for m, _ in even_tails(scalars, tile.M[nv - 1] if tile.role == "oc" else tile.largest)
    ]


def whole_cores_gflops(threads: int) -> float:
    """Sample a tile that takes so many cores as a whole.

    What runs on the other hardware thread of a core barely slows the loop of the peak, whose multiply-adds are half of
    the instructions that the core could begin. It does slow a tile of few multiply-adds for each load (measured beside
    a busy one: the peak keeps 0.98, 6x2 tiles of 3x3 kernels 0.85 to 0.9, this one 0.5 to 0.75).
    """
    return tile_gflops(_WHOLE_CORE, "float32", threads)


def tile_gflops(tile: Tile, dtype: str, threads: int = 1) -> float:
    """Time one tile alone, with strip and weights in half of the first level cache, on so many cores."""
    role, nv, m, kw = tile
    vector = kernels().tiles.vector_bytes
    # The operand that comes in vectors outweighs the other one.
    channel = kw * nv * vector * (kw if role == "oc" else 2)
    n_ic = max(8, CACHES.l1 // 2 // channel // 4 * 4)  # as most layers have: 1x1 tiles take four a turn
    work = 2 * n_ic * kw * kw * m * nv * vector // np.dtype(dtype).itemsize
    repeats = max(1, _TILE_FLOPS // work)
    module = kernels(integers=sums_integers(dtype)).module
    return _rate([lambda: int(module.tile_multiply_adds(dtype, role, nv, m, n_ic, kw, kw, repeats))] * threads)

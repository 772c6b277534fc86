"""Carry a problem out: plan, lower, pack, run.

Lowered plans are kept in a bounded cache: they hold numbers and offset tables, never data. Packed weights belong to
whoever froze the weights (a module in ``eval()``), in a dictionary keyed by the plan's packing.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyconv._caches import detect
from pyconv._dispatch import build_of, kernels
from pyconv._plan import Plan, item_size, make_plan
from pyconv._problem import ConvProblem
from pyconv._threads import threads_for

_CACHE_LINE = 64
_ALIGNED_RESULT = 1 << 15  # bytes: some ten microseconds of work
_MOST = 2**63 - 1 - _CACHE_LINE  # bytes of an array
CACHES = detect()

Array = NDArray[Any]
Packs = dict[tuple[object, ...], Array]


@lru_cache(maxsize=1024)
def _lower(plan: Plan) -> Any:
    """Return the compiled form of a plan. What it multiplies in C is checked here, where numbers have no bounds."""
    packed = plan.packed_size * item_size(plan.problem)
    if max(packed, plan.scratch_bytes) > _MOST:
        raise MemoryError(f"{packed} bytes of packed weights and {plan.scratch_bytes} of scratch for a convolution")
    return build_of(plan.isa).module.Convolution(plan)


def aligned_empty(shape: tuple[int, ...], dtype: str | np.dtype[Any]) -> Array:
    """Make an uninitialised array that starts on a cache line."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    try:
        raw = np.empty(size + _CACHE_LINE, np.uint8)
    except ValueError as error:  # NumPy's word for more than it can count
        raise MemoryError(f"{size} bytes for a convolution") from error
    start = -raw.ctypes.data % _CACHE_LINE
    aligned: Array = raw[start : start + size].view(dtype).reshape(shape)
    return aligned


def empty_result(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Make an array for a result: aligned where its size makes up for the microsecond that this takes.

    A vector stored across two cache lines takes twice as long as one within a line.
    """
    if math.prod(shape) * dtype.itemsize < _ALIGNED_RESULT:
        return np.empty(shape, dtype)
    return aligned_empty(shape, dtype)


@lru_cache(maxsize=1024)
def _one_row(problem: ConvProblem) -> ConvProblem | None:
    """Make a dense 1x1 convolution, which sees no neighbours, one row of pixels: tiles divide it better."""
    p = problem
    if (p.kh, p.kw, p.sh, p.sw, p.pt, p.pb, p.pl, p.pr) != (1, 1, 1, 1, 0, 0, 0, 0) or p.ih == 1:
        return None
    return replace(p, ih=1, iw=p.ih * p.iw, oh=1, ow=p.oh * p.ow)


def _collapses(array: Array) -> bool:
    """Whether rows follow one another, so that (h, w) is one axis of pixels."""
    h, w = array.shape[2:]
    return bool(h == 1 or w == 1 or array.strides[2] == w * array.strides[3])


def _plan(problem: ConvProblem, num_threads: int | None, channels_last: bool) -> Plan:
    build = kernels()
    # OpenMP's own limit counts too: it is what threadpoolctl and the affinity mask set.
    threads = min(threads_for(num_threads), build.module.max_threads())
    return make_plan(problem, build.tiles, CACHES, threads, channels_last)


def plan_of(problem: ConvProblem) -> Plan:
    """Return the plan of a problem whose arrays are dense."""
    return _plan(_one_row(problem) or problem, None, channels_last=False)


def execute(
    problem: ConvProblem,
    x: Array,
    weight: Array,
    bias: Array | None,
    out: Array,
    num_threads: int | None = None,
    packs: Packs | None = None,
) -> None:
    """Convolve ``x`` into ``out``.

    Parameters
    ----------
    problem : ConvProblem
        What to compute.
    x, weight, bias, out : ndarray
        (mb, ic, ih, iw), (oc, ic // g, kh, kw), (oc,) and (mb, oc, oh, ow): native byte order, aligned, any strides;
        `out` writable and disjoint from the inputs.
    num_threads : int, optional
        The most threads to use.
    packs : dict, optional
        Where packed weights are kept for the next call. Without it they are packed for this call only.
    """
    if not problem.mb:
        return
    row = _one_row(problem)
    if row and _collapses(x) and _collapses(out):
        problem = row
        x = x.reshape(row.mb, row.ic, 1, row.iw)
        out = out.reshape(row.mb, row.oc, 1, row.ow)
    channels_last = out.strides[1] == out.itemsize != out.strides[3]
    plan = _plan(problem, num_threads, channels_last)
    run(plan, x, weight, bias, out, packs)


def run(plan: Plan, x: Array, weight: Array, bias: Array | None, out: Array, packs: Packs | None = None) -> None:
    """Carry out one plan."""
    convolution = _lower(plan)
    packed = None if packs is None else packs.get(plan.packing)
    if packed is None:
        packed = aligned_empty((plan.packed_size,), plan.problem.dtype)
        convolution.pack(weight, bias, packed)
        if packs is not None:
            packs[plan.packing] = packed
    convolution(x, packed, out, plan.threads)

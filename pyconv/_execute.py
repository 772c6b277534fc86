"""Carry a problem out: plan, lower, pack, run.

Lowered plans are kept in a bounded cache: they hold numbers and offset tables, never data. Packed weights belong to
whoever froze the weights (a module in ``eval()``), in a dictionary keyed by the plan's packing.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyconv._caches import detect
from pyconv._dispatch import build_of, kernels
from pyconv._plan import Plan, make_plan
from pyconv._problem import ConvProblem
from pyconv._threads import threads_for

_CACHE_LINE = 64
CACHES = detect()

Array = NDArray[Any]
Packs = dict[tuple[object, ...], Array]


@lru_cache(maxsize=1024)
def _lower(plan: Plan) -> Any:
    """The compiled form of a plan."""
    return build_of(plan.isa).module.Convolution(plan)


def aligned_empty(size: int, dtype: str) -> Array:
    """An uninitialised array that starts on a cache line."""
    item = np.dtype(dtype).itemsize
    raw = np.empty(size * item + _CACHE_LINE, np.uint8)
    start = -raw.ctypes.data % _CACHE_LINE
    return raw[start : start + size * item].view(dtype)


def _collapses(x: Array) -> bool:
    """Whether rows follow one another, so that (h, w) is one axis of pixels."""
    h, w = x.shape[2:]
    return h == 1 or w == 1 or x.strides[2] == w * x.strides[3]


@lru_cache(maxsize=1024)
def _one_row(problem: ConvProblem) -> ConvProblem:
    p = problem
    return replace(p, ih=1, iw=p.ih * p.iw, oh=1, ow=p.oh * p.ow)


def flattened(problem: ConvProblem, x: Array, out: Array) -> tuple[ConvProblem, Array, Array]:
    """A 1x1 convolution sees no neighbours: its pixels form one row, which any width of tile divides better."""
    p = problem
    dense = (p.kh, p.kw, p.sh, p.sw, p.pt, p.pb, p.pl, p.pr) == (1, 1, 1, 1, 0, 0, 0, 0)
    if not dense or p.ih == 1 or not _collapses(x) or not _collapses(out):
        return problem, x, out
    return (
        _one_row(p),
        x.reshape(p.mb, p.ic, 1, p.ih * p.iw),
        out.reshape(p.mb, p.oc, 1, p.oh * p.ow),
    )


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
    problem, x, out = flattened(problem, x, out)
    channels_last = out.strides[1] == out.itemsize != out.strides[3]
    plan = make_plan(problem, kernels().tiles, CACHES, threads_for(num_threads), channels_last)
    run(plan, x, weight, bias, out, packs)


def run(
    plan: Plan, x: Array, weight: Array, bias: Array | None, out: Array, packs: Packs | None = None
) -> None:
    """Carry out one plan."""
    convolution = _lower(plan)
    packed = None if packs is None else packs.get(plan.packing)
    if packed is None:
        packed = aligned_empty(convolution.packed_size, plan.problem.dtype)
        convolution.pack(weight, bias, packed)
        if packs is not None:
            packs[plan.packing] = packed
    convolution(x, packed, out, plan.threads)

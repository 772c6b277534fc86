"""Carry a problem out: plan, lower, pack, run.

A `Job` is a problem on arrays of one layout. It keeps the plan of its last call, because calls repeat. Jobs and lowered
plans are kept in bounded caches: they hold numbers and offset tables, never data. Packed weights belong to whoever
froze the weights (a module in ``eval()``), in a dictionary keyed by the plan's packing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyconv import _dtypes
from pyconv._blocks import is_serial
from pyconv._caches import detect
from pyconv._complex import real_bias, real_problem, real_weight
from pyconv._denormals import is_flushing
from pyconv._dispatch import Kernels, build_of, kernels
from pyconv._plan import Plan, make_plan
from pyconv._problem import ConvProblem
from pyconv._threads import threads_for
from pyconv._tiles import Caches, item_size

_CACHE_LINE = 64
_SHARED_PACKING = 1 << 18  # bytes: some hundred microseconds of work
_ALIGNED_RESULT = 1 << 15  # bytes: some ten microseconds of work
_MOST = 2**63 - 1 - _CACHE_LINE  # bytes of an array
CACHES = detect()

Array = NDArray[Any]
Packs = dict[str, Array]
Extents = tuple[tuple[int, ...], tuple[int, ...]]  # of an array: shape and strides


@lru_cache(maxsize=1024)
def _lower(plan: Plan) -> Any:
    """Return the compiled form of a plan. What it multiplies in C is checked here, where numbers have no bounds."""
    packed = plan.packed_size * item_size(plan.problem)
    if max(packed, plan.scratch_bytes) > _MOST:
        raise MemoryError(f"{packed} bytes of packed weights and {plan.scratch_bytes} of scratch for a convolution")
    build = build_of(plan.isa, integers=_dtypes.sums_integers(plan.problem.dtype))
    return build.module.Convolution(plan)


def aligned_empty(shape: tuple[int, ...], dtype: str | np.dtype[Any]) -> Array:
    """Make an uninitialised array that starts on a cache line."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    try:
        raw = np.empty(size + _CACHE_LINE, np.uint8)
    except ValueError as error:  # NumPy's word for more than it can count
        raise MemoryError(f"{size} bytes for a convolution") from error
    return np.ndarray(shape, dtype, raw, -kernels().module.address(raw) % _CACHE_LINE)


def is_worth_aligning(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    """Whether the size of an array to be filled makes up for the microseconds that it takes to align it.

    A vector stored across two cache lines takes twice as long as one within a line.
    """
    return math.prod(shape) * dtype.itemsize >= _ALIGNED_RESULT


def empty_result(shape: tuple[int, ...], dtype: np.dtype[Any], aligned: bool) -> Array:
    """Make an uninitialised array for what a call computes."""
    return aligned_empty(shape, dtype) if aligned else np.empty(shape, dtype)


def _one_row(problem: ConvProblem) -> ConvProblem | None:
    """Make a dense 1x1 convolution, which sees no neighbours, one row of pixels: tiles divide it better."""
    p = problem
    if (p.kh, p.kw, p.sh, p.sw, p.pt, p.pb, p.pl, p.pr) != (1, 1, 1, 1, 0, 0, 0, 0) or p.ih == 1:
        return None
    return replace(p, ih=1, iw=p.ih * p.iw, oh=1, ow=p.oh * p.ow)


def _collapses(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether rows follow one another, so that (h, w) is one axis of pixels."""
    h, w = shape[-2:]
    return h == 1 or w == 1 or strides[-2] == w * strides[-1]


def plan_of(problem: ConvProblem) -> Plan:
    """Return the plan of a problem whose arrays are dense."""
    return Job(_one_row(problem) or problem).step(None).plan


@dataclass(frozen=True, slots=True)
class Step:
    """A job's plan in the state that the process is in, ready to be run."""

    threads: int  # that it may use
    build: Kernels
    caches: Caches
    plan: Plan
    axes: int  # spatial ones, of the arrays
    used_threads: int
    packing: str
    packs_in_tasks: bool
    packed_size: int
    dtype: np.dtype[Any]  # of the sums
    convolution: Any  # the plan, lowered by the build

    @classmethod
    def of(cls, plan: Plan, threads: int, build: Kernels, axes: int) -> Step:
        """Look up what a call needs of a plan: its properties take time."""
        dtype = np.dtype(plan.problem.dtype)
        return cls(
            threads, build, CACHES, plan, axes, plan.blocks.threads, plan.packing, plan.packs_in_tasks,
            plan.packed_size, dtype, _lower(plan),
        )  # fmt: skip

    def run(self, x: Array, weight: Array, bias: Array | None, out: Array, packs: Packs | None = None) -> None:
        """Convolve ``x`` into ``out``.

        Parameters
        ----------
        x, out : ndarray
            Of the shapes and strides that the job was made for: native byte order, aligned; `out` writable and disjoint
            from the inputs.
        weight, bias : ndarray
            As `conv_problem` accepted them: native byte order, aligned, any strides.
        packs : dict, optional
            Where packed weights are kept for the next call. Without it they are packed for this call only.
        """
        if not self.used_threads:
            return  # an empty batch
        if packs is not None:
            packed = packs.get(self.packing)
            if packed is None:
                packed = packs[self.packing] = _pack(self, weight, bias)
        elif self.packs_in_tasks:
            if weight.dtype is not self.dtype:
                weight, bias = _summed(self, weight, bias)
            self.convolution.run_packing(x, weight, bias, out, self.used_threads, self.axes, is_flushing())
            return
        else:
            packed = _pack(self, weight, bias)
        self.convolution.run(x, packed, out, self.used_threads, self.axes, is_flushing())


class Job:
    """One problem on arrays of one layout.

    Parameters
    ----------
    problem : ConvProblem
        What to compute.
    channels_last, x_channels_last : bool, optional
        Whether neighbouring channels, not neighbouring pixels, lie side by side: of the output, of the image.
    axes : {1, 2}, optional
        Spatial axes of the arrays.
    """

    __slots__ = ("_axes", "_channels_last", "_integers", "_last", "_problem", "_serial", "_x_channels_last")

    def __init__(
        self, problem: ConvProblem, *, channels_last: bool = False, x_channels_last: bool = False, axes: int = 2
    ) -> None:
        self._problem = problem = real_problem(problem)
        self._channels_last, self._x_channels_last = channels_last, x_channels_last
        self._axes = axes
        self._serial = is_serial(problem)
        self._integers = _dtypes.sums_integers(problem.dtype)
        self._last: Step | None = None

    def step(self, num_threads: int | None) -> Step:
        """Return the plan for at most this many threads (None: as many as the process allows)."""
        build = kernels(integers=self._integers)
        threads = 1 if self._serial else threads_for(num_threads)
        last = self._last
        if last is None or last.threads != threads or last.build is not build or last.caches is not CACHES:
            plan = make_plan(
                self._problem, build.tiles, CACHES, threads, self._channels_last, x_channels_last=self._x_channels_last
            )
            self._last = last = Step.of(plan, threads, build, self._axes)
        return last


def _summed(step: Step, weight: Array, bias: Array | None) -> tuple[Array, Array | None]:
    """Return weight and bias in the dtype that is summed in."""
    if weight.dtype == step.dtype:
        return weight, bias
    if weight.dtype.kind == "c":
        p = step.plan.problem
        return real_weight(weight, pairs=p.ic > p.g * weight.shape[1]), None if bias is None else real_bias(bias)
    return weight.astype(step.dtype), None if bias is None else bias.astype(step.dtype)


def _pack(step: Step, weight: Array, bias: Array | None) -> Array:
    """Return bias and weights in the order in which the kernel reads them."""
    shape = (step.packed_size,)
    packed = empty_result(shape, step.dtype, is_worth_aligning(shape, step.dtype))
    weight, bias = _summed(step, weight, bias)
    step.convolution.pack(weight, bias, packed, step.used_threads if packed.nbytes >= _SHARED_PACKING else 1)
    return packed


@lru_cache(maxsize=1024)
def job_for(problem: ConvProblem, axes: int, x: Extents, out: Extents) -> Job:
    """Make the job of a problem on arrays of these layouts, with `axes` spatial axes, with or without a batch axis."""
    row = _one_row(problem)
    if row and _collapses(*x) and _collapses(*out):
        problem = row
    last, x_last = (
        strides[-1 - axes] == _dtypes.item_size(dtype) != strides[-1]
        for strides, dtype in ((out[1], problem.dst_dtype), (x[1], problem.src_dtype))
    )
    return Job(problem, channels_last=last, x_channels_last=x_last, axes=axes)


def run(plan: Plan, x: Array, weight: Array, bias: Array | None, out: Array, packs: Packs | None = None) -> None:
    """Carry out one plan on arrays (mb, ic, ih, iw), (oc, ic // g, kh, kw), (oc,) and (mb, oc, oh, ow)."""
    Step.of(plan, plan.blocks.threads, kernels(), axes=2).run(x, weight, bias, out, packs)

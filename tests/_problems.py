"""One call of `conv1d` or `conv2d` as a value, down to the strides of its operands.

The repr of a `Case` is one line that builds it again: paste it into a test, and shrink it there.

The geometry is worked out here a second time, from the definitions in torch's documentation: what
`pyconv` makes of an argument is part of what is tested.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from typing import Any
from unittest import mock

import numpy as np

import pyconv
from _layouts import Allocator, gaps, place, poisoned
from _values import Family, integers
from pyconv import _execute, _reference
from pyconv._dispatch import forced
from pyconv._dtypes import ACCUMULATOR
from pyconv._plan import Plan
from pyconv._problem import ConvProblem
from pyconv._tiles import Caches

SCALE = int(os.environ.get("PYCONV_TEST_SCALE", "1"))


def seeds(count: int) -> range:
    """Return the first `count` seeds, or in a longer run more of them."""
    return range(count * SCALE)


@dataclass(frozen=True, repr=False)
class Case:
    """One call: shapes and arguments as the caller writes them, the data by its seed."""

    x_shape: tuple[int, ...]
    weight_shape: tuple[int, ...]
    bias: bool = True
    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1
    groups: int = 1
    padding_mode: str = "zeros"
    dtype: str = "float32"
    src_dtype: str = ""  # that of the image, where it is not dtype
    x_layout: str = "C"
    weight_layout: str = "C"
    bias_layout: str = "C"
    out_layout: str = ""  # "": no out= is passed
    threads: int = 1
    l2: int = 0  # bytes of cache to plan the blocks for, where not this machine's
    seed: int = 0

    def __repr__(self) -> str:
        given = ((field.name, getattr(self, field.name), field.default) for field in fields(self))
        told = (f"{name}={value!r}" for name, value, default in given if value != default)
        return f"Case({', '.join(told)})"

    @property
    def axes(self) -> int:
        """1 for conv1d, 2 for conv2d."""
        return len(self.weight_shape) - 2

    @property
    def problem(self) -> ConvProblem:
        """The geometry, a 1-D problem as one of unit height."""
        mb, ic, *size = self.x_shape if len(self.x_shape) == self.axes + 2 else (1, *self.x_shape)
        oc, _, *kernel = self.weight_shape
        stride, dilation = _per_axis(self.stride, self.axes), _per_axis(self.dilation, self.axes)
        sides = _sides(self.padding, kernel, dilation)
        if self.axes == 1:
            size, kernel, stride, dilation = ([1, *v] for v in (size, kernel, stride, dilation))
            sides = [(0, 0), *sides]
        (ih, iw), (kh, kw), (sh, sw), (dh, dw) = size, kernel, stride, dilation
        (pt, pb), (pl, pr) = sides
        return ConvProblem(
            mb=mb, g=self.groups, ic=ic, ih=ih, iw=iw, oc=oc,
            oh=(pt + ih + pb - (kh - 1) * dh - 1) // sh + 1,
            ow=(pl + iw + pr - (kw - 1) * dw - 1) // sw + 1,
            kh=kh, kw=kw, sh=sh, sw=sw, dh=dh, dw=dw, pt=pt, pb=pb, pl=pl, pr=pr,
            padding_mode=self.padding_mode, dtype=ACCUMULATOR[self.dtype],
            src_dtype=self.src_dtype or self.dtype, dst_dtype=self.dtype,
        )  # fmt: skip

    @property
    def out_shape(self) -> tuple[int, ...]:
        """The shape of the result, batched if the image is."""
        p = self.problem
        spatial = (p.oh, p.ow)[-self.axes :]
        return (*self.x_shape[: -1 - self.axes], p.oc, *spatial)


class Call:
    """A case with its operands in memory, to be run and to be judged."""

    def __init__(self, case: Case, family: Family = integers, allocate: Allocator = poisoned) -> None:
        self.case = case
        self.problem = case.problem
        rng = np.random.default_rng(case.seed)
        x, weight, bias = family(self.problem, rng)
        x, weight = x.reshape(case.x_shape), weight.reshape(case.weight_shape)
        self.x, self._x_memory = place(x, case.x_layout, rng, allocate)
        self.weight, self._weight_memory = place(weight, case.weight_layout, rng, allocate)
        self.bias, self._bias_memory = place(bias, case.bias_layout, rng, allocate)
        out = np.full(case.out_shape, self.unwritten, case.dtype)
        self.out, self._out_memory = place(out, case.out_layout or "C", rng, allocate)

    @property
    def unwritten(self) -> float | int:
        """What an element holds that is not written: NaN, or the largest integer."""
        dtype = np.dtype(self.case.dtype)
        return np.iinfo(dtype).max if dtype.kind in "iu" else np.nan

    def run(self, isa: str | None = None, threads: int | None = None) -> np.ndarray:
        """Return what pyconv computes, on the given number of threads or the case's own.

        The operands must be left as they were, and so must the bytes between the elements of out.
        Where the case passes out=, the result is that array, and the next run overwrites it.
        """
        case = self.case
        self.out[...] = self.unwritten
        inputs = (self._x_memory, self._weight_memory, self._bias_memory)
        before = [memory.copy() for memory in inputs]
        around_out = gaps(self.out, self._out_memory)

        out = self.out if case.out_layout else None
        result = self.compute(self.x, self.weight, self.bias, out, isa, threads)

        assert all(map(np.array_equal, inputs, before)), f"an input has changed: {case!r}"
        assert np.array_equal(gaps(self.out, self._out_memory), around_out), f"strayed: {case!r}"
        assert out is None or result is out
        assert result.shape == case.out_shape, f"{result.shape} for {case!r}"
        assert result.dtype == case.dtype, f"{result.dtype} for {case!r}"
        return result

    def compute(
        self,
        x: np.ndarray,
        weight: np.ndarray,
        bias: np.ndarray,
        out: np.ndarray | None = None,
        isa: str | None = None,
        threads: int | None = None,
    ) -> np.ndarray:
        """Make the call of the case with other arrays in the place of its operands."""
        case = self.case
        function = pyconv.conv1d if case.axes == 1 else pyconv.conv2d
        try:
            with forced(isa or pyconv.isa()), _pretended_cache(case.l2), _kept_weights(case.seed % 2 == 1):
                return function(
                    x,
                    weight,
                    bias if case.bias else None,
                    case.stride,
                    case.padding,
                    case.dilation,
                    case.groups,
                    padding_mode=case.padding_mode,
                    out=out,
                    num_threads=threads or case.threads,
                )
        except Exception as error:
            error.add_note(repr(case))
            raise

    def reference(self, dtype: Any = np.float64) -> np.ndarray:
        """Return what the result should be, in the given type."""
        return _reference.conv(*self.operands, dtype).reshape(self.case.out_shape)

    def error_bound(self) -> np.ndarray:
        """Return how far from `reference` rounding can take each element."""
        return _reference.error_bound(*self.operands).reshape(self.case.out_shape)

    @property
    def operands(self) -> tuple[ConvProblem, np.ndarray, np.ndarray, np.ndarray | None]:
        """The problem with its operands as the backend sees them, a 1-D one of unit height."""
        p = self.problem
        return (
            p,
            self.x.reshape(p.mb, p.ic, p.ih, p.iw),
            self.weight.reshape(p.oc, p.ic // p.g, p.kh, p.kw),
            self.bias if self.case.bias else None,
        )


def _pretended_cache(l2: int) -> AbstractContextManager[Any]:
    """Pretend to have so small a cache that even a small problem falls into blocks."""
    caches = Caches(l1=l2 // 4, l2=l2) if l2 else _execute.CACHES
    return mock.patch.object(_execute, "CACHES", caches)


def _kept_weights(kept: bool) -> AbstractContextManager[Any]:
    """Pack the weights as those of a frozen layer, all of them first; else as the plan has it for those of one call."""
    return mock.patch.object(Plan, "packs_in_tasks", False) if kept else nullcontext()


def _per_axis(value: Any, axes: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * axes if len(values) == 1 else values


def _sides(padding: Any, kernel: list[int], dilation: list[int]) -> list[tuple[int, int]]:
    """(before, after) of each axis; 'same' puts the odd one after, whatever the size."""
    if padding == "valid":
        return [(0, 0) for _ in kernel]
    if padding == "same":
        totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return [(total // 2, total - total // 2) for total in totals]
    if not isinstance(padding, int) and not isinstance(padding[0], int):
        return [(before, after) for before, after in padding]
    return [(p, p) for p in _per_axis(padding, len(kernel))]

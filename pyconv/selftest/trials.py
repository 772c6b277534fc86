"""What is convolved: a seeded spread of small problems of every kind, and a few large ones.

Small integers go in, so that no sum rounds: there is one right answer, to the bit, and `Trial.expected` takes it from
`pyconv._reference` in int64. Where two results are only compared with each other the numbers are Gaussian, and every
rounding counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import count
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pyconv import _reference
from pyconv._problem import ConvProblem, conv_problem
from pyconv.functional import conv1d, conv2d

Array = NDArray[Any]

_LARGEST_WEIGHT = 3
_LARGEST_PIXEL = 255  # the sum of 20 000 products with such weights is an integer that float32 holds
_LARGEST_HALF = 8  # and few sums with such pixels are beyond what float16 holds


class Operands(NamedTuple):
    """What a convolution reads."""

    x: Array
    weight: Array
    bias: Array | None

    def map(self, function: Callable[[Array], Array]) -> Operands:
        """Return what `function` makes of each array."""
        return Operands(function(self.x), function(self.weight), None if self.bias is None else function(self.bias))


@dataclass(frozen=True, repr=False)
class Trial:
    """One call of `conv1d` or `conv2d`, the data by its seed."""

    x_shape: tuple[int, ...]
    weight_shape: tuple[int, ...]
    bias: bool = True
    stride: int = 1
    padding: tuple[tuple[int, int], ...] | int = 0
    dilation: int = 1
    groups: int = 1
    padding_mode: str = "zeros"
    dtype: str = "float32"
    src_dtype: str = ""  # that of the image, where it is not dtype
    channels_last: bool = False
    seed: int = 0

    def __repr__(self) -> str:
        """Return the line that makes it again."""
        given = ((field.name, getattr(self, field.name), field.default) for field in fields(self))
        return f"Trial({', '.join(f'{name}={value!r}' for name, value, default in given if value != default)})"

    @property
    def problem(self) -> ConvProblem:
        """The geometry."""
        oc = self.weight_shape[0]
        return conv_problem(
            len(self.weight_shape) - 2,
            self.x_shape,
            self.weight_shape,
            (oc,) if self.bias else None,
            np.dtype(self.src_dtype or self.dtype),
            np.dtype(self.dtype),
            np.dtype(self.dtype) if self.bias else None,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            self.padding_mode,
        )

    @cached_property
    def integers(self) -> Operands:
        """Small integers; no weight is 0, so that each tap counts."""
        rng = np.random.default_rng(self.seed)
        dtype = np.dtype(self.src_dtype or self.dtype)
        low, high = -_LARGEST_PIXEL, _LARGEST_PIXEL
        if self.dtype == "float16":
            low, high = -_LARGEST_HALF, _LARGEST_HALF
        if dtype.kind in "iu":
            ends = np.iinfo(dtype)
            low, high = max(low, int(ends.min)), min(high, int(ends.max))
        x = rng.integers(low, high, self.x_shape, endpoint=True)
        weight = rng.integers(1, _LARGEST_WEIGHT, self.weight_shape, endpoint=True)
        weight *= rng.choice([-1, 1], weight.shape)
        bias = rng.integers(-1000, 1000, self.weight_shape[0], endpoint=True)
        # A bool is whether the number is even: as an image, 0 or 1.
        pixels = x % 2 == 0 if dtype.kind == "b" else x.astype(dtype)
        operands = Operands(
            self._laid_out(pixels), weight.astype(self.dtype), bias.astype(self.dtype) if self.bias else None
        )
        # The imaginary parts are the real ones backwards.
        return operands.map(lambda a: a + 1j * a[::-1].real if a.dtype.kind == "c" else a)

    @cached_property
    def gaussian(self) -> Operands:
        """N(0, 1); an integer image stays what it is."""
        rng = np.random.default_rng(self.seed)

        def draw(values: Array) -> Array:
            if values.dtype.kind not in "fc":
                return values
            drawn = np.empty_like(values)  # in the order that the values have in memory
            drawn[...] = rng.standard_normal(values.shape)
            if values.dtype.kind == "c":
                drawn.imag = rng.standard_normal(values.shape)
            return drawn

        return self.integers.map(draw)

    @cached_property
    def expected(self) -> Array:
        """The right result for `integers`."""
        p, (x, weight, bias) = self.problem, self.integers
        images = x.reshape(p.mb, p.ic, p.ih, p.iw)
        taps = weight.reshape(p.oc, p.ic // p.g, p.kh, p.kw)

        def exact(images: Array, taps: Array, bias: Array | None = None) -> Array:
            result: Array = _reference.conv(p, images, taps, bias, np.int64)
            return result

        if weight.dtype.kind == "c":
            real, imag = (None, None) if bias is None else (bias.real, bias.imag)
            total = exact(images.real, taps.real, real) - exact(images.imag, taps.imag)
            total = total + 1j * (exact(images.real, taps.imag, imag) + exact(images.imag, taps.real))
        else:
            total = exact(images, taps, bias)
        with np.errstate(over="ignore"):  # float16: infinite, as it should be
            return total.astype(self.dtype).reshape(self._out_shape)

    def empty(self) -> Array:
        """Make an array for the result, filled with NaN or the largest integer: what is not written shows."""
        dtype = np.dtype(self.dtype)
        unwritten = np.iinfo(dtype).max if dtype.kind in "iu" else np.nan
        return self._laid_out(np.full(self._out_shape, unwritten, dtype))

    def compute(self, operands: Operands, out: Array | None = None, threads: int = 1) -> Array:
        """Return what pyconv computes."""
        function = conv1d if len(self.weight_shape) == 3 else conv2d
        return function(
            *operands,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            padding_mode=self.padding_mode,
            out=out,
            num_threads=threads,
        )

    @property
    def _out_shape(self) -> tuple[int, ...]:
        p = self.problem
        return p.mb, p.oc, *(p.oh, p.ow)[4 - len(self.weight_shape) :]

    def _laid_out(self, array: Array) -> Array:
        """Put the channels last in memory, where this is such a trial."""
        if not self.channels_last:
            return array
        return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 1, -1)), -1, 1)


def difference(got: Array, expected: Array) -> str:
    """Say which bits differ, in a line; "" if none do."""
    if (got.shape, got.dtype) != (expected.shape, expected.dtype):
        return f"{got.dtype} of shape {got.shape}, expected {expected.dtype} of shape {expected.shape}"
    a, b = (np.ascontiguousarray(array)[..., np.newaxis].view(f"u{min(8, got.itemsize)}") for array in (got, expected))
    where = np.argwhere((a != b).any(-1))
    if not len(where):
        return ""
    first = tuple(map(int, where[0]))
    return f"{len(where)} of {got.size} differ, first at {first}: {got[first]!r}, expected {expected[first]!r}"


# Vectors have 2 to 16 lanes, tiles up to 4 vectors: multiples, their neighbours, primes.
_SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 13, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65)
_FAMILIES = ("dense", "pointwise", "grouped", "depthwise", "multiplier", "first", "signal")
_SMALL_INTEGERS = ("bool", "uint8", "int8", "uint16", "int16")
_LARGE_INTEGERS = ("int32", "uint32", "int64", "uint64")
_FLOATS = ("float32", "float64")
_OTHERS = (
    "float16", "complex64", "complex128",
    "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
)  # fmt: skip
_BUDGET = 300_000  # multiplications


def small(seed: int, number: int) -> Iterator[Trial]:
    """Yield so many small trials, of all families in turn: the same ones for the same seed."""
    found = 0
    for attempt in count():
        if found == number:
            return
        trial = _draw(_FAMILIES[found % len(_FAMILIES)], seed * 1_000_000 + attempt)
        p = trial.problem
        if prod(trial.weight_shape) * p.mb * p.oh * p.ow <= _BUDGET:
            found += 1
            yield trial


def large() -> Iterator[Trial]:
    """Yield problems that fall into several blocks, and are worth several threads."""
    for dtype in _FLOATS:
        yield Trial((1, 32, 60, 61), (24, 32, 3, 3), padding=1, dtype=dtype)
        yield Trial((2, 64, 30, 31), (33, 64, 1, 1), dtype=dtype)
        yield Trial((1, 3, 70, 71), (17, 3, 7, 7), stride=2, padding=3, dtype=dtype, src_dtype="uint8")
        yield Trial((1, 24, 90, 91), (24, 1, 3, 3), padding=1, groups=24, dtype=dtype)
        yield Trial((1, 48, 60, 61), (48, 1, 3, 3), padding=1, groups=48, dtype=dtype, channels_last=True)
        yield Trial((1, 32, 60, 61), (32, 4, 3, 3), padding=1, groups=8, dtype=dtype, channels_last=True)
        yield Trial((1, 1, 201, 203), (2, 1, 5, 5), padding=2, padding_mode="reflect", dtype=dtype)
        yield Trial((1, 16, 5001), (16, 16, 3), padding=1, dilation=2, dtype=dtype)
    for dtype in _OTHERS:
        yield Trial((1, 24, 40, 41), (24, 24, 3, 3), padding=1, dtype=dtype)


def _draw(family: str, seed: int) -> Trial:
    """Draw a trial, of whatever size."""
    rng = np.random.default_rng(seed)

    def pick(*options: Any) -> Any:
        return options[rng.integers(len(options))]

    axes = 1 if family == "signal" else 2
    groups, ic, oc = _channels(family, pick)
    kernel = [1 if family == "pointwise" else pick(1, 2, 3, 3, 3, 4, 5, 7) for _ in range(axes)]
    stride, dilation = pick(1, 1, 1, 2, 2, 3), pick(1, 1, 1, 2, 3)
    sides = tuple((pick(0, 0, 1, 1, 2, 4), pick(0, 0, 1, 1, 2, 5)) for _ in kernel)
    # Room for the kernel, for a reflection's mirror and for a circle that closes once.
    spans = [(k - 1) * dilation + 1 for k in kernel]
    least = [max(span - sum(pads), max(pads) + 1) for span, pads in zip(spans, sides, strict=True)]
    size = [max(pick(*_SIZES), extent) for extent in least]
    dtype = pick(*_FLOATS) if family == "first" else pick(*_FLOATS, *_FLOATS, pick(*_OTHERS))
    src_dtype = ""
    if family == "first":
        src_dtype = pick(*_SMALL_INTEGERS, *(_LARGE_INTEGERS if dtype == "float64" else ()))
    return Trial(
        x_shape=(pick(1, 1, 2, 3), groups * ic, *size),
        weight_shape=(groups * oc, ic, *kernel),
        bias=pick(True, True, False),
        stride=stride,
        padding=sides,
        dilation=dilation,
        groups=groups,
        padding_mode=pick("zeros", "zeros", "zeros", "reflect", "replicate", "circular"),
        dtype=dtype,
        src_dtype=src_dtype,
        channels_last=axes == 2 and pick(True, False),
        seed=seed,
    )


def _channels(family: str, pick: Callable[..., Any]) -> tuple[int, int, int]:
    """Draw the groups, and the input and output channels of one group."""
    if family == "depthwise":
        return pick(*_SIZES), 1, 1
    if family == "multiplier":
        return pick(*_SIZES), 1, pick(2, 3)
    if family == "first":
        return 1, pick(1, 3), pick(*_SIZES)
    ic, oc = pick(*_SIZES), pick(*_SIZES)
    if family == "grouped":
        return pick(2, 3, 4, 8, 11), *pick((2, 2), (4, 4), (8, 8), (ic, oc))
    return 1, ic, oc

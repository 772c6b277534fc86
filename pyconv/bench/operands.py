"""What is convolved: dtypes by the names of the command line, and arrays of them, the same ones in every process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyconv._dtypes import ACCUMULATOR, item_size, sums_integers
from pyconv._execute import aligned_empty
from pyconv.bench.layer import Layer

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Dtype:
    """A dtype; `operations` is what one of its multiply-adds takes in those of real numbers."""

    name: str
    operations: int = 1

    @property
    def bytes(self) -> int:
        """Bytes of an element."""
        return item_size(self.name)

    @property
    def accumulator(self) -> str:
        """What it is summed in, whose peak is the one to be reached."""
        return ACCUMULATOR[self.name]

    @property
    def is_integer(self) -> bool:
        """Whether it is one of the dtypes that only the functions take."""
        return sums_integers(self.accumulator)

    @property
    def element(self) -> Any:
        """The dtype itself; bfloat16 is that of a package."""
        if self.name != "bfloat16":
            return np.dtype(self.name)
        from ml_dtypes import bfloat16

        return np.dtype(bfloat16)


DTYPES = {
    "f32": Dtype("float32"),
    "f64": Dtype("float64"),
    "f16": Dtype("float16"),
    "bf16": Dtype("bfloat16"),
    "c64": Dtype("complex64", operations=4),
    "c128": Dtype("complex128", operations=4),
    "s8": Dtype("int8"),
    "u8": Dtype("uint8"),
    "s16": Dtype("int16"),
    "u16": Dtype("uint16"),
    "s32": Dtype("int32"),
    "u32": Dtype("uint32"),
    "s64": Dtype("int64"),
    "u64": Dtype("uint64"),
}


def operands(layer: Layer, dtype: str, layout: str) -> tuple[Array, Array, Array]:
    """Make input, weights and bias: standard normal, outputs of about unit variance; integers of one digit.

    Input and weights start on a cache line: where each process's heap happens to put them would cost some contenders up
    to 15 %, and others nothing.
    """
    element = DTYPES[dtype].element
    rng = np.random.default_rng(0)
    x = _drawn(rng, layer.input_shape, element).astype(element, copy=False)
    w = _drawn(rng, layer.weight_shape, element)
    if not DTYPES[dtype].is_integer:
        w *= 1 / np.sqrt(layer.terms * (2 if element.kind == "c" else 1))
    w = w.astype(element, copy=False)
    b = _drawn(rng, (layer.oc,), element).astype(element, copy=False)
    if layout == "nhwc":
        return _aligned(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2), _aligned(w), b
    return _aligned(x), _aligned(w), b


def _aligned(array: Array) -> Array:
    """Copy to memory of its own, from a cache line on."""
    copy = aligned_empty(array.shape, array.dtype)
    copy[...] = array
    return copy


def _drawn(rng: np.random.Generator, shape: tuple[int, ...], element: np.dtype[Any]) -> Array:
    """Draw numbers, those of a short dtype in one that the generator knows."""
    if element.kind in "iu":
        low = 0 if element.kind == "u" else -4
        return rng.integers(low, low + 8, shape, element.type, endpoint=True)
    real = np.float64 if element in (np.dtype(np.float64), np.dtype(np.complex128)) else np.float32
    drawn: Array = rng.standard_normal(shape, real)
    if element.kind != "c":
        return drawn
    both = np.empty(shape, element)
    both.real, both.imag = drawn, rng.standard_normal(shape, real)
    return both

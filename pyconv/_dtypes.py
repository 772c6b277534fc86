"""Which dtypes there are, what each is summed in, and how the compiled code sees it.

Below the public functions a dtype is spoken of by its name. NumPy has no bfloat16 of its own; that of the package
ml_dtypes is known by its name, too, so that nothing need be imported.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

# Of weights, bias and output: what the sum is kept in. 16-bit floats are widened as they are read and rounded once.
# Integers wrap around, as NumPy's do: their last bits do not depend on how wide, or of what sign, the sum is.
ACCUMULATOR: Final = {
    "float16": "float32", "bfloat16": "float32", "float32": "float32", "float64": "float64",
    "complex64": "float32", "complex128": "float64",
    "int8": "uint32", "uint8": "uint32", "int16": "uint32", "uint16": "uint32", "int32": "uint32", "uint32": "uint32",
    "int64": "uint64", "uint64": "uint64",
}  # fmt: skip

# What NumPy has itself, in this machine's byte order. C types of an integer that are as long are equal, but each has a
# number of its own. Names go by numbers, which every dtype tells at once: its name it puts together anew each time, in
# microseconds, and not every dtype has a hash.
_OF_NUMPY: Final = tuple(map(np.dtype, "?bBhHiIlLqQefdFD"))
_NAMES: Final = {dtype.num: dtype.name for dtype in _OF_NUMPY}
NATIVE: Final = frozenset(_OF_NUMPY)
_ITEM_SIZE: Final = {name: 2 if name == "bfloat16" else np.dtype(name).itemsize for name in ("bool", *ACCUMULATOR)}


def name_of(dtype: np.dtype[Any]) -> str:
    """Return the name of any dtype."""
    return _NAMES.get(dtype.num) or dtype.name


def is_float(dtype: np.dtype[Any]) -> bool:
    """Tell whether a layer's parameters may have this dtype."""
    return dtype.kind in "fcV" and name_of(dtype) in ACCUMULATOR


def is_parameter(dtype: np.dtype[Any]) -> bool:
    """Tell whether weights may have this dtype."""
    return name_of(dtype) in ACCUMULATOR


def is_image(dtype: np.dtype[Any]) -> bool:
    """Tell whether an image may have this dtype: that of some weights, or bool."""
    return name_of(dtype) in _ITEM_SIZE


def plain(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype without the metadata that equal dtypes may differ in."""
    return dtype if name_of(dtype) == "bfloat16" else np.dtype(name_of(dtype))


def item_size(name: str) -> int:
    """Bytes of one element of the dtype of that name."""
    return _ITEM_SIZE[name]


def is_complex(name: str) -> bool:
    """Tell whether the dtype of that name has two parts."""
    return name.startswith("complex")


def is_sum(name: str, accumulator: str) -> bool:
    """Tell whether elements of a dtype are, to the bit, terms of a sum of another: nothing need be converted."""
    return ACCUMULATOR.get(name) == accumulator and item_size(name) == item_size(accumulator)


def sums_integers(accumulator: str) -> bool:
    """Tell whether a sum of this dtype is one of integers."""
    return accumulator.startswith("uint")

"""Arrays whose memory is laid out in any way that NumPy allows.

A layout is a choice of strides: `place` asks an allocator for exactly the bytes between the lowest
and the highest address that the strides reach, and puts the array there. The same function so
serves the tests of values, on ordinary memory, and the tests of memory, which hand it blocks that
end or begin at a page that must not be touched. Bytes between the elements are poisoned.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from pyconv.selftest.guarded import POISON

WRITABLE = (
    "C",
    "F",
    "channels_last",
    "some_channels",  # of an array of more, channels last, whose rows and columns may run backwards: a[:, ::-1, :, :3]
    "permuted",  # the axes in any order
    "sliced",  # a[::2, 1::3]
    "negative",  # a[::-1]
    "odd_unit",  # the stride of an axis of length 1 means nothing, and may be anything
)
READABLE = (
    *WRITABLE,
    "broadcast",  # one axis of stride 0
    "overlapping",  # a window sliding over a row: a[i, j] and a[i + 1, j - 1] are one element
    "misaligned",  # at an odd address
    "swapped",  # the other byte order
    "read_only",
)

Allocator = Callable[[int], np.ndarray]


def poisoned(nbytes: int) -> np.ndarray:
    """Allocate `nbytes` bytes of ordinary memory."""
    return np.full(nbytes // 2 + 1, POISON).view(np.uint8)[:nbytes]


def place(
    values: np.ndarray,
    layout: str,
    rng: np.random.Generator,
    allocate: Allocator = poisoned,
) -> tuple[np.ndarray, np.ndarray]:
    """Put the values into the layout; return the array and the block of bytes that holds it.

    Where elements share their memory ("broadcast", "overlapping") the last value written stands,
    so the array, not `values`, says what the operand is.
    """
    dtype = values.dtype.newbyteorder() if layout == "swapped" else values.dtype
    strides = [stride * dtype.itemsize for stride in _strides(values.shape, layout, rng)]
    reach = [(n - 1) * stride for n, stride in zip(values.shape, strides, strict=True)]
    if values.size == 0:
        return np.empty(values.shape, dtype), allocate(0)

    lowest = sum(distance for distance in reach if distance < 0)
    highest = sum(distance for distance in reach if distance > 0) + dtype.itemsize
    skew = 1 if layout == "misaligned" else 0
    memory = allocate(highest - lowest + skew)
    array = np.ndarray(values.shape, dtype, memory, offset=skew - lowest, strides=strides)
    array[...] = values
    array.flags.writeable = layout != "read_only"
    return array, memory


def gaps(array: np.ndarray, memory: np.ndarray) -> np.ndarray:
    """Return the bytes of `memory` that belong to no element of `array`."""
    outside = np.ones(memory.shape, bool)
    if array.size:
        start = array.__array_interface__["data"][0] - memory.__array_interface__["data"][0]
        bytes_of_elements = np.ndarray((*array.shape, array.itemsize), bool, outside, start, (*array.strides, 1))
        bytes_of_elements[...] = False
    return memory[outside]


def _strides(shape: tuple[int, ...], layout: str, rng: np.random.Generator) -> list[int]:
    """Return the strides, in elements."""
    order = list(range(len(shape)))  # from the slowest axis to the fastest
    if layout == "F":
        order.reverse()
    elif layout in ("channels_last", "some_channels") and len(shape) > 2:
        order.append(order.pop(1))
    elif layout == "permuted":
        rng.shuffle(order)

    steps = rng.integers(1, 4, len(shape)) if layout == "sliced" else [1] * len(shape)
    lengths = list(shape)  # of the array that this one is a part of
    if layout == "some_channels" and shape:
        lengths[order[-1]] += int(rng.integers(4))
    strides = [0] * len(shape)
    for i, axis in enumerate(order):
        strides[axis] = int(prod(lengths[inner] * steps[inner] for inner in order[i + 1 :]))
        strides[axis] *= int(steps[axis])

    long_axes = [axis for axis, n in enumerate(shape) if n > 1]
    if layout == "negative":
        strides = [-stride if rng.random() < 0.7 else stride for stride in strides]
    elif layout == "some_channels":
        strides = [
            -stride if axis != order[-1] and rng.random() < 0.3 else stride for axis, stride in enumerate(strides)
        ]
    elif layout == "odd_unit":
        odd = rng.integers(-1000, 1000, len(shape))
        strides = [strides[a] if n > 1 else int(odd[a]) for a, n in enumerate(shape)]
    elif layout == "broadcast" and long_axes:
        strides[rng.choice(long_axes)] = 0
    elif layout == "overlapping" and len(long_axes) > 1:
        strides[long_axes[-2]] = strides[long_axes[-1]]
    return strides

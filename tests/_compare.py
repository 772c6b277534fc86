"""Comparing results by their bits."""

from __future__ import annotations

import numpy as np


def differing(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where two arrays differ in a bit, so that -0.0 is not 0.0; but any NaN equals any other.

    IEEE 754 leaves sign and payload of a NaN to the hardware: with two NaN operands they depend on
    which of the two a compiler puts first.
    """
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    if a.dtype.kind == "c":
        return differing(a.real, b.real) | differing(a.imag, b.imag)
    unsigned = f"u{a.itemsize}"
    bits = (np.ascontiguousarray(values).view(unsigned).reshape(a.shape) for values in (a, b))
    return np.not_equal(*bits) & ~(np.isnan(a) & np.isnan(b))


def difference(got: np.ndarray, expected: np.ndarray) -> str:
    """Which bits differ, in a line; "" if none do."""
    where = differing(got, expected)
    if not where.any():
        return ""
    first = tuple(int(i) for i in np.argwhere(where)[0])
    count = f"{np.count_nonzero(where)} of {got.size} differ"
    return f"{count}, first at {first}: {got[first]!r}, expected {expected[first]!r}"

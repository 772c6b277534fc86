"""Subnormal numbers are IEEE's, unless `flush_denormals` makes them zeros: in the convolution, and nowhere else."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import pyconv
from pyconv._dispatch import forced

pytestmark = pytest.mark.usefixtures("parallel_at_any_size")

SHAPE = (2, 4, 9, 20)


def products(dtype: str) -> tuple[tuple[float, float], ...]:
    """(pixel, weight): a subnormal operand; a subnormal product of normal ones."""
    smallest = float(np.finfo(dtype).smallest_normal)
    return (smallest / 4, 1.0), (0.125, 2 * smallest)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_flush(isa: str, dtype: str, groups: int, threads: int) -> None:
    for pixel, tap in products(dtype):
        x, weight = np.full(SHAPE, pixel, dtype), np.full((4, 4 // groups, 1, 1), tap, dtype)
        exact = np.full(SHAPE, pixel * tap * (4 // groups), dtype)
        with forced(isa):
            np.testing.assert_array_equal(pyconv.conv2d(x, weight, groups=groups, num_threads=threads), exact)
            with pyconv.flush_denormals():
                assert not pyconv.conv2d(x, weight, groups=groups, num_threads=threads).any()
                with pyconv.flush_denormals(False):
                    np.testing.assert_array_equal(pyconv.conv2d(x, weight, groups=groups, num_threads=threads), exact)
            np.testing.assert_array_equal(pyconv.conv2d(x, weight, groups=groups, num_threads=threads), exact)


def test_the_callers_arithmetic_is_left_alone() -> None:
    """NumPy's own products of subnormal numbers, inside the block and after it, in this thread and in another."""
    tiny = np.full(1000, np.finfo(np.float32).smallest_normal, np.float32)
    x, weight = np.ones(SHAPE, np.float32), np.ones((4, 4, 3, 3), np.float32)
    seen = []
    with pyconv.flush_denormals():
        pyconv.conv2d(x, weight, num_threads=2)
        seen.append((tiny * np.float32(0.5)).all())
        other = threading.Thread(target=lambda: seen.append(bool(pyconv.conv2d(x * tiny[0] / 4, weight).all())))
        other.start()
        other.join()
    seen.append((tiny * np.float32(0.5)).all())
    assert seen == [True, True, True]


def test_a_block_is_undone_by_an_error() -> None:
    x, weight = np.full((1, 1, 1, 1), 1e-310), np.ones((1, 1, 1, 1))
    with pytest.raises(ZeroDivisionError), pyconv.flush_denormals():
        raise ZeroDivisionError
    assert pyconv.conv2d(x, weight).item() == 1e-310

"""Sizes, strides and offsets beyond 2**31: results at sampled places, from memory that is mostly never touched.

Zeros that nobody has written take no memory, so that an array of gigabytes may stand in a small machine; what is
written is planted at its far ends. A test that needs more than the machine has free is skipped.
"""

from __future__ import annotations

import os
from itertools import product

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

import pyconv

GIB = 2**30
BEYOND = 2**31  # the first number that 32 bits with a sign do not hold
RNG = np.random.default_rng(0)


def free_memory() -> int:
    """Return the bytes that are available; 0 where that cannot be told."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 0


def needs(gib: float) -> pytest.MarkDecorator:
    return pytest.mark.skipif(free_memory() < gib * GIB, reason=f"needs {gib} GiB of free memory")


def integers(*shape: int) -> np.ndarray:
    return RNG.integers(-4, 5, shape).astype(np.float32)


def expected_at(x: np.ndarray, weight: np.ndarray, place: tuple[int, ...], stride: int = 1, dilation: int = 1) -> int:
    """Sum one output element, (image, channel, row, column), without padding, in integers."""
    n, oc, *position = place
    total = 0
    for taps in product(*map(range, weight.shape[2:])):
        at = tuple(p * stride + k * dilation for p, k in zip(position, taps, strict=True))
        pixels = x[(n, slice(None), *at)].astype(np.int64)
        total += int(pixels @ weight[(oc, slice(None), *taps)].astype(np.int64))
    return total


def corners_of(shape: tuple[int, ...]) -> set[tuple[int, ...]]:
    return set(product(*({0, extent // 2, extent - 1} for extent in shape)))


@needs(1)
@pytest.mark.parametrize("threads", [1, 2])
def test_more_pixels_than_32_bits_count(threads: int) -> None:
    side = 46_342
    x = np.zeros((1, 1, side, side), np.uint8)
    assert x.size > BEYOND
    weight = RNG.integers(1, 5, (3, 1, 3, 3)).astype(np.float32)
    last = 97 * 477  # the first row, and column, that the last output reads
    for row, column in product((0, last), repeat=2):
        x[..., row : row + 3, column : column + 3] = RNG.integers(1, 200, (3, 3))
    result = pyconv.conv2d(x, weight, stride=97, num_threads=threads)
    assert result.shape[2:] == (478, 478)
    assert np.count_nonzero(result) == 3 * 4
    for place in corners_of(result.shape):
        assert result[place] == expected_at(x, weight, place, stride=97), place


@needs(8)
@pytest.mark.parametrize("far", ["images", "channels", "rows"])
@pytest.mark.parametrize("role", ["dense", "depthwise"])
def test_strides_that_32_bits_do_not_hold(role: str, far: str) -> None:
    """Neighbours along one axis, of the input and of the result, are more than 2**31 bytes apart."""
    groups = 3 if role == "depthwise" else 1
    values, weight = integers(2, 3, 3, 9), integers(3, 3 // groups, 2, 3)
    expected = pyconv.conv2d(values, weight, padding=1, groups=groups)

    def sparse(shape: tuple[int, ...]) -> np.ndarray:
        strides = {"images": 1024, "channels": 256, "rows": 64, "columns": 4}
        strides[far] = BEYOND + 64
        last = sum((extent - 1) * stride for extent, stride in zip(shape, strides.values(), strict=True))
        return as_strided(np.zeros(last // 4 + 1, np.float32), shape, tuple(strides.values()))

    x, out = sparse(values.shape), sparse(expected.shape)
    x[...] = values
    pyconv.conv2d(x, weight, padding=1, groups=groups, out=out)
    assert np.array_equal(out, expected)
    backwards = x[:, ::-1, ::-1, ::-1]
    settings = {"groups": groups, "num_threads": 1}
    assert np.array_equal(
        pyconv.conv2d(backwards, weight, **settings), pyconv.conv2d(backwards.copy(), weight, **settings)
    )


@needs(4)
def test_more_results_than_32_bits_count() -> None:
    side = 46_342
    x = np.zeros((1, 1, side, side), np.uint8)
    x[..., 0, :9] = x[..., -1, -9:] = RNG.integers(0, 200, 9)
    weight = RNG.integers(0, 200, (1, 1, 1, 2)).astype(np.uint8)
    result = pyconv.conv2d(x, weight, padding="same")
    assert result.size > BEYOND
    for row, columns in ((0, slice(0, 9)), (-1, slice(-9, None))):
        pair = x[0, 0, row].astype(int) * int(weight[0, 0, 0, 0])
        pair[:-1] += x[0, 0, row, 1:].astype(int) * int(weight[0, 0, 0, 1])
        assert np.array_equal(result[0, 0, row, columns], (pair % 256)[columns])
    assert np.count_nonzero(result) < 40


@needs(2)
@pytest.mark.parametrize("side", [1166, 1167])
def test_windows_that_fill_2_gib_as_a_matrix(side: int) -> None:
    """64 channels under a 5x5 kernel, dilated: torch 0.4 wrote past its matrix from 1167 pixels on (issue 9404)."""
    x, weight = integers(1, 64, side, side), integers(2, 64, 5, 5)
    result = pyconv.conv2d(x, weight, dilation=2)
    for place in corners_of(result.shape):
        assert result[place] == expected_at(x, weight, place, dilation=2), place


@needs(1)
def test_a_tall_kernel_over_long_rows() -> None:
    """The shape of oneDNN's issue 122."""
    x, weight = integers(10, 32, 81, 980), integers(2, 32, 21, 11)
    result = pyconv.conv2d(x, weight, stride=(2, 1), padding=(10, 5))
    padded = np.pad(x, ((0, 0), (0, 0), (10, 10), (5, 5)))
    for n, oc, row, column in corners_of(result.shape):
        window = padded[n, :, 2 * row : 2 * row + 21, column : column + 11].astype(np.int64)
        assert result[n, oc, row, column] == int((window * weight[oc].astype(np.int64)).sum())

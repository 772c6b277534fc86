"""What is remembered of a call serves only calls on arrays like its own."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import pyconv
from _allocations import forget
from pyconv._dispatch import kernels

SHAPE = (2, 1, 4, 4)
PLAIN = np.arange(32, dtype=np.float32).reshape(SHAPE)


class Subclass(np.ndarray):
    """An array that is not of NumPy's own class."""


def misaligned() -> np.ndarray:
    memory = np.zeros(PLAIN.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(SHAPE)
    memory[...] = PLAIN
    return memory


OTHERS = {
    "batch": PLAIN[:1],
    "axes": PLAIN[0],
    "transposed": PLAIN.transpose(0, 1, 3, 2),
    "backwards": PLAIN[:, :, ::-1],
    "channels-last": PLAIN.reshape(2, 4, 4, 1).transpose(0, 3, 1, 2),  # contiguous, too: axes of length 1 tell it
    "big-endian": PLAIN.astype(">f4"),
    "integers": PLAIN.astype(np.int8),
    "misaligned": misaligned(),
    "subclass": PLAIN.view(Subclass),
    "list": PLAIN.tolist(),
}


def test_an_array_like_it_fits() -> None:
    layout = kernels().module.Layout(np.ndarray, PLAIN.dtype, PLAIN.shape, PLAIN.strides)
    assert layout.fits(PLAIN)
    assert layout.fits(np.zeros((2, 3, 4, 4), np.float32)[:, :1]) is False  # images further apart
    assert layout.fits(np.zeros(SHAPE, np.float32))


@pytest.mark.parametrize("name", OTHERS)
def test_no_other_fits(name: str) -> None:
    layout = kernels().module.Layout(np.ndarray, PLAIN.dtype, PLAIN.shape, PLAIN.strides)
    assert not layout.fits(OTHERS[name])


def test_a_layout_has_a_stride_for_each_of_few_axes() -> None:
    for shape, strides in (((1, *SHAPE), (128, *PLAIN.strides)), (SHAPE, PLAIN.strides[1:])):
        with pytest.raises(ValueError, match="at most 4 axes, each with a stride, got"):
            kernels().module.Layout(np.ndarray, PLAIN.dtype, shape, strides)


def test_numpys_own_dtype_is_the_one_that_fits() -> None:
    """Whatever object of that dtype the first array had: one from another process has its own."""
    for first in (pickle.loads(pickle.dumps(PLAIN)), PLAIN.astype(">f4")):
        forget()
        layer = pyconv.Conv2d(1, 3, 2, rng=0).eval()
        layer(first)
        assert layer._known is not None
        assert layer._known.operator.last.layout.fits(PLAIN)


@pytest.mark.parametrize("name", OTHERS)
def test_the_call_before_changes_nothing(name: str) -> None:
    """Neither the values nor the layout: an array after a plain one, and a plain one after it."""
    layer = pyconv.Conv2d(1, 3, 2, rng=0).eval()

    def call(x: object) -> np.ndarray:
        return layer(x) if name != "list" else pyconv.conv2d(np.asarray(x, np.float32), layer.weight, layer.bias)

    def fresh(x: object) -> np.ndarray:
        forget()
        layer._known = None  # and its operator
        return call(x)

    other = OTHERS[name]
    expected = fresh(PLAIN), fresh(other)
    fresh(PLAIN)
    for x, right in ((other, expected[1]), (PLAIN, expected[0]), (other, expected[1])):
        result = call(x)
        assert result.strides == right.strides
        np.testing.assert_array_equal(result, right)

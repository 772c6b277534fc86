"""What is remembered of a call serves only calls on arrays like its own."""

from __future__ import annotations

import pickle
import warnings
import weakref
from typing import Any

import numpy as np
import pytest

import pyconv
from _allocations import forget
from pyconv._call import slot_of
from pyconv._known import Layout

SHAPE = (2, 1, 4, 4)
PLAIN = np.arange(32, dtype=np.float32).reshape(SHAPE)
GIVEN = (1, 0, 1, 1, "zeros")  # settings, in the order of `_arguments.settings`


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
    layout = Layout(np.ndarray, PLAIN.dtype, PLAIN.shape, PLAIN.strides)
    assert layout.fits(PLAIN)
    assert layout.fits(np.zeros((2, 3, 4, 4), np.float32)[:, :1]) is False  # images further apart
    assert layout.fits(np.zeros(SHAPE, np.float32))


@pytest.mark.parametrize("name", OTHERS)
def test_no_other_fits(name: str) -> None:
    layout = Layout(np.ndarray, PLAIN.dtype, PLAIN.shape, PLAIN.strides)
    assert not layout.fits(OTHERS[name])


def test_a_layout_has_a_stride_for_each_of_few_axes() -> None:
    for shape, strides in (((1, *SHAPE), (128, *PLAIN.strides)), (SHAPE, PLAIN.strides[1:])):
        with pytest.raises(ValueError, match="at most 4 axes, each with a stride, got"):
            Layout(np.ndarray, PLAIN.dtype, shape, strides)


def test_numpys_own_dtype_is_the_one_that_fits() -> None:
    """Whatever object of that dtype the first array had: one from another process has its own."""
    for first in (pickle.loads(pickle.dumps(PLAIN)), PLAIN.astype(">f4")):
        forget()
        layer = pyconv.Conv2d(1, 3, 2, rng=0).eval()
        layer(first)
        given = layer.stride, layer.padding, layer.dilation, layer.groups, layer.padding_mode
        assert layer._state.slot.recall(PLAIN, layer.weight, layer.bias, given) is not None


@pytest.mark.parametrize("mode", ["eval", "train", "function"])
@pytest.mark.parametrize("name", OTHERS)
def test_the_call_before_changes_nothing(name: str, mode: str) -> None:
    """Neither the values nor the layout: an array after a plain one, and a plain one after it."""
    layer = pyconv.Conv2d(1, 3, 2, rng=0).train(mode == "train")

    def call(x: object) -> np.ndarray:
        x = x if name != "list" else np.asarray(x, np.float32)
        return pyconv.conv2d(x, layer.weight, layer.bias) if mode == "function" else layer(x)

    def fresh(x: object) -> np.ndarray:
        forget()
        layer.load_state_dict(layer.state_dict())  # so that the layer forgets, too
        return call(x)

    other = OTHERS[name]
    expected = fresh(PLAIN), fresh(other)
    fresh(PLAIN)
    for x, right in ((other, expected[1]), (PLAIN, expected[0]), (other, expected[1])):
        result = call(x)
        assert result.strides == right.strides
        np.testing.assert_array_equal(result, right)


# --- weights and settings -------------------------------------------------------------------------

WEIGHT = np.arange(12, dtype=np.float32).reshape(3, 1, 2, 2)
BIAS = np.ones(3, np.float32)


def remembered(weight: object = WEIGHT, bias: object = BIAS, settings: tuple[object, ...] = GIVEN) -> bool:
    """Whether a call like the one before finds what that one has left."""
    return slot_of(2, WEIGHT).recall(PLAIN, weight, bias, settings) is not None  # type: ignore[arg-type]


@pytest.fixture
def plain_call() -> None:
    forget()
    assert not remembered()
    pyconv.conv2d(PLAIN, WEIGHT, BIAS, *GIVEN[:4], padding_mode="zeros")
    assert remembered()


@pytest.mark.usefixtures("plain_call")
def test_weights_like_those_of_the_last_call_are_recognised() -> None:
    assert remembered(WEIGHT.copy(), BIAS + 1)
    assert remembered(np.zeros((3, 1, 2, 2), np.float32))


@pytest.mark.usefixtures("plain_call")
@pytest.mark.parametrize("other", [WEIGHT[:2], WEIGHT[0], WEIGHT.transpose(0, 1, 3, 2), WEIGHT.astype(">f4"), None])
def test_other_weights_are_not(other: object) -> None:
    assert not remembered(other)


@pytest.mark.usefixtures("plain_call")
@pytest.mark.parametrize("other", [None, BIAS[:2], BIAS[::-1], BIAS.astype(np.float64), [1.0, 1.0, 1.0]])
def test_another_bias_is_not(other: object) -> None:
    assert not remembered(bias=other)


@pytest.mark.usefixtures("plain_call")
def test_a_bias_where_there_was_none_is_not() -> None:
    pyconv.conv2d(PLAIN, WEIGHT, None, *GIVEN[:4], padding_mode="zeros")
    assert remembered(bias=None)
    assert not remembered()


@pytest.mark.usefixtures("plain_call")
@pytest.mark.parametrize("position", range(5))
@pytest.mark.parametrize("other", [True, 1.0, np.int64(1), 2, (1, 1), [1, 1], None])
def test_other_settings_are_not(position: int, other: object) -> None:
    assert not remembered(settings=(*GIVEN[:position], other, *GIVEN[position + 1 :]))


FUNCTIONS = (pyconv.conv1d, pyconv.conv2d)
ONE_AXIS = np.arange(48, dtype=np.float32).reshape(2, 3, 8), np.ones((4, 3, 3), np.float32)
TWO_AXES = PLAIN, WEIGHT


@pytest.mark.parametrize(("first", "second", "arrays"), [(*FUNCTIONS, ONE_AXIS), (*FUNCTIONS[::-1], TWO_AXES)])
def test_the_other_function_on_the_same_arrays(first: Any, second: Any, arrays: tuple[np.ndarray, np.ndarray]) -> None:
    """It has another number of axes, so it refuses them, and touches nothing."""
    expected = first(*arrays)
    memory = np.full(2 * expected.size, -1, np.float32)
    for out in (None, memory[: expected.size].reshape(expected.shape)):
        with pytest.raises(pyconv.ConvError, match="Expected"):
            second(*arrays, out=out)
    np.testing.assert_array_equal(memory, -1)
    np.testing.assert_array_equal(first(*arrays), expected)


def test_a_setting_that_can_change_is_not_remembered() -> None:
    forget()
    stride = [1, 1]
    first = pyconv.conv2d(PLAIN, WEIGHT, BIAS, stride)
    stride[:] = 2, 2
    assert pyconv.conv2d(PLAIN, WEIGHT, BIAS, stride).shape != first.shape
    layer = pyconv.Conv2d(1, 3, 2, rng=0).eval()
    layer.dilation = dilation = [1, 1]
    first = layer(PLAIN)
    dilation[:] = 2, 2
    assert layer(PLAIN).shape != first.shape


def test_weights_of_another_shape_at_the_same_address() -> None:
    """As when an array is given another shape: NumPy deprecates it, and cannot forbid it."""
    weight = WEIGHT.copy()
    assert pyconv.conv2d(PLAIN, weight).shape == (2, 3, 3, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy 2.5 deprecates it
        weight.shape = (12, 1, 1, 1)
    assert pyconv.conv2d(PLAIN, weight).shape == (2, 12, 4, 4)


def test_a_layer_keeps_its_number_of_axes() -> None:
    """Whatever shape its weights are given."""
    layer = pyconv.Conv2d(1, 3, 2, rng=0)
    layer.stride, layer.padding, layer.dilation = 1, 0, 1  # for any number of axes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy 2.5 deprecates it
        layer.weight.shape = (3, 2, 2)
    for mode in (True, False):
        with pytest.raises(pyconv.ConvError):
            layer.train(mode)(PLAIN[:, 0, :2])


def test_a_remembered_call_checks_what_is_not() -> None:
    for _ in range(2):
        pyconv.conv2d(PLAIN, WEIGHT, num_threads=1)
    with pytest.raises(pyconv.ConvError, match="num_threads"):
        pyconv.conv2d(PLAIN, WEIGHT, num_threads=0)
    with pytest.raises(pyconv.ConvError, match="out must have the shape"):
        pyconv.conv2d(PLAIN, WEIGHT, out=np.zeros((2, 3, 3, 2), np.float32))


def test_no_array_is_kept() -> None:
    arrays = PLAIN.copy(), WEIGHT.copy(), BIAS.copy()
    pyconv.conv2d(*arrays)
    kept = [weakref.ref(array) for array in arrays]
    del arrays
    assert [ref() for ref in kept] == [None] * 3

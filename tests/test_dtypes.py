"""The dtypes beside float32 and float64: integers wrap, 16-bit floats round once, complex parts are exact.

Each on the random problems and layouts of the other tests, and on every instruction set.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count, islice
from typing import Any

import numpy as np
import pytest

import pyconv
from _cases import random_case
from _problems import Call, Case, seeds
from _values import Family, complex_integers, short_floats, whole_range
from pyconv._dispatch import forced

pytestmark = pytest.mark.usefixtures("parallel_at_any_size")

INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
SHORT_FLOATS = ("float16", "bfloat16")


def cases(number: int, first: int = 0) -> Iterator[Case]:
    """Yield random problems with arrays of one dtype."""
    drawn = (replace(random_case(seed, budget=50_000), src_dtype="") for seed in count(first))
    return islice((case for case in drawn if case.x_shape[0]), number)


def calls(dtype: str, family: Family, number: int) -> Iterator[tuple[str, Call]]:
    """Yield an instruction set and a call: over the run every set has its turn."""
    isas = pyconv.available_isas()
    for i, case in enumerate(cases(len(seeds(number)), first=1000 * len(dtype))):
        for isa in {isas[-1], isas[i % len(isas)]}:
            yield isa, Call(replace(case, dtype=dtype), family)


def short_float(name: str) -> Any:
    """Return the dtype of this name; bfloat16 is that of a package."""
    return np.dtype(name) if name == "float16" else np.dtype(pytest.importorskip("ml_dtypes").bfloat16)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_wrap_around(dtype: str) -> None:
    for isa, call in calls(dtype, whole_range, 40):
        expected = call.reference(np.uint64).astype(dtype)
        assert np.array_equal(call.run(isa), expected), f"{isa}: {call.case!r}"


@pytest.mark.parametrize("name", SHORT_FLOATS)
def test_short_floats_are_rounded_once(name: str) -> None:
    """The result is that of float32, rounded: bit for bit, but for what a NaN carries."""
    dtype = short_float(name)
    for isa, call in calls(name, short_floats, 60):
        got = call.run(isa)
        x, weight, bias = (np.asarray(each).astype(np.float32) for each in (call.x, call.weight, call.bias))
        with np.errstate(over="ignore"):
            expected = call.compute(x, weight, bias, isa=isa).astype(dtype)
        both_nan = np.isnan(expected.astype(np.float32)) & np.isnan(got.astype(np.float32))
        same = got.copy().view(np.uint16) == expected.copy().view(np.uint16)
        assert (same | both_nan).all(), f"{isa}: {call.case!r}"


@pytest.mark.parametrize("step", [1, 2, 3])
@pytest.mark.parametrize("width", [256, 31, 9, 7])
@pytest.mark.parametrize("name", SHORT_FLOATS)
def test_every_short_float_goes_through_unchanged(name: str, width: int, step: int, isa: str) -> None:
    """All 65,536 of them, times one, every `step`-th element of a row; -0.0 becomes 0.0, which the sum starts from."""
    dtype = short_float(name)
    rows = -(-(2**16) // width)
    bits = np.resize(np.arange(2**16, dtype=np.uint16), (1, 1, rows, width))
    memory = np.full((1, 1, rows, width * step), 0x7E00, np.uint16)
    memory[..., ::step] = bits
    x, one = memory.view(dtype)[..., ::step], np.ones((1, 1, 1, 1), dtype)
    with forced(isa):
        got = pyconv.conv2d(x, one)
        with pyconv.flush_denormals():
            flushed = pyconv.conv2d(x, one)
    if name == "float16":  # its subnormal numbers are none of float32's
        assert flushed.tobytes() == got.tobytes()
    value = bits.view(dtype).astype(np.float32)
    same = (got.view(np.uint16) == bits) | (value == 0) & (got.astype(np.float32) == 0)
    assert (same | np.isnan(value) & np.isnan(got.astype(np.float32))).all()


@pytest.mark.parametrize("name", SHORT_FLOATS)
def test_sums_are_rounded_to_nearest_even(name: str, isa: str) -> None:
    """Two terms whose sum float32 holds: halves of the last place, above, below and between, of every magnitude."""
    dtype = short_float(name)
    rng = np.random.default_rng(0)
    with forced(isa), np.errstate(over="ignore"):
        terms = (rng.standard_normal((1, 2, 64, 64)) * 2.0 ** rng.integers(-26, 17, (1, 2, 64, 64))).astype(dtype)
        terms[0, 1, :32] = terms[0, 0, :32].astype(np.float32) * np.float32(2.0**-11)
        got = pyconv.conv2d(terms, np.ones((1, 2, 1, 1), dtype))
        expected = terms.astype(np.float32).sum(1, keepdims=True).astype(dtype)
    np.testing.assert_array_equal(got.view(np.uint16), expected.view(np.uint16))


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_numbers(dtype: str) -> None:
    for isa, call in calls(dtype, complex_integers, 40):
        expected = call.reference(np.complex128).astype(dtype)
        assert np.array_equal(call.run(isa), expected), f"{isa}: {call.case!r}"


@pytest.mark.parametrize("src_dtype", ["bool", "uint8", "int16"])
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_weights_and_an_image_without_imaginary_parts(dtype: str, src_dtype: str) -> None:
    for case in cases(20, first=3000):
        call = Call(replace(case, dtype=dtype, src_dtype=src_dtype), complex_integers)
        expected = call.reference(np.complex128).astype(dtype)
        assert np.array_equal(call.run(), expected), repr(call.case)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_a_frozen_complex_layer_takes_images_with_and_without_imaginary_parts(dtype: str, isa: str) -> None:
    """In turn: what it packed for the one kind is not read for the other, though their tiles are the same."""
    photo = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 8)).astype(np.uint8)
    with forced(isa):
        layer = pyconv.Conv2d(8, 64, 3, padding=1, dtype=dtype, rng=0)
        expected = layer(photo.astype(dtype))
        layer.eval()
        for image in (photo, photo.astype(dtype), photo):
            assert np.array_equal(layer(image), expected)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_weights_of_any_layout(dtype: str) -> None:
    for oc, ic, k in ((1, 2, 1), (2, 2, 1), (2, 47, 1), (3, 2, 2)):
        values = np.arange(1, 1 + oc * ic * k * k).reshape(oc, ic, k, k)
        weight = (values * (1 + 2j)).astype(dtype)
        x = np.full((1, ic, k, k), 1j, dtype)
        expected = (weight * 1j).sum((1, 2, 3)).reshape(1, oc, 1, 1)
        for laid_out in (weight, np.asfortranarray(weight), weight[:, :, ::-1].copy()[:, :, ::-1]):
            assert np.array_equal(pyconv.conv2d(x, laid_out), expected)


@pytest.mark.parametrize("dtype", [*SHORT_FLOATS, "complex64", "complex128"])
def test_layers(dtype: str) -> None:
    """In both modes, the initial parameters in their dtype, a state dict there and back."""
    element = short_float(dtype) if dtype in SHORT_FLOATS else np.dtype(dtype)
    layer = pyconv.Conv2d(3, 4, 3, dtype=element, rng=0)
    assert layer.weight.dtype == layer.bias.dtype == element
    x = np.arange(2 * 3 * 8 * 8).reshape(2, 3, 8, 8).astype(element)
    before = layer(x)
    assert before.dtype == element
    assert layer.eval()(x).tobytes() == layer(x).tobytes() == before.tobytes()
    other = pyconv.Conv2d(3, 4, 3, dtype=element, rng=1)
    other.load_state_dict(layer.state_dict())
    assert other(x).tobytes() == before.tobytes()
    assert layer.plan(x.shape).flops > 0

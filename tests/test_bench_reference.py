"""The check of results: its samples are right, and it notices what is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pyconv import _reference
from pyconv._problem import conv_problem
from pyconv.bench import operands, reference, subject, yardsticks
from pyconv.bench.descriptor import parse
from pyconv.bench.layer import Layer

LAYERS = [
    "mb2ic3ih9oc4oh5kh3sh2ph1",
    "g2mb1ic4ih8iw7oc6oh8ow5kh3kw3ph1pw0",
    "g4mb1ic4ih8oc4oh8kh5ph2",
    "mb1ic2ih5oc2oh8kh3ph3",
    "mb1ic2ih12oc2oh8kh3dh1ph0",
    "mb1ic5oc3_iw20ow18kw3pw0",
    "mb1ic2oc2_iw8ow1kw3dw2pw0",
]


def exact(layer: Layer, x: Any, w: Any, b: Any) -> Any:
    shapes, dtypes = (x.shape, w.shape, b.shape), (x.dtype, w.dtype, b.dtype)
    settings = ((layer.sh, layer.sw), layer.padding, (layer.dh, layer.dw), layer.g, "zeros")
    return _reference.conv(conv_problem(2, *shapes, *dtypes, *settings), x, w, b)


@pytest.mark.parametrize("text", LAYERS)
def test_samples_are_those_of_the_oracle(text: str) -> None:
    layer = parse(text)
    x, w, b = operands.operands(layer, "f64", "nchw")
    expected = exact(layer, x, w, b)
    for position in np.ndindex(*layer.output_shape):
        window, taps, bias = reference.window_of(layer, x, w, b, position)
        assert (window * taps).sum() + bias == pytest.approx(expected[position], rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("dtype", operands.DTYPES)
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("weights", ["packed", "unpacked"])
@pytest.mark.parametrize("text", LAYERS)
def test_pyconv_is_within_the_bound(text: str, weights: str, layout: str, dtype: str) -> None:
    if dtype == "bf16":
        pytest.importorskip("ml_dtypes")
    integer = operands.DTYPES[dtype].is_integer
    if integer and weights == "packed":
        pytest.skip("no layer keeps integers")
    layer = parse(text)
    x, w, b = operands.operands(layer, dtype, layout)
    assert x.dtype == w.dtype == b.dtype == operands.DTYPES[dtype].name
    result = subject.prepare(layer, x, w, b, weights)().reshape(layer.output_shape)
    error = reference.largest_error(layer, x, w, b, result)
    assert error == 0 if integer else 0 < error <= 1


@pytest.mark.parametrize("dtype", sorted(operands.DTYPES.keys() - {"bf16"}))
def test_what_is_wrong_is_noticed_in_every_dtype(dtype: str) -> None:
    """By 64 steps of float16, 10,000 of the others, 1 of an integer; of a complex number in either part."""
    layer = parse("mb1ic16ih8oc16oh8kh3ph1")
    x, w, b = operands.operands(layer, dtype, "nchw")
    right = subject.prepare(layer, x, w, b, "unpacked")()
    if right.dtype.kind in "iu":
        wrongs = [right + right.dtype.type(1)]
    else:
        off = right.real * right.real.dtype.type(64 if dtype == "f16" else 10_000) * np.finfo(right.dtype).eps
        wrongs = [right + off, *([right + 1j * off] if right.dtype.kind == "c" else [])]
    for wrong in wrongs:
        assert reference.largest_error(layer, x, w, b, wrong.astype(right.dtype)) > 1


@pytest.fixture(scope="module")
def computed() -> tuple[Layer, Any, Any, Any, Any]:
    layer = parse("mb1ic16ih32oc16oh32kh3ph1")
    x, w, b = operands.operands(layer, "f32", "nchw")
    return layer, x, w, b, exact(layer, x, w, b).astype(np.float32)


@pytest.mark.parametrize("where", ["corner", "edge", "everywhere", "nan"])
def test_what_is_wrong_is_noticed(computed: tuple[Layer, Any, Any, Any, Any], where: str) -> None:
    layer, x, w, b, right = computed
    wrong = right.copy()
    if where == "corner":
        wrong[..., -1, -1] += 0.01
    elif where == "edge":
        wrong[..., 0] += 0.01
    elif where == "everywhere":
        wrong *= 1.001
    else:
        wrong[:] = np.nan
    assert reference.largest_error(layer, x, w, b, right) <= 1
    assert reference.largest_error(layer, x, w, b, wrong) > 1


def test_approximate_results_have_a_wider_bound(computed: tuple[Layer, Any, Any, Any, Any]) -> None:
    layer, x, w, b, right = computed
    near = right * np.float32(1 + 1e-4)
    assert reference.largest_error(layer, x, w, b, near) > 1
    assert reference.largest_error(layer, x, w, b, near, approximate=True) <= 1
    assert reference.largest_error(layer, x, w, b, right + 1, approximate=True) > 1


def test_corners_and_edges_are_among_the_samples() -> None:
    layer = parse("mb4ic16ih32oc64oh30kh3")
    samples = reference.positions(layer)
    assert len(samples) == 200
    assert {(i, j) for _, _, i, j in samples} >= {(i, j) for i in (0, 29) for j in (0, 29)}
    for edge in (0, 29):
        assert sum(i == edge for _, _, i, _ in samples) >= 16
        assert sum(j == edge for _, _, _, j in samples) >= 16
    assert {n for n, *_ in samples} == set(range(4))


def test_operands_are_the_same_in_every_layout() -> None:
    layer = parse("mb2ic3ih5oc4kh3")
    (x, w, _), (y, *_) = (operands.operands(layer, "f32", layout) for layout in ("nchw", "nhwc"))
    assert np.array_equal(x, y)
    assert y.transpose(0, 2, 3, 1).flags.c_contiguous
    assert np.std(w) == pytest.approx(layer.terms**-0.5, rel=0.2)


@pytest.mark.parametrize("dtype", sorted({dtype.accumulator for dtype in operands.DTYPES.values()}))
def test_the_peak_is_one_of_multiply_adds(dtype: str) -> None:
    """Of a loop that the compiler has emptied it would be thousands: no core does 1e12 multiply-adds a second."""
    assert 0 < yardsticks.peak_gflops(dtype, 1) < 1000

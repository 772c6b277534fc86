"""Padding is explicit zeros: an output is NaN because of what lies in its own window.

One NaN or infinity is put at every position of every operand in turn. The outputs that it reaches
must be those that the definition says, a padded zero under an infinite weight among them; all
others must keep their bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from unittest import mock

import numpy as np
import pytest

import pyconv
from _cases import random_case
from _compare import difference
from _problems import Call, Case, seeds
from _values import gaussian
from pyconv import _execute, _reference
from pyconv._dispatch import forced
from pyconv._plan import Plan, make_plan

pytestmark = pytest.mark.usefixtures("parallel_at_any_size")

PLAIN = {
    "x_layout": "C",
    "weight_layout": "C",
    "bias_layout": "C",
    "out_layout": "",
    "src_dtype": "",
}
SHAPES = 60
PARTS = 10


def small_cases(mode: str) -> Iterator[Case]:
    """Yield cases of the mode that are small enough to be called once for each position."""
    for seed in range(10**6):
        case = replace(random_case(seed, budget=3_000), **PLAIN)
        elements = np.prod(case.x_shape) + np.prod(case.weight_shape)
        if case.padding_mode == mode and np.prod(case.x_shape) > 0 and elements <= 300:
            yield case


def kinds(values: np.ndarray) -> np.ndarray:
    """Map finite values to 0, NaN to 1, the infinities to 2 and 3."""
    return np.select([np.isnan(values), np.isposinf(values), np.isneginf(values)], [1, 2, 3])


def reached_as_defined(call: Call, clean: dict[str, np.ndarray]) -> str:
    """Tell how the set of non-finite results differs from the reference's; "" if it does not."""
    expected = kinds(call.reference())
    for isa, undisturbed in clean.items():
        got = call.run(isa)
        if not np.array_equal(kinds(got), expected):
            return f"{isa}: another set of results is not finite"
        untouched = expected == 0
        told = difference(got[untouched], undisturbed[untouched])
        if told:
            return f"{isa}: results out of reach have changed: {told}"
    return ""


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_every_position(mode: str, part: int) -> None:
    count = len(seeds(SHAPES if mode == "zeros" else SHAPES // 6))
    for case in islice(small_cases(mode), part, count, PARTS):
        call = Call(case, gaussian)
        clean = {isa: call.run(isa) for isa in pyconv.available_isas()}
        operands = {"x": call.x, "weight": call.weight, "bias": call.bias}
        for name, values in operands.items():
            for position in np.ndindex(values.shape):
                finite = values[position]
                for disturbance in (np.nan, np.inf):
                    values[position] = disturbance
                    told = reached_as_defined(call, clean)
                    assert not told, f"{disturbance} in {name}{position}: {told}: {case!r}"
                values[position] = finite


@pytest.mark.parametrize("channels", [1, 4, 16])
def test_infinite_weight_over_the_border(isa: str, channels: int) -> None:
    """The corner tap of a 3x3 kernel lies on the border of a 16x16 map for 31 of the outputs."""
    case = Case((1, channels, 16, 16), (3, channels, 3, 3), padding=1)
    call = Call(case, gaussian)
    call.x[...] = np.abs(call.x)
    call.weight[:, -1, 0, 0] = np.inf
    assert np.count_nonzero(np.isnan(call.run(isa))) == 3 * 31

    call = Call(replace(case, padding_mode="replicate"), gaussian)
    call.weight[:, -1, 0, 0] = np.inf
    assert not np.isnan(call.run(isa)).any()


def test_batch_does_not_spread_nan(isa: str) -> None:
    """One image of nothing but NaN leaves the others of its batch alone."""
    for size in (1, 3, 7, 16, 33):
        call = Call(Case((8, 3, size, size), (17, 3, 3, 3), padding=1), gaussian)
        clean = call.run(isa)
        call.x[5] = np.nan
        got = call.run(isa)
        assert np.isnan(got[5]).all()
        others = [n for n in range(8) if n != 5]
        assert not difference(got[others], clean[others])


@pytest.fixture(params=["all channels at once", "in slices"])
def slices(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Whether each channel's sums wait for those of the next."""
    sliced = request.param == "in slices"

    def plan(*given: object, **named: object) -> Plan:
        whole = make_plan(*given, **named)
        if not sliced or whole.tile.role != "oc" or whole.n_ic_blk > 1:
            return whole
        return replace(whole, blocks=replace(whole.blocks, ic_slice=1))

    # Other cache sizes, if equal ones: what was planned before is forgotten.
    caches = replace(_execute.CACHES)
    with mock.patch.object(_execute, "make_plan", plan), mock.patch.object(_execute, "CACHES", caches):
        yield sliced


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [(7, 7), (9, 40)])
@pytest.mark.usefixtures("slices")
def test_padded_zeros_have_a_sign(isa: str, dtype: str, size: tuple[int, int]) -> None:
    """An image and a bias of -0.0: a result is -0.0 where every product is, those of the padding among them.

    A kernel may leave the padding out, for what it adds to any other number is nothing; here it is not.
    """
    rng = np.random.default_rng(0)
    x = np.full((1, 2, *size), -0.0, dtype)
    for oc in (3, 40):
        weight = np.where(rng.random((oc, 2, 5, 3)) < 0.03, -1, 1).astype(dtype)
        weight[0] = -1
        settings = {"stride": (2, 1), "padding": ((3, 2), (1, 0))}
        with forced(isa):
            # +0.0: the image under a negative weight, the padding under a positive one.
            ones = np.ones_like(x)
            inside = pyconv.conv2d(ones, (weight < 0).astype(dtype), **settings)
            positive = (weight > 0).sum((1, 2, 3))[:, None, None]
            padding = positive - pyconv.conv2d(ones, (weight > 0).astype(dtype), **settings)
            for channels_last in (False, True):
                given = x.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2) if channels_last else x
                got = pyconv.conv2d(given, weight, np.full(oc, -0.0, dtype), **settings)
                assert not got.any()
                np.testing.assert_array_equal(np.signbit(got), inside + padding == 0)
                assert 0 < np.signbit(got).sum() < got.size


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [(1, 1), (1, 6), (2, 5), (3, 20)])
@pytest.mark.usefixtures("slices")
def test_a_zero_with_a_sign_leaves_its_neighbours_alone(isa: str, dtype: str, size: tuple[int, int]) -> None:
    """A tile that holds a -0.0 is summed again with the padding: from where its sums were, not from where they are."""
    rng = np.random.default_rng(1)
    x = rng.integers(1, 9, (1, 6, *size)).astype(dtype)
    weight, bias = rng.integers(-8, 9, (40, 6, 3, 3)).astype(dtype), rng.integers(-8, 9, 40).astype(dtype)
    weight[::7], bias[::7] = -0.0, -0.0
    with forced(isa):
        for channels_last in (False, True):
            given = x.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2) if channels_last else x
            got = pyconv.conv2d(given, weight, bias, padding=1)
            kept = pyconv.Conv2d(6, 40, 3, padding=1, dtype=dtype)
            kept.weight, kept.bias = weight, bias
            assert not difference(kept.eval()(given), got)
            problem = Case(x.shape, weight.shape, padding=1, dtype=dtype).problem
            np.testing.assert_array_equal(got, _reference.conv(problem, x, weight, bias))
            assert np.signbit(got[:, ::7]).all()

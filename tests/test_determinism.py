"""The same bits everywhere: whatever computes an output, it adds the same numbers in one order.

That order is the bias, then the input channels, the rows and the columns of the kernel, each
product fused with its addition. The instruction sets that cannot fuse (x86-64-v2) promise the same
bits among their own runs.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

import pyconv
from _cases import random_case
from _compare import difference
from _fma import chain, fma32
from _layouts import READABLE, WRITABLE, place
from _problems import Call, Case, seeds
from _values import Family, gaussian, special

pytestmark = pytest.mark.usefixtures("parallel_at_any_size")

FUSED = tuple(isa for isa in pyconv.available_isas() if isa != "x86-64-v2")


def family_of(case: Case) -> Family:
    """Strew NaN, infinities and -0.0 among the data of every second case."""
    return special if case.seed % 2 else gaussian


def calls(count: int, budget: int) -> list[Call]:
    """Return calls on contiguous arrays."""
    plain = {"x_layout": "C", "weight_layout": "C", "bias_layout": "C", "out_layout": ""}
    cases = [replace(random_case(seed, budget), **plain) for seed in seeds(count)]
    return [Call(case, family_of(case)) for case in cases]


def check(call: Call, got: np.ndarray, expected: np.ndarray, what: str) -> None:
    """Fail if a bit differs."""
    told = difference(got, expected)
    assert not told, f"{what}: {told}: {call.case!r}"


def test_threads(isa: str) -> None:
    for call in calls(60, budget=2_000_000):
        alone = call.run(isa, threads=1)
        for threads in (2, 3, 4, 7):
            check(call, call.run(isa, threads), alone, f"{threads} threads")


@pytest.mark.parametrize("l2", [512, 4096, 32_768, 2**40])
def test_blocks(isa: str, l2: int) -> None:
    """Blocks of rows, of columns and of the sum itself, as few or as many as may be."""
    for call in calls(60, budget=500_000):
        blocked = Call(replace(call.case, l2=l2), family_of(call.case))
        check(call, blocked.run(isa), call.run(isa), f"a cache of {l2} bytes")


def test_repetition(isa: str) -> None:
    for call in calls(30, budget=2_000_000):
        first = call.run(isa, threads=4)
        for _ in range(5):
            check(call, call.run(isa, threads=4), first, "once more")


def test_batch(isa: str) -> None:
    """An image gives the same alone, without a batch axis, and in any part of a batch."""
    for call in calls(60, budget=500_000):
        shape = (5, *call.case.x_shape[-call.case.axes - 1 :])
        call = Call(replace(call.case, x_shape=shape), special)
        together = call.run(isa)

        def compute(x: np.ndarray, call: Call = call) -> np.ndarray:
            return call.compute(x, call.weight, call.bias, isa=isa)

        for n in range(5):
            check(call, compute(call.x[n : n + 1]), together[n : n + 1], f"image {n} alone")
            check(call, compute(call.x[n]), together[n], f"image {n} without a batch axis")
        check(call, compute(call.x[:2]), together[:2], "the first two")
        check(call, compute(call.x[::-1])[::-1], together, "from last to first")


@pytest.mark.parametrize("layout", READABLE)
def test_input_layout(isa: str, layout: str) -> None:
    """An array in any layout gives the same as its contiguous copy."""
    for call in calls(20, budget=500_000):
        rng = np.random.default_rng(call.case.seed)
        strided = [place(values, layout, rng)[0] for values in (call.x, call.weight, call.bias)]
        copies = [np.array(v, v.dtype.newbyteorder("="), order="C") for v in strided]
        check(call, call.compute(*strided, isa=isa), call.compute(*copies, isa=isa), layout)


@pytest.mark.parametrize("layout", WRITABLE)
def test_output_layout(isa: str, layout: str) -> None:
    for call in calls(40, budget=500_000):
        expected = call.run(isa)
        laid_out = Call(replace(call.case, out_layout=layout), family_of(call.case))
        check(laid_out, laid_out.run(isa), expected, "out")


def test_alignment(isa: str) -> None:
    """Where in a cache line the arrays begin is of no account."""
    for call in calls(20, budget=500_000):
        expected = call.run(isa)
        inputs = (call.x, call.weight, call.bias)
        for elements in range(1, 17):
            moved = []
            for values in inputs:
                room = np.empty(values.size + elements, values.dtype)
                moved.append(room[elements:].reshape(values.shape))
                moved[-1][...] = values
            room = np.empty(expected.size + elements, expected.dtype)
            out = room[elements:].reshape(expected.shape)
            check(call, call.compute(*moved, out, isa), expected, f"{elements} elements further")


@pytest.mark.skipif(len(FUSED) < 2, reason="there is one instruction set with FMA here")
def test_instruction_sets() -> None:
    for call in calls(300, budget=500_000):
        results = [call.run(isa) for isa in FUSED]
        for isa, result in zip(FUSED[1:], results[1:], strict=True):
            check(call, result, results[0], f"{isa} against {FUSED[0]}")


def zero_padded(dtype: str, count: int, budget: int) -> list[Case]:
    """Return cases of the dtype and of the one padding mode that `chain` knows."""
    drawn = (random_case(seed, budget) for seed in range(10**6))
    fitting = (c for c in drawn if c.dtype == dtype and c.padding_mode == "zeros")
    return list(islice(fitting, len(seeds(count))))


@pytest.mark.parametrize(("dtype", "count", "budget"), [("float32", 300, 100_000), ("float64", 30, 3_000)])
def test_the_order_of_the_sum(dtype: str, count: int, budget: int) -> None:
    """The bits are those of the documented chain, computed step by step in NumPy."""
    for case in zero_padded(dtype, count, budget):
        call = Call(case, gaussian)
        expected = chain(*call.operands).reshape(case.out_shape)
        for isa in FUSED:
            check(call, call.run(isa), expected, isa)


def test_the_chain_rounds_once() -> None:
    """A tie but for 2**-70: rounding to float64 first would make it one, and go the other way."""
    a, b, c = np.float32([2.0**-12 * (1 + 2.0**-23), 2.0**-12 * (1 - 2.0**-23), 1 + 2.0**-23])
    assert np.float32(np.float64(a) * np.float64(b) + np.float64(c)) > c
    assert fma32(a, b, c) == c

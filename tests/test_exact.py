"""Small integers in, the one right answer out, to the bit.

With integers no sum rounds, so the order of the additions, the instruction set and the number of
threads have no say: a result that differs is wrong.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

import pyconv
from _cases import corners, random_case
from _compare import difference
from _problems import Call, Case, seeds
from _values import Triple
from pyconv._problem import ConvProblem

pytestmark = pytest.mark.usefixtures("parallel_at_any_size")

CHUNK = 100


def check(call: Call, isas: set[str]) -> tuple[list[str], np.ndarray]:
    """Return what is wrong with the results, and what they should be."""
    expected = call.reference(np.int64).astype(call.case.dtype)
    differences = {isa: difference(call.run(isa), expected) for isa in sorted(isas)}
    return [f"{isa}: {told}: {call.case!r}" for isa, told in differences.items() if told], expected


@pytest.mark.parametrize("chunk", seeds(40))
def test_random_problems(chunk: int) -> None:
    """Each on the best instruction set and on one at random; over the run that is all of them."""
    isas = pyconv.available_isas()
    wrong, results, nonzero = [], 0, 0
    for seed in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        call = Call(random_case(seed))
        told, expected = check(call, {isas[-1], isas[seed % len(isas)]})
        wrong += told
        results += expected.size
        nonzero += np.count_nonzero(expected)
    assert not wrong, "\n".join(wrong)
    assert nonzero >= 0.3 * results, "mostly zeros: that proves little"


CORNERS = corners()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("family", CORNERS)
def test_corners(family: str, dtype: str) -> None:
    """Shapes that have broken other libraries, on every instruction set."""
    wrong = []
    for i, corner in enumerate(CORNERS[family]):
        case = replace(corner, dtype=dtype, threads=1 + i % 4, seed=i)
        wrong += check(Call(case), set(pyconv.available_isas()))[0]
    assert not wrong, "\n".join(wrong)


def impulse_images(p: ConvProblem, rng: np.random.Generator) -> Triple:
    """Image i is 1 at its i-th pixel and 0 elsewhere; all weights differ."""
    x = np.eye(p.mb, dtype=p.src_dtype).reshape(p.mb, p.ic, p.ih, p.iw)
    shape = (p.oc, p.ic // p.g, p.kh, p.kw)
    weight = 1 + rng.permutation(np.prod(shape)).reshape(shape)
    return x, weight.astype(p.dtype), np.zeros(p.oc, p.dtype)


def impulse_weights(p: ConvProblem, rng: np.random.Generator) -> Triple:
    """Filter i of a group is 1 at its i-th tap and 0 elsewhere; all pixels differ."""
    shape = (p.mb, p.ic, p.ih, p.iw)
    x = 1 + rng.permutation(np.prod(shape)).reshape(shape)
    weight = np.tile(np.eye(p.oc // p.g, dtype=p.dtype), (p.g, 1))
    weight = weight.reshape(p.oc, p.ic // p.g, p.kh, p.kw)
    return x.astype(p.src_dtype), weight, np.zeros(p.oc, p.dtype)


def small_cases() -> list[Case]:
    """Return some that are small enough to be called once for each pixel."""
    drawn = (random_case(seed, budget=2_000) for seed in range(10**6))
    plain = {"x_layout": "C", "weight_layout": "C", "src_dtype": ""}
    small = (
        replace(case, **plain)
        for case in drawn
        if case.x_shape[0] and np.prod(case.x_shape) <= 200 and np.prod(case.weight_shape) <= 200
    )
    return list(islice(small, len(seeds(300))))


def test_one_pixel_at_a_time() -> None:
    """A pixel shows the taps that meet it, mirrored, and nothing else."""
    wrong = []
    for case in small_cases():
        image = case.x_shape[-case.axes - 1 :]
        case = replace(case, x_shape=(int(np.prod(image)), *image))
        wrong += check(Call(case, impulse_images), set(pyconv.available_isas()))[0]
    assert not wrong, "\n".join(wrong)


def test_one_tap_at_a_time() -> None:
    """A tap shows the pixels that it meets, in place, and nothing else."""
    wrong = []
    for case in small_cases():
        taps = case.weight_shape[1:]
        case = replace(case, weight_shape=(case.groups * int(np.prod(taps)), *taps))
        wrong += check(Call(case, impulse_weights), set(pyconv.available_isas()))[0]
    assert not wrong, "\n".join(wrong)

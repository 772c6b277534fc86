"""What the operands of a test hold: a family of values for each kind of question.

Every family is a function (problem, rng) -> (x, weight, bias), C-contiguous arrays of the problem's
dtypes, the bias always among them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pyconv._problem import ConvProblem

Triple = tuple[np.ndarray, np.ndarray, np.ndarray]
Family = Callable[[ConvProblem, np.random.Generator], Triple]


def integers(p: ConvProblem, rng: np.random.Generator) -> Triple:
    """Integers so small that no sum of them rounds: one right answer, to the bit, in any order.

    They are as large as that allows (but for float images, where four digits tell positions
    apart), up to the ends of the image's dtype. No weight is 0: each tap counts.
    """
    limit = 2 ** (np.finfo(p.dtype).nmant + 1)
    terms = p.ic // p.g * p.kh * p.kw
    largest_weight = int(rng.integers(1, 8))
    largest_bias = 1000
    largest = (limit - largest_bias) // (terms * largest_weight)
    assert largest >= 1, "the sum is too long to be exact"

    if p.src_dtype == "bool":
        x = rng.integers(0, 2, _x_shape(p)).astype(bool)
    elif np.dtype(p.src_dtype).kind in "iu":
        ends = np.iinfo(p.src_dtype)
        low, high = max(int(ends.min), -largest), min(int(ends.max), largest)
        x = rng.integers(low, high, _x_shape(p), p.src_dtype, endpoint=True)
    else:
        high = min(largest, 9999)
        x = rng.integers(-high, high, _x_shape(p), endpoint=True).astype(p.src_dtype)

    weight = rng.integers(1, largest_weight, _weight_shape(p), endpoint=True)
    weight *= rng.choice([-1, 1], weight.shape)
    bias = rng.integers(-largest_bias, largest_bias, p.oc, endpoint=True)
    return x, weight.astype(p.dtype), bias.astype(p.dtype)


def gaussian(p: ConvProblem, rng: np.random.Generator) -> Triple:
    """N(0, 1); an integer image is the one that `integers` draws."""
    weight = rng.standard_normal(_weight_shape(p)).astype(p.dtype)
    bias = rng.standard_normal(p.oc).astype(p.dtype)
    if np.dtype(p.src_dtype).kind != "f":
        return integers(p, rng)[0], weight, bias
    return rng.standard_normal(_x_shape(p)).astype(p.src_dtype), weight, bias


def whole_range(p: ConvProblem, rng: np.random.Generator) -> Triple:
    """Integers from one end of their dtype to the other, whose sums wrap around."""
    ends = np.iinfo(p.dst_dtype)
    x, weight, bias = (
        rng.integers(ends.min, ends.max, shape, p.dst_dtype, endpoint=True)
        for shape in (_x_shape(p), _weight_shape(p), (p.oc,))
    )
    return x, weight, bias


def short_floats(p: ConvProblem, rng: np.random.Generator) -> Triple:
    """N(0, 1) in the dtype of the output, with some subnormal numbers, infinities and NaN."""
    triple = tuple(rng.standard_normal(shape).astype(p.dst_dtype) for shape in (_x_shape(p), _weight_shape(p), (p.oc,)))
    few = rng.random(triple[0].shape) < 0.02
    triple[0][few] = rng.choice(np.array([np.nan, np.inf, -0.0, 1e-6, -3e-7], np.float32), few.sum())
    return triple


def complex_integers(p: ConvProblem, rng: np.random.Generator) -> Triple:
    """Parts so small that no sum rounds; an image of another dtype has no imaginary ones."""
    x, weight, bias = (
        (rng.integers(-9, 10, shape) + 1j * rng.integers(-9, 10, shape)).astype(p.dst_dtype)
        for shape in (_x_shape(p), _weight_shape(p), (p.oc,))
    )
    if p.src_dtype != p.dst_dtype:
        x = np.abs(x.real).astype(p.src_dtype)
    return x, weight, bias


def cancelling(p: ConvProblem, rng: np.random.Generator) -> Triple:
    """Terms in pairs that all but cancel: the sum is many digits smaller than what it adds up."""
    x, weight, bias = gaussian(p, rng)
    flat = weight.reshape(p.oc, -1)
    pairs = flat.shape[1] // 2
    nudged = flat[:, :pairs] * (1 + np.finfo(p.dtype).eps * rng.integers(-2, 3, (p.oc, pairs)))
    flat[:, pairs : 2 * pairs] = -nudged
    return np.abs(x[:1, :1, :1, :1]) * np.ones_like(x), weight, bias * 0


def scaled(p: ConvProblem, rng: np.random.Generator) -> Triple:
    """Magnitudes from 2**-60 to 2**60 side by side."""
    x, weight, bias = gaussian(p, rng)
    if np.dtype(p.src_dtype).kind == "f":
        x = np.ldexp(x, rng.integers(-30, 31, x.shape))
    return (
        x,
        np.ldexp(weight, rng.integers(-30, 31, weight.shape)),
        np.ldexp(bias, rng.integers(-60, 61, bias.shape)),
    )


def ascending(p: ConvProblem, rng: np.random.Generator) -> Triple:
    """Positive terms, the largest last: the order in which a sum loses least."""
    return _sorted(p, rng, 1)


def descending(p: ConvProblem, rng: np.random.Generator) -> Triple:
    """Positive terms, the smallest last: the order in which a sum loses most."""
    return _sorted(p, rng, -1)


def _sorted(p: ConvProblem, rng: np.random.Generator, step: int) -> Triple:
    x, weight, bias = (np.abs(values) for values in gaussian(p, rng))
    if np.dtype(p.src_dtype).kind == "f":
        x = np.sort(x, axis=None)[::step].reshape(x.shape)
    return x, np.sort(weight, axis=None)[::step].reshape(weight.shape), bias


def subnormal(p: ConvProblem, rng: np.random.Generator) -> Triple:
    """Images (or, for an integer image, weights) below the smallest normal number."""
    x, weight, bias = gaussian(p, rng)
    tiny = np.finfo(p.dtype).smallest_normal / 8
    if np.dtype(p.src_dtype).kind == "f":
        return x * tiny, weight, bias * tiny
    return x, weight * tiny, bias * tiny


ADVERSARIAL: dict[str, Family] = {
    family.__name__: family for family in (cancelling, scaled, ascending, descending, subnormal)
}


def special(p: ConvProblem, rng: np.random.Generator) -> Triple:
    """`gaussian`, with some NaN, infinities and negative zeros strewn in."""
    triple = gaussian(p, rng)
    for values in triple:
        if values.dtype.kind == "f":
            few = rng.random(values.shape) < 0.02
            values[few] = rng.choice([np.nan, np.inf, -np.inf, -0.0, -0.0, 0.0], few.sum())
    return triple


def _x_shape(p: ConvProblem) -> tuple[int, int, int, int]:
    return p.mb, p.ic, p.ih, p.iw


def _weight_shape(p: ConvProblem) -> tuple[int, int, int, int]:
    return p.oc, p.ic // p.g, p.kh, p.kw

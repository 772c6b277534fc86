"""The convolution in plain NumPy: what every kernel of this package has to compute.

    out[n, k, i, j] = bias[k]
                    + sum over c, r, s of weight[k, c, r, s] * padded[n, first(k) + c, row, col]

    row = i * sh + r * dh                   r < kh: the taps lie dh rows apart,
    col = j * sw + s * dw                   s < kw: the outputs sh rows (sw columns) apart
    first(k) = k // (oc / g) * (ic / g)     output channel k sees the ic / g channels of its group

It is a cross-correlation: like torch's, it does not flip the weights. ``padded`` is the image with
``pt``, ``pb``, ``pl`` and ``pr`` rows and columns added at the top, bottom, left and right, in one
of four ways (image a b c d, two columns on either side):

    zeros       0 0 | a b c d | 0 0
    reflect     c b | a b c d | c b      the outermost pixel is the mirror, and is not repeated
    replicate   a a | a b c d | d d
    circular    c d | a b c d | a b

A padded zero is a number like any other: under an infinite weight it gives 0 * inf = NaN.

The module is the oracle of the tests and the yardstick of the examples. So it shares no code with
what it judges, not even BLAS (which may skip a multiplication by zero): one term of the sum over
(r, s) is one line of NumPy, and the accumulator is wider than float32. A kernel promises more than
the sum: the order of the additions, hence the bits. The reference adds in another order, and
`error_bound` says how far apart that lets the two come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from pyconv._problem import ConvProblem

_NUMPY_PAD_MODE: dict[str, Any] = {
    "zeros": "constant",
    "reflect": "reflect",
    "replicate": "edge",
    "circular": "wrap",
}


def conv(
    problem: ConvProblem,
    x: NDArray[Any],
    weight: NDArray[Any],
    bias: NDArray[Any] | None = None,
    dtype: DTypeLike = np.float64,
) -> NDArray[Any]:
    """Convolve as the head of this module says, one tap of the kernel at a time.

    Parameters
    ----------
    problem : ConvProblem
        The geometry. A 1-D problem has a unit height everywhere.
    x : ndarray, (mb, ic, ih, iw)
    weight : ndarray, (oc, ic / g, kh, kw)
    bias : ndarray, (oc,), optional
    dtype : dtype
        What the operands are converted to, and what the sum is kept in. In float64 the result is
        exact as long as every product and partial sum is an integer below 2**53; int64 is exact
        without a caveat (and wraps as NumPy does).

    Returns
    -------
    ndarray of `dtype`, (mb, oc, oh, ow)

    Examples
    --------
    Three ones, slid over a row of four pixels with a zero at either end:

    >>> from pyconv._problem import ConvProblem
    >>> problem = ConvProblem(
    ...     mb=1, g=1, ic=1, ih=1, iw=4, oc=1, oh=1, ow=4, kh=1, kw=3, sh=1, sw=1, dh=1, dw=1,
    ...     pt=0, pb=0, pl=1, pr=1, padding_mode="zeros", dtype="float32", src_dtype="float32", dst_dtype="float32",
    ... )
    >>> conv(problem, np.array([[[[1, 2, 3, 4]]]]), np.ones((1, 1, 1, 3)))
    array([[[[3., 6., 9., 7.]]]])
    """
    p = problem
    borders = ((0, 0), (0, 0), (p.pt, p.pb), (p.pl, p.pr))
    padded = np.pad(x.astype(dtype), borders, mode=_NUMPY_PAD_MODE[p.padding_mode])
    images = padded.reshape(p.mb, p.g, p.ic // p.g, *padded.shape[2:])
    taps = weight.astype(dtype).reshape(p.g, p.oc // p.g, p.ic // p.g, p.kh, p.kw)

    total = np.zeros((p.mb, p.g, p.oc // p.g, p.oh, p.ow), dtype)
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and inf are results like any other
        for r, s in np.ndindex(p.kh, p.kw):
            rows = slice(r * p.dh, r * p.dh + (p.oh - 1) * p.sh + 1, p.sh)
            cols = slice(s * p.dw, s * p.dw + (p.ow - 1) * p.sw + 1, p.sw)
            total += np.einsum("ngcij,gkc->ngkij", images[..., rows, cols], taps[..., r, s])
        out = total.reshape(p.mb, p.oc, p.oh, p.ow)
        return out if bias is None else out + bias.astype(dtype)[:, np.newaxis, np.newaxis]


def error_bound(
    problem: ConvProblem,
    x: NDArray[Any],
    weight: NDArray[Any],
    bias: NDArray[Any] | None = None,
) -> NDArray[np.float64]:
    """How far rounding alone can take a result in ``problem.dtype`` from `conv` in float64.

    An output is a sum of K = ic / g * kh * kw products and a bias. Each product reaches it through
    at most K + 1 roundings, in whatever order the sum is taken and whether or not multiplication
    and addition are fused. With S = conv(|x|, |weight|) + |bias| the computed value is therefore
    within gamma(K + 1) * S of the true one, where gamma(n) = n u / (1 - n u) and u is the unit
    roundoff; a product that underflows adds at most the smallest subnormal number (Higham, Accuracy
    and Stability of Numerical Algorithms, 2nd ed., SIAM 2002, chapters 2 and 3).

    `conv` rounds as well, so the bound is the sum of two: one for ``problem.dtype``, one for
    float64. Against a float32 result the second is negligible, against a float64 result it doubles
    the first. S, itself rounded in float64, is widened by that much.

    Nothing here is tuned: a finite result outside the bound is a defect. The bound says nothing of
    a sum that overflows.

    Parameters
    ----------
    problem, x, weight, bias
        As for `conv`.

    Returns
    -------
    ndarray of float64, (mb, oc, oh, ow)
        The largest absolute deviation, for each output on its own.
    """
    roundings = problem.ic // problem.g * problem.kh * problem.kw + 1
    total = conv(problem, _magnitude(x), _magnitude(weight), None if bias is None else _magnitude(bias))
    computed, reference = np.finfo(problem.dtype), np.finfo(np.float64)
    gamma_reference = _gamma(roundings, reference)
    relative = (_gamma(roundings, computed) + gamma_reference) * (1 + gamma_reference)
    underflow = float(computed.smallest_subnormal) + float(reference.smallest_subnormal)
    return relative * total + roundings * underflow


def _magnitude(values: NDArray[Any]) -> NDArray[np.float64]:
    """|values|, taken in float64: the magnitude of an int8 -128 is no int8."""
    return np.abs(values.astype(np.float64))


def _gamma(roundings: int, precision: np.finfo[Any]) -> float:
    """gamma(n) = n u / (1 - n u), with u = eps / 2: the relative error of n roundings in a row."""
    nu = roundings * float(precision.eps) / 2
    return nu / (1 - nu)

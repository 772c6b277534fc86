"""The promised chain of fused multiply-adds in NumPy, to the bit.

    out = bias;  for c: for r: for s: out = fma(weight[c, r, s], padded[c, ...], out)

where fma rounds once, after the addition.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from pyconv._problem import ConvProblem


def chain(p: ConvProblem, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """Convolve finite 4-D data, zero-padded, in the promised order."""
    fma = fma32 if p.dtype == "float32" else fma64
    padded = np.pad(x, ((0, 0), (0, 0), (p.pt, p.pb), (p.pl, p.pr))).astype(p.dtype)
    images = padded.reshape(p.mb, p.g, 1, p.ic // p.g, *padded.shape[2:])
    taps = weight.reshape(p.g, p.oc // p.g, p.ic // p.g, p.kh, p.kw)
    out = np.zeros((p.mb, p.g, p.oc // p.g, p.oh, p.ow), p.dtype)
    if bias is not None:
        out += bias.reshape(p.g, p.oc // p.g, 1, 1)
    for c, r, s in np.ndindex(p.ic // p.g, p.kh, p.kw):
        rows = slice(r * p.dh, r * p.dh + (p.oh - 1) * p.sh + 1, p.sh)
        cols = slice(s * p.dw, s * p.dw + (p.ow - 1) * p.sw + 1, p.sw)
        out = fma(taps[:, :, c, r, s, None, None], images[:, :, :, c, rows, cols], out)
    return out.reshape(p.mb, p.oc, p.oh, p.ow)


def fma32(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Return fma(a, b, c) of float32, by way of float64, where the product is exact.

    The sum is rounded there to odd: if it is inexact, to the neighbour whose last bit is 1. Such a
    number is no tie of float32, so that rounding it a second time gives what rounding once would
    (Boldo and Melquiond, Emulation of a FMA and correctly rounded sums, IEEE Trans. Comput. 57).
    """
    product, addend = np.broadcast_arrays(a.astype(np.float64) * b, c.astype(np.float64))
    total = product + addend
    part = total - product  # Knuth's TwoSum: lost = product + addend - total, exactly
    lost = (product - (total - part)) + (addend - part)
    even = total.view(np.int64) & 1 == 0
    to_odd = np.nextafter(total, np.copysign(np.inf, lost))
    return np.where((lost != 0) & even, to_odd, total).astype(np.float32)


@np.vectorize(otypes=[np.float64])
def fma64(a: float, b: float, c: float) -> float:
    """Return fma(a, b, c) of float64, by way of fractions: exact, and slow."""
    return float(Fraction(a) * Fraction(b) + Fraction(c))

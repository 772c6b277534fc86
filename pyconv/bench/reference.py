"""Is a contender's result right? Some 200 outputs, computed in float64 straight from their windows.

The whole of a large layer would take longer than all its timings. Mistakes are rarely single: they sit at borders, in
tails of tiles, or everywhere. So the outputs are drawn at random, with every corner and every edge among them.

An output is a sum of K products and a bias, and the bound of its error is that of `pyconv._reference.error_bound`:
gamma(K + 1) * S with S = sum |x w| + |b|. Each part of a complex number is such a sum of 2 K products. To a 16-bit
float the sum is rounded at the end, by some contenders twice, before and after the bias. Integers wrap around: they
are right or wrong. A contender that computes another sum by design (Winograd's transforms, Fourier's) cannot keep the
bound; of such a one the error is compared with S / 1000.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyconv._dtypes import ACCUMULATOR
from pyconv._reference import _gamma
from pyconv.bench.layer import Layer

_CORNER, _EDGE, _INSIDE = 8, 16, 104  # each of 4 corners, each of 4 edges, and anywhere: 200
APPROXIMATE = 1e-3
# From one number to the next, relative and below the smallest normal one.
_STEPS = {"float16": (2.0**-10, 2.0**-24), "bfloat16": (2.0**-7, 2.0**-133)}


def largest_error(
    layer: Layer,
    x: NDArray[Any],
    w: NDArray[Any],
    b: NDArray[Any],
    result: NDArray[Any],
    *,
    approximate: bool = False,
) -> float:
    """Return the largest error over its bound among the sampled outputs: at most 1 if the result is right.

    Parameters
    ----------
    layer : Layer
    x, w, b, result : ndarray
        (mb, ic, ih, iw), (oc, ic // g, kh, kw), (oc,) and (mb, oc, oh, ow).
    approximate : bool
        Whether the bound is S / 1000 instead of that of rounding.
    """
    worst = 0.0
    for position in positions(layer):
        window, taps, bias = window_of(layer, x, w, b, position)
        if w.dtype.kind in "iu":
            right = ((window * taps).sum() + bias).astype(w.dtype) == result[position]
            worst = max(worst, 0.0 if right else np.inf)
            continue
        for got, products, start in _parts(result[position], window, taps, bias):
            error = abs(float(got) - float(products.sum() + start))
            magnitude = float(np.abs(products).sum() + abs(start))
            bound = _bound(products.size + 1, magnitude, w.dtype.name, approximate=approximate)
            worst = max(worst, error / bound if error == error else np.inf)
    return worst


def _parts(got: Any, window: NDArray[Any], taps: NDArray[Any], bias: Any) -> list[tuple[Any, NDArray[Any], Any]]:
    """Return each part of a result with the products that it is the sum of, and its bias."""
    if window.dtype.kind != "c":
        return [(got, window * taps, bias)]
    real = np.stack([window.real * taps.real, -window.imag * taps.imag])
    imag = np.stack([window.real * taps.imag, window.imag * taps.real])
    return [(got.real, real, bias.real), (got.imag, imag, bias.imag)]


def _bound(roundings: int, magnitude: float, dtype: str, *, approximate: bool) -> float:
    """Return how far from the exact result so many roundings can take a sum of terms of this magnitude."""
    computed, reference = np.finfo(ACCUMULATOR[dtype]), np.finfo(np.float64)
    relative = APPROXIMATE if approximate else _gamma(roundings, computed) + _gamma(roundings, reference)
    bound = relative * magnitude + roundings * float(computed.smallest_subnormal)
    step, smallest = _STEPS.get(dtype, (0.0, 0.0))
    return bound + step * (magnitude + bound) + smallest


def positions(layer: Layer) -> list[tuple[int, int, int, int]]:
    """Choose the outputs (image, channel, row, column) to look at: the same ones for every contender."""
    mb, oc, oh, ow = layer.output_shape
    if mb * oc * oh * ow <= 4 * _CORNER + 4 * _EDGE + _INSIDE:
        return list(np.ndindex(mb, oc, oh, ow))
    rng = np.random.default_rng(0)
    pixels = [(i, j) for i in (0, oh - 1) for j in (0, ow - 1)] * _CORNER
    for edge in (0, 1):
        pixels += [(edge * (oh - 1), int(j)) for j in rng.integers(ow, size=_EDGE)]
        pixels += [(int(i), edge * (ow - 1)) for i in rng.integers(oh, size=_EDGE)]
    pixels += [(int(i), int(j)) for i, j in rng.integers((oh, ow), size=(_INSIDE, 2))]
    images, channels = rng.integers(mb, size=len(pixels)), rng.integers(oc, size=len(pixels))
    return [(int(n), int(k), i, j) for n, k, (i, j) in zip(images, channels, pixels, strict=True)]


def window_of(
    layer: Layer, x: NDArray[Any], w: NDArray[Any], b: NDArray[Any], position: tuple[int, int, int, int]
) -> tuple[NDArray[Any], NDArray[Any], Any]:
    """Return the pixels that an output sees, their weights and its bias, in a dtype that is wide enough."""
    n, k, i, j = position
    icg, ocg = layer.ic // layer.g, layer.oc // layer.g
    first = k // ocg * icg
    rows = i * layer.sh - layer.pt + np.arange(layer.kh) * layer.dh
    cols = j * layer.sw - layer.pl + np.arange(layer.kw) * layer.dw
    r = np.flatnonzero((rows >= 0) & (rows < x.shape[2]))
    c = np.flatnonzero((cols >= 0) & (cols < x.shape[3]))
    wide: Any = {"c": np.complex128, "i": np.int64, "u": np.int64}.get(w.dtype.kind, np.float64)
    window: NDArray[Any] = x[n, first : first + icg][:, rows[r]][:, :, cols[c]].astype(wide)
    return window, w[k][:, r][:, :, c].astype(wide), b[k].astype(wide)

"""Is a contender's result right? Some 200 outputs, computed in float64 straight from their windows.

The whole of a large layer would take longer than all its timings. Mistakes are rarely single: they sit at borders, in
tails of tiles, or everywhere. So the outputs are drawn at random, with every corner and every edge among them.

An output is a sum of K products and a bias, and the bound of its error is that of `pyconv._reference.error_bound`:
gamma(K + 1) * S with S = sum |x w| + |b|. A contender that computes another sum by design (Winograd's transforms,
Fourier's) cannot keep it; of such a one the error is compared with S / 1000.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyconv._reference import _gamma
from pyconv.bench.layer import Layer

_CORNER, _EDGE, _INSIDE = 8, 16, 104  # each of 4 corners, each of 4 edges, and anywhere: 200
APPROXIMATE = 1e-3


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
    roundings = layer.terms + 1
    computed, reference = np.finfo(w.dtype), np.finfo(np.float64)
    relative = APPROXIMATE if approximate else _gamma(roundings, computed) + _gamma(roundings, reference)
    worst = 0.0
    for position in positions(layer):
        exact, magnitude = output_at(layer, x, w, b, position)
        error = abs(float(result[position]) - exact)
        bound = relative * magnitude + roundings * float(computed.smallest_subnormal)
        worst = max(worst, error / bound if error == error else np.inf)
    return worst


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


def output_at(
    layer: Layer, x: NDArray[Any], w: NDArray[Any], b: NDArray[Any], position: tuple[int, int, int, int]
) -> tuple[float, float]:
    """Return one output and S, the sum of the magnitudes of its terms."""
    n, k, i, j = position
    icg, ocg = layer.ic // layer.g, layer.oc // layer.g
    first = k // ocg * icg
    rows = i * layer.sh - layer.pt + np.arange(layer.kh) * layer.dh
    cols = j * layer.sw - layer.pl + np.arange(layer.kw) * layer.dw
    r = np.flatnonzero((rows >= 0) & (rows < x.shape[2]))
    c = np.flatnonzero((cols >= 0) & (cols < x.shape[3]))
    window = x[n, first : first + icg][:, rows[r]][:, :, cols[c]].astype(np.float64)
    products = window * w[k][:, r][:, :, c]
    return float(products.sum() + b[k]), float(np.abs(products).sum() + abs(b[k]))

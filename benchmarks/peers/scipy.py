"""SciPy's ndimage.correlate, for filters that keep the image's size, each channel by itself. It uses one thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pyconv.bench.errors import UnsupportedError
from pyconv.bench.layer import Layer

NAME = "scipy"
PACKAGES = {"scipy": "scipy"}
LAYOUTS = ("nchw",)
DTYPES = ("f32", "f64")
APPROXIMATE = ""

# It does some 0.5e9 operations a second: a layer of more would take minutes in all rounds.
_MOST_FLOPS = 2e9


def limit_threads(n: int) -> None:
    del n


def prepare(layer: Layer, x: Any, w: Any, b: Any, layout: str) -> Callable[[], object]:
    from scipy import ndimage

    if not layer.is_same:
        raise UnsupportedError("filters that keep the size, each channel by itself, only")
    if layer.flops > _MOST_FLOPS:
        raise UnsupportedError("would take seconds a call")
    kernels = w[:, 0]
    # Where the kernel's own centre is not the pixel that it computes.
    origin = (layer.pt - layer.kh // 2, layer.pl - layer.kw // 2)

    def call() -> Any:
        result = np.empty(layer.output_shape, x.dtype)
        for image, filtered in zip(x, result, strict=True):
            for plane, out, kernel in zip(image, filtered, kernels, strict=True):
                ndimage.correlate(plane, kernel, out, mode="constant", origin=origin)
        result += b[:, np.newaxis, np.newaxis]
        return result

    return call

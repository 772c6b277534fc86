"""OpenCV's filter2D, for what it is made for: filters that keep the image's size, each channel by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pyconv.bench.errors import UnsupportedError
from pyconv.bench.layer import Layer

NAME = "opencv"
PACKAGES = {"cv2": "opencv-python-headless"}
LAYOUTS = ("nchw",)
DTYPES = ("f32", "f64")
APPROXIMATE = ""


def limit_threads(n: int) -> None:
    import cv2

    cv2.setNumThreads(n)


def prepare(layer: Layer, x: Any, w: Any, b: Any, layout: str) -> Callable[[], object]:
    import cv2

    if not layer.is_same:
        raise UnsupportedError("filters that keep the size, each channel by itself, only")
    kernels = [np.ascontiguousarray(kernel[0]) for kernel in w]
    deltas = [float(bias) for bias in b]
    anchor = (layer.pl, layer.pt)
    border = cv2.BORDER_CONSTANT  # of zeros

    def call() -> Any:
        result = np.empty(layer.output_shape, x.dtype)
        for image, filtered in zip(x, result, strict=True):
            for plane, out, kernel, delta in zip(image, filtered, kernels, deltas, strict=True):
                cv2.filter2D(plane, -1, kernel, out, anchor, delta, border)
        return result

    return call

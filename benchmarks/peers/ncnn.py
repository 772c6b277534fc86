"""ncnn: a network of one layer, one image at a time.

It computes 3x3 layers with Winograd's transforms: fewer operations, other roundings. That is its way of being fast, so
it is left on, and its column is marked.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pyconv.bench.errors import UnsupportedError
from pyconv.bench.layer import Layer

NAME = "ncnn"
PACKAGES = {"ncnn": "ncnn"}
LAYOUTS = ("nchw",)
DTYPES = ("f32",)
APPROXIMATE = "Winograd transforms"

_threads = 1


def limit_threads(n: int) -> None:
    global _threads
    _threads = n


def prepare(layer: Layer, x: Any, w: Any, b: Any, layout: str) -> Callable[[], object]:
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = _threads
    net.opt.use_vulkan_compute = False
    for name in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_packed", "bf16_storage"):
        if hasattr(net.opt, f"use_{name}"):
            setattr(net.opt, f"use_{name}", False)
    with tempfile.TemporaryDirectory() as directory:
        parameters, weights = Path(directory, "net.param"), Path(directory, "net.bin")
        parameters.write_text(_parameters(layer))
        # Four zero bytes say that float32 weights follow.
        weights.write_bytes(bytes(4) + w.tobytes() + b.tobytes())
        if net.load_param(str(parameters)) or net.load_model(str(weights)):
            raise UnsupportedError("its loader refuses the layer")
    images = [ncnn.Mat(image).clone() for image in x]

    def convolve(image: Any) -> Any:
        extractor = net.create_extractor()
        extractor.input("x", image)
        return extractor.extract("y")[1]

    return lambda: [convolve(image) for image in images]


def as_array(result: Any) -> Any:
    return np.stack([np.array(image) for image in result])


def _parameters(layer: Layer) -> str:
    (top, bottom), (left, right) = layer.padding
    settings = {
        0: layer.oc, 1: layer.kw, 11: layer.kh, 2: layer.dw, 12: layer.dh, 3: layer.sw, 13: layer.sh,
        4: left, 15: right, 14: top, 16: bottom, 5: 1, 6: layer.oc * layer.terms,
    }  # fmt: skip
    kind = "Convolution"
    if layer.g > 1:
        kind, settings[7] = "ConvolutionDepthWise", layer.g
    text = " ".join(f"{key}={value}" for key, value in settings.items())
    return f"7767517\n2 2\nInput x 0 1 x\n{kind} y 1 1 x y {text}\n"

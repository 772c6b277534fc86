"""OpenVINO: a model of a convolution and a bias, compiled for the CPU, for latency, in float32 throughout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyconv.bench.layer import Layer

NAME = "openvino"
PACKAGES = {"openvino": "openvino"}
LAYOUTS = ("nchw",)
DTYPES = ("f32",)
APPROXIMATE = ""

_threads = 1


def limit_threads(n: int) -> None:
    global _threads
    _threads = n


def prepare(layer: Layer, x: Any, w: Any, b: Any, layout: str) -> Callable[[], object]:
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": _threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,
    }
    request = openvino.Core().compile_model(_model(layer, w, b), "CPU", settings).create_infer_request()
    request.set_input_tensor(openvino.Tensor(x, shared_memory=True))

    def call() -> object:
        request.infer(share_outputs=True)
        return request.get_output_tensor().data

    return call


def _model(layer: Layer, w: Any, b: Any) -> Any:
    import openvino
    from openvino import opset8

    (top, bottom), (left, right) = layer.padding
    image = opset8.parameter(layer.input_shape, openvino.Type.f32)
    settings = [layer.sh, layer.sw], [top, left], [bottom, right], [layer.dh, layer.dw]
    if layer.g == 1:
        result = opset8.convolution(image, opset8.constant(w), *settings)
    else:
        grouped = w.reshape(layer.g, layer.oc // layer.g, *w.shape[1:])
        result = opset8.group_convolution(image, opset8.constant(grouped), *settings)
    result = opset8.add(result, opset8.constant(b.reshape(1, -1, 1, 1)))
    return openvino.Model([result], [image], "convolution")

"""ONNX Runtime: a model of one Conv node. Input and result stay its own values: nothing is converted in a call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyconv.bench.layer import Layer

NAME = "onnxruntime"
PACKAGES = {"onnxruntime": "onnxruntime", "onnx": "onnx"}
LAYOUTS = ("nchw",)
DTYPES = ("f32",)
APPROXIMATE = ""

# Old enough for every runtime of the last years.
_OPSET, _IR_VERSION = 13, 8
_threads = 1


def limit_threads(n: int) -> None:
    global _threads
    _threads = n


def prepare(layer: Layer, x: Any, w: Any, b: Any, layout: str) -> Callable[[], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(_model(layer, w, b), options, providers=["CPUExecutionProvider"])
    feed = {"x": onnxruntime.OrtValue.ortvalue_from_numpy(x)}
    run = session.run_with_ort_values
    return lambda: run(None, feed)[0]


def as_array(result: Any) -> Any:
    return result.numpy()


def _model(layer: Layer, w: Any, b: Any) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    (top, bottom), (left, right) = layer.padding
    node = helper.make_node(
        "Conv",
        ["x", "w", "b"],
        ["y"],
        strides=[layer.sh, layer.sw],
        pads=[top, left, bottom, right],
        dilations=[layer.dh, layer.dw],
        group=layer.g,
    )
    graph = helper.make_graph(
        [node],
        "convolution",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, layer.input_shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, layer.output_shape)],
        [numpy_helper.from_array(w, "w"), numpy_helper.from_array(b, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    serialized: bytes = model.SerializeToString()
    return serialized

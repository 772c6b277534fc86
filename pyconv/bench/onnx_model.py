"""The convolutions of an ONNX model: its Conv nodes, with the shapes that shape inference finds.

Equal layers are one, with the number of them as its multiplicity. A batch of unknown size counts as one image; an image
of unknown size is an error, because nothing can be assumed. Volumes and nodes whose weights are not constant are left
out, and said to be.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pyconv.bench.errors import BenchError
from pyconv.bench.layer import Layer


def read(path: str | Path) -> tuple[list[Layer], list[str]]:
    """Return the distinct convolutions of a model, and what should be said of those left out."""
    path = Path(path)
    if not path.exists():
        raise BenchError(f"{path}: no such file")
    try:
        onnx: Any = importlib.import_module("onnx")
    except ImportError:
        raise BenchError(f"{path}: reading it needs onnx; try: pip install onnx") from None
    try:
        model = onnx.shape_inference.infer_shapes(onnx.load(str(path)))
    except OSError as error:
        raise BenchError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    except Exception as error:  # protobuf's and onnx's own
        raise BenchError(f"{path}: not an ONNX model ({type(error).__name__})") from None
    shapes = _shapes(model.graph)
    layers: list[Layer] = []
    left_out = 0
    for node in model.graph.node:
        if node.op_type == "Conv":
            layer = _layer(node, shapes, f"{path}: node {node.name or node.output[0]!r}")
            if layer is None:
                left_out += 1
            else:
                layers.append(replace(layer, network=path.stem))
    if not layers:
        raise BenchError(f"{path}: no convolution of images or signals in it")
    notes = [f"{path}: {left_out} volumes or convolutions with variable weights left out"] if left_out else []
    return merged(layers), notes


def merged(layers: Sequence[Layer]) -> list[Layer]:
    """Keep the first of equal layers, and count the others in its multiplicity."""
    found: dict[Layer, Layer] = {}
    for layer in layers:
        shape = replace(layer, name="", multiplicity=1)
        first = found.get(shape)
        found[shape] = layer if first is None else replace(first, multiplicity=first.multiplicity + layer.multiplicity)
    return list(found.values())


def _shapes(graph: Any) -> dict[str, list[int]]:
    """Return the shape of each tensor by name, 0 where it is not known."""
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    shapes[node.output[0]] = list(attribute.t.dims)
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        if kind.HasField("shape"):
            shapes.setdefault(value.name, [dim.dim_value for dim in kind.shape.dim])
    return shapes


def _layer(node: Any, shapes: dict[str, list[int]], where: str) -> Layer | None:
    """Read one node; None if it is a volume, or if the shape of its weights is not known."""
    x, w = shapes.get(node.input[0], []), shapes.get(node.input[1], [])
    if len(w) not in (3, 4) or not all(w):
        return None
    if len(x) != len(w) or not all(x[2:]):
        raise BenchError(f"{where}: the size of its input is not known; export the model with fixed shapes")
    attributes = {each.name: each for each in node.attribute}
    axes = len(w) - 2

    def ints(name: str, default: int, count: int = axes) -> list[int]:
        return list(attributes[name].ints) if name in attributes else [default] * count

    groups = attributes["group"].i if "group" in attributes else 1
    strides, dilations = ints("strides", 1), ints("dilations", 1)
    before = ints("pads", 0, 2 * axes)
    auto = attributes["auto_pad"].s.decode() if "auto_pad" in attributes else "NOTSET"
    outputs = []
    for axis, (i, k, s, d) in enumerate(zip(x[2:], w[2:], strides, dilations, strict=True)):
        span = d * (k - 1) + 1
        total = before[axis] + before[axis + axes]
        if auto.startswith("SAME"):
            total = max(0, (-(-i // s) - 1) * s + span - i)
            before[axis] = total - total // 2 if auto == "SAME_LOWER" else total // 2
        elif auto == "VALID":
            total = before[axis] = 0
        if i + total < span:
            raise BenchError(f"{where}: its kernel is larger than its input")
        outputs.append((i + total - span) // s + 1)

    def plane(values: Sequence[int], unit: int) -> tuple[int, int]:
        high, wide = [unit, *values][-2:]
        return high, wide

    (ih, iw), (oh, ow), (kh, kw) = plane(x[2:], 1), plane(outputs, 1), plane(w[2:], 1)
    (sh, sw), (dh, dw), (pt, pl) = plane(strides, 1), plane(dilations, 1), plane(before[:axes], 0)
    return Layer(
        mb=x[0] or 1, g=groups, ic=w[1] * groups, ih=ih, iw=iw, oc=w[0], oh=oh, ow=ow, kh=kh, kw=kw,
        sh=sh, sw=sw, dh=dh, dw=dw, pt=pt, pl=pl, name=node.name or node.output[0],
    )  # fmt: skip

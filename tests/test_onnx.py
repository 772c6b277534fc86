"""The Conv cases of ONNX's own backend tests: stored inputs to stored outputs.

They come with the onnx wheel, in two parts: models converted from torch, as files, and cases of the
operator, as code. Three-dimensional convolutions are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

import pyconv
from pyconv._dispatch import forced

onnx = pytest.importorskip("onnx")
from onnx import numpy_helper  # noqa: E402
from onnx.backend.test.case.node import conv  # noqa: E402
from onnx.backend.test.loader import load_model_tests  # noqa: E402


@dataclass
class OnnxCase:
    """A Conv node with what goes in and what should come out."""

    name: str
    attributes: dict[str, Any]
    operands: list[np.ndarray]  # image, weight and perhaps bias
    expected: np.ndarray


def stored() -> Iterator[OnnxCase]:
    """Yield the models whose whole graph is one Conv, with the tensors that lie beside them."""
    for kind in ("simple", "pytorch-converted", "pytorch-operator"):
        for test in load_model_tests(kind=kind):
            graph = onnx.load(Path(test.model_dir, "model.onnx")).graph
            if [node.op_type for node in graph.node] != ["Conv"]:
                continue
            parameters = {held.name: numpy_helper.to_array(held) for held in graph.initializer}
            free = [value.name for value in graph.input if value.name not in parameters]
            for folder in sorted(Path(test.model_dir).glob("test_data_set_*")):
                tensors = parameters | {name: tensor(folder / f"input_{i}.pb") for i, name in enumerate(free)}
                yield of_node(test.name, graph.node[0], tensors, tensor(folder / "output_0.pb"))


def generated() -> list[OnnxCase]:
    """Collect the cases that the operator's specification is written with.

    The code that holds them hands each to a function `expect`. onnx would run that code for all
    operators at once, which takes ten times as long as these tests.
    """
    found = []

    def expect(node: Any, inputs: list[np.ndarray], outputs: list[np.ndarray], name: str) -> None:
        found.append(of_node(name, node, dict(zip(node.input, inputs, strict=True)), outputs[0]))

    with mock.patch.object(conv, "expect", expect):
        for name in dir(conv.Conv):
            if name.startswith("export"):
                getattr(conv.Conv, name)()
    return found


def tensor(path: Path) -> np.ndarray:
    """Read a stored tensor."""
    return numpy_helper.to_array(onnx.load_tensor(path))


def of_node(name: str, node: Any, tensors: dict[str, np.ndarray], expected: np.ndarray) -> OnnxCase:
    """Put a case together from the node and the tensors that it names."""
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return OnnxCase(name, attributes, [tensors[key] for key in node.input], expected)


def flat(cases: Iterable[OnnxCase]) -> list[OnnxCase]:
    """Keep those of one and two dimensions."""
    return [case for case in cases if case.expected.ndim in (3, 4)]


def padding(case: OnnxCase) -> Any:
    """Translate: ONNX writes all beginnings, then all ends; its SAME depends on the image."""
    attributes, axes = case.attributes, case.expected.ndim - 2
    same = attributes.get("auto_pad", b"NOTSET").decode()
    if not same.startswith("SAME"):
        pads = attributes.get("pads", [0] * 2 * axes)
        return tuple(zip(pads[:axes], pads[axes:], strict=True))
    sides = []
    for i in range(axes):
        size, kernel = case.operands[0].shape[2 + i], case.operands[1].shape[2 + i]
        stride, dilation = (attributes.get(key, [1] * axes)[i] for key in ("strides", "dilations"))
        covered = (-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1
        total = max(0, covered - size)
        before = total // 2 if same == "SAME_UPPER" else total - total // 2
        sides.append((before, total - before))
    return tuple(sides)


def check(case: OnnxCase, isa: str) -> None:
    """Compare by the tolerance of ONNX's own runner."""
    axes = case.expected.ndim - 2
    function = pyconv.conv1d if axes == 1 else pyconv.conv2d
    with forced(isa):
        result = function(
            *case.operands,
            stride=tuple(case.attributes.get("strides", [1] * axes)),
            padding=padding(case),
            dilation=tuple(case.attributes.get("dilations", [1] * axes)),
            groups=case.attributes.get("group", 1),
        )
    np.testing.assert_allclose(result, case.expected, 1e-3, 1e-7, err_msg=case.name)


def test_converted_from_torch(isa: str) -> None:
    """20 models in onnx 1.23: 8 of Conv1d, 11 of Conv2d, and the operator by itself."""
    cases = flat(stored())
    assert len(cases) >= 20
    for case in cases:
        check(case, isa)


def test_operator(isa: str) -> None:
    """6 cases in onnx 1.23, asymmetric padding and SAME_LOWER among them."""
    cases = flat(generated())
    assert len(cases) >= 6
    for case in cases:
        check(case, isa)

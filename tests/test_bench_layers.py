"""Layers of the benchmark: their notation, the lists that come with pyconv, and ONNX models."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import pyconv
from pyconv.bench import descriptor, onnx_model, presets
from pyconv.bench.errors import BenchError
from pyconv.bench.layer import Layer


def gmacs(layers: list[Layer]) -> float:
    return sum(layer.flops * layer.multiplicity for layer in layers) / 2e9


def output_of(layer: Layer) -> tuple[int, ...]:
    """Ask pyconv for the output's shape."""
    x, w = np.zeros(layer.input_shape, np.float32), np.zeros(layer.weight_shape, np.float32)
    if layer.is_1d:
        mb, oc, ow = pyconv.conv1d(x[:, :, 0], w[:, :, 0], **layer.settings()).shape
        return mb, oc, 1, ow
    return pyconv.conv2d(x, w, **layer.settings()).shape


NOTATION = [
    ("ic3ih224oc64oh112kh7sh2ph3", (2, 64, 112, 112), ((3, 3), (3, 3))),
    ("mb1ic4oc8_iw16ow16kw3pw1", (1, 8, 1, 16), ((0, 0), (1, 1))),
    ("g32mb1ic32ih14iw14oc32oh7ow7kh3kw3sh2sw2ph1pw1dh1dw0", (1, 32, 7, 7), ((1, 2), (1, 1))),
    ("mb1ic16ih5oc16oh8kh3ph3", (1, 16, 8, 8), ((3, 2), (3, 2))),
    ("mb1ic8oc8ih8iw5kh3kw3oh8ow2ph1pw3dh0dw2", (1, 8, 8, 2), ((1, 1), (3, 0))),
    ("mb1ic8oc8ih8kh3", (1, 8, 6, 6), ((0, 0), (0, 0))),
    ("mb1ic8oc8ih8oh8kh3", (1, 8, 8, 8), ((1, 1), (1, 1))),
    ("mb1ic2oc2_iw8ow1kw3dw2pw0", (1, 2, 1, 1), ((0, 0), (0, 0))),  # one column is left over
    ("mb1ic2oc2id1od1kd1pd0ih4oh4kh3ph1", (1, 2, 4, 4), ((1, 1), (1, 1))),
]


@pytest.mark.parametrize(("text", "output", "padding"), NOTATION)
def test_descriptor(text: str, output: tuple[int, ...], padding: object) -> None:
    layer = descriptor.parse(text)
    assert layer.output_shape == output
    assert layer.padding == padding
    assert output_of(layer) == output
    assert descriptor.parse(layer.descriptor) == layer


def test_every_listed_layer_can_be_written_and_read_back() -> None:
    for layer in presets.layers(presets.ALL):
        text = f'{layer.descriptor}n"{layer.network}:{layer.name}*{layer.multiplicity}"'
        assert descriptor.parse(text) == layer


def test_left_over_columns_are_cut_off() -> None:
    layer = descriptor.parse("mb1ic2oc2_iw8ow1kw3dw2pw0")
    assert layer.pr == -1
    assert layer.input_shape == (1, 2, 1, 7)


def test_name() -> None:
    layer = descriptor.parse('ic1ih4oc1kh1n"net:conv2/3x3 reduce*12"')
    assert (layer.network, layer.name, layer.multiplicity) == ("net", "conv2/3x3 reduce", 12)


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("ic3oc", 4, "cannot read 'oc'"),
        ("ic3oc4ih5kh3zz4", 13, "unknown key 'zz'"),
        ("ic3ic4oc4", 4, "ic a second time"),
        ("ic3oc4ih5", 10, "kh is missing"),
        ("oc4ih5kh3", 10, "ic is missing"),
        ("g2ic3oc4ih5kh3", 3, "not divisible"),
        ("ic3oc4ih5kh9", 10, "do not fit"),
        ("ic3oc4ih5kh3sh0", 13, "sh must be at least 1"),
        ("mb0ic3oc4ih5kh3", 1, "mb must be at least 1"),
        ("ic3oc4ih99999999999kh3", 7, "too large"),
    ],
)
def test_mistakes_are_located(text: str, column: int, words: str, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=words) as caught:
        descriptor.parse(text)
    assert f"column {column}: " in str(caught.value)
    file = tmp_path / "list"
    file.write_text(f"# a list\n\n  {text}\n")
    with pytest.raises(BenchError, match=words) as caught:
        descriptor.read(file)
    assert str(caught.value).startswith(f"{file}:3:{column + 2}: ")


def test_file(tmp_path: Path) -> None:
    file = tmp_path / "shapes_net"
    file.write_text('--dir=FWD_B ic1oc2ih4kh1n"a#1" ic1oc3ih4kh1 # n"x"\n#ic1oc4ih4kh1\nic3oc16_id5od5kd3pd1_n"v"\n')
    layers, notes = descriptor.read(file)
    assert [(layer.network, layer.name, layer.oc, layer.mb) for layer in layers] == [
        ("net", "a#1", 2, 2),
        ("net", "", 3, 2),
    ]
    assert notes == [f"{file}: 1 convolutions in three dimensions left out"]


def test_many_names_on_a_line_take_no_time(tmp_path: Path) -> None:
    file = tmp_path / "shapes"
    file.write_text(" ".join(f'ic1oc1ih4kh1n"a {number}"' for number in range(1000)) + ' # "')
    layers, _ = descriptor.read(file)
    assert [layer.name for layer in layers] == [f"a {number}" for number in range(1000)]


# Convolutions and 1e9 multiply-adds for one image, as published: without classifiers; U-Net without transposed layers.
@pytest.mark.parametrize(
    ("name", "convolutions", "published"),
    [
        ("resnet50", 53, 4.09),
        ("vgg16", 13, 15.3),
        ("mobilenet_v2", 52, 0.30),
        ("googlenet", 57, 1.58),
        ("unet", 19, 145),
    ],
)
def test_networks_are_complete(name: str, convolutions: int, published: float) -> None:
    layers = presets.layers(name)
    assert sum(layer.multiplicity for layer in layers) == convolutions
    assert gmacs(layers) == pytest.approx(published, rel=0.01)
    assert len({replace(layer, name="") for layer in layers}) == len(layers)


@pytest.mark.parametrize("name", presets.NAMES)
def test_lists_hold_what_they_say(name: str) -> None:
    layers = presets.layers(name)
    assert all(layer.mb == 1 and layer.network == name and layer.name for layer in layers)
    assert len({layer.name for layer in layers}) == len(layers)
    what = {
        "conv1d": lambda layer: layer.is_1d,
        "depthwise": lambda layer: layer.g == layer.ic,
        "groups": lambda layer: 1 < layer.g < layer.ic,
        "filters": lambda layer: layer.ic <= 3 and (layer.oh, layer.ow) == (layer.ih, layer.iw),
        "tiny": lambda layer: max(layer.oh, layer.ow) <= 8 and layer.oc <= 64,
    }
    assert all(map(what.get(name, lambda layer: True), layers))


def test_shapes_for_people() -> None:
    texts = {layer.name: layer.shape_text for layer in presets.layers("resnet50")}
    assert texts["conv1"] == "7x7 s2 3->64 @112"
    assert descriptor.parse("g4mb2ic4oc4ih9iw8oh9ow8kh3kw1ph1pw0").shape_text == "3x1 dw 4->4 @9x8 n2"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    onnx = pytest.importorskip("onnx")
    helper, tensor = onnx.helper, onnx.TensorProto.FLOAT

    def weights(name: str, *shape: int) -> object:
        return onnx.numpy_helper.from_array(np.zeros(shape, np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="first", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Conv", ["r", "w2"], ["b"], name="same", auto_pad="SAME_LOWER", group=8),
        helper.make_node("Conv", ["b", "w2"], ["c"], name="again", auto_pad="SAME_LOWER", group=8),
        helper.make_node("Conv", ["c", "w3"], ["y"], name="asymmetric", pads=[0, 1, 2, 3]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", tensor, ["batch", 3, 32, 32])],
        [helper.make_tensor_value_info("y", tensor, None)],
        [weights("w1", 8, 3, 3, 3), weights("w2", 8, 1, 4, 4), weights("w3", 16, 8, 3, 3)],
    )
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph), str(path))
    return path


def test_onnx_model(model: Path) -> None:
    layers, notes = onnx_model.read(model)
    assert not notes
    assert [(layer.name, layer.multiplicity) for layer in layers] == [("first", 1), ("same", 2), ("asymmetric", 1)]
    assert [layer.output_shape for layer in layers] == [(1, 8, 16, 16), (1, 8, 16, 16), (1, 16, 16, 18)]
    assert [layer.padding for layer in layers] == [((1, 1),) * 2, ((2, 1),) * 2, ((0, 2), (1, 3))]
    assert all(output_of(layer) == layer.output_shape for layer in layers)


def test_onnx_model_of_unknown_size(model: Path) -> None:
    onnx = pytest.importorskip("onnx")
    loaded = onnx.load(str(model))
    loaded.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    onnx.save(loaded, str(model))
    with pytest.raises(BenchError, match=r"node 'first': the size of its input is not known"):
        onnx_model.read(model)


def test_what_is_no_onnx_model(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    file = tmp_path / "x.onnx"
    file.write_text(json.dumps({}))
    with pytest.raises(BenchError, match=r"not an ONNX model|no convolution"):
        onnx_model.read(file)

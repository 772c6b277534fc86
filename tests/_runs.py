"""A benchmark run that nobody ran: realistic shapes and times, the same at every call."""

from __future__ import annotations

import numpy as np

from pyconv.bench.record import Row, Run, Settings, Timing, Yardstick

ISA = "x86-64-v4"
PEAK, BANDWIDTH = 178.0, 14.1

Shape = tuple[str, int, int, int, int, int, int, int]  # name, groups, ic, ih, oc, kernel, stride, multiplicity


def _resnet50() -> list[Shape]:
    shapes: list[Shape] = [("conv1", 1, 3, 224, 64, 7, 2, 1)]
    channels, size = 64, 56
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), start=2):
        out, stride = 4 * width, 1 if stage == 2 else 2
        small = size // stride
        shapes += [
            (f"conv{stage}_1 shortcut", 1, channels, size, out, 1, stride, 1),
            (f"conv{stage}_1 reduce", 1, channels, size, width, 1, 1, 1),
            (f"conv{stage}_1 3x3", 1, width, size, width, 3, stride, 1),
            (f"conv{stage}_x expand", 1, width, small, out, 1, 1, blocks),
            (f"conv{stage}_x reduce", 1, out, small, width, 1, 1, blocks - 1),
            (f"conv{stage}_x 3x3", 1, width, small, width, 3, 1, blocks - 1),
        ]
        channels, size = out, small
    return shapes


def _mobilenet_v2() -> list[Shape]:
    shapes: list[Shape] = [("conv0", 1, 3, 224, 32, 3, 2, 1)]
    channels, size = 32, 112
    for number, (width, stride) in enumerate(((16, 1), (24, 2), (32, 2), (64, 2), (96, 1), (160, 2), (320, 1)), 1):
        inner = channels * (6 if number > 1 else 1)
        if inner > channels:
            shapes.append((f"block{number} expand", 1, channels, size, inner, 1, 1, 1))
        shapes.append((f"block{number} depthwise", inner, inner, size, inner, 3, stride, 1))
        size //= stride
        shapes.append((f"block{number} project", 1, inner, size, width, 1, 1, 2))
        channels = width
    return shapes


def _vgg16() -> list[Shape]:
    widths = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
    shapes: list[Shape] = []
    channels, size = 3, 224
    for block, (width, depth) in enumerate(widths, 1):
        for number in range(1, depth + 1):
            shapes.append((f"conv{block}_{number}", 1, channels, size, width, 3, 1, 1))
            channels = width
        size //= 2
    return shapes


NETWORKS = {"resnet50": _resnet50(), "mobilenet_v2": _mobilenet_v2(), "vgg16": _vgg16()}


def a_run(
    settings: tuple[Settings, ...] = (Settings(1, 1, "f32", "nchw", "packed", ISA),),
    networks: tuple[str, ...] = tuple(NETWORKS),
    peers: tuple[str, ...] = ("torch", "onnxruntime", "openvino"),
    approximate: tuple[str, ...] = (),
    rounds: int = 9,
) -> Run:
    """Make up a run."""
    rng = np.random.default_rng(0)

    def timing(seconds: float) -> Timing:
        return Timing([float(t) for t in seconds * (1 + 0.05 * rng.exponential(size=rounds))])

    def row(network: str, shape: Shape, chosen: Settings) -> Row:
        name, g, ic, ih, oc, kernel, stride, multiplicity = shape
        pad, size = kernel // 2, np.dtype({"f32": "float32", "f64": "float64"}[chosen.dtype]).itemsize
        oh = (ih + 2 * pad - kernel) // stride + 1
        weights = oc * ic // g * kernel**2
        flops = 2 * chosen.batch * weights * oh**2
        touched = size * (chosen.batch * (ic * ih**2 + oc * oh**2) + weights)
        depthwise = g == ic
        roof = min(PEAK, flops / touched * BANDWIDTH) * chosen.threads**0.9 * 4 / size
        tile = "dw 4x2" if depthwise else "ow 6x4" if kernel == 1 or ic == 3 else "oc 8x3" if oh < 10 else "oc 6x4"
        seconds = flops / (roof * rng.uniform(0.5, 0.85)) / 1e9
        usual = {"torch": 1.7, "onnxruntime": 1.5, "openvino": 1.3, "ncnn": 0.95}
        timed = [peer for peer in (*peers, *approximate) if not (peer == "openvino" and name == "conv1")]
        return Row(
            layer=(f"g{g}" if g > 1 else "") + f"mb{chosen.batch}ic{ic}ih{ih}oc{oc}oh{oh}kh{kernel}sh{stride}ph{pad}",
            network=network, name=name, multiplicity=multiplicity, settings=chosen, flops=flops, bytes=touched,
            plan=f"{chosen.isa}, tile {tile}", plan_short=tile, workspace=int(rng.integers(40, 600)) << 10,
            error=float(rng.uniform(0.01, 0.2)), pyconv=timing(seconds),
            peers={peer: timing(seconds * usual[peer] * rng.lognormal(0, 0.2)) for peer in timed},
            approximate=list(approximate),
            skipped={} if "openvino" in timed or "openvino" not in peers else {"openvino": "no such padding"},
        )  # fmt: skip

    return Run(
        command="python -m pyconv bench resnet50 mobilenet_v2 vgg16 --against installed",
        started="2026-03-14T15:09:26+01:00",
        machine={"processor": "Intel(R) Xeon(R) Processor @ 2.80GHz", "cores": 2},
        versions={"pyconv": "0.2.0", "numpy": "2.4.6", **dict.fromkeys((*peers, *approximate), "2.13.0")},
        yardsticks=[
            Yardstick(isa, dtype, threads, list(rng.normal(PEAK * threads, 2, 40)), BANDWIDTH * threads**0.5)
            for isa, dtype, threads in dict.fromkeys((s.isa, s.dtype, s.threads) for s in settings)
        ],
        rows=[
            row(network, shape, chosen) for chosen in settings for network in networks for shape in NETWORKS[network]
        ],
    )

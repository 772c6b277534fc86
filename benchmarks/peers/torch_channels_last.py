"""PyTorch, on arrays in its memory format for images, channels last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyconv.bench.layer import Layer
from pyconv.bench.peers.torch_nchw import DTYPES, PACKAGES, as_array, limit_threads, torch_call

NAME = "torch-cl"
LAYOUTS = ("nhwc",)
APPROXIMATE = ""

__all__ = ["APPROXIMATE", "DTYPES", "LAYOUTS", "NAME", "PACKAGES", "as_array", "limit_threads", "prepare"]


def prepare(layer: Layer, x: Any, w: Any, b: Any, layout: str) -> Callable[[], object]:
    return torch_call(layer, x, w, b, channels_last=True)

"""PyTorch, on contiguous arrays: what most programs do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyconv.bench.errors import UnsupportedError
from pyconv.bench.layer import Layer

NAME = "torch"
PACKAGES = {"torch": "torch"}
LAYOUTS = ("nchw",)
DTYPES = ("f32", "f64", "f16", "bf16", "c64", "c128")
APPROXIMATE = ""


def limit_threads(n: int) -> None:
    import torch

    torch.set_num_threads(n)
    # For good: entering it in every call would be part of the call.
    torch.inference_mode().__enter__()


def prepare(layer: Layer, x: Any, w: Any, b: Any, layout: str) -> Callable[[], object]:
    return torch_call(layer, x, w, b, channels_last=False)


def torch_call(layer: Layer, x: Any, w: Any, b: Any, *, channels_last: bool) -> Callable[[], object]:
    """Build the call for either memory format; torch has channels-last images only, so signals become those."""
    import torch

    if not layer.symmetric:
        raise UnsupportedError("asymmetric padding")
    memory = torch.channels_last if channels_last else torch.contiguous_format
    images, weight = (_tensor(array).contiguous(memory_format=memory) for array in (x, w))
    bias = _tensor(b)
    function: Any = torch.conv2d
    first = 0
    if layer.is_1d and not channels_last:
        images, weight, function, first = images[:, :, 0].contiguous(), weight[:, :, 0].contiguous(), torch.conv1d, 1
    stride, dilation = (layer.sh, layer.sw)[first:], (layer.dh, layer.dw)[first:]
    padding = tuple(before for before, _ in layer.padding)[first:]
    return lambda: function(images, weight, bias, stride, padding, dilation, layer.g)


def _tensor(array: Any) -> Any:
    """Make a tensor. Of bfloat16, which NumPy does not have, torch takes the bits."""
    import torch

    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view("int16")).view(torch.bfloat16)
    return torch.from_numpy(array)


def as_array(result: Any) -> Any:
    import torch

    if result.dtype == torch.bfloat16:
        from ml_dtypes import bfloat16

        return result.contiguous().view(torch.int16).numpy().view(bfloat16)
    return result.numpy()

"""JAX: lax.conv_general_dilated and the bias, compiled. Its threads are as many as the processors it may use."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from pyconv.bench.layer import Layer

NAME = "jax"
PACKAGES = {"jax": "jax"}
LAYOUTS = ("nchw", "nhwc")
DTYPES = ("f32", "f64")
APPROXIMATE = ""


def limit_threads(n: int) -> None:
    os.environ["JAX_PLATFORMS"] = "cpu"
    if n == 1:
        flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
    import jax

    jax.config.update("jax_enable_x64", True)


def prepare(layer: Layer, x: Any, w: Any, b: Any, layout: str) -> Callable[[], object]:
    import jax

    names, bias = ("NCHW", "OIHW", "NCHW"), b.reshape(-1, 1, 1)
    if layout == "nhwc":
        names, bias = ("NHWC", "HWIO", "NHWC"), b
        x, w = x.transpose(0, 2, 3, 1), w.transpose(2, 3, 1, 0)

    def convolve(images: Any) -> Any:
        result = jax.lax.conv_general_dilated(
            images,
            weight,
            window_strides=(layer.sh, layer.sw),
            padding=layer.padding,
            rhs_dilation=(layer.dh, layer.dw),
            dimension_numbers=names,
            feature_group_count=layer.g,
            precision=jax.lax.Precision.HIGHEST,
        )
        return result + bias

    weight = jax.device_put(np.ascontiguousarray(w))
    images = jax.device_put(np.ascontiguousarray(x))
    compiled = jax.jit(convolve).lower(images).compile()
    if layout == "nhwc":
        return lambda: _Last(compiled(images).block_until_ready())
    return lambda: compiled(images).block_until_ready()


class _Last:
    """A result with its channels last."""

    def __init__(self, array: Any) -> None:
        self.array = array


def as_array(result: Any) -> Any:
    if isinstance(result, _Last):
        return np.asarray(result.array).transpose(0, 3, 1, 2)
    return np.asarray(result)

# The interface of every compiled level (pyconv._kernels_x86_64_v3, ...).

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyconv._plan import Plan

def variants() -> tuple[tuple[str, int, int], ...]: ...
def vector_bytes() -> int: ...
def max_threads() -> int: ...
def address(array: NDArray[Any]) -> int: ...
def has_depthwise(kh: int, sh: int) -> bool: ...
def multiply_adds(dtype: str, steps: int) -> int: ...
def tile_multiply_adds(
    dtype: str, role: str, NV: int, M: int, n_ic: int, n_kh: int, n_kw: int, repeats: int
) -> int: ...

class Layout:
    def __init__(
        self,
        ndarray: type[NDArray[Any]],
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
        strides: tuple[int, ...],
    ) -> None: ...
    def fits(self, array: object) -> bool: ...

class Convolution:
    def __init__(self, plan: Plan) -> None: ...
    def pack(self, weight: NDArray[Any], bias: NDArray[Any] | None, packed: NDArray[Any], n_threads: int) -> None: ...
    def run(
        self, x: NDArray[Any], packed: NDArray[Any], out: NDArray[Any], n_threads: int, axes: int, flush: bool = False
    ) -> None: ...
    def run_packing(
        self,
        x: NDArray[Any],
        weight: NDArray[Any],
        bias: NDArray[Any] | None,
        out: NDArray[Any],
        n_threads: int,
        axes: int,
        flush: bool = False,
    ) -> None: ...

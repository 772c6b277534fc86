from typing import Any

import numpy as np
from numpy.typing import NDArray

class Layout:
    def __init__(
        self,
        ndarray: type[NDArray[Any]],
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
        strides: tuple[int, ...],
    ) -> None: ...
    def fits(self, array: object) -> bool: ...

class Known:
    def __init__(
        self, input: Layout, weight: Layout | None, bias: Layout | None, settings: tuple[object, ...], call: object
    ) -> None: ...
    def recall(self, input: object, weight: object, bias: object, settings: tuple[object, ...]) -> Any: ...

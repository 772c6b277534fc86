"""The two exceptions that pyconv raises for what a caller passed, and messages they share.

NumPy code catches `ValueError` and `TypeError`. Code ported from torch catches `RuntimeError`,
which is what ``torch.nn.functional.conv2d`` raises for nearly everything. Each class here is both,
so either habit works.
"""

from __future__ import annotations

import reprlib
from typing import Any

import numpy as np


class ConvError(ValueError, RuntimeError):
    """A value, a shape or a size for which no convolution is defined.

    The message carries the phrase torch uses for the same mistake, the value that was given and
    what is allowed.

    Examples
    --------
    >>> import numpy as np
    >>> import pyconv
    >>> try:
    ...     pyconv.conv2d(np.ones((1, 3, 8, 8)), np.ones((4, 3, 3, 3)), stride=0)
    ... except RuntimeError as error:
    ...     print(error)
    non-positive stride is not supported: got stride=0, it must be at least 1
    """


class ConvTypeError(TypeError, RuntimeError):
    """An argument of a type or dtype that is not supported, or two dtypes that do not go together.

    Where one call repairs it, the message names that call.

    Examples
    --------
    >>> import numpy as np
    >>> import pyconv
    >>> try:
    ...     pyconv.conv2d(np.ones((1, 3, 8, 8)), np.ones((4, 3, 3, 3), np.float32))
    ... except TypeError as error:
    ...     print(error)
    Input type (float64) and weight type (float32) should be the same: use input.astype('float32')
    """


def wrong_type(value: object, name: str, allowed: str) -> ConvTypeError:
    """Word it as torch does for an argument that its signature does not know."""
    return ConvTypeError(
        f"received an invalid combination of arguments - got {name}={reprlib.repr(value)} "
        f"({type(value).__name__}), {name} must be {allowed}"
    )


def not_implemented(dtype: np.dtype[Any], name: str, allowed: str) -> ConvTypeError:
    """Word it as torch does for a dtype, and name the conversion where one would do."""
    fix = f"; use {name}.astype('float32')" if np.can_cast(dtype, np.float32, "same_kind") else ""
    return ConvTypeError(f"convolution not implemented for '{dtype}' ({name}), {allowed}{fix}")

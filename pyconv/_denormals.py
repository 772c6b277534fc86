"""Whether subnormal numbers count as zeros.

By default they do not: results are IEEE's, whatever the magnitudes. Some processors take a hundred times as long for an
operation on a subnormal number, and where the last bits of 1e-40 do not matter this is the way out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_flushing: ContextVar[bool] = ContextVar("pyconv_flush_denormals", default=False)
is_flushing = _flushing.get


@contextmanager
def flush_denormals(flush: bool = True) -> Iterator[None]:
    """Take subnormal numbers for zeros inside a ``with`` block, in this thread (or asyncio task) only.

    Outside, and with False, arithmetic is that of the calling thread: IEEE's, unless someone has changed its state.
    Operands and results smaller than the smallest normal number (1.2e-38 in float32, 2.2e-308 in float64) become zeros.
    Only the arithmetic of convolutions is concerned, on however many threads; when a call returns, the state of the
    calling thread's floating point unit is as it was.

    Parameters
    ----------
    flush : bool, default True
        False undoes an outer block.

    Examples
    --------
    >>> import numpy as np
    >>> import pyconv
    >>> tiny, one = np.full((1, 1, 1, 1), 1e-310), np.ones((1, 1, 1, 1))
    >>> pyconv.conv2d(tiny, one).item()
    1e-310
    >>> with pyconv.flush_denormals():
    ...     pyconv.conv2d(tiny, one).item()
    0.0
    """
    token = _flushing.set(bool(flush))
    try:
        yield
    finally:
        _flushing.reset(token)

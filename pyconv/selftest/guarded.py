"""Memory that ends, or begins, at a page without access: one byte beyond it ends the process."""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Read as a float32 or a float64 it is a NaN: an element that is not the array's shows in the sum.
POISON = np.uint16(0x7FF1)

_PAGE = mmap.PAGESIZE
_NO_ACCESS = 0  # PROT_NONE


class GuardedMemory:
    """An allocator of blocks whose last byte (or first, by `edge`) lies at the page's."""

    def __init__(self, edge: str) -> None:
        self._at_end = edge == "end"
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        self._slack: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]] = []

    def __call__(self, nbytes: int) -> NDArray[np.uint8]:
        """Allocate a block. What is left of its pages is filled with NaN."""
        body = max(1, -(-nbytes // _PAGE)) * _PAGE
        pages = mmap.mmap(-1, body + 2 * _PAGE)
        everything = np.frombuffer(pages, np.uint8)
        everything.view(np.uint16)[...] = POISON
        address = everything.__array_interface__["data"][0]
        for guard in (address, address + _PAGE + body):
            if self._libc.mprotect(guard, _PAGE, _NO_ACCESS):
                raise OSError(ctypes.get_errno(), "mprotect")
        inside = everything[_PAGE : _PAGE + body]
        start = body - nbytes if self._at_end else 0
        for slack in (inside[:start], inside[start + nbytes :]):
            self._slack.append((slack, slack.copy()))
        return inside[start : start + nbytes]

    def copy(self, array: NDArray[Any]) -> NDArray[Any]:
        """Copy a dense array, in the order that it has in memory."""
        copied: NDArray[Any] = np.ndarray(array.shape, array.dtype, self(array.nbytes), strides=array.strides)
        copied[...] = array
        return copied

    def intact(self) -> bool:
        """Whether the accessible bytes around the blocks are as they were."""
        return all(np.array_equal(slack, before) for slack, before in self._slack)

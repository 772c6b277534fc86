"""Run random cases with every array against a page that must not be touched.

    python tests/_guard_pages.py {end,start} {random,complex,corners} FIRST COUNT

Each operand ends (or starts) with the last (first) byte of readable memory: to read or write one
byte beyond it ends the process. So do the packed weights and the results. The rest of their pages
is filled with NaN, and compared afterwards. Before each case its repr is printed, so that the last
line tells which one it was.

A program of its own, for it may die; test_memory.py runs it.
"""

from __future__ import annotations

import faulthandler
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice
from typing import Any
from unittest import mock

import numpy as np

import pyconv
from _cases import corners, random_case
from _compare import difference
from _problems import Call, Case
from _values import complex_integers, integers
from pyconv import _blocks, _call, _execute
from pyconv.selftest.guarded import GuardedMemory


class TestedMemory(GuardedMemory):
    """Guarded memory that packed weights and results are put into as well."""

    def empty_result(self, shape: tuple[int, ...], dtype: np.dtype[Any], _aligned: bool) -> np.ndarray:
        """Stands in for the package's allocator of packed weights and results."""
        return self(math.prod(shape) * dtype.itemsize).view(dtype).reshape(shape)


def cases(kind: str, first: int, count: int) -> Iterator[Case]:
    """Yield the random cases of these seeds, or these of the corners in both dtypes."""
    if kind != "corners":
        wide = {"float32": "complex64", "float64": "complex128"} if kind == "complex" else {}
        for case in map(random_case, range(first, first + count)):
            yield replace(case, dtype=wide.get(case.dtype, case.dtype))
        return
    for corner in islice(chain(*corners().values()), first, first + count):
        yield corner
        yield replace(corner, dtype="float64", threads=4, seed=1)


def main(edge: str, kind: str, first: str, count: str) -> None:
    """Run the cases; any exception is a failure."""
    for case in cases(kind, int(first), int(count)):
        print(repr(case), flush=True)
        memory = TestedMemory(edge)
        is_complex = case.dtype.startswith("complex")
        call = Call(case, complex_integers if is_complex else integers, allocate=memory)
        expected = call.reference(np.complex128 if is_complex else np.int64).astype(case.dtype)
        with (
            mock.patch.object(_execute, "empty_result", memory.empty_result),
            mock.patch.object(_call, "empty_result", memory.empty_result),
        ):
            for isa in pyconv.available_isas():
                got = call.run(isa)
                # The sign of a complex zero depends on how the reference multiplies.
                told = difference(got + 0, expected + 0) if is_complex else difference(got, expected)
                assert not told, f"{isa}: {told}"
        assert memory.intact(), "written outside an array"
    print("done")


if __name__ == "__main__":
    faulthandler.enable()
    with mock.patch.object(_blocks, "_FLOPS_PER_THREAD", 1):  # threads at any size
        main(*sys.argv[1:])

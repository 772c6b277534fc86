"""Whether the kernels stay within the memory that they allocate themselves, which no guard page surrounds.

The C library ends a process that frees a block and finds its neighbour's size overwritten, so this sees whoever writes
a few words past the end of the scratch; not a byte less than that, and nothing that stays in the scratch of other
threads.
"""

from __future__ import annotations

import signal
import sys
from itertools import product

import pytest

import pyconv
from _cases import random_case
from _problems import Call, Case, seeds
from _processes import python


def narrow_cases() -> list[Case]:
    """Make depthwise cases whose tiles run down the columns of images narrower than they, with channels left over."""
    return [
        Case(
            (1, channels, height, width), (channels, 1, 3, 3), padding=1, groups=channels, stride=stride, dtype=dtype,
            x_layout="channels_last",
        )
        for channels, height, width, stride, dtype in product(
            (7, 17), (40, 150, 500), (1, 2, 5, 12, 13), (1, 2), ("float32", "float64")
        )
    ]  # fmt: skip


def compute(cases: list[Case]) -> None:
    """Run cases on one thread, whose scratch ends where the block does, saying which."""
    for case in cases:
        call = Call(case)
        for isa in pyconv.available_isas():
            print(isa, case, flush=True)
            call.compute(call.x, call.weight, call.bias, isa=isa, threads=1)


def survive(script: str) -> None:
    ran = python("-c", f"from test_scratch import *\n{script}\nprint('done')")
    assert ran.stdout.endswith("done\n"), f"{ran.stderr.splitlines()[:1]} {ran.stdout.splitlines()[-1:]}"


@pytest.mark.parametrize("part", seeds(2))
def test_random_cases(part: int) -> None:
    survive(f"compute([random_case(seed, 200_000) for seed in range({500 * part}, {500 * part + 500})])")


def test_narrow_images() -> None:
    survive("compute(narrow_cases())")


_TRESPASS = """
import ctypes
c = ctypes.CDLL(None)
c.malloc.restype, c.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
block = c.malloc(100_000)
ctypes.memset(block, 0xA5, 100_000 + {excess})
c.free(block)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other C libraries check other things")
@pytest.mark.parametrize(("excess", "status"), [(0, 0), (64, -signal.SIGABRT)])
def test_corruption_is_seen(excess: int, status: int) -> None:
    """The test of the test: who writes a vector past a block is ended when it is freed."""
    assert python("-c", _TRESPASS.format(excess=excess)).returncode == status


__all__ = ["compute", "narrow_cases", "random_case"]

"""No byte outside the arrays is touched, the scratch does not grow with the problem, and results are aligned."""

from __future__ import annotations

import signal
import sys

import numpy as np
import pytest

import pyconv
from _cases import corners
from _problems import Case, seeds
from _processes import HERE, python

MIB = 2**20

posix = pytest.mark.skipif(sys.platform == "win32", reason="pages are protected by mprotect")
linux = pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")


def survive(*arguments: object) -> int:
    """Run cases against guard pages, in a process that dies if one strays; return how many."""
    finished = python(HERE / "_guard_pages.py", *arguments)
    lines = finished.stdout.splitlines() or ["nothing ran"]
    assert finished.returncode == 0, f"{lines[-1]}\n{finished.stderr}"
    assert lines.pop() == "done"
    return len(lines)


@posix
@pytest.mark.parametrize("part", seeds(4))
@pytest.mark.parametrize("edge", ["end", "start"])
def test_guard_pages(edge: str, part: int) -> None:
    """Random cases on every instruction set: 1000 for each edge."""
    assert survive(edge, "random", 250 * part, 250) == 250


@posix
@pytest.mark.parametrize("edge", ["end", "start"])
def test_guard_pages_of_complex_numbers(edge: str) -> None:
    assert survive(edge, "complex", 2000, len(seeds(150))) == len(seeds(150))


@posix
@pytest.mark.parametrize("edge", ["end", "start"])
def test_guard_pages_at_corners(edge: str) -> None:
    """The shapes that have broken other libraries, in both dtypes."""
    assert survive(edge, "corners", 0, 10_000) == 2 * sum(map(len, corners().values()))


_TRESPASS = """
import ctypes, sys
from _guard_pages import GuardedMemory
block = GuardedMemory(sys.argv[1])(100)
address = block.__array_interface__["data"][0]
print(len(ctypes.string_at(address, 100)), flush=True)
ctypes.string_at(address + int(sys.argv[2]), 1)
"""


@posix
@pytest.mark.parametrize(("edge", "offset"), [("end", 100), ("start", -1)])
def test_guard_pages_guard(edge: str, offset: int) -> None:
    """The test of the test: to read one byte after or before a block ends the process."""
    finished = python("-c", _TRESPASS, edge, offset)
    assert finished.stdout == "100\n"
    assert finished.returncode == -signal.SIGSEGV


SCRATCH = {
    # An im2col matrix of 967 MB.
    "large kernel": Case((1, 64, 224, 224), (3, 64, 9, 9)),
    "threads": Case((1, 64, 224, 224), (3, 64, 9, 9), threads=4),
    "float64": Case((1, 64, 224, 224), (3, 64, 9, 9), dtype="float64", threads=2),
    "dense": Case((1, 64, 224, 224), (64, 64, 3, 3), padding=1, threads=2),
    "batch": Case((64, 16, 56, 56), (16, 16, 3, 3), padding=1, threads=2),
    "depthwise": Case((1, 64, 224, 224), (64, 1, 3, 3), groups=64, padding=1, threads=2),
    "pointwise": Case((1, 64, 224, 224), (8, 64, 1, 1), threads=2),
    "one wide row": Case((1, 8, 2_000_000), (8, 8, 3), padding=1, threads=2),
    "integer image": Case((1, 3, 2048, 2048), (1, 3, 3, 3), src_dtype="uint8", padding=1),
    "complex": Case((1, 64, 224, 224), (8, 64, 3, 3), dtype="complex64", padding=1, threads=2),
    "integer image, complex weights": Case((1, 64, 224, 224), (8, 64, 3, 3), src_dtype="uint8", dtype="complex128"),
    "channels last": Case((1, 64, 224, 224), (8, 64, 3, 3), x_layout="channels_last"),
    "strides": Case((1, 16, 224, 224), (8, 16, 3, 3), x_layout="sliced", out_layout="negative"),
    "padded by a mode": Case((1, 32, 224, 224), (8, 32, 3, 3), padding=100, padding_mode="reflect", threads=2),
}


@linux
@pytest.mark.parametrize("name", SCRATCH)
def test_scratch_is_bounded(name: str) -> None:
    """4 MiB for each thread and the packed weights, whatever the size of the image."""
    case = SCRATCH[name]
    finished = python(HERE / "_peak_memory.py", repr(case))
    assert finished.returncode == 0, finished.stderr
    packed = 2 * np.prod(case.weight_shape) * np.dtype(case.dtype).itemsize
    grown = int(finished.stdout) * 1024
    assert grown < 4 * MIB * case.threads + packed + MIB, f"{grown / MIB:.1f} MiB: {case!r}"


@linux
@pytest.mark.parametrize("threads", [1, 2])
def test_weights_of_one_call_are_never_all_packed(threads: int) -> None:
    """9 MB of weights under a small map."""
    case = Case((1, 512, 7, 7), (512, 512, 3, 3), padding=1, threads=threads)
    finished = python(HERE / "_peak_memory.py", repr(case))
    assert finished.returncode == 0, finished.stderr
    grown = int(finished.stdout) * 1024
    assert grown < 2 * MIB * threads, f"{grown / MIB:.1f} MiB"


@pytest.mark.parametrize("images", [1, 9])
def test_no_operand_is_held_on_to(images: int) -> None:
    """Neither by a call whose tasks pack the weights (of one image), nor by one that packs them first."""
    operands = [np.ones(shape, np.float32) for shape in ((images, 3, 8, 8), (5, 3, 3, 3), (5,), (images, 5, 6, 6))]
    x, weight, bias, out = operands
    for _ in range(3):  # the first call may be remembered
        before = [sys.getrefcount(each) for each in operands]
        pyconv.conv2d(x, weight, bias, out=out)
    assert [sys.getrefcount(each) for each in operands] == before
    for each in operands:  # NumPy refuses this while a buffer of theirs is in use
        each.resize(each.size, refcheck=False)


@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_large_results_start_on_a_cache_line(layout: str) -> None:
    """A vector that crosses two lines is stored at half the speed."""
    images = np.ones((2, 3, 70, 70), np.float32)
    if layout == "channels last":
        images = np.ones((2, 70, 70, 3), np.float32).transpose(0, 3, 1, 2)
    layer = pyconv.Conv2d(3, 4, 1)
    held = [layer(images) for _ in range(8)]
    assert [result.ctypes.data % 64 for result in held] == [0] * 8
    assert all(result.strides[1] == (4 if layout == "channels last" else 4 * 70 * 70) for result in held)

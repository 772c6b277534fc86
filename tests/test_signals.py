"""Whether Ctrl-C ends a call at once, and the modes of the floating-point unit stay those of the caller."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

import pyconv
from _cases import random_case
from _compare import difference
from _floating_point import MODES, restore
from _floating_point import mode as floating_point_mode
from _problems import Call, seeds
from _processes import HERE, environment, python
from _values import integers
from pyconv._dispatch import forced

linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
x86 = pytest.mark.skipif("x86-64-v2" not in pyconv.available_isas(), reason="MXCSR is a register of x86")

# --- Ctrl-C -------------------------------------------------------------------------------------------

PROMPT = 0.2  # seconds until KeyboardInterrupt

# Each takes 2 s and more on two cores.
LONG = {
    "dense": "(1, 64, 768, 768), (64, 64, 15, 15)",
    "one thread": "(1, 64, 512, 512), (64, 64, 15, 15), num_threads=1",
    "float64": "(1, 64, 512, 512), (64, 64, 15, 15), dtype=np.float64",
    "depthwise": "(8, 64, 512, 512), (64, 1, 63, 63), groups=64",
    "reflect": "(1, 64, 640, 640), (64, 64, 15, 15), padding=100, padding_mode='reflect'",
    "one row": "(1, 1, 1, 8_000_000), (64, 1, 1, 501)",
}
LARGE_TASKS = {"long filter": "(1, 1, 1, 2_000_000), (64, 1, 1, 20_001)"}

_INTERRUPTED = """
import sys, time
import numpy as np
import pyconv
from _soak import resident


def convolve(x_shape, weight_shape, dtype=np.float32, **options):
    x = np.full(x_shape, 0.5, dtype)
    return pyconv.conv2d(x, np.full(weight_shape, 0.5, dtype), **options)


expected = convolve((1, 16, 32, 32), (16, 16, 3, 3))
for _ in range(int(sys.argv[1])):
    before = resident()
    try:
        print("begins", flush=True)
        convolve({arguments})
        print("finished", flush=True)
    except KeyboardInterrupt:
        print(time.monotonic(), flush=True)
    same = np.array_equal(convolve((1, 16, 32, 32), (16, 16, 3, 3)), expected)
    print(same, resident() - before, flush=True)
"""


def interrupt(kind: str, count: int) -> list[float]:
    """Send SIGINT so many times, each at a random moment of the call; return the seconds until it was answered."""
    delays = []
    script = _INTERRUPTED.replace("{arguments}", {**LONG, **LARGE_TASKS}[kind])
    # No more threads than cores: between two looks at the signals, each has some 20 ms of work.
    variables = environment(OMP_NUM_THREADS=str(len(os.sched_getaffinity(0))))
    with subprocess.Popen(
        [sys.executable, "-c", script, str(count)], cwd=HERE, env=variables, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            for _ in range(count):
                assert process.stdout.readline() == "begins\n"
                time.sleep(random.uniform(0.1, 1.0))
                sent = time.monotonic()
                process.send_signal(signal.SIGINT)
                answer = process.stdout.readline()
                assert answer != "finished\n", "the call was not interrupted"
                delays.append(float(answer) - sent)
                same, grown = process.stdout.readline().split()
                assert same == "True", "the next call gave another result"
                assert int(grown) < 4096, f"{grown} KiB are still in use"
        finally:
            process.kill()
    return delays


@linux
@pytest.mark.parametrize("kind", LONG)
def test_ctrl_c(kind: str, record_property: Callable[[str, object], None]) -> None:
    """Of a batch 95 % are answered promptly; on a busy machine the best batch of three."""
    count = max(2, len(seeds(10)) // len(LONG))
    delays = []
    for _ in range(3):
        delays.append(float(np.percentile(interrupt(kind, count), 95)))
        record_property(f"95 % of {count}", delays[-1])
        if delays[-1] <= PROMPT:
            return
    pytest.fail(f"95 % within {min(delays):.3f} s at best")


@linux
def test_ctrl_c_inside_a_large_task() -> None:
    """A signal with a long filter is cut into tasks of 150 GFLOP."""
    # Three attempts: others may have the processors meanwhile.
    assert any(max(interrupt("long filter", 1)) <= PROMPT for _ in range(3))


# --- floating-point modes -----------------------------------------------------------------------------


@linux
@x86
@pytest.mark.parametrize("mode", MODES)
def test_calls_keep_the_mode(mode: str, isa: str) -> None:
    """Whatever the instruction set, the tile and the data; on one thread, for new ones would keep the mode."""
    calls = [Call(random_case(seed, 100_000)) for seed in seeds(40)]
    try:
        MODES[mode]()
        before = floating_point_mode()
        for call in calls:
            call.compute(call.x, call.weight, call.bias, None, isa, 1)
            assert floating_point_mode() == before, f"changed by {call.case!r}"
    finally:
        restore()
    assert (before == floating_point_mode()) == (mode == "default")


_IMPORT = """
import numpy as np
from _floating_point import mode
before = mode()
import pyconv
imported = mode()
pyconv.conv2d(np.ones((4, 16, 64, 64), np.float32), np.ones((16, 16, 3, 3), np.float32), num_threads=4)
print(before == imported == mode())
"""


@linux
@x86
def test_the_import_keeps_the_mode(isa: str) -> None:
    """No library that comes along was linked with -ffast-math, which would flush subnormals to zero."""
    ran = python("-c", _IMPORT, PYCONV_ISA=isa)
    assert ran.stdout == "True\n", ran.stderr


@pytest.mark.usefixtures("parallel_at_any_size")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_subnormal_numbers(dtype: str, isa: str) -> None:
    """Gradual underflow, on every thread: exact multiples of the smallest number give exact results."""
    smallest = np.finfo(dtype).smallest_subnormal
    for seed in seeds(40):
        case = replace(random_case(seed, 100_000), dtype=dtype, src_dtype="", out_layout="")
        call = Call(case, integers)
        expected = call.reference().astype(dtype)
        x, bias = (values * smallest for values in (call.x, call.bias))
        for threads in (1, 4):
            result = call.compute(x, call.weight, bias, None, isa, threads)
            told = difference(result, expected * smallest)
            assert not told, f"{told}: {case!r}"


_ROUNDINGS = """
import sys
from test_signals import differing_after
print(differing_after(sys.argv[1]))
"""


def differing_after(mode: str) -> int:
    """Count elements that differ from the right ones though the mode, in which threads were born, is over.

    For a process of its own: its threads keep the mode.
    """
    x = np.random.default_rng(0).random((2, 32, 128, 128))
    weight = np.full((32, 32, 3, 3), 1 / 3)
    if mode == "flush to zero":
        weight *= np.finfo(weight.dtype).smallest_normal / 8
    right = pyconv.conv2d(x, weight, num_threads=1)
    MODES[mode]()
    alone, together = (pyconv.conv2d(x, weight, num_threads=threads) for threads in (1, 8))
    restore()
    assert np.array_equal(alone, together), "not even in the mode do the threads agree"
    assert np.array_equal(alone, right) == (mode == "default"), "the mode had no effect"
    return sum(np.count_nonzero(pyconv.conv2d(x, weight, num_threads=8) != right) for _ in range(20))


@linux
@x86
@pytest.mark.parametrize("mode", ["default", "upward", "downward"])
def test_the_padding_counts_in_every_mode(mode: str, isa: str) -> None:
    """A zero of the padding and one of the image are the same: rounded down, 0.0 + -0.0 is -0.0."""
    x, weight = np.zeros((1, 3, 4, 4), np.float32), np.ones((20, 3, 3, 3), np.float32)
    weight[:, :, 0] = -1
    above = np.pad(x, ((0, 0), (0, 0), (1, 0), (0, 0)))
    MODES[mode]()
    try:
        with forced(isa):
            padded, given = pyconv.conv2d(x, weight, padding=((1, 0), (0, 0))), pyconv.conv2d(above, weight)
    finally:
        restore()
    np.testing.assert_array_equal(np.signbit(padded), np.signbit(given))


@linux
@x86
@pytest.mark.parametrize("mode", ["default", "upward", "downward", "flush to zero"])
def test_threads_follow_the_mode(mode: str) -> None:
    """A call rounds as its caller does, on every thread, whatever the mode was when the threads began."""
    ran = python("-c", _ROUNDINGS, mode)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) == 0

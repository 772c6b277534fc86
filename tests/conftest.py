"""What the tests share.

PYCONV_TEST_SCALE multiplies the number of random cases; those of a shorter run are among them.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from unittest import mock

# Read once, when OpenMP is loaded: its own limit is the number of cores, and the tests use more
# threads than a small machine has. Threads that outnumber the cores must not spin.
os.environ.setdefault("OMP_NUM_THREADS", "8")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# What a shell starts in the background ignores Ctrl-C, and so would every process that the tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import numpy as np
import pytest

import pyconv
from _allocations import forget
from pyconv import _blocks


def pytest_report_header() -> str:
    """Say what is tested, and how much."""
    scale = os.environ.get("PYCONV_TEST_SCALE", "1")
    return f"pyconv: {', '.join(pyconv.available_isas())}; PYCONV_TEST_SCALE={scale}"


@pytest.fixture(params=pyconv.available_isas())
def isa(request: pytest.FixtureRequest) -> str:
    """Each instruction set that is built and supported here."""
    return str(request.param)


@pytest.fixture(scope="module")
def parallel_at_any_size() -> Iterator[None]:
    """Even the smallest problem is split among its threads, where it would run on one."""
    with mock.patch.object(_blocks, "_FLOPS_PER_THREAD", 1):
        forget()
        yield
    forget()


@pytest.fixture(autouse=True)
def floating_point_state() -> Iterator[None]:
    """No call changes the caller's rounding or makes its subnormal numbers zero."""
    before = _arithmetic()
    yield
    assert _arithmetic() == before, "the floating-point state of the thread has changed"


def _arithmetic() -> bytes:
    """Compute quotients of both signs and of subnormal numbers, which tell every mode apart."""
    numerators = np.array([1.0, -1.0, np.finfo(float).smallest_normal, -np.finfo(float).smallest_subnormal])
    return (numerators / np.array([3.0, 3.0, 2.0, 1.0])).tobytes()

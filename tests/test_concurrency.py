"""Whether callers on many threads get the right bits, and leave the threads of others alone."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain, count, takewhile

import numpy as np
import pytest

import pyconv
from _callers import PATIENCE, inside, long_convolution, together
from _cases import random_case
from _problems import Call, seeds
from _processes import python
from pyconv import _dispatch

RNG = np.random.default_rng(0)
CALLERS = 16


@contextmanager
def meanwhile(*actions: Callable[[], object]) -> Iterator[None]:
    """Repeat each action on a thread of its own while the block runs; threads switch as often as they can."""
    done = threading.Event()
    begun = threading.Barrier(len(actions) + 1)

    def repeat(action: Callable[[], object]) -> None:
        begun.wait(PATIENCE)
        while not done.is_set():
            action()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(len(actions)) as pool:
            repeated = [pool.submit(repeat, action) for action in actions]
            begun.wait(PATIENCE)
            try:
                yield
            finally:
                done.set()
        for action in repeated:
            action.result()
    finally:
        sys.setswitchinterval(interval)


# --- layers ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("parallel_at_any_size")
def test_shared_and_private_layers() -> None:
    """Modes change under the callers of a shared layer, and its result does not."""
    shapes = [((1, 16, 12, 12), 3), ((2, 16, 9, 9), 1), ((3, 16, 7, 20), 5)]
    images = [RNG.standard_normal(shape, np.float32) for shape, _ in shapes]
    shared = [pyconv.Conv2d(16, 24, size, padding=1, rng=0).eval() for _, size in shapes]
    expected = [layer(x, num_threads=1) for layer, x in zip(shared, images, strict=True)]

    def switch() -> None:
        for layer in shared:
            layer.train()
            layer.eval()

    def call(caller: int) -> None:
        for turn in seeds(20):
            which = (caller + turn) % len(shapes)
            x, right = images[which], expected[which]
            private = pyconv.Conv2d(16, 24, shapes[which][1], padding=1, rng=0).train(caller % 2 == 0)
            for layer in (shared[which], private, private):
                np.testing.assert_array_equal(layer(x, num_threads=2 + caller % 3), right)

    with meanwhile(switch):
        together(call, CALLERS)


@pytest.mark.usefixtures("parallel_at_any_size")
@pytest.mark.parametrize("switching", [False, True])
def test_replaced_parameters(switching: bool) -> None:
    """A call sees the old parameters or the new ones, weight and bias of the same state, and no change is lost."""
    x = RNG.integers(-3, 4, (1, 4, 8, 8)).astype(np.float32)
    layer = pyconv.Conv2d(4, 8, 3, rng=0).eval()
    states = [{"weight": np.full((8, 4, 3, 3), n), "bias": np.full(8, 100 * n)} for n in (1, 2)]
    names = {}
    for n, state in enumerate(states):
        layer.load_state_dict(state)
        names[layer(x).tobytes()] = n
    assert len(names) == 2

    def replace() -> None:
        for n, state in enumerate(states, start=1):
            layer.load_state_dict(state)
            assert layer.weight[0, 0, 0, 0] == n, "another thread has undone the change"

    def switch() -> None:
        if switching:
            layer.train()
            layer.eval()

    def call(caller: int) -> set[int | str]:
        seen: set[int | str] = set()
        deadline = time.monotonic() + PATIENCE
        # All that many calls may be over before the others are given time: then as many more as it takes.
        for _ in chain(seeds(1000), takewhile(lambda _: len(seen) < 2 and time.monotonic() < deadline, count())):
            seen.add(names.get(layer(x, num_threads=1 + caller % 2).tobytes(), "a mixture"))
        return seen

    with meanwhile(replace, switch):
        assert set.union(*together(call, 4)) == {0, 1}


# --- other threads --------------------------------------------------------------------------------------


def test_python_goes_on_during_a_call() -> None:
    """Another thread runs while one is in a convolution: Python's lock is free meanwhile."""
    with inside(long_convolution()) as still:
        assert still()
        progress = sum(1 for _ in range(1000))
        assert still(), f"the call ended before {progress} steps were made"


def test_openmp_settings_are_left_alone() -> None:
    """What others have told OpenMP holds after a call, on the thread that calls and on others."""
    module = _dispatch.kernels().module

    def settings(_: int = 0) -> tuple[int, int]:
        before = module.max_threads()
        for threads in (1, 3, None):
            pyconv.conv2d(
                np.ones((4, 16, 64, 64), np.float32), np.ones((16, 16, 3, 3), np.float32), num_threads=threads
            )
        with pyconv.num_threads(2):
            assert module.max_threads() == before
        return before, module.max_threads()

    for before, after in [settings(), *together(settings, 3)]:
        assert before == after


_THREADS = """
import contextlib, os, sys, numpy as np, pyconv
from threadpoolctl import threadpool_limits
limit = int(sys.argv[1])
with threadpool_limits(limit) if limit else contextlib.nullcontext():
    before = len(os.listdir("/proc/self/task"))
    pyconv.conv2d(np.ones((4, 16, 64, 64), np.float32), np.ones((16, 16, 3, 3), np.float32))
    print(len(os.listdir("/proc/self/task")) - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
@pytest.mark.parametrize(("limit", "started"), [(0, 2), (1, 0), (2, 1)])
def test_threadpoolctl(limit: int, started: int) -> None:
    """A call starts no more threads than a limit allows, or than OMP_NUM_THREADS does where there is none (0)."""
    pytest.importorskip("threadpoolctl")
    ran = python("-c", _THREADS, limit, OMP_NUM_THREADS="3", OPENBLAS_NUM_THREADS="1")
    assert ran.stdout == f"{started}\n", ran.stderr


# --- small stacks ---------------------------------------------------------------------------------------

_SMALL_STACKS = """
import sys, threading
from test_concurrency import compute_on_small_stacks
compute_on_small_stacks(int(sys.argv[1]))
print("done")
"""


def compute_on_small_stacks(count: int) -> None:
    """Run random cases on every instruction set, the caller on a stack of 64 KiB."""
    calls = [Call(random_case(seed, 200_000)) for seed in range(count)]
    failures: list[Exception] = []

    def run(isa: str) -> None:
        try:
            for call in calls:
                for threads in (1, 4):
                    np.testing.assert_array_equal(
                        call.compute(call.x, call.weight, call.bias, None, isa, threads), expected[call]
                    )
        except Exception as error:
            failures.append(error)

    for isa in pyconv.available_isas():
        expected = {call: call.compute(call.x, call.weight, call.bias, None, isa) for call in calls}
        threading.stack_size(65536)
        thread = threading.Thread(target=run, args=[isa])
        thread.start()
        thread.join()
        threading.stack_size(0)
    for failure in failures:
        raise failure


def test_small_stacks() -> None:
    """Nothing large lies on a stack, neither the caller's nor those of OpenMP's threads."""
    ran = python("-c", _SMALL_STACKS, len(seeds(200)), OMP_STACKSIZE="64k")
    assert ran.stdout == "done\n", ran.stderr or f"ended with {ran.returncode}"


# --- the end of the interpreter -------------------------------------------------------------------------

_EXIT = """
import sys, threading, time, numpy as np, pyconv
kind, seed = sys.argv[1], int(sys.argv[2])
images = np.ones((1, 64, 512, 512) if kind == "long" else (1, 64, 16, 16), np.float32)
layer = pyconv.Conv2d(64, 64, 15, rng=0)

def call():
    while True:
        layer(images, num_threads=2)

if kind == "long":
    sys.setswitchinterval(1000)  # the main thread goes on where the others let it: in their calls
for _ in range(3):
    threading.Thread(target=call, daemon=True).start()
time.sleep(seed % 10 / 1000)
print("end", flush=True)
"""


@pytest.mark.parametrize("kind", ["long", "short"])
@pytest.mark.parametrize("seed", seeds(10))
def test_exit_during_a_call(kind: str, seed: int) -> None:
    """A program ends as if nothing were, though daemon threads are in the middle of a convolution, or between two."""
    ran = python("-c", _EXIT, kind, seed)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "end\n", "")

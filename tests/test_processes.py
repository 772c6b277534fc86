"""Whether worker processes compute, and compute the right bits, however they came to be.

GNU's OpenMP hangs in the child of a fork if the parent has run a parallel region. A child that hangs here is ended by
an alarm clock and seen by its exit status; a pool that has lost a worker gives no result in time.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

import pyconv
from _callers import PATIENCE, inside, long_convolution, together
from _problems import seeds
from _processes import HERE, environment, python
from pyconv import _threads

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((4, 16, 40, 40), np.float32)
WATCHDOG = 20  # seconds


def new_layer() -> pyconv.Conv2d:
    return pyconv.Conv2d(16, 32, 3, padding=1, rng=0).eval()


LAYER = new_layer()


def convolve(layer: pyconv.Conv2d = LAYER, images: np.ndarray = IMAGES) -> np.ndarray:
    """Compute on four threads, or, in the child of a fork, on one."""
    return layer(images, num_threads=4)


def exit_status_of_child(check: Callable[[], bool], watchdog: int = WATCHDOG) -> int:
    """Fork; return 0 if `check` holds in the child, 1 if not, -SIGALRM if it hangs."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status)
    signal.alarm(watchdog)
    holds = False
    try:
        holds = check()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(not holds)


def computes(expected: np.ndarray) -> Callable[[], bool]:
    """Make a check of all that a child may call: a layer the parent has used, a new one, a function, threads."""

    def check() -> bool:
        small = np.ascontiguousarray(IMAGES[:1, :, :7])
        results = [convolve(), convolve(new_layer()), *together(lambda _: convolve(), 3)]
        function = pyconv.conv2d(small, LAYER.weight, LAYER.bias, padding=1, num_threads=4)
        return all(np.array_equal(result, expected) for result in results) and np.array_equal(
            function[:, :, :6], expected[:1, :, :6]
        )

    return check


# --- os.fork ------------------------------------------------------------------------------------------


def test_the_watchdog_sees_a_hang() -> None:
    """The test of the tests."""
    assert exit_status_of_child(lambda: threading.Event().wait(), watchdog=1) == -signal.SIGALRM
    assert exit_status_of_child(lambda: False) == 1


def test_fork_after_a_parallel_convolution() -> None:
    expected = convolve()
    threads = len(os.listdir("/proc/self/task")) if sys.platform == "linux" else 0
    for _ in seeds(50):
        assert exit_status_of_child(computes(expected)) == 0
    np.testing.assert_array_equal(convolve(), expected)
    assert not _threads._forked, "the parent computes on one thread now"
    assert not threads or len(os.listdir("/proc/self/task")) == threads


def test_fork_of_a_fork() -> None:
    expected = convolve()
    check = computes(expected)
    assert exit_status_of_child(lambda: check() and exit_status_of_child(check) == 0) == 0


def test_fork_from_another_thread() -> None:
    """The thread that forks, the child's only one, has run a parallel convolution itself, or has not."""
    expected = convolve()
    check = computes(expected)

    def fork(index: int) -> list[int]:
        if index:
            convolve()
        return [exit_status_of_child(check) for _ in seeds(3)]

    assert not any(map(any, together(fork, 2)))


def test_fork_while_another_thread_convolves() -> None:
    """The other threads, and what they hold, do not exist in the child; the parent's call is none the worse."""
    expected, long = convolve(), long_convolution()
    undisturbed = long()
    check = computes(expected)
    results: list[np.ndarray] = []
    forks = 0
    while forks < len(seeds(5)):
        with inside(lambda: results.append(long())) as still:
            while still() and forks < len(seeds(5)):
                assert exit_status_of_child(check) == 0
                forks += 1
    assert results
    assert all(np.array_equal(result, undisturbed) for result in results)


def test_fork_while_another_thread_replaces_parameters() -> None:
    """A fork in the middle of a change leaves no layer locked or half changed."""
    layer, weight, bias = new_layer(), LAYER.weight.copy(), LAYER.bias.copy()
    expected = convolve()
    done = threading.Event()

    def replace() -> None:
        while not done.is_set():
            layer.train().load_state_dict({"weight": weight, "bias": bias})
            layer.eval()

    def check() -> bool:
        layer.weight = weight
        return np.array_equal(convolve(layer.train()), expected)

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        for _ in seeds(10):
            assert exit_status_of_child(check) == 0
    finally:
        done.set()
        thread.join()


_FIRST_CALLS = """
import sys, numpy as np, pyconv
images, weight, out = (np.ones(shape, np.float32) for shape in ((1, 3, 8, 8), (4, 3, 3, 3), (1, 4, 6, 6)))
layer = pyconv.Conv2d(3, 4, 3)
before = set(sys.modules)
layer.weight = weight
layer.load_state_dict(layer.state_dict())
for array in (out, out.view(type("Mine", (np.ndarray,), {}))):
    layer.eval()(images, out=array)
pyconv.conv2d(images, weight, padding=2, padding_mode="reflect", num_threads=2)
print(sorted(set(sys.modules) - before))
"""


def test_no_call_imports() -> None:
    """A fork in the middle of another thread's first import would leave the child waiting for its end."""
    ran = python("-c", _FIRST_CALLS)
    assert ran.stdout == "[]\n", ran.stderr


# --- pools --------------------------------------------------------------------------------------------


def call(pickled: bytes) -> tuple[np.ndarray, bool]:
    """Call a layer that came from another process; a worker that hangs ends."""
    signal.alarm(PATIENCE)
    layer, images = pickle.loads(pickled)
    result = convolve(layer, images)
    signal.alarm(0)
    return result, layer.training


def jobs() -> list[bytes]:
    """Return layers in both modes, pickled, with images to call them on."""
    return [pickle.dumps((new_layer().train(training), IMAGES)) for training in (False, True) * 3]


def check_results(results: list[tuple[np.ndarray, bool]]) -> None:
    expected = convolve()
    assert [training for _, training in results] == [False, True] * 3
    for result, _ in results:
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_multiprocessing(method: str) -> None:
    convolve()
    with multiprocessing.get_context(method).Pool(2) as pool:
        check_results(pool.map_async(call, jobs(), chunksize=1).get(PATIENCE))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_process_pool_executor(method: str) -> None:
    convolve()
    with ProcessPoolExecutor(2, multiprocessing.get_context(method)) as pool:
        check_results(list(pool.map(call, jobs(), timeout=PATIENCE)))


@pytest.mark.parametrize("backend", ["loky", "multiprocessing"])
def test_joblib(backend: str) -> None:
    joblib = pytest.importorskip("joblib")
    convolve()
    parallel = joblib.Parallel(n_jobs=2, backend=backend, timeout=PATIENCE)
    check_results(parallel(joblib.delayed(call)(job) for job in jobs()))


_WORKER = """
import numpy as np, pyconv
images = np.random.default_rng(0).standard_normal((2, 16, 64, 64), np.float32)
layer = pyconv.Conv2d(16, 32, 3, rng=0).eval()
expected = layer(images, num_threads=1)
for _ in range(50):
    assert np.array_equal(layer(images, num_threads=8), expected)
"""


def test_many_processes_of_many_threads() -> None:
    """8 processes of 8 threads each, however few the cores, end within a minute."""
    variables = environment(OMP_NUM_THREADS="8")
    workers = [subprocess.Popen([sys.executable, "-c", _WORKER], cwd=HERE, env=variables) for _ in range(8)]
    try:
        assert [worker.wait(PATIENCE) for worker in workers] == [0] * 8
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()

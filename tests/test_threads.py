"""Thread counts, forks, and callers with threads of their own."""

from __future__ import annotations

import math
import os
import threading

import numpy as np
import pytest

import pyconv
from _processes import python
from pyconv import _threads

RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((4, 16, 40, 40), np.float32)
WEIGHT = RNG.standard_normal((32, 16, 3, 3), np.float32)


def convolve(threads: int | None = None) -> np.ndarray:
    return pyconv.conv2d(IMAGES, WEIGHT, padding=1, num_threads=threads)


def available_processors() -> int:
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return math.ceil(min(processors, _threads._quota()))


@pytest.fixture
def room_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenMP allows more threads than a test asks for: torch, which may share it, sets its limit when imported."""
    monkeypatch.setattr(_threads, "_most", lambda: 64)


@pytest.mark.usefixtures("room_for_all")
def test_precedence() -> None:
    default = pyconv.get_num_threads()
    assert default >= 1
    try:
        pyconv.set_num_threads(3)
        assert pyconv.get_num_threads() == 3
        with pyconv.num_threads(5):
            assert pyconv.get_num_threads() == 5
            with pyconv.num_threads(2):
                assert pyconv.get_num_threads() == 2
            assert pyconv.get_num_threads() == 5
        assert pyconv.get_num_threads() == 3
    finally:
        pyconv.set_num_threads(None)
    assert pyconv.get_num_threads() == default


@pytest.mark.usefixtures("room_for_all")
def test_a_block_is_undone_by_an_error() -> None:
    before = pyconv.get_num_threads()
    with pytest.raises(ZeroDivisionError), pyconv.num_threads(before + 1):
        raise ZeroDivisionError
    assert pyconv.get_num_threads() == before


@pytest.mark.usefixtures("room_for_all")
def test_one_object_serves_several_blocks() -> None:
    before = pyconv.get_num_threads()
    some, others = pyconv.num_threads(before + 1), pyconv.num_threads(before + 2)
    counted = some(pyconv.get_num_threads)
    for _ in range(2):
        with some, others:
            assert pyconv.get_num_threads() == before + 2
            with some:
                assert pyconv.get_num_threads() == before + 1
                assert others(pyconv.get_num_threads)() == before + 2
                assert pyconv.get_num_threads() == before + 1
            assert pyconv.get_num_threads() == before + 2
        assert pyconv.get_num_threads() == before
        assert counted() == before + 1


@pytest.mark.usefixtures("room_for_all")
def test_a_block_is_of_its_own_thread() -> None:
    seen = []
    with pyconv.num_threads(7):
        other = threading.Thread(target=lambda: seen.append(pyconv.get_num_threads()))
        other.start()
        other.join()
    assert seen == [pyconv.get_num_threads()]


def test_fewer_threads_than_asked_for_do_all_the_work() -> None:
    code = """if True:
        import numpy as np, pyconv
        x, w = np.ones((1, 64, 30, 30), np.float32), np.ones((64, 64, 3, 3), np.float32)
        print(np.all(pyconv.conv2d(x, w, out=np.zeros((1, 64, 28, 28), np.float32), num_threads=8) == 576))
    """
    # The first leaves the number to the system, which gives no more threads than there are processors.
    for variable, value in (("OMP_DYNAMIC", "true"), ("OMP_THREAD_LIMIT", "1"), ("OMP_THREAD_LIMIT", "3")):
        ran = python("-c", code, **{"OMP_NUM_THREADS": "8", variable: value})
        assert (ran.returncode, ran.stdout) == (0, "True\n"), ran.stderr


@pytest.mark.parametrize("count", [0, -1])
def test_less_than_one_is_an_error(count: int) -> None:
    with pytest.raises(pyconv.ConvError, match=str(count)):
        pyconv.set_num_threads(count)
    with pytest.raises(pyconv.ConvError, match=str(count)):
        pyconv.num_threads(count)  # before the block
    with pytest.raises(pyconv.ConvError, match=str(count)):
        convolve(count)


@pytest.mark.parametrize("count", [1.5, "2", True])
def test_other_types_are_an_error(count: object) -> None:
    with pytest.raises(pyconv.ConvTypeError):
        pyconv.set_num_threads(count)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("variables", "default"),
    [
        ({"OMP_NUM_THREADS": "3"}, 3),
        ({"OMP_NUM_THREADS": "4,2"}, 4),
        ({"OMP_NUM_THREADS": "3", "OMP_THREAD_LIMIT": "2"}, 2),
        # OpenMP binds the thread that loads it, whose affinity mask then is of one processor.
        ({"OMP_NUM_THREADS": "", "OMP_PROC_BIND": "true"}, available_processors()),
        ({"OMP_NUM_THREADS": "", "OMP_PLACES": "threads"}, available_processors()),
    ],
)
def test_the_environment_sets_the_default_and_the_most(variables: dict[str, str], default: int) -> None:
    code = """if True:
        import numpy as np, pyconv
        print(pyconv.get_num_threads())
        with pyconv.num_threads(10**20):
            print(pyconv.get_num_threads())
        plan = pyconv.Conv2d(64, 64, 3).plan((8, 64, 60, 60))
        print(plan.blocks.threads)
    """
    ran = python("-c", code, **variables)
    assert ran.stdout.split() == [str(default)] * 3, ran.stderr


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_computes_the_same_bits() -> None:
    expected = convolve(4)  # the parent has run a parallel region: the child's would hang
    for _ in range(5):
        child = os.fork()
        if child == 0:
            same = np.array_equal(convolve(4), expected) and pyconv.get_num_threads() == 1
            os._exit(0 if same else 1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
    np.testing.assert_array_equal(convolve(4), expected)


def test_one_layer_called_by_many_threads() -> None:
    layer = pyconv.Conv2d(16, 32, 3, padding=1, rng=0).eval()
    expected = layer(IMAGES)
    wrong = []

    def call() -> None:
        for _ in range(20):
            if not np.array_equal(layer(IMAGES), expected):
                wrong.append(threading.get_ident())

    callers = [threading.Thread(target=call) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong

"""Whether anything grows with the number of calls, and whether a lack of memory is an error that passes."""

from __future__ import annotations

import json
import shutil
import sys
import sysconfig
from collections.abc import Callable

import pytest

from _allocations import LEAST
from _problems import seeds
from _processes import HERE, python

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")

MIB = 1024  # KiB
# A Python without the GIL has an allocator of its own: it keeps more (measured: after 4,000 calls of random shapes as
# much as after 40,000), and no other can take its place.
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
CALLS = {"one_shape": 20_000, "random_shapes": 4_000, "errors": 4_000, "layers": 4_000, "callers": 400}


@pytest.mark.parametrize("kind", CALLS)
def test_nothing_grows(kind: str, record_property: Callable[[str, object], None]) -> None:
    """Memory is constant once caches are full, to within the allocator's humour; so are threads and open files."""
    count = len(seeds(CALLS[kind]))
    ran = python(HERE / "_soak.py", kind, count, MALLOC_ARENA_MAX="1")
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    record_property(f"{count} calls", told)
    assert told["half"] < MIB / (2 if FREE_THREADED else 4) + count / 1000, told
    assert told["total"] < 8 * MIB, told
    (threads, files), (threads_after, files_after) = told["before"], told["after"]
    assert files_after == files, told
    assert threads_after <= threads + 8, told  # some may be about to end


_LIMITED = """
import ctypes, resource, sys
import numpy as np, pyconv
from pathlib import Path

limit = int(sys.argv[1]) * 2**20


def short(call):
    ctypes.CDLL(None).malloc_trim(0)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + limit, resource.RLIM_INFINITY))
    try:
        call()
    except MemoryError:
        return True
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return False


small = np.ones((1, 8, 48, 48), np.float32)
layer = pyconv.Conv2d(8, 16, 3, padding=1, rng=0).eval()
expected = layer(small, num_threads=1)
# More than the limit for the result, for packed weights, and, where the limit is that low, for scratch.
more = limit + 2**24
side = int((more / 64) ** 0.5)
large = np.ones((1, 8, side, side), np.float32)
wide, filters, out = (np.ones((n, 64, side, side), np.float32) for n, side in ((1, 224), (64, 3), (1, 222)))
heavy = pyconv.Conv2d(64, more // 4 // 9 // 64, 3, rng=0).eval()
short_of = {
    "result": lambda: layer(large, num_threads=threads),
    "weights": lambda: heavy(np.ones((1, 64, 3, 3), np.float32), num_threads=threads),
}
if limit <= 2**20:
    short_of["scratch"] = lambda: pyconv.conv2d(wide, filters, out=out, num_threads=threads)
for threads in (16, 2, 16):  # all threads are there; a lack of them is another question
    pyconv.conv2d(wide, filters, num_threads=threads)
for name, call in short_of.items():
    assert short(call), f"there was memory for {name}"
    for n in (1, 2, 16):
        assert np.array_equal(layer(small, num_threads=n), expected), f"another result, after {name}"
call()  # now there is memory
print("done")
"""


@pytest.mark.parametrize("mib", [1, 8, 64])
def test_lack_of_memory(mib: int) -> None:
    """With so little left it is a MemoryError, whatever the memory is for; with more the same call works."""
    # Blocks from 64 KiB on are the system's, so that none is left over from earlier calls.
    variables = {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "16", "OMP_STACKSIZE": "64k"}
    ran = python("-c", _LIMITED, mib, **variables)
    assert ran.stdout == "done\n", ran.stderr or f"ended with {ran.returncode}"


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
@pytest.mark.skipif(FREE_THREADED, reason="its allocator cannot be replaced by one that fails")
def test_each_allocation_failing() -> None:
    """An error, nothing lost, the next call right."""
    ran = python(HERE / "_allocations.py")
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
    counts = json.loads(ran.stdout)
    assert len(counts) == 10
    assert all(each > 100 or LEAST > 0 for each, _ in counts.values()), counts
    assert all(large >= 1 for _, large in counts.values()), counts


_NO_THREADS = """
import resource
import numpy as np, pyconv
from pathlib import Path

images, weight = np.ones((1, 64, 64, 64), np.float32), np.ones((64, 64, 3, 3), np.float32)
expected = pyconv.conv2d(images, weight, num_threads=1)
size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 8 * 2**20, resource.RLIM_INFINITY))
try:
    assert np.array_equal(pyconv.conv2d(images, weight, num_threads=4), expected)
except MemoryError:
    pass
print("done")
"""


@pytest.mark.xfail(
    strict=True, raises=AssertionError, reason="GNU's OpenMP ends the process if it cannot start a thread"
)
def test_lack_of_memory_for_threads() -> None:
    """There is memory for the call, and none for the stacks of its threads: an error, or a call on fewer."""
    ran = python("-c", _NO_THREADS, OMP_NUM_THREADS="4")
    assert ran.stdout == "done\n", ran.stderr

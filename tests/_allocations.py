"""Let each allocation of a call fail in turn: an error, nothing lost, the next call right.

    python tests/_allocations.py

The C library's allocator is replaced by one that refuses when told to (compiled here and loaded before it), and Python
is told to take its objects from there, too: so it is every allocation of the process, Python's, NumPy's and the
kernels', not only those that the library makes itself. The program starts itself again under it and prints a line of
JSON: for each kind of call how many allocations it makes, each of which has failed once, and how many are large.

Large ones, of a page and more, are arrays and the kernels' scratch: without them it is a MemoryError, and not one stays
behind. Of small ones Python and NumPy make hundreds, and where these fail they may say SystemError or RuntimeError
(NumPy 2.4 does where overlaps are computed, CPython 3.11 where a lock is made), and lose some. test_soak.py runs this.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SHIM = """
#include <errno.h>
#include <malloc.h>
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);
static long left = -1;  /* allocations until one is refused; negative: none is */
static size_t least;    /* the size that counts */
static long live;       /* large blocks */
void refuse_after(long allocations, size_t size) { left = allocations; least = size; }
long stop_refusing(void) { long unused = left; left = -1; return unused; }
long live_blocks(void) { return live; }
static int refuses(size_t size) { return left >= 0 && size >= least && left-- == 0; }
static int is_large(void *block) { return malloc_usable_size(block) >= 4096; }
static void *counted(void *block) { live += is_large(block); return block; }
void *malloc(size_t size) { return refuses(size) ? NULL : counted(__libc_malloc(size)); }
void *calloc(size_t n, size_t size) { return refuses(n * size) ? NULL : counted(__libc_calloc(n, size)); }
void *realloc(void *block, size_t size) {
    if (!block)
        return malloc(size);
    if (refuses(size))
        return NULL;
    live -= is_large(block);
    return counted(__libc_realloc(block, size));
}
int posix_memalign(void **block, size_t alignment, size_t size) {
    return !refuses(size) && (*block = counted(__libc_memalign(alignment, size))) ? 0 : ENOMEM;
}
void free(void *block) { live -= is_large(block); __libc_free(block); }
"""
LARGE = 4096
# CPython 3.12 itself crashes where it finds no memory for a function (PyFunction_NewWithQualName, of nested ones).
LEAST = LARGE if sys.version_info[:2] == (3, 12) else 0

Call = Callable[[], Any]


def start_under_shim() -> int:
    """Run this program again with the allocator replaced; return its exit status."""
    with tempfile.TemporaryDirectory() as folder:
        source, shim = Path(folder, "shim.c"), Path(folder, "shim.so")
        source.write_text(SHIM)
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", shim, source], check=True)
        variables = {"LD_PRELOAD": str(shim), "PYTHONMALLOC": "malloc", "OPENBLAS_NUM_THREADS": "1"}
        return subprocess.run([sys.executable, __file__, "child"], env={**os.environ, **variables}).returncode


def kinds() -> Iterator[tuple[str, Call]]:
    """Yield kinds of calls, each on one thread: OpenMP ends the process where it finds no memory for more."""
    import numpy as np

    import pyconv

    rng = np.random.default_rng(0)

    # Images, weights, results and scratch of 4 KiB and more.
    def function(dtype: str = "float32", **settings: Any) -> Call:
        x = rng.integers(-8, 8, (1, 16, 12, 12)).astype(dtype)
        weight = rng.integers(-8, 8, (16, 16 // settings.get("groups", 1), 3, 3)).astype(dtype)
        return lambda: pyconv.conv2d(x, weight, num_threads=1, **settings)

    def layer(x: Any, train: bool = False, **settings: Any) -> Call:
        def call() -> Any:
            made = pyconv.Conv2d(16, 16, 3, rng=0, **settings).train(train)
            made.load_state_dict(state)
            return made(x, num_threads=1)

        state = pyconv.Conv2d(16, 16, 3, rng=1).state_dict()
        return call

    image = rng.standard_normal((1, 16, 12, 12), np.float32)
    weight = rng.standard_normal((16, 16, 3, 3), np.float32)
    identity = np.eye(16, dtype=np.float32).reshape(16, 16, 1, 1)
    yield "dense", function(padding=1)
    yield "depthwise", function(groups=16, stride=2)
    yield "reflected", function(padding=2, padding_mode="reflect")
    yield "int64", function(dtype="int64")
    yield "float16", function(dtype="float16")
    yield "complex64", function(dtype="complex64", padding="same")
    yield "into itself", lambda: pyconv.conv2d(same := image.copy(), identity, out=same, num_threads=1)
    yield "big-endian", lambda: pyconv.conv2d(image.astype(">f4"), weight, num_threads=1)
    yield "layer", layer(image)
    yield "layer, training", layer(image, train=True)


def forget() -> None:
    """Empty the library's caches, so that a call makes everything anew."""
    for name, module in list(sys.modules.items()):
        if name.startswith("pyconv"):
            for cached in vars(module).values():
                if hasattr(cached, "cache_clear"):
                    cached.cache_clear()


def has_refused(libc: ctypes.CDLL) -> bool:
    """Stop refusing; return whether an allocation has been refused since it began."""
    try:
        return bool(libc.stop_refusing() < 0)
    except MemoryError:  # that was the one
        return False


def fail_each(libc: ctypes.CDLL, call: Call, least: int, allowed: tuple[type[Exception], ...]) -> int:
    """Fail each of a call's allocations of this size and more; return how many there are."""
    expected = call().tobytes()
    for _ in range(3):
        call()
    number, settled = 0, 0
    while True:
        forget()
        if number == 0:  # what is made once is there by now
            gc.collect()
            settled = libc.live_blocks()
        libc.refuse_after(number, least)
        try:
            result = call()
        except allowed:
            result = None
        failed = has_refused(libc)
        assert result is None or result.tobytes() == expected, f"another result without allocation {number}"
        del result
        assert call().tobytes() == expected, f"another result after allocation {number} had failed"
        if not failed:
            break
        number += 1
    forget()
    gc.collect()
    left_behind = libc.live_blocks() - settled
    # Python itself loses one now and then: what a frame held that it failed to make.
    assert left_behind <= number // 100, f"{left_behind} large blocks were left behind by {number} failures"
    return number


def main() -> None:
    """Go through all kinds of calls."""
    libc = ctypes.CDLL(None)
    libc.refuse_after.argtypes = [ctypes.c_long, ctypes.c_size_t]
    libc.stop_refusing.restype = libc.live_blocks.restype = ctypes.c_long
    counts = {}
    for name, call in kinds():
        print(name, file=sys.stderr)
        large = fail_each(libc, call, LARGE, (MemoryError,))
        counts[name] = fail_each(libc, call, LEAST, (MemoryError, RuntimeError, SystemError)), large
    print(json.dumps(counts))


if __name__ == "__main__":
    if sys.argv[1:] == ["child"]:
        main()
    else:
        sys.exit(start_under_shim())

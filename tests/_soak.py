"""Repeat one kind of call and print what has grown meanwhile.

    python tests/_soak.py KIND COUNT

One line of JSON: by how many KiB resident memory has grown over all calls, and in the second half of them by a line
fitted to it; threads and open files at the ends. A program of its own, for in another one everything else grows too;
test_soak.py runs it.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

import pyconv

POINTS = 40  # measurements
RNG = np.random.default_rng(0)
IMAGE = RNG.standard_normal((1, 4, 9, 9), np.float32)
LAYER = pyconv.Conv2d(4, 8, 3, rng=0).eval()
TRAINED = pyconv.Conv2d(4, 8, 3, rng=0)


def resident() -> int:
    """Return the resident memory in KiB, without what the allocator merely keeps."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def one_shape() -> None:
    LAYER(IMAGE)
    TRAINED(IMAGE)


def random_shapes() -> None:
    ic, oc, height, width, kernel = (int(n) for n in RNG.integers(1, (9, 33, 40, 40, 6)))
    pyconv.conv2d(np.ones((1, ic, height, width), np.float32), np.ones((oc, ic, kernel, kernel), np.float32), padding=2)


def errors() -> None:
    for arguments in ((IMAGE, LAYER.weight[:, :2]), (IMAGE, "weight"), (IMAGE, LAYER.weight, LAYER.bias[:3])):
        with suppress(ValueError, TypeError):
            pyconv.conv2d(*arguments)
    with suppress(MemoryError):
        pyconv.conv2d(IMAGE, LAYER.weight, padding=2**20)  # a result of 128 TiB


def layers() -> None:
    layer = pyconv.Conv2d(4, 8, int(RNG.integers(1, 6)), rng=0).eval()
    layer(IMAGE)
    layer.train()(IMAGE)
    layer.eval().load_state_dict(layer.state_dict())


def callers() -> None:
    """Call on a thread that ends, and with it those of OpenMP's that worked for it."""
    images = np.ones((2, 16, 64, 64), np.float32)
    weight = np.ones((16, 16, 3, 3), np.float32)
    thread = threading.Thread(target=pyconv.conv2d, args=(images, weight), kwargs={"num_threads": 3})
    thread.start()
    thread.join()


KINDS: dict[str, Callable[[], None]] = {
    call.__name__: call for call in (one_shape, random_shapes, errors, layers, callers)
}


def handles() -> list[int]:
    """Count threads and open files."""
    return [len(os.listdir(f"/proc/self/{kind}")) for kind in ("task", "fd")]


def main(kind: str, count: int) -> None:
    call = KINDS[kind]
    pyconv.conv2d(np.ones((2, 16, 64, 64), np.float32), np.ones((16, 16, 3, 3), np.float32), num_threads=3)
    for _ in range(count // POINTS):
        call()
    before, sizes = handles(), [resident()]
    for _ in range(POINTS):
        for _ in range(count // POINTS):
            call()
        sizes.append(resident())
    half = sizes[POINTS // 2 :]
    slope = float(np.polyfit(range(len(half)), half, 1)[0])
    print(json.dumps({"total": sizes[-1] - sizes[0], "half": slope * len(half), "before": before, "after": handles()}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

"""The process that one contender runs in.

    python -m pyconv.bench.worker '{"name": "torch", "threads": 2, "cpus": [0, 1], "isa": "x86-64-v3"}'

It reads requests from its standard input, a line of JSON each, and answers each with a line. The first word is its own:
it has started, or why not. Every contender has a process to itself, because the threads of several OpenMP runtimes in
one process take the cores from each other, and because a crash is then one row and not the end of the run.

=============  =======================================================================================================
``prepare``    make arrays and call of a layer (``key`` names it from then on), check the result, fix how many calls
               make a sample
``time``       an untimed call, where it is short, and a sample; answers the seconds of one call
``release``    forget a layer
``peak``       a sample of the multiply-add peak, in GFLOP/s, with all threads (this and the following: pyconv only)
``bandwidth``  of a large copy, in GB/s, with all threads
``tile``       one tile alone, in GFLOP/s
``first``      prepare, but time the very first call and the one after it
``memory``     by how many bytes a call raises the peak of resident memory, its arrays not counted
``shapes``     what a thousand calls of a thousand shapes do to memory and to time
=============  =======================================================================================================
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import repeat
from typing import Any

from pyconv.bench import adapters
from pyconv.bench.layer import Layer

# glibc's numbers of the two options (malloc.h).
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

_SHORT_CALL = 200e-6  # seconds; a sample of shorter calls is a loop of them,
_SAMPLE = 500e-6  # at least this long
_LONG_CALL = 0.5  # longer calls need no other one before them to warm up

DTYPES = {"f32": "float32", "f64": "float64"}


def keep_freed_memory() -> None:
    """Keep freed memory in the process, where the C library allows it.

    Otherwise every large result may come from fresh pages, which cost more than some layers: for whichever contender
    the heap happens to be so, not by any merit of the other.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_TRIM_THRESHOLD, 1 << 30)
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)


def seconds(call: Callable[[], object], calls: int = 1) -> float:
    """Time one call, or the average of several in a row."""
    start = time.perf_counter()
    for _ in repeat(None, calls):
        call()
    return (time.perf_counter() - start) / calls


@dataclass
class Prepared:
    """A call that can be timed: how many of them make a sample, and whether one goes before."""

    call: Callable[[], object]
    calls: int
    warm: bool

    @classmethod
    def of(cls, call: Callable[[], object]) -> Prepared:
        """Look how long a call takes, after the first one."""
        once = seconds(call)
        if once < 10 * _SHORT_CALL:
            once = min(once, seconds(call), seconds(call))
        calls = 1 if once >= _SHORT_CALL else int(_SAMPLE / once) + 1
        return cls(call, calls, once < _LONG_CALL)

    def sample(self) -> float:
        """Time a call as decided."""
        if self.warm:
            self.call()
        return seconds(self.call, self.calls)


class Worker:
    """A contender and the layers that it has prepared. Its public methods are the requests."""

    def __init__(self, name: str, threads: int, isa: str) -> None:
        self._threads = threads
        self._own = name == "pyconv"
        self._prepared: dict[int, Prepared] = {}
        if self._own:
            from pyconv._dispatch import forced

            self._subject = importlib.import_module("pyconv.bench.subject")
            self._isa = forced(isa)
            self._isa.__enter__()  # for the life of this process
        else:
            self._subject = adapters.adapter(name)
        self._subject.limit_threads(threads)

    def prepare(self, key: int, layer: dict[str, Any], dtype: str, layout: str, weights: str) -> dict[str, Any]:
        """Build a call, check its result, and decide how to time it."""
        from pyconv.bench.reference import largest_error

        shape = Layer(**layer)
        x, w, b, call = self._build(shape, dtype, layout, weights)
        approximate = bool(self._subject.APPROXIMATE)
        error = largest_error(shape, x, w, b, self._result(shape, call()), approximate=approximate)
        answer: dict[str, Any] = {"error": error}
        if self._own:
            from pyconv.bench.yardsticks import tiles_of

            plan = self._subject.plan_of(call)
            answer |= {
                "plan": str(plan),
                "plan_short": self._subject.short(plan),
                "workspace": plan.scratch_bytes,
                "packed": plan.packed_size * w.itemsize,
                "tiles": tiles_of(plan),
            }
        self._prepared[key] = prepared = Prepared.of(call)
        gc.collect()
        return answer | {"calls": prepared.calls}

    def time(self, key: int) -> dict[str, Any]:
        """Time one sample of a prepared layer."""
        return {"seconds": self._prepared[key].sample()}

    def release(self, key: int) -> dict[str, Any]:
        """Free the arrays of a layer."""
        self._prepared.pop(key, None)
        gc.collect()
        return {}

    def peak(self, dtype: str) -> dict[str, Any]:
        """Sample the multiply-add peak."""
        from pyconv.bench.yardsticks import peak_gflops

        return {"gflops": peak_gflops(DTYPES[dtype], self._threads)}

    def bandwidth(self) -> dict[str, Any]:
        """Measure the bandwidth of a copy."""
        from pyconv.bench.yardsticks import bandwidth_gbytes

        return {"gbytes": bandwidth_gbytes(self._threads)}

    def tile(self, tile: list[Any], dtype: str) -> dict[str, Any]:
        """Sample one tile alone."""
        from pyconv.bench.yardsticks import tile_gflops

        role, nv, m, kw = tile
        return {"gflops": tile_gflops((role, nv, m, kw), DTYPES[dtype])}

    def _build(self, layer: Layer, dtype: str, layout: str, weights: str) -> tuple[Any, Any, Any, Callable[[], Any]]:
        from pyconv.bench.subject import operands

        x, w, b = operands(layer, DTYPES[dtype], layout)
        call = self._subject.prepare(layer, x, w, b, weights if self._own else layout)
        return x, w, b, call

    def _result(self, layer: Layer, result: Any) -> Any:
        import numpy as np

        as_array = getattr(self._subject, "as_array", np.asarray)
        return as_array(result).reshape(layer.output_shape)


def _answer(worker: Worker, request: dict[str, Any]) -> dict[str, Any]:
    """Carry out one request; any error is an answer, too."""
    try:
        return {"ok": True, **getattr(worker, request.pop("do"))(**request)}
    except Exception as error:
        return _failure(error)


def _failure(error: Exception) -> dict[str, Any]:
    kind = type(error).__name__
    first = next(iter(str(error).splitlines()), "").strip()
    return {"ok": False, "why": first if kind == "UnsupportedError" else f"{kind}: {first}"[:300]}


def main() -> None:
    """Answer requests until there are no more."""
    config = json.loads(sys.argv[1])
    # What libraries print goes to the standard error.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, config["cpus"])
    if config["keep_memory"]:
        keep_freed_memory()
    worker = None
    try:
        worker = Worker(config["name"], config["threads"], config["isa"])
        first: dict[str, Any] = {"ok": True}
    except Exception as error:
        first = _failure(error)
    print(json.dumps(first), file=answers, flush=True)
    if worker is None:
        return
    gc.disable()
    for line in sys.stdin:
        print(json.dumps(_answer(worker, json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()

"""The process that one contender runs in.

    python -m pyconv.bench.worker '{"name": "torch", "threads": 2, "isa": "", "keep_memory": true}'

It reads requests from its standard input, a line of JSON each, and answers each with a line. The first word is its own:
it has started, or why not. Every contender has a process to itself, because the threads of several OpenMP runtimes in
one process take the cores from each other, and because a crash is then one row and not the end of the run.

=============  =======================================================================================================
``prepare``    make arrays and call of a layer (``key`` names it from then on), check the result, fix how many calls
               make a sample, and how many samples are taken
``time``       untimed calls for some milliseconds, and samples; answers the seconds of one call, the median of these.
               Of ``evicted`` MiB, so much other memory is read before each call.
``release``    forget a layer
``peak``       a sample of the multiply-add peak, in GFLOP/s, with all threads (pyconv only, as are the next four)
``whole``      of a tile that takes the cores as a whole, in GFLOP/s, with all threads
``bandwidth``  of a large copy, in GB/s, with all threads
``plan``       the plan of a layer, and the tiles that it runs
``tile``       one tile alone, in GFLOP/s
``first``      time the very first call of a layer, the one after it, and those after that
``memory``     by how many bytes a call raises the peak of resident memory, its arrays not counted
``shapes``     what a thousand calls of a thousand shapes do to memory and to time
=============  =======================================================================================================
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import Any

import numpy as np

import pyconv
from pyconv._dispatch import forced
from pyconv._tiles import item_size
from pyconv.bench import adapters, processors, residence, subject
from pyconv.bench.errors import UnsupportedError
from pyconv.bench.layer import Layer
from pyconv.bench.operands import DTYPES, operands
from pyconv.bench.reference import largest_error
from pyconv.bench.yardsticks import bandwidth_gbytes, peak_gflops, tile_gflops, tiles_of, whole_cores_gflops

# glibc's numbers of the two options (malloc.h).
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

_SHORT_CALL = 200e-6  # seconds; a sample of shorter calls is a loop of them,
_SAMPLE = 500e-6  # at least this long
# What runs beside a virtual machine takes its core for half a millisecond to one, 15 % of the time (measured: the peak
# of half milliseconds is 10 to 35 % lower then). It hits few of as many samples as fit this time, and not their median.
_ALL_SAMPLES, _MOST_SAMPLES = 0.005, 9
_EVICTED_CALLS = 8  # but only so many calls where the caches are swept before each
_LONG_CALL = 0.5  # longer calls need no other one before them to warm up
# The others' turn has left neither arrays nor code in the caches (measured: the second call after it takes up to twice
# the time of the tenth).
_WARM_UP = 0.005
# Threads that have slept wake up on few processors, and it takes the system some milliseconds to spread them.
_SPREAD = 0.03

# Used to call whatever is to be called once before memory is measured.
_SMALL = Layer(mb=1, g=1, ic=8, ih=8, iw=8, oc=8, oh=8, ow=8, kh=3, kw=3, sh=1, sw=1, dh=1, dw=1, pt=1, pl=1)


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
    """A call that can be timed: how many make a sample, how many samples there are, how long others go before."""

    call: Callable[[], object]
    calls: int
    samples: int
    warm_up: float

    @classmethod
    def of(cls, call: Callable[[], object], threads: int) -> Prepared:
        """Look how long a call takes, after the first one."""
        once = seconds(call)
        if once < 10 * _SHORT_CALL:
            once = min(once, seconds(call), seconds(call))
        calls = 1 if once >= _SHORT_CALL else int(_SAMPLE / once) + 1
        samples = max(1, min(_MOST_SAMPLES, int(_ALL_SAMPLES / (calls * once))))
        samples -= 1 - samples % 2  # of an even number the median is a mean
        warm_up = _WARM_UP if threads == 1 else _SPREAD
        return cls(call, calls, samples, warm_up if once < _LONG_CALL else -1.0)

    def sample(self, evict: Callable[[], object] | None = None) -> float:
        """Time a call as decided, or, with something to be done before each call, fewer of them."""
        if self.warm_up >= 0:
            end = time.perf_counter() + self.warm_up
            self.call()
            while time.perf_counter() < end:
                self.call()
        if evict is None:
            return statistics.median(seconds(self.call, self.calls) for _ in range(self.samples))
        samples = []
        for _ in range(min(self.calls * self.samples, _EVICTED_CALLS)):
            evict()
            samples.append(seconds(self.call))
        return statistics.median(samples)


class Worker:
    """A contender and the layers that it has prepared. Its public methods are the requests."""

    def __init__(self, name: str, threads: int, isa: str) -> None:
        self._threads = threads
        self._own = name == "pyconv"
        self._prepared: dict[int, Prepared] = {}
        if self._own:
            self._subject: Any = subject
            self._isa = forced(isa)
            self._isa.__enter__()  # for the life of this process
        else:
            self._subject = adapters.adapter(name)
        self._subject.limit_threads(threads)

    def prepare(self, key: int, layer: dict[str, Any], dtype: str, layout: str, weights: str) -> dict[str, Any]:
        """Build a call, check its result, and decide how to time it."""
        shape = Layer(**layer)
        x, w, b, call = self._build(shape, dtype, layout, weights)
        approximate = bool(self._subject.APPROXIMATE)
        error = largest_error(shape, x, w, b, self._result(shape, call()), approximate=approximate)
        answer = {"error": error, **(self._facts(call) if self._own else {})}
        self._prepared[key] = Prepared.of(call, self._threads)
        gc.collect()
        return answer

    def time(self, key: int, evicted: int = 0) -> dict[str, Any]:
        """Time one sample of a prepared layer, after so many MiB of other memory."""
        evict = partial(processors.evict, evicted << 20, self._threads) if evicted else None
        return {"seconds": self._prepared[key].sample(evict)}

    def release(self, key: int) -> dict[str, Any]:
        """Free the arrays of a layer."""
        self._prepared.pop(key, None)
        gc.collect()
        return {}

    def peak(self, dtype: str) -> dict[str, Any]:
        """Sample the multiply-add peak."""
        return {"gflops": peak_gflops(DTYPES[dtype].accumulator, self._threads)}

    def whole(self) -> dict[str, Any]:
        """Sample a tile that takes the cores as a whole."""
        return {"gflops": whole_cores_gflops(self._threads)}

    def bandwidth(self) -> dict[str, Any]:
        """Measure the bandwidth of a copy."""
        return {"gbytes": bandwidth_gbytes(self._threads)}

    def plan(self, layer: dict[str, Any], dtype: str, layout: str, weights: str) -> dict[str, Any]:
        """Look at the plan of a layer."""
        return self._facts(self._build(Layer(**layer), dtype, layout, weights)[3])

    def tile(self, tile: list[Any], dtype: str) -> dict[str, Any]:
        """Sample one tile alone."""
        role, nv, m, kw = tile
        return {"gflops": tile_gflops((role, nv, m, kw), DTYPES[dtype].accumulator)}

    def first(self, layer: dict[str, Any], dtype: str, layout: str, weights: str, rounds: int) -> dict[str, Any]:
        """Time the first call in this process, the second, and the median of later ones."""
        call = self._build(Layer(**layer), dtype, layout, weights)[3]
        first, second = seconds(call), seconds(call)
        prepared = Prepared.of(call, self._threads)
        steady = statistics.median(prepared.sample() for _ in range(rounds))
        return {"first": first, "second": second, "steady": steady}

    def denormals(self, layer: dict[str, Any], dtype: str, layout: str, weights: str, rounds: int) -> dict[str, Any]:
        """Time a layer on ordinary and on subnormal numbers, these, by pyconv, as zeros, too."""
        if dtype not in ("f32", "f64"):
            raise UnsupportedError("subnormal numbers are measured in f32 and f64")
        shape = Layer(**layer)
        x, w, b, ordinary = self._build(shape, dtype, layout, weights)
        # Pixels of some hundred units in the last place: with weights well below 1, products and sums are less.
        tiny = 256 * np.finfo(x.dtype).smallest_subnormal
        subnormal = self._call(shape, x * tiny, w, b * tiny, layout, weights)
        calls = {"ordinary": ordinary, "subnormal": subnormal}
        if self._own:
            calls["flushed"] = lambda: _flushed(subnormal)
        prepared = {name: Prepared.of(call, self._threads) for name, call in calls.items()}
        samples: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(rounds):
            for name, each in prepared.items():
                samples[name].append(each.sample())
        return {"seconds": samples}

    def memory(self, layer: dict[str, Any], dtype: str, layout: str, weights: str) -> dict[str, Any]:
        """Measure by how much a call raises the peak of resident memory, beside its result.

        ``kept`` counts from before the call was built: what stays in memory for the next call is part of it.
        """
        shape = Layer(**layer)
        # What is there once and for all: the code, the threads and their stacks.
        self._build(_SMALL, dtype, layout, weights)[3]()
        x, w, b = operands(shape, dtype, layout)
        start = residence.reset_peak()
        call = self._call(shape, x, w, b, layout, weights)
        size = self._result(shape, call()).nbytes
        facts = self._facts(call) if self._own else {}
        before = residence.reset_peak()
        result = call()
        end = residence.peak()
        del result
        peaks = {"peak": max(0, end - before - size), "kept": max(0, end - start - size)}
        return {**facts, **peaks, "arrays": x.nbytes + w.nbytes + b.nbytes + size}

    def shapes(self, count: int) -> dict[str, Any]:
        """Convolve images of so many different sizes, twice: once when they are new, once when they are not."""
        rng = np.random.default_rng(0)
        rows = 16 + np.arange(count) % 40
        cols = 16 + np.arange(count) // 40
        w = rng.standard_normal((8, 8, 3, 3), np.float32)
        largest = rng.standard_normal((1, 8, int(rows.max()), int(cols.max())), np.float32)
        images = [largest[:, :, :i, :j].copy() for i, j in rng.permutation(np.stack([rows, cols], 1))]
        pyconv.conv2d(largest, w)
        before = residence.now()
        new = [seconds(lambda x=x: pyconv.conv2d(x, w, padding=1)) for x in images]  # type: ignore[misc]
        growth = residence.now() - before
        again = [seconds(lambda x=x: pyconv.conv2d(x, w, padding=1)) for x in images]  # type: ignore[misc]
        parts = {"first": new[:100], "last": new[-100:], "new": new, "again": again}
        return {"growth": growth, **{name: statistics.median(part) for name, part in parts.items()}}

    def _facts(self, call: Callable[[], Any]) -> dict[str, Any]:
        """Describe the plan that a call carries out."""
        plan = self._subject.plan_of(call)
        return {
            "plan": str(plan),
            "plan_short": self._subject.short(plan),
            "workspace": plan.scratch_bytes,
            "packed": plan.packed_size * item_size(plan.problem),
            "tiles": tiles_of(plan),
        }

    def _build(self, layer: Layer, dtype: str, layout: str, weights: str) -> tuple[Any, Any, Any, Callable[[], Any]]:
        if not self._own and dtype not in self._subject.DTYPES:
            raise UnsupportedError(f"no {DTYPES[dtype].name} on the CPU")
        x, w, b = operands(layer, dtype, layout)
        return x, w, b, self._call(layer, x, w, b, layout, weights)

    def _call(self, layer: Layer, x: Any, w: Any, b: Any, layout: str, weights: str) -> Callable[[], Any]:
        call: Callable[[], Any] = self._subject.prepare(layer, x, w, b, weights if self._own else layout)
        return call

    def _result(self, layer: Layer, result: Any) -> Any:
        as_array = getattr(self._subject, "as_array", np.asarray)
        return as_array(result).reshape(layer.output_shape)


def _flushed(call: Callable[[], Any]) -> Any:
    with pyconv.flush_denormals():
        return call()


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

"""How long the other dtypes take, beside float32, on layers that compute bounds.

    python benchmarks/dtypes.py [--rounds 11]

Prints a table of medians over interleaved rounds, one thread, packed weights: for each layer float32's milliseconds,
and for each dtype its time as a multiple of that. Integers, which no layer holds, are called with unpacked weights, and
so is float32 beside them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

import pyconv

# ic, oc, size, kernel, stride
LAYERS = [
    (64, 64, 56, 3, 1), (128, 128, 28, 3, 1), (256, 256, 14, 3, 1), (512, 512, 7, 3, 1),
    (256, 64, 56, 1, 1), (3, 64, 224, 7, 2),
]  # fmt: skip
PACKED = ("float32", "float64", "float16", "bfloat16", "complex64")
UNPACKED = ("float32", "int8", "int16", "int32", "int64")


def element(name: str) -> np.dtype:
    """Return the dtype of this name; bfloat16 is that of a package."""
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def contender(layer: tuple[int, ...], name: str, *, packed: bool) -> Callable[[], np.ndarray]:
    """Return a call to be timed."""
    ic, oc, size, kernel, stride = layer
    dtype, rng = element(name), np.random.default_rng(0)
    x = rng.integers(-3, 4, (1, ic, size, size)).astype(dtype)
    weight = rng.integers(-3, 4, (oc, ic, kernel, kernel)).astype(dtype)
    if not packed:
        return lambda: pyconv.conv2d(x, weight, None, stride, kernel // 2)
    module = pyconv.Conv2d(ic, oc, kernel, stride, kernel // 2, bias=False, dtype=dtype)
    module.weight = weight
    module.eval()
    return lambda: module(x)


def main() -> None:
    """Print the two tables."""
    parser = argparse.ArgumentParser(description="times of the other dtypes beside float32's")
    parser.add_argument("--rounds", type=int, default=11)
    rounds = parser.parse_args().rounds
    pyconv.set_num_threads(1)
    for names, packed in ((PACKED, True), (UNPACKED, False)):
        print(
            f"\n{'packed weights' if packed else 'unpacked weights':<28}{'ms':>8}",
            *(f"{name:>10}" for name in names[1:]),
        )
        for layer in LAYERS:
            calls = {name: contender(layer, name, packed=packed) for name in names}
            seconds: dict[str, list[float]] = {name: [] for name in names}
            for _ in range(rounds):
                for name, call in calls.items():
                    call()
                    start = time.perf_counter()
                    call()
                    seconds[name].append(time.perf_counter() - start)
            median = {name: statistics.median(times) for name, times in seconds.items()}
            ic, oc, size, kernel, stride = layer
            label = f"{kernel}x{kernel} s{stride} {ic}->{oc} @{size}"
            ratios = (median[name] / median["float32"] for name in names[1:])
            print(f"{label:<28}{median['float32'] * 1e3:8.3f}", *(f"{ratio:10.2f}" for ratio in ratios))


if __name__ == "__main__":
    main()

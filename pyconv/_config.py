"""What this installation is and runs on: the text of ``show_config`` and ``python -m pyconv info``."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from pyconv._dispatch import available_isas, built, isa, kernels, supported
from pyconv._execute import CACHES
from pyconv._threads import get_num_threads


def release() -> str:
    """Return the version of the installed distribution."""
    try:
        return version("pyconv-cpu")
    except PackageNotFoundError:  # a source tree that was built in place
        return "0+unknown"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def config() -> dict[str, str]:
    """Everything that a bug report or a benchmark should state, as ordered text."""
    tiles = kernels().tiles
    lanes = tiles.vector_bytes // 4
    return {
        "pyconv": release(),
        "Python": f"{platform.python_version()} ({platform.python_implementation()})",
        "NumPy": np.__version__,
        "system": platform.platform(),
        "processor": _processor(),
        "caches": f"L1 {CACHES.l1 >> 10} KiB, L2 {CACHES.l2 >> 10} KiB for each core",
        "instruction set": f"{isa()} (built: {', '.join(built())}; supported: {', '.join(supported())})",
        "available": ", ".join(available_isas()),
        "vector": f"{tiles.vector_bytes * 8} bits: {lanes} lanes of float32, {lanes // 2} of float64",
        "threads": str(get_num_threads()),
    }


def show_config() -> None:
    """Print the version, the instruction sets, the caches and the threads of this installation.

    Examples
    --------
    >>> import pyconv
    >>> pyconv.show_config()  # doctest: +ELLIPSIS
    pyconv           ...
    """
    for name, value in config().items():
        print(f"{name:<16} {value}")

"""What this installation is and runs on: the text of ``show_config`` and ``python -m pyconv info``."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from pyconv._dispatch import built, isa, kernels, supported
from pyconv._execute import CACHES
from pyconv._system import read_text
from pyconv._threads import get_num_threads
from pyconv._version import VERSION


def _platform() -> Any:
    # Not at the head of the file: it would add milliseconds to `import pyconv`.
    return importlib.import_module("platform")


def _processor() -> str:
    try:
        for line in read_text("/proc/cpuinfo").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return str(_platform().processor() or _platform().machine())


def config() -> dict[str, str]:
    """Everything that a bug report or a benchmark should state, as ordered text."""
    tiles = kernels().tiles
    lanes = tiles.vector_bytes // 4
    platform = _platform()
    return {
        "pyconv": VERSION,
        "Python": f"{platform.python_version()} ({platform.python_implementation()})",
        "NumPy": np.__version__,
        "system": platform.platform(),
        "processor": _processor(),
        "caches": f"L1 {CACHES.l1 >> 10} KiB, L2 {CACHES.l2 >> 10} KiB for each core",
        "instruction set": f"{isa()} (built: {', '.join(built())}; supported: {', '.join(supported())})",
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

"""What ``import pyconv`` takes beyond ``import numpy``, and what the installation takes on disk."""

from __future__ import annotations

import importlib.util
import os
import statistics
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

from pyconv.bench import adapters
from pyconv.bench.errors import BenchError
from pyconv.bench.progress import Progress
from pyconv.bench.special import Setup, Table

COLUMNS = ["import", "ms", "best ms", "on disk MB"]

_LEAST_ROUNDS = 11
_PROGRAM = """
import sys, time
start = time.perf_counter()
import numpy
between = time.perf_counter()
__import__(sys.argv[1])
print(between - start, time.perf_counter() - between)
"""


def fill(table: Table, setup: Setup) -> None:
    """Import each module in fresh processes, in turn, after an untimed round that fills the system's caches.

    That round also compiles what is imported, into a directory of its own: an installation holds it compiled, but a
    source tree that Python must not write to would be compiled every time.
    """
    table.columns = COLUMNS
    modules = {"pyconv": "pyconv"}
    for peer in setup.peers:
        modules[next(iter(adapters.adapter(peer.name).PACKAGES))] = adapters.packages(peer.name)[0]
    rounds = max(setup.rounds, _LEAST_ROUNDS)
    numpy: list[float] = []
    times: dict[str, list[float]] = {module: [] for module in modules}
    try:
        with Progress((rounds + 1) * len(modules), "import") as progress, TemporaryDirectory() as compiled:
            for number in range(rounds + 1):
                for module in modules:
                    base, own = _import(module, compiled)
                    if number:
                        numpy.append(base)
                        times[module].append(own)
                    progress.advance(1)
    finally:
        found = {"numpy": (numpy, "numpy")} | {f"{m}, after numpy": (times[m], p) for m, p in modules.items()}
        for name, (seconds, package) in found.items():
            if seconds:
                size = _megabytes(package)
                table.rows.append([name, 1e3 * statistics.median(seconds), 1e3 * min(seconds), size])


def _import(module: str, compiled: str) -> tuple[float, float]:
    """Return the seconds of importing NumPy, and then a module, in a process of their own."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "PYTHONPYCACHEPREFIX": compiled,
        "PYTHONDONTWRITEBYTECODE": "",  # as if it were not set
    }
    command = [sys.executable, "-P", "-c", _PROGRAM, module]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if process.returncode:
        raise BenchError(f"import {module} failed: {process.stderr.strip().splitlines()[-1]}")
    base, own = map(float, process.stdout.split())
    return base, own


def _megabytes(package: str) -> float:
    """Add up the files of a package, without what Python compiles from them."""
    if package == "pyconv":
        spec = importlib.util.find_spec("pyconv")
        assert spec is not None
        root = Path(spec.submodule_search_locations[0]) if spec.submodule_search_locations else Path()
        files = list(root.rglob("*"))
    else:
        files = [Path(str(file.locate())) for file in metadata.files(package) or []]
    kept = (file for file in files if "__pycache__" not in file.parts and file.is_file())
    return sum(file.stat().st_size for file in kept) / 1e6

"""What a benchmark ran on, in as much detail as someone needs who gets other figures."""

from __future__ import annotations

import datetime
import os
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import pyconv
from pyconv._config import config
from pyconv._threads import _quota
from pyconv.bench import adapters
from pyconv.bench.contender import is_build
from pyconv.bench.processors import cpus

_VARIABLES = ("OMP_", "KMP_", "GOMP_", "MKL_", "OPENBLAS_", "PYCONV_", "MALLOC_", "LD_PRELOAD")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def now() -> str:
    """Return the time, in the local zone, to the second."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def describe() -> dict[str, Any]:
    """Describe the machine, the process's share of it, and the source of this pyconv."""
    facts: dict[str, Any] = dict(config())
    facts.pop("threads")
    facts |= {
        "cores": os.cpu_count(),
        "allowed cpus": cpus(),
        "load average": round(os.getloadavg()[0], 2),
        "environment": {k: v for k, v in sorted(os.environ.items()) if k.startswith(_VARIABLES)},
    }
    quota = _quota()
    if quota < float("inf"):
        facts["quota"] = f"{quota:g} processors"
    if (governor := _read(_GOVERNOR)) is not None:
        facts["governor"] = governor
    if (commit := _commit(Path(pyconv.__file__).resolve().parent)) is not None:
        facts["commit"] = commit
    return facts


def versions(peers: list[str]) -> dict[str, str]:
    """Return the installed versions of what peers need, and the commits of builds, pyconv and NumPy before them."""
    found = {"pyconv": pyconv.__version__, "numpy": metadata.version("numpy")}
    for peer in peers:
        if is_build(peer):
            found[peer] = _commit(Path(peer, "pyconv")) or "unknown"
            continue
        for package in adapters.packages(peer):
            try:
                found[package] = metadata.version(package)
            except metadata.PackageNotFoundError:
                found[package] = "unknown"
    return found


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _commit(source: Path) -> str | None:
    """Return the commit that a package is of, where it lies in a clone; ``+`` if it has been changed since."""
    if not (source.parent / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(source), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return None

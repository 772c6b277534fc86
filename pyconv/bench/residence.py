"""Resident memory of this process, as Linux tells it."""

from __future__ import annotations

import re
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def now() -> int:
    """Return the bytes that are resident."""
    return _read("VmRSS")


def peak() -> int:
    """Return the most bytes that were resident, since the start or the last `reset_peak`."""
    return _read("VmHWM")


def reset_peak() -> int:
    """Let the peak begin with what is resident now, and return that."""
    _CLEAR.write_text("5")
    return peak()


def _read(key: str) -> int:
    found = re.search(rf"{key}:\s*(\d+) kB", _STATUS.read_text())
    if found is None:
        raise OSError(f"{_STATUS} does not tell {key}")
    return int(found[1]) * 1024

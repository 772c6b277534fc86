"""The cache sizes that blocks are fitted to, as the system tells them."""

from __future__ import annotations

import os

from pyconv._system import read_text
from pyconv._tiles import Caches

_SYSFS = "/sys/devices/system/cpu/cpu0/cache"
_UNITS = {"K": 1 << 10, "M": 1 << 20}


def _from_sysfs(level: int) -> int | None:
    """Bytes of the data cache of a level, from Linux's description of the first processor."""
    try:
        names = sorted(name for name in os.listdir(_SYSFS) if name.startswith("index"))
    except OSError:
        return None
    for name in names:
        try:
            kind, size, its_level = (read_text(f"{_SYSFS}/{name}/{what}").strip() for what in ("type", "size", "level"))
            if int(its_level) == level and kind in ("Data", "Unified"):
                return int(size[:-1]) * _UNITS[size[-1]]
        except (OSError, ValueError, LookupError):
            continue
    return None


def _size(level: int, default: int) -> int:
    size = _from_sysfs(level) or default
    # A virtual machine may report nonsense; blocks of a tenth or ten times the right size are slow, not wrong.
    return size if default // 16 <= size <= default * 64 else default


def detect() -> Caches:
    """Sizes of this machine; 32 KiB and 1 MiB, typical ones, where the system does not tell."""
    return Caches(l1=_size(1, 32 << 10), l2=_size(2, 1 << 20))

"""The cache sizes that blocks are fitted to, as the system tells them."""

from __future__ import annotations

import os

from pyconv._system import read_text
from pyconv._tiles import Caches

_SYSFS = "/sys/devices/system/cpu/cpu0/cache"
_UNITS = {"K": 1 << 10, "M": 1 << 20}


def _from_sysfs() -> dict[int, int]:
    """Bytes of the data cache of each level, from Linux's description of the first processor."""
    sizes: dict[int, int] = {}
    try:
        names = sorted(name for name in os.listdir(_SYSFS) if name.startswith("index"))
    except OSError:
        return sizes
    for name in names:
        try:
            kind, size, level = (read_text(f"{_SYSFS}/{name}/{what}").strip() for what in ("type", "size", "level"))
            if kind in ("Data", "Unified"):
                sizes.setdefault(int(level), int(size[:-1]) * _UNITS[size[-1]])
        except (OSError, ValueError, LookupError):
            continue
    return sizes


def _plausible(size: int, default: int) -> int:
    # A virtual machine may report nonsense; blocks of a tenth or ten times the right size are slow, not wrong.
    return size if default // 16 <= size <= default * 64 else default


def detect() -> Caches:
    """Sizes of this machine; 32 KiB and 1 MiB, typical ones, where the system does not tell."""
    sizes, l1, l2 = _from_sysfs(), 32 << 10, 1 << 20
    return Caches(l1=_plausible(sizes.get(1, l1), l1), l2=_plausible(sizes.get(2, l2), l2))

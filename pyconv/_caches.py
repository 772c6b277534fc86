"""The cache sizes that blocks are fitted to, as the system tells them."""

from __future__ import annotations

from pathlib import Path

from pyconv._tiles import Caches

_SYSFS = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS = {"K": 1 << 10, "M": 1 << 20}


def _from_sysfs(level: int) -> int | None:
    """Bytes of the data cache of a level, from Linux's description of the first processor."""
    for index in sorted(_SYSFS.glob("index*")):
        try:
            kind = (index / "type").read_text().strip()
            size = (index / "size").read_text().strip()
            if int((index / "level").read_text()) == level and kind in ("Data", "Unified"):
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

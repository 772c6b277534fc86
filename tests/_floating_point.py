"""The modes of this thread's floating-point unit: where it rounds to, and what becomes of subnormal numbers.

For x86-64 and glibc; pyconv is not imported.
"""

from __future__ import annotations

import ctypes
import sys

DOWNWARD, UPWARD = 0x400, 0x800  # FE_DOWNWARD, FE_UPWARD
FLUSH = 0x8040  # bits of MXCSR: subnormal results are zero, and so are subnormal operands

_libm = ctypes.CDLL("libm.so.6") if sys.platform == "linux" else None
_Environment = ctypes.c_uint32 * 8  # fenv_t: x87's control word first, MXCSR last


def mode() -> tuple[int, int]:
    """Return x87's rounding and the control bits of MXCSR, without the flags of what has happened."""
    environment = _Environment()
    assert _libm.fegetenv(environment) == 0
    return environment[0] & 0xC00, environment[7] & ~0x3F


def restore() -> None:
    """Return to what every program starts with: FE_DFL_ENV, which is the pointer -1."""
    assert _libm.fesetenv(ctypes.c_void_p(-1)) == 0


def round_upward() -> None:
    assert _libm.fesetround(UPWARD) == 0


def round_downward() -> None:
    assert _libm.fesetround(DOWNWARD) == 0


def flush_to_zero() -> None:
    environment = _Environment()
    assert _libm.fegetenv(environment) == 0
    environment[7] |= FLUSH
    assert _libm.fesetenv(environment) == 0


MODES = {"default": restore, "upward": round_upward, "downward": round_downward, "flush to zero": flush_to_zero}

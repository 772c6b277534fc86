"""Which build of the kernels runs: the best that was built and that this processor supports.

"Built?" and "supported?" are separate questions. The environment variable ``PYCONV_ISA``, read once at import, may
only lower the answer; under ``python -E`` or ``-I`` it is ignored, as Python's own variables are.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType

from pyconv._tiles import TileTable

# Lowest first. On a processor other than x86-64 the compiler's baseline is all there is.
LEVELS = {
    "baseline": "_kernels_baseline",
    "x86-64-v2": "_kernels_x86_64_v2",
    "x86-64-v3": "_kernels_x86_64_v3",
    "x86-64-v4": "_kernels_x86_64_v4",
}
INTEGERS = "_int"  # after the name of a level's module: the same level's for integers

# The kernels that a build is asked about. Filters of more rows than these are rare, and do without this tile.
_DEPTHWISE_KERNELS = [(kh, sh) for kh in range(1, 64) for sh in range(1, 5)]


@dataclass(frozen=True, slots=True)
class Kernels:
    """One build of the kernels and what it offers."""

    isa: str
    module: ModuleType
    tiles: TileTable


def built() -> tuple[str, ...]:
    """Name the levels that this installation contains."""
    return tuple(level for level, name in LEVELS.items() if importlib.util.find_spec(f"pyconv.{name}"))


def _cpu() -> ModuleType:
    try:
        return importlib.import_module("pyconv._cpu")
    except ModuleNotFoundError:
        raise ImportError(
            f"pyconv was imported from its source tree, {os.path.dirname(__file__)}, where nothing has been built. "
            "Install it with `pip install .` and run Python from another directory, or, to use it from this one, "
            "run `pip install -e .`"
        ) from None


def supported() -> tuple[str, ...]:
    """Name the levels that this processor and operating system run."""
    levels: tuple[str, ...] = _cpu().supported()
    return levels


def _load(level: str, *, integers: bool) -> Kernels:
    module = importlib.import_module(f"pyconv.{LEVELS[level]}" + (INTEGERS if integers else ""))
    depthwise = [kernel for kernel in _DEPTHWISE_KERNELS if module.has_depthwise(*kernel)]
    width = module.vector_bytes()
    tiles = TileTable.of(level, width, module.variants(), depthwise, _cpu().multiply_adds_per_cycle(width))
    return Kernels(level, module, tiles)


def _lowered(best: str, available: tuple[str, ...]) -> str:
    """``best``, or what PYCONV_ISA lowers it to."""
    asked = None if sys.flags.ignore_environment else os.environ.get("PYCONV_ISA")
    if not asked:
        return best
    if asked in available:
        return asked
    warnings.warn(
        f"PYCONV_ISA={asked[:64]!r} is not available here and is ignored; available: {', '.join(available)}",
        RuntimeWarning,
        stacklevel=2,
    )
    return best


def available_isas() -> tuple[str, ...]:
    """Instruction sets that are both built and supported here, lowest first.

    Returns
    -------
    tuple of str
        Micro-architecture levels of x86-64, or ``("baseline",)`` on another architecture.

    Examples
    --------
    >>> import pyconv
    >>> pyconv.isa() in pyconv.available_isas()
    True
    """
    return _AVAILABLE


def isa() -> str:
    """Return the instruction set in use, one of `available_isas`.

    The highest one, unless the environment variable ``PYCONV_ISA`` named a lower one at import.

    Examples
    --------
    >>> import pyconv
    >>> pyconv.isa()  # doctest: +SKIP
    'x86-64-v4'
    """
    return _current.isa


def kernels(*, integers: bool = False) -> Kernels:
    """Return the build in use, for sums of floats or of integers."""
    return build_of(_current.isa, integers=True) if integers else _current


def build_of(level: str, *, integers: bool = False) -> Kernels:
    """Return a build of an available level, loading it the first time: most processes need one."""
    build = _loaded.get((level, integers))
    if build is None:
        build = _loaded[level, integers] = _load(level, integers=integers)
    return build


@contextmanager
def forced(level: str) -> Iterator[Kernels]:
    """Use another available level inside the block, for every thread: for tests and benchmarks."""
    global _current
    before = _current
    _current = build_of(level)
    try:
        yield _current
    finally:
        _current = before


_BUILT = built()
_AVAILABLE = tuple(level for level in supported() if level in _BUILT)
if not _AVAILABLE:
    raise ImportError(
        f"pyconv was built for {', '.join(_BUILT) or 'no instruction set'}, and this processor supports "
        f"{', '.join(supported()) or 'none of its levels (x86-64-v2 is the lowest)'}"
    )
_loaded: dict[tuple[str, bool], Kernels] = {}
_current = build_of(_lowered(_AVAILABLE[-1], _AVAILABLE))

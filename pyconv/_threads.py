"""How many threads a call may use, and what happens after a fork.

The count is passed to each parallel region: nothing global is changed for other users of OpenMP. Highest precedence
first: the call's ``num_threads``, the innermost `num_threads` block of this thread or task, `set_num_threads`; by
default OMP_NUM_THREADS, else as many as the control group's quota pays for.

And never more than OpenMP itself would use: OMP_NUM_THREADS, else the processors of the affinity mask, or what others
who share it (threadpoolctl, torch) have set since. It read the mask when it was loaded, before it may have bound this
thread to one place.

GNU's OpenMP runtime hangs in the child of a fork if the parent has run a parallel region, so a forked child computes
serially and never touches it.
"""

from __future__ import annotations

import math
import os
import sys
from contextlib import ContextDecorator
from contextvars import ContextVar

from pyconv._arguments import thread_count
from pyconv._dispatch import kernels
from pyconv._system import read_text

_QUOTA_FILES = (
    # cgroup v2: "quota period" or "max period"; v1: a file each.
    ("/sys/fs/cgroup/cpu.max",),
    ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"),
)


def _quota() -> float:
    """Processors that the control group's quota grants."""
    for files in _QUOTA_FILES:
        try:
            words = " ".join(read_text(file) for file in files).split()
            quota, period = float(words[0]), float(words[1])
        except (OSError, ValueError, IndexError):
            continue
        if quota > 0 and period > 0:
            return quota / period
    return math.inf


def _default() -> int:
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    return max(1, math.ceil(min(_quota(), sys.maxsize)))


# The same for every build of the kernels: they share one OpenMP.
_most = kernels().module.max_threads

_process: int | None = None
_block: ContextVar[int | None] = ContextVar("pyconv_num_threads", default=None)
_around: ContextVar[tuple[int | None, ...]] = ContextVar("pyconv_num_threads_around", default=())
_forked = False
_DEFAULT = _default()


def get_num_threads() -> int:
    """Return the number of threads that a convolution may use here.

    Returns
    -------
    int
        At least 1; at most what OpenMP allows: ``OMP_NUM_THREADS``, else the processors of this process, or what
        others have set for this thread (``threadpoolctl``, or torch where it shares the OpenMP). A small convolution
        uses fewer.

    Examples
    --------
    >>> import pyconv
    >>> with pyconv.num_threads(1):
    ...     pyconv.get_num_threads()
    1
    """
    return threads_for(None)


def set_num_threads(n: int | None) -> None:
    """Set the number of threads that a convolution may use in this process.

    Parameters
    ----------
    n : int or None
        At least 1; of more than OpenMP allows, so many are used (`get_num_threads`). None restores the default:
        ``OMP_NUM_THREADS``, else the processors that are available.

    Raises
    ------
    ConvTypeError
        If `n` is not an integer.
    ConvError
        If `n` is less than 1.

    Examples
    --------
    >>> import pyconv
    >>> pyconv.set_num_threads(1)
    >>> pyconv.get_num_threads()
    1
    >>> pyconv.set_num_threads(None)
    """
    global _process
    _process = None if n is None else thread_count(n, name="n")


class num_threads(ContextDecorator):  # noqa: N801 - used like a function, as contextlib's own
    """Use `n` threads inside a ``with`` block, in this thread (or asyncio task) only.

    Parameters
    ----------
    n : int
        At least 1; of more than OpenMP allows, so many are used (`get_num_threads`).

    Raises
    ------
    ConvTypeError
        If `n` is not an integer.
    ConvError
        If `n` is less than 1.

    Examples
    --------
    >>> import pyconv
    >>> with pyconv.num_threads(1):
    ...     layer = pyconv.Conv2d(3, 8, 3)

    One may serve for several blocks, one within the other, too, and as a decorator:

    >>> serially = pyconv.num_threads(1)
    >>> @serially
    ... def count():
    ...     return pyconv.get_num_threads()
    >>> count()
    1
    """

    def __init__(self, n: int) -> None:
        self._n = thread_count(n, name="n")

    def __enter__(self) -> None:
        _around.set((*_around.get(), _block.get()))
        _block.set(self._n)

    def __exit__(self, *error: object) -> None:
        *around, last = _around.get()
        _around.set(tuple(around))
        _block.set(last)


def threads_for(asked: int | None) -> int:
    """Return the thread count of one call, whose own (checked) argument is `asked`."""
    return 1 if _forked else min(asked or _block.get() or _process or _DEFAULT, _most())


def _after_fork_in_child() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)

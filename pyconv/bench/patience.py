"""Patience: samples wait until nobody else uses the cores, and are taken again if somebody does just after them.

What decides is a look at the cores, the speed of a tile (yardsticks.py: whole_cores_gflops), never what the contender
took; so it is the same for all of them. Waiting and repeating, not the looks that come first, is taken out of one
number of seconds.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from typing import TypeVar

from pyconv._words import counted

T = TypeVar("T")

# Whole cores are known by what they did at their best, in so many looks at first, a second or a few. A handful of looks
# may have met a clock that was raised for a moment.
FIRST_LOOKS, _HANDFUL = 300, 10
_WHOLE = 0.9
# A sample that is disturbed so many times is as long as the time between two neighbours.
MOST_REPEATS = 10


class Patience:
    """What is left of it, and what it was spent on.

    Parameters
    ----------
    seconds : float
        For how long, in all, to wait and to take samples again.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = self._left = seconds
        self._repeated = 0
        self._best: dict[tuple[str, int], list[float]] = {}  # a handful of looks at each cores, as a heap

    def undisturbed(self, take: Callable[[], T], look: Callable[[], float], cores: tuple[str, int]) -> T:
        """Take a sample between two looks at these cores, that is: this instruction set and so many threads."""
        repeats = 0
        while True:
            begun = time.monotonic()
            patient = self._left > 0 and repeats < MOST_REPEATS
            if not patient or self._are_whole(look, cores):
                sample = take()
                if not patient or self._are_whole(look, cores):
                    return sample
                repeats += 1
                self._repeated += 1
            self._left -= time.monotonic() - begun

    def _are_whole(self, look: Callable[[], float], cores: tuple[str, int]) -> bool:
        """Tell whether nobody else uses the cores."""
        if cores not in self._best:
            self._best[cores] = heapq.nlargest(_HANDFUL, (look() for _ in range(FIRST_LOOKS)))[::-1]
        best = self._best[cores]
        now = look()
        heapq.heappushpop(best, now)
        return now >= _WHOLE * best[0]

    @property
    def remark(self) -> str:
        """Tell what it was spent on; nothing if there was none."""
        if not self._seconds:
            return ""
        waited = self._seconds - max(0.0, self._left)
        rest = "" if self._left > 0 else "; then patience was at its end, and they were taken as they came"
        return f"others used the cores: {counted(self._repeated, 'sample')} taken again, {waited:.0f} s waited{rest}"

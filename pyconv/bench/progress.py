"""A progress bar with the time left, where someone watches and tqdm is installed."""

from __future__ import annotations

import importlib
import sys
import time
from types import TracebackType
from typing import Any, Self

_DELAY = 1.0  # seconds before the bar appears: what is over by then needs none


class Progress:
    """Counts work done, in any unit: seconds that it is expected to take, say."""

    def __init__(self, total: float, what: str) -> None:
        self._bar: Any = None
        self._start = time.monotonic()
        if sys.stderr.isatty():
            try:
                tqdm = importlib.import_module("tqdm").tqdm
            except ImportError:
                return
            layout = "{desc} {percentage:3.0f}% |{bar}| {elapsed} elapsed, {remaining} left"
            self._bar = tqdm(total=total, desc=what, bar_format=layout, delay=_DELAY, leave=False, file=sys.stderr)

    def advance(self, amount: float) -> None:
        """Count so much more as done."""
        if self._bar is not None:
            self._bar.update(min(amount, self._bar.total - self._bar.n))

    def say(self, what: str) -> None:
        """Tell what is being done now."""
        if self._bar is not None:
            self._bar.set_description_str(f"{what}:", refresh=time.monotonic() - self._start > _DELAY)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()

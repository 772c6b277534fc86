"""What can be wrong: with the command, a file or the installation; with a layer, in a library's eyes."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


class BenchError(Exception):
    """A message of one line, for whoever typed the command."""


class UnsupportedError(Exception):
    """Why a library cannot compute a layer, in a few words."""


def unknown(kind: str, name: str, known: Sequence[str], besides: str = "") -> BenchError:
    """Say what is known instead of a mistyped name, and what else there may be, or what was probably meant."""
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}{besides}"
    return BenchError(f"unknown {kind} {name!r}; {hint}")

"""The command line: ``python -m pyconv info``, ``selftest`` and ``bench``."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from pyconv._config import show_config
from pyconv._version import VERSION


def _seed(text: str) -> int:
    try:
        number = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not an int") from error
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is less than 0")
    return number


def parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    top = argparse.ArgumentParser(
        prog="python -m pyconv",
        description="Convolution for NumPy arrays on a compiled CPU backend.",
    )
    top.add_argument("--version", action="version", version=f"pyconv {VERSION}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    commands.add_parser("info", help="print version, instruction sets, caches and threads")
    selftest = commands.add_parser("selftest", help="check this installation on this processor, in seconds")
    selftest.add_argument("--seed", type=_seed, default=0, help="an int of at least 0: draw other problems")
    commands.add_parser("bench", help="time convolutions; see bench --help", add_help=False)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["bench"]:
        # It has a parser of its own, and many imports.
        return int(importlib.import_module("pyconv.bench.cli").main(words[1:]))
    parsed = parser().parse_args(words)
    if parsed.command == "selftest":
        return int(importlib.import_module("pyconv.selftest.cli").main(parsed.seed))
    show_config()
    return 0


if __name__ == "__main__":
    sys.exit(main())

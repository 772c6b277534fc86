"""The command line: ``python -m pyconv info``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pyconv._config import show_config
from pyconv._version import VERSION


def parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    top = argparse.ArgumentParser(
        prog="python -m pyconv",
        description="Convolution for NumPy arrays on a compiled CPU backend.",
    )
    top.add_argument("--version", action="version", version=f"pyconv {VERSION}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    commands.add_parser("info", help="print version, instruction sets, caches and threads")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    parser().parse_args(arguments)
    show_config()
    return 0


if __name__ == "__main__":
    sys.exit(main())

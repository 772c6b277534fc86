"""The small files in which Linux describes the machine.

Not read by way of `pathlib`, which NumPy does without: to import it would take longer than any file of this package.
"""

from __future__ import annotations


def read_text(path: str) -> str:
    """Return what such a file says; OSError where there is none."""
    with open(path) as file:
        return file.read()

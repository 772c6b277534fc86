"""Calls that crashed, hung or misled other libraries: here they are refused, or right.

The table, and what is demanded of each entry, is in _error_rows.py. Each group of rows runs in a
process of its own, for a signal kills the process that gets it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import pyconv
from _error_rows import ROWS, boundary_entries

ERRORS = {"ConvError", "ConvTypeError"}
ALLOWED = {"refused": ERRORS, "exhausted": ERRORS | {"MemoryError"}, "true": {"result"}}


@cache
def tried(group: str) -> list[dict[str, Any]]:
    """Run the process of a group to its end, and return what became of each entry."""
    program = Path(__file__).with_name("_error_rows.py")
    package = str(Path(pyconv.__file__).parents[1])
    process = subprocess.run(
        [sys.executable, "-X", "faulthandler", program, group],
        env={**os.environ, "PYTHONPATH": package},
        capture_output=True,
        text=True,
        timeout=300,
    )
    lines = process.stdout.splitlines()
    assert process.returncode == 0, f"after {lines[-1:]}:\n{process.stderr}"
    return [json.loads(line) for line in lines]


def check(result: dict[str, Any], allowed: set[str]) -> None:
    assert result["outcome"] in allowed, result
    assert result["unharmed"], f"another result after {result}"
    if result["outcome"] != "result":
        assert result["seconds"] < 1, result
        assert result["kilobytes"] < 10_000, result


@pytest.mark.parametrize("row", ROWS)
def test_row(row: str) -> None:
    results = [result for result in tried(row[0]) if result["row"] == row]
    entries = (*ROWS[row].refused, *ROWS[row].exhausted, *ROWS[row].true)
    assert [result["entry"] for result in results] == list(entries)
    for result in results:
        check(result, ALLOWED[result["kind"]])
        assert result["kind"] != "true" or result["message"] == "True", result
        if result["kind"] == "refused":
            assert re.search(ROWS[row].about, result["message"]), result


def test_boundaries() -> None:
    """Any integer in any place: a result, or one of our errors, or no memory; and at once."""
    results = tried("boundaries")
    assert len(results) == len(boundary_entries()) > 400
    for result in results:
        check(result, {"result", "MemoryError"} | ERRORS)
        assert result["seconds"] < 1, result
    outcomes = {result["outcome"] for result in results}
    assert outcomes >= {"result", "MemoryError", "ConvError"}

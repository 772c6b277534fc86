"""What Linux tells of the machine: caches and quotas, right, missing or nonsense."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from _processes import python
from pyconv import _caches, _threads


def describe(directory: Path, *caches: tuple[int, str, str]) -> str:
    """Write levels, kinds and sizes of caches as Linux does; return the directory."""
    for i, (level, kind, size) in enumerate(caches):
        index = directory / f"index{i}"
        index.mkdir()
        for name, value in (("level", str(level)), ("type", kind), ("size", size)):
            (index / name).write_text(value + "\n")
    (directory / "uevent").write_text("")
    return str(directory)


def test_caches_are_those_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = (1, "Instruction", "64K"), (1, "Data", "48K"), (2, "Unified", "2M"), (3, "Unified", "300M")
    monkeypatch.setattr(_caches, "_SYSFS", describe(tmp_path, *given))
    assert _caches.detect() == _caches.Caches(48 << 10, 2 << 20)


@pytest.mark.parametrize("size", ["", "K", "48", "1K", "48X", "999999M"])
def test_caches_of_nonsense_are_typical_ones(size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_caches, "_SYSFS", describe(tmp_path, (1, "Data", size), (2, "Unified", "512K")))
    assert _caches.detect() == _caches.Caches(32 << 10, 512 << 10)


def test_caches_of_no_system_are_typical_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_caches, "_SYSFS", str(tmp_path / "nowhere"))
    assert _caches.detect() == _caches.Caches(32 << 10, 1 << 20)


@pytest.mark.parametrize(
    ("files", "processors"),
    [
        ((("150000 100000",), ()), 1.5),
        ((("max 100000",), ()), math.inf),
        ((("max 100000",), ("50000", "100000")), 0.5),
        (((), ("-1", "100000")), math.inf),
        ((("150000",), ("400000", "100000")), 4),
        ((("nonsense 100000",), ("0", "0")), math.inf),
        (((), ()), math.inf),
    ],
)
def test_quota(
    files: tuple[tuple[str, ...], ...], processors: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = (tmp_path / "v2",), (tmp_path / "quota", tmp_path / "period")
    for group, values in zip(names, files, strict=True):
        for name, value in zip(group, values, strict=False):
            name.write_text(value + "\n")
    monkeypatch.setattr(_threads, "_QUOTA_FILES", tuple(tuple(map(str, group)) for group in names))
    assert _threads._quota() == processors


def test_imports_nothing_that_takes_long() -> None:
    """Beyond NumPy: each of these takes milliseconds."""
    long = {"pathlib", "platform", "subprocess", "argparse", "asyncio", "multiprocessing", "json"}
    script = "import sys, numpy; before = set(sys.modules); import pyconv; print(*set(sys.modules) - before)"
    new = python("-c", script).stdout.split()
    assert "pyconv" in new
    assert not long & set(new)

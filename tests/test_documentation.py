"""What the documentation shows, runs: every docstring's example, the README's, and its two commands."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import pyconv
from pyconv import bench

README = Path(__file__).parent.parent / "README.md"
MODULES = [
    f"pyconv.{module.name}"
    for module in pkgutil.iter_modules(pyconv.__path__)
    if not module.name.startswith(("_kernels", "_cpu", "_known", "__main__"))
] + [f"pyconv.bench.{path.stem}" for path in Path(bench.__file__).parent.glob("[!_]*.py")]


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name: str) -> None:
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert not failed


@pytest.mark.parametrize("name", pyconv.__all__)
def test_every_public_name_has_an_example(name: str) -> None:
    documented = getattr(pyconv, name)
    assert documented.__doc__
    assert ">>>" in documented.__doc__


def test_readme() -> None:
    failed, tried = doctest.testfile(str(README), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert tried
    assert not failed


@pytest.mark.parametrize("number", [1, 2])
def test_readme_has_its_quick_start(number: int) -> None:
    lines = README.read_text().splitlines()
    start = lines.index(f"<!-- quick start {number} -->")
    fence, command, end = lines[start + 1 : start + 4]
    assert fence.startswith("```")
    assert command.startswith("pip install ")
    assert end == "```"

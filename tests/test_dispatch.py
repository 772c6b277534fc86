"""Which build runs, and what a user sees where none can."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import pyconv
from _processes import python
from pyconv import _dispatch

SOURCE = Path(__file__).parent.parent / "pyconv"


def test_the_best_available_is_in_use() -> None:
    assert pyconv.available_isas()
    assert pyconv.isa() in pyconv.available_isas()
    assert set(pyconv.available_isas()) == set(_dispatch.built()) & set(_dispatch.supported())


def test_the_variable_may_lower_it(isa: str) -> None:
    ran = python("-c", "import pyconv; print(pyconv.isa())", PYCONV_ISA=isa)
    assert ran.stdout.strip() == isa
    assert not ran.stderr


def test_an_unknown_level_is_ignored_with_a_warning() -> None:
    ran = python("-c", "import pyconv; print(pyconv.isa())", PYCONV_ISA="x86-64-v9")
    assert ran.stdout.strip() == pyconv.available_isas()[-1]
    assert "RuntimeWarning: PYCONV_ISA='x86-64-v9' is not available" in ran.stderr


def test_isolated_python_ignores_the_variable() -> None:
    ran = python("-I", "-c", "import pyconv; print(pyconv.isa())", PYCONV_ISA=pyconv.available_isas()[0])
    if ran.returncode:  # an in-place build is not on an isolated interpreter's path
        pytest.skip("pyconv is not installed")
    assert ran.stdout.strip() == pyconv.available_isas()[-1]


def test_forced_is_undone_by_an_error() -> None:
    before = pyconv.isa()
    with pytest.raises(ZeroDivisionError), _dispatch.forced(pyconv.available_isas()[0]):
        raise ZeroDivisionError
    assert pyconv.isa() == before


def test_an_unbuilt_source_tree_names_the_command(tmp_path: Path) -> None:
    shutil.copytree(SOURCE, tmp_path / "pyconv", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    ran = python("-c", "import pyconv", cwd=tmp_path)
    assert ran.returncode == 1
    last = ran.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: ")
    assert "pip install ." in last


def test_a_level_is_never_used_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYCONV_ISA", "x86-64-v4")
    with pytest.warns(RuntimeWarning, match="not available"):
        assert _dispatch._lowered("x86-64-v3", ("x86-64-v2", "x86-64-v3")) == "x86-64-v3"


def test_info_prints_the_configuration() -> None:
    ran = python("-m", "pyconv", "info")
    assert pyconv.isa() in ran.stdout
    assert "threads" in ran.stdout


def test_an_unknown_command_is_one_clear_line() -> None:
    ran = python("-m", "pyconv", "nonsense")
    assert ran.returncode == 2
    assert "Traceback" not in ran.stderr
    assert "nonsense" in ran.stderr

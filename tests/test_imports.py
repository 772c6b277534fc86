"""Who imports whom, and what ``import pyconv`` brings in.

Imports run one way: a file knows those below it and none above. What checks arguments, makes plans
or is the reference needs nothing compiled, so it can be read, tested and used without the rest.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import pyconv

PACKAGE = Path(pyconv.__file__).parent
ENTRANCES = {"__init__", "__main__"}

# From the top down. A file imports only from lines below its own.
LINES = (
    {"modules", "_config"},
    {"_layer"},
    {"functional"},
    {"_call", "_state_dict"},
    {"_execute"},
    {"_threads"},
    {"_dispatch", "_caches", "_denormals"},
    {"_plan", "_reference"},
    {"_blocks"},
    {"_shares"},
    {"_prices"},
    {"_tiles"},
    {"_complex"},
    {"_problem", "_line"},
    {"_arguments"},
    {"_errors", "_version", "_dtypes", "_system", "_words"},
)
RANK = {module: rank for rank, line in enumerate(LINES) for module in line}

# The benchmark tool sits on top of everything above: it may import any of that, and none of that imports it.
BENCH_LINES = (
    {"cli"},
    {
        "special.cold",
        "special.denormals",
        "special.import_time",
        "special.memory",
        "special.overhead",
        "special.scaling",
        "special.tiles",
    },
    {"special", "selection", "machine", "worker", "compare", "plot"},
    {"session", "table"},
    {"contender", "onnx_model", "patience", "presets", "progress"},
    {"descriptor", "operands", "reference", "subject"},
    {"adapters", "layer", "record", "residence", "yardsticks"},
    {"processors"},
    {"errors"},
)
BENCH_RANK = {f"bench.{module}": rank for rank, line in enumerate(BENCH_LINES) for module in line}

# So does the self-test.
SELFTEST_LINES = ({"cli"}, {"checks"}, {"guarded", "judging", "trials"})
SELFTEST_RANK = {f"selftest.{module}": rank for rank, line in enumerate(SELFTEST_LINES) for module in line}
COMPILED = {"_known"}  # for any processor; it imports nothing of the package
PURE = {
    "_plan",
    "_blocks",
    "_shares",
    "_prices",
    "_tiles",
    "_reference",
    "_line",
    "_problem",
    "_arguments",
    "_dtypes",
    "_errors",
    "_words",
}


def imports(module: str) -> set[str]:
    """Name the files of the package that a file imports, if only for its types."""
    found: set[str] = set()
    path = PACKAGE.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.add(name if node.module == "pyconv" or is_module(name) else str(node.module))
    return {name.removeprefix("pyconv.") for name in found if name.split(".")[0] == "pyconv"}


def is_module(name: str) -> bool:
    """Whether a dotted name is a file or a folder of the package."""
    path = PACKAGE.parent.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").exists()


def test_every_file_has_its_line() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == RANK.keys() | ENTRANCES


@pytest.mark.parametrize("module", RANK)
def test_imports_run_one_way(module: str) -> None:
    for imported in imports(module) - COMPILED:
        assert RANK.get(imported, -1) > RANK[module], f"{module} imports {imported}"


def test_every_file_of_the_benchmark_has_its_line() -> None:
    files = {path.relative_to(PACKAGE).with_suffix("") for path in (PACKAGE / "bench").rglob("*.py")}
    names = {".".join(file.parts).removesuffix(".__init__") for file in files}
    assert {name for name in names if not name.startswith(("bench.layers", "bench.peers"))} == BENCH_RANK.keys() | {
        "bench"
    }


@pytest.mark.parametrize("module", BENCH_RANK)
def test_imports_of_the_benchmark_run_one_way(module: str) -> None:
    for imported in imports(module) - {"bench", "pyconv"}:
        assert imported in RANK or BENCH_RANK[imported] > BENCH_RANK[module], f"{module} imports {imported}"


def test_every_file_of_the_self_test_has_its_line() -> None:
    assert {f"selftest.{path.stem}" for path in (PACKAGE / "selftest").glob("[!_]*.py")} == SELFTEST_RANK.keys()


@pytest.mark.parametrize("module", SELFTEST_RANK)
def test_imports_of_the_self_test_run_one_way(module: str) -> None:
    for imported in imports(module) - {"pyconv"}:
        assert imported in RANK or SELFTEST_RANK[imported] > SELFTEST_RANK[module], f"{module} imports {imported}"


@pytest.mark.parametrize("module", PURE)
def test_nothing_compiled_is_needed_to_check_and_to_plan(module: str) -> None:
    assert imports(module) <= PURE


def test_kernels_are_loaded_in_one_place() -> None:
    """Everyone else asks `_dispatch`, which knows what the processor supports."""
    compiled = {"_cpu", "_kernels"}
    assert all(any(PACKAGE.glob(f"{name}*.so")) for name in compiled)
    for module in RANK.keys() - {"_dispatch"}:
        texts = {
            node.value
            for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text()))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        named = imports(module) | {text.removeprefix("pyconv.") for text in texts}
        assert not any(name.startswith(tuple(compiled)) for name in named), module


@pytest.mark.parametrize("module", RANK)
def test_the_library_stays_in_its_process(module: str) -> None:
    """It loads no pickle, starts nothing, and calls no foreign function."""
    imported, used = set(), set()
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text())):
        if isinstance(node, ast.Import):
            imported.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            imported.add(str(node.module).split(".")[0])
        elif isinstance(node, ast.Attribute):
            used.add(node.attr)
    assert not imported & {"ctypes", "marshal", "multiprocessing", "pickle", "shelve", "socket", "subprocess"}
    assert not used & {"CDLL", "execv", "fork", "popen", "posix_spawn", "system"}


def test_import_brings_in_numpy_and_nothing_else() -> None:
    """Modules without a file are not brought in: Cython makes two for what its modules share."""
    program = """
import json, sys
before = set(sys.modules)
import pyconv
after = {name for name, module in sys.modules.items() if hasattr(module, "__file__")}
print(json.dumps(sorted(after - before)))
"""
    process = subprocess.run([sys.executable, "-c", program], cwd=PACKAGE.parent, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    loaded = json.loads(process.stdout)
    owners = {name.split(".")[0] for name in loaded} - sys.stdlib_module_names
    assert owners == {"numpy", "pyconv"}
    assert not {"pyconv.__main__", "pyconv._reference", "pyconv.bench", "pyconv.selftest"} & set(loaded)


def test_public_names() -> None:
    assert set(pyconv.__all__) == {
        "Conv1d", "Conv2d", "ConvError", "ConvTypeError", "available_isas", "conv1d", "conv2d",
        "flush_denormals", "get_num_threads", "isa", "num_threads", "set_num_threads", "show_config",
    }  # fmt: skip
    for name in pyconv.__all__:
        assert getattr(pyconv, name).__doc__, f"{name} has no docstring"

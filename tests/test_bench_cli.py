"""The command: mistakes are one line and status 2; a run goes from layers to files; Ctrl-C keeps what there is."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import pyconv
from _processes import HERE, environment, python
from pyconv._dispatch import LEVELS
from pyconv.bench import adapters, cli, plot, presets, processors, selection
from pyconv.bench.descriptor import parse
from pyconv.bench.errors import BenchError
from pyconv.bench.record import Run
from pyconv.bench.special import import_time

ALL = {"dense", "filter", "signal", "asymmetric"}
COMPUTES = {"torch": ALL - {"asymmetric"}, "torch-cl": ALL - {"asymmetric"}, "opencv": {"filter"}, "scipy": {"filter"}}
ONE = ("tiny", "--filter", "^3x3_4to4_8$")
BUILD = f"{Path(pyconv.__file__).parent.parent}/"


def without(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """Let some modules seem not to be installed."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in modules else find(name, *rest))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["resnet5"], "'resnet5'; did you mean 'resnet50'?"),
        (["no/such/file"], "no/such/file: no such file or directory"),
        (["no_such.onnx"], "no_such.onnx: no such file"),
        (["ic3oc"], "column 4: cannot read 'oc'"),
        (["ic3oc4id5kd3"], "three dimensions"),
        (["ic64oc64ih600000kh3"], "too large"),
        (["."], "is a directory"),
        ([*ONE, "--threads", "99999"], "--threads 99999: this process may use"),
        ([*ONE, "--threads", "two"], "'two'"),
        ([*ONE, "--threads", ""], "--threads '': the list is empty"),
        ([*ONE, "--threads", "1,,2"], "--threads '1,,2': an item"),
        ([*ONE, "--threads", "0"], "--threads '0': numbers of at least 1, or 'all', are expected"),
        ([*ONE, "--scaling", "--threads", "1"], "--scaling: several numbers of threads"),
        ([*ONE, "--batch", "0"], "--batch '0': numbers of at least 1 are expected"),
        ([*ONE, "--rounds", "0"], "--rounds: '0'"),
        ([*ONE, "--max-seconds", "soon"], "--max-seconds: 'soon'"),
        ([""], "unknown layers ''"),
        (["mine"], "all; descriptors (mb1ic64ih56oc64kh3ph1), files of them, ONNX models"),
        ([*ONE, "--patience", "1", "--max-seconds", "9"], "--patience 1: not with --max-seconds"),
        ([*ONE, "--compare", "x.json", "--json", "./x.json"], "--json ./x.json: is the record to compare with"),
        ([*ONE, "--against", "mine"], "installed; directories, with a slash"),
        ([*ONE, "--isa", "x86-64-v9"], "'x86-64-v9'; did you mean 'x86-64-v"),
        ([*ONE, "--dtype", "f8"], "'f8'"),
        ([*ONE, "--dtype", "s32"], "add --weights unpacked"),
        ([*ONE, "--layout", "nhcw"], "did you mean 'n"),
        ([*ONE, "--weights", "squeezed"], "known: packed, unpacked"),
        ([*ONE, "--against", "torhc"], "'torhc'; did you mean 'torch'?"),
        ([*ONE, "--against", "../nowhere"], "--against ../nowhere: no such directory"),
        ([*ONE, "--against", "/"], "--against /: holds no package pyconv"),
        ([*ONE, "--evict", "8MB"], "--evict '8MB': MiB from 0 to 4096 are expected"),
        ([*ONE, "--evict", "0,5000"], "--evict '5000'"),
        ([*ONE, "--evict", "8", "--import-time"], "--evict 8: not with --import-time"),
        (["--overhead", "--csv", "x.csv"], "--csv x.csv: not with --overhead, whose tables --json and --markdown take"),
        ([*ONE, "--patience", "0"], "--patience: '0' is not a positive number of seconds"),
        (["--overhead", "--patience", "60"], "--patience 60: not with --overhead"),
        (["--overhead", "--max-seconds", "9"], "--max-seconds 9: not with --overhead"),
        (["tiny", "--filter", "^dw_3x3_64_8$", "--tiles"], "--tiles: depthwise tiles cannot be run alone"),
        (["tiny", "--overhead"], "tiny: not with --overhead, which times layers of its own"),
        (["tiny", "unet", "--import-time"], "tiny unet: not with --import-time, which imports"),
        (["--overhead", "--batch", "8"], "--batch 8: not with --overhead, which times layers of its own"),
        (["--import-time", "--isa", "x86-64-v2"], "--isa x86-64-v2: not with --import-time, which imports"),
        (["--import-time", "--threads", "2"], "--threads 2: not with --import-time, which imports"),
        ([*ONE, "--against", BUILD, "--import-time"], f"--against {BUILD}: not with --import-time"),
        ([*ONE, "--against", BUILD, "--tiles"], f"--against {BUILD}: not with --tiles"),
        ([*ONE, "--filter", "("], "--filter '('"),
        ([*ONE, "--filter", "conv"], "leaves none of 36 layers"),
        ([*ONE, "--json", "/no/such/directory/x"], "no directory"),
        ([*ONE, "--csv", "."], "is a directory"),
        ([*ONE, "--csv", ""], "--csv '': the name is empty"),
        ([*ONE, "--csv", "x", "--json", "x"], "--csv x: another output goes there"),
        ([*ONE, "--csv", "./x", "--json", "x"], "--csv ./x: another output goes there"),
        ([*ONE, "--compare", "x.json", "--markdown", "x.json"], "--markdown x.json: is the record to compare with"),
        ([*ONE, "--plot", "x.jpg"], "must end in one of"),
        ([*ONE, "--compare", "no_such.json"], "--compare no_such.json: "),
        ([*ONE, "--fail-if", "median:10%"], "needs --compare"),
        ([*ONE, "--fail-if", "10"], "'10' is not of the form median:10%"),
        ([*ONE, "--fast"], "--fast"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == cli.MISUSED
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("pyconv bench: ")
    assert err.count("\n") == 1
    assert words in err


def test_from_the_shell() -> None:
    process = python("-m", "pyconv", "bench", "resnet5")
    assert process.returncode == 2
    assert process.stderr.startswith("pyconv bench: unknown")
    assert process.stderr.count("\n") == 1


@pytest.mark.parametrize("variable", ["OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "OMP_THREAD_LIMIT"])
def test_threads_that_are_bound_by_others_are_refused(
    variable: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, "0")
    assert cli.main(ONE) == cli.MISUSED
    assert f"{variable}=0 " in capsys.readouterr().err


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--list"]) == cli.OK
    listed = dict(line.split()[:2] for line in capsys.readouterr().out.splitlines())
    assert listed.keys() == {*presets.NAMES, "all"}
    assert listed["resnet50"] == "23"
    assert int(listed["all"]) == sum(int(listed[name]) for name in presets.NAMES)


def test_modes_that_have_tables_only_draw_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plot, "available", lambda: True)
    assert cli.main(["--scaling", "--plot", "x.png"]) == cli.MISUSED
    assert "--plot x.png: not with --scaling, which has tables only" in capsys.readouterr().err


def test_list_of_layers_can_be_read_back(capsys: pytest.CaptureFixture[str]) -> None:
    for words, layers in ((["all"], presets.layers("all")), (["--filter", "^conv1$"], presets.layers("resnet50")[:1])):
        assert cli.main(["--list", *words]) == cli.OK
        assert [parse(line) for line in capsys.readouterr().out.splitlines()] == layers
    assert cli.main(["--list", "mb1ic3ih9oc4oh7kh3"]) == cli.OK
    assert capsys.readouterr().out == "mb1ic3oc4_ih9oh7kh3ph0\n"
    odd = replace(parse("mb1ic3ih9oc4oh7kh3"), network="net:1", name='block/conv"2":0*3', multiplicity=2)
    assert parse(odd.line) == replace(odd, network="net_1", name="block/conv'2'_0_3")


def test_one_round(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record, table, lines = (tmp_path / name for name in ("run.json", "run.md", "run.csv"))
    outputs = ["--json", str(record), "--markdown", str(table), "--csv", str(lines)]
    assert cli.main([*ONE, "--rounds", "1", "--weights", "packed,unpacked", "--dtype", "f32,f64", *outputs]) == cli.OK
    out, err = capsys.readouterr()
    assert "3x3_4to4_8" in out
    assert err == ""
    run = Run.read_json(record)
    assert [(row.settings.dtype, row.settings.weights) for row in run.rows] == [
        ("f32", "packed"), ("f32", "unpacked"), ("f64", "packed"), ("f64", "unpacked"),
    ]  # fmt: skip
    for row in run.rows:
        assert row.settings.isa == pyconv.isa()
        assert len(row.pyconv.seconds) == 1
        assert 1e-7 < row.pyconv.median < 1
        assert 0 < row.error <= 1
        assert 0 < row.percent_of_peak(run.yardstick(row.settings)) < 120
        assert row.plan.startswith(pyconv.isa())
    assert "3x3_4to4_8" in table.read_text()
    with lines.open() as file:
        assert len(list(csv.DictReader(file))) == 4


@pytest.fixture(scope="module")
def among_peers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """One run in each layout against everything that is installed."""
    directory = tmp_path_factory.mktemp("peers")
    shapes, record = directory / "shapes", directory / "run.json"
    shapes.write_text(
        'mb2ic3ih9oc4oh5kh3sh2ph1n"dense" g3mb1ic3ih9oc3oh9kh3ph1n"filter" '
        'mb1ic4iw9oc2ow9kw3pw1n"signal" mb1ic2ih5oc2oh8kh3ph3n"asymmetric"'
    )
    runs = {}
    for layout in ("nchw", "nhwc"):
        options = ["--against", "installed", "--rounds", "1", "--layout", layout, "--json", str(record)]
        assert cli.main([str(shapes), *options]) == cli.OK
        runs[layout] = Run.read_json(record)
    return runs


@pytest.mark.parametrize("name", adapters.NAMES)
def test_peers_compute_what_pyconv_computes(name: str, among_peers: dict[str, Run]) -> None:
    if adapters.missing(name):
        pytest.skip(f"{name} is not installed")
    for layout, run in among_peers.items():
        if layout not in adapters.adapter(name).LAYOUTS:
            assert {row.skipped.get(name) for row in run.rows} == {f"not for {layout}"}
            continue
        assert {row.name for row in run.rows if name in row.peers} == COMPUTES.get(name, ALL)
        assert "wrong" not in "".join(row.skipped.get(name, "") for row in run.rows)
        assert all(name in row.approximate for row in run.rows if name in row.peers) == (name == "ncnn")


def test_a_peer_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "torch", "onnx")
    with pytest.raises(BenchError, match="--against torch: not installed; try: pip install torch"):
        selection.peers_of("torch")
    with pytest.raises(BenchError, match=r"try: pip install .*onnx$"):
        selection.peers_of("onnxruntime")
    assert not {"torch", "torch-cl", "onnxruntime"} & {peer.name for peer in selection.peers_of("installed")}


def test_no_peer_is_installed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(selection.adapters, "missing", lambda name: [name])
    assert cli.main([*ONE, "--rounds", "1", "--against", "installed"]) == cli.OK
    assert "--against installed: none of torch, torch-cl, " in capsys.readouterr().err


def test_another_build_is_a_peer_with_caches_left_alone_and_swept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "run.json"
    options = ["--evict", "0,2", "--layout", "nchw,nhwc", "--rounds", "1", "--json", str(record)]
    assert cli.main([*ONE, "--against", BUILD, *options]) == cli.OK
    run = Run.read_json(record)
    assert [(row.settings.layout, row.settings.evicted) for row in run.rows] == [
        ("nchw", 0), ("nchw", 2), ("nhwc", 0), ("nhwc", 2),
    ]  # fmt: skip
    assert all(1e-7 < row.peers[BUILD].median < 1 for row in run.rows)
    assert BUILD in run.versions
    assert "nchw, 2 MiB evicted" in capsys.readouterr().out


def test_a_build_that_does_not_start_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    worker = tmp_path / "pyconv" / "bench" / "worker.py"
    worker.parent.mkdir(parents=True)
    for file in (worker, worker.parent / "__init__.py", worker.parent.parent / "__init__.py"):
        file.write_text("raise ImportError('not compiled')\n")
    assert cli.main([*ONE, "--against", str(tmp_path), "--rounds", "1"]) == cli.FAILED
    assert f"{tmp_path}: its process ended with status 1: ImportError: not compiled" in capsys.readouterr().err


def test_a_directory_is_written_with_a_slash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other" / "pyconv").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert cli.main([*ONE, "--against", "other"]) == cli.MISUSED
    assert "--against other: a directory is written with a slash, other/" in capsys.readouterr().err


def test_peers_asked_for_by_name_run_on_nchw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters, "missing", lambda name: [])
    named = {peer.name: peer.layouts for peer in selection.peers_of("torch-cl,torch")}
    assert named == {"torch-cl": ("nchw", "nhwc"), "torch": ("nchw",)}
    everyone = {peer.name: peer.layouts for peer in selection.peers_of("installed")}
    assert everyone["torch-cl"] == ("nhwc",)
    assert tuple(everyone) == adapters.NAMES


def test_plots_are_refused_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(plot, "available", lambda: False)
    assert cli.main([*ONE, "--plot", str(tmp_path / "x.png")]) == cli.MISUSED
    assert "needs matplotlib" in capsys.readouterr().err


def test_threads() -> None:
    most = len(processors.cpus())
    assert selection.threads_of("1,all") == list(dict.fromkeys([1, most]))


def test_a_processor_of_each_core_comes_before_the_second_of_any(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Processors 0 and 1 are a core, 2 and 3 another, of which 2 is not allowed, and of 7 the system says nothing.
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 3, 7}, raising=False)
    monkeypatch.setattr(processors, "_CORE", f"{tmp_path}/{{}}")
    for cpu, siblings in {0: "0-1", 1: "0-1", 2: "2-3", 3: "2-3"}.items():
        (tmp_path / str(cpu)).write_text(siblings + "\n")
    assert processors.cpus() == [0, 3, 7, 1]


def test_jobs_keep_a_layers_own_batch() -> None:
    layers, _ = selection.layers_of(["ic1oc1ih4kh1", "mb3ic1oc1ih4kh1", "tiny"], None)
    settings = {
        "threads": [1],
        "dtypes": ["f32"],
        "layouts": ["nchw"],
        "weights": ["packed"],
        "isas": ["x"],
        "evicted": [0],
    }
    own = selection.jobs_of(layers, batches=None, **settings)  # type: ignore[arg-type]
    assert [job.settings.batch for job in own[:3]] == [2, 3, 1]
    asked = selection.jobs_of(layers, batches=[5, 6], **settings)  # type: ignore[arg-type]
    assert len(asked) == 2 * len(own)
    assert {(job.layer.mb, job.settings.batch) for job in asked} == {(5, 5), (6, 6)}


def test_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = tmp_path / "old.json"
    cli.main([*ONE, "--rounds", "1", "--json", str(record)])
    old = json.loads(record.read_text())
    for row in old["rows"]:
        row["pyconv"]["seconds"] = [1e-9]
    record.write_text(json.dumps(old))
    capsys.readouterr()
    assert cli.main([*ONE, "--rounds", "1", "--compare", str(record)]) == cli.OK
    assert cli.main([*ONE, "--rounds", "1", "--compare", str(record), "--fail-if", "median:10%"]) == cli.FAILED
    assert "slower by more than 10 %" in capsys.readouterr().out
    other = ["mb1ic1oc1_ih2oh2kh1ph0", "--rounds", "1", "--compare", str(record)]
    assert cli.main(other) == cli.OK
    assert cli.main([*other, "--fail-if", "median:10%"]) == cli.FAILED
    assert "nothing was compared: that is a failure" in capsys.readouterr().out
    assert cli.main([*ONE, "--scaling", "--threads", "1,2", "--compare", str(record)]) == cli.MISUSED
    assert "not with --scaling" in capsys.readouterr().err
    record.write_text(json.dumps({**old, "rows": [], "special": {"scaling": {}}}))
    assert cli.main([*ONE, "--compare", str(record)]) == cli.MISUSED
    assert "no table of layers, only scaling" in capsys.readouterr().err


def test_special_modes(tmp_path: Path) -> None:
    record = tmp_path / "run.json"
    modes = ["--memory", "--overhead", "--denormals", "--tiles"]
    assert cli.main(["tiny", "--filter", "^3x3_64to64_8$", *modes, "--rounds", "1", "--json", str(record)]) == cli.OK
    special = Run.read_json(record).special
    assert list(special) == ["memory", "overhead", "denormals", "tiles"]
    for table in special.values():
        assert table["rows"]
        assert all(len(row) == len(table["columns"]) for row in table["rows"])
    assert all(number > 0 for number in special["denormals"]["rows"][0][3:])
    peak, scratch = special["memory"]["rows"][0][4], special["memory"]["rows"][0][6]
    assert 0 <= peak < scratch + 512
    assert all(row[-1] > 0 for row in special["tiles"]["rows"])


def test_imports_are_timed_as_installations_have_them_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    import_time._import("pyconv", str(tmp_path))
    assert [*tmp_path.rglob("pyconv/_tiles.*.pyc")]


def test_an_instruction_set_of_another_processor_is_told_from_an_unknown_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyconv, "available_isas", lambda: (pyconv.isa(),))
    other = next(isa for isa in LEVELS if isa != pyconv.isa())
    with pytest.raises(BenchError, match=f"--isa {other}: not on this processor, which has {pyconv.isa()}"):
        selection.isas_of(other)


def test_bfloat16_needs_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    settings = {"threads": [1], "layouts": ["nchw"], "weights": ["packed"], "isas": ["x"], "evicted": [0]}
    with pytest.raises(BenchError, match="pip install ml_dtypes"):
        selection.jobs_of([], batches=None, dtypes=["bf16"], **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(lambda pid: os.killpg(pid, signal.SIGINT), id="Ctrl-C, as the terminal has it"),
        pytest.param(lambda pid: os.kill(pid, signal.SIGTERM), id="SIGTERM, as a time limit has it"),
    ],
)
def test_what_was_measured_is_kept(tmp_path: Path, end: Callable[[int], None]) -> None:
    record = tmp_path / "run.json"
    command = [sys.executable, "-m", "pyconv", "bench", *ONE, "--rounds", "1000000", "--json", str(record)]
    for patience in (2, 8, 32):
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            cwd=HERE,
            process_group=0,
        )
        time.sleep(patience)
        end(process.pid)
        out, err = process.communicate(timeout=60)
        if record.exists():  # else it was still importing
            break
    assert process.returncode == cli.INTERRUPTED
    assert "Traceback" not in err
    (row,) = Run.read_json(record).rows
    assert row.partial
    assert row.pyconv.seconds
    assert "3x3_4to4_8" in out

"""The self-test passes here, covers what it should, and fails where a promise is broken: a fault for each check."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
import pytest

import pyconv
from _processes import python
from pyconv import __main__, _arguments, _call, _execute, _threads
from pyconv._dispatch import forced, kernels
from pyconv._dtypes import ACCUMULATOR
from pyconv.selftest import checks, cli, judging
from pyconv.selftest.trials import Trial, difference, large, small

BEST = pyconv.available_isas()[-1]
Fault = Callable[[np.ndarray, np.ndarray, int], None]  # of x, out and how many threads it may use, after the call

forking = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
ON_X86 = sys.platform == "linux" and platform.machine() == "x86_64"
x86 = pytest.mark.skipif(not ON_X86, reason="rounding is set by a number of this system")
linux = pytest.mark.skipif(sys.platform != "linux", reason="pages are protected by mprotect")


def test_this_installation_passes() -> None:
    ran = python("-m", "pyconv", "selftest")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "FAILED" not in ran.stdout
    for isa in pyconv.available_isas():
        assert f"exact results, {isa}" in ran.stdout
    skipped = ran.stdout.count("  skipped: ")
    counted = f"{len(list(checks.checks(0))) - skipped} checks passed, " + (f"{skipped} skipped, " if skipped else "")
    assert ran.stdout.splitlines()[-1].startswith(counted)


def test_the_self_test_is_imported_when_asked_for() -> None:
    ran = python(
        "-c", "import sys, pyconv.__main__; print([m for m in sys.modules if m.startswith('pyconv.selftest')])"
    )
    assert ran.stdout.strip() == "[]"


# --- what is tried --------------------------------------------------------------------------------


def role(trial: Trial) -> str:
    """Return the role of the plan that a trial is computed by."""
    settings = (trial.stride, trial.padding, trial.dilation, trial.groups, trial.padding_mode)
    x, weight, bias = trial.integers
    looks = [None if a is None else (a.shape, a.strides, a.dtype) for a in (x, weight, bias)]
    return str(_call.prepare(weight.ndim - 2, *looks, _arguments.settings(*settings)).job.step(None).plan.tile.role)


def test_the_trials_cover_every_role(isa: str) -> None:
    trials = list(small(0, checks._SMALL))
    with forced(isa):
        seen = {(role(trial), trial.dtype, trial.channels_last) for trial in trials if "complex" not in trial.dtype}
    assert {trial.dtype for trial in trials} == ACCUMULATOR.keys() - {"bfloat16"}
    assert seen >= set(product(("oc", "ow", "dw", "dc"), ("float32", "float64"), (False, True)))
    assert {trial.padding_mode for trial in trials} == set(_arguments.PADDING_MODES)
    assert {trial.src_dtype for trial in trials} > {"bool", "uint8", "int8", "uint16", "int16"}
    assert {(trial.stride, trial.dilation) for trial in trials} == set(product((1, 2, 3), repeat=2))
    assert {len(trial.x_shape) for trial in trials} == {3, 4}
    outputs = np.concatenate([trial.expected.ravel() for trial in trials])
    assert np.count_nonzero(outputs) > 0.9 * outputs.size


def test_the_trials_are_exact() -> None:
    """No sum, in any order, is an integer that float32 does not hold."""
    for trial in (*large(), *small(0, checks._SMALL)):
        terms = np.prod(trial.weight_shape[1:])
        assert 2 * terms * 255 * 3 + 1000 < 2**24  # a complex product has two in each part


def test_the_same_seed_draws_the_same_trials() -> None:
    assert list(small(5, 50)) == list(small(5, 50))
    assert list(small(5, 50)) != list(small(6, 50))


def test_large_trials_are_worth_two_threads() -> None:
    assert not any(_execute.is_serial(trial.problem) for trial in large())


def test_the_repr_of_a_trial_makes_it_again() -> None:
    for trial in small(1, 50):
        assert eval(repr(trial)) == trial


def test_difference_tells_bits() -> None:
    zeros = np.zeros((2, 3), np.float32)
    assert difference(zeros, zeros.copy()) == ""
    assert difference(-zeros, zeros).startswith("6 of 6 differ, first at (0, 0)")
    assert "float64" in difference(zeros.astype(np.float64), zeros)


# --- faults ---------------------------------------------------------------------------------------


def corner(array: np.ndarray) -> tuple[int, ...]:
    return (-1,) * array.ndim


def off_by_one(x: np.ndarray, out: np.ndarray, threads: int) -> None:
    out[corner(out)] += 1


def off_by_one_in_a_thread(x: np.ndarray, out: np.ndarray, threads: int) -> None:
    if threading.current_thread() is not threading.main_thread():
        off_by_one(x, out, threads)


def off_by_one_in_a_child(x: np.ndarray, out: np.ndarray, threads: int) -> None:
    if _threads._forked:
        off_by_one(x, out, threads)


def a_bit_on_the_best_isa(x: np.ndarray, out: np.ndarray, threads: int) -> None:
    if kernels().isa == BEST:
        out[corner(out)] = np.nextafter(out[corner(out)], out.dtype.type(np.inf))


def a_bit_on_two_threads(x: np.ndarray, out: np.ndarray, threads: int) -> None:
    if threads == 2:
        out[corner(out)] = np.nextafter(out[corner(out)], out.dtype.type(np.inf))


def read_beyond(x: np.ndarray, out: np.ndarray, threads: int) -> None:
    ctypes.string_at(np.lib.array_utils.byte_bounds(x)[1], 1)


def read_before(x: np.ndarray, out: np.ndarray, threads: int) -> None:
    ctypes.string_at(np.lib.array_utils.byte_bounds(x)[0] - 1, 1)


def write_before(x: np.ndarray, out: np.ndarray, threads: int) -> None:
    ctypes.memset(np.lib.array_utils.byte_bounds(out)[0] - 1, 7, 1)


def abort(x: np.ndarray, out: np.ndarray, threads: int) -> None:
    os.abort()


def error(x: np.ndarray, out: np.ndarray, threads: int) -> None:
    raise RuntimeError("no such thing")


def round_upward(x: np.ndarray, out: np.ndarray, threads: int) -> None:
    _set_rounding(_UPWARD)


_NEAREST, _UPWARD = 0, 0x800  # <fenv.h> of x86-64


def _set_rounding(mode: int) -> None:
    ctypes.CDLL(None).fesetround(mode)


@pytest.fixture
def break_calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Fault], None]]:
    """Return a function that makes every call commit a fault."""

    def install(fault: Fault) -> None:
        right = _execute.Step.run

        def wrong(self, x, weight, bias, out, packs=None):  # type: ignore[no-untyped-def]
            right(self, x, weight, bias, out, packs)
            fault(x, out, self.threads)

        monkeypatch.setattr(_execute.Step, "run", wrong)

    monkeypatch.setattr(checks, "_SMALL", 60)
    yield install
    if ON_X86:
        _set_rounding(_NEAREST)


@pytest.mark.parametrize(
    ("name", "fault", "told"),
    [
        ("exact results", off_by_one, "differ, first at"),
        ("exact results", error, "RuntimeError: no such thing"),
        pytest.param("exact results", abort, "ended by SIGABRT", marks=forking),
        pytest.param("guard pages", off_by_one, "differ, first at", marks=linux),
        pytest.param("guard pages", read_beyond, "at the end of memory", marks=linux),
        pytest.param("guard pages", read_before, "at the start of memory", marks=linux),
        pytest.param("guard pages", read_before, "ended by SIGSEGV", marks=linux),
        pytest.param("guard pages", write_before, "written outside an array", marks=linux),
        ("same bits on all", a_bit_on_the_best_isa, f"{BEST} and "),
        ("same bits on 1 to", a_bit_on_two_threads, "2 threads, Trial("),
        ("4 callers at once", off_by_one_in_a_thread, "one layer, "),
        pytest.param("forked child", off_by_one_in_a_child, "differ, first at", marks=forking),
        pytest.param("floating-point state", round_upward, "rounding", marks=x86),
    ],
)
def test_a_fault_fails_its_check(
    name: str, fault: Fault, told: str, break_calls: Callable[[Fault], None], capsys: pytest.CaptureFixture[str]
) -> None:
    break_calls(fault)
    (check,) = [check for check in checks.checks(0) if check.name.startswith(name) and check.isa == BEST]
    if check.skipped:
        pytest.skip(check.skipped)
    assert not cli.passes(check)
    first, *details = capsys.readouterr().out.splitlines()
    assert first.startswith(check.name)
    assert " FAILED " in first
    assert any(told in line for line in details), details


def test_a_failed_check_is_the_exit_status(
    break_calls: Callable[[Fault], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    break_calls(off_by_one)
    first = list(checks.checks(0))[:2]
    monkeypatch.setattr(cli, "checks", lambda seed: first)
    assert __main__.main(["selftest", "--seed", "3"]) == 1
    *_, verdict = capsys.readouterr().out.splitlines()
    assert verdict.startswith(f"{len(first)} of {len(first)} checks FAILED")


def test_a_seed_below_zero_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        __main__.main(["selftest", "--seed", "-1"])
    assert "--seed: -1 is less than 0" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        __main__.main(["selftest", "--seed", "one"])
    assert "--seed: 'one' is not an int" in capsys.readouterr().err


def test_an_instruction_set_that_cannot_be_loaded_is_a_failed_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert not cli.passes(checks.Check("missing", "x86-64-v9", list, judging.here))
    assert "KeyError: 'x86-64-v9'" in capsys.readouterr().out


def test_a_check_without_a_case_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert not cli.passes(checks.Check("nothing", BEST, list, judging.here))


def test_a_skipped_check_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.passes(checks.Check("elsewhere", BEST, list, judging.here, "not here"))
    assert "skipped: not here" in capsys.readouterr().out


@forking
def test_a_child_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "_PATIENCE", 0.5)
    cases = [judging.Case("quick", lambda: ""), judging.Case("hangs", lambda: time.sleep(60) or "")]
    assert list(judging.in_child(cases)) == ["", "hangs: ended by SIGKILL"]

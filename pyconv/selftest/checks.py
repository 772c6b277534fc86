"""What is checked, as a list: each promise on each instruction set that this processor runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from pyconv._dispatch import available_isas, forced, kernels
from pyconv.modules import Conv2d
from pyconv.selftest.guarded import GuardedMemory
from pyconv.selftest.judging import CALLERS, Case, Cases, Verdicts, here, in_child, in_threads
from pyconv.selftest.trials import Array, Operands, Trial, difference, large, small

_SMALL = 840  # small trials; a part of them where each is computed several times
_WITHOUT_FMA = "x86-64-v2"  # its bits are its own
_MOST_THREADS = 4


@dataclass(frozen=True)
class Check:
    """A check: its cases, the instruction set that they run on, and how they are judged.

    `skipped` says why it cannot be made here.
    """

    name: str
    isa: str
    cases: Callable[[], Cases]
    judged: Callable[[Cases], Verdicts]
    skipped: str = ""

    def verdicts(self) -> Verdicts:
        """Judge the cases."""
        with forced(self.isa):
            yield from self.judged(self.cases())


def checks(seed: int) -> Iterator[Check]:
    """Yield all checks, on the trials of this seed.

    What needs no threads of its own runs in a child, so that a fault ends the check and not the rest.
    """
    isas = available_isas()
    some, many = list(large()), list(small(seed, _SMALL))
    few = [*some, *many[: _SMALL // 4]]
    fused = [isa for isa in isas if isa != _WITHOUT_FMA]
    threads = min(_MOST_THREADS, kernels().module.max_threads())
    alone = "" if threads > 1 else "OpenMP has one thread here"
    not_two = "" if len(fused) > 1 else "one instruction set with FMA here"
    no_fork = "" if hasattr(os, "fork") else "no fork on this system"
    isolated = here if no_fork else in_child
    no_guard = "" if sys.platform == "linux" else "Linux only"
    same_on_isas = partial(_same_bits_on_isas, [*some, *many], fused)
    same_on_threads = partial(_same_bits_on_threads, some, threads)

    for isa in isas:
        yield Check(f"exact results, {isa}", isa, partial(_exact, [*some, *many]), isolated)
    for isa in isas:
        yield Check(f"guard pages, {isa}", isa, partial(_guarded, many), isolated, no_guard)
    yield Check("same bits on all of them with FMA", isas[-1], same_on_isas, isolated, not_two)
    for isa in isas:
        yield Check(f"same bits on 1 to {threads} threads, {isa}", isa, same_on_threads, here, alone)
    for isa in isas:
        yield Check(f"{CALLERS} callers at once, {isa}", isa, partial(_called_at_once, few), in_threads)
    for isa in isas:  # after parallel regions: it is in their child that OpenMP hangs
        yield Check(f"forked child, {isa}", isa, partial(_exact, few, threads=2), in_child, no_fork)
    for isa in isas:
        yield Check(f"floating-point state, {isa}", isa, partial(_state_kept, few), here)


def _exact(trials: list[Trial], threads: int = 1) -> Cases:
    """Compare with the reference."""

    def judge(trial: Trial) -> str:
        return difference(trial.compute(trial.integers, threads=threads), trial.expected)

    return (Case(repr(trial), partial(judge, trial)) for trial in trials)


def _same_bits_on_isas(trials: list[Trial], isas: list[str]) -> Cases:
    """Compare instruction sets with one another."""

    def result(trial: Trial, isa: str) -> Array:
        with forced(isa):
            return trial.compute(trial.gaussian)

    def judge(trial: Trial, isa: str) -> str:
        return difference(result(trial, isa), result(trial, isas[0]))

    return (Case(f"{isa} and {isas[0]}, {trial}", partial(judge, trial, isa)) for trial in trials for isa in isas[1:])


def _same_bits_on_threads(trials: list[Trial], most: int) -> Cases:
    """Compare thread counts with one thread."""

    def judge(trial: Trial, threads: int) -> str:
        return difference(trial.compute(trial.gaussian, threads=threads), trial.compute(trial.gaussian))

    return (Case(f"{n} threads, {trial}", partial(judge, trial, n)) for trial in trials for n in range(2, most + 1))


def _called_at_once(trials: list[Trial]) -> Cases:
    """Compare with the reference, and call one layer in between: all of its callers share the packed weights."""
    shared = trials[0]
    oc, ic, *kernel = shared.weight_shape
    layer = Conv2d(ic, oc, tuple(kernel), padding=shared.padding)
    layer.weight, layer.bias = shared.integers.weight, shared.integers.bias
    layer.eval()

    def judge() -> str:
        return difference(layer(shared.integers.x, num_threads=2), shared.expected)

    for case in _exact(trials, threads=2):
        yield case
        yield Case(f"one layer, {shared}", judge)


def _guarded(trials: list[Trial]) -> Cases:
    """Compare with the reference, every array flush against a page without access.

    A forked child computes on one thread.
    """

    def judge(trial: Trial, edge: str) -> str:
        memory = GuardedMemory(edge)
        operands, out = trial.integers.map(memory.copy), memory.copy(trial.empty())
        wrong = difference(trial.compute(operands, out), trial.expected)
        return wrong or ("" if memory.intact() else "written outside an array")

    return (
        Case(f"at the {edge} of memory, {trial}", partial(judge, trial, edge))
        for trial in trials
        for edge in ("end", "start")
    )


def _state_kept(trials: list[Trial]) -> Cases:
    """Compare the caller's arithmetic before and after calls on subnormal numbers and on numbers that overflow."""

    def judge(trial: Trial, operands: Operands, threads: int) -> str:
        before = _arithmetic()
        trial.compute(operands, threads=threads)
        return "" if _arithmetic() == before else "rounding or subnormal numbers are not what they were"

    for trial in trials:
        if trial.gaussian.x.dtype.kind == "f":
            range_ = np.finfo(trial.dtype)
            for scale, threads in ((range_.smallest_normal, 1), (range_.max / 16, 2)):
                operands = trial.gaussian._replace(x=trial.gaussian.x * scale)
                yield Case(f"pixels times {scale}, {trial}", partial(judge, trial, operands, threads))


def _arithmetic() -> bytes:
    """Compute quotients of both signs and of subnormal numbers, which tell every mode apart."""
    numerators = np.array([1.0, -1.0, np.finfo(float).smallest_normal, -np.finfo(float).smallest_subnormal])
    quotients: Array = numerators / np.array([3.0, 3.0, 2.0, 1.0])
    return quotients.tobytes()

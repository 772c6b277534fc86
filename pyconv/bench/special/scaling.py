"""How much faster with more threads, beside what the machine's own peak gains from them.

Cores share caches, memory and power, and on a virtual machine two processors may be one core. So a speed-up is compared
with that of a loop of multiply-adds on as many processors, sampled in the same rounds.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from contextlib import ExitStack

from pyconv.bench.contender import Contender, RefusedError, cpus
from pyconv.bench.progress import Progress
from pyconv.bench.record import geometric_mean
from pyconv.bench.session import Job
from pyconv.bench.special import Setup, Table, label

_SINGLE_STEPS = 8  # up to so many threads, every number of them


def thread_counts() -> list[int]:
    """Choose numbers of threads: every one on a small machine, powers of two on a large one."""
    most = len(cpus())
    if most <= _SINGLE_STEPS:
        return list(range(1, most + 1))
    powers = [1 << power for power in range(most.bit_length()) if 1 << power < most]
    return [*powers, most]


def columns(counts: Sequence[int]) -> list[str]:
    """Name the columns for the given numbers of threads, the first of which is what the others are compared with."""
    base, *more = counts
    unit = f"ms, {base} thread{'s' if base > 1 else ''}"
    return ["layer", "shape", "contender", unit, *(name for n in more for name in (f"x{n}", f"x{n} % of peak's"))]


def fill(table: Table, setup: Setup, counts: Sequence[int]) -> None:
    """Measure every layer with every number of threads, in turn."""
    table.columns = columns(counts)
    peaks: dict[str, dict[int, list[float]]] = {}
    ratios: dict[tuple[str, int], list[float]] = {}
    total = sum(job.weight() for job in setup.jobs) * setup.rounds * len(counts)
    with Progress(total, "scaling") as progress:
        for isa in dict.fromkeys(job.settings.isa for job in setup.jobs):
            jobs = [job for job in setup.jobs if job.settings.isa == isa]
            with ExitStack() as stack:
                names = ["pyconv", *(peer.name for peer in setup.peers)]
                team = {(name, n): stack.enter_context(Contender(name, n, isa)) for name in names for n in counts}
                for job in jobs:
                    times = _times(team, setup, job, counts, peaks.setdefault(isa, {}), progress)
                    _add_rows(table, setup, job, counts, times, peaks[isa], ratios)
    _summarise(table, counts, peaks, ratios)


def _times(
    team: dict[tuple[str, int], Contender],
    setup: Setup,
    job: Job,
    counts: Sequence[int],
    peaks: dict[int, list[float]],
    progress: Progress,
) -> dict[str, dict[int, list[float]]]:
    """Time one layer: seconds by contender and number of threads; a contender that refuses is not there."""
    times: dict[str, dict[int, list[float]]] = {}
    progress.say(job.layer.name or job.layer.shape_text)
    for name in setup.contenders(job):
        try:
            for n in counts:
                team[name, n].ask("prepare", key=0, **job.arguments())
        except RefusedError:
            if name == "pyconv":
                raise
            continue
        times[name] = {n: [] for n in counts}
    for _ in range(setup.rounds):
        for n in counts:
            peaks.setdefault(n, []).append(team["pyconv", n].ask("peak", dtype=job.settings.dtype)["gflops"])
            for name, samples in times.items():
                samples[n].append(team[name, n].time(0))
            progress.advance(job.weight())
    for contender in team.values():
        contender.ask("release", key=0)
    return times


def _speed_ups(samples: dict[int, list[float]], counts: Sequence[int]) -> list[float]:
    base, *more = (statistics.median(samples[n]) for n in counts)
    return [base / each for each in more]


def _peak_gains(peaks: dict[int, list[float]], counts: Sequence[int]) -> list[float]:
    return [1 / gain for gain in _speed_ups(peaks, counts)]


def _pairs(speed_ups: Iterable[float], gains: Iterable[float]) -> list[float | int | str]:
    return [figure for up, gain in zip(speed_ups, gains, strict=True) for figure in (up, 100 * up / gain)]


def _add_rows(
    table: Table,
    setup: Setup,
    job: Job,
    counts: Sequence[int],
    times: dict[str, dict[int, list[float]]],
    peaks: dict[int, list[float]],
    ratios: dict[tuple[str, int], list[float]],
) -> None:
    gains = _peak_gains(peaks, counts)
    for name, samples in times.items():
        ups = _speed_ups(samples, counts)
        for n, up in zip(counts[1:], ups, strict=True):
            ratios.setdefault((name, n), []).append(up)
        first = 1e3 * statistics.median(samples[counts[0]])
        table.rows.append([label(job, setup.jobs), job.layer.shape_text, name, first, *_pairs(ups, gains)])


def _summarise(
    table: Table,
    counts: Sequence[int],
    peaks: dict[str, dict[int, list[float]]],
    ratios: dict[tuple[str, int], list[float]],
) -> None:
    for name in dict.fromkeys(name for name, _ in ratios):
        means = "; ".join(f"{geometric_mean(ratios[name, n]):.2f}x with {n}" for n in counts[1:])
        table.notes.append(f"{name}, geometric mean: {means}")
    for isa, samples in peaks.items():
        gains = "; ".join(
            f"{gain:.2f}x with {n}" for n, gain in zip(counts[1:], _peak_gains(samples, counts), strict=True)
        )
        base = statistics.median(samples[counts[0]])
        table.notes.append(f"multiply-add peak, {isa}: {base:.0f} GFLOP/s with {counts[0]}; {gains}")

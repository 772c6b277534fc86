"""How much faster with more threads, beside what the machine's own peak gains from them.

Cores share caches, memory and power, and on a virtual machine two processors may be one core. So a speed-up is compared
with that of a loop of multiply-adds on as many processors, sampled in the same rounds.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from contextlib import ExitStack

from pyconv._words import counted
from pyconv.bench.contender import Contender, RefusedError
from pyconv.bench.processors import cpus
from pyconv.bench.progress import Progress
from pyconv.bench.record import geometric_mean
from pyconv.bench.session import Job
from pyconv.bench.special import Setup, Table, label
from pyconv.bench.table import digits

Samples = dict[int, list[float]]  # by number of threads

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
    unit = f"ms, {counted(base, 'thread')}"
    return ["layer", "shape", "contender", unit, *(name for n in more for name in (f"x{n}", f"x{n} % of peak's"))]


def fill(table: Table, setup: Setup, counts: Sequence[int]) -> None:
    """Measure every layer with every number of threads, in turn."""
    counts = sorted(counts)
    table.columns = columns(counts)
    peaks: dict[tuple[str, str], Samples] = {}
    found: list[tuple[Job, str, Samples]] = []
    total = sum(job.weight() for job in setup.jobs) * setup.rounds * len(counts)
    try:
        with Progress(total, "scaling") as progress:
            for isa in dict.fromkeys(job.settings.isa for job in setup.jobs):
                names = ["pyconv", *(peer.name for peer in setup.peers)]
                with ExitStack() as stack:
                    team = {(name, n): stack.enter_context(Contender(name, n, isa)) for name in names for n in counts}
                    for job in setup.jobs:
                        if job.settings.isa == isa:
                            progress.say(job.layer.name or job.layer.shape_text)
                            own = peaks.setdefault((isa, job.settings.dtype), {n: [] for n in counts})
                            found += [(job, *entry) for entry in _times(team, setup, job, own, progress).items()]
    finally:
        for job, name, samples in found:
            gains = _speed_ups(peaks[job.settings.isa, job.settings.dtype], inverse=True)
            pairs = zip(_speed_ups(samples), gains, strict=True)
            figures = [figure for up, gain in pairs for figure in (up, 100 * up / gain)]
            first = 1e3 * statistics.median(samples[counts[0]])
            table.rows.append([label(job, setup.jobs), job.layer.shape_text, name, first, *figures])
        _summarise(table, counts, peaks, found)


def _times(
    team: dict[tuple[str, int], Contender],
    setup: Setup,
    job: Job,
    peaks: Samples,
    progress: Progress,
) -> dict[str, Samples]:
    """Time one layer; a contender that refuses it is not in the answer."""
    times: dict[str, Samples] = {}
    for name in setup.contenders(job):
        try:
            for n in peaks:
                team[name, n].ask("prepare", key=0, **job.arguments())
        except RefusedError:
            if name == "pyconv":
                raise
            continue
        times[name] = {n: [] for n in peaks}
    for _ in range(setup.rounds):
        for n in peaks:
            peaks[n].append(team["pyconv", n].ask("peak", dtype=job.settings.dtype)["gflops"])
            for name, samples in times.items():
                samples[n].append(team[name, n].time(0))
            progress.advance(job.weight())
    for contender in team.values():
        contender.ask("release", key=0)
    return times


def _speed_ups(samples: Samples, *, inverse: bool = False) -> list[float]:
    """Divide the first median, of seconds, by each of the others; the inverse of that for rates."""
    base, *more = (statistics.median(each) for each in samples.values())
    return [each / base if inverse else base / each for each in more]


def _summarise(
    table: Table,
    counts: Sequence[int],
    peaks: dict[tuple[str, str], Samples],
    found: list[tuple[Job, str, Samples]],
) -> None:
    def words(ups: Iterable[float]) -> str:
        return ", ".join(f"{digits(up)}x with {n}" for n, up in zip(counts[1:], ups, strict=True))

    for name in dict.fromkeys(name for _, name, _ in found):
        columns = zip(*(_speed_ups(samples) for _, each, samples in found if each == name), strict=True)
        table.notes.append(f"{name}, geometric mean: {words(map(geometric_mean, columns))}")
    for (isa, dtype), samples in peaks.items():
        if all(samples.values()):
            base = f"{statistics.median(samples[counts[0]]):.0f} GFLOP/s with {counts[0]}"
            table.notes.append(f"multiply-add peak, {isa} {dtype}: {base}, {words(_speed_ups(samples, inverse=True))}")

"""Rounds: every contender times every layer once, in turn, with the machine's peak sampled in between.

Neighbours on shared cores slow everything down for seconds at a time. So no contender has a stretch of the run to
itself: within a round all of them run one after the other, the next round begins with another one, and a round goes
over as many layers as fit the memory together (`_CHUNK_BYTES`) before the next one starts.

Where others use the cores all the time, a run may be given patience with them (patience.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import Any, TypeVar

from pyconv.bench.contender import Contender, RefusedError, is_build
from pyconv.bench.layer import Layer
from pyconv.bench.operands import DTYPES
from pyconv.bench.patience import Patience
from pyconv.bench.progress import Progress
from pyconv.bench.record import Row, Settings, Timing, Yardstick

T = TypeVar("T")

LEAST_ROUNDS = 3
_CHUNK_BYTES = 1 << 30
_LAYERS_PER_BANDWIDTH = 8
# Operations, some ten milliseconds: longer calls have others in them in any case. The same for all contenders, whatever
# they take.
_LONG_FLOPS = 1_000_000_000
# Seconds, to weigh one layer against another: of a round with no work in it, on one thread and on several, and of an
# operation.
_PER_CALL, _PER_PARALLEL_CALL, _PER_FLOP = 0.015, 0.045, 2 / 50e9


@dataclass(frozen=True)
class Job:
    """A layer, and how to run it."""

    layer: Layer
    settings: Settings

    @property
    def bytes(self) -> int:
        """Bytes of input, weights and output."""
        return self.layer.bytes(DTYPES[self.settings.dtype].bytes)

    @property
    def flops(self) -> int:
        """Useful operations on real numbers."""
        return self.layer.flops * DTYPES[self.settings.dtype].operations

    def arguments(self) -> dict[str, object]:
        """Arguments of the request ``prepare``."""
        s = self.settings
        return {"layer": asdict(self.layer), "dtype": s.dtype, "layout": s.layout, "weights": s.weights}

    def weight(self) -> float:
        """Estimate the seconds of one contender's round."""
        round_trip = _PER_CALL if self.settings.threads == 1 else _PER_PARALLEL_CALL
        return round_trip + _PER_FLOP * self.flops


@dataclass(frozen=True)
class Peer:
    """A peer that was asked for: in which layouts it runs, and whether its results are approximate."""

    name: str
    layouts: tuple[str, ...]
    approximate: bool


@dataclass
class _Entry:
    """A job under way."""

    job: Job
    key: int
    facts: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


class Session:
    """Measure jobs; what is finished is in `rows` and `yardsticks` whenever the run ends.

    Parameters
    ----------
    jobs : sequence of Job
    peers : sequence of Peer
    rounds : int
    max_seconds : float, optional
        Make fewer rounds, if at least `LEAST_ROUNDS`, to end after about this time.
    patience : float, optional
        For how many seconds, in all, to wait for the cores and to take samples again.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        peers: Sequence[Peer],
        rounds: int,
        max_seconds: float | None = None,
        patience: float = 0.0,
    ) -> None:
        self.rows: list[Row] = []
        self.notes: list[str] = []  # what went wrong
        self.remarks: list[str] = []  # what a reader of the rows should know
        self.interrupted = False
        self.failed = False
        self._jobs = sorted(jobs, key=lambda job: (job.settings.isa, job.settings.threads))
        self._peers = peers
        self._rounds = rounds
        self._deadline = None if max_seconds is None else time.monotonic() + max_seconds
        self._patience = Patience(patience)
        self._peaks: dict[tuple[str, str, int], list[float]] = {}
        self._bandwidths: dict[tuple[str, str, int], float] = {}
        self._measured = 0
        self._work = sum(job.weight() for job in jobs)

    @property
    def yardsticks(self) -> list[Yardstick]:
        """What the machine itself did."""
        return [Yardstick(*key, peaks, self._bandwidths.get(key, 0.0)) for key, peaks in self._peaks.items()]

    def run(self) -> None:
        """Measure everything; Ctrl-C ends it early and keeps what there is."""
        total = self._work * self._rounds * (1 + len(self._peers))
        try:
            with Progress(total, "starting") as progress:
                for (isa, threads), jobs in groupby(self._jobs, lambda job: (job.settings.isa, job.settings.threads)):
                    self._run_group(isa, threads, list(jobs), progress)
        except KeyboardInterrupt:
            self.interrupted = True
        except RefusedError as refused:  # by pyconv
            self.notes.append(f"pyconv: {refused}")
            self.failed = True
        if remark := self._patience.remark:
            self.remarks.append(remark)

    def _run_group(self, isa: str, threads: int, jobs: list[Job], progress: Progress) -> None:
        """Measure the jobs that share their processes."""
        with ExitStack() as stack:
            team = [stack.enter_context(Contender("pyconv", threads, isa))]
            layouts = {job.settings.layout for job in jobs}
            peers = [peer for peer in self._peers if layouts & {*peer.layouts}]
            team += [stack.enter_context(Contender(peer.name, threads, isa)) for peer in peers]
            for contender in list(team):
                progress.say(f"starting {contender.name}")
                try:
                    contender.greet()
                except RefusedError as refused:
                    if contender is team[0]:
                        raise
                    self.notes.append(f"{contender.name}: {refused}")
                    self.failed |= is_build(contender.name)
                    team.remove(contender)
            for chunk in self._chunks(jobs):
                self._run_chunk(team, chunk, progress)

    def _chunks(self, jobs: list[Job]) -> Iterator[list[Job]]:
        """Split into parts whose arrays fit the memory, all contenders' together."""
        chunk: list[Job] = []
        used = 0
        for job in jobs:
            size = 2 * job.bytes * (1 + len(self._peers))
            if chunk and used + size > _CHUNK_BYTES:
                yield chunk
                chunk, used = [], 0
            chunk.append(job)
            used += size
        yield chunk

    def _run_chunk(self, team: list[Contender], jobs: list[Job], progress: Progress) -> None:
        entries: list[_Entry] = []
        finished = False
        try:
            deadline = self._deadline_of(jobs)
            for job in jobs:
                progress.say(f"preparing {job.layer.name}")
                entry = self._prepare(team, job)
                if entry is not None:
                    entries.append(entry)
            done = 0
            while done < self._rounds:
                if done >= LEAST_ROUNDS and deadline is not None and time.monotonic() >= deadline:
                    break
                for entry in entries:
                    self._round(team, entry, done, progress)
                done += 1
            finished = True
            progress.advance((self._rounds - done) * sum(job.weight() for job in jobs) * len(team))
            for entry in entries:
                for contender in team:
                    with suppress(RefusedError):  # by one that has died
                        contender.ask("release", key=entry.key)
        finally:
            self.rows += [self._row(entry, finished) for entry in entries if entry.seconds["pyconv"]]
            self._work -= sum(job.weight() for job in jobs)

    def _deadline_of(self, jobs: list[Job]) -> float | None:
        """Give a chunk its share of the time left, by its share of the work left."""
        if self._deadline is None:
            return None
        now = time.monotonic()
        return now + max(0.0, self._deadline - now) * sum(job.weight() for job in jobs) / self._work

    def _prepare(self, team: list[Contender], job: Job) -> _Entry | None:
        """Have every contender that can prepare a layer, and its result checked; None if pyconv cannot."""
        entry = _Entry(job, self._measured)
        self._measured += 1
        try:
            entry.facts = team[0].ask("prepare", key=entry.key, **job.arguments())
        except RefusedError as refused:
            self._fail(job, str(refused))
            return None
        entry.seconds["pyconv"] = []
        if not entry.facts["error"] <= 1:
            self._fail(job, f"wrong result: {entry.facts['error']:.3g} times the bound of rounding")
        started = {contender.name: contender for contender in team}
        for peer in self._peers:
            if why := self._why_not(started.get(peer.name), peer, entry):
                entry.skipped[peer.name] = why
            else:
                entry.seconds[peer.name] = []
        self._sample_bandwidth(team[0], entry)
        return entry

    def _why_not(self, contender: Contender | None, peer: Peer, entry: _Entry) -> str:
        """Have a peer prepare a layer; say why it does not compete, if it does not."""
        layout = entry.job.settings.layout
        if layout not in peer.layouts:
            return f"not for {layout}"
        if contender is None:
            return "did not start"
        try:
            error = contender.ask("prepare", key=entry.key, **entry.job.arguments())["error"]
        except RefusedError as refused:
            return str(refused)
        if error <= 1:
            return ""
        contender.ask("release", key=entry.key)
        return f"wrong result: {error:.3g} times {'a thousandth' if peer.approximate else 'the bound of rounding'}"

    def _fail(self, job: Job, why: str) -> None:
        """Note what pyconv did wrong."""
        self.notes.append(f"{job.layer.descriptor} ({job.settings}): {why}")
        self.failed = True

    def _sample_bandwidth(self, contender: Contender, entry: _Entry) -> None:
        """Measure the bandwidth every few layers, and keep the best."""
        key = self._yardstick(entry.job)
        if entry.key % _LAYERS_PER_BANDWIDTH == 0 or key not in self._bandwidths:
            self._bandwidths[key] = max(self._bandwidths.get(key, 0.0), contender.ask("bandwidth")["gbytes"])

    def _yardstick(self, job: Job) -> tuple[str, str, int]:
        return job.settings.isa, job.settings.dtype, job.settings.threads

    def _round(self, team: list[Contender], entry: _Entry, number: int, progress: Progress) -> None:
        """Sample the peak and time every contender once, beginning with another one in each round."""
        job, pyconv = entry.job, team[0]
        progress.say(f"round {number + 1} of {self._rounds}, {job.layer.name or job.layer.shape_text}")

        def peak() -> float:
            return float(pyconv.ask("peak", dtype=job.settings.dtype)["gflops"])

        peaks = self._peaks.setdefault(self._yardstick(job), [])
        peaks.append(self._undisturbed(pyconv, job.settings, peak))
        first = number % len(team)
        for contender in team[first:] + team[:first]:
            if contender.name in entry.seconds:
                self._time(pyconv, contender, entry)
            progress.advance(job.weight())

    def _time(self, pyconv: Contender, contender: Contender, entry: _Entry) -> None:
        """Time a contender once; a peer that fails is out."""
        settings = entry.job.settings

        def take() -> float | None:
            try:
                return contender.time(entry.key, settings.evicted)
            except RefusedError as refused:
                if contender is pyconv:
                    raise
                entry.skipped[contender.name] = str(refused)
                return None

        long = entry.job.flops > _LONG_FLOPS
        sample = take() if long else self._undisturbed(pyconv, settings, take)
        if sample is None:
            del entry.seconds[contender.name]
        else:
            entry.seconds[contender.name].append(sample)

    def _undisturbed(self, pyconv: Contender, settings: Settings, take: Callable[[], T]) -> T:
        """Take a sample when nobody else uses the cores, as far as there is patience."""
        cores = settings.isa, settings.threads
        return self._patience.undisturbed(take, lambda: float(pyconv.ask("whole")["gflops"]), cores)

    def _row(self, entry: _Entry, finished: bool) -> Row:
        layer, settings, facts = entry.job.layer, entry.job.settings, entry.facts
        peers = {name: Timing(seconds) for name, seconds in entry.seconds.items() if name != "pyconv" and seconds}
        return Row(
            layer=layer.descriptor,
            network=layer.network,
            name=layer.name,
            multiplicity=layer.multiplicity,
            settings=settings,
            flops=entry.job.flops,
            bytes=entry.job.bytes,
            plan=facts["plan"],
            plan_short=facts["plan_short"],
            workspace=facts["workspace"],
            error=facts["error"],
            pyconv=Timing(entry.seconds["pyconv"]),
            peers={peer.name: peers[peer.name] for peer in self._peers if peer.name in peers},
            approximate=[peer.name for peer in self._peers if peer.approximate and peer.name in peers],
            skipped=entry.skipped,
            partial=not finished and len(entry.seconds["pyconv"]) < self._rounds,
        )

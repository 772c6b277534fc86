"""What a time in a steady state does not tell: a file for each special mode, which fills a table of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pyconv.bench.contender import RefusedError
from pyconv.bench.progress import Progress
from pyconv.bench.session import Job, Peer


@dataclass
class Table:
    """A table: rows of texts and numbers. It is filled as the figures come in, so that Ctrl-C keeps what there is."""

    title: str
    columns: list[str]
    rows: list[list[str | float | int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Setup:
    """What was asked for: jobs, one for each layer and setting; the peers; samples of every contender."""

    jobs: Sequence[Job]
    peers: Sequence[Peer]
    rounds: int

    def contenders(self, job: Job) -> list[str]:
        """Name pyconv and the peers that have the layout of a job."""
        return ["pyconv", *(peer.name for peer in self.peers if job.settings.layout in peer.layouts)]


def answers(
    setup: Setup, mode: str, ask: Callable[[str, Job], dict[str, Any]]
) -> Iterator[tuple[Job, str, dict[str, Any]]]:
    """Ask every contender about every job; yield job, contender and answer. A peer that refuses is left out."""
    with Progress(sum(len(setup.contenders(job)) for job in setup.jobs), mode) as progress:
        for job in setup.jobs:
            for name in setup.contenders(job):
                progress.say(f"{job.layer.name}, {name}")
                try:
                    answer = ask(name, job)
                except RefusedError:
                    if name == "pyconv":
                        raise
                    continue
                yield job, name, answer
                progress.advance(1)


def label(job: Job, among: Sequence[Job]) -> str:
    """Name a layer, with those of its settings that differ among the jobs."""
    words = [job.layer.name or job.layer.descriptor]
    for name in ("batch", "threads", "dtype", "layout", "weights", "isa"):
        values = {getattr(each.settings, name) for each in among}
        if len(values) > 1:
            value = getattr(job.settings, name)
            words.append(f"{name} {value}" if isinstance(value, int) else str(value))
    return ", ".join(words)

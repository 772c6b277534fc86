"""The first call in a process, and a thousand calls of which no two are alike.

A first call plans, packs the weights and takes memory from the system; what it costs more than the others is what a
short program pays. A program whose images all differ in size plans for each of them: its memory must not grow without
bound, and its calls must not become slower.
"""

from __future__ import annotations

import statistics

from pyconv.bench.contender import Contender, RefusedError
from pyconv.bench.progress import Progress
from pyconv.bench.special import Setup, Table, label

COLUMNS = ["layer", "shape", "contender", "first ms", "second ms", "steady ms", "first / steady"]

_PROCESSES = 3
_SHAPES = 1000


def fill(table: Table, setup: Setup) -> None:
    """Measure every layer in fresh processes: medians of three."""
    table.columns = COLUMNS
    with Progress(sum(len(setup.contenders(job)) for job in setup.jobs), "cold") as progress:
        for job in setup.jobs:
            s = job.settings
            for name in setup.contenders(job):
                progress.say(f"{job.layer.name}, {name}")
                answers = []
                try:
                    for _ in range(_PROCESSES):
                        with Contender(name, s.threads, s.isa) as contender:
                            answers.append(contender.ask("first", rounds=setup.rounds, **job.arguments()))
                except RefusedError:
                    if name == "pyconv":
                        raise
                    continue
                first, second, steady = (
                    1e3 * statistics.median(answer[key] for answer in answers) for key in ("first", "second", "steady")
                )
                shape = job.layer.shape_text
                table.rows.append([label(job, setup.jobs), shape, name, first, second, steady, first / steady])
                progress.advance(1)
        progress.say("a thousand shapes")
        _add_shapes(table, setup)


def _add_shapes(table: Table, setup: Setup) -> None:
    with Contender("pyconv", 1, setup.jobs[0].settings.isa) as contender:
        answer = contender.ask("shapes", count=_SHAPES)
    micro = {key: f"{1e6 * answer[key]:.1f} us" for key in ("first", "last", "new", "again")}
    table.notes += [
        f"{_SHAPES} calls of conv2d with {_SHAPES} different shapes: resident memory grew "
        f"by {answer['growth'] / 2**20:.1f} MiB; the first hundred took {micro['first']}, the last {micro['last']}",
        f"a call with a new shape {micro['new']}, with one seen before {micro['again']} (medians)",
    ]

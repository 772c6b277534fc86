"""The first call in a process, and a thousand calls of which no two are alike.

A first call plans, packs the weights and takes memory from the system; what it costs more than the others is what a
short program pays. A program whose images all differ in size plans for each of them: its memory must not grow without
bound, and its calls must not become slower.
"""

from __future__ import annotations

import statistics
from typing import Any

from pyconv.bench.contender import Contender
from pyconv.bench.progress import Progress
from pyconv.bench.session import Job
from pyconv.bench.special import Setup, Table, answers, label

COLUMNS = ["layer", "shape", "contender", "first ms", "second ms", "steady ms", "first / steady"]

_PROCESSES = 3
_SHAPES = 1000


def fill(table: Table, setup: Setup) -> None:
    """Measure every layer in fresh processes: medians of three."""
    table.columns = COLUMNS

    def ask(name: str, job: Job) -> dict[str, Any]:
        calls = []
        for _ in range(_PROCESSES):
            with Contender(name, job.settings.threads, job.settings.isa) as contender:
                calls.append(contender.ask("first", rounds=setup.rounds, **job.arguments()))
        return {key: 1e3 * statistics.median(call[key] for call in calls) for key in ("first", "second", "steady")}

    for job, name, answer in answers(setup, "cold", ask):
        first, second, steady = answer["first"], answer["second"], answer["steady"]
        shape = job.layer.shape_text
        table.rows.append([label(job, setup.jobs), shape, name, first, second, steady, first / steady])
    with Progress(1, "a thousand shapes"):
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

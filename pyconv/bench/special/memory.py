"""How much memory a call takes beyond its arrays, at its peak, beside what the plan announces."""

from __future__ import annotations

from typing import Any

from pyconv.bench.contender import Contender
from pyconv.bench.session import Job
from pyconv.bench.special import Setup, Table, answers, label

COLUMNS = [
    "layer",
    "shape",
    "contender",
    "arrays MiB",
    "peak KiB",
    "peak with kept KiB",
    "plan's scratch KiB",
    "packed weights KiB",
]


def fill(table: Table, setup: Setup) -> None:
    """Measure every layer in a process of its own."""
    table.columns = COLUMNS
    table.notes.append(
        "peak: by how much a call raises the peak of resident memory, its result not counted; with kept: with what "
        "stays from call to call, the contender's copies of the weights and its pools"
    )

    def ask(name: str, job: Job) -> dict[str, Any]:
        with Contender(name, job.settings.threads, job.settings.isa, keep_memory=False) as contender:
            return contender.ask("memory", **job.arguments())

    for job, name, answer in answers(setup, "memory", ask):
        own = [answer[key] / 1024 if key in answer else "-" for key in ("workspace", "packed")]
        sizes = [answer["arrays"] / 2**20, answer["peak"] / 1024, answer["kept"] / 1024]
        table.rows.append([label(job, setup.jobs), job.layer.shape_text, name, *sizes, *own])

"""What subnormal numbers cost: many processors take a detour for each operation that meets one.

The same layer on ordinary numbers, and on an image and bias so small that all products and sums are subnormal: as IEEE
has them, and, by pyconv, as zeros (``pyconv.flush_denormals``).
"""

from __future__ import annotations

import statistics
from typing import Any

from pyconv.bench.contender import Contender
from pyconv.bench.session import Job
from pyconv.bench.special import Setup, Table, answers, label

COLUMNS = ["layer", "shape", "contender", "ordinary ms", "subnormal ms", "ratio", "flushed ms", "ratio flushed"]


def fill(table: Table, setup: Setup) -> None:
    """Measure every layer: medians of interleaved rounds."""
    table.columns = COLUMNS

    def ask(name: str, job: Job) -> dict[str, Any]:
        with Contender(name, job.settings.threads, job.settings.isa) as contender:
            return contender.ask("denormals", rounds=setup.rounds, **job.arguments())

    for job, name, answer in answers(setup, "denormals", ask):
        ordinary, *others = (1e3 * statistics.median(samples) for samples in answer["seconds"].values())
        row: list[str | float | int] = [label(job, setup.jobs), job.layer.shape_text, name, ordinary]
        for each in others:
            row += [each, each / ordinary]
        table.rows.append(row + ["-"] * (len(COLUMNS) - len(row)))

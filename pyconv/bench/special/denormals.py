"""What subnormal numbers cost: many processors take a detour for each operation that meets one.

The same layer on ordinary numbers, and on an image and bias so small that all products and sums are subnormal: as IEEE
has them, and, by pyconv, as zeros (``pyconv.flush_denormals``).
"""

from __future__ import annotations

import statistics

from pyconv.bench.contender import Contender, RefusedError
from pyconv.bench.progress import Progress
from pyconv.bench.special import Setup, Table, label

COLUMNS = ["layer", "shape", "contender", "ordinary ms", "subnormal ms", "ratio", "flushed ms", "ratio flushed"]


def fill(table: Table, setup: Setup) -> None:
    """Measure every layer: medians of interleaved rounds."""
    table.columns = COLUMNS
    with Progress(sum(len(setup.contenders(job)) for job in setup.jobs), "denormals") as progress:
        for job in setup.jobs:
            s = job.settings
            for name in setup.contenders(job):
                progress.say(f"{job.layer.name}, {name}")
                try:
                    with Contender(name, s.threads, s.isa) as contender:
                        answer = contender.ask("denormals", rounds=setup.rounds, **job.arguments())
                except RefusedError:
                    if name == "pyconv":
                        raise
                    continue
                ordinary, *others = (1e3 * statistics.median(samples) for samples in answer["seconds"].values())
                row: list[str | float | int] = [label(job, setup.jobs), job.layer.shape_text, name, ordinary]
                for each in others:
                    row += [each, each / ordinary]
                table.rows.append(row + ["-"] * (len(COLUMNS) - len(row)))
                progress.advance(1)

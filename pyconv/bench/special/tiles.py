"""Every tile that the plans of the layers run, alone: how much of the peak is left once loads and broadcasts join in.

A layer cannot be faster than its tiles. The strip and the weights stay in the first level cache, so nothing but the
instructions of the tile counts.
"""

from __future__ import annotations

from pyconv.bench.contender import Contender
from pyconv.bench.errors import BenchError
from pyconv.bench.progress import Progress
from pyconv.bench.record import percentile
from pyconv.bench.special import Setup, Table

COLUMNS = ["ISA", "dtype", "tile", "kernel width", "GFLOP/s", "% of peak"]

_ROLES = {"oc": "output channels", "ow": "pixels"}
_PER_TILE = 0.005  # seconds of a sample


def fill(table: Table, setup: Setup) -> None:
    """Sample every tile and the peak, round by round; compare their best deciles."""
    table.columns = COLUMNS
    table.notes.append("tile: scalars x vectors, and what lies along the vectors; depthwise tiles cannot be run alone")
    for isa, dtype in dict.fromkeys((job.settings.isa, job.settings.dtype) for job in setup.jobs):
        with Contender("pyconv", 1, isa) as contender:
            tiles: set[tuple[str, int, int, int]] = set()
            for job in setup.jobs:
                if (job.settings.isa, job.settings.dtype) == (isa, dtype):
                    found = contender.ask("plan", **job.arguments())["tiles"]
                    tiles |= {(role, nv, m, kw) for role, nv, m, kw in found}
            if not tiles:
                raise BenchError("--tiles: depthwise tiles cannot be run alone")
            peaks: list[float] = []
            rates: dict[tuple[str, int, int, int], list[float]] = {tile: [] for tile in sorted(tiles)}
            try:
                with Progress(setup.rounds * len(tiles) * _PER_TILE, "tiles") as progress:
                    for _ in range(setup.rounds):
                        for tile, samples in rates.items():
                            peaks.append(contender.ask("peak", dtype=dtype)["gflops"])
                            samples.append(contender.ask("tile", tile=tile, dtype=dtype)["gflops"])
                            progress.advance(_PER_TILE)
            finally:
                for (role, nv, m, kw), samples in rates.items():
                    if samples:
                        best = percentile(samples, 90)
                        name = f"{m}x{nv} {_ROLES[role]}"
                        table.rows.append([isa, dtype, name, kw, best, 100 * best / percentile(peaks, 90)])

"""What a benchmark run measured, as a value: kept in JSON, compared, printed and drawn long after the run.

A record holds measurements only: seconds of every round, samples of the yardsticks. Everything that a table shows is
derived from them here, so that a table, a picture and a comparison cannot disagree. The definitions:

- A row's time is the median of its rounds. Its percentages are of the best decile of rounds, of the peak's best decile
  over the whole run: what the code does where neighbours on shared cores leave it alone.
- The roof is min(peak, intensity x bandwidth), with intensity = operations / bytes of input, weights and output.
- A ratio is a peer's median by pyconv's: above 1 pyconv is faster. A peer that computes another, less accurate result
  (Winograd, say) is approximate: it is shown, but never is the fastest peer, and nothing is lost to it.

What was not measured is NaN.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from types import GenericAlias
from typing import Any, get_args, get_origin, get_type_hints

from pyconv._words import counted

FORMAT = "pyconv bench 1"


def percentile(samples: list[float], percent: float) -> float:
    """Return a percentile, linear between samples; NaN of no samples."""
    if not samples:
        return math.nan
    ordered = sorted(samples)
    below, part = divmod(percent / 100 * (len(ordered) - 1), 1)
    low, high = ordered[int(below)], ordered[min(int(below) + 1, len(ordered) - 1)]
    return low + part * (high - low)


def geometric_mean(values: Iterable[float]) -> float:
    """Average ratios and percentages, without those that are NaN."""
    known = [value for value in values if not math.isnan(value)]
    return math.exp(math.fsum(map(math.log, known)) / len(known)) if known else math.nan


def least(values: Iterable[float]) -> float:
    """Return the smallest value that is not NaN."""
    return min((value for value in values if not math.isnan(value)), default=math.nan)


@dataclass(frozen=True)
class Settings:
    """How a layer was run.

    ``dtype`` is its short name, ``layout`` nchw or nhwc, ``weights`` packed or unpacked; ``evicted`` is how many MiB of
    other memory went through the caches before each call.
    """

    batch: int
    threads: int
    dtype: str
    layout: str
    weights: str
    isa: str
    evicted: int = 0

    def __str__(self) -> str:
        """Say all of them."""
        return self.describe(field.name for field in dataclasses.fields(self))

    def describe(self, names: Iterable[str]) -> str:
        """Say some of them."""
        words = {
            "batch": f"batch {self.batch}",
            "threads": counted(self.threads, "thread"),
            "weights": f"{self.weights} weights",
            "evicted": f"{self.evicted} MiB evicted" if self.evicted else "",
        }
        return ", ".join(filter(None, (words.get(name, str(getattr(self, name))) for name in names)))


@dataclass(frozen=True)
class Timing:
    """Seconds of one contender's call, one sample a round."""

    seconds: list[float]

    @property
    def median(self) -> float:
        """What half of the rounds undercut."""
        return percentile(self.seconds, 50)

    @property
    def best(self) -> float:
        """The fastest round."""
        return least(self.seconds)

    @property
    def p90(self) -> float:
        """What nine rounds in ten undercut."""
        return percentile(self.seconds, 90)

    @property
    def best_decile(self) -> float:
        """What one round in ten undercuts."""
        return percentile(self.seconds, 10)


@dataclass(frozen=True)
class Yardstick:
    """What the machine itself does: samples of the multiply-add peak in GFLOP/s, bandwidth of a copy in GB/s."""

    isa: str
    dtype: str
    threads: int
    peak: list[float]
    bandwidth: float

    @property
    def peak_best_decile(self) -> float:
        """GFLOP/s that one sample in ten exceeds."""
        return percentile(self.peak, 90)

    @property
    def ridge(self) -> float:
        """The intensity, in operations a byte, from which on the peak is the roof."""
        return self.peak_best_decile / self.bandwidth if self.bandwidth else math.nan


@dataclass(frozen=True)
class Row:
    """One layer in one setting.

    ``layer`` is its descriptor, ``flops`` and ``bytes`` are those of a call, ``workspace`` is the plan's scratch,
    ``error`` the largest error over its bound. ``peers`` holds those that were timed, ``approximate`` names the ones
    among them that compute another result, ``skipped`` says of the others why. A ``partial`` row was cut short.
    """

    layer: str
    network: str
    name: str
    multiplicity: int
    settings: Settings
    flops: int
    bytes: int
    plan: str
    plan_short: str
    workspace: int
    error: float
    pyconv: Timing
    peers: dict[str, Timing] = field(default_factory=dict)
    approximate: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    partial: bool = False

    @property
    def key(self) -> tuple[str, str, Settings]:
        """What makes rows of two runs the same measurement."""
        return self.network, self.layer, self.settings

    @property
    def gflops(self) -> float:
        """Useful operations by the median time."""
        return self.flops / self.pyconv.median / 1e9

    @property
    def intensity(self) -> float:
        """Operations for each byte of input, weights and output."""
        return self.flops / self.bytes

    @property
    def best_gflops(self) -> float:
        """Useful operations by the time of the best decile of rounds."""
        return self.flops / self.pyconv.best_decile / 1e9

    def percent_of_peak(self, yardstick: Yardstick) -> float:
        """Compare the best deciles of row and peak."""
        return 100 * self.best_gflops / yardstick.peak_best_decile

    def roof(self, yardstick: Yardstick) -> float:
        """GFLOP/s that peak and bandwidth allow; the peak alone where the bandwidth was not measured."""
        slope = self.intensity * yardstick.bandwidth if yardstick.bandwidth else math.inf
        return min(yardstick.peak_best_decile, slope)

    def percent_of_roof(self, yardstick: Yardstick) -> float:
        """Compare the best deciles of row and roof."""
        return 100 * self.best_gflops / self.roof(yardstick)

    def ratio(self, peer: str) -> float:
        """Return a peer's median by pyconv's; NaN where the peer was not timed."""
        return self.peers[peer].median / self.pyconv.median if peer in self.peers else math.nan

    def fastest_peer(self) -> str | None:
        """Name the fastest peer that computes the same result."""
        exact = [peer for peer, timing in self.peers.items() if timing.seconds and peer not in self.approximate]
        return min(exact, key=lambda peer: self.peers[peer].median, default=None)

    @property
    def fastest_ratio(self) -> float:
        """The ratio to the fastest peer."""
        peer = self.fastest_peer()
        return self.ratio(peer) if peer else math.nan

    @property
    def lost(self) -> bool:
        """Whether a peer is faster."""
        return self.fastest_ratio < 1

    @property
    def lost_rounds(self) -> tuple[int, int]:
        """In how many rounds the fastest peer was faster, and of how many: unless in all, noise may have decided."""
        peer = self.fastest_peer()
        rounds = list(zip(self.peers[peer].seconds, self.pyconv.seconds, strict=False)) if peer else []
        return sum(theirs < ours for theirs, ours in rounds), len(rounds)

    @property
    def lost_throughout(self) -> bool:
        """Whether the fastest peer was faster in every round."""
        rounds, of = self.lost_rounds
        return self.lost and rounds == of


@dataclass(frozen=True)
class Summary:
    """Rows taken together: geometric means and the least of them; ratios to the peers by name, approximate or not.

    `compared` rows have a fastest peer, which is faster on the `lost` ones, on `lost_throughout` in every round.
    """

    rows: int
    partial: int
    compared: int
    lost: int
    lost_throughout: int
    milliseconds: float
    gflops: float
    percent_of_peak: tuple[float, float]
    percent_of_roof: tuple[float, float]
    ratios: dict[str, tuple[float, float]]
    fastest: tuple[float, float]


@dataclass(frozen=True)
class Run:
    """One run of ``python -m pyconv bench``.

    ``machine`` and ``versions`` hold whatever pyconv.bench.machine found, in order; read here are ``processor`` (its
    name) and ``cores`` of the one, ``pyconv`` and the peers of the other. ``special`` holds the tables of the special
    modes by mode: title, columns, rows, notes. ``notes`` says what else a reader should know.
    """

    command: str
    started: str
    machine: dict[str, Any]
    versions: dict[str, str]
    yardsticks: list[Yardstick]
    rows: list[Row]
    special: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def yardstick(self, settings: Settings) -> Yardstick:
        """Return what the machine does with this instruction set, dtype and number of threads; empty if unknown."""
        wanted = settings.isa, settings.dtype, settings.threads
        for yardstick in self.yardsticks:
            if (yardstick.isa, yardstick.dtype, yardstick.threads) == wanted:
                return yardstick
        return Yardstick(*wanted, [], 0.0)

    def peers(self) -> list[str]:
        """Name every peer of any row, in the order of their first rows, approximate ones last."""
        names = list(dict.fromkeys(peer for row in self.rows for peer in row.peers))
        approximate = self.approximate()
        return sorted(names, key=lambda name: name in approximate)

    def approximate(self) -> set[str]:
        """Name the peers that compute another result, in any row."""
        return {peer for row in self.rows for peer in row.approximate}

    def groups(self) -> dict[tuple[str, Settings], list[Row]]:
        """Sort the rows by network and settings, both in the order of their first rows."""
        found: dict[tuple[str, Settings], list[Row]] = {}
        for row in self.rows:
            found.setdefault((row.network, row.settings), []).append(row)
        return found

    def summary(self, rows: list[Row]) -> Summary:
        """Take some of the rows together; the milliseconds are those of all layers, as often as each occurs."""

        def mean_and_least(values: Iterator[float]) -> tuple[float, float]:
            known = list(values)
            return geometric_mean(known), least(known)

        return Summary(
            rows=len(rows),
            partial=sum(row.partial for row in rows),
            compared=sum(row.fastest_peer() is not None for row in rows),
            lost=sum(row.lost for row in rows),
            lost_throughout=sum(row.lost_throughout for row in rows),
            milliseconds=1e3 * sum(row.pyconv.median * row.multiplicity for row in rows),
            gflops=geometric_mean(row.gflops for row in rows),
            percent_of_peak=mean_and_least(row.percent_of_peak(self.yardstick(row.settings)) for row in rows),
            percent_of_roof=mean_and_least(row.percent_of_roof(self.yardstick(row.settings)) for row in rows),
            ratios={peer: mean_and_least(row.ratio(peer) for row in rows) for peer in self.peers()},
            fastest=mean_and_least(row.fastest_ratio for row in rows),
        )

    def write_json(self, path: str | Path) -> None:
        """Write a record that `read_json` reads: a line for each row, so that records can be compared as text."""
        parts = {"format": FORMAT, **dataclasses.asdict(self)}
        lines = [f" {json.dumps(name)}: {_one_line_each(value)}" for name, value in parts.items()]
        Path(path).write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")

    @staticmethod
    def read_json(path: str | Path) -> Run:
        """Read a record; any file that is none is a ValueError which names the file and what is wrong with it."""
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise ValueError(f"{path}: {error.strerror}") from None
        except ValueError as error:
            raise ValueError(f"{path}: not JSON: {error}") from None
        if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
            raise ValueError(f"{path}: not a record of pyconv bench: no format {FORMAT!r}")
        try:
            run = _checked(Run, data, "run")
        except ValueError as error:
            raise ValueError(f"{path}: not a record of pyconv bench: {error}") from None
        assert isinstance(run, Run)
        times = [
            second for row in run.rows for timing in (row.pyconv, *row.peers.values()) for second in timing.seconds
        ]
        if not all(0 < second < math.inf for second in times):
            raise ValueError(f"{path}: not a record of pyconv bench: seconds that are not positive numbers")
        return run

    def write_csv(self, path: str | Path) -> None:
        """Write a line for each row with all its figures, times in milliseconds."""
        peers = self.peers()
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            out = csv.writer(file)
            out.writerow([*_FIGURES, *(f"{peer}_{figure}" for peer in peers for figure in ("ms", "ratio"))])
            for row in self.rows:
                yardstick = self.yardstick(row.settings)
                figures = [figure(row, yardstick) for figure in _FIGURES.values()]
                for peer in peers:
                    figures += [1e3 * row.peers.get(peer, Timing([])).median, row.ratio(peer)]
                out.writerow([_cell(figure) for figure in figures])


_FIGURES: dict[str, Callable[[Row, Yardstick], object]] = {
    "network": lambda row, _: row.network,
    "name": lambda row, _: row.name,
    "layer": lambda row, _: row.layer,
    "multiplicity": lambda row, _: row.multiplicity,
    "batch": lambda row, _: row.settings.batch,
    "threads": lambda row, _: row.settings.threads,
    "dtype": lambda row, _: row.settings.dtype,
    "layout": lambda row, _: row.settings.layout,
    "weights": lambda row, _: row.settings.weights,
    "isa": lambda row, _: row.settings.isa,
    "evicted_mib": lambda row, _: row.settings.evicted,
    "plan": lambda row, _: row.plan_short,
    "flops": lambda row, _: row.flops,
    "bytes": lambda row, _: row.bytes,
    "workspace": lambda row, _: row.workspace,
    "error": lambda row, _: row.error,
    "rounds": lambda row, _: len(row.pyconv.seconds),
    "partial": lambda row, _: int(row.partial),
    "ms": lambda row, _: 1e3 * row.pyconv.median,
    "min_ms": lambda row, _: 1e3 * row.pyconv.best,
    "p90_ms": lambda row, _: 1e3 * row.pyconv.p90,
    "gflops": lambda row, _: row.gflops,
    "peak_gflops": lambda _, yardstick: yardstick.peak_best_decile,
    "percent_of_peak": Row.percent_of_peak,
    "intensity": lambda row, _: row.intensity,
    "roof_gflops": Row.roof,
    "percent_of_roof": Row.percent_of_roof,
    "fastest_peer": lambda row, _: row.fastest_peer(),
    "fastest_ratio": lambda row, _: row.fastest_ratio,
    "rounds_lost": lambda row, _: row.lost_rounds[0],
}


def _cell(value: object) -> object:
    """Write floats to six digits, and nothing for what was not measured."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return value


def _one_line_each(value: object) -> str:
    """Write a list with a line for each element, anything else on one line."""
    if not isinstance(value, list) or not value:
        return json.dumps(value)
    return "[\n" + ",\n".join(f"  {json.dumps(element)}" for element in value) + "\n ]"


def _checked(kind: Any, data: object, where: str) -> object:
    """Build what a type hint says from parsed JSON, or say where the two part."""
    origin, inner = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind)
        if not isinstance(data, dict):
            raise ValueError(f"{where}: expected the fields of a {kind.__name__}, got {type(data).__name__}")
        needed = {each.name for each in dataclasses.fields(kind) if each.default is each.default_factory is MISSING}
        if not needed <= data.keys() <= hints.keys():
            names = ", ".join(sorted((needed - data.keys()) | (data.keys() - hints.keys())))
            raise ValueError(f"{where}: missing or unknown fields: {names}")
        return kind(**{name: _checked(hints[name], value, f"{where}.{name}") for name, value in data.items()})
    if origin is list and isinstance(data, list):
        return [_checked(inner[0], element, f"{where}[{i}]") for i, element in enumerate(data)]
    if origin is dict and isinstance(data, dict):
        return {name: _checked(inner[1], element, f"{where}.{name}") for name, element in data.items()}
    if kind is Any or (kind is float and type(data) is int) or (origin is None and type(data) is kind):
        return float(data) if kind is float else data  # type: ignore[arg-type]
    name = str(kind) if isinstance(kind, GenericAlias) else kind.__name__
    raise ValueError(f"{where}: expected {name}, got {json.dumps(data)[:40]}")

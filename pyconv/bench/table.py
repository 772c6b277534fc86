"""A run as tables: for the terminal, in as many columns as fit, and in Markdown, with all of them.

Rows stand in groups of one network and setting. What all groups have in common is said once, at the head; a group's own
head says the rest. Below the rows, each group is summed up on a line: geometric means, the least in parentheses.
"""

from __future__ import annotations

import dataclasses
import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pyconv._words import counted
from pyconv.bench.descriptor import parse
from pyconv.bench.errors import BenchError
from pyconv.bench.record import Row, Run, Settings, Summary, Yardstick

NOTHING = "-"
APPROXIMATE = "~"
_SLOWER = 1.1  # times as long: beyond the noise of a busy machine


@dataclass(frozen=True)
class Column:
    """A column: the most important ones, with the smallest rank, are kept longest where the space is narrow."""

    title: str
    rank: int
    text: Callable[[Row, Yardstick], str]
    left: bool = False


def columns(run: Run) -> list[Column]:
    """List the columns that a run has figures for."""

    def ratio(peer: str) -> Column:
        mark = APPROXIMATE if peer in run.approximate() else ""
        return Column(mark + peer, 5, lambda row, _: number(row.ratio(peer), 2))

    found = [
        Column("layer", 0, lambda row, _: row.name or row.layer, left=True),
        Column("shape", 2, lambda row, _: shape(row.layer), left=True),
    ]
    if any(row.multiplicity > 1 for row in run.rows):
        found.append(Column("count", 12, lambda row, _: str(row.multiplicity)))
    found += [
        Column("tile", 8, lambda row, _: row.plan_short, left=True),
        Column("ms", 0, lambda row, _: milliseconds(row.pyconv.median)),
        Column("min", 10, lambda row, _: milliseconds(row.pyconv.best)),
        Column("p90", 10, lambda row, _: milliseconds(row.pyconv.p90)),
        Column("GFLOP/s", 4, lambda row, _: digits(row.gflops)),
        Column("% peak", 3, lambda row, yardstick: percent(row.percent_of_peak(yardstick))),
        Column("flop/byte", 11, lambda row, _: digits(row.intensity)),
        Column("roof", 11, lambda row, yardstick: digits(row.roof(yardstick))),
        Column("% roof", 6, lambda row, yardstick: percent(row.percent_of_roof(yardstick))),
        Column("KiB", 12, lambda row, _: f"{math.ceil(row.workspace / 1024)}"),
        Column("error", 13, lambda row, _: number(row.error, 2)),
    ]
    peers = run.peers()
    found += [ratio(peer) for peer in peers]
    if peers:
        found += [
            Column("fastest", 9, lambda row, _: row.fastest_peer() or NOTHING, left=True),
            Column("ratio", 1, lambda row, _: number(row.fastest_ratio, 2)),
        ]
    if any(row.lost for row in run.rows):
        found.append(Column("rounds lost", 0, lambda row, _: lost_rounds(row) if row.lost else "", left=True))
    if any(row.partial for row in run.rows):
        found.append(Column("", 0, lambda row, _: "cut short" if row.partial else "", left=True))
    return found


def lost_rounds(row: Row) -> str:
    """Say in how many rounds a peer was faster."""
    return "{} of {}".format(*row.lost_rounds)


def shape(descriptor: str) -> str:
    """Shorten a descriptor to what tells layers apart at a glance, without the batch; leave alone what is none.

    Examples
    --------
    >>> shape('mb1ic32oc64_ih56oh28kh3sh2ph1')
    '3x3 s2 32->64 @28'
    """
    try:
        return dataclasses.replace(parse(descriptor), mb=1).shape_text
    except BenchError:
        return descriptor


def number(value: float, places: int) -> str:
    """Write a number with so many decimal places; a dash for NaN."""
    return NOTHING if math.isnan(value) else f"{value:.{places}f}"


def percent(value: float) -> str:
    """Write a percentage, without decimal places unless it is small."""
    return number(value, 0 if value >= 9.95 else 1)


def digits(value: float) -> str:
    """Write a number in about three digits."""
    if math.isnan(value):
        return NOTHING
    places = 2 - math.floor(math.log10(value)) if value > 0 else 0
    return f"{value:.{min(max(places, 0), 6)}f}"


def milliseconds(seconds: float) -> str:
    """Write a time in milliseconds, in about three digits."""
    return digits(1e3 * seconds)


def ratios(mean_and_least: tuple[float, float]) -> str:
    """Write the geometric mean of ratios, and in parentheses the least."""
    return in_parentheses(*(number(value, 2) for value in mean_and_least))


def percents(mean_and_least: tuple[float, float]) -> str:
    """Write the geometric mean of percentages, and in parentheses the least."""
    return in_parentheses(*map(percent, mean_and_least))


def in_parentheses(mean: str, least: str) -> str:
    """Write two figures in one cell; a dash where there are none."""
    return NOTHING if mean == NOTHING else f"{mean} ({least})"


# ---------------------------------------------------------------------------------------------------- what is in common


def common(run: Run) -> tuple[list[str], list[str]]:
    """Sort the names of the settings into those that all rows share and those that tell groups apart."""
    names = [field.name for field in dataclasses.fields(Settings)]
    values = {name: {getattr(row.settings, name) for row in run.rows} for name in names}
    return [name for name in names if len(values[name]) == 1], [name for name in names if len(values[name]) > 1]


def headline(run: Run) -> list[str]:
    """Say on which machine, with which versions, when and how it was measured, and what the machine can do."""
    cores = run.machine.get("cores")
    machine = str(run.machine.get("processor", "unknown processor")) + (f", {cores} cores" if cores else "")
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    lines = [machine, versions, f"{run.started[:16].replace('T', ' ')}  {run.command}"]
    if run.rows:
        shared, _ = common(run)
        rounds = [len(row.pyconv.seconds) for row in run.rows]
        least, most = min(rounds), max(rounds)
        made = ("" if least == most else f"{least} to ") + counted(most, "round")
        lines.append(f"{run.rows[0].settings.describe(shared)}, {made}")
    for yardstick in run.yardsticks:
        which = f"{yardstick.isa} {yardstick.dtype}, {counted(yardstick.threads, 'thread')}"
        lines.append(
            f"{which}: peak {digits(yardstick.peak_best_decile)} GFLOP/s of multiply-adds, "
            f"copy {digits(yardstick.bandwidth or math.nan)} GB/s"
        )
    return [line for line in lines if line]


def notes(run: Run) -> list[str]:
    """Explain the columns and marks that need it."""
    lines = [
        "tile: scalars x vectors, and what lies along the vectors (oc: output channels, ow: pixels; depthwise, dw: "
        "pixels, dc: channels); KiB: scratch; error: the largest, as a part of its bound",
        "% peak and % roof: best decile of rounds, of the peak's best decile; roof: min(peak, flop/byte x copy), which "
        "arrays that stay in the caches exceed",
    ]
    if run.peers():
        lines.append(
            "ratios: a peer's median time by pyconv's, above 1 pyconv is faster; 'ratio' is to the fastest peer"
        )
    if any(row.lost for row in run.rows):
        lines.append(
            "lost: by the medians; rounds lost: in how many of such a row's rounds the fastest peer was faster; "
            "unless in all, noise may have decided"
        )
    if run.approximate():
        lines.append(f"{APPROXIMATE}: computes another, less accurate result; never counted as the fastest peer")
    if any(row.partial for row in run.rows):
        lines.append("cut short: fewer rounds than asked for")
    reasons: dict[tuple[str, str], int] = {}
    for row in run.rows:
        for peer, reason in row.skipped.items():
            reasons[peer, reason] = reasons.get((peer, reason), 0) + 1
    lines += [f"{peer}: {counted(n, 'row')} left out: {why}" for (peer, why), n in reasons.items()]
    return lines + run.notes + _slow_teams(run)


def _slow_teams(run: Run) -> list[str]:
    """Say what may help where more threads took longer than fewer did, in most rows."""
    layers: dict[tuple[str, Settings], dict[int, float]] = {}
    for row in run.rows:
        alike = row.layer, dataclasses.replace(row.settings, threads=0)
        layers.setdefault(alike, {})[row.settings.threads] = row.pyconv.median
    slower: dict[int, list[bool]] = {}
    for times in layers.values():
        for threads, median in times.items():
            fewer = [time for n, time in times.items() if n < threads]
            if fewer:
                slower.setdefault(threads, []).append(median > _SLOWER * min(fewer))
    return [
        f"{threads} threads took longer than fewer in {sum(told)} of {counted(len(told), 'row')}: if other programs "
        "keep the processors busy, fewer threads or OMP_WAIT_POLICY=passive help"
        for threads, told in sorted(slower.items())
        if 2 * sum(told) > len(told)
    ]


def summary(run: Run) -> tuple[list[str], list[list[str]]]:
    """Give titles and lines of the table that sums up each group, and all of them where there are several."""
    _, apart = common(run)
    peers = run.peers()
    marks = {peer: (APPROXIMATE if peer in run.approximate() else "") + peer for peer in peers}
    titles = ["network", "layers", "ms of all", "GFLOP/s", "% peak", "% roof", *marks.values()]
    titles += ["ratio", "lost"] if peers else []

    def line(label: str, s: Summary, total: bool) -> list[str]:
        cells = [label, str(s.rows), NOTHING if total else milliseconds(s.milliseconds / 1e3), digits(s.gflops)]
        cells += [percents(s.percent_of_peak), percents(s.percent_of_roof)]
        cells += [ratios(s.ratios[peer]) for peer in peers]
        return cells + ([ratios(s.fastest), str(s.lost)] if peers else [])

    groups = run.groups()
    lines = [
        line(", ".join(filter(None, [network, settings.describe(apart)])), run.summary(rows), total=False)
        for (network, settings), rows in groups.items()
    ]
    if len(groups) > 1:
        lines.append(line("all", run.summary(run.rows), total=True))
    return titles, lines


# ------------------------------------------------------------------------------------------------------------ renderers


def aligned(titles: Sequence[str], lines: Sequence[Sequence[str]], left: Sequence[bool], widths: Sequence[int]) -> str:
    """Align cells with spaces under their titles, and a rule between."""

    def one(cells: Sequence[str]) -> str:
        padded = (
            cell.ljust(width) if flush else cell.rjust(width)
            for cell, flush, width in zip(cells, left, widths, strict=True)
        )
        return "  ".join(padded).rstrip()

    rule = "-" * len("  ".join("-" * width for width in widths))
    return "\n".join([one(titles), rule, *(one(line) for line in lines)])


def widths_of(titles: Sequence[str], lines: Iterable[Sequence[str]]) -> list[int]:
    """Measure the widest cell of each column."""
    return [max(map(len, column)) for column in zip(titles, *lines, strict=True)]


def in_markdown(titles: Sequence[str], lines: Sequence[Sequence[str]], left: Sequence[bool]) -> str:
    """Write a table of GitHub's Markdown."""

    def one(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    rule = "|" + "|".join("---" if flush else "--:" for flush in left) + "|"
    return "\n".join([one(titles), rule, *(one(line) for line in lines)])


def terminal(run: Run, width: int) -> str:
    """Render a run for a terminal of so many characters, without the least important columns where they do not fit."""
    parts = [wrapped(headline(run), width)]
    _, apart = common(run)
    chosen = columns(run)
    cells = [[column.text(row, run.yardstick(row.settings)) for column in chosen] for row in run.rows]
    widths = widths_of([column.title for column in chosen], cells)
    kept = fitting(widths, [column.rank for column in chosen], width)
    by_row = {id(row): [line[i] for i in kept] for row, line in zip(run.rows, cells, strict=True)}
    for (network, settings), rows in run.groups().items():
        head = ", ".join(filter(None, [network, settings.describe(apart)]))
        body = aligned(
            [chosen[i].title for i in kept],
            [by_row[id(row)] for row in rows],
            [chosen[i].left for i in kept],
            [widths[i] for i in kept],
        )
        parts.append(f"{head}\n{body}" if head else body)
    if run.rows:
        titles, lines = summary(run)
        widths = widths_of(titles, lines)
        # Of the summary, what comes first or last is kept longest.
        ranks = [0, 3, 7, 6, 2, 4, *[5] * len(run.peers()), *[1, 1] * bool(run.peers())]
        kept = fitting(widths, ranks, width)
        left = [i == 0 for i in kept]
        shown = [[line[i] for i in kept] for line in lines]
        parts.append(
            "geometric mean (least)\n" + aligned([titles[i] for i in kept], shown, left, [widths[i] for i in kept])
        )
        parts.append(wrapped([line for line in [lost(run), *notes(run)] if line], width))
    parts += [special(run)] if run.special else []
    return "\n\n".join(parts) + "\n"


def wrapped(lines: Iterable[str], width: int) -> str:
    """Break long lines between words, and indent what follows."""
    return "\n".join(textwrap.fill(line, max(width, 40), subsequent_indent="  ") for line in lines)


def fitting(widths: Sequence[int], ranks: Sequence[int], width: int) -> list[int]:
    """Choose the columns that fit, two spaces apart: of the largest rank, the last one goes first; rank 0 stays."""
    kept = list(range(len(widths)))
    while sum(widths[i] + 2 for i in kept) - 2 > width and any(ranks[i] for i in kept):
        kept.remove(max(kept, key=lambda i: (ranks[i], i)))
    return kept


def lost(run: Run) -> str:
    """Count the rows where a peer is faster; empty where there was none to compare with."""
    s = run.summary(run.rows)
    throughout = f", {s.lost_throughout} of them in every round" if s.lost else ""
    return f"pyconv loses {s.lost} of {s.compared} rows to the fastest peer{throughout}" if s.compared else ""


def markdown(run: Run) -> str:
    """Render a run in Markdown, with every column."""
    parts = ["# pyconv bench", "\n".join(f"- {line}" for line in headline(run))]
    _, apart = common(run)
    if run.rows:
        titles, lines = summary(run)
        parts += ["## Geometric means (least)", in_markdown(titles, lines, [i == 0 for i in range(len(titles))])]
        parts.append("\n".join(f"- {line}" for line in [lost(run), *notes(run)] if line))
    chosen = columns(run)
    for (network, settings), rows in run.groups().items():
        parts.append("## " + (", ".join(filter(None, [network, settings.describe(apart)])) or "Layers"))
        cells = [[column.text(row, run.yardstick(settings)) for column in chosen] for row in rows]
        parts.append(in_markdown([c.title for c in chosen], cells, [c.left for c in chosen]))
    for table in run.special.values():
        titles, lines, left = _special_cells(table)
        parts += [f"## {table['title']}", in_markdown(titles, lines, left)]
        parts += ["\n".join(f"- {note}" for note in table["notes"])] if table["notes"] else []
    return "\n\n".join(parts) + "\n"


def special(run: Run) -> str:
    """Render the tables of the special modes for a terminal."""
    parts = []
    for table in run.special.values():
        titles, lines, left = _special_cells(table)
        body = aligned(titles, lines, left, widths_of(titles, lines))
        parts.append("\n".join([table["title"], body, *table["notes"]]))
    return "\n\n".join(parts)


def _special_cells(table: dict[str, Any]) -> tuple[list[str], list[list[str]], list[bool]]:
    """Write the cells of a special table; columns with any number in them are flush right."""
    rows = table["rows"]
    lines = [[digits(cell) if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    left = [not any(isinstance(row[i], int | float) for row in rows) for i in range(len(table["columns"]))]
    return list(table["columns"]), lines, left

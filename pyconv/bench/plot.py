"""A run as two pictures: how near to the machine's limits, and how fast beside the peers.

**Roofline** (Williams, Waterman and Patterson, 2009). Each layer is a dot: across, its operations for each byte of
input, weights and output; up, what it reaches. Nothing can be above the peak; nothing above the slope but a layer whose
arrays stay in the caches. A panel for each instruction set, dtype and number of threads.

**Ratios.** Each layer is a line, each peer a column: a dot right of the line at 1 means that pyconv is faster, one left
of it, in another colour, that it loses. Where there are more layers than can be told apart, each network and setting is
a line instead, with all its dots, their range and their median.

Colours are Okabe's and Ito's, which colour-blind readers tell apart. matplotlib is loaded when something is drawn.
"""

from __future__ import annotations

import importlib.util
import math
import statistics
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyconv._words import counted
from pyconv.bench import presets
from pyconv.bench.record import Row, Run, Yardstick, geometric_mean, least
from pyconv.bench.table import common, digits, percent, shape

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")

_BLUE, _VERMILLION = "#0072B2", "#D55E00"
_NETWORKS = (
    *(_BLUE, "#E69F00", "#009E73", "#CC79A7", "#56B4E9", _VERMILLION, "#000000"),
    *("#882255", "#332288", "#117733", "#AA4499", "#999999"),
)
_LOWEST = 1 / 200  # of the largest peak: below it the overhead of a call decides, and dots would only shrink the rest
_ROLES = {
    "oc": ("o", "output channels"),
    "ow": ("s", "pixels"),
    "dw": ("^", "pixels, depthwise"),
    "dc": ("D", "channels, depthwise"),
}
_INK, _QUIET, _RULE = "#222222", "#666666", "#DDDDDD"
_STYLE: Any = {
    "font.size": 9,
    "axes.edgecolor": _QUIET,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": 150,
    "legend.frameon": False,
    "savefig.facecolor": "white",
    "text.color": _INK,
    "xtick.color": _QUIET,
    "ytick.color": _QUIET,
}
_MOST_LINES = 60
_USUAL = 3 / 4  # the part of the rows that makes a setting the usual one


def available() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def ratios_path(path: str | Path) -> Path:
    """Name the second picture after the first."""
    path = Path(path)
    return path.with_name(f"{path.stem}-ratios{path.suffix}")


def draw(run: Run, path: str | Path) -> list[Path]:
    """Draw what a run has: the roofline into a file, the ratios beside it; return the files written.

    Parameters
    ----------
    run : Run
        The rows to draw; without peers there is no picture of ratios, without rows none at all.
    path : str or Path
        The roofline's file, of one of the `SUFFIXES`; that of the ratios is named by `ratios_path`.
    """
    run = replace(run, rows=[row for row in run.rows if row.pyconv.seconds])
    written = []
    if run.rows:
        draw_roofline(run, path)
        written.append(Path(path))
    if run.peers():
        draw_ratios(run, ratios_path(path))
        written.append(ratios_path(path))
    return written


def caption(run: Run) -> str:
    """Say where, when and with what it was measured."""
    cores = run.machine.get("cores")
    machine = str(run.machine.get("processor", "unknown processor")) + (f", {cores} cores" if cores else "")
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    shared, _ = common(run)
    settings = run.rows[0].settings.describe(shared)
    return f"{machine}; {settings}\n{versions}; {run.started[:10]}"


def how_many(run: Run) -> str:
    """Count the rows, which are layers where all have the same settings."""
    _, apart = common(run)
    return counted(len(run.rows), "row" if apart else "layer")


# ------------------------------------------------------------------------------------------------------------- roofline


def draw_roofline(run: Run, path: str | Path) -> None:
    """Draw a panel for each yardstick, two in a row."""
    floor = _LOWEST * max((y.peak_best_decile for y in run.yardsticks if y.peak), default=0)
    drawn = [row for row in run.rows if not row.best_gflops < floor] or run.rows
    left_out = len(run.rows) - len(drawn)
    run = replace(run, rows=drawn)
    panels: dict[tuple[str, str, int], list[Row]] = {}
    for row in run.rows:
        panels.setdefault((row.settings.isa, row.settings.dtype, row.settings.threads), []).append(row)
    colours = colours_of(list(dict.fromkeys(row.network for row in run.rows)))
    across = min(2, len(panels))
    down = math.ceil(len(panels) / across)
    width, height = 2.6 + 6.0 * across, 1.6 + 4.4 * down
    with _style():
        figure, axes = _figure(
            width, height, (down, across), left=0.7, right=1.9, bottom=1.05, top=0.75 if len(panels) > 1 else 0.5
        )
        for panel in axes[len(panels) :]:
            panel.remove()
        for panel, rows in zip(axes, panels.values(), strict=False):
            yardstick = run.yardstick(rows[0].settings)
            _scale(panel, run)
            _roof(panel, yardstick)
            for row in rows:
                panel.plot(row.intensity, row.best_gflops, _marker(row), color=colours[row.network], **_DOT)
            _label_lowest(panel, rows, yardstick)
            if len(panels) > 1:
                panel.set_title(rows[0].settings.describe(("isa", "dtype", "threads")), loc="left", fontsize=9)
        figure.supxlabel("operations for each byte of input, weights and output", fontsize=9, y=0.55 / height)
        figure.supylabel("GFLOP/s, best decile of rounds", fontsize=9, x=0.12 / width)
        mean, least = run.summary(run.rows).percent_of_roof
        of_roof = (
            "" if math.isnan(mean) else f": {percent(mean)} % of the roof (geometric mean; least {percent(least)} %)"
        )
        above = any(row.percent_of_roof(run.yardstick(row.settings)) > 100 for row in run.rows)
        note = "; above the slope: what stays in the caches" if above else ""
        if left_out:
            note += f"; left out: {left_out} below {percent(100 * _LOWEST)} % of the peak, where overhead decides"
        _words(figure, f"{how_many(run)}{of_roof}", caption(run) + note)
        _roofline_legend(figure, colours, {_marker(row) for row in run.rows})
        _save(figure, path)


def colours_of(networks: Sequence[str]) -> dict[str, str]:
    """Give each network a colour: a preset the same one in every picture, others what is left of them."""
    colours = dict(zip(presets.NAMES, _NETWORKS, strict=False))
    left = [colour for colour in _NETWORKS if colour not in {colours.get(name) for name in networks}]
    others = [name for name in networks if name not in colours]
    colours |= {name: left[min(i, len(left) - 1)] for i, name in enumerate(others)}
    return {name: colours[name] for name in networks}


def _scale(panel: Axes, run: Run) -> None:
    """Give every panel the same logarithmic axes, around the dots and the corners of the roofs."""
    from matplotlib.ticker import LogLocator

    intensities = [row.intensity for row in run.rows]
    rates = [row.best_gflops for row in run.rows]
    peaks = [yardstick.peak_best_decile for yardstick in run.yardsticks if yardstick.peak]
    ridges = [yardstick.ridge for yardstick in run.yardsticks if yardstick.peak and yardstick.bandwidth]
    intensities += [ridge * aside for ridge in ridges for aside in (0.2, 5)]
    rates += [peak * aside for peak in peaks for aside in (0.25, 1)]
    panel.set(xscale="log", yscale="log")
    panel.set_xlim(min(intensities) / 1.6, max(intensities) * 1.6)
    panel.set_ylim(min(rates) / 1.6, max(rates) * 1.5)
    for axis, (low, high) in ((panel.xaxis, panel.get_xlim()), (panel.yaxis, panel.get_ylim())):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 300 * low else (1,)))
        axis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_minor_formatter("")
    panel.grid(which="major", color=_RULE, linewidth=0.6)
    panel.set_axisbelow(True)


def _roof(panel: Axes, yardstick: Yardstick) -> None:
    """Draw the slope, the peak and, dashed, half of both; write their values along them."""
    peak, bandwidth = yardstick.peak_best_decile, yardstick.bandwidth
    if math.isnan(peak):
        return
    left, right = panel.get_xlim()
    corner = min(max(yardstick.ridge, left), right) if bandwidth else left
    xs = [left, corner, right]
    ys = [min(peak, x * bandwidth) if bandwidth else peak for x in xs]
    panel.plot(xs, ys, color=_INK, linewidth=1.4)
    panel.plot(xs, [y / 2 for y in ys], color=_QUIET, linewidth=0.8, linestyle=(0, (4, 4)))
    panel.annotate("half", (right, ys[-1] / 2), (-2, 3), textcoords="offset points", ha="right", color=_QUIET, size=8)
    words = f"multiply-add peak {digits(peak)} GFLOP/s"
    panel.annotate(words, (right, ys[-1]), (-2, 4), textcoords="offset points", ha="right", size=8)
    if corner > 3 * left:
        middle = math.sqrt(left * corner)
        panel.text(
            middle, middle * bandwidth * 1.12, f"copy {digits(bandwidth)} GB/s", size=8, ha="center", va="bottom",
            rotation=math.degrees(math.atan(bandwidth)), rotation_mode="anchor", transform_rotates_text=True,
        )  # fmt: skip


def _label_lowest(panel: Axes, rows: Sequence[Row], yardstick: Yardstick) -> None:
    """Name the few layers that are furthest below the roof, where a name covers no dot and no other name."""
    (left, right), (low, high) = panel.get_xlim(), panel.get_ylim()

    def place(row: Row) -> tuple[float, float]:
        across, up = math.log(row.intensity / left), math.log(row.best_gflops / low)
        return across / math.log(right / left), up / math.log(high / low)

    dots = [place(row) for row in rows]
    taken: list[tuple[float, float, float, float]] = []
    usual = geometric_mean(row.percent_of_roof(yardstick) for row in rows)
    lower = [row for row in rows if row.percent_of_roof(yardstick) < usual]
    for row in sorted(lower, key=lambda row: row.percent_of_roof(yardstick)):
        text = f"{row.name or shape(row.layer)}, {percent(row.percent_of_roof(yardstick))} %"
        x, y = place(row)
        room = 0.0125 * len(text)
        before = x + room > 0.98
        start, end, bottom, top = (x - room if before else x), (x if before else x + room), y - 0.055, y - 0.012
        covers = any(start < a < end and bottom < b < top for a, b in dots)
        clashes = any(start < b and a < end and bottom < d and c < top for a, b, c, d in taken)
        if len(taken) < 3 and bottom > 0 and not covers and not clashes:
            taken.append((start, end, bottom, top))
            panel.annotate(
                text, (row.intensity, row.best_gflops), (-5 if before else 5, -9), textcoords="offset points", size=8,
                ha="right" if before else "left", path_effects=_halo(),
            )  # fmt: skip


def _marker(row: Row) -> str:
    """Draw the role of the plan."""
    return _ROLES.get(row.plan_short[:2], ("D", ""))[0]


def _roofline_legend(figure: Figure, colours: dict[str, str], markers: set[str]) -> None:
    """Explain colours and markers, to the right of the panels."""
    from matplotlib.lines import Line2D

    height = figure.get_figheight()
    dots = [Line2D([], [], color=colour, marker="o", linestyle="", label=name) for name, colour in colours.items()]
    roles = [
        Line2D([], [], color=_QUIET, marker=marker, linestyle="", label=label)
        for marker, label in _ROLES.values()
        if marker in markers
    ]
    anchor: dict[str, Any] = {"loc": "upper left", "alignment": "left", "fontsize": 8, "title_fontsize": 8}
    x = 1 - 1.8 / figure.get_figwidth()
    figure.legend(handles=dots, title="network", bbox_to_anchor=(x, 1 - 0.6 / height), **anchor)
    below = 0.6 + 0.2 * (len(dots) + 2)
    if roles:
        figure.legend(handles=roles, title="vectors of", bbox_to_anchor=(x, 1 - below / height), **anchor)


# --------------------------------------------------------------------------------------------------------------- ratios


@dataclass(frozen=True)
class Line:
    """A line of the picture of ratios: one layer, or all of a group."""

    label: str
    rows: list[Row]
    head: str = ""


@dataclass(frozen=True)
class Versus:
    """A column of the picture of ratios."""

    name: str
    approximate: bool
    ratio: Callable[[Row], float]


def usual_settings(run: Run) -> dict[str, object]:
    """Find the settings that most rows share, where there are words for all: they are said once."""
    usual: dict[str, object] = {}
    for name in common(run)[1]:
        values = [getattr(row.settings, name) for row in run.rows]
        commonest = statistics.mode(values)
        if values.count(commonest) >= _USUAL * len(values) and all(row.settings.describe([name]) for row in run.rows):
            usual[name] = commonest
    return usual


def lines_of(run: Run) -> list[Line]:
    """Arrange the layers by network and setting, the slowest beside the fastest peer last; or take groups as wholes."""
    _, apart = common(run)
    usual = usual_settings(run)
    lines: list[Line] = []
    for (network, settings), rows in run.groups().items():
        compared = [row for row in rows if row.peers]
        unusual = [name for name in apart if name not in usual or getattr(settings, name) != usual[name]]
        head = ", ".join(filter(None, [network, settings.describe(unusual)])) or "layers"
        if len(run.rows) > _MOST_LINES:
            lines += [Line(f"{head}\n{len(compared)} layers", compared)] * bool(compared)
            continue
        ordered = sorted(compared, key=lambda row: (math.isnan(row.fastest_ratio), -row.fastest_ratio))
        lines += [
            Line(row.name or shape(row.layer), [row], head if i == 0 else "")  # the head stands above its first line
            for i, row in enumerate(ordered)
        ]
    return lines


def draw_ratios(run: Run, path: str | Path) -> None:
    """Draw a column for each peer, and before them one for the fastest where there are several."""
    lines = lines_of(run)
    columns = [Versus(peer, peer in run.approximate(), partial(Row.ratio, peer=peer)) for peer in run.peers()]
    if sum(not column.approximate for column in columns) > 1:
        columns.insert(0, Versus("fastest peer", False, lambda row: row.fastest_ratio))
    together = any(len(line.rows) > 1 for line in lines)
    ys: list[float] = []
    for line in lines:
        ys.append((ys[-1] + 1 if ys else 0) + (1.6 if line.head else 0))
    legend = _legend(run, together)
    below = 0.8 + 0.15 * len(legend)  # inches
    height = 0.9 + below + (0.45 if together else 0.17) * (ys[-1] + 1.2)
    left = 0.25 + 0.07 * max(len(part) for line in lines for part in line.label.split("\n"))
    width = max(left + 0.2 + 1.75 * len(columns), 7.0)
    limits = _limits([column.ratio(row) for column in columns for line in lines for row in line.rows])
    with _style():
        figure, axes = _figure(width, height, (1, len(columns)), left=left, right=0.2, bottom=below, top=0.95)
        for panel, column in zip(axes, columns, strict=True):
            _ratio_axes(panel, ys, limits)
            _column(panel, column, lines, ys, limits)
        axes[0].set_yticks(ys, [line.label for line in lines], size=8, color=_INK)
        for y, line in zip(ys, lines, strict=True):
            axes[0].annotate(
                line.head, (0, y - 1.1), (6 - 72 * left, 0), xycoords=("axes fraction", "data"), va="center",
                textcoords="offset points", size=8, weight="bold", annotation_clip=False,
            )  # fmt: skip
        figure.supxlabel("\n".join(legend), fontsize=9, y=0.52 / height, x=0.12 / width, ha="left")
        s = run.summary(run.rows)
        exact = [column.name for column in columns if not column.approximate]
        against = exact[0] if len(exact) == 1 else "the fastest peer"
        won = f"{s.fastest[0]:.2f}x {against} (geometric mean), ahead on {s.compared - s.lost} of {s.compared}"
        _words(figure, won if s.compared else "Beside peers that compute another result", caption(run))
        _save(figure, path)


def _legend(run: Run, together: bool) -> list[str]:
    """Say what is drawn; in a second line, the settings that lines do not name."""
    drawn = "time of the peer / time of pyconv: right of 1 pyconv is faster; dotted: geometric mean"
    if together:
        drawn += "; tick: median; triangle: beyond the axis"
    usual = usual_settings(run)
    if not usual:
        return [drawn]
    first = replace(run.rows[0].settings, **usual)  # type: ignore[arg-type]
    return [drawn, f"{first.describe(usual)}, unless a line says otherwise"]


def _limits(ratios: Sequence[float]) -> tuple[float, float]:
    """Choose powers of two around the ratios: at least a half and 2, at most an eighth and 16."""
    logarithms = [math.log2(ratio) for ratio in ratios if not math.isnan(ratio)]
    return (
        2.0 ** min(max(math.floor(min(logarithms, default=0)), -3), -1),
        2.0 ** max(min(math.ceil(max(logarithms, default=0)), 4), 1),
    )


def _ratio_axes(panel: Axes, ys: Sequence[float], limits: tuple[float, float]) -> None:
    least, most = limits
    panel.set(xscale="log", xlim=(least / 1.1, most * 1.1), ylim=(ys[-1] + 0.8, -0.8))
    ticks = [2.0**n for n in range(-3, 5) if least <= 2.0**n <= most]
    panel.set_xticks(ticks, [f"{tick:g}" if tick >= 1 else f"1/{1 / tick:g}" for tick in ticks], size=8)
    panel.set_xticks([], minor=True)
    panel.set_yticks([])
    panel.tick_params(axis="both", length=0)
    panel.spines["left"].set_visible(False)
    panel.hlines(ys, least, most, color=_RULE, linewidth=0.5, zorder=0)
    panel.axvline(1, color=_INK, linewidth=1, zorder=1)


def _column(
    panel: Axes, column: Versus, lines: Sequence[Line], ys: Sequence[float], limits: tuple[float, float]
) -> None:
    """Draw the ratios to one peer, with their geometric mean and the least of them."""
    for y, line in zip(ys, lines, strict=True):
        _ratio_dots(panel, y, [column.ratio(row) for row in line.rows], limits, hollow=column.approximate)
    ratios = [column.ratio(row) for line in lines for row in line.rows]
    mean = geometric_mean(ratios)
    panel.axvline(_clipped(mean, limits), color=_INK, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
    title = f"{column.name}\n(approximate)" if column.approximate else column.name
    panel.set_title(title, loc="left", size=9, weight="bold", pad=16)
    panel.annotate(
        f"{mean:.2f}x, least {least(ratios):.2f}x", (0, 1), (0, 5), xycoords="axes fraction",
        textcoords="offset points", size=8,
    )  # fmt: skip


def _ratio_dots(panel: Axes, y: float, ratios: Sequence[float], limits: tuple[float, float], hollow: bool) -> None:
    """Draw one dot, or many with their range and median; those beyond the axis as arrows at its end."""
    known = sorted(ratio for ratio in ratios if not math.isnan(ratio))
    several = len(known) > 1
    if several:
        panel.hlines(y, _clipped(known[0], limits), _clipped(known[-1], limits), color=_QUIET, linewidth=1)
    for i, ratio in enumerate(known):
        colour = _BLUE if ratio >= 1 else _VERMILLION
        panel.plot(
            _clipped(ratio, limits), y + (0.16 * (i % 3 - 1) if several else 0),
            marker=">" if ratio > limits[1] else "<" if ratio < limits[0] else "o", markersize=4 if several else 5,
            color=colour, alpha=0.6 if several else 1, markerfacecolor="white" if hollow else colour,
            markeredgewidth=1 if hollow else 0, zorder=2,
        )  # fmt: skip
    if several:
        median = _clipped(statistics.median(known), limits)
        panel.plot(median, y, "|", color=_INK, markersize=15, markeredgewidth=2, zorder=3)


def _clipped(ratio: float, limits: tuple[float, float]) -> float:
    return min(max(ratio, limits[0]), limits[1])


# ------------------------------------------------------------------------------------------------------ what they share

_DOT: dict[str, Any] = {
    "markersize": 6,
    "markeredgecolor": "white",
    "markeredgewidth": 0.6,
    "linestyle": "",
    "zorder": 3,
}


def _style() -> AbstractContextManager[None]:
    from matplotlib import rc_context

    return rc_context(_STYLE)


def _figure(
    width: float, height: float, grid: tuple[int, int], *, left: float, right: float, bottom: float, top: float
) -> tuple[Figure, list[Axes]]:
    """Make a figure and its panels; all lengths in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    axes = figure.subplots(*grid, squeeze=False)
    figure.subplots_adjust(left / width, bottom / height, 1 - right / width, 1 - top / height)
    return figure, list(axes.flat)


def _words(figure: Figure, title: str, words: str) -> None:
    """Write the title above and the caption below, both flush left."""
    width, height = figure.get_size_inches()
    figure.text(0.12 / width, 1 - 0.12 / height, title, size=11, weight="bold", va="top")
    figure.text(0.12 / width, 0.1 / height, words, size=8, color=_QUIET, va="bottom")


def _save(figure: Figure, path: str | Path) -> None:
    """Save the figure, and whatever words reach past its edges."""
    from matplotlib.transforms import Bbox

    figure.savefig(path, bbox_inches=Bbox.union([figure.bbox_inches, figure.get_tightbbox().padded(0.1)]))


def _halo() -> list[Any]:
    """Keep text readable across lines and dots."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=2, foreground="white")]

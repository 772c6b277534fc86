"""Write the figures of README.md and docs/performance.md, and the pictures, from the runs in benchmarks/results.

    python benchmarks/publish.py            write what stands between the marks in the two files, and the pictures
    python benchmarks/publish.py --check    write nothing; exit status 1 where one of the files is out of date

Each folder in ``benchmarks/results`` holds the runs of one machine, ``*.json``, which make a part of each file and two
pictures. README.md has a line for each network in each setting, docs/performance.md all peers and the commands. Each
group of rows is summed up against the yardsticks of its own run; the pictures show the rows of all runs of the machine,
against the samples of all of them.
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

from pyconv._words import counted
from pyconv.bench import plot
from pyconv.bench.descriptor import parse
from pyconv.bench.record import Row, Run, Settings, Yardstick
from pyconv.bench.table import (
    APPROXIMATE,
    NOTHING,
    common,
    digits,
    in_markdown,
    lost_rounds,
    milliseconds,
    number,
    percents,
    ratios,
    shape,
)

ROOT = Path(__file__).resolve().parent.parent
RESULTS = "benchmarks/results"
BEGIN, END = "<!-- performance -->", "<!-- /performance -->"
MOST_LOST = 15
MOST_TOLD = 8  # of them, in the README
USUAL = Settings(batch=1, threads=1, dtype="f32", layout="nchw", weights="packed", isa="")  # on a machine's first ISA
TOGETHER, DENSE = "*together*", "*dense ones*"
DENSE_CHANNELS = 32  # in and out of each group, at least
WIDTH = 120

Group: TypeAlias = tuple[Run, tuple[str, Settings], list[Row]]  # the rows of a network in a setting


def merged(runs: Sequence[Run]) -> Run:
    """Take the rows of several runs together, against all samples of each yardstick."""
    yardsticks: dict[tuple[str, str, int], Yardstick] = {}
    for run in runs:
        for new in run.yardsticks:
            key = new.isa, new.dtype, new.threads
            old = yardsticks.get(key, replace(new, peak=[], bandwidth=0.0))
            yardsticks[key] = replace(new, peak=old.peak + new.peak, bandwidth=max(old.bandwidth, new.bandwidth))
    return replace(
        runs[0],
        versions={name: version for run in runs for name, version in run.versions.items()},
        yardsticks=list(yardsticks.values()),
        rows=[row for run in runs for row in run.rows],
    )


def brief(runs: Sequence[Run], folder: str) -> str:
    """Write the part of one machine in the README."""
    everything = merged(runs)
    usual = replace(USUAL, isa=everything.rows[0].settings.isa)
    titles = ["network", "layers", "% of peak", "peers", "fastest of them", "lost"][: None if everything.peers() else 3]
    groups = [(run, *group) for run in runs for group in run.groups().items()]
    lines = []
    for run, (network, settings), rows in sorted(groups, key=lambda group: len(_unusual(group[1][1], usual))):
        summary = run.summary(rows)
        peers = dict.fromkeys(peer for row in rows for peer in row.peers)
        cells = [_named(network, settings, usual), str(summary.rows), percents(summary.percent_of_peak)]
        cells += [", ".join(peers) or NOTHING, ratios(summary.fastest), str(summary.lost)]
        lines.append(cells[: len(titles)])
    table = in_markdown(titles, lines, [title in ("network", "peers") for title in titles])
    lost = _lost_rows(everything)
    worst = [
        f"{number(row.fastest_ratio, 2)} {_named(_title_of(row), row.settings, usual)} ({row.fastest_peer()})"
        for row in lost[:MOST_TOLD]
    ]
    told = _wrapped(f"{_head(everything, MOST_TOLD)} {'; '.join(worst)}{'.' if worst else ''}")
    parts = [f"### {_title(everything)}", f"{_when(runs)}.", table, told, _pictures(everything, f"{RESULTS}/{folder}")]
    return "\n\n".join(part for part in parts if part)


def _title_of(row: Row) -> str:
    return " ".join(filter(None, [row.network, row.name or shape(row.layer)]))


def _named(name: str, settings: Settings, usual: Settings) -> str:
    """Add to a name what is not as usual."""
    return ", ".join(filter(None, [name or NOTHING, settings.describe(_unusual(settings, usual))]))


def _unusual(settings: Settings, usual: Settings) -> list[str]:
    return [name for name, value in asdict(usual).items() if getattr(settings, name) != value]


def detailed(runs: Sequence[Run], folder: str) -> str:
    """Write the part of one machine in docs/performance.md."""
    everything = merged(runs)
    shared, apart = common(everything)
    groups = [(run, *group) for run in runs for group in (run.groups() | _together(run)).items()]
    caption = _caption(runs, everything, shared, dense=any(network == DENSE for _, (network, _), _ in groups))
    pictures = _pictures(everything, f"../{RESULTS}/{folder}")
    parts = [
        f"## {_title(everything)}",
        caption,
        pictures,
        _groups(groups, everything, apart),
        _lost(everything, apart),
    ]
    return "\n\n".join(part for part in parts if part)


def _pictures(everything: Run, folder: str) -> str:
    pictures = [f"![Roofline: each layer's GFLOP/s below peak and bandwidth]({folder}/roofline.png)"]
    pictures += [f"![Each layer's ratio to each peer]({folder}/ratios.png)"] * bool(everything.peers())
    return "\n".join(pictures)


def _title(everything: Run) -> str:
    isas = dict.fromkeys(row.settings.isa for row in everything.rows)
    return f"{', '.join(isas)} on {everything.machine.get('processor')}, {everything.machine.get('cores')} cores"


def _when(runs: Sequence[Run]) -> str:
    commits = dict.fromkeys(str(run.machine["commit"])[:7] for run in runs if "commit" in run.machine)
    dates = dict.fromkeys(run.started[:10] for run in runs)
    return ", ".join(dates) + (f", commit {', '.join(commits)}" if commits else "")


def _caption(runs: Sequence[Run], everything: Run, shared: Sequence[str], *, dense: bool) -> str:
    """Say where, when, with what and how it was measured, and how to read the table."""
    versions = ", ".join(f"{name} {version}" for name, version in everything.versions.items())
    peaks = "; ".join(
        f"{y.isa} {y.dtype}, {counted(y.threads, 'thread')}: {digits(y.peak_best_decile)} GFLOP/s "
        f"of multiply-adds, {digits(y.bandwidth)} GB/s copied"
        for y in everything.yardsticks
    )
    settings = everything.rows[0].settings.describe(shared)
    paragraphs = [f"{_when(runs)}. {versions}. All rows: {settings}. The machine itself: {peaks}."]
    explained = (
        "Geometric means over the layers, in parentheses the least. % of peak and roof: best decile of rounds, of the "
        "best decile of the peak that was sampled between them; the roof is the peak, or what the bandwidth allows."
    )
    if dense:
        explained += f" Dense: {DENSE_CHANNELS} channels or more in and out of each group."
    if everything.peers():
        explained += (
            " Peers: their median time by pyconv's, above 1 pyconv is faster, over the layers that they take part in."
        )
    if everything.approximate():
        explained += f" {APPROXIMATE} computes another, less accurate result and is never the fastest peer."
    paragraphs.append(explained)
    commands = "\n".join(dict.fromkeys(run.command for run in runs))
    return "\n\n".join([_wrapped(paragraphs[0]), f"```sh\n{commands}\n```", _wrapped(paragraphs[1])])


def _groups(groups: Sequence[Group], everything: Run, apart: Sequence[str]) -> str:
    """Sum up each network in each setting on a line."""
    peers = everything.peers()
    inexact = everything.approximate()
    titles = ["network", *_titles(apart), "layers", "% of peak", "% of roof"]
    titles += [(APPROXIMATE if peer in inexact else "") + peer for peer in peers]
    titles += ["fastest peer", "lost"] if peers else []
    lines = []
    for run, (network, settings), rows in groups:
        summary = run.summary(rows)
        cells = [network or NOTHING, *_values(settings, apart), str(summary.rows)]
        cells += [percents(summary.percent_of_peak), percents(summary.percent_of_roof)]
        cells += [ratios(summary.ratios[peer]) if peer in summary.ratios else NOTHING for peer in peers]
        cells += [ratios(summary.fastest), str(summary.lost)] if peers else []
        lines.append(cells)
    return in_markdown(titles, lines, [title == "network" for title in titles])


def _together(run: Run) -> dict[tuple[str, Settings], list[Row]]:
    """Group the rows of a setting that has several networks: all of them, and the dense ones."""
    found: dict[tuple[str, Settings], list[Row]] = {}
    for settings in dict.fromkeys(row.settings for row in run.rows):
        rows = [row for row in run.rows if row.settings == settings]
        dense = [row for row in rows if _is_dense(row)]
        if len({row.network for row in rows}) > 1:
            found[TOGETHER, settings] = rows
            if 0 < len(dense) < len(rows):
                found[DENSE, settings] = dense
    return found


def _is_dense(row: Row) -> bool:
    layer = parse(row.layer)
    return min(layer.ic, layer.oc) // layer.g >= DENSE_CHANNELS


def _lost(everything: Run, apart: Sequence[str]) -> str:
    """List the rows where a peer is faster, the worst ones first."""
    lost = _lost_rows(everything)
    if not lost:
        return _head(everything, MOST_LOST)
    titles = ["network", "layer", "shape", *_titles(apart), "ms", "fastest peer", "rounds lost", "ratio"]
    left = [title in ("network", "layer", "shape", "fastest peer") for title in titles]

    def line(row: Row) -> list[str]:
        cells = [row.network or NOTHING, row.name or NOTHING, shape(row.layer), *_values(row.settings, apart)]
        cells += [milliseconds(row.pyconv.median), str(row.fastest_peer())]
        return [*cells, lost_rounds(row), number(row.fastest_ratio, 2)]

    parts = [_head(everything, MOST_LOST), in_markdown(titles, [line(row) for row in lost[:MOST_LOST]], left)]
    if lost[MOST_LOST:]:
        worst = lost[MOST_LOST].fastest_ratio
        parts.append(f"and {len(lost) - MOST_LOST} more, from {worst:.2f} up.")
    return "\n\n".join(parts)


def _lost_rows(everything: Run) -> list[Row]:
    return sorted((row for row in everything.rows if row.lost), key=lambda row: row.fastest_ratio)


def _head(everything: Run, most: int) -> str:
    """Say how many rows were lost, before so many of them are named."""
    s = everything.summary(everything.rows)
    if s.lost:
        told = f"A peer is faster on {s.lost} of {s.compared} rows, on {s.lost_throughout} of them in every round"
        return f"{told}{'; the worst' if s.lost > most else ''}:"
    return f"pyconv is the fastest on all {s.compared} rows." if s.compared else ""


def _titles(names: Sequence[str]) -> list[str]:
    return ["MiB evicted" if name == "evicted" else name for name in names]


def _values(settings: Settings, names: Sequence[str]) -> list[str]:
    return [str(getattr(settings, name)) for name in names]


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_on_hyphens=False, break_long_words=False)


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Write or check; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 where a file is out of date")
    options = parser.parse_args(arguments)
    try:
        return _update(root, check=options.check)
    except (OSError, ValueError) as error:
        print(f"publish: {error}", file=sys.stderr)
        return 2


def _update(root: Path, check: bool) -> int:
    results = root / RESULTS
    machines: dict[Path, list[Run]] = {}
    for path in sorted(results.glob("*/*.json")):
        run = Run.read_json(path)
        # Where the file is now, wherever it was written.
        run = replace(
            run, command=re.sub(r"--json \S+", f"--json {RESULTS}/{path.parent.name}/{path.name}", run.command)
        )
        if run.rows:
            machines.setdefault(path.parent, []).append(run)
    if not machines:
        example = f"{RESULTS}/MACHINE/NAME.json"
        raise ValueError(f"{RESULTS} holds no run; make one with: python -m pyconv bench --json {example}")
    texts = {}
    for name, part in (("README.md", brief), ("docs/performance.md", detailed)):
        before, begin, rest = (root / name).read_text(encoding="utf-8").partition(BEGIN)
        _, end, after = rest.partition(END)
        if not begin or not end:
            raise ValueError(f"{name} has no {BEGIN} ... {END}")
        parts = "\n\n".join(part(runs, folder.name) for folder, runs in machines.items())
        texts[root / name] = f"{before}{begin}\n{parts}\n{end}{after}"
    pictures = {}
    for folder, runs in machines.items():
        everything = merged(runs)
        pictures[folder / "roofline.png"] = partial(plot.draw_roofline, everything)
        if everything.peers():
            pictures[folder / "ratios.png"] = partial(plot.draw_ratios, everything)
    if check:
        old = [path.name for path, text in texts.items() if path.read_text(encoding="utf-8") != text]
        old += [f"{picture.parent.name}/{picture.name}" for picture in pictures if not picture.exists()]
        if old:
            print(f"{', '.join(old)}: out of date or missing, run python benchmarks/publish.py", file=sys.stderr)
        return bool(old)
    if not plot.available():
        raise ValueError("the pictures need matplotlib: pip install matplotlib")
    for picture, draw in pictures.items():
        draw(picture)
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Two runs side by side: which layers became slower, which faster.

Rows are matched by network, descriptor and settings; where a shape occurs more than once, in their order. Times are
compared as they are, normalised by nothing: so the comparison says, first, where the runs differ in machine, versions
or yardstick, for there a change may have its cause.
"""

from __future__ import annotations

import math
from collections import Counter

from pyconv._words import counted
from pyconv.bench.record import Row, Run, geometric_mean
from pyconv.bench.table import aligned, common, digits, number, shape, widths_of

# A yardstick that moved by more than this makes every other figure doubtful.
_SAME_YARDSTICK = 0.05
_UNKNOWN = "not recorded"
# Facts that may differ: what a comparison is for, what never is the same, what is said twice.
_EXPECTED = {"pyconv", "commit", "load average", "NumPy"}


def compare(old: Run, new: Run, threshold: float | None) -> tuple[str, bool]:
    """Compare the medians of two runs.

    Parameters
    ----------
    old, new : Run
        What it was, what it is.
    threshold : float or None
        A layer fails whose median became longer by more than this part of the old one: 0.1 is 10 %. None: none does.

    Returns
    -------
    text : str
        Warnings, a table with the greatest slow-down first, and a summary.
    failed : bool
        Whether any layer failed, or the threshold was there and no layer to hold it against.
    """
    before, after = _by_key(old), _by_key(new)
    pairs = [(before[key], row) for key, row in after.items() if key in before]
    pairs.sort(key=lambda pair: change(*pair), reverse=True)
    limit = math.inf if threshold is None else 1 + threshold
    failures = sum(change(*pair) > limit for pair in pairs)

    parts = ["\n".join(f"warning: {text}" for text in differences(old, new))]
    if pairs:
        parts.append(_table(new, pairs, limit))
        parts.append(f"geometric mean of new / old: {geometric_mean(change(*pair) for pair in pairs):.3f}")
    else:
        parts.append("no layer of one run is in the other with the same settings")
    for run, which in ((old, "old"), (new, "new")):
        alone = len(run.rows) - len(pairs)
        if alone:
            parts.append(f"only in the {which} run: {counted(alone, 'row')}")
    if threshold is not None:
        slower = f"{failures} of {len(pairs)} rows are slower by more than {100 * threshold:g} %"
        parts.append(slower if pairs else "nothing was compared: that is a failure, too")
    failed = failures > 0 or (threshold is not None and not pairs)
    return "\n\n".join(part for part in parts if part) + "\n", failed


def _by_key(run: Run) -> dict[tuple[object, int], Row]:
    """Find the rows that have times by their key, and by how often it has occurred before."""
    found: dict[tuple[object, int], Row] = {}
    occurred: Counter[object] = Counter()
    for row in run.rows:
        if row.pyconv.seconds:
            found[row.key, occurred[row.key]] = row
            occurred[row.key] += 1
    return found


def change(old: Row, new: Row) -> float:
    """Return the new median by the old one: above 1, the layer became slower."""
    return new.pyconv.median / old.pyconv.median


def differences(old: Run, new: Run) -> list[str]:
    """Say what else may have changed the times."""
    found = []
    for was, now in ((old.machine, new.machine), (old.versions, new.versions)):
        for name in dict.fromkeys([*was, *now]):
            if was.get(name) != now.get(name) and name not in _EXPECTED:
                found.append(f"{name} was {was.get(name, _UNKNOWN)}, is {now.get(name, _UNKNOWN)}")
    settings = {run: {row.settings for row in rows.rows} for run, rows in (("old", old), ("new", new))}
    for run, other in (("old", "new"), ("new", "old")):
        for only in sorted(settings[run] - settings[other], key=str):
            found.append(f"only the {run} run has {only}")
    for row in {row.settings: row for row in new.rows}.values():
        was_peak = old.yardstick(row.settings).peak_best_decile
        peak = new.yardstick(row.settings).peak_best_decile
        if abs(math.log(peak / was_peak)) > _SAME_YARDSTICK:
            text = f"the multiply-add peak was {digits(was_peak)} GFLOP/s, is {digits(peak)} ({row.settings})"
            found.append(text)
    return found


def _table(new: Run, pairs: list[tuple[Row, Row]], limit: float) -> str:
    """Write a line for each pair, and mark those that failed."""
    _, apart = common(new)
    titles = ["network", "layer", "shape", "settings", "old ms", "new ms", "new / old", ""]
    lines = [
        [
            row.network,
            row.name,
            shape(row.layer),
            row.settings.describe(apart),
            digits(1e3 * was.pyconv.median),
            digits(1e3 * row.pyconv.median),
            number(change(was, row), 2),
            "slower" if change(was, row) > limit else "",
        ]
        for was, row in pairs
    ]
    kept = [i for i, title in enumerate(titles) if any(line[i] for line in lines) or title == "new / old"]
    titles = [titles[i] for i in kept]
    lines = [[line[i] for i in kept] for line in lines]
    left = [title in ("network", "layer", "shape", "settings", "") for title in titles]
    return aligned(titles, lines, left, widths_of(titles, lines))

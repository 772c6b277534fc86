"""What a call costs that computes next to nothing."""

from __future__ import annotations

from dataclasses import replace

from pyconv.bench.descriptor import parse
from pyconv.bench.session import Job, Session
from pyconv.bench.special import Setup, Table

COLUMNS = ["layer", "call", "us", "best us"]

_LAYERS = ('mb1ic1oc1_ih1oh1kh1ph0n"one multiplication"', 'mb1ic8oc8_ih8oh8kh3ph1n"small"')
_CALLS = {"packed": "pyconv.Conv2d in eval()", "unpacked": "pyconv.conv2d"}
_ROUNDS = 21


def fill(table: Table, setup: Setup) -> None:
    """Time the module, the function and the peers on one thread."""
    table.columns = COLUMNS
    first = replace(setup.jobs[0].settings, batch=1, threads=1, layout="nchw")
    jobs = [Job(parse(text), replace(first, weights=weights)) for text in _LAYERS for weights in _CALLS]
    session = Session(jobs, setup.peers, max(setup.rounds, _ROUNDS), None)
    session.run()
    for row in session.rows:
        layer = f"{row.name}, {parse(row.layer).shape_text}"
        calls = {_CALLS[row.settings.weights]: row.pyconv}
        if row.settings.weights == "unpacked":
            calls |= row.peers
        table.rows += [[layer, call, 1e6 * t.median, 1e6 * t.best] for call, t in calls.items()]
    if session.interrupted:
        raise KeyboardInterrupt

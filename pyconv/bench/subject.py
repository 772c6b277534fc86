"""pyconv as a contender: the same interface as that of the adapters in ``benchmarks/peers``, and its plans."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

from numpy.typing import NDArray

import pyconv
from pyconv import _execute
from pyconv._plan import Plan
from pyconv.bench.layer import Layer

NAME = "pyconv"
APPROXIMATE = ""

Array = NDArray[Any]


def limit_threads(n: int) -> None:
    """Use at most n threads from now on."""
    pyconv.set_num_threads(n)


def prepare(layer: Layer, x: Array, w: Array, b: Array, weights: str) -> Callable[[], Array]:
    """Build the call: of a module in ``eval()``, whose weights are packed once, or of the function, which packs them.

    Parameters
    ----------
    layer : Layer
    x, w, b : ndarray
        (mb, ic, ih, iw), (oc, ic // g, kh, kw) and (oc,).
    weights : {"packed", "unpacked"}
    """
    settings = layer.settings()
    function: Any = pyconv.conv2d
    kind: Any = pyconv.Conv2d
    if layer.is_1d:
        x, w, function, kind = x[:, :, 0], w[:, :, 0], pyconv.conv1d, pyconv.Conv1d
    if weights == "unpacked":
        return lambda: function(x, w, b, **settings)
    module = kind(layer.ic, layer.oc, w.shape[2:], dtype=w.dtype, rng=0, **settings)
    module.load_state_dict({"weight": w, "bias": b})
    module.eval()
    return lambda: module(x)


def plan_of(call: Callable[[], object]) -> Plan:
    """Make a call and return the plan that it carried out, which depends on the layout of its arrays."""
    plans: list[Plan] = []
    original = _execute.Job.step

    def step(job: _execute.Job, num_threads: int | None) -> _execute.Step:
        chosen = original(job, num_threads)
        plans.append(chosen.plan)
        return chosen

    with mock.patch.object(_execute.Job, "step", step):
        call()
    return plans[-1]


def short(plan: Plan) -> str:
    """Name role and tile: ``oc 8x3``."""
    return f"{plan.tile.role} {plan.tile.largest}x{plan.tile.NV}"

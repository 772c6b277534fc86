"""Rounding stays within the bound that theory gives it, element by element.

The hard gate is a theorem (see `pyconv._reference.error_bound`): nothing is tuned, and no data are
so bad that a correct kernel could fail it. The soft gate watches for a loss of accuracy that the
theorem would allow: on random data roundings partly cancel, and the error of n of them grows like
sqrt(n) where the bound grows like n (Higham and Mary, A new approach to probabilistic rounding
error analysis, SIAM J. Sci. Comput. 41, 2019; six standard deviations are allowed for).
"""

from __future__ import annotations

import numpy as np
import pytest

import pyconv
from _cases import random_case
from _problems import Call, seeds
from _values import ADVERSARIAL, gaussian

pytestmark = pytest.mark.usefixtures("parallel_at_any_size")

CHUNK = 50


def deviations(call: Call) -> dict[str, np.ndarray]:
    """Return |result - reference| on each instruction set."""
    exact = call.reference()
    assert np.isfinite(exact).all(), f"the data overflow: {call.case!r}"
    return {isa: np.abs(call.run(isa) - exact) for isa in pyconv.available_isas()}


@pytest.mark.parametrize("chunk", seeds(10))
def test_gaussian_data(chunk: int) -> None:
    wrong, alarms = [], 0
    for seed in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        call = Call(random_case(seed), gaussian)
        p = call.problem
        roundings = p.ic // p.g * p.kh * p.kw + 1
        bound = call.error_bound()
        usual = bound * min(1, 6 / np.sqrt(roundings))
        for isa, deviation in deviations(call).items():
            if not np.all(deviation <= bound):
                wrong.append(f"{isa}: {call.case!r}")
            alarms += np.count_nonzero(deviation > usual)
    assert not wrong, "\n".join(wrong)
    assert alarms == 0, f"{alarms} results are less accurate than they should be"


@pytest.mark.parametrize("chunk", seeds(2))
@pytest.mark.parametrize("family", ADVERSARIAL)
def test_adversarial_data(family: str, chunk: int) -> None:
    wrong = []
    for seed in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        call = Call(random_case(seed), ADVERSARIAL[family])
        bound = call.error_bound()
        for isa, deviation in deviations(call).items():
            if not np.all(deviation <= bound):
                wrong.append(f"{isa}: {call.case!r}")
    assert not wrong, "\n".join(wrong)

"""The reference itself, against the definition written as seven loops, and against torch."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice, product

import numpy as np
import pytest

from _cases import random_case
from _problems import Call, Case, seeds
from _values import gaussian
from pyconv import _reference
from pyconv._problem import ConvProblem


def source(i: int, before: int, n: int, mode: str) -> int | None:
    """Return which of n pixels the padded pixel i shows; None for a zero."""
    i -= before
    if mode == "zeros":
        return i if 0 <= i < n else None
    if mode == "replicate":
        return min(max(i, 0), n - 1)
    if mode == "circular":
        return i % n
    return n - 1 - abs(n - 1 - abs(i))  # reflect


def seven_loops(p: ConvProblem, x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Convolve in Python's own numbers."""
    out = np.empty((p.mb, p.oc, p.oh, p.ow), object)
    for n, k, i, j in product(range(p.mb), range(p.oc), range(p.oh), range(p.ow)):
        total = 0 if bias is None else bias[k].item()
        for c, r, s in product(range(p.ic // p.g), range(p.kh), range(p.kw)):
            row = source(i * p.sh + r * p.dh, p.pt, p.ih, p.padding_mode)
            col = source(j * p.sw + s * p.dw, p.pl, p.iw, p.padding_mode)
            if row is not None and col is not None:
                channel = k // (p.oc // p.g) * (p.ic // p.g) + c
                total += weight[k, c, r, s].item() * x[n, channel, row, col].item()
        out[n, k, i, j] = total
    return out


def test_against_seven_loops() -> None:
    """Small integers, so equal means equal; the last test of an argument that all others trust."""
    drawn = (Call(random_case(seed, budget=2_000)) for seed in range(10**6))
    for call in islice((c for c in drawn if c.problem.mb > 0), len(seeds(300))):
        expected = seven_loops(*call.operands)
        p = call.problem
        for dtype in (np.float64, np.int64):
            assert np.array_equal(_reference.conv(*call.operands, dtype), expected), call.case
        assert expected.shape == (p.mb, p.oc, p.oh, p.ow)


def test_against_torch() -> None:
    """Another implementation of the padding modes and of the sum, in float64."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    for seed in seeds(300):
        call = Call(replace(random_case(seed, 50_000), dtype="float64", src_dtype=""), gaussian)
        p = call.problem
        x, weight, bias = (
            None if values is None else torch.from_numpy(values.astype(np.float64)) for values in call.operands[1:]
        )
        mode = "constant" if p.padding_mode == "zeros" else p.padding_mode
        padded = functional.pad(x, (p.pl, p.pr, p.pt, p.pb), mode)
        result = functional.conv2d(padded, weight, bias, stride=(p.sh, p.sw), dilation=(p.dh, p.dw), groups=p.g)
        deviation = np.abs(result.numpy().reshape(call.case.out_shape) - call.reference())
        assert np.all(deviation <= call.error_bound()), call.case


def test_error_bound_is_attained() -> None:
    """It is no wider than it need be: a sum each of whose roundings errs to the full."""
    terms = 1000
    case = Case((1, terms, 1, 1), (1, terms, 1, 1))
    call = Call(case, gaussian)
    call.x[...], call.weight[...], call.bias[...] = 2.0**-24, 1, 1
    total = call.bias[0]
    for term in (call.x * call.weight).flat:
        total += term  # 1 + 2**-24 is a tie, and rounds to 1
    bound = call.error_bound().item()
    deviation = abs(total - call.reference().item())
    assert 0.99 * bound < deviation <= bound

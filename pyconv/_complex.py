"""Complex convolution as a real one of twice as many channels.

    re(out) = sum of  re(w) * re(x) - im(w) * im(x)          w = | re(w)  -im(w) |
    im(out) = sum of  im(w) * re(x) + re(w) * im(x)              | im(w)   re(w) |

Each channel becomes two neighbours, its real and its imaginary part, and each weight a block of 2 x 2: four real
multiplications, none of them saved by a trick, so that the parts are as exact as real results are and the order of each
sum is as fixed: c ascending, for each c the taps of the real part, then those of the imaginary part.

The parts are taken apart into planes for a few images at a time, and the planes of the result put together again:
scratch of `_AT_ONCE` bytes, or of one image.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pyconv import _execute
from pyconv._dtypes import is_complex
from pyconv._execute import Job, empty_result, job_for

if TYPE_CHECKING:
    from pyconv._execute import Array, Layout, Packs
    from pyconv._plan import Plan
    from pyconv._problem import ConvProblem

_AT_ONCE = 1 << 22  # bytes of planes: enough for every thread's share of small images, little beside large ones
_EXPANDED = "real weights"  # among a layer's packed weights


def job_of(problem: ConvProblem, axes: int, x: Layout, out: Layout) -> Job | ComplexJob:
    """Make the job of a problem, real or complex, on arrays of these layouts."""
    if is_complex(problem.dst_dtype):
        return ComplexJob(problem, axes)
    return job_for(problem, axes, x, out)


def plan_of(problem: ConvProblem) -> Plan:
    """Return the plan of a problem, real or complex, whose arrays are dense."""
    return _execute.plan_of(_real(problem) if is_complex(problem.dst_dtype) else problem)


def _real(problem: ConvProblem) -> ConvProblem:
    dtype = problem.dtype
    return replace(problem, ic=2 * problem.ic, oc=2 * problem.oc, src_dtype=dtype, dst_dtype=dtype)


class ComplexJob:
    """One complex problem, with the interface of a `Job`."""

    __slots__ = ("_axes", "_dtype", "_problem")

    def __init__(self, problem: ConvProblem, axes: int) -> None:
        self._problem = _real(problem)
        self._axes = axes
        self._dtype = np.dtype(problem.dtype)

    def run(
        self,
        x: Array,
        weight: Array,
        bias: Array | None,
        out: Array,
        num_threads: int | None = None,
        packs: Packs | None = None,
    ) -> None:
        """Convolve ``x`` into ``out``; see `Job.run`."""
        real_weight = None if packs is None else packs.get(_EXPANDED)
        if real_weight is None:
            real_weight = _expanded(weight)
            if packs is not None:
                packs[_EXPANDED] = real_weight
        real_bias = None if bias is None else np.stack([bias.real, bias.imag], -1).reshape(-1)
        if x.ndim == self._axes + 1:
            x, out = x[np.newaxis], out[np.newaxis]
        an_image = 2 * self._dtype.itemsize * (x[:1].size + out[:1].size)
        step = max(1, _AT_ONCE // max(1, an_image))
        for first in range(0, len(x), step):
            images = slice(first, first + step)
            planes = self._planes(x[images])
            results = empty_result((len(planes), 2 * out.shape[1], *out.shape[2:]), self._dtype)
            problem = replace(self._problem, mb=len(planes))
            job = job_for(problem, self._axes, (planes.shape, planes.strides), (results.shape, results.strides))
            job.run(planes, real_weight, real_bias, results, num_threads, packs)
            out[images].real = results[:, 0::2]
            out[images].imag = results[:, 1::2]

    def _planes(self, x: Array) -> Array:
        planes = np.empty((len(x), x.shape[1], 2, *x.shape[2:]), self._dtype)
        planes[:, :, 0] = x.real
        planes[:, :, 1] = x.imag
        return planes.reshape(len(x), -1, *x.shape[2:])


def _expanded(weight: Array) -> Array:
    """Return real weights (2 oc, 2 ic // g, ...) for complex ones (oc, ic // g, ...)."""
    oc, ic, *kernel = weight.shape
    blocks: Array = np.empty((oc, 2, ic, 2, *kernel), weight.real.dtype)
    blocks[:, 0, :, 0] = blocks[:, 1, :, 1] = weight.real
    blocks[:, 1, :, 0] = weight.imag
    # The negative by way of the conjugate. NumPy (2.4): `-weight.imag` is a SystemError where memory lacks, and
    # np.negative with out= takes wrong elements where both arrays are strided.
    blocks[:, 0, :, 1] = weight.conj().imag
    return blocks.reshape(2 * oc, 2 * ic, *kernel)

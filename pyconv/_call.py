"""A call: checked once, and recognised when it comes again.

What a call does follows from its settings and from the shapes, strides and dtypes of its arrays: the checks, the layout
of the result, the job that computes it. In a running program these repeat, so all of it is kept, in two places. A
`Slot` remembers the last call of a layer, or the last one of a function on weights at some address. A call with the
same settings on arrays of the same layouts is recognised there and goes straight to its job. `prepare` keeps the calls
of the process, for any other that has been there before:

    convolve -> Slot: the same as the last one? -- yes ------------------------+
                     | no                                                      v
                     +-> _arguments, each by itself -> prepare: all together   run
                                                       (_problem, job_for) ----^
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from pyconv import _arguments
from pyconv._dtypes import plain
from pyconv._execute import Job, empty_result, is_worth_aligning, job_for
from pyconv._known import Known, Layout
from pyconv._problem import ConvProblem, conv_problem

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pyconv._execute import Packs

Given: TypeAlias = tuple[object, object, object, object, object]  # settings as they came, in the order of `Settings`
Look: TypeAlias = tuple[tuple[int, ...], tuple[int, ...], np.dtype[Any]]  # of an array: shape, strides and dtype


@dataclass(frozen=True, slots=True)
class Call:
    """What is known of a call before it is run."""

    problem: ConvProblem
    job: Job
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    channels_last: bool
    aligned: bool  # whether the result starts on a cache line

    def empty(self) -> NDArray[Any]:
        """Make an array for the result."""
        if not self.channels_last:
            return empty_result(self.shape, self.dtype, self.aligned)
        *batch, channels, height, width = self.shape
        memory = empty_result((*batch, height, width, channels), self.dtype, self.aligned)
        return memory.transpose(*range(len(batch)), -1, -3, -2)


class Slot:
    """Where the last call of its kind is remembered.

    Parameters
    ----------
    ndim : int
        Spatial axes of all of these calls.
    same_weights : bool
        Whether weight and bias have the same layouts in every call, which then saves to look.
    """

    __slots__ = ("_known", "_same_weights", "ndim")

    def __init__(self, ndim: int, *, same_weights: bool = False) -> None:
        self.ndim = ndim
        self._same_weights = same_weights
        self._known: Known | None = None

    def recall(self, x: object, weight: object, bias: object | None, given: Given) -> Call | None:
        """Return the call that was remembered, if this is another of the same."""
        known = self._known
        return None if known is None else known.recall(x, weight, bias, given)

    def remember(self, x: Look, weight: Look, bias: Look | None, given: Given, call: Call) -> None:
        """Remember a call with settings that cannot change."""
        look_at_weights = not self._same_weights
        weight_layout = _layout(weight) if look_at_weights else None
        bias_layout = _layout(bias) if look_at_weights and bias else None
        self._known = Known(_layout(x), weight_layout, bias_layout, given, call)


# As many as a deep network has layers: each keeps a call alive, with its plan, that other caches may have dropped.
@lru_cache(maxsize=128)
def _slot(ndim: int, address: int) -> Slot:
    return Slot(ndim)


def slot_of(ndim: int, weight: object) -> Slot:
    """Return the slot of the function of so many axes for these weights.

    It may have been that of others, which have gone: it looks at each call.
    """
    return _slot(ndim, id(weight))


def _look(array: NDArray[Any]) -> Look:
    return array.shape, array.strides, array.dtype


def _layout(look: Look) -> Layout:
    """Return what recognises arrays of this look."""
    shape, strides, dtype = look
    return Layout(np.ndarray, plain(dtype), shape, strides)


def convolve(
    input: object,
    weight: object,
    bias: object | None,
    given: Given,
    out: NDArray[Any] | None,
    num_threads: object | None,
    slot: Slot,
    packs: Packs | None = None,
) -> NDArray[Any]:
    """Make a call of the kind that `slot` remembers. `packs` is where a frozen module keeps packed weights."""
    x: NDArray[Any]
    w: NDArray[Any]
    b: NDArray[Any] | None
    call = slot.recall(input, weight, bias, given)
    if call is not None:
        x, w, b = input, weight, bias  # type: ignore[assignment]
    else:
        settings = _arguments.settings(*given)
        x, w = _arguments.array(input, "input"), _arguments.array(weight, "weight")
        b = None if bias is None else _arguments.array(bias, "bias")
        looks = _look(x), _look(w), None if b is None else _look(b)
        call = prepare(slot.ndim, *looks, settings)
        if all(map(operator.is_, given, settings)):  # so they are ints, strings and tuples
            slot.remember(*looks, given, call)
    threads = None if num_threads is None else _arguments.thread_count(num_threads)
    if out is None:
        result = call.empty()
        call.job.step(threads).run(x, w, b, result, packs)
        return result
    target = _arguments.output(out, call.shape, call.dtype)
    if _arguments.is_apart(target, x, w, b):
        job = job_for(call.problem, slot.ndim, (x.shape, x.strides), (target.shape, target.strides))
        job.step(threads).run(x, w, b, target, packs)
    else:
        result = call.empty()
        call.job.step(threads).run(x, w, b, result, packs)
        target[...] = result
    return out


@lru_cache(maxsize=1024)
def prepare(ndim: int, x: Look, weight: Look, bias: Look | None, settings: _arguments.Settings) -> Call:
    """Check everything against everything, and decide on the layout of the result."""
    shape, strides, dtype = x
    weight_shape, weight_strides, weight_dtype = weight
    bias_shape, _, bias_dtype = bias or (None, None, None)
    weight_dtype = plain(weight_dtype)
    problem = conv_problem(ndim, shape, weight_shape, bias_shape, dtype, weight_dtype, bias_dtype, *settings)
    extents = (problem.oc, problem.oh, problem.ow) if ndim == 2 else (problem.oc, problem.ow)
    result = (problem.mb, *extents) if len(shape) == ndim + 2 else extents
    channels_last = ndim == 2 and (_is_channels_last(shape, strides) or _is_channels_last(weight_shape, weight_strides))
    order = (*result[:-3], *result[-2:], result[-3]) if channels_last else result
    dense = tuple(weight_dtype.itemsize * math.prod(order[axis + 1 :]) for axis in range(len(order)))
    if channels_last:
        dense = (*dense[:-3], dense[-1], *dense[-3:-1])
    job = job_for(problem, ndim, (shape, strides), (result, dense))
    return Call(problem, job, result, weight_dtype, channels_last, is_worth_aligning(result, weight_dtype))


def _is_channels_last(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Tell whether the strides are those of images stored as (N, H, W, C), by torch's rule.

    Where C is 1, or H and W are, both orders are the same memory, and torch lets the strides of the
    axes of length 1 decide: NumPy keeps them through a transpose, so they tell what was meant. One
    exception: a batch axis of length 1 has no say, because that of ``image[np.newaxis]`` is 0.
    """
    channel, row, column = strides[-3:]
    channels, height, width = shape[-3:]
    image = row * height
    return (
        0 < channel * channels <= column
        and column * width <= row
        and image != channel
        and (len(shape) == 3 or shape[0] == 1 or image <= strides[0])
    )

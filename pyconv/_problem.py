"""What is to be computed: one convolution, as numbers that are known to fit each other.

`conv_problem` takes the shapes, dtypes and settings of a call and returns a `ConvProblem`, or
raises. Whatever it returns can be computed: below it nothing is checked again. The order of the
checks and the key phrase of each message are torch's, because tests of ported code match them.

All arithmetic is on Python's ints, which do not overflow. Two rules follow from that, and the
compiled code relies on both:

1.  The output size is `room // stride + 1`, where `room` is how far the kernel can travel, and a
    negative room is an error. (In C, -1 / 2 + 1 is 1: the famous bug.)
2.  Every array, the padded image among them, has fewer than 2**63 bytes, so that every index and
    every offset into it fits 64 bits.

The answer depends on a few small values, so it is cached: a call with shapes seen before costs a
dictionary lookup.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from pyconv._arguments import check_dtypes, per_axis
from pyconv._dtypes import ACCUMULATOR, name_of
from pyconv._errors import ConvError

if TYPE_CHECKING:
    import numpy as np

    from pyconv._arguments import Ints, Padding

Shape: TypeAlias = tuple[int, ...]
Sides: TypeAlias = tuple[tuple[int, int], ...]  # for each spatial axis: padding before and after

T = TypeVar("T")

_MAX: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class ConvProblem:
    """One convolution. Its letters are used everywhere below the public functions.

    ===============  =============================================================================
    ``mb``           images in the batch ("minibatch"), 0 allowed
    ``g``            groups; each maps ``ic / g`` input channels to ``oc / g`` output channels
    ``ic ih iw``     input channels (of all groups together), height, width
    ``oc oh ow``     output channels (of all groups together), height, width
    ``kh kw``        kernel height, width
    ``sh sw``        stride: the distance between neighbouring outputs, in pixels of the input
    ``dh dw``        dilation: the distance between neighbouring taps; 1 = dense
    ``pt pb pl pr``  padding at the top, bottom, left and right
    ===============  =============================================================================

    ``dst_dtype`` is that of weights, bias and output, ``dtype`` that of the sum: the same, or wider.
    ``src_dtype`` is that of the image: as that of the weights, or bool or an integer that they hold
    exactly.

    A one-dimensional problem is a two-dimensional one of height 1: ``ih = oh = kh = sh = dh = 1``
    and ``pt = pb = 0``.

    A stride that leads out of the input is as good as any other that does, and is stored as the
    smallest of them; the dilation of a single tap is stored as 1. So equal convolutions are equal
    problems, no letter exceeds the padded input, and ``oh`` is still what the formula says.
    """

    mb: int
    g: int
    ic: int
    ih: int
    iw: int
    oc: int
    oh: int
    ow: int
    kh: int
    kw: int
    sh: int
    sw: int
    dh: int
    dw: int
    pt: int
    pb: int
    pl: int
    pr: int
    padding_mode: str
    dtype: str
    src_dtype: str
    dst_dtype: str

    @property
    def rows_apart(self) -> bool:
        """Whether no two rows of the output read the same row of the image."""
        return (self.kh - 1) * self.dh < self.sh

    @property
    def of_patches(self) -> bool:
        """Whether no two outputs read the same pixel, and none an explicit one."""
        columns_apart = (self.kw - 1) * self.dw < self.sw
        return self.rows_apart and columns_apart and self.pt == self.pb == self.pl == self.pr == 0


@lru_cache(maxsize=1024)
def conv_problem(
    ndim: int,
    input_shape: Shape,
    weight_shape: Shape,
    bias_shape: Shape | None,
    input_dtype: np.dtype[Any],
    weight_dtype: np.dtype[Any],
    bias_dtype: np.dtype[Any] | None,
    stride: Ints,
    padding: Padding,
    dilation: Ints,
    groups: int,
    padding_mode: str,
) -> ConvProblem:
    """Check the arguments of conv1d (`ndim` 1) or conv2d (`ndim` 2) against each other.

    Parameters
    ----------
    ndim : {1, 2}
        The number of spatial axes.
    input_shape, weight_shape, bias_shape
        As passed by the user; the input with or without a batch axis.
    input_dtype, weight_dtype, bias_dtype
    stride, padding, dilation, groups, padding_mode
        As `_arguments` returns them.

    Raises
    ------
    ConvTypeError
        The dtypes do not go together.
    ConvError
        The shapes and settings do not, or the result would be too large for any machine.
    """
    check_dtypes(input_dtype, weight_dtype, bias_dtype)
    x = _batched(input_shape, ndim)
    if len(weight_shape) < 3:
        raise ConvError(
            f"weight should have at least three dimensions, but got weight of size {list(weight_shape)}: "
            f"{_rank_of_weight(ndim)}"
        )
    if groups < 1:
        raise ConvError(f"non-positive groups is not supported: got groups={groups}, it must be at least 1")
    kernel = weight_shape[2:]
    strides, dilations, sides = settings(ndim, kernel, stride, padding, dilation)
    _check_channels(x, weight_shape, bias_shape, groups)
    _check_padding(x, sides, padding_mode)
    rooms = _rooms(x[2:], kernel, dilations, sides)
    out = tuple(room // stride + 1 for room, stride in zip(rooms, strides, strict=True))
    check_kernel(kernel)
    if 0 in x[1:]:
        raise ConvError(
            f"Only zero batch inputs are supported, but got input shape: {list(x)}, of which another axis is empty"
        )
    padded = (extent + sum(pads) for extent, pads in zip(x[2:], sides, strict=True))
    check_bytes("padded input", (*x[:2], *padded), weight_dtype.itemsize)
    check_bytes("output", (x[0], weight_shape[0], *out), weight_dtype.itemsize)

    (ih, iw), (oh, ow), (kh, kw) = _plane(x[2:], 1), _plane(out, 1), _plane(kernel, 1)
    (sh, sw), (dh, dw), (rh, rw) = _plane(strides, 1), _plane(dilations, 1), _plane(rooms, 0)
    (pt, pb), (pl, pr) = _plane(sides, (0, 0))
    return ConvProblem(
        mb=x[0], g=groups, ic=x[1], ih=ih, iw=iw, oc=weight_shape[0], oh=oh, ow=ow, kh=kh, kw=kw,
        sh=min(sh, rh + 1), sw=min(sw, rw + 1),
        dh=dh if kh > 1 else 1, dw=dw if kw > 1 else 1,
        pt=pt, pb=pb, pl=pl, pr=pr,
        padding_mode=padding_mode, dtype=ACCUMULATOR[name_of(weight_dtype)],
        src_dtype=name_of(input_dtype), dst_dtype=name_of(weight_dtype),
    )  # fmt: skip


def _batched(shape: Shape, ndim: int) -> Shape:
    """Return the input's shape with a batch axis. As in torch, one image may come without."""
    if len(shape) == ndim + 2:
        return shape
    if len(shape) == ndim + 1:
        return (1, *shape)
    remedy = ": if it has one channel, use input[np.newaxis]" if len(shape) == ndim else ""
    raise ConvError(
        f"Expected {ndim + 1}D (unbatched) or {ndim + 2}D (batched) input to conv{ndim}d, "
        f"but got input of size: {list(shape)}{remedy}"
    )


def check_padding_string(padding: Padding, stride: Ints) -> None:
    """Check that a string is known, and that 'same' goes without strides."""
    if isinstance(padding, str) and padding not in ("same", "valid"):
        raise ConvError(f"Invalid padding string '{padding}', should be one of {{'same', 'valid'}}")
    strides = (stride,) if isinstance(stride, int) else stride
    if padding == "same" and any(s != 1 for s in strides):
        raise ConvError(f"padding='same' is not supported for strided convolutions: got stride={stride}")


def settings(ndim: int, kernel: Shape, stride: Ints, padding: Padding, dilation: Ints) -> tuple[Shape, Shape, Sides]:
    """Check stride, padding and dilation, and give each spatial axis its own."""
    check_padding_string(padding, stride)
    strides = per_axis(stride, ndim, "stride")
    dilations = per_axis(dilation, ndim, "dilation")
    sides = _sides(ndim, kernel, padding, dilations)
    if any(s < 1 for s in strides):
        raise ConvError(f"non-positive stride is not supported: got stride={stride}, it must be at least 1")
    if any(d < 1 for d in dilations):
        raise ConvError(f"dilation should be greater than zero, but got {list(dilations)}")
    return strides, dilations, sides


def _sides(ndim: int, kernel: Shape, padding: Padding, dilations: Shape) -> Sides:
    """Return the padding before and after each spatial axis.

    'same' makes the output as large as the input: of the `dilation * (kernel - 1)` pixels that
    takes, the odd one goes to the right or the bottom. It does not depend on the input's size.
    """
    if padding == "valid":
        padding = 0
    if isinstance(padding, str):
        totals = [d * (k - 1) for d, k in zip(dilations, kernel, strict=False)]
        return tuple((total // 2, total - total // 2) for total in totals)
    pads = per_axis(padding, ndim, "padding")
    sides = tuple(pad if isinstance(pad, tuple) else (pad, pad) for pad in pads)
    if any(min(pair) < 0 for pair in sides):
        raise ConvError(f"negative padding is not supported: got padding={padding}, crop the input instead")
    return sides


def _rank_of_weight(ndim: int) -> str:
    return f"conv{ndim}d takes a weight of {ndim + 2} dimensions"


def _check_channels(x: Shape, weight: Shape, bias: Shape | None, groups: int) -> None:
    """Check rank, groups, input channels and bias; a shape is shown as torch shows it."""
    if len(weight) != len(x):
        raise ConvError(
            f"Expected {len(weight)}-dimensional input for {len(weight)}-dimensional weight "
            f"{list(weight)}, but got {len(x)}-dimensional input of size {list(x)} instead: "
            f"{_rank_of_weight(len(x) - 2)}"
        )
    oc, ic = weight[0], weight[1] * groups
    if oc < groups:
        raise ConvError(
            f"Given groups={groups}, expected weight to be at least {groups} at dimension 0, "
            f"but got weight of size {list(weight)} instead"
        )
    if oc % groups:
        raise ConvError(
            f"Given groups={groups}, expected weight to be divisible by {groups} at dimension 0, "
            f"but got weight of size {list(weight)} instead"
        )
    if x[1] != ic:
        likely = x[-1] == ic and x[1] != weight[1]  # else it is rather the weight that should be divided by groups
        hint = f". The last axis has {ic}: use np.moveaxis(input, -1, {1 - len(x)})"
        raise ConvError(
            f"Given groups={groups}, weight of size {list(weight)}, expected input{list(x)} "
            f"to have {ic} channels, but got {x[1]} channels instead{hint if likely else ''}"
        )
    if bias is not None and bias != (oc,):
        raise ConvError(
            f"Given weight of size {list(weight)}, expected bias to be 1-dimensional with {oc} "
            f"elements, but got bias of size {list(bias)} instead"
        )


def _check_padding(x: Shape, sides: Sides, padding_mode: str) -> None:
    """Check that padding is in range: a reflection has its mirror, a circle is closed once."""
    for axis, pads in enumerate(sides):
        if max(pads) > _MAX // 2:
            raise ConvError(
                f"Given padding={max(pads)} at dimension {axis}, expected padding to be at most {_MAX // 2}"
            )
    for axis in reversed(range(len(sides))):
        extent, pads = x[2 + axis], sides[axis]
        where = f"padding {pads} at dimension {2 + axis} of input {list(x)}"
        if padding_mode == "reflect" and max(pads) >= extent:
            raise ConvError(f"Padding size should be less than the corresponding input dimension, but got: {where}")
        if padding_mode == "circular" and max(pads) > extent:
            raise ConvError(
                f"Padding value causes wrapping around more than once: got {where}, it must be at most {extent}"
            )


def _rooms(extents: Shape, kernel: Shape, dilations: Shape, sides: Sides) -> Shape:
    """Return how far the dilated kernel can travel within the padded input, along each axis."""
    padded = [extent + sum(pads) for extent, pads in zip(extents, sides, strict=True)]
    spans = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    rooms = [size - span for size, span in zip(padded, spans, strict=True)]
    if min(rooms) < 0:
        raise ConvError(
            f"Calculated padded input size per channel: ({' x '.join(map(str, padded))}). "
            f"Kernel size: ({' x '.join(map(str, spans))}). "
            "Kernel size can't be greater than actual input size"
        )
    return tuple(rooms)


def check_kernel(kernel: Shape) -> None:
    """Check that a kernel has a tap."""
    if any(k < 1 for k in kernel):
        raise ConvError(f"kernel size should be greater than zero, but got {list(kernel)}")


def check_bytes(what: str, shape: Shape, itemsize: int) -> None:
    """Check that an array has fewer than 2**63 bytes, an empty batch counting as one image."""
    if math.prod(max(extent, 1) for extent in shape) * itemsize > _MAX:
        raise ConvError(f"{what} of shape {list(shape)} would have more than 2**63 - 1 bytes")


def _plane(extents: tuple[T, ...], unit: T) -> tuple[T, T]:
    """Return values for height and width; a 1-D convolution has a `unit` height."""
    height, width = (unit, *extents)[-2:]
    return height, width

"""The convolutions as functions.

`conv1d` and `conv2d` differ in the number of spatial axes and in their documentation. What they do is `_call`'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyconv._call import convolve, slot_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import SupportsIndex, TypeAlias

    from numpy.typing import ArrayLike, NDArray

    Ints: TypeAlias = SupportsIndex | Sequence[SupportsIndex]
    Padding: TypeAlias = str | Ints | Sequence[SupportsIndex | Sequence[SupportsIndex]]

__all__ = ["conv1d", "conv2d"]


def conv2d(
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    groups: SupportsIndex = 1,
    *,
    padding_mode: str = "zeros",
    out: NDArray[Any] | None = None,
    num_threads: SupportsIndex | None = None,
) -> NDArray[Any]:
    """Convolve images with a bank of filters, as ``torch.nn.functional.conv2d`` does.

    As in torch it is a cross-correlation, that is, the filters are not flipped::

        out[n, k, i, j] = bias[k] + sum over c, r, s of
            weight[k, c, r, s] * padded[n, first(k) + c, i * stride + r * dilation,
                                                         j * stride + s * dilation]

    with ``first(k)`` the first input channel of the group that output channel ``k`` belongs to.

    Parameters
    ----------
    input : array_like, shape (N, C, H, W) or (C, H, W)
        Images, or one image, of the weights' dtype; with floating or complex weights also bool and
        integers: of up to 8 bits with 16-bit floats, 16 with float32 and complex64, any with
        float64 and complex128 (beyond 2**53 rounded). Any strides.
    weight : array_like, shape (K, C / groups, kernel height, kernel width)
        The filters: float16, ``ml_dtypes.bfloat16``, float32, float64, complex64, complex128 or
        integers. 16-bit floats are summed in float32 and rounded once, to nearest even; integers
        wrap around as NumPy's do.
    bias : array_like, shape (K,), optional
        Added to each output channel.
    stride : int or (int, int), default 1
        Distance between neighbouring outputs, in pixels of the input, (vertical, horizontal).
    padding : int, (int, int), ((int, int), (int, int)), 'same' or 'valid', default 0
        Pixels added on every side; (above and below, left and right); ((above, below), (left,
        right)); as many as keep the size, the odd one below or to the right; none.
    dilation : int or (int, int), default 1
        Distance between neighbouring taps of a filter, in pixels of the input.
    groups : int, default 1
        Input and output channels are divided into this many groups that see nothing of each other;
        ``groups=C`` is a depthwise convolution.
    padding_mode : {'zeros', 'reflect', 'replicate', 'circular'}, default 'zeros'
        What the added pixels hold. Zeros are values like any other: times an infinite weight they
        are NaN.
    out : ndarray, optional
        Where to put the result. It has exactly the result's shape and dtype, any strides that do
        not make it overlap itself, and may share memory with the operands.
    num_threads : int, optional
        At most this many threads, default `pyconv.get_num_threads`. The result does not depend on
        it.

    Returns
    -------
    ndarray, shape (N, K, OH, OW), or (K, OH, OW) for one image
        `out`, or a new array of the weights' dtype, where ``OH = (H + padding above and below -
        dilation * (kernel height - 1) - 1) // stride + 1``. If the input or the weights are
        channels-last in memory (an NHWC array transposed to NCHW), so is the new array; one image
        counts as a batch of one. From 32 KiB on a new array starts on a cache line of 64 bytes; it
        is then a view of its memory (``flags.owndata`` is False), which `ndarray.resize` refuses.

    Raises
    ------
    ConvError
        The shapes and settings do not fit each other. It is a ValueError and a RuntimeError.
    ConvTypeError
        A type or dtype is not supported. It is a TypeError and a RuntimeError.
    MemoryError
        There is no memory for the result.

    See Also
    --------
    pyconv.Conv2d : the same with weights of its own.

    Notes
    -----
    Each element of the result is one chain of fused multiply-adds, from the bias through C, kernel
    height and kernel width in ascending order; of complex numbers, each part is such a chain, for
    each C first over the input's real part, then over its imaginary part, which integers have none
    of: they are no complex numbers with zeros, which an infinite weight would make NaN. It is the
    same to the last bit for any number of threads, any batch and any memory layout.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import conv2d
    >>> image = np.array([[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]])
    >>> box = np.ones((1, 1, 2, 2))
    >>> conv2d(image, box)
    array([[[12., 16.],
            [24., 28.]]])
    >>> conv2d(image, box, bias=[0.5], stride=2, padding=((1, 0), (1, 0)))
    array([[[ 1.5,  5.5],
            [11.5, 28.5]]])

    A batch of photographs, as NumPy holds them, through the first layer of a network:

    >>> photographs = np.zeros((8, 224, 224, 3), np.uint8)
    >>> weight = np.zeros((64, 3, 7, 7), np.float32)
    >>> result = conv2d(photographs.transpose(0, 3, 1, 2), weight, stride=2, padding=3)
    >>> result.shape, result.dtype
    ((8, 64, 112, 112), dtype('float32'))
    >>> result.transpose(0, 2, 3, 1).flags.c_contiguous
    True
    """
    settings = stride, padding, dilation, groups, padding_mode
    return convolve(input, weight, bias, settings, out, num_threads, slot_of(2, weight))


def conv1d(
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    groups: SupportsIndex = 1,
    *,
    padding_mode: str = "zeros",
    out: NDArray[Any] | None = None,
    num_threads: SupportsIndex | None = None,
) -> NDArray[Any]:
    """Convolve signals with a bank of filters, as ``torch.nn.functional.conv1d`` does.

    As in torch it is a cross-correlation, that is, the filters are not flipped::

        out[n, k, j] = bias[k] + sum over c, s of
            weight[k, c, s] * padded[n, first(k) + c, j * stride + s * dilation]

    with ``first(k)`` the first input channel of the group that output channel ``k`` belongs to.

    Parameters
    ----------
    input : array_like, shape (N, C, L) or (C, L)
        Signals, or one signal. Its dtype and strides are as free as `conv2d` says.
    weight : array_like, shape (K, C / groups, kernel length)
        The filters, of the dtypes that `conv2d` takes.
    bias : array_like, shape (K,), optional
        Added to each output channel.
    stride, dilation : int or (int,), default 1
        Distance between neighbouring outputs and between neighbouring taps, in samples.
    padding : int, (int,), ((int, int),), 'same' or 'valid', default 0
        Samples added on both sides; the same; (before, after); as many as keep the length, the odd
        one after; none.
    groups, padding_mode, out, num_threads
        As in `conv2d`.

    Returns
    -------
    ndarray, shape (N, K, OL), or (K, OL) for one signal
        `out`, or a new array of the weights' dtype, C-contiguous whatever the layout of the
        operands, where ``OL = (L + padding on both sides - dilation * (kernel length - 1) - 1) //
        stride + 1``.

    Raises
    ------
    ConvError, ConvTypeError, MemoryError
        As in `conv2d`.

    See Also
    --------
    pyconv.Conv1d : the same with weights of its own.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import conv1d
    >>> signal = np.array([[1.0, 2.0, 4.0, 8.0]])
    >>> difference = np.array([[[-1.0, 1.0]]])
    >>> conv1d(signal, difference)
    array([[1., 2., 4.]])
    >>> conv1d(signal, difference, padding=((1, 0),), padding_mode="replicate")
    array([[0., 1., 2., 4.]])
    """
    settings = stride, padding, dilation, groups, padding_mode
    return convolve(input, weight, bias, settings, out, num_threads, slot_of(1, weight))

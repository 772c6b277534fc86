"""The convolutions as layers: torch's modules, with NumPy arrays for parameters."""

from pyconv._layer import ConvNd

__all__ = ["Conv1d", "Conv2d"]


class Conv2d(ConvNd):
    """A 2-D convolution with weights of its own: ``torch.nn.Conv2d`` for NumPy arrays.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of the input and of the output, both multiples of `groups`.
    kernel_size : int or (int, int)
        Height and width of the filters.
    stride : int or (int, int), default 1
        Distance between neighbouring outputs, in pixels of the input.
    padding : int, (int, int), ((int, int), (int, int)), 'same' or 'valid', default 0
        Pixels added around the input, as in `pyconv.conv2d`.
    dilation : int or (int, int), default 1
        Distance between neighbouring taps of a filter, in pixels of the input.
    groups : int, default 1
        Groups of channels that see nothing of each other.
    bias : bool, default True
        Whether a learnable number is added to each output channel.
    padding_mode : {'zeros', 'reflect', 'replicate', 'circular'}, default 'zeros'
        What the added pixels hold.
    device : {None, 'cpu'}
        For torch's sake.
    dtype : dtype, default float32
        Of the parameters and the result: a float of 16, 32 or 64 bits (``ml_dtypes.bfloat16``
        among them), complex64 or complex128.
    rng : None, int or numpy.random.Generator, optional
        Where the initial parameters come from, in whatever form `numpy.random.default_rng` takes:
        an int makes them reproducible.

    Attributes
    ----------
    weight : ndarray, shape (out_channels, in_channels / groups, kernel height, kernel width)
        Drawn uniformly from +-1 / sqrt(in_channels / groups * kernel height * kernel width).
    bias : ndarray, shape (out_channels,), or None
        Drawn from the same interval.
    in_channels, out_channels, kernel_size, groups
        As given; kernel_size as a tuple.
    stride, padding, dilation, padding_mode
        As given, ints as a tuple. They may be changed, and the next call obeys.
    training : bool
        True until `eval` is called.

    Raises
    ------
    ConvError
        A setting is out of range. It is a ValueError and a RuntimeError.
    ConvTypeError
        A setting is of the wrong type. It is a TypeError and a RuntimeError.

    See Also
    --------
    pyconv.conv2d : the convolution as a function.

    Notes
    -----
    Call `eval` before using a trained layer: the weights are then packed once, not in every call.
    A layer may be called by several threads at once.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import Conv2d
    >>> layer = Conv2d(3, 64, kernel_size=7, stride=2, padding=3, rng=0).eval()
    >>> layer
    Conv2d(3, 64, kernel_size=(7, 7), stride=(2, 2), padding=(3, 3))
    >>> layer(np.zeros((8, 3, 224, 224), np.float32)).shape
    (8, 64, 112, 112)

    Weights come from any checkpoint that NumPy can read:

    >>> layer.load_state_dict({"weight": np.ones((64, 3, 7, 7)), "bias": np.zeros(64)})
    <All keys matched successfully>
    >>> layer.weight[0, 0, 0, 0] = 2
    Traceback (most recent call last):
    ValueError: assignment destination is read-only
    """

    _ndim = 2


class Conv1d(ConvNd):
    """A 1-D convolution with weights of its own: ``torch.nn.Conv1d`` for NumPy arrays.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of the input and of the output, both multiples of `groups`.
    kernel_size, stride, dilation : int or (int,)
        Length of the filters; distance between neighbouring outputs and between neighbouring taps,
        in samples, default 1.
    padding : int, (int,), ((int, int),), 'same' or 'valid', default 0
        Samples added around the input, as in `pyconv.conv1d`.
    groups, bias, padding_mode, device, dtype, rng
        As in `Conv2d`.

    Attributes
    ----------
    weight : ndarray, shape (out_channels, in_channels / groups, kernel length)
    bias : ndarray, shape (out_channels,), or None
        Both as in `Conv2d`, and so are all the others.

    Raises
    ------
    ConvError, ConvTypeError
        As in `Conv2d`.

    See Also
    --------
    pyconv.conv1d : the convolution as a function.

    Examples
    --------
    >>> import numpy as np
    >>> from pyconv import Conv1d
    >>> layer = Conv1d(1, 1, kernel_size=3, padding="same", bias=False)
    >>> layer
    Conv1d(1, 1, kernel_size=(3,), stride=(1,), padding=same, bias=False)
    >>> layer.weight = [[[0.25, 0.5, 0.25]]]
    >>> layer(np.array([[0, 0, 8, 0, 0]], np.float32))
    array([[0., 2., 4., 2., 0.]], dtype=float32)
    """

    _ndim = 1

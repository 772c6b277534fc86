"""What all layers share: settings, parameters, and the two modes of a layer.

Settings are plain attributes, free to be changed between calls. All that belongs to the parameters
is in one immutable tuple, `_State`. A call reads that tuple once, and whoever changes the
parameters puts a new tuple in its place. So a call that another thread makes meanwhile sees the old
parameters or the new ones, never a mixture. Changes keep some of what was there before, so they are
made one at a time.

Kernels want the weights packed. Packing takes time, and a packed copy goes stale when the weights
change, so a layer keeps one only while they cannot: `ConvNd.eval` makes the parameters read-only,
and an edit in place is then an error, not a result from the weights of yesterday.
"""

from __future__ import annotations

import copy
import math
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from pyconv import _arguments, _problem, _state_dict
from pyconv._call import Slot, convolve
from pyconv._errors import ConvError
from pyconv._execute import plan_of

if TYPE_CHECKING:
    from collections import OrderedDict
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Self, SupportsIndex, TypeAlias

    from numpy.typing import ArrayLike, DTypeLike, NDArray

    from pyconv._execute import Packs
    from pyconv._plan import Plan
    from pyconv.functional import Ints, Padding

    Rng: TypeAlias = int | np.random.SeedSequence | np.random.BitGenerator | np.random.Generator | None


# Held while parameters change. Forks wait for it, or a child would inherit it from a thread that it does not have.
_changing = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_changing.acquire, after_in_parent=_changing.release, after_in_child=_changing.release)


class _State(NamedTuple):
    """The parameters, and what is kept for calls with them."""

    weight: NDArray[Any]
    bias: NDArray[Any] | None
    packs: Packs | None  # what was packed from them; None while they may change
    operands: tuple[NDArray[Any], NDArray[Any] | None]  # the parameters, as calls read them
    slot: Slot

    @classmethod
    def of(cls, ndim: int, weight: NDArray[Any], bias: NDArray[Any] | None, *, training: bool) -> _State:
        """Make the state of a layer with so many spatial axes, in either mode.

        Calls on frozen parameters read views of them: whoever has the arrays themselves can still give these another
        dtype or shape, and what is remembered must fit the memory that is read.
        """
        slot = Slot(ndim, same_weights=not training)
        if training:
            return cls(weight, bias, None, (weight, bias), slot)
        return cls(weight, bias, {}, (weight[...], None if bias is None else bias[...]), slot)


class ConvNd:
    """All of a layer except the number of its spatial axes."""

    _ndim: ClassVar[int]

    def __init__(
        self,
        in_channels: SupportsIndex,
        out_channels: SupportsIndex,
        kernel_size: Ints,
        stride: Ints = 1,
        padding: Padding = 0,
        dilation: Ints = 1,
        groups: SupportsIndex = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: str | None = None,
        dtype: DTypeLike | None = None,
        *,
        rng: Rng = None,
    ) -> None:
        integers, exactly, ndim = _arguments.integers, _arguments.exactly, self._ndim
        self.in_channels = _arguments.integer(in_channels, "in_channels")
        self.out_channels = _arguments.integer(out_channels, "out_channels")
        strides, pads = integers(stride, "stride"), _arguments.padding(padding)

        # What torch's constructor checks, in its order.
        self.groups = _arguments.positive(groups, "groups")
        for name, channels in (("in", self.in_channels), ("out", self.out_channels)):
            if channels % self.groups:
                raise ConvError(
                    f"{name}_channels must be divisible by groups, got {name}_channels={channels} "
                    f"and groups={self.groups}"
                )
        _problem.check_padding_string(pads, strides)
        self.padding_mode = _arguments.padding_mode(padding_mode)

        # What torch leaves to the first call.
        _arguments.positive(self.in_channels, "in_channels")
        _arguments.positive(self.out_channels, "out_channels")
        self.kernel_size = exactly(integers(kernel_size, "kernel_size"), ndim, "kernel_size")
        self.stride: Ints = exactly(strides, ndim, "stride")
        pads = pads if isinstance(pads, str) else exactly(pads, ndim, "padding")
        self.padding: Padding = pads
        dilations = exactly(integers(dilation, "dilation"), ndim, "dilation")
        self.dilation: Ints = dilations
        _problem.check_kernel(self.kernel_size)
        _problem.settings(ndim, self.kernel_size, strides, pads, dilations)
        if device is not None and device != "cpu":
            raise ConvError(f"device must be None or 'cpu', got device={device!r}")

        self.transposed = False
        self.output_padding = (0,) * ndim
        element = np.dtype(np.float32) if dtype is None else _arguments.float_dtype(dtype)
        with_bias = _arguments.flag(bias, "bias")
        self._state = self._initial(element, _arguments.generator(rng), with_bias=with_bias)

    def _initial(self, dtype: np.dtype[Any], rng: np.random.Generator, *, with_bias: bool) -> _State:
        """Draw the weight and then the bias, as torch does, from +-1 / sqrt(terms of an output)."""
        shape = (self.out_channels, self.in_channels // self.groups, *self.kernel_size)
        _problem.check_bytes("weight", shape, dtype.itemsize)
        bound = 1 / math.sqrt(math.prod(shape[1:]))
        weight = _uniform(rng, bound, shape, dtype)
        bias = _uniform(rng, bound, shape[:1], dtype) if with_bias else None
        return _State.of(self._ndim, weight, bias, training=True)

    # --- computing --------------------------------------------------------------------------------

    def forward(
        self,
        input: ArrayLike,
        *,
        out: NDArray[Any] | None = None,
        num_threads: SupportsIndex | None = None,
    ) -> NDArray[Any]:
        """Convolve `input`, a batch or one image or signal, with this layer's parameters and settings.

        `input`, `out`, `num_threads`, the result and the errors are as in `pyconv.conv1d` and `pyconv.conv2d`.
        """
        _, _, packs, (weight, bias), slot = self._state
        settings = self.stride, self.padding, self.dilation, self.groups, self.padding_mode
        return convolve(input, weight, bias, settings, out, num_threads, slot, packs)

    def __call__(self, input: ArrayLike, **options: Any) -> NDArray[Any]:
        """Return ``forward(input, **options)``: see there."""
        return self.forward(input, **options) if options else self.forward(input)  # to unpack nothing takes time, too

    def plan(self, input_shape: Sequence[int], dtype: DTypeLike | None = None) -> Plan:
        """Tell how an input of this shape would be computed, without computing it.

        The plan is that of contiguous arrays; other layouts, such as channels-last, may have another one.

        Parameters
        ----------
        input_shape : sequence of int
            As of the array that the layer would be called on.
        dtype : dtype, optional
            That array's dtype, by default the layer's.

        Returns
        -------
        Plan
            A value: print it, or look at its fields: `isa`, `tile` (its role and size), `blocks` (their
            extents, and `blocks.threads`), `scratch_bytes`.

        Examples
        --------
        >>> from pyconv import Conv2d
        >>> plan = Conv2d(40, 100, 3, stride=2, padding=3).plan((40, 40, 32, 32))
        >>> print(plan)  # doctest: +SKIP
        x86-64-v4, oc-vector, tile 14 pixels x 2 vectors of 16 output channels, ...
        """
        weight, bias, *_ = self._state
        shape = _arguments.shape(input_shape, "input_shape")
        image = weight.dtype if dtype is None else _arguments.image_dtype(dtype)
        problem = _problem.conv_problem(
            self._ndim, shape, weight.shape, None if bias is None else bias.shape,
            image, weight.dtype, None if bias is None else bias.dtype,
            *_arguments.settings(self.stride, self.padding, self.dilation, self.groups, self.padding_mode),
        )  # fmt: skip
        return plan_of(problem)

    # --- parameters -------------------------------------------------------------------------------

    @property
    def weight(self) -> NDArray[Any]:
        """The filters. Assigning stores a copy in the layer's dtype; the shape must be the same."""
        return self._state.weight

    @weight.setter
    def weight(self, value: ArrayLike) -> None:
        weight = self._state.weight
        value = _arguments.parameter(value, "weight", weight.shape, weight.dtype)
        with _changing:
            self._install(value, self._state.bias, self.training)

    @property
    def bias(self) -> NDArray[Any] | None:
        """One number for each output channel, or None. Assigning stores a copy; None removes it."""
        return self._state.bias

    @bias.setter
    def bias(self, value: ArrayLike | None) -> None:
        weight = self._state.weight
        if value is not None:
            value = _arguments.parameter(value, "bias", weight.shape[:1], weight.dtype)
        with _changing:
            self._install(self._state.weight, value, self.training)

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, NDArray[Any]]]:
        """Yield ``("weight", weight)`` and, if there is one, ``("bias", bias)``.

        The arrays are the layer's own: in training mode, writing into them changes the layer.
        `prefix`, if given, precedes the name with a dot between.
        """
        weight, bias, *_ = self._state
        dot = "." if prefix else ""
        yield f"{prefix}{dot}weight", weight
        if bias is not None:
            yield f"{prefix}{dot}bias", bias

    def parameters(self) -> Iterator[NDArray[Any]]:
        """Yield the weight and, if there is one, the bias."""
        return (value for _, value in self.named_parameters())

    def state_dict(self, *, prefix: str = "") -> OrderedDict[str, NDArray[Any]]:
        """Return the parameters by name, as torch does: the arrays themselves, not copies.

        `prefix` precedes the names as it is (torch's convention: with its dot).
        """
        return _state_dict.dump(dict(self.named_parameters()), prefix)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> _state_dict._IncompatibleKeys:
        """Replace the parameters by those of `state_dict`, all of them or, on an error, none.

        Arrays that were taken from the layer before (by `parameters`, say) are no longer its own.

        Parameters
        ----------
        state_dict : mapping of str to array_like
            Values may be ndarrays, torch's tensors, lists.
        strict : bool, default True
            Whether it is an error if a key is missing or unknown. A wrong shape always is.
        assign : bool, default False
            Keep the given arrays themselves, in their own dtype, instead of copies in the layer's:
            for weights that are mapped from a file.

        Returns
        -------
        named tuple
            ``missing_keys`` and ``unexpected_keys``.

        Raises
        ------
        ConvError
            With all that is wrong, in torch's words.
        ConvTypeError
            `state_dict` is no mapping.
        """
        with _changing:
            parameters, keys = _state_dict.load(
                type(self).__name__,
                dict(self.named_parameters()),
                state_dict,
                strict=strict,
                assign=assign,
            )
            self._install(parameters["weight"], parameters.get("bias"), self.training)
        return keys

    # --- training and evaluation ------------------------------------------------------------------

    @property
    def training(self) -> bool:
        """Whether the parameters may change; see `eval`."""
        return self._state.packs is None

    def train(self, mode: bool = True) -> Self:
        """Make the parameters writeable and drop what was packed; ``train(False)`` is `eval`."""
        if not isinstance(mode, bool):
            raise ConvError(f"training mode is expected to be boolean, got {mode!r}")
        with _changing:
            if mode != self.training:
                self._install(self.weight, self.bias, mode)
        return self

    def eval(self) -> Self:
        """Make the parameters read-only, so that they are packed once and not in every call.

        Assigning to `weight` and `bias`, and `load_state_dict`, still work. An edit in place raises
        NumPy's error, except through a view that was taken before: NumPy cannot revoke it, and what
        it writes does not reach what was packed. The results are the same in both modes.
        """
        return self.train(False)

    def _install(self, weight: NDArray[Any], bias: NDArray[Any] | None, training: bool) -> None:
        """Take these parameters, and forget what was packed from others.

        They are writeable only while no packed copy of them can be in use.
        """
        if training:
            self._state = _State.of(self._ndim, weight, bias, training=True)
        for array in (weight, bias):
            if array is not None:
                with suppress(ValueError):  # memory that is read-only by itself remains so
                    array.flags.writeable = training
        if not training:
            self._state = _State.of(self._ndim, weight, bias, training=False)

    # --- protocols --------------------------------------------------------------------------------

    def __copy__(self) -> Self:
        """Copy the parameters, too: shared ones would be writeable in one layer while the other has them packed."""
        return copy.deepcopy(self)

    def __getstate__(self) -> dict[str, Any]:
        """Return everything but what is kept for calls."""
        weight, bias, packs, *_ = self._state
        return {**vars(self), "_state": (weight, bias, packs is None)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore it, and the write protection, which no copy of an array inherits."""
        vars(self).update(state)
        self._install(*state["_state"])

    def extra_repr(self) -> str:
        """Return the settings that differ from the defaults, as torch writes them."""
        settings = [
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}",
            f"stride={self.stride}",
        ]
        # As texts: what has been assigned may be an array.
        if str(self.padding) != str((0,) * self._ndim):
            settings.append(f"padding={self.padding}")
        if str(self.dilation) != str((1,) * self._ndim):
            settings.append(f"dilation={self.dilation}")
        if self.groups != 1:
            settings.append(f"groups={self.groups}")
        if self.bias is None:
            settings.append("bias=False")
        if self.padding_mode != "zeros":
            settings.append(f"padding_mode={self.padding_mode}")
        return ", ".join(settings)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"


def _uniform(rng: np.random.Generator, bound: float, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Draw from [-bound, bound), where NumPy can in `dtype` from the start: no second array is needed then."""
    values = rng.random(shape, np.float64 if dtype == np.float64 else np.float32)
    values *= 2 * bound
    values -= bound
    return values.astype(dtype, copy=False)

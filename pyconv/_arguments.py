"""One argument at a time: what a caller may pass, made plain.

Each function takes one argument as it came and returns the one form that the rest of the package
knows, or raises. What the arguments mean to each other is the business of `_problem`.

    integer, positive, integers      a Python int, or a tuple of them
    shape                            a tuple of extents
    settings                         all settings of a call, in the order of its arguments
    padding                          the same, a string, or a tuple of (before, after) pairs
    flag, generator                  a bool; a random generator
    array                            a base ndarray: native, aligned, of a supported dtype
    parameter                        a copy for a layer to own, cast to its dtype
    output                           the caller's own array, if a result can be written there

Nothing is converted that could lose a value: no float becomes an int, no bool counts as 1, no
float64 image turns into float32. And no lazy array is computed behind its owner's back.

These functions run on every call, so each begins with the test that ordinary arguments pass.
"""

from __future__ import annotations

import operator
import reprlib
import sys
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeGuard, TypeVar

import numpy as np

from pyconv._dtypes import NATIVE, is_float, is_image, is_parameter, plain
from pyconv._errors import ConvError, ConvTypeError, not_implemented, wrong_type

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

Ints: TypeAlias = int | tuple[int, ...]
Padding: TypeAlias = int | str | tuple[int | tuple[int, int], ...]
Settings: TypeAlias = tuple[Ints, Padding, Ints, int, str]  # stride, padding, dilation, groups, padding_mode

T = TypeVar("T")

PADDING_MODES: Final = ("zeros", "reflect", "replicate", "circular")

_PARAMETERS: Final = "a float of 16, 32 or 64 bits, complex64 or complex128"
_ALLOWED: Final = f"it must be {_PARAMETERS}, or an integer (the input also bool)"

_ONLY_INT: Final = frozenset([int])


# --- integers -------------------------------------------------------------------------------------


def integer(value: object, name: str) -> int:
    """Take an int, or what is one (NumPy's integers): no bool, and nothing to be rounded."""
    if type(value) is int:
        return value
    index = _index(value)
    if index is None:
        raise wrong_type(value, name, "an int")
    return index


def positive(value: object, name: str) -> int:
    """Take an int of at least 1."""
    number = integer(value, name)
    if number < 1:
        raise ConvError(f"{name} must be a positive integer, got {name}={number}")
    return number


def thread_count(value: object, name: str = "num_threads") -> int:
    """Take the number of threads to use at most."""
    return positive(value, name)


def integers(value: object, name: str) -> Ints:
    """Take an int for all axes, or a sequence of them; how many there are, `per_axis` checks."""
    if type(value) is int or _is_tuple_of_ints(value):
        return value  # type: ignore[return-value]
    found = _indices(value) if _is_sequence(value) else _index(value)
    if found is None:
        raise wrong_type(value, name, "an int or a tuple of ints")
    return found


def shape(value: object, name: str) -> tuple[int, ...]:
    """Take the extents of an array."""
    found = _indices(value) if _is_sequence(value) else None
    if found is None:
        raise wrong_type(value, name, "a sequence of ints")
    if min(found, default=0) < 0:
        raise ConvError(f"{name} must not be negative anywhere, got {reprlib.repr(found)}")
    return found


def per_axis(value: int | tuple[T, ...], ndim: int, name: str) -> tuple[int | T, ...]:
    """Give each of `ndim` axes its value. As in torch's functions, a tuple of one serves all."""
    if isinstance(value, tuple) and len(value) == 1:
        value *= ndim
    return exactly(value, ndim, name)


def exactly(value: int | tuple[T, ...], ndim: int, name: str) -> tuple[int | T, ...]:
    """Give each of `ndim` axes its value, from an int for all or a tuple of that length."""
    if isinstance(value, int):
        return (value,) * ndim
    if len(value) == ndim:
        return value
    sides = "((before, after),)" if ndim == 1 else "((top, bottom), (left, right))"
    remedy = f"; to pad every side by itself write {sides}" if name == "padding" else ""
    raise ConvError(
        f"expected {name} to be a single integer value or a list of {ndim} values to match the "
        f"convolution dimensions, but got {name}={reprlib.repr(list(value))}{remedy}"
    )


def padding(value: object) -> Padding:
    """Take an int, a sequence of ints, a string, or a sequence of (before, after) pairs."""
    if type(value) is int or isinstance(value, str):
        return value
    if _is_tuple_of_ints(value) or _is_pair_of_pairs(value):
        return value  # type: ignore[return-value]
    if _is_sequence(value) and any(map(_is_sequence, value)):
        return tuple(_pair(sides, value) for sides in value)
    return integers(value, "padding")


def padding_mode(value: object) -> str:
    """Take one of `PADDING_MODES`."""
    if isinstance(value, str) and value in PADDING_MODES:
        return value
    allowed = ", ".join(map(repr, PADDING_MODES))
    raise ConvError(f"padding_mode must be one of {{{allowed}}}, but got padding_mode='{value}'")


def settings(stride: object, pads: object, dilation: object, groups: object, mode: object) -> Settings:
    """Take stride, padding, dilation, groups and padding_mode, each as its own function does."""
    if (
        type(stride) is type(pads) is type(dilation) is type(groups) is int
        and type(mode) is str
        and mode in PADDING_MODES
    ):
        return stride, pads, dilation, groups, mode
    return (
        integers(stride, "stride"),
        padding(pads),
        integers(dilation, "dilation"),
        integer(groups, "groups"),
        padding_mode(mode),
    )


def flag(value: object, name: str) -> bool:
    """Take True or False, or what is written for them: an int, or None."""
    if value is None or isinstance(value, (int, np.bool_, np.integer)):
        return bool(value)
    raise wrong_type(value, name, "True or False")


def generator(value: Any) -> np.random.Generator:
    """Take whatever NumPy makes a random generator of."""
    try:
        return np.random.default_rng(value)
    except (TypeError, ValueError) as error:
        kind = ConvTypeError if isinstance(error, TypeError) else ConvError
        allowed = "None, a seed (of ints from 0 on), or a generator, bit generator or seed sequence of numpy.random"
        raise kind(f"rng must be {allowed}, got {reprlib.repr(value)}") from error


def _is_tuple_of_ints(value: object) -> bool:
    """Tell the ordinary case, above all of one or two axes, from what must be looked at more closely."""
    if type(value) is not tuple:
        return False
    if 1 <= len(value) <= 2:
        return type(value[0]) is type(value[-1]) is int
    return _ONLY_INT.issuperset(map(type, value))


def _is_pair_of_pairs(value: object) -> bool:
    """Tell padding of every side of two axes, given as plain as it can be."""
    return (
        type(value) is tuple
        and len(value) == 2
        and _is_tuple_of_ints(value[0])
        and _is_tuple_of_ints(value[1])
        and len(value[0]) == len(value[1]) == 2
    )


def _index(value: object) -> int | None:
    """Return `value` as an int, or None. A bool is more often a mistake than a number."""
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def _indices(values: Iterable[object]) -> tuple[int, ...] | None:
    """Return every one of `values` as an int, or None if one of them is no integer."""
    found = [_index(value) for value in values]
    return tuple(index for index in found if index is not None) if None not in found else None


def _pair(sides: object, value: object) -> tuple[int, int]:
    """Take the padding before and after one axis, an item of `value`."""
    found = _indices(sides) if _is_sequence(sides) else None
    if found is None or len(found) != 2:
        raise wrong_type(value, "padding", "an int, a tuple of ints or (before, after) pairs")
    return found[0], found[1]


def _is_sequence(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, (tuple, list)) or (isinstance(value, np.ndarray) and value.ndim > 0)


# --- arrays ---------------------------------------------------------------------------------------


def array(value: object, name: str) -> NDArray[Any]:
    """Return `value` as kernels can read it: a base ndarray, native, aligned, of any strides.

    A copy is made only of what is byte-swapped or misaligned, and keeps the order of the axes.
    """
    try:
        if type(value) is np.ndarray and value.dtype in NATIVE and value.flags.aligned:
            return value
    except TypeError:  # a dtype that has no hash
        pass
    found = read(value, name)
    native = found.dtype.newbyteorder("=")
    if not is_image(native):
        raise not_implemented(found.dtype, name, _ALLOWED)
    if found.dtype.isnative and found.flags.aligned:
        return found
    return found.astype(native)


def parameter(value: object, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Copy `value` for a layer: contiguous, cast to `dtype`, held by nobody else."""
    found = read(value, name)
    if not np.can_cast(found.dtype, dtype, "same_kind"):
        raise not_implemented(found.dtype, name, f"it must be convertible to {dtype}")
    if found.shape != shape:
        raise ConvError(f"{name} must have the shape {list(shape)}, got {list(found.shape)}")
    return np.array(found, dtype, order="C")


def read(value: object, name: str) -> NDArray[Any]:
    """Return `value` as a base ndarray of whatever dtype it has."""
    if value is None or isinstance(value, (str, bytes, int, float, complex, np.generic)):
        raise wrong_type(value, name, "an array")
    if _is_lazy(value):
        raise ConvTypeError(
            f"{name} is a lazy array ({type(value).__name__}), which pyconv does not compute on "
            f"its own: use {name}.compute()"
        )
    if _is_masked_array(value) and value.mask.any():
        raise ConvTypeError(f"{name} has masked elements, for which a convolution has no meaning: use {name}.filled(0)")
    try:
        if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
            return np.from_dlpack(value)
        return np.asarray(value)
    except MemoryError:
        raise
    except Exception as error:  # whatever the object's own conversion raises
        raise ConvTypeError(f"{name} cannot be converted to an array: {error}") from error


def _is_masked_array(value: object) -> TypeGuard[np.ma.MaskedArray[Any, Any]]:
    """Tell whether `value` is a masked array. There are none unless someone has imported numpy.ma.

    A call must not be the one to do so, which ``np.ma`` would: a fork meanwhile, in another thread, leaves the child
    with the lock of an import that nobody will finish.
    """
    return isinstance(value, getattr(sys.modules.get("numpy.ma"), "MaskedArray", ()))


def float_dtype(value: object) -> np.dtype[Any]:
    """Take the dtype of parameters, however it is spelt."""
    dtype = _dtype(value, _PARAMETERS)
    if not is_float(dtype):
        raise ConvTypeError(f"dtype must be {_PARAMETERS}, got {dtype}")
    return plain(dtype)


def image_dtype(value: object) -> np.dtype[Any]:
    """Take the dtype that an image would have."""
    dtype = _dtype(value, "that of an array")
    if not is_image(dtype.newbyteorder("=")):
        raise not_implemented(dtype, "input", _ALLOWED)
    return dtype.newbyteorder("=")


def _dtype(value: object, allowed: str) -> np.dtype[Any]:
    try:
        dtype: np.dtype[Any] = np.dtype(value)  # type: ignore[call-overload]
    except MemoryError:
        raise
    except Exception as error:  # ValueError and SyntaxError, too
        hint = "; import ml_dtypes, whose dtype it is" if value == "bfloat16" else ""
        raise ConvTypeError(f"dtype must be {allowed}, got {reprlib.repr(value)}{hint}") from error
    return dtype


def check_dtypes(x: np.dtype[Any], weight: np.dtype[Any], bias: np.dtype[Any] | None) -> None:
    """Check that floats agree, and that the weights' dtype holds an integer image exactly.

    The weights decide: they come with a model, the image comes from anywhere. So it is the image
    that a message tells to convert.
    """
    if not is_parameter(weight):
        raise not_implemented(weight, "weight", _ALLOWED)
    if (is_float(x) or not is_float(weight)) and x != weight:
        raise ConvTypeError(f"Input type ({x}) and weight type ({weight}) should be the same: {_remedy(x, weight)}")
    if not np.can_cast(x, weight):
        wide = "complex128" if weight.kind == "c" else "float32" if np.can_cast(x, np.float32) else "float64"
        raise ConvTypeError(
            f"Input type ({x}) and weight type ({weight}) should be the same, as {weight} does not hold every {x}: "
            f"use input.astype('{weight}') to round, or {_converted_weight(wide)}"
        )
    if bias is not None and bias != weight:
        same_kind = np.can_cast(bias, weight, "same_kind")
        remedy = f"use bias.astype('{weight}')" if same_kind else _common({"input": x, "weight": weight, "bias": bias})
        raise ConvTypeError(
            f"{'Input' if x == weight else 'Weight'} type ({weight}) and bias type ({bias}) "
            f"should be the same: {remedy}"
        )


def _converted_weight(dtype: object) -> str:
    return f"weight.astype('{dtype}') (of a layer, dtype='{dtype}')"


def _remedy(x: np.dtype[Any], weight: np.dtype[Any]) -> str:
    """Say which conversion makes them the same: the one that loses least, and of integers nothing."""
    if is_float(weight):
        same_kind = np.can_cast(x, weight, "same_kind")
        return f"use input.astype('{weight}')" if same_kind else f"use {_converted_weight(x)}"
    if is_float(x):
        return f"use weight.astype('{x}')"
    return _common({"input": x, "weight": weight})


def _common(dtypes: dict[str, np.dtype[Any]]) -> str:
    """Say what makes all of them the one that holds each of them."""
    common = np.result_type(*dtypes.values())
    if is_float(common) and not any(map(is_float, dtypes.values())):
        return "no integer dtype holds both, so one has to be converted"
    needed = [f"{name}.astype('{common}')" for name, dtype in dtypes.items() if dtype != common]
    return f"use {' and '.join(needed)}"


def output(value: object, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return `value` as a base ndarray, if a result can be written there. Its strides are free."""
    if type(value) is not np.ndarray and (not isinstance(value, np.ndarray) or _is_masked_array(value)):
        raise wrong_type(value, "out", "an ndarray")
    if value.dtype != dtype:
        raise ConvTypeError(f"out must have the dtype {dtype}, got {value.dtype}")
    if value.shape != shape:
        raise ConvError(f"out must have the shape {list(shape)}, got {list(value.shape)}")
    if not value.flags.writeable:
        raise ConvError("out must be writeable, but is read-only")
    out = np.asarray(value)
    if _overlaps_itself(out):
        raise ConvError(f"out must not overlap itself, but has the strides {out.strides}")
    return out


def is_apart(out: NDArray[Any], *inputs: NDArray[Any] | None) -> bool:
    """Tell whether `out` can be written while `inputs` are read: aligned, and nowhere the same."""
    return out.flags.aligned and not any(_overlap(out, each) for each in inputs if each is not None)


def _overlaps_itself(out: NDArray[Any]) -> bool:
    """Tell whether two elements of `out` share an address.

    Two elements of one axis, i < j, are as far apart as 0 and j - i. So it is enough to compare the
    first slice with all the others, and then to look inside the first.
    """
    if out.size == 0 or out.flags.forc:
        return False
    while out.ndim:
        first, others = out[0, ...], out[1:]
        if _overlap(first, others):
            return True
        out = first
    return False


def _overlap(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Tell whether `a` and `b` share an address; yes if NumPy does not know after 10 000 attempts.

    The first few decide for arrays that people make, where mere bounds would call two interleaved
    arrays (the halves of the channels, say) one.
    """
    return np.may_share_memory(a, b, max_work=10_000)  # type: ignore[arg-type]


def _is_lazy(value: object) -> bool:
    """Follow Dask's protocol: a graph, or None where an object merely could hold one (xarray)."""
    graph = getattr(value, "__dask_graph__", None)
    return graph is not None and graph() is not None

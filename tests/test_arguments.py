"""Each argument alone: what is taken, what it becomes, what is refused and in which words."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

import pyconv
from pyconv import ConvError, ConvTypeError, _arguments

FLOATS = ("float16", "float32", "float64", "complex64", "complex128")
INTEGERS = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")


# --- integers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [3, np.int8(3), np.uint64(3), np.array(3)])
def test_an_integer_is_taken_and_becomes_an_int(value: Any) -> None:
    for taken in (_arguments.integer(value, "n"), _arguments.integers(value, "n")):
        assert type(taken) is int
        assert taken == 3


NO_INTEGERS = [1.0, 1.5, np.float32(1), True, False, np.True_, "1", b"1", None, 1j, {1}, object()]


@pytest.mark.parametrize("value", [*NO_INTEGERS, (1,), [1], np.array([1])], ids=repr)
def test_what_is_no_integer_is_refused(value: Any) -> None:
    with pytest.raises(ConvTypeError, match="invalid combination of arguments - got n="):
        _arguments.integer(value, "n")


@pytest.mark.parametrize("value", [(1, 2), [1, 2], (np.int8(1), 2), np.array([1, 2])])
def test_a_sequence_becomes_a_tuple_of_ints(value: Any) -> None:
    taken = _arguments.integers(value, "n")
    assert taken == (1, 2)
    assert {type(item) for item in taken} == {int}


@pytest.mark.parametrize("item", [*NO_INTEGERS, (1,)], ids=repr)
@pytest.mark.parametrize("sequence", [tuple, list])
def test_a_sequence_of_anything_else_is_refused(sequence: type, item: Any) -> None:
    with pytest.raises(ConvTypeError, match="n must be an int or a tuple of ints"):
        _arguments.integers(sequence([1, item]), "n")


def test_values_for_axes() -> None:
    assert _arguments.per_axis(2, 2, "n") == _arguments.exactly(2, 2, "n") == (2, 2)
    assert _arguments.per_axis((1, 2), 2, "n") == _arguments.exactly((1, 2), 2, "n") == (1, 2)
    assert _arguments.per_axis((3,), 2, "n") == (3, 3)
    for function, lengths in ((_arguments.per_axis, (0, 3)), (_arguments.exactly, (0, 1, 3))):
        for length in lengths:
            with pytest.raises(ConvError, match=r"list of 2 values .* but got n=\["):
                function((1,) * length, 2, "n")


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (1, 1),
        (np.int32(1), 1),
        ((1, 2), (1, 2)),
        ([1, 2], (1, 2)),
        ("same", "same"),
        (((1, 2), (3, 4)), ((1, 2), (3, 4))),
        ([[1, 2], [3, 4]], ((1, 2), (3, 4))),
        (np.array([[1, 2], [3, 4]]), ((1, 2), (3, 4))),
    ],
)
def test_padding(given: Any, taken: Any) -> None:
    assert _arguments.padding(given) == taken
    assert hash(_arguments.padding(given)) == hash(taken)


@pytest.mark.parametrize(
    "given",
    [1.0, (1, (1, 1)), ((1, 1), 1), ((1,), (1,)), ((1, 1, 1),), ((1, 1.0),), ("1", 1), None],
)
def test_padding_of_another_form_is_refused(given: Any) -> None:
    with pytest.raises(ConvTypeError, match=r"got padding=.* padding must be an int"):
        _arguments.padding(given)


@pytest.mark.parametrize("mode", ["constant", "", 3, None, ["zeros"], np.array(["zeros"])])
def test_unknown_padding_mode(mode: Any) -> None:
    with pytest.raises(ConvError, match="padding_mode must be one of"):
        _arguments.padding_mode(mode)


def test_thread_count() -> None:
    assert _arguments.thread_count(np.int64(2)) == 2
    for count in (0, -1):
        with pytest.raises(ConvError, match=f"n must be a positive integer, got n={count}"):
            _arguments.thread_count(count, "n")
    for count in (True, 1.0, "2"):
        with pytest.raises(ConvTypeError, match="num_threads"):
            _arguments.thread_count(count)


def test_a_cached_answer_is_not_given_to_another_type() -> None:
    """1, 1.0 and True are equal and hash alike: a cache of calls must not confuse them."""
    x, w = np.ones((1, 1, 4, 4)), np.ones((1, 1, 2, 2))
    pyconv.conv2d(x, w, stride=1)
    pyconv.conv2d(x, w, stride=(1, 1))
    for stride in (1.0, True, (1.0, 1), (True, True)):
        with pytest.raises(ConvTypeError):
            pyconv.conv2d(x, w, stride=stride)


# --- arrays ---------------------------------------------------------------------------------------


class Subclass(np.ndarray):
    """An ndarray that is not quite one."""


class WithArray:
    """Gives its values by NumPy's protocol."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self.values


class WithDlpack:
    """Gives its values by DLPack alone."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __dlpack__(self, **options: Any) -> Any:
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.values.__dlpack_device__()


class Lazy:
    """Behaves as a Dask array, and must not be computed."""

    def __init__(self, values: np.ndarray, graph: dict[str, Any] | None) -> None:
        self.values, self.graph = values, graph

    def __dask_graph__(self) -> dict[str, Any] | None:
        return self.graph

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        assert self.graph is None, "a lazy array was computed"
        return self.values


def misaligned(values: np.ndarray) -> np.ndarray:
    raw = bytearray(b"-" + values.tobytes())
    return np.frombuffer(raw, values.dtype, offset=1).reshape(values.shape)


IMAGE = np.arange(9.0).reshape(1, 1, 3, 3)

ACCEPTED: dict[str, Callable[[np.ndarray], Any]] = {
    "list": np.ndarray.tolist,
    "subclass": lambda a: a.view(Subclass),
    "masked, no mask": lambda a: np.ma.array(a, mask=False),
    "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder()),
    "misaligned": misaligned,
    "__array__": WithArray,
    "__dlpack__": WithDlpack,
    "xarray of ndarray": lambda a: Lazy(a, None),
}


@pytest.mark.parametrize("form", ACCEPTED)
def test_an_array_in_any_form_is_taken(form: str) -> None:
    given = ACCEPTED[form](IMAGE)
    taken = _arguments.array(given, "input")
    assert type(taken) is np.ndarray
    assert taken.dtype.isnative
    assert taken.flags.aligned
    np.testing.assert_array_equal(taken, IMAGE, strict=True)

    result = pyconv.conv2d(given, IMAGE)
    assert type(result) is np.ndarray
    assert result == pyconv.conv2d(IMAGE, IMAGE)


def test_a_usable_array_is_not_copied() -> None:
    for usable in (IMAGE, IMAGE[..., ::-2], IMAGE.T, np.broadcast_to(IMAGE[..., :1], (5, 1, 3, 3))):
        assert _arguments.array(usable, "input") is usable
        assert np.shares_memory(_arguments.array(usable.view(Subclass), "input"), usable)


@pytest.mark.parametrize("unusable", [misaligned, lambda a: a.astype(">f8")])
def test_a_copy_keeps_the_order_of_the_axes(unusable: Callable[[np.ndarray], np.ndarray]) -> None:
    """An NHWC image that must be copied is channels-last still."""
    taken = _arguments.array(unusable(np.ones((2, 4, 5, 3))).transpose(0, 3, 1, 2), "input")
    assert taken.transpose(0, 2, 3, 1).flags.c_contiguous


NO_ARRAYS: dict[str, Any] = {
    "None": None,
    "int": 3,
    "float": 3.5,
    "bool": True,
    "complex": 1j,
    "NumPy scalar": np.float32(1),
    "str": "abc",
    "bytes": b"abc",
}


@pytest.mark.parametrize("name", NO_ARRAYS)
@pytest.mark.parametrize("argument", ["input", "weight"])
def test_what_is_no_array_is_refused(argument: str, name: str) -> None:
    arguments = {"input": IMAGE, "weight": IMAGE, argument: NO_ARRAYS[name]}
    with pytest.raises(ConvTypeError, match="received an invalid combination of arguments"):
        pyconv.conv2d(**arguments)


STRUCTURED = np.zeros(9, [("a", "f4"), ("b", "f4")])

WRONG_DTYPES: dict[str, np.ndarray] = {
    "object": IMAGE.astype(object),
    "str": IMAGE.astype(str),
    "bytes": IMAGE.astype(bytes),
    "structured": STRUCTURED.reshape(IMAGE.shape),
    "datetime": IMAGE.astype("M8[s]"),
    "timedelta": IMAGE.astype("m8[s]"),
    "longdouble": IMAGE.astype("longdouble"),
    "clongdouble": IMAGE.astype("clongdouble"),
}


@pytest.mark.parametrize("name", WRONG_DTYPES)
@pytest.mark.parametrize("argument", ["input", "weight", "bias"])
def test_an_unsupported_dtype_is_refused(argument: str, name: str) -> None:
    arguments = {"input": IMAGE, "weight": IMAGE, argument: WRONG_DTYPES[name]}
    with pytest.raises(ConvTypeError, match=rf"not implemented for '.*' \({argument}\)") as raised:
        pyconv.conv2d(**arguments)
    assert (f"{argument}.astype('float32')" in str(raised.value)) == (name == "longdouble")


def test_masked_elements_are_refused() -> None:
    masked = np.ma.array(IMAGE, mask=IMAGE == 4)
    with pytest.raises(ConvTypeError, match=r"input has masked elements.*input\.filled\(0\)"):
        pyconv.conv2d(masked, IMAGE)


def test_a_lazy_array_is_not_computed() -> None:
    with pytest.raises(ConvTypeError, match=r"lazy array \(Lazy\).*weight\.compute\(\)"):
        pyconv.conv2d(IMAGE, Lazy(IMAGE, {"a": 1}))


@pytest.mark.parametrize("value", [[[1.0], [1.0, 2.0]], WithArray("none")], ids=["ragged", "broken"])
def test_a_failed_conversion_says_why(value: Any) -> None:
    with pytest.raises(ConvTypeError, match=r"input cannot be converted to an array: .") as raised:
        pyconv.conv2d(value, IMAGE)
    assert raised.value.__cause__ is not None


def test_lack_of_memory_is_not_a_type_error() -> None:
    class Huge:
        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            raise MemoryError

    with pytest.raises(MemoryError):
        pyconv.conv2d(Huge(), IMAGE)


# --- dtypes ---------------------------------------------------------------------------------------


def goes_with(image: str, weight: str, bias: str) -> bool:
    """Spell the rule out."""
    if weight == "bool" or bias != weight:
        return False
    if image in FLOATS or weight not in FLOATS:
        return image == weight
    exact = {"float16": "int16", "float32": "int32", "complex64": "int32"}  # the first integer that does not fit
    return weight not in exact or image in INTEGERS[: INTEGERS.index(exact[weight])]


@pytest.mark.parametrize("weight", FLOATS + INTEGERS)
@pytest.mark.parametrize("image", FLOATS + INTEGERS)
def test_which_dtypes_go_together(image: str, weight: str) -> None:
    for bias in FLOATS + INTEGERS:
        x, w, b = np.ones((1, 1, 1, 1), image), np.ones((1, 1, 1, 1), weight), np.ones(1, bias)
        if goes_with(image, weight, bias):
            result = pyconv.conv2d(x, w, b)
            assert result.dtype == weight
            assert result == 2
        else:
            with pytest.raises(ConvTypeError):
                pyconv.conv2d(x, w, b)


@pytest.mark.parametrize(
    ("image", "weight", "bias", "message"),
    [
        (
            "float64", "float32", None,
            "Input type (float64) and weight type (float32) should be the same: "
            "use input.astype('float32')",
        ),
        (
            "float32", "float32", "float64",
            "Input type (float32) and bias type (float64) should be the same: "
            "use bias.astype('float32')",
        ),
        (
            "uint8", "float32", "float64",
            "Weight type (float32) and bias type (float64) should be the same: "
            "use bias.astype('float32')",
        ),
        (
            "uint8", "uint8", "float32",
            "Input type (uint8) and bias type (float32) should be the same: use input.astype('float32') and "
            "weight.astype('float32')",
        ),
        (
            "float32", "float32", "complex64",
            "Input type (float32) and bias type (complex64) should be the same: use input.astype('complex64') and "
            "weight.astype('complex64')",
        ),
        (
            "uint8", "uint8", "int8",
            "Input type (uint8) and bias type (int8) should be the same: use input.astype('int16') and "
            "weight.astype('int16') and bias.astype('int16')",
        ),
        (
            "uint64", "uint64", "int64",
            "Input type (uint64) and bias type (int64) should be the same: no integer dtype holds both, so one has to "
            "be converted",
        ),
        (
            "int32", "float32", None,
            "Input type (int32) and weight type (float32) should be the same, as float32 does not "
            "hold every int32: use input.astype('float32') to round, or weight.astype('float64') (of a layer, "
            "dtype='float64')",
        ),
        (
            "int16", "float16", None,
            "Input type (int16) and weight type (float16) should be the same, as float16 does not hold every int16: "
            "use input.astype('float16') to round, or weight.astype('float32') (of a layer, dtype='float32')",
        ),
        (
            "int32", "complex64", None,
            "Input type (int32) and weight type (complex64) should be the same, as complex64 does not hold every "
            "int32: use input.astype('complex64') to round, or weight.astype('complex128') (of a layer, "
            "dtype='complex128')",
        ),
        (
            "uint8", "int8", None,
            "Input type (uint8) and weight type (int8) should be the same: "
            "use input.astype('int16') and weight.astype('int16')",
        ),
        (
            "int64", "int32", None,
            "Input type (int64) and weight type (int32) should be the same: use weight.astype('int64')",
        ),
        (
            "uint64", "int8", None,
            "Input type (uint64) and weight type (int8) should be the same: "
            "no integer dtype holds both, so one has to be converted",
        ),
        (
            "int16", "int32", None,
            "Input type (int16) and weight type (int32) should be the same: use input.astype('int32')",
        ),
        (
            "complex64", "float32", None,
            "Input type (complex64) and weight type (float32) should be the same: use weight.astype('complex64') "
            "(of a layer, dtype='complex64')",
        ),
        (
            "float32", "int32", None,
            "Input type (float32) and weight type (int32) should be the same: use weight.astype('float32')",
        ),
        (
            "float32", "bool", None,
            "convolution not implemented for 'bool' (weight), it must be a float of 16, 32 or 64 bits, complex64 or "
            "complex128, or an integer (the input also bool); use weight.astype('float32')",
        ),
    ],
)  # fmt: skip
def test_the_message_names_the_conversion(image: str, weight: str, bias: str | None, message: str) -> None:
    x, w = np.ones((1, 1, 3, 3), image), np.ones((1, 1, 3, 3), weight)
    b = None if bias is None else np.ones(1, bias)
    with pytest.raises(ConvTypeError) as raised:
        pyconv.conv2d(x, w, b)
    assert str(raised.value) == message


@pytest.mark.parametrize("image", FLOATS + INTEGERS)
def test_what_the_message_says_helps(image: str) -> None:
    """Its first suggestion is followed until there is none: one for each array, and for weights that are bool."""
    for weight, bias in product(FLOATS + INTEGERS, FLOATS + INTEGERS):
        arrays = {
            "input": np.ones((1, 1, 1, 1), image),
            "weight": np.ones((1, 1, 1, 1), weight),
            "bias": np.ones(1, bias),
        }
        for _ in range(5):
            try:
                assert pyconv.conv2d(**arrays) == 2
            except ConvTypeError as error:
                message = str(error)
            else:
                break
            if "no integer dtype holds both" in message:
                assert "uint64" in {image, weight, bias}, "beside one with a sign"
                break
            for name, dtype in re.findall(r"(\w+)\.astype\('(\w+)'\)", message.rpartition("use ")[2].split(", or ")[0]):
                arrays[name] = arrays[name].astype(dtype)
        else:
            pytest.fail(f"{image}, {weight}, {bias}: {message}")


# --- out ------------------------------------------------------------------------------------------


def test_out_is_returned(tmp_path: Any) -> None:
    expected = pyconv.conv2d(IMAGE, IMAGE, padding=1)
    mapped = np.memmap(tmp_path / "out", IMAGE.dtype, "w+", shape=IMAGE.shape)
    for out in (np.empty_like(IMAGE), mapped, misaligned(IMAGE), np.empty((3, 3, 1, 1)).T):
        assert pyconv.conv2d(IMAGE, IMAGE, padding=1, out=out) is out
        np.testing.assert_array_equal(out, expected)


def test_out_in_one_dimension() -> None:
    x, w = np.arange(6.0).reshape(2, 3), np.ones((4, 2, 2))
    out = np.empty((2, 4)).T
    assert pyconv.conv1d(x, w, out=out) is out
    np.testing.assert_array_equal(out, np.tile([8.0, 12.0], (4, 1)))


READ_ONLY = np.empty(IMAGE.shape)
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        ([0.0], ConvTypeError, "out must be an ndarray"),
        (np.ma.zeros(IMAGE.shape), ConvTypeError, "out must be an ndarray"),
        (np.empty(IMAGE.shape, "float32"), ConvTypeError, "out must have the dtype float64, got"),
        (np.empty(IMAGE.shape, ">f8"), ConvTypeError, "out must have the dtype float64, got"),
        (np.empty((1, 1, 3, 4)), ConvError, "out must have the shape .*, got"),
        (np.empty((1, 3, 3)), ConvError, "out must have the shape .*, got"),
        (np.empty((2, 1, 3, 3)), ConvError, "out must have the shape .*, got"),
        (READ_ONLY, ConvError, "read-only"),
        (as_strided(np.empty(9), IMAGE.shape, (0, 0, 8, 8)), ConvError, "must not overlap itself"),
    ],
    ids=str,
)
def test_unusable_out(out: Any, error: type[Exception], message: str) -> None:
    before = np.array(out)
    with pytest.raises(error, match=message):
        pyconv.conv2d(IMAGE, IMAGE, padding=1, out=out)
    np.testing.assert_array_equal(out, before)


@pytest.mark.parametrize("operand", ["input", "weight", "bias"])
@pytest.mark.parametrize("shift", [-1, 0, 1, 36])
@pytest.mark.parametrize("reverse", [False, True])
def test_out_shares_memory_with_an_operand(operand: str, shift: int, reverse: bool) -> None:
    """The result is as if it did not, and what `out` does not cover is not touched.

    A shift of 36 puts the result of one image where the next image is.
    """
    rng = np.random.default_rng(0)
    shapes = {"input": (3, 4, 3, 3), "weight": (4, 4, 3, 3), "bias": (4,)}
    operands = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    expected = pyconv.conv2d(**operands, padding=1)

    buffer = rng.standard_normal(200)
    held = buffer[10 : 10 + operands[operand].size].reshape(shapes[operand])
    held[...] = operands[operand]
    out = buffer[10 + shift : 10 + shift + expected.size].reshape(expected.shape)
    out = out[..., ::-1] if reverse else out
    rest = np.ones(200, bool)
    rest[10 + shift : 10 + shift + expected.size] = False
    untouched = buffer[rest]

    pyconv.conv2d(**{**operands, operand: held}, padding=1, out=out)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(buffer[rest], untouched)


def test_halves_of_the_channels_are_apart() -> None:
    """The bounds of the two overlap, their elements do not: no temporary array is needed."""
    both = np.ones((2, 8, 5, 5), np.float32)
    assert _arguments.is_apart(both[:, 4:], both[:, :4])
    assert not _arguments.is_apart(both[:, 3:], both[:, :4])
    assert not _arguments.is_apart(misaligned(both), both)


def test_self_overlap_is_told_exactly() -> None:
    """Against the set of all addresses, for random shapes and strides of few bytes."""
    rng = np.random.default_rng(0)
    memory, found = np.zeros(100, np.int8), {True: 0, False: 0}
    for _ in range(2000):
        shape = rng.integers(1, 4, size=rng.integers(1, 5))
        strides = rng.integers(-9, 10, size=len(shape))
        lowest = sum((shape - 1) * np.minimum(strides, 0))
        array = as_strided(memory[-lowest:][:2].view(np.int16), shape, strides)

        addresses = [np.dot(index, strides) for index in np.ndindex(*shape)]
        distinct = {byte for address in addresses for byte in (address, address + 1)}
        overlaps = len(distinct) < 2 * len(addresses)
        assert _arguments._overlaps_itself(array) == overlaps, (shape, strides)
        found[overlaps] += 1
    assert min(found.values()) > 500

"""The interface against torch itself: reprs, errors, conventions, state dictionaries.

What torch computes is compared in test_torch_values.py.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

import pyconv

torch = pytest.importorskip("torch")

LAYERS = {"Conv1d": torch.nn.Conv1d, "Conv2d": torch.nn.Conv2d}
FUNCTIONS = {"conv1d": torch.nn.functional.conv1d, "conv2d": torch.nn.functional.conv2d}


# --- signatures and reprs -------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAYERS)
def test_constructor_takes_what_torchs_takes(name: str) -> None:
    theirs = list(inspect.signature(LAYERS[name]).parameters.values())
    ours = list(inspect.signature(getattr(pyconv, name)).parameters.values())
    assert [(p.name, p.kind) for p in ours[: len(theirs)]] == [(p.name, p.kind) for p in theirs]
    assert [p.default for p in ours[: len(theirs)]] == [p.default for p in theirs]
    assert {p.kind for p in ours[len(theirs) :]} == {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize("name", LAYERS)
def test_repr(name: str) -> None:
    """Character for character, over all combinations of settings."""
    pairs = name == "Conv2d"
    choices: dict[str, list[Any]] = {
        "kernel_size": [3, (1, 5) if pairs else (5,), [2, 2] if pairs else [2]],
        "stride": [1, 2, (1, 2) if pairs else (2,)],
        "padding": [0, 1, "same", "valid", (0, 1) if pairs else (1,)],
        "dilation": [1, (2, 1) if pairs else (3,)],
        "groups": [1, 2],
        "bias": [True, False],
        "padding_mode": ["zeros", "reflect", "replicate", "circular"],
    }
    compared = 0
    for values in product(*choices.values()):
        settings = dict(zip(choices, values, strict=True))
        try:
            theirs = LAYERS[name](4, 8, **settings)
        except ValueError:  # 'same' with a stride
            with pytest.raises(ValueError, match="not supported for strided"):
                getattr(pyconv, name)(4, 8, **settings)
            continue
        assert repr(getattr(pyconv, name)(4, 8, **settings)) == repr(theirs)
        compared += 1
    assert compared > 1000


@pytest.mark.parametrize("name", LAYERS)
def test_attributes(name: str) -> None:
    settings = {"stride": 2, "padding": 1, "dilation": 3, "groups": 2, "padding_mode": "circular"}
    theirs, ours = LAYERS[name](4, 8, 3, **settings), getattr(pyconv, name)(4, 8, 3, **settings)
    for attribute in (*theirs.__constants__, "transposed", "training"):
        assert getattr(ours, attribute) == getattr(theirs, attribute), attribute
    assert ours.weight.shape == tuple(theirs.weight.shape)
    assert ours.bias.shape == tuple(theirs.bias.shape)


def test_initial_parameters_have_torchs_range() -> None:
    """The largest of many numbers drawn from the same interval."""
    torch.manual_seed(0)
    theirs, ours = torch.nn.Conv2d(16, 512, 5, groups=2), pyconv.Conv2d(16, 512, 5, groups=2, rng=0)
    for one, other in zip(theirs.state_dict().values(), ours.parameters(), strict=True):
        assert np.abs(other).max() == pytest.approx(float(one.abs().max()), rel=0.02)
        assert np.std(other) == pytest.approx(float(one.std()), rel=0.1)


# --- errors ---------------------------------------------------------------------------------------

COMBINATION = "received an invalid combination of arguments"
X1, X2 = (1, 4, 9), (1, 4, 9, 9)  # what a call that fits passes
W1, W2 = (4, 4, 3), (4, 4, 3, 3)

# A phrase that both messages contain, the function, and what differs from a call that fits. Where
# torch's message is an accident of the backend, there is no phrase and the class alone is compared.
# A shape stands for an array of ones, a pair of a shape and a dtype for one of that dtype.
CALLS: list[tuple[str, str, dict[str, Any]]] = [
    *((COMBINATION, f, {"input": None}) for f in FUNCTIONS),
    *((COMBINATION, f, {"weight": None}) for f in FUNCTIONS),
    *(
        (COMBINATION, f, {name: value})
        for f in FUNCTIONS
        for name in ("stride", "padding", "dilation", "groups")
        for value in (1.5, True, None, ((1, 1), 1))
    ),
    (COMBINATION, "conv2d", {"stride": "abc"}),
    ("Invalid padding string", "conv2d", {"padding": "abc"}),
    ("Input type .* and bias type .* should be the same", "conv2d", {"bias": ((4,), "float64")}),
    ("", "conv2d", {"weight": (W2, "float64")}),
    ("", "conv2d", {"input": (X2, "uint8"), "weight": (W2, "int8")}),
    *(
        (r"Expected 3D \(unbatched\) or 4D \(batched\) input to conv2d, but got input of size: "
         + re.escape(str(list(shape))), "conv2d", {"input": shape})
        for shape in ((1, 10, 1, 28, 28), (28, 28), ())
    ),
    *(
        (r"Expected 2D \(unbatched\) or 3D \(batched\) input to conv1d, but got input of size: "
         + re.escape(str(list(shape))), "conv1d", {"input": shape})
        for shape in ((1, 1, 3, 3), (3,))
    ),
    ("weight should have at least three dimensions", "conv2d", {"weight": (3, 3)}),
    ("weight should have at least three dimensions", "conv1d", {"weight": (3, 3)}),
    *(("non-positive groups is not supported", "conv2d", {"groups": n}) for n in (0, -1, -(2**63))),
    ("non-positive groups is not supported", "conv2d", {"groups": 0, "padding": "same"}),
    *(("", "conv2d", {name: 2**63}) for name in ("groups", "padding", "dilation")),
    *(
        (f"expected {name} to be a single integer value or a list of 2 values to match the "
         f"convolution dimensions, but got {name}={re.escape(str(list(value)))}",
         "conv2d", {name: value})
        for name in ("stride", "padding", "dilation")
        for value in ((), (1, 1, 1))
    ),
    *(
        (rf"a list of 1 values to match the convolution dimensions, but got {name}=\[1, 1\]",
         "conv1d", {name: (1, 1)})
        for name in ("stride", "padding", "dilation")
    ),
    *(("negative padding is not supported", "conv2d", {"padding": p}) for p in (-1, (0, -1))),
    *(("non-positive stride is not supported", "conv2d", {"stride": n}) for n in (0, -1, (1, 0))),
    ("non-positive stride is not supported", "conv2d", {"stride": 0, "padding": "valid"}),
    ("dilation should be greater than zero", "conv2d", {"dilation": -1}),
    (r"dilation should be greater than zero, but got \[0, 0\]", "conv2d", {"dilation": 0}),
    ("padding='same' is not supported for strided convolutions", "conv2d",
     {"padding": "same", "stride": 2}),
    (r"Expected 3-dimensional input for 3-dimensional weight ?\[4, 4, 3\], but got 4-dimensional "
     r"input of size \[1, 4, 9, 9\] instead", "conv2d", {"weight": W1, "padding": "same"}),
    (r"Expected 4-dimensional input for 4-dimensional weight \[4, 4, 3, 3\], but got 3-dimensional "
     r"input of size \[1, 4, 9\] instead", "conv1d", {"weight": W2}),
    (r"Given groups=3, expected weight to be at least 3 at dimension 0, but got weight of size "
     r"\[2, 1, 3, 3\] instead", "conv2d", {"weight": (2, 1, 3, 3), "groups": 3}),
    (r"Given groups=1, expected weight to be at least 1 at dimension 0, but got weight of size "
     r"\[0, 4, 3, 3\] instead", "conv2d", {"weight": (0, 4, 3, 3)}),
    (r"Given groups=2, expected weight to be divisible by 2 at dimension 0, but got weight of size "
     r"\[?\[3, 2, 3, 3\]\]? instead", "conv2d", {"weight": (3, 2, 3, 3), "groups": 2}),
    (r"Given groups=1, weight of size \[8, 3, 3, 3\], expected input\[1, 4, 9, 9\] to have 3 "
     r"channels, but got 4 channels instead", "conv2d", {"weight": (8, 3, 3, 3)}),
    (r"Given groups=1, weight of size \[8, 3, 3, 3\], expected input\[1, 4, 5, 5\] to have 3 "
     r"channels, but got 4 channels instead", "conv2d",
     {"input": (4, 5, 5), "weight": (8, 3, 3, 3)}),
    *(
        (r"Given weight of size \[4, 4, 3, 3\], expected bias to be 1-dimensional with 4 elements, "
         rf"but got bias of size {re.escape(str(list(shape)))} instead", "conv2d", {"bias": shape})
        for shape in ((2,), (4, 1), ())
    ),
    (f"Given padding={2**62} at dimension 0 ?, expected padding to be at most {2**62 - 1}",
     "conv2d", {"padding": 2**62}),
    (r"Calculated padded input size per channel: \(1 x 1\)\. Kernel size: \(10 x 10\)\. "
     r"Kernel size can't be greater than actual input size", "conv2d",
     {"input": (1, 3, 1, 1), "weight": (33, 3, 10, 10)}),
    (r"Calculated padded input size per channel: \(9\)\. Kernel size: \(13\)\. "
     r"Kernel size can't be greater than actual input size", "conv1d", {"dilation": 6}),
    (r"Calculated padded input size per channel: \(0 x 9\)\. Kernel size: \(3 x 3\)\. ", "conv2d",
     {"input": (1, 4, 0, 9)}),
    (r"Only zero batch .*inputs are supported, but got input shape: \[1, 4, 0, 9\]", "conv2d",
     {"input": (1, 4, 0, 9), "padding": 2}),
    ("kernel size should be greater than zero, but got", "conv2d", {"weight": (4, 4, 0, 1)}),
]  # fmt: skip


def operand(given: Any) -> np.ndarray | None:
    shape, dtype = given if isinstance(given, tuple) and str in map(type, given) else (given, "f4")
    return None if shape is None else np.ones(shape, dtype)


def compare_errors(ours: Callable[[], Any], theirs: Callable[[], Any], phrase: str) -> None:
    """Both raise; ours is caught by whoever catches theirs; both messages contain the phrase."""
    with pytest.raises(Exception, match=phrase or None) as expected:
        theirs()
    assert issubclass(expected.type, (ValueError, TypeError, RuntimeError))
    with pytest.raises(expected.type, match=phrase or None) as raised:
        ours()
    assert isinstance(raised.value, (pyconv.ConvError, pyconv.ConvTypeError))


@pytest.mark.parametrize(("phrase", "name", "arguments"), CALLS, ids=lambda value: str(value)[:60])
def test_error_of_a_call(phrase: str, name: str, arguments: dict[str, Any]) -> None:
    fitting = {"input": X1, "weight": W1} if name == "conv1d" else {"input": X2, "weight": W2}
    settings = {**fitting, "bias": None, **arguments}
    arrays = [operand(settings.pop(operand_name)) for operand_name in ("input", "weight", "bias")]
    tensors = [None if array is None else torch.from_numpy(array) for array in arrays]
    compare_errors(
        lambda: getattr(pyconv, name)(*arrays, **settings),
        lambda: FUNCTIONS[name](*tensors, **settings),
        phrase,
    )


CONSTRUCTORS: list[tuple[str, dict[str, Any]]] = [
    *(("groups must be a positive integer", {"groups": groups}) for groups in (0, -1, -2)),
    ("in_channels must be divisible by groups", {"groups": 3}),
    ("out_channels must be divisible by groups", {"groups": 4, "out_channels": 6}),
    ("Invalid padding string 'foo', should be one of {", {"padding": "foo"}),
    *(
        ("padding='same' is not supported for strided convolutions",
         {"padding": "same", "stride": stride})
        for stride in (2, (1, 3), (4, 1), (1, 1, 3))
    ),
    ("padding_mode must be one of {.*}, but got padding_mode='xyz'", {"padding_mode": "xyz"}),
    ("padding_mode must be one of {.*}, but got padding_mode='3'", {"padding_mode": 3}),
    ("", {"kernel_size": 1.5}),
    ("", {"kernel_size": "3"}),
    ("", {"in_channels": -4}),
]  # fmt: skip


@pytest.mark.parametrize(("phrase", "arguments"), CONSTRUCTORS, ids=str)
def test_error_of_a_constructor(phrase: str, arguments: dict[str, Any]) -> None:
    settings = {"in_channels": 4, "out_channels": 4, "kernel_size": 3, **arguments}
    compare_errors(lambda: pyconv.Conv2d(**settings), lambda: torch.nn.Conv2d(**settings), phrase)


@pytest.mark.parametrize("padding_mode", ["reflect", "circular", "replicate"])
def test_how_far_a_padding_mode_reaches(padding_mode: str) -> None:
    phrases = {
        "reflect": "Padding size should be less than the corresponding input dimension, but got: "
        rf"padding \({{0}}, {{0}}\) at dimension {{1}} of input {re.escape('[1, 2, 3, 4]')}",
        "circular": "Padding value causes wrapping around more than once",
    }
    x, refused = np.ones((1, 2, 3, 4), np.float32), 0
    for padding in product(range(7), repeat=2):
        arguments = {"padding": padding, "padding_mode": padding_mode}
        theirs, ours = torch.nn.Conv2d(2, 2, 1, **arguments), pyconv.Conv2d(2, 2, 1, **arguments)
        try:
            expected = theirs(torch.from_numpy(x))
        except RuntimeError:
            axis = 1 if padding[1] > 3 else 0
            phrase = phrases[padding_mode].format(padding[axis], axis + 2)
            compare_errors(partial(ours, x), partial(theirs, torch.from_numpy(x)), phrase)
            refused += 1
        else:
            assert ours(x).shape == tuple(expected.shape)
    assert refused == {"reflect": 37, "circular": 29, "replicate": 0}[padding_mode]


@pytest.mark.parametrize("mode", [1, None, "eval"])
def test_error_of_a_mode(mode: Any) -> None:
    ours, theirs = pyconv.Conv1d(1, 1, 1), torch.nn.Conv1d(1, 1, 1)
    phrase = "training mode is expected to be boolean"
    compare_errors(lambda: ours.train(mode), lambda: theirs.train(mode), phrase)


# --- conventions ----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("padding_mode", ["zeros", "reflect", "replicate", "circular"])
def test_where_same_puts_the_odd_pixel(padding_mode: str) -> None:
    """Integers below 2**24, so the results are equal exactly."""
    rng = np.random.default_rng(0)
    x = rng.integers(-8, 9, (2, 3, 16)).astype(np.float32)
    for kernel, dilation in product(range(1, 8), range(1, 4)):
        arguments = {"padding": "same", "dilation": dilation, "padding_mode": padding_mode}
        if padding_mode in ("reflect", "circular") and dilation * (kernel - 1) > 30:
            continue
        theirs = torch.nn.Conv1d(3, 2, kernel, bias=False, **arguments)
        ours = pyconv.Conv1d(3, 2, kernel, bias=False, **arguments)
        ours.weight = rng.integers(-8, 9, ours.weight.shape)
        theirs.load_state_dict({"weight": torch.from_numpy(ours.weight)})
        with torch.no_grad():
            expected = theirs(torch.from_numpy(x)).numpy()
        np.testing.assert_array_equal(ours(x), expected)


def stored(shape: tuple[int, ...], dtype: str, channels_last: bool) -> np.ndarray:
    n, c, h, w = shape
    return np.ones((n, h, w, c), dtype).transpose(0, 3, 1, 2) if channels_last else np.ones(shape, dtype)


def compare_layouts(x: np.ndarray, weight: np.ndarray) -> None:
    """Compare the strides of axes longer than 1: those of the others mean nothing."""
    ours = pyconv.conv2d(x, weight, padding=2)
    tensors = torch.from_numpy(x), torch.from_numpy(weight)
    theirs = torch.nn.functional.conv2d(*tensors, padding=2)
    for extent, stride, expected in zip(ours.shape, ours.strides, theirs.stride(), strict=True):
        assert extent == 1 or stride == expected * ours.itemsize


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("x_shape", "weight_shape"),
    [
        ((2, 3, 5, 5), (4, 3, 3, 3)),
        ((1, 3, 5, 5), (4, 3, 3, 3)),
        ((2, 1, 5, 5), (4, 1, 3, 3)),
        ((1, 1, 5, 5), (4, 1, 3, 3)),
        ((2, 4, 5, 5), (4, 4, 1, 1)),
        ((2, 3, 5, 5), (1, 3, 3, 3)),
        ((2, 1, 1, 1), (4, 1, 1, 1)),
        ((2, 3, 1, 1), (4, 3, 1, 1)),
        ((2, 1, 5, 5), (4, 1, 1, 1)),
    ],
)
def test_the_layout_of_the_result(x_shape: tuple[int, ...], weight_shape: tuple[int, ...], dtype: str) -> None:
    for x_last, weight_last in product((False, True), repeat=2):
        x, weight = stored(x_shape, dtype, x_last), stored(weight_shape, dtype, weight_last)
        compare_layouts(x, weight)


@pytest.mark.parametrize("channel_stride", [0, 8])
def test_channels_that_share_memory_are_not_channels_last(channel_stride: int) -> None:
    memory, weight = np.ones(100), np.ones((4, 3, 3, 3))
    compare_layouts(as_strided(memory, (2, 3, 5, 5), (200, channel_stride, 40, 8)), weight)


def test_a_1d_result_is_contiguous() -> None:
    """Whatever the input; torch lets the strides of the weight show through."""
    x = np.ones((2, 9, 3), np.float32).transpose(0, 2, 1)
    weight = np.ones((4, 3, 3), np.float32)
    theirs = torch.nn.functional.conv1d(torch.from_numpy(x), torch.from_numpy(weight))
    assert theirs.is_contiguous()
    assert pyconv.conv1d(x, weight).flags.c_contiguous
    assert pyconv.conv1d(x, weight.transpose(0, 2, 1)).flags.c_contiguous


def test_one_image_is_as_channels_last_as_a_batch_of_it() -> None:
    """Here we differ: torch loses the layout of an image without a batch axis."""
    image = np.ones((5, 6, 3), np.float32).transpose(2, 0, 1)
    weight = np.ones((4, 3, 3, 3), np.float32)
    theirs = torch.nn.functional.conv2d(torch.from_numpy(image), torch.from_numpy(weight))
    assert theirs.is_contiguous()
    for result in (pyconv.conv2d(image, weight), pyconv.conv2d(image[np.newaxis], weight)[0]):
        assert result.transpose(1, 2, 0).flags.c_contiguous


# --- state dictionaries ---------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_state_dicts_go_both_ways(name: str, bias: bool) -> None:
    theirs, ours = LAYERS[name](4, 6, 3, bias=bias), getattr(pyconv, name)(4, 6, 3, bias=bias)
    for prefix in ("", "features.0."):
        one, other = theirs.state_dict(prefix=prefix), ours.state_dict(prefix=prefix)
        assert list(one) == list(other)
        assert one._metadata == other._metadata

    assert repr(ours.load_state_dict(theirs.state_dict())) == "<All keys matched successfully>"
    for key, value in theirs.state_dict().items():
        np.testing.assert_array_equal(ours.state_dict()[key], value.numpy(), strict=True)

    other = getattr(pyconv, name)(4, 6, 3, bias=bias)
    tensors = {key: torch.from_numpy(value) for key, value in other.state_dict().items()}
    assert repr(theirs.load_state_dict(tensors)) == "<All keys matched successfully>"
    for key, value in theirs.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[key], value.numpy())


@pytest.mark.parametrize("dtype", ["float16", "float64", "int32"])
def test_loading_casts(dtype: str) -> None:
    rng = np.random.default_rng(0)
    weight, bias = rng.integers(-9, 9, (6, 4, 3)), rng.integers(-9, 9, 6)
    state = {"weight": torch.from_numpy(weight.astype(dtype)), "bias": torch.from_numpy(bias)}
    ours = pyconv.Conv1d(4, 6, 3)
    ours.load_state_dict(state)
    np.testing.assert_array_equal(ours.weight, weight.astype(np.float32), strict=True)
    np.testing.assert_array_equal(ours.bias, bias.astype(np.float32), strict=True)


def test_a_tensor_that_requires_grad_is_not_read_silently() -> None:
    """`torch.nn.Parameter` refuses NumPy; the message passes on how to detach it."""
    weight = torch.nn.Conv1d(1, 1, 1).weight
    with pytest.raises(pyconv.ConvTypeError, match=r"detach\(\)"):
        pyconv.conv1d(np.ones((1, 1, 1), np.float32), weight)


STATES: dict[str, dict[Any, Any]] = {
    "all": {"weight": (4, 3, 3, 3), "bias": (4,)},
    "no bias": {"weight": (4, 3, 3, 3)},
    "none": {},
    "unknown": {"weight": (4, 3, 3, 3), "bias": (4,), "foo": (1,), "bar.baz": (2,)},
    "size": {"weight": (4, 3, 3, 2), "bias": (1,)},
    "size of a scalar": {"weight": (4, 3, 3, 3), "bias": ()},
    "everything": {"weight": (4, 3, 3, 2), "foo": (1,)},
}


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("case", STATES)
def test_load_state_dict_reports_as_torch(case: str, strict: bool) -> None:
    """Character for character, the result's repr or the error's message."""
    state = {key: torch.zeros(shape) for key, shape in STATES[case].items()}

    def report(layer: Any) -> str:
        try:
            return repr(layer.load_state_dict(state, strict=strict))
        except RuntimeError as error:
            return str(error)

    assert report(pyconv.Conv2d(3, 4, 3)) == report(torch.nn.Conv2d(3, 4, 3))


def test_a_state_dict_is_a_mapping() -> None:
    ours, theirs = pyconv.Conv1d(1, 1, 1), torch.nn.Conv1d(1, 1, 1)
    compare_errors(
        lambda: ours.load_state_dict([1]),  # type: ignore[arg-type]
        lambda: theirs.load_state_dict([1]),
        re.escape("Expected state_dict to be dict-like, got <class 'list'>."),
    )

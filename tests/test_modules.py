"""The layers: construction, parameters, state dictionaries, the two modes, copies."""

from __future__ import annotations

import copy
import inspect
import pickle
import sys
import threading
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import pyconv
from pyconv import Conv1d, Conv2d, ConvError, ConvTypeError

LAYERS = (Conv1d, Conv2d)


def image_for(layer: Conv1d | Conv2d, extent: int = 8) -> np.ndarray:
    ndim = len(layer.kernel_size)
    shape = (2, layer.in_channels, *(extent,) * ndim)
    return np.random.default_rng(0).standard_normal(shape, dtype=layer.weight.dtype)


# --- construction ---------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", LAYERS)
def test_signature_is_torchs_and_rng(layer: type) -> None:
    *positional, rng = inspect.signature(layer).parameters.values()
    assert [parameter.name for parameter in positional] == [
        "in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups",
        "bias", "padding_mode", "device", "dtype",
    ]  # fmt: skip
    assert {parameter.kind for parameter in positional} == {inspect.Parameter.POSITIONAL_OR_KEYWORD}
    assert (rng.name, rng.kind) == ("rng", inspect.Parameter.KEYWORD_ONLY)


def test_attributes() -> None:
    layer = Conv2d(np.int64(4), 6, [3, np.int8(5)], 2, (1, 2), 3, 2, False, "reflect", "cpu", float)
    assert {name: getattr(layer, name) for name in (
        "in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups",
        "padding_mode", "transposed", "output_padding", "training", "bias",
    )} == {
        "in_channels": 4, "out_channels": 6, "kernel_size": (3, 5), "stride": (2, 2),
        "padding": (1, 2), "dilation": (3, 3), "groups": 2, "padding_mode": "reflect",
        "transposed": False, "output_padding": (0, 0), "training": True, "bias": None,
    }  # fmt: skip
    assert layer.weight.shape == (6, 2, 3, 5)
    assert layer.weight.dtype == np.float64
    assert {type(number) for number in (layer.in_channels, *layer.kernel_size)} == {int}
    assert Conv1d(2, 3, 4).output_padding == (0,)
    assert Conv1d(2, 3, 4).weight.dtype == np.float32


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "Conv2d(4, 8, kernel_size=(3, 3), stride=(1, 1))"),
        (
            {
                "kernel_size": np.array([3, 5]), "stride": 2, "padding": 1, "dilation": 3,
                "groups": 2, "bias": False, "padding_mode": "circular",
            },
            "Conv2d(4, 8, kernel_size=(3, 5), stride=(2, 2), padding=(1, 1), dilation=(3, 3), "
            "groups=2, bias=False, padding_mode=circular)",
        ),
        (
            {"padding": "same", "dilation": (1, 2)},
            "Conv2d(4, 8, kernel_size=(3, 3), stride=(1, 1), padding=same, dilation=(1, 2))",
        ),
        (
            {"padding": [[0, 1], [2, 3]]},
            "Conv2d(4, 8, kernel_size=(3, 3), stride=(1, 1), padding=((0, 1), (2, 3)))",
        ),
    ],
)  # fmt: skip
def test_repr(arguments: dict[str, Any], text: str) -> None:
    assert repr(Conv2d(4, 8, **{"kernel_size": 3, **arguments})) == text


# Torch's six checks in its order, then ours. Each is what differs from Conv2d(4, 8, 3).
FAULTS: list[tuple[str, dict[str, Any]]] = [
    (r"groups must be a positive integer, got groups=0", {"groups": 0}),
    (r"in_channels must be divisible by groups, got in_channels=4 and groups=8",
     {"groups": 8}),
    (r"out_channels must be divisible by groups, got out_channels=6 and groups=4",
     {"out_channels": 6, "groups": 4}),
    (r"Invalid padding string 'foo', should be one of {'same', 'valid'}",
     {"padding": "foo"}),
    (r"padding='same' is not supported for strided convolutions: got stride=\(1, 1, 3\)",
     {"padding": "same", "stride": (1, 1, 3)}),
    (r"padding_mode must be one of \{.*\}, but got padding_mode='3'",
     {"padding_mode": 3}),
    (r"in_channels must be a positive integer, got in_channels=0", {"in_channels": 0}),
    (r"out_channels must be a positive integer, got out_channels=-8",
     {"out_channels": -8}),
    (r"expected kernel_size to be .* list of 2 values .* kernel_size=\[3\]",
     {"kernel_size": (3,)}),
    (r"expected stride to be .* list of 2 values .* stride=\[\]", {"stride": ()}),
    (r"expected padding to be .* list of 2 values .* padding=\[1, 1, 1\]",
     {"padding": (1, 1, 1)}),
    (r"expected dilation to be .* list of 2 values .* dilation=\[2\]",
     {"dilation": (2,)}),
    (r"kernel size should be greater than zero, but got \[3, 0\]",
     {"kernel_size": (3, 0)}),
    (r"negative padding is not supported: got padding=\(0, -1\)", {"padding": (0, -1)}),
    (r"non-positive stride is not supported: got stride=0, it must be at least 1", {"stride": 0}),
    (r"dilation should be greater than zero, but got \[1, 0\]", {"dilation": (1, 0)}),
    (r"device must be None or 'cpu', got device='cuda'", {"device": "cuda"}),
    (r"weight of shape \[8, 4, .*\] would have more than 2\*\*63 - 1 bytes",
     {"kernel_size": 2**31}),
]  # fmt: skip

TYPE_FAULTS: list[dict[str, Any]] = [
    {name: value}
    for name in ("in_channels", "out_channels", "kernel_size", "stride", "dilation", "groups")
    for value in (1.0, "1", None, True, (1, 1.0), ((1, 1), (1, 1)))
] + [{"padding": 1.5}, {"dtype": int}, {"dtype": "longdouble"}, {"dtype": "no dtype"}]


def construct(arguments: dict[str, Any]) -> Conv2d:
    return Conv2d(**{"in_channels": 4, "out_channels": 8, "kernel_size": 3, **arguments})


@pytest.mark.parametrize(("message", "arguments"), FAULTS)
def test_faulty_setting(message: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(ConvError, match=message):
        construct(arguments)


@pytest.mark.parametrize("arguments", TYPE_FAULTS, ids=str)
def test_setting_of_a_wrong_type(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConvTypeError, match=str(*arguments)):
        construct(arguments)


def test_of_two_faults_the_earlier_is_reported() -> None:
    for at, (message, first) in enumerate(FAULTS):
        for _, second in FAULTS[at + 1 :]:
            if not first.keys() & second.keys():
                with pytest.raises(ConvError, match=message[:20]):
                    construct(second | first)


def test_initial_parameters() -> None:
    """Uniform between +-1 / sqrt(terms of an output), the weight drawn before the bias."""
    layer = Conv2d(32, 256, 5, groups=2, dtype=float, rng=0)
    bound = 1 / np.sqrt(16 * 5 * 5)
    for values in (layer.weight, layer.bias):
        ordered = np.sort(values, axis=None) / bound
        uniform = np.linspace(-1, 1, values.size)
        assert np.abs(ordered).max() <= 1
        # Kolmogorov's distance: exceeds 1.95 / sqrt(n) once in a thousand seeds.
        assert np.abs(ordered - uniform).max() / 2 < 1.95 / np.sqrt(values.size)
    without = Conv2d(32, 256, 5, groups=2, dtype=float, rng=0, bias=False)
    np.testing.assert_array_equal(without.weight, layer.weight)


def test_the_seed_decides() -> None:
    one, other = (Conv1d(3, 4, 5, rng=7) for _ in range(2))
    np.testing.assert_array_equal(one.weight, other.weight)
    np.testing.assert_array_equal(one.bias, other.bias)
    with pytest.raises(ConvError, match=r"rng must be None, a seed .*, got -1"):
        Conv1d(3, 4, 5, rng=-1)
    with pytest.raises(ConvTypeError, match=r"rng must be None, a seed .* got 'seven'"):
        Conv1d(3, 4, 5, rng="seven")
    rng = np.random.default_rng(7)
    np.testing.assert_array_equal(Conv1d(3, 4, 5, rng=rng).weight, one.weight)
    assert not np.array_equal(Conv1d(3, 4, 5, rng=rng).weight, one.weight)
    assert not np.array_equal(Conv1d(3, 4, 5).weight, Conv1d(3, 4, 5).weight)


# --- calling --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("padding_mode", ["zeros", "reflect", "replicate", "circular"])
def test_a_layer_is_the_function_with_its_settings(mode: str, padding_mode: str) -> None:
    """Those of the moment: they may be changed after construction, in every padding mode."""
    layer = Conv2d(4, 6, 3, groups=2, padding_mode=padding_mode, rng=0)
    getattr(layer, mode)()
    x = image_for(layer)
    changes: list[dict[str, Any]] = [
        {}, {"padding": (2, 1)}, {"stride": 2}, {"dilation": (1, 2)}, {"padding": ((0, 1), (2, 0))},
        {"stride": 1, "padding": "same"}, {"padding": "valid"},
    ]  # fmt: skip
    for change in changes:
        vars(layer).update(change)
        expected = pyconv.conv2d(
            x, layer.weight, layer.bias, layer.stride, layer.padding, layer.dilation, 2,
            padding_mode=padding_mode,
        )  # fmt: skip
        np.testing.assert_array_equal(layer(x), expected)
        np.testing.assert_array_equal(layer.forward(x), expected)
    layer.stride = 0
    with pytest.raises(ConvError, match="non-positive stride"):
        layer(x)


def test_call_calls_forward() -> None:
    class Twice(Conv1d):
        def forward(self, x: Any) -> np.ndarray:
            return 2 * super().forward(x)

    layer = Twice(1, 1, 2)
    x = image_for(layer)
    np.testing.assert_array_equal(layer(x), 2 * pyconv.conv1d(x, layer.weight, layer.bias))
    assert repr(layer) == "Twice(1, 1, kernel_size=(2,), stride=(1,))"


# --- parameters -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("layer_type", LAYERS)
def test_assignment_copies_and_casts(layer_type: Callable[..., Any], mode: str) -> None:
    layer = getattr(layer_type(2, 3, 3, rng=0), mode)()
    x = image_for(layer)
    before = layer(x)
    weight = np.asfortranarray(np.random.default_rng(1).standard_normal(layer.weight.shape))
    bias = [1, 2, 3]
    layer.weight, layer.bias = weight, bias
    assert layer.weight.dtype == layer.bias.dtype == np.float32
    np.testing.assert_array_equal(layer.weight, weight.astype("float32"))
    np.testing.assert_array_equal(layer.bias, bias)
    function = getattr(pyconv, layer_type.__name__.lower())
    after = layer(x)
    np.testing.assert_array_equal(after, function(x, layer.weight, layer.bias))
    assert not np.array_equal(after, before)

    weight[...] = 0
    np.testing.assert_array_equal(layer(x), after)
    assert layer.weight.flags.writeable == layer.training == (mode == "train")


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_bias_comes_and_goes(mode: str, bias: bool) -> None:
    layer = getattr(Conv2d(2, 3, 3, bias=bias, rng=0), mode)()
    x = image_for(layer)
    for value in (None, [3.0, 4.0, 5.0], None):
        layer.bias = value
        assert ("bias=False" in repr(layer)) == (value is None)
        assert list(layer.state_dict()) == ["weight", "bias"][: 1 if value is None else 2]
        np.testing.assert_array_equal(layer(x), pyconv.conv2d(x, layer.weight, layer.bias))


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_wrong_assignment_changes_nothing(mode: str) -> None:
    layer = getattr(Conv2d(2, 3, 3, rng=0), mode)()
    x = image_for(layer)
    before = layer(x)
    faults: list[tuple[str, Any, type[Exception], str]] = [
        ("weight", np.ones((3, 2, 5, 5)), ConvError, "weight must have the shape"),
        ("weight", np.ones((3, 2, 3)), ConvError, "weight must have the shape"),
        ("weight", np.ones((3, 2, 3, 3), complex), ConvTypeError, r"weight.* convertible to"),
        ("weight", np.full((3, 2, 3, 3), "1"), ConvTypeError, r"weight.* convertible to"),
        ("weight", None, ConvTypeError, "weight must be an array"),
        ("bias", np.ones(4), ConvError, "bias must have the shape"),
        ("bias", 1.0, ConvTypeError, "bias must be an array"),
    ]
    for name, value, error, message in faults:
        with pytest.raises(error, match=message):
            setattr(layer, name, value)
    np.testing.assert_array_equal(layer(x), before)


@pytest.mark.parametrize("bias", [True, False])
def test_named_parameters_are_the_arrays_themselves(bias: bool) -> None:
    layer = Conv2d(2, 3, 3, bias=bias)
    own = {"weight": layer.weight, **({"bias": layer.bias} if bias else {})}
    for prefix in ("", "a.b"):
        named = list(layer.named_parameters(prefix))
        assert [name for name, _ in named] == [f"{prefix}.{name}".lstrip(".") for name in own]
        assert all(value is own[name.split(".")[-1]] for name, value in named)
    assert all(one is other for one, other in zip(layer.parameters(), own.values(), strict=True))

    x = image_for(layer)
    for value in layer.parameters():
        value[...] = 1
    np.testing.assert_array_equal(layer(x), pyconv.conv2d(x, layer.weight, layer.bias))


# --- state dictionaries ---------------------------------------------------------------------------


def test_state_dict() -> None:
    layer = Conv2d(2, 3, 3)
    for prefix in ("", "features.0."):
        state = layer.state_dict(prefix=prefix)
        assert type(state) is OrderedDict
        assert list(state) == [f"{prefix}weight", f"{prefix}bias"]
        assert state[f"{prefix}weight"] is layer.weight
        assert state._metadata == {prefix[:-1]: {"version": 1}}


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_load_state_dict_copies_and_casts(mode: str) -> None:
    layer, other = (getattr(Conv2d(2, 3, 3, rng=seed), mode)() for seed in range(2))
    x = image_for(layer)
    layer(x)
    state = {"weight": other.weight.tolist(), "bias": other.bias.astype(float)}
    keys = layer.load_state_dict(state)
    assert repr(keys) == str(keys) == "<All keys matched successfully>"
    assert (keys.missing_keys, keys.unexpected_keys) == ([], [])
    assert layer.bias.dtype == np.float32
    np.testing.assert_array_equal(layer(x), other(x))
    state["bias"][...] = 0
    np.testing.assert_array_equal(layer(x), other(x))


def test_load_state_dict_not_strict() -> None:
    layer = Conv2d(2, 3, 3, rng=0)
    weight = layer.weight
    keys = layer.load_state_dict({"bias": np.ones(3), "foo": 1, 5: None}, strict=False)
    assert repr(keys) == "_IncompatibleKeys(missing_keys=['weight'], unexpected_keys=['foo', 5])"
    np.testing.assert_array_equal(layer.bias, 1)
    assert layer.weight is weight


HEAD = "Error(s) in loading state_dict for Conv2d:\n\t"
SIZES = (
    "size mismatch for weight: copying a param with shape torch.Size([3, 2, 3, 2]) from "
    "checkpoint, the shape in current model is torch.Size([3, 2, 3, 3])."
)


@pytest.mark.parametrize(
    ("state", "strict", "message"),
    [
        ({"bias": np.ones(3)}, True, 'Missing key(s) in state_dict: "weight". '),
        (
            {"weight": np.ones((3, 2, 3, 2)), "foo": 1, "bar": 2},
            True,
            f'Missing key(s) in state_dict: "bias". \n\tUnexpected key(s) in state_dict: "foo", "bar". \n\t{SIZES}',
        ),
        ({"weight": np.ones((3, 2, 3, 2)), "bias": np.ones(3)}, False, SIZES),
        (
            {"weight": None, "bias": "abc"},
            True,
            'While copying the parameter named "weight", expected an array or array-like object '
            "from checkpoint but received <class 'NoneType'>\n\t"
            'While copying the parameter named "bias", expected an array or array-like object '
            "from checkpoint but received <class 'str'>",
        ),
        (
            {"weight": np.ones((3, 2, 3, 3), complex), "bias": np.ones(3)},
            True,
            "convolution not implemented for 'complex128' (weight), it must be convertible to float32",
        ),
    ],
)
def test_a_faulty_state_dict_changes_nothing(state: dict[str, Any], strict: bool, message: str) -> None:
    layer = Conv2d(2, 3, 3, rng=0)
    weight, bias = layer.weight, layer.bias
    with pytest.raises(ConvError) as raised:
        layer.load_state_dict(state, strict=strict)
    assert str(raised.value) == HEAD + message
    assert layer.weight is weight
    assert layer.bias is bias


@pytest.mark.parametrize("state", [[("weight", 1)], None, 3])
def test_a_state_dict_is_a_mapping(state: Any) -> None:
    with pytest.raises(ConvTypeError, match=r"Expected state_dict to be dict-like, got <class '"):
        Conv2d(2, 3, 3).load_state_dict(state)


def test_assign_takes_the_arrays_themselves(tmp_path: Any) -> None:
    """So weights can stay in the file they are mapped from, which no `train` makes writeable."""
    path = tmp_path / "weight.npy"
    np.save(path, np.ones((3, 2, 3, 3)))
    mapped, bias = np.load(path, mmap_mode="r"), np.ones(3)
    layer = Conv2d(2, 3, 3)
    layer.load_state_dict({"weight": mapped, "bias": bias}, assign=True)
    assert layer.bias is bias
    assert np.shares_memory(layer.weight, mapped)
    assert layer.weight.dtype == np.float64
    assert not layer.eval().weight.flags.writeable
    assert not layer.train().weight.flags.writeable
    assert layer.bias.flags.writeable
    np.testing.assert_array_equal(layer(np.ones((1, 2, 3, 3))), np.full((1, 3, 1, 1), 19.0))


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        ("float32", "the dtypes of all parameters should be the same, got weight float32, bias"),
        ("int64", "dtype must be a float of .*, got int64"),
    ],
)
def test_assign_casts_nothing(dtype: str, message: str) -> None:
    state = {"weight": np.ones((3, 2, 3, 3), dtype), "bias": np.ones(3)}
    with pytest.raises(ConvError, match=message):
        Conv2d(2, 3, 3).load_state_dict(state, assign=True)


# --- training and evaluation ----------------------------------------------------------------------


def test_eval_freezes_and_train_thaws() -> None:
    layer = Conv2d(2, 3, 3, rng=0)
    x, weight, bias = image_for(layer), layer.weight, layer.bias
    expected = layer(x)
    assert layer.training

    assert layer.eval() is layer
    assert not layer.training
    assert layer.weight is weight
    assert layer.bias is bias
    for _ in range(2):  # packs, and uses what was packed
        np.testing.assert_array_equal(layer(x), expected)
    for values in (weight, bias):
        with pytest.raises(ValueError, match="read-only"):
            values[0] = 0

    assert layer.train() is layer
    assert layer.training
    weight[...], bias[...] = 1, 2
    np.testing.assert_array_equal(layer(x), pyconv.conv2d(x, weight, bias))
    np.testing.assert_array_equal(layer.eval()(x), pyconv.conv2d(x, weight, bias))


def test_weights_are_packed_once() -> None:
    """In eval mode, and again after the weights were replaced."""
    layer = Conv2d(16, 32, 3, rng=0)
    x = image_for(layer)
    layer(x)
    assert layer._state.packs is None
    layer.eval()
    layer(x)
    packs = layer._state.packs
    packed = dict(packs)
    assert packed
    layer(x)
    layer.eval()
    assert layer._state.packs is packs
    assert packs.keys() == packed.keys()
    assert all(packs[key] is packed[key] for key in packed)
    layer.weight = layer.weight
    assert layer._state.packs == {}


@pytest.mark.parametrize("mode", [1, 0, None, "train", np.True_])
def test_a_mode_is_a_bool(mode: Any) -> None:
    with pytest.raises(ConvError, match="training mode is expected to be boolean"):
        Conv2d(2, 3, 3).train(mode)


def test_a_call_reads_the_parameters_once() -> None:
    """Weight, bias and what was packed from them, so that they belong together."""

    class Watched(Conv2d):
        reads = 0

        @property
        def _state(self) -> Any:
            self.reads += 1
            return self.held

        @_state.setter
        def _state(self, state: Any) -> None:
            self.held = state

    layer = Watched(2, 3, 3).eval()
    x = image_for(layer)
    layer.reads = 0
    layer(x)
    assert layer.reads == 1


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Python changes threads between almost any two instructions."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("hasty_threads")
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_replacing_the_weights_during_calls(mode: str) -> None:
    """A call sees the old parameters or the new ones, whatever another thread does meanwhile."""
    layer = getattr(Conv2d(2, 16, 3, rng=0), mode)()
    x = image_for(layer)
    states = [{"weight": np.full(layer.weight.shape, value), "bias": np.full(16, value)} for value in (1.0, 2.0)]
    layer.load_state_dict(states[0])
    one = layer(x)
    possible = {one.tobytes(), (2 * one).tobytes()}
    seen: set[bytes] = set()
    done = threading.Event()

    def call() -> None:
        while not done.is_set():
            seen.add(layer(x).tobytes())

    callers = [threading.Thread(target=call) for _ in range(2)]
    for caller in callers:
        caller.start()
    for turn in range(1000):
        layer.load_state_dict(states[turn % 2])
    done.set()
    for caller in callers:
        caller.join()
    assert seen
    assert seen <= possible


@pytest.mark.parametrize("attribute", ["dtype", "shape", "strides"])
def test_a_frozen_layer_reads_the_memory_that_it_froze(attribute: str) -> None:
    """NumPy lets these attributes be set even of read-only arrays."""
    layer = Conv2d(4, 4, 4, rng=0)
    x = image_for(layer)
    expected = layer(x)
    layer.eval()
    layer(x[:0])  # remembers what the layer is, and packs nothing
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        setattr(layer.weight, attribute, {"dtype": np.float64, "shape": (2, 128), "strides": (0, 0, 0, 0)}[attribute])
    np.testing.assert_array_equal(layer(x), expected)


def test_a_frozen_layer_sees_settings_that_change_in_place() -> None:
    layer = Conv2d(2, 3, 3, rng=0).eval()
    x = image_for(layer)
    layer.padding = ([1, 1], [1, 1])
    before = layer(x)
    layer.padding[0][0] = 3  # type: ignore[index]
    assert layer(x).shape[2] == before.shape[2] + 2
    layer.padding, one = 0, np.array(1)
    layer.stride = (one, one)
    before = layer(x)
    one[...] = 2
    assert layer(x).shape[2] < before.shape[2]


def test_training_forgets_what_was_packed() -> None:
    layer = Conv2d(64, 64, 3, rng=0).eval()
    layer(image_for(layer))
    packed = weakref.ref(next(iter(layer._state.packs.values())))  # type: ignore[union-attr]
    layer.train()
    assert packed() is None


# --- copies ---------------------------------------------------------------------------------------


def pickled(layer: Any) -> Any:
    return pickle.loads(pickle.dumps(layer))


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("duplicate", [pickled, copy.copy, copy.deepcopy])
def test_a_copy_is_equal_and_apart(duplicate: Callable[[Any], Any], mode: str) -> None:
    layer = getattr(Conv2d(4, 6, 3, padding="same", groups=2, bias=False, rng=0), mode)()
    x = image_for(layer)
    expected = layer(x)
    twin = duplicate(layer)
    assert repr(twin) == repr(layer)
    assert twin.training == layer.training == (mode == "train")
    assert twin.weight.flags.writeable == layer.weight.flags.writeable == layer.training
    assert not twin._state.packs
    np.testing.assert_array_equal(twin(x), expected)
    twin.train()
    twin.weight[...] = 0
    assert not twin(x).any()
    np.testing.assert_array_equal(layer(x), expected)


def test_packed_weights_are_not_pickled() -> None:
    layer = Conv2d(64, 64, 3, rng=0).eval()
    before = len(pickle.dumps(layer))
    layer(image_for(layer))
    assert layer._state.packs
    assert len(pickle.dumps(layer)) == before < 1.1 * layer.weight.nbytes


def test_a_call_takes_out_and_a_thread_count() -> None:
    layer = pyconv.Conv2d(3, 4, 3, rng=0).eval()
    images = np.ones((2, 3, 8, 8), np.float32)
    out = np.zeros((2, 4, 6, 6), np.float32)
    assert layer(images, out=out, num_threads=1) is out
    np.testing.assert_array_equal(out, layer(images))
    with pytest.raises(pyconv.ConvError, match="num_threads"):
        layer(images, num_threads=0)


def test_the_plan_of_a_layer() -> None:
    layer = pyconv.Conv2d(3, 4, 3)
    plan = layer.plan((2, 3, 8, 8), np.uint8)
    assert (plan.problem.mb, plan.problem.oh, plan.problem.src_dtype) == (2, 6, "uint8")
    assert layer.plan((0, 3, 8, 8)).n_tasks == 0
    assert layer.plan((3, 8, 8)).problem.mb == 1


@pytest.mark.parametrize(
    ("shape", "dtype", "phrase"),
    [
        (5, None, "input_shape must be a sequence of ints"),
        ((2, 3, 8, 8.5), None, "input_shape must be a sequence of ints"),
        ("abc", None, "input_shape must be a sequence of ints"),
        ((-2, 3, 8, 8), None, r"input_shape must not be negative anywhere, got \(-2, 3, 8, 8\)"),
        ((2, 5, 8, 8), None, "to have 3 channels"),
        ((2, 3, 8, 8), np.float16, "float16"),
        ((2, 3, 8, 8), np.complex64, "complex64"),
    ],
)
def test_the_plan_checks_what_a_call_would(shape: object, dtype: object, phrase: str) -> None:
    with pytest.raises((pyconv.ConvError, pyconv.ConvTypeError), match=phrase):
        pyconv.Conv2d(3, 4, 3).plan(shape, dtype)


@pytest.mark.parametrize("bias", [True, False])
def test_a_byte_swapped_dtype_is_that_of_the_machine(bias: bool) -> None:
    layer = pyconv.Conv2d(1, 2, 1, bias=bias, dtype=">f4")
    assert layer.weight.dtype.isnative
    assert layer(np.ones((1, 2, 2), np.float32)).shape == (2, 2, 2)


def test_settings_of_any_accepted_kind_can_be_shown() -> None:
    layer = pyconv.Conv2d(1, 1, 1)
    layer.padding, layer.dilation = np.array([0, 0]), np.array([1, 1])
    assert layer(np.ones((1, 2, 2), np.float32)).shape == (1, 2, 2)
    assert repr(layer).startswith("Conv2d(1, 1, kernel_size=(1, 1)")


@pytest.mark.parametrize("shape", [(1, 2**40, 2**40), (1, 2**70, 2), (1,) * 70])
def test_a_plan_of_what_cannot_be_is_refused_as_the_call_would(shape: tuple[int, ...]) -> None:
    with pytest.raises((pyconv.ConvError, MemoryError)):
        pyconv.Conv2d(1, 1, 1).plan(shape)


@pytest.mark.parametrize("dtype", ["abc", "f4,(", ("f4", -1), [("a", "f4"), ("a", "f4")]])
def test_what_is_no_dtype_is_refused(dtype: Any) -> None:
    with pytest.raises(pyconv.ConvTypeError, match="dtype must be"):
        pyconv.Conv2d(1, 1, 1, dtype=dtype)
    with pytest.raises(pyconv.ConvTypeError, match="dtype must be"):
        pyconv.Conv2d(1, 1, 1).plan((1, 2, 2), dtype)


@pytest.mark.parametrize("bias", [np.ones(4, np.float32), "False", [], 1.0])
def test_bias_is_yes_or_no(bias: Any) -> None:
    with pytest.raises(pyconv.ConvTypeError, match="bias must be True or False"):
        Conv2d(3, 4, 3, bias=bias)
    assert Conv2d(3, 4, 3, bias=0).bias is Conv2d(3, 4, 3, bias=np.False_).bias is None


def test_a_dtype_that_has_no_hash_is_refused_as_another() -> None:
    unhashable = np.dtype([(([1], "a"), "f4")])  # a field whose title is a list
    with pytest.raises(TypeError, match="unhashable"):
        hash(unhashable)
    with pytest.raises(pyconv.ConvTypeError, match="dtype must be"):
        pyconv.Conv2d(1, 1, 1, dtype=unhashable)
    with pytest.raises(pyconv.ConvTypeError, match="not implemented"):
        pyconv.Conv2d(1, 1, 1)(np.zeros((1, 2, 2), unhashable))

"""The values are torch's: on the grids of torch's own tests, and on random problems.

torch computes in float64 and the comparison is by the error bound, so nothing is tuned. Where
torch's tests state an identity, the two sides must be equal to the bit: they are the same sums.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

import pyconv
from _cases import random_case
from _compare import difference
from _problems import Call, Case, seeds
from _values import Triple, gaussian
from pyconv._problem import ConvProblem

torch = pytest.importorskip("torch")
functional = torch.nn.functional

pytestmark = [
    pytest.mark.usefixtures("parallel_at_any_size"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths"),
]

MODES = ("zeros", "reflect", "replicate", "circular")


def by_torch(call: Call, dtype: str = "float64") -> np.ndarray:
    """Return what torch makes of the same arguments.

    It pads on four sides, and in another mode than zeros, by a function of its own.
    """
    case, p = call.case, call.problem
    x, weight, bias = (torch.from_numpy(values.astype(dtype)) for values in (call.x, call.weight, call.bias))
    padding = case.padding
    four_sided = isinstance(padding, tuple) and isinstance(padding[0], tuple)
    if four_sided or case.padding_mode != "zeros":
        mode = "constant" if case.padding_mode == "zeros" else case.padding_mode
        x = functional.pad(x, (p.pl, p.pr, p.pt, p.pb)[: 2 * case.axes], mode)
        padding = 0
    function = functional.conv1d if case.axes == 1 else functional.conv2d
    bias = bias if case.bias else None
    return function(x, weight, bias, case.stride, padding, case.dilation, case.groups).numpy()


def agree(call: Call) -> None:
    """Compare on every instruction set."""
    expected, bound = by_torch(call), call.error_bound()
    for isa in pyconv.available_isas():
        deviation = np.abs(call.run(isa) - expected)
        assert np.all(deviation <= bound), f"{isa}: {call.case!r}"


def case(x: tuple[int, ...], weight: tuple[int, ...], *, bias: bool = True, **arguments: object) -> Case:
    """Make a case as torch's tables are written."""
    return Case(x, weight, bias, **arguments)


# OpInfo's samples of conv1d and conv2d.
SAMPLES = [
    case((1, 3, 4), (3, 3, 3), stride=(2,), padding=2),
    case((2, 4, 8), (2, 2, 3), stride=3, padding=1, groups=2, dilation=2),
    case((1, 4, 5), (1, 4, 3), bias=False, stride=(2,), padding="valid"),
    case((2, 2, 4), (2, 1, 4), stride=(1,), padding="same", groups=2, dilation=(2,)),
    case((1, 4, 5), (3, 4, 3), bias=False),
    case((1, 3, 4, 4), (3, 3, 3, 3), stride=(2, 2), padding=2),
    case((2, 4, 8, 8), (2, 2, 3, 3), stride=(3, 2), padding=(2, 1), groups=2, dilation=(4, 4)),
    case((1, 4, 5, 5), (1, 4, 2, 3), stride=2, padding=1, dilation=(2, 3)),
    case((1, 2, 4, 3), (4, 2, 3, 4), bias=False, stride=2, padding=1),
    case((1, 4, 5, 5), (1, 4, 2, 3), stride=2, padding="valid"),
    case((1, 4, 5, 5), (1, 4, 2, 3), stride=1, padding="same", dilation=3),
    case((2, 4, 6, 6), (4, 1, 3, 3), groups=4),
    case((2, 4, 6, 6), (8, 1, 3, 3), groups=4),
    case((2, 4, 6, 6), (8, 1, 3, 3), bias=False, groups=4),
    case((2, 4, 6, 6), (4, 1, 3, 3), groups=4, stride=(3, 2)),
    case((2, 4, 6, 6), (4, 1, 3, 3), groups=4, padding=(1, 1)),
    case((2, 4, 5, 5), (4, 1, 2, 2), groups=4, dilation=(2, 2)),
    case((2, 4, 6, 5), (6, 2, 3, 2), groups=2),
    case((1, 4, 5, 5), (3, 4, 3, 3), bias=False),
]

# The module tests: Conv2d(3, 4, (3, 2)) on (2, 3, 7, 5) and its relatives, an empty batch, padding
# modes, depthwise.
MODULES = [
    case((2, 3, 7, 5), (4, 3, 3, 2)),
    case((2, 3, 6, 6), (4, 3, 3, 3), stride=(2, 2)),
    case((2, 3, 6, 6), (4, 3, 3, 3), stride=(2, 2), padding=(1, 1)),
    case((2, 3, 8, 8), (2, 3, 3, 3), stride=(2, 2), padding=(1, 1), dilation=(2, 2)),
    case((2, 3, 6, 5), (4, 3, 3, 2), bias=False),
    case((0, 3, 7, 5), (4, 3, 3, 2)),
    case((0, 4, 4, 4), (4, 1, 3, 3), groups=4, stride=2, padding=1),
    case((2, 4, 6, 5), (6, 2, 3, 2), groups=2),
    case((2, 3, 6, 5), (4, 3, 3, 4), padding="valid"),
    case((2, 3, 6, 5), (4, 3, 3, 4), padding="same"),
    case((2, 3, 6, 5), (4, 3, 3, 4), padding="same", dilation=2),
    case((2, 4, 10), (5, 4, 3), stride=2),
    case((2, 4, 10), (5, 4, 5), padding=2),
    case((1, 4, 1), (4, 4, 3), padding=1),
    case((1, 4, 1), (4, 4, 5), padding=2),
    case((0, 4, 10), (5, 4, 3)),
    *(case((2, 4, 6, 6), (4 * n, 1, 3, 3), groups=4) for n in (1, 2)),
    *(case((2, 4, 6, 6), (4, 1, 3, 3), groups=4, stride=s, padding=p) for s in (1, 2) for p in (0, 1)),
    case((2, 4, 5, 5), (4, 1, 2, 2), groups=4, dilation=2),
    *(case((2, 2, 4), (3, 2, 3), stride=2, padding=2, padding_mode=m) for m in MODES),
    *(case((2, 2, 4, 4), (3, 2, 3, 3), stride=2, padding=(1, 2), padding_mode=m) for m in MODES),
    *(case((2, 3, 6, 7), (4, 3, 3, 4), padding="same", padding_mode=m) for m in MODES),
    *(case((2, 3, 11), (4, 3, 10), padding="same", padding_mode=m) for m in MODES),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sample", [*SAMPLES, *MODULES], ids=repr)
def test_grids(sample: Case, dtype: str) -> None:
    """With a batch axis, and without one as the first image of the batch."""
    call = Call(replace(sample, dtype=dtype), gaussian)
    agree(call)
    if call.x.shape[0]:
        for isa in pyconv.available_isas():
            single = call.compute(call.x[0], call.weight, call.bias, isa=isa)
            assert not difference(single, call.run(isa)[0])


@pytest.mark.parametrize("chunk", seeds(4))
def test_random_problems(chunk: int) -> None:
    for seed in range(chunk * 100, chunk * 100 + 100):
        agree(Call(random_case(seed), gaussian))


def layer(p: ConvProblem, rng: np.random.Generator) -> Triple:
    """Draw weights that keep the variance of N(0, 1), as a layer's do."""
    x, weight, bias = gaussian(p, rng)
    return x, weight / np.sqrt(weight[0].size, dtype=p.dtype), bias


def test_float32_within_the_tolerance_of_torch() -> None:
    """By which torch's own tests compare float32."""
    for seed in seeds(200):
        call = Call(replace(random_case(seed), dtype="float32", src_dtype=""), layer)
        np.testing.assert_allclose(call.run(), by_torch(call, "float32"), 1.3e-6, 1e-5)


def test_same_keeps_the_length() -> None:
    for length, k, dilation in product(range(50, 55), (1, 2, 3, 8), (1, 2, 3)):
        call = Call(case((2, 3, length), (4, 3, k), padding="same", dilation=dilation), gaussian)
        agree(call)
        assert call.run().shape == (2, 4, length)


@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize(
    ("dilation", "padding", "first"),
    [(1, 2, 1), (2, 3, 0), (3, 5, 1)],
)
def test_same_with_an_even_kernel(axes: int, dilation: int, padding: int, first: int) -> None:
    """The odd one of the padding goes to the end: equal to padding both, less the first output."""
    call = Call(Case((2, 3, *(9,) * axes), (4, 3, *(4,) * axes), dilation=dilation), gaussian)
    both, same = (Call(replace(call.case, padding=p), gaussian).run() for p in (padding, "same"))
    assert not difference(same, both[(..., *(slice(first, None),) * axes)])


@pytest.mark.parametrize("multiple", [1, 4])
def test_groups_are_convolutions_of_their_own(isa: str, multiple: int) -> None:
    for n in (1, 2, 3):
        call = Call(case((n, 4, 9, 17), (4 * multiple, 2, 3, 3), groups=2, padding=1), gaussian)
        halves = []
        for x, weight, bias in zip(
            np.split(call.x, 2, 1), np.split(call.weight, 2), np.split(call.bias, 2), strict=True
        ):
            one = Call(replace(call.case, x_shape=x.shape, weight_shape=weight.shape, groups=1))
            halves.append(one.compute(x, weight, bias, isa=isa))
        assert not difference(call.run(isa), np.concatenate(halves, 1))


def strided_operands() -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield x (2, 4, 8, 9), weight (6, 4, 3, 3) and bias (6,) as torch's tests of strides do."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32)

    x, weight, bias = normal(2, 4, 8, 9), normal(6, 4, 3, 3), normal(6)
    yield "one of a last axis", normal(2, 4, 8, 9, 2)[..., 1], weight, bias
    yield "permuted", normal(2, 8, 9, 4).transpose(0, 3, 1, 2), weight, bias
    yield "transposed", normal(2, 4, 9, 8).swapaxes(2, 3), weight, bias
    yield "every second tap", x, normal(6, 4, 3, 6)[:, :, :, ::2], bias
    yield "expanded", x, np.broadcast_to(normal(1, 4, 1, 1), weight.shape), bias
    yield "strided bias", x, weight, normal(6, 2)[:, 1]
    yield "expanded bias", x, weight, np.broadcast_to(normal(1), bias.shape)


@pytest.mark.parametrize("operands", list(strided_operands()), ids=lambda operands: operands[0])
def test_strided_operands(isa: str, operands: tuple[str, np.ndarray, np.ndarray, np.ndarray]) -> None:
    call = Call(case((2, 4, 8, 9), (6, 4, 3, 3)))
    strided = call.compute(*operands[1:], isa=isa)
    copies = (np.ascontiguousarray(values) for values in operands[1:])
    assert not difference(strided, call.compute(*copies, isa=isa))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_second_weight_of_a_ramp(isa: str, dtype: str) -> None:
    """All of it exact: 64 * 16 * 16 pixels times the sum of 2 i / 1024, i < 512."""
    call = Call(case((64, 16, 16, 16), (32, 16, 1, 1), bias=False, dtype=dtype))
    ramp = np.arange(0, 1, 2.0**-10, dtype).reshape(32, 16, 1, 2)
    ones = np.ones_like(call.x)
    assert call.compute(ones, ramp[:, :, :, ::2], call.bias, isa=isa).sum() == 4186112.0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("x_layout", "weight_layout"),
    [
        ("channels_last", "channels_last"),
        ("channels_last", "C"),
        ("C", "channels_last"),
        ("C", "C"),
    ],
)
def test_channels_last_in_channels_last_out(x_layout: str, weight_layout: str, dtype: str) -> None:
    layouts = {"x_layout": x_layout, "weight_layout": weight_layout}
    call = Call(case((2, 4, 5, 6), (8, 4, 3, 3), dtype=dtype, **layouts), gaussian)
    agree(call)
    out = call.run()
    expected = out.transpose(0, 2, 3, 1) if "channels_last" in layouts.values() else out
    assert expected.flags.c_contiguous


@pytest.mark.parametrize(
    "shape_edge",
    [
        case((1, 1, 2), (1, 1, 2)),
        case((1, 1, 2), (1, 1, 3), stride=2, padding=1),
        case((1, 1, 3, 3), (1, 1, 3, 3)),
        case((1, 1, 2, 2), (1, 1, 3, 3), padding=1),
    ],
    ids=repr,
)
def test_kernel_that_just_fits(shape_edge: Case) -> None:
    agree(Call(shape_edge, gaussian))


@pytest.mark.parametrize(("batch", "groups"), list(product((1, 2, 3), (1, 2, 4))))
def test_batch_and_groups(batch: int, groups: int) -> None:
    agree(Call(case((batch, 4, 6, 6), (8, 4 // groups, 3, 3), groups=groups), gaussian))


def test_issue_120211() -> None:
    """A wide depthwise kernel on a permuted image, each odd width up to 255."""
    for radius in range(128):
        wide = case(
            (1, 3, 4, 300),
            (3, 1, 1, 2 * radius + 1),
            groups=3,
            x_layout="channels_last",
            bias=False,
        )
        agree(Call(wide, gaussian))


def test_issue_120406() -> None:
    """A kernel of 17 in one direction of many, depthwise; torch's case has one axis more."""
    call = Call(case((2, 3, 72, 26), (3, 1, 1, 17), groups=3, bias=False))
    ones = (np.ones_like(values) for values in (call.x, call.weight, call.bias))
    assert (call.compute(*ones) == 17).all()


def test_issue_120547() -> None:
    """Unit axes whose strides are another array's, and a kernel wider than the image."""
    call = Call(case((1, 16, 1), (16, 1, 32), padding=16, groups=16), gaussian)
    call.x = np.ascontiguousarray(call.x.swapaxes(1, 2)).swapaxes(1, 2)
    agree(call)


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_scipy(padding: str) -> None:
    """A convolution in the sense of mathematics flips the kernel."""
    signal = pytest.importorskip("scipy.signal")
    for size, k in product((7, 10, 11), (1, 3, 5)):
        call = Call(case((1, 1, size, size), (1, 1, k, k), padding=padding, bias=False), gaussian)
        expected = signal.convolve2d(call.x[0, 0], call.weight[0, 0, ::-1, ::-1], mode=padding)
        np.testing.assert_allclose(call.run()[0, 0], expected, 2e-5, 2e-5)

"""The arguments of a call against each other: output sizes, and every way not to fit.

Phrases of messages are torch's. Whether torch really says so, test_torch_interface.py asks it.
"""

from __future__ import annotations

from dataclasses import FrozenInstanceError, astuple, fields
from itertools import product
from typing import Any

import numpy as np
import pytest

from pyconv import ConvError, ConvTypeError
from pyconv._problem import ConvProblem, conv_problem

F4, F8, U1 = (np.dtype(name) for name in ("float32", "float64", "uint8"))


def problem(
    x: tuple[int, ...],
    weight: tuple[int, ...],
    bias: tuple[int, ...] | None = None,
    *,
    ndim: int = 2,
    dtypes: tuple[np.dtype[Any], ...] = (F4, F4, F4),
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
) -> ConvProblem:
    """Call `conv_problem` with torch's defaults."""
    image, parameters, offset = dtypes
    return conv_problem(
        ndim, x, weight, bias, image, parameters, None if bias is None else offset,
        stride, padding, dilation, groups, padding_mode,
    )  # fmt: skip


# --- what fits ------------------------------------------------------------------------------------


def test_letters() -> None:
    assert problem(
        (2, 6, 11, 13), (8, 3, 3, 5), (8,), dtypes=(U1, F4, F4),
        stride=(2, 3), padding=((1, 0), (2, 3)), dilation=(2, 1), groups=2, padding_mode="reflect",
    ) == ConvProblem(
        mb=2, g=2, ic=6, ih=11, iw=13, oc=8, oh=4, ow=5, kh=3, kw=5, sh=2, sw=3, dh=2, dw=1,
        pt=1, pb=0, pl=2, pr=3, padding_mode="reflect", dtype="float32", src_dtype="uint8", dst_dtype="float32",
    )  # fmt: skip


def test_one_dimension_is_an_image_of_height_1() -> None:
    signal = problem((2, 4, 9), (3, 4, 3), ndim=1, stride=2, padding=((1, 2),), dilation=2, dtypes=(F8, F8, F8))
    image = problem(
        (2, 4, 1, 9), (3, 4, 1, 3), stride=(1, 2), padding=((0, 0), (1, 2)), dilation=(1, 2),
        dtypes=(F8, F8, F8),
    )  # fmt: skip
    assert signal == image
    assert (signal.oh, signal.ow) == (1, 4)


@pytest.mark.parametrize("ndim", [1, 2])
def test_one_image_is_a_batch_of_one(ndim: int) -> None:
    extents, kernel = (7, 8)[:ndim], (3, 3)[:ndim]
    one = problem((4, *extents), (5, 4, *kernel), ndim=ndim)
    assert one == problem((1, 4, *extents), (5, 4, *kernel), ndim=ndim)


@pytest.mark.parametrize("extent", range(1, 9))
def test_output_size_is_the_number_of_places(extent: int) -> None:
    """Counted one by one, along with whether there are any."""
    for kernel, stride, dilation, before, after in product(*[range(1, 5)] * 3, *[range(4)] * 2):
        span = dilation * (kernel - 1) + 1
        places = len(range(0, before + extent + after - span + 1, stride))
        arguments: dict[str, Any] = {
            "ndim": 1, "stride": stride, "padding": ((before, after),), "dilation": dilation,
        }  # fmt: skip
        if places:
            assert problem((1, 1, extent), (1, 1, kernel), **arguments).ow == places
        else:
            with pytest.raises(ConvError, match="Kernel size can't be greater"):
                problem((1, 1, extent), (1, 1, kernel), **arguments)


@pytest.mark.parametrize(("kernel", "dilation"), list(product(range(1, 12), range(1, 4))))
def test_same_keeps_the_size_and_puts_the_odd_pixel_last(kernel: int, dilation: int) -> None:
    found = problem((1, 1, 5, 6), (1, 1, kernel, 3), padding="same", dilation=(dilation, 1))
    assert (found.oh, found.ow) == (5, 6)
    assert found.pb - found.pt == dilation * (kernel - 1) % 2
    assert (found.pl, found.pr) == (1, 1)


def test_forms_of_padding() -> None:
    def sides(padding: Any) -> tuple[int, ...]:
        p = problem((1, 1, 9, 9), (1, 1, 2, 2), padding=padding)
        return p.pt, p.pb, p.pl, p.pr

    assert sides("valid") == sides(0) == (0, 0, 0, 0)
    assert sides(2) == sides((2,)) == sides((2, 2)) == (2, 2, 2, 2)
    assert sides((1, 2)) == sides(((1, 1), (2, 2))) == (1, 1, 2, 2)
    assert sides(((1, 2), (3, 4))) == (1, 2, 3, 4)
    assert sides("same") == (0, 1, 0, 1)


def test_an_empty_batch_fits() -> None:
    found = problem((0, 3, 8, 8), (4, 3, 3, 3))
    assert (found.mb, found.oc, found.oh, found.ow) == (0, 4, 6, 6)


def test_a_step_that_is_not_taken_is_as_small_as_can_be() -> None:
    """So equal convolutions are equal problems, and no number is larger than the padded input."""
    once = problem((1, 1, 5, 9), (1, 1, 3, 1), stride=(2**70, 4), dilation=(1, 2**70))
    assert once == problem((1, 1, 5, 9), (1, 1, 3, 1), stride=(3, 4))
    assert (once.oh, once.sh, once.ow, once.sw) == (1, 3, 3, 4)
    assert (once.kw, once.dw) == (1, 1)
    assert problem((1, 1, 5, 9), (1, 1, 1, 3), dilation=(2**70, 1)).dh == 1
    for stride in range(1, 9):
        p = problem((1, 1, 5, 9), (1, 1, 3, 3), stride=stride, padding=((0, 1), (2, 0)))
        assert p.oh == (p.ih + p.pt + p.pb - p.dh * (p.kh - 1) - 1) // p.sh + 1
        assert p.ow == (p.iw + p.pl + p.pr - p.dw * (p.kw - 1) - 1) // p.sw + 1


def test_a_problem_is_a_value() -> None:
    one = problem((1, 1, 3, 3), (1, 1, 3, 3))
    assert problem((1, 1, 3, 3), (1, 1, 3, 3)) is one, "the answer is not cached"
    assert hash(one) == hash(ConvProblem(*astuple(one)))
    with pytest.raises(FrozenInstanceError):
        one.mb = 2  # type: ignore[misc]
    types = {field.name: type(getattr(one, field.name)) for field in fields(one)}
    assert set(types.values()) == {int, str}


# --- what does not fit ----------------------------------------------------------------------------

X, W = (1, 4, 5, 5), (8, 4, 3, 3)

# In the order of the checks; each is the arguments that differ from a call that fits.
FAULTS: list[tuple[str, dict[str, Any]]] = [
    (r"Input type \(float32\) and bias type \(float64\) should be the same",
     {"dtypes": (F4, F4, F8), "bias": (8,)}),
    (r"Expected 3D \(unbatched\) or 4D \(batched\) input to conv2d, "
     r"but got input of size: \[1, 10, 1, 28, 28\]", {"x": (1, 10, 1, 28, 28)}),
    (r"weight should have at least three dimensions, but got weight of size \[3, 3\]: conv2d takes a weight of 4 dim",
     {"weight": (3, 3)}),
    (r"non-positive groups is not supported: got groups=0, it must be at least 1", {"groups": 0}),
    (r"Invalid padding string 'foo', should be one of {'same', 'valid'}", {"padding": "foo"}),
    (r"padding='same' is not supported for strided convolutions: got stride=\(1, 2\)",
     {"padding": "same", "stride": (1, 2)}),
    (r"expected stride to be a single integer value or a list of 2 values to match the convolution "
     r"dimensions, but got stride=\[1, 1, 1\]", {"stride": (1, 1, 1)}),
    (r"expected dilation to be a single .* list of 2 values .* dilation=\[\]", {"dilation": ()}),
    (r"expected padding to be a single .* list of 2 values .* padding=\[1, 1, 1\]",
     {"padding": (1, 1, 1)}),
    (r"negative padding is not supported: got padding=\(\(0, 0\), \(0, -1\)\)",
     {"padding": ((0, 0), (0, -1))}),
    (r"non-positive stride is not supported: got stride=\(1, 0\)", {"stride": (1, 0)}),
    (r"dilation should be greater than zero, but got \[0, 0\]", {"dilation": 0}),
    (r"Expected 3-dimensional input for 3-dimensional weight \[8, 4, 3\], but got 4-dimensional "
     r"input of size \[1, 4, 5, 5\] instead: conv2d takes a weight of 4 dimensions", {"weight": (8, 4, 3)}),
    (r"Given groups=16, expected weight to be at least 16 at dimension 0, but got weight of size "
     r"\[8, 4, 3, 3\] instead", {"groups": 16}),
    (r"Given groups=3, expected weight to be divisible by 3 at dimension 0, but got weight of size "
     r"\[8, 4, 3, 3\] instead", {"groups": 3}),
    (r"Given groups=2, weight of size \[8, 4, 3, 3\], expected input\[1, 4, 5, 5\] to have 8 "
     r"channels, but got 4 channels instead", {"groups": 2}),
    (r"Given weight of size \[8, 4, 3, 3\], expected bias to be 1-dimensional with 8 elements, but "
     r"got bias of size \[8, 1\] instead", {"bias": (8, 1)}),
    (rf"Given padding={2**62} at dimension 1, expected padding to be at most {2**62 - 1}",
     {"padding": (0, 2**62)}),
    (r"Padding size should be less than the corresponding input dimension, but got: padding "
     r"\(5, 5\) at dimension 3 of input \[1, 4, 5, 5\]",
     {"padding": (0, 5), "padding_mode": "reflect"}),
    (r"Padding value causes wrapping around more than once: got padding \(0, 6\) at dimension 2 of input "
     r"\[1, 4, 5, 5\], it must be at most 5",
     {"padding": ((0, 6), (5, 5)), "padding_mode": "circular"}),
    (r"Calculated padded input size per channel: \(5 x 7\)\. Kernel size: \(9 x 3\)\. "
     r"Kernel size can't be greater than actual input size",
     {"dilation": (4, 1), "padding": (0, 1)}),
    (r"kernel size should be greater than zero, but got \[3, 0\]", {"weight": (8, 4, 3, 0)}),
    (r"Only zero batch inputs are supported, but got input shape: \[1, 4, 0, 5\]",
     {"x": (1, 4, 0, 5), "padding": (2, 0)}),
    (rf"padded input of shape \[1, 4, 5, {2**62 + 5}\] would have more than 2\*\*63 - 1 bytes",
     {"padding": (0, 2**61), "stride": 2**61}),
]  # fmt: skip


def test_the_call_that_the_faults_differ_from_fits() -> None:
    problem(X, W, (8,))


@pytest.mark.parametrize(("message", "arguments"), FAULTS, ids=lambda value: str(value)[:40])
def test_fault(message: str, arguments: dict[str, Any]) -> None:
    with pytest.raises((ConvError, ConvTypeError), match=message):
        problem(**{"x": X, "weight": W, **arguments})


def raised_by(arguments: dict[str, Any]) -> str:
    with pytest.raises((ConvError, ConvTypeError)) as raised:
        problem(**{"x": X, "weight": W, **arguments})
    return str(raised.value)


def test_of_two_faults_the_earlier_is_reported() -> None:
    """In torch's order, which is the order of the list; told by how the message begins."""
    pairs = 0
    for at, (_, first) in enumerate(FAULTS):
        begin = raised_by(first)[:24]
        for _, second in FAULTS[at + 1 :]:
            if not first.keys() & second.keys():
                assert raised_by(first | second).startswith(begin), (first, second)
                pairs += 1
    assert pairs > 100


def test_zero_channels() -> None:
    """Documented: torch returns zero channels, whatever the weight says."""
    with pytest.raises(ConvError, match=r"Only zero batch .* got input shape: \[2, 0, 5, 5\]"):
        problem((2, 0, 5, 5), (8, 0, 3, 3))
    with pytest.raises(ConvError, match=r"to be at least 1 at dimension 0"):
        problem((2, 4, 5, 5), (0, 4, 3, 3))


def test_channels_last_data_is_recognised() -> None:
    hint = r"channels instead\. The last axis has 3: use np\.moveaxis\(input, -1, {}\)$"
    with pytest.raises(ConvError, match=hint.format(-3)):
        problem((1, 224, 224, 3), (8, 3, 3, 3))
    with pytest.raises(ConvError, match=hint.format(-2)):
        problem((1, 224, 3), (8, 3, 3), ndim=1)
    with pytest.raises(ConvError, match=r"channels instead$"):
        problem((1, 224, 224, 4), (8, 3, 3, 3))
    with pytest.raises(ConvError, match=r"channels instead$"):
        problem((2, 8, 16, 16), (12, 8, 3, 3), groups=2)


@pytest.mark.parametrize("extent", [1, 2, 5])
@pytest.mark.parametrize(
    ("padding_mode", "beyond"),
    [("zeros", None), ("replicate", None), ("reflect", 0), ("circular", 1)],
)
def test_how_far_a_padding_mode_reaches(padding_mode: str, beyond: int | None, extent: int) -> None:
    """Reflection: one pixel less than there are. A circle: as many as there are."""
    for pad in range(12):
        for sides in ((pad, 0), (0, pad)):
            arguments = {"ndim": 1, "padding": (sides,), "padding_mode": padding_mode}
            if beyond is None or pad < extent + beyond:
                problem((1, 1, extent), (1, 1, 1), **arguments)
            else:
                with pytest.raises(ConvError, match=r"^Padding"):
                    problem((1, 1, extent), (1, 1, 1), **arguments)


def test_the_truncation_trap() -> None:
    """In C, (2 - 3) / 2 + 1 is 1; the kernel does not fit all the same."""
    with pytest.raises(ConvError, match=r"size per channel: \(2 x 2\)\. Kernel size: \(3 x 3\)"):
        problem((1, 1, 2, 2), (1, 1, 3, 3), stride=2)


def test_the_largest_array_has_63_bits() -> None:
    most = 2**63 // 4 - 1
    x = (1, 1, most - 2**60)
    assert problem(x, (1, 1, 1), ndim=1, padding=((0, 2**60),), stride=2**60).ow == 2
    with pytest.raises(ConvError, match="padded input of shape"):
        problem(x, (1, 1, 1), ndim=1, padding=((1, 2**60),), stride=2**60)
    with pytest.raises(ConvError, match="output of shape"):
        problem((1, 1, 2**60), (8, 1, 1), ndim=1)
    with pytest.raises(ConvError, match="output of shape"):
        problem((0, 1, 2**60), (8, 1, 1), ndim=1)

"""Convolution problems: at random over every argument there is, and the known corners by formula.

What breaks a convolution is seldom a large problem. It is a size next to a multiple of the vector
or the tile, an output whose window lies in the padding, a step that leaves the last columns over.
So the sizes drawn here are small and biased to such places, the outputs are drawn and the inputs
follow from them, and no argument keeps its default for long.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np

from _layouts import READABLE, WRITABLE
from _problems import Case

# The vector is 4, 8 or 16 floats (half as many doubles), a tile up to 4 vectors: each multiple and
# its neighbours, and primes.
SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 13, 15, 16, 17, 19, 31, 32, 33, 47, 48, 49, 63, 64, 65)
KERNELS = (1, 1, 2, 3, 3, 3, 4, 5, 6, 7, 11, 31)
SMALL_INTEGERS = ("bool", "uint8", "int8", "uint16", "int16")
LARGE_INTEGERS = ("int32", "uint32", "int64", "uint64")


def random_case(seed: int, budget: int = 200_000) -> Case:
    """Return the case of that seed, of at most about `budget` multiplications."""
    rng = np.random.default_rng(seed)
    axes = _pick(rng, 1, 2, 2)
    kind = _pick(rng, "any", "any", "any", "any", "pointwise", "depthwise")
    groups, ic, oc = _channels(rng, kind)  # ic, oc: of one group
    kernel = _kernel(rng, kind, axes)
    mb = _pick(rng, 0, *[1] * 12, *[2] * 4, 3, 3, 4)
    out = [_pick(rng, *SIZES) for _ in range(axes)]
    mb, groups, ic, oc, *out = _within(rng, budget // np.prod(kernel), [mb, groups, ic, oc, *out])

    usual = kind != "any" and rng.random() < 0.5  # a layer as networks have it
    form = _pick(rng, "none", "int", "int", "tuple", "sides", "sides", "same", "valid")
    if usual:
        form = "none" if kind == "pointwise" else "same"
    padding_mode = _pick(rng, "zeros", "zeros", "zeros", "reflect", "replicate", "circular")
    stride = [1 if form == "same" else _stride(rng, k) for k in kernel]
    dilation = [1 if usual else _pick(rng, 1, 1, 1, 2, 3, 7) for _ in kernel]
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    padding, sides = _padding(rng, form, extent)
    size = [_input_size(rng, *each, padding_mode) for each in zip(out, extent, stride, sides, strict=True)]

    dtype = _pick(rng, "float32", "float32", "float64")
    integer_images = SMALL_INTEGERS if dtype == "float32" else SMALL_INTEGERS + LARGE_INTEGERS
    batch = () if mb == 1 and rng.random() < 0.2 else (mb,)
    return Case(
        x_shape=(*batch, groups * ic, *size),
        weight_shape=(groups * oc, ic, *kernel),
        bias=rng.random() < 0.7,
        stride=_written(rng, stride),
        padding=padding,
        dilation=_written(rng, dilation),
        groups=groups,
        padding_mode=padding_mode,
        dtype=dtype,
        src_dtype=_pick(rng, "", "", _pick(rng, *integer_images)),
        x_layout=_pick(rng, "C", _pick(rng, *READABLE)),
        weight_layout=_pick(rng, "C", _pick(rng, *READABLE)),
        bias_layout=_pick(rng, "C", _pick(rng, *READABLE)),
        out_layout=_pick(rng, "", _pick(rng, *WRITABLE)),
        threads=_pick(rng, 1, 2, 3, 4),
        l2=_pick(rng, 0, 0, 512, 4096, 32_768),
        seed=seed,
    )


def _pick(rng: np.random.Generator, *options: Any) -> Any:
    return options[rng.integers(len(options))]


def _channels(rng: np.random.Generator, kind: str) -> tuple[int, int, int]:
    """Draw the groups, and the input and output channels of one group."""
    if kind == "depthwise":
        return _pick(rng, *SIZES), 1, _pick(rng, 1, 1, 2, 3)
    return _pick(rng, 1, 1, 2, 3), _pick(rng, *SIZES), _pick(rng, *SIZES)


def _kernel(rng: np.random.Generator, kind: str, axes: int) -> list[int]:
    if kind == "pointwise":
        return [1] * axes
    if kind == "depthwise":
        return [_pick(rng, 3, 3, 5, 7)] * axes
    return [_pick(rng, *KERNELS) for _ in range(axes)]


def _within(rng: np.random.Generator, budget: int, counts: list[int]) -> list[int]:
    """Redraw the largest of the counts until their product is within the budget."""
    while np.prod(counts) > budget and max(counts) > 1:
        largest = max(counts)
        counts[counts.index(largest)] = _pick(rng, *(n for n in SIZES if n < largest))
    return counts


def _stride(rng: np.random.Generator, k: int) -> int:
    return _pick(rng, 1, 1, 1, 2, 2, 3, 4, k + 1)  # k + 1: columns that no window covers


def _padding(rng: np.random.Generator, form: str, extent: list[int]) -> tuple[Any, list[tuple[int, int]]]:
    """Draw the argument, in one of the forms it may take, and (before, after) of each axis."""

    def side(reach: int) -> int:
        return int(rng.integers(0, _pick(rng, 2, 2 + reach // 2, reach + 3)))

    if form in ("same", "valid"):
        totals = [n - 1 if form == "same" else 0 for n in extent]
        return form, [(total // 2, total - total // 2) for total in totals]
    if form == "sides":
        sides = tuple((side(n), side(n)) for n in extent)
        return sides, list(sides)
    sizes = [0] * len(extent) if form == "none" else [side(n) for n in extent]
    if form == "int":
        sizes = [min(sizes)] * len(extent)
    return _written(rng, sizes), [(n, n) for n in sizes]


def _input_size(
    rng: np.random.Generator,
    out: int,
    extent: int,
    stride: int,
    sides: tuple[int, int],
    padding_mode: str,
) -> int:
    """Choose a size with about `out` outputs, maybe some pixels over, and room to reflect."""
    size = (out - 1) * stride + extent - sum(sides) + int(rng.integers(0, stride))
    least = {"reflect": max(sides) + 1, "circular": max(sides)}.get(padding_mode, 1)
    return max(size, least, 1)


def _written(rng: np.random.Generator, values: list[int]) -> Any:
    """Write one value for each axis in one of the ways there are."""
    if len(set(values)) > 1:
        return tuple(values)
    return _pick(rng, values[0], tuple(values), (values[0],))


def corners() -> dict[str, list[Case]]:
    """Return shapes that have broken other libraries, by family."""
    return {family.__name__.lstrip("_"): list(family()) for family in _FAMILIES}


def _case(channels: tuple[int, int], size: Any, kernel: Any, **arguments: Any) -> Case:
    """Make a case of two images and (ic, oc) channels."""
    ic, oc = channels
    groups = arguments.get("groups", 1)
    return Case((2, ic, *size), (oc, ic // groups, *kernel), **arguments)


def _fewer_rows_than_stride() -> Iterator[Case]:
    for stride in (2, 3, 4):
        yield _case((3, 5), (1, 17), (3, 3), stride=stride, padding=1)
        yield _case((8, 8), (1, 1), (3, 3), stride=stride, padding=1, groups=8)


def _stride_beyond_kernel() -> Iterator[Case]:
    for k in (1, 2, 3):
        for stride in (k + 1, 2 * k + 1, 40):
            yield _case((4, 17), (19, 33), (k, k), stride=stride)


def _padding_beyond_kernel() -> Iterator[Case]:
    for padding in (5, 6, 7):
        yield _case((3, 16), (10, 10), (5, 5), padding=padding)
        yield _case((16, 16), (10, 10), (5, 5), padding=padding, groups=16)


def _right_padding_beyond_left() -> Iterator[Case]:
    for size, after in ((3, 7), (7, 11), (62, 2), (1, 40)):
        yield _case((5, 7), (size, size), (3, 3), padding=((1, after), (0, after)))
        yield _case((5, 7), (size, size), (3, 3), padding=((after, 0), (after, 1)), stride=2)


def _pixels_left_over() -> Iterator[Case]:
    for size in (7, 8, 9, 10):
        yield _case((3, 8), (size, size), (11, 11), stride=2, padding=5)
        yield _case((1, 1), (size, size), (3, 3), stride=3)


def _no_tap_on_a_pixel() -> Iterator[Case]:
    for dilation, padding in ((2, 1), (2, 2), (3, 2), (5, 4)):
        yield _case((3, 9), (1, 1), (2, 2), dilation=dilation, padding=padding)
        yield _case((9, 9), (1, 2), (2, 2), dilation=dilation, padding=padding, groups=9)


def _padding_beyond_dilated_kernel() -> Iterator[Case]:
    yield _case((3, 4), (1,), (14,), padding=28, dilation=3)
    yield _case((4, 4), (1,), (14,), padding=28, dilation=3, groups=4)
    yield _case((64, 1), (1,), (125,), padding=63, stride=2)


def _kernel_over_both_borders() -> Iterator[Case]:
    for k in (4, 5, 6):
        yield _case((3, 8), (4, 4), (k, k), stride=4, padding=1)
        yield _case((3, 8), (1, 4), (3, k), stride=(1, 4), padding=1)


def _awkward_channels() -> Iterator[Case]:
    for n in (7, 13, 17, 20, 42, 51, 55, 72, 111, 127, 129, 255, 257):
        yield _case((n, 5), (3, 5), (3, 3))
        yield _case((5, n), (3, 5), (3, 3), padding=1)
        yield _case((n, n), (2, 3), (1, 1))
        yield _case((n, n), (4, 5), (3, 3), padding=1, groups=n)


def _one_channel_to_the_last_row() -> Iterator[Case]:
    for size in (10, 16, 123, 124):
        yield _case((1, 1), (size, size), (3, 3))
        yield _case((1, 5), (size, 11), (3, 3), stride=2)


def _pointwise() -> Iterator[Case]:
    for arguments in (
        {},
        {"padding": 1},
        {"padding": ((2, 0), (0, 3))},
        {"stride": (1, 2)},
        {"stride": (3, 1)},
        {"stride": 2, "padding": 1},
        {"dilation": 5},
        {"groups": 3},
    ):
        for size in ((1, 1), (7, 7), (13, 14), (1, 49)):
            yield _case((6, 33), size, (1, 1), **arguments)


def _one_column() -> Iterator[Case]:
    for width in (1, 3, 31):
        yield _case((3, 17), (9, width), (3, width))
        yield _case((17, 17), (9, width), (9, width), groups=17)
        yield _case((2, 3), (width, width), (width, width))


def _wide_kernel() -> Iterator[Case]:
    for width in (31, 32, 63, 80):
        yield _case((2, 5), (3, width), (1, 31))
        yield _case((3, 3), (3, width), (3, 31), padding=(1, 15), groups=3)
        yield _case((2, 5), (width,), (31,), stride=2)


def _large_kernel_and_stride() -> Iterator[Case]:
    yield _case((64, 3), (43, 43), (11, 11), stride=4)
    yield _case((3, 64), (43, 43), (11, 11), stride=4, padding=2)
    yield _case((3, 32), (45, 45), (7, 7), stride=2, padding=3)


def _more_than_one_strip() -> Iterator[Case]:
    # Maps whose rows do not all fit into a core's cache at once.
    yield _case((32, 8), (75, 77), (3, 3), padding=1)
    yield _case((8, 32), (150, 151), (1, 1))
    yield _case((24, 24), (120, 121), (3, 3), padding=1, groups=24)
    yield _case((1, 2), (401, 403), (5, 5), padding=2)
    yield _case((16, 16), (20_001,), (3,), padding=1)


def _depthwise_channels_last() -> Iterator[Case]:
    # Most of them are read where they are, in rectangles whose pixels have the same taps inside the image; not the last
    # vector if it is not full, nor pixels that lie too far apart.
    for channels in (16, 40, 129, 1024):
        for kernel, arguments in (
            ((3, 3), {"padding": 1}),
            ((3, 3), {"padding": ((1, 0), (0, 1)), "stride": 2}),
            ((5, 3), {"padding": ((0, 3), (2, 0)), "dilation": (1, 2)}),
            ((3, 4), {"stride": (2, 3), "dilation": (3, 1), "padding": 2}),
            ((3, 3), {"padding": 4, "dilation": 4}),
            ((2, 3), {"padding": 5, "dilation": (30, 20)}),
            ((3, 3), {"padding": 1, "padding_mode": "circular"}),
            ((1, 1), {}),
        ):
            layouts = {"x_layout": "channels_last", "out_layout": "channels_last" if kernel[0] == 3 else ""}
            yield _case((channels, channels), (25, 38), kernel, groups=channels, **layouts, **arguments)
    layouts = {"x_layout": "channels_last", "out_layout": "channels_last"}
    # As many taps as rectangles may have, and more than that; rectangles without a tap inside; a stride; groups of two,
    # which have none.
    yield _case((16, 16), (60, 200), (8, 8), padding=((0, 400), (0, 0)), dilation=(60, 1), groups=16, **layouts)
    yield _case((16, 16), (60, 200), (9, 8), padding=((0, 404), (0, 0)), dilation=(53, 1), groups=16, **layouts)
    yield _case((16, 16), (20, 20), (2, 2), padding=40, dilation=30, groups=16, **layouts)
    yield _case((16, 16), (60, 58), (3, 3), padding=12, dilation=12, stride=2, groups=16, **layouts)
    yield _case((16, 16), (25, 38), (3, 3), padding=4, dilation=4, groups=8, **layouts)
    # Large kernels in a frame; padding on one side of the image only.
    for kernel in ((8, 8), (9, 8)):
        yield _case((16, 16), (60, 58), kernel, padding=4, groups=16, **layouts)
    for mode in ("zeros", "circular", "replicate"):
        yield _case(
            (16, 16), (25, 38), (2, 1), padding=((0, 10), (0, 0)), dilation=(30, 1), padding_mode=mode, groups=16,
            **layouts,
        )  # fmt: skip
        yield _case((16, 16), (1, 40), (2, 1), padding=((0, 1), (0, 0)), padding_mode=mode, groups=16, **layouts)
        yield _case((64, 64), (7, 1200), (2, 1), padding=((0, 1), (0, 0)), padding_mode=mode, groups=64, **layouts)


def _depthwise_wide_rows() -> Iterator[Case]:
    # Most pixels are read where they are, inside a frame as wide as a tile on either side.
    for kernel, arguments in (
        ((3, 3), {"padding": 1}),
        ((3, 3), {"padding": ((1, 0), (0, 1)), "stride": (2, 1)}),
        ((5, 3), {"padding": ((0, 3), (2, 0)), "dilation": (1, 2)}),
        ((5, 5), {"padding": 2, "stride": (2, 1)}),
        ((7, 4), {"stride": (2, 1)}),
        ((3, 4), {"dilation": (3, 1), "padding": 2}),
        ((7, 7), {"padding": 3}),
        ((1, 9), {"padding": (0, 4)}),
        ((9, 1), {"padding": (4, 0)}),
        ((3, 3), {"padding": 1, "padding_mode": "circular"}),
        ((2, 3), {"padding": 1, "padding_mode": "reflect"}),
        ((3, 3), {}),
    ):
        for width, layout in ((700, "C"), (821, "negative"), (600, "odd_unit")):
            yield _case((2, 4), (25, width), kernel, groups=2, x_layout=layout, l2=1 << 20, **arguments)
    for layout in ("C", "odd_unit"):
        yield _case((3, 3), (2_000,), (9,), padding=4, groups=3, x_layout=layout, l2=1 << 20)
        yield _case((1, 1), (1, 900), (1, 5), padding=(0, 2), x_layout=layout, out_layout=layout, l2=1 << 20)


def _patches() -> Iterator[Case]:
    # Outputs that share no pixel: rows of the strip follow one another. So may those of the output.
    for channels in ((3, 5), (2, 40), (70, 33)):
        for size, kernel, arguments in (
            ((60, 52), (4, 4), {"stride": 4}),
            ((35, 38), (2, 2), {"stride": 2}),
            ((33, 23), (1, 1), {"stride": 2}),
            ((31, 20), (2, 3), {"stride": (3, 4)}),
            ((40, 17), (2, 2), {"stride": (5, 3), "dilation": (4, 2)}),
            ((96, 48), (16, 16), {"stride": 16}),
        ):
            for layout in ("", "channels_last", "sliced"):
                yield _case(channels, size, kernel, out_layout=layout, **arguments)
        yield _case(channels, (60, 52), (4, 4), stride=4, l2=1 << 14)
        yield _case(channels, (31, 70), (2, 2), stride=2, x_layout="channels_last", out_layout="negative")
    yield _case((6, 10), (33, 40), (3, 2), stride=(3, 2), groups=2, src_dtype="uint8")


def _panels_of_scalars() -> Iterator[Case]:
    # More pixels than a short row has, under weights that a small cache does not hold, the last block of them narrower.
    for size in ((2, 17), (1, 41), (38, 1)):
        for layout in ("", "channels_last", "sliced"):
            yield _case((260, 200), size, (1, 1), out_layout=layout, l2=40_000)
        yield _case((270, 216), size, (1, 1), x_layout="channels_last", l2=45_000)


def _narrow_channels_last() -> Iterator[Case]:
    # Fewer columns than a tile has pixels, and a last vector of channels that is not full.
    for channels in (4, 17, 31):
        for width in (5, 12, 13):
            layouts = {"x_layout": "channels_last", "out_layout": "channels_last"}
            yield _case((channels, channels), (22, width), (1, 1), groups=channels, **layouts)
            yield _case((channels, channels), (300, width), (3, 3), padding=1, groups=channels, **layouts)


def _no_whole_window_inside() -> Iterator[Case]:
    # Channels-last depthwise whose stride leads from border to border: no output has all its taps inside the image.
    for size in ((1, 1), (2, 2), (1, 20), (20, 1), (3, 2)):
        for stride, padding in ((10, 5), (5, 2), ((1, 10), (0, 5)), ((7, 1), (4, 0))):
            yield _case((16, 16), size, (1, 1), stride=stride, padding=padding, groups=16, x_layout="channels_last")
            yield _case((16, 16), size, (2, 2), stride=stride, padding=(5, 5), groups=16, x_layout="channels_last")


def _groups_channels_last() -> Iterator[Case]:
    layouts = {"x_layout": "channels_last", "out_layout": "channels_last"}
    for icg in (2, 3, 4, 8):
        for groups in (4, 11, 32):
            channels = (icg * groups, icg * groups)
            yield _case(channels, (20, 31), (3, 3), padding=1, groups=groups, **layouts)
            yield _case(channels, (9, 7), (2, 3), stride=2, dilation=(1, 2), groups=groups, **layouts)


def _strips_of_groups() -> Iterator[Case]:
    # Groups whose pixels are gathered together, the last of them fewer, in a whole strip and in strips of a few rows.
    for channels, groups, oc in ((96, 12, 24), (80, 5, 40), (66, 11, 121), (64, 2, 6)):
        for kernel, arguments in (
            ((3, 3), {"padding": 1}),
            ((3, 3), {"padding": 1, "stride": 2}),
            ((2, 3), {"padding": 2, "stride": (1, 3), "dilation": (2, 1), "padding_mode": "reflect"}),
            ((3, 1), {"padding": (1, 0)}),
        ):
            for layout in ("channels_last", ""):
                layouts = {"x_layout": "channels_last", "out_layout": layout}
                yield _case((channels, oc), (9, 8), kernel, groups=groups, l2=64 << 10, **layouts, **arguments)
                yield _case((channels, oc), (34, 9), kernel, groups=groups, l2=64 << 10, **layouts, **arguments)
        yield _case((channels, oc), (20, 9), (3, 3), stride=2, groups=groups, l2=64 << 10, x_layout="some_channels")
        yield _case(
            (channels, oc), (9, 8), (3, 3), groups=groups, l2=64 << 10, x_layout="channels_last", src_dtype="uint8"
        )


def _lines_of_any_dtype() -> Iterator[Case]:
    # Widened, and repeated into the padding, several lines at a time: the channels of a row, or the rows of a channel,
    # which may be neighbours, too.
    for src_dtype, mode, stride in product(
        ("", "bool", "int16"), ("zeros", "reflect", "replicate", "circular"), ((1, 1), (2, 2), (1, 3))
    ):
        arguments = {"src_dtype": src_dtype, "padding_mode": mode, "stride": stride, "padding": (4, 5)}
        for layout in ("C", "channels_last", "negative"):
            yield _case((5, 3), (11, 19), (3, 4), x_layout=layout, **arguments)
            yield _case((6, 6), (11, 19), (3, 3), groups=6, x_layout=layout, **arguments)
            yield _case((40, 40), (9, 10), (3, 3), groups=40, x_layout=layout, **arguments)
        yield Case((1, 1, 23, 10), (2, 1, 3, 3), x_layout="F", **arguments)


def _pairs_of_tiles() -> Iterator[Case]:
    # Two tiles of one size, the second of which moves back to end with the row.
    for width in (9, 10, 12, 15, 18, 20, 28, 30, 44, 60):
        yield _case((3, 5), (3, width), (3, 3), padding=1)
        yield _case((3, 5), (3, width), (1, 1), out_layout="sliced")
        yield _case((40, 2), (2, width), (3, 1), padding=(1, 0), l2=1 << 14)


def _depthwise_in_channel_vectors() -> Iterator[Case]:
    # Planes whose channels are transposed, in whole rows and in pieces of rows, and whose last vector is not full.
    for channels in (8, 44, 72):
        for size in ((14, 14), (3, 4), (17, 9)):
            for stride in (1, 2):
                yield _case((channels, channels), size, (5, 5), padding=2, stride=stride, groups=channels)
        yield _case((channels, channels), (20, 300), (3, 3), padding=1, stride=(4, 3), dilation=2, groups=channels)


def _repeated_channels() -> Iterator[Case]:
    # Several output channels of each channel, as many as a vector has lanes and more: slots that begin and end within
    # those of one channel, in one strip and in several, from images that are copied, transposed and widened.
    for channels, repeats in product((3, 8, 21, 50), (2, 3, 4, 5, 7, 8, 9, 16, 17)):
        pair, size = (channels, channels * repeats), (6, 11)
        groups = {"groups": channels, "out_layout": "channels_last"}
        for layout in ("channels_last", "C", "some_channels"):
            yield _case(pair, size, (3, 3), padding=1, x_layout=layout, **groups)
            yield _case(pair, size, (3, 2), padding=(1, 2), stride=2, padding_mode="reflect", x_layout=layout, **groups)
            yield _case(pair, size, (2, 3), padding=(4, 5), dilation=(5, 4), x_layout=layout, **groups)
        yield _case(pair, (23, 40), (5, 3), padding=2, l2=1 << 14, src_dtype="int8", x_layout="some_channels", **groups)
        yield _case(pair, (70,), (4,), stride=3, x_layout="some_channels", **groups)


def _pairs_of_columns() -> Iterator[Case]:
    # Stride 2: every second pixel to one segment of the strip, the ones between to another.
    for width in (31, 32, 33, 34, 70):
        for kernel, before, after in ((2, 0, 0), (3, 1, 1), (3, 0, 1), (5, 2, 0), (6, 5, 1), (7, 3, 9)):
            sides = ((before, after), (before, after))
            yield _case((3, 3), (6, width), (3, kernel), padding=sides, stride=2, groups=3)
            yield _case((2, 5), (6, width), (2, kernel), padding=sides, stride=(1, 2))


def _phases_of_columns() -> Iterator[Case]:
    # Strides whose remainders are all gathered at once, and kernels in which two taps share a remainder.
    for stride in (4, 8):
        for width in (40, 67, 131, 280):
            for kernel, padding, dilation in ((stride, 0, 1), (stride, 3, 1), (stride + 3, 2, 1), (3, 1, stride + 1)):
                size, sides, apart = (stride + 1, width), (0, padding), (1, dilation)
                yield _case((3, 5), size, (2, kernel), stride=stride, padding=sides, dilation=apart)
                size, sides = (2 * stride + 1, width), (3, padding)  # rows above and below the image, too
                yield _case((3, 5), size, (3, kernel), stride=stride, padding=sides, dilation=apart)


def _panels_of_pixels() -> Iterator[Case]:
    # So many channels that the pixels of a tile get a strip of their own, a few channels of each after another's.
    for ic in (200, 333):
        for kernel, padding in (((1, 1), 0), ((3, 1), (1, 0)), ((2, 1), (2, 3))):
            for size in ((3, 1), (3, 23), (2, 100)):
                yield _case((ic, 3), size, kernel, padding=padding)
        yield _case((ic, 3), (7, 41), (3, 1), padding=(1, 2), stride=(3, 2), padding_mode="reflect")
        yield _case((2 * ic, 6), (5, 41), (3, 1), padding=(1, 0), groups=2, x_layout="channels_last")


def _deep_and_heavy() -> Iterator[Case]:
    # Scalars of pixels in whole cache lines; weights that no second level cache holds.
    for size in (5, 7, 13):
        yield _case((832, 64), (size, size), (1, 1))
        yield _case((400, 64), (2 * size, size), (1, 1), stride=2, padding=1)
    yield _case((512, 512), (5, 7), (3, 3), padding=1)
    yield _case((512, 512), (9, 7), (3, 3), padding=1, stride=2)


def _slices_of_channels() -> Iterator[Case]:
    # Pixels and weights beyond a (small) second level cache, and weights that two or fewer tasks want.
    for oc in (40, 100):
        for size in ((5, 7), (1, 13), (7, 3)):
            for image in ((96, *size), (2, 96, *size)):
                yield Case(image, (oc, 96, 1, 1), l2=16 << 10)
                yield Case(image, (oc, 96, 3, 3), padding=1, l2=48 << 10)
                yield Case(image, (oc, 96, 3, 2), padding=2, stride=2, l2=48 << 10, weight_layout="negative")


def _few_channels_last() -> Iterator[Case]:
    # Gathered four pixels at a time, of two to seven channels; of two or three the last pixel by itself.
    for ic in range(2, 8):
        for width in (3, 4, 5, 6, 8, 9, 13):
            for layout in ("channels_last", "some_channels"):
                yield _case((ic, 3), (2, width), (1, 3), padding=(0, 1), x_layout=layout)
                yield _case((ic, 9), (3, 2 * width), (3, 3), padding=1, stride=2, x_layout=layout)
                yield _case((ic, 9), (3, 2 * width), (3, 3), padding=1, stride=2, x_layout=layout, src_dtype="int8")


def _vectors_in_the_image() -> Iterator[Case]:
    # 1x1 kernels on neighbouring pixels and few output channels, which nothing is gathered for unless there is padding
    # or a stride along the row, a row or the last task of one is shorter than a tile, or channels fall on one another.
    for ic, oc, size in (
        (3, 1, (9, 40)), (16, 2, (3, 67)), (17, 9, (5, 33)), (33, 20, (6, 16)), (24, 6, (7, 15)), (8, 3, (2, 1024)),
    ):  # fmt: skip
        for layout in ("C", "sliced", "negative", "permuted", "misaligned", "broadcast"):
            yield _case((ic, oc), size, (1, 1), x_layout=layout, out_layout="sliced" if oc % 2 else "", l2=20_000)
        for arguments in ({"stride": (2, 1)}, {"stride": (1, 2)}, {"padding": ((0, 1), (0, 0))}):
            yield _case((ic, oc), size, (1, 1), x_layout="C", **arguments)
        for l2 in (0, 16 << 10):
            yield _case((3 * ic, 3 * oc), size, (1, 1), groups=3, x_layout="C", l2=l2)
    yield _case((40, 5), (530,), (1,), x_layout="C", out_layout="negative", l2=1 << 14)
    yield _case((1100, 3), (40,), (1,), x_layout="C")


def _points_in_the_image() -> Iterator[Case]:
    # 1x1 kernels on neighbouring channels, which nothing is gathered for unless there is padding, or pixels lie
    # backwards, or so far apart that a tile's fall on one another in the cache.
    shapes = ((16, 40, (5, 13)), (33, 7, (30, 3)), (130, 90, (4, 29)), (1024, 130, (2, 17)), (15, 33, (6, 7)))
    for ic, oc, size in shapes:
        for layout in ("channels_last", "some_channels"):
            for arguments in ({}, {"stride": 2}, {"stride": (1, 3)}, {"padding": ((0, 1), (0, 0)), "stride": 2}):
                out_layout = "channels_last" if oc % 2 else ""
                yield _case((ic, oc), size, (1, 1), x_layout=layout, out_layout=out_layout, **arguments)
        yield _case((3 * ic, 3 * oc), size, (1, 1), groups=3, x_layout="channels_last", l2=16 << 10)
    yield _case((96, 40), (41,), (1,), x_layout="channels_last", out_layout="sliced")


def _widened_parts() -> Iterator[Case]:
    # Channels-last of another dtype than the sums', widened in parts of a row, the last of few pixels.
    for ic, width in ((3, 345), (5, 300), (20, 53), (300, 5), (1025, 2)):
        for dtype in ("uint8", "int16"):
            for stride in (1, 2, 3):
                arguments = {"padding": (0, 1), "stride": (1, stride), "src_dtype": dtype}
                yield _case((ic, 3), (2, width), (1, 3), x_layout="channels_last", **arguments)
        yield _case((4 * ic, 8), (2, width), (1, 2), groups=4, x_layout="some_channels", src_dtype="uint8")


def _transposed_blocks() -> Iterator[Case]:
    # Channels-last, gathered in blocks of whole vectors that overlap at the last channels and the last pixels.
    for ic in (7, 8, 9, 15, 16, 17, 33):
        for width in (7, 8, 9, 16, 17, 31):
            yield _case((ic, 3), (2, width), (1, 3), padding=(0, 1), x_layout="channels_last")


_FAMILIES = (
    _fewer_rows_than_stride,
    _stride_beyond_kernel,
    _padding_beyond_kernel,
    _right_padding_beyond_left,
    _pixels_left_over,
    _no_tap_on_a_pixel,
    _padding_beyond_dilated_kernel,
    _kernel_over_both_borders,
    _awkward_channels,
    _one_channel_to_the_last_row,
    _pointwise,
    _one_column,
    _wide_kernel,
    _large_kernel_and_stride,
    _more_than_one_strip,
    _depthwise_channels_last,
    _depthwise_wide_rows,
    _patches,
    _panels_of_scalars,
    _narrow_channels_last,
    _groups_channels_last,
    _strips_of_groups,
    _no_whole_window_inside,
    _depthwise_in_channel_vectors,
    _repeated_channels,
    _pairs_of_columns,
    _phases_of_columns,
    _panels_of_pixels,
    _deep_and_heavy,
    _slices_of_channels,
    _transposed_blocks,
    _few_channels_last,
    _vectors_in_the_image,
    _points_in_the_image,
    _widened_parts,
    _lines_of_any_dtype,
    _pairs_of_tiles,
)

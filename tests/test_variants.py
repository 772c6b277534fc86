"""Every tile that a build offers, forced, bit for bit: no variant can be added without being tested.

The list is the build's own (`variants`), and so is the test that it is complete: a plan may name no tile outside it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pyconv import _reference
from pyconv._complex import real_problem
from pyconv._dispatch import Kernels, forced
from pyconv._dtypes import ACCUMULATOR
from pyconv._execute import CACHES, run
from pyconv._line import lay_out
from pyconv._plan import Plan, make_plan
from pyconv._problem import ConvProblem
from pyconv._tiles import Caches

# Kernel widths with instances of their own, and one that is known at run time only.
WIDTHS = (1, 2, 3, 4)
DTYPES = ("float32", "float64")


def problem(
    dtype: str, *, g: int, icg: int, ocg: int, oh: int, ow: int, kh: int, kw: int, sh: int, sw: int
) -> ConvProblem:
    """Two images with a border of zeros on the left and above."""
    return ConvProblem(
        mb=2, g=g, ic=g * icg, ih=(oh - 1) * sh + kh - 1, iw=(ow - 1) * sw + kw - 1,
        oc=g * ocg, oh=oh, ow=ow, kh=kh, kw=kw, sh=sh, sw=sw, dh=1, dw=1,
        pt=1, pb=0, pl=1, pr=0, padding_mode="zeros", dtype=dtype, src_dtype=dtype, dst_dtype=dtype,
    )  # fmt: skip


def lanes_and_tiles(kernels: Kernels, dtype: str, role: str) -> tuple[int, list[tuple[str, int, int]]]:
    """Return the lanes of a vector, and the tiles of a role, of which every build has some."""
    tiles = [tile for tile in kernels.module.variants() if tile[0] == role]
    assert tiles
    return kernels.tiles.vector_bytes // np.dtype(dtype).itemsize, tiles


def check(plan: Plan, rng: np.random.Generator, as_given: ConvProblem | None = None) -> None:
    """Compare integers, which every order of summation gets exactly, in both layouts of the output.

    `as_given` is the problem, where it is one of complex numbers.
    """
    p = as_given or plan.problem

    def draw(*shape: int) -> np.ndarray:
        values = rng.integers(-8, 9, (2, *shape))
        return (values[0] + 1j * values[1] if as_given else values[0]).astype(p.dst_dtype)

    images = draw(p.mb, p.ic, p.ih, p.iw)
    weight, bias = draw(p.oc, p.ic // p.g, p.kh, p.kw), draw(p.oc)
    expected = _reference.conv(p, images, weight, bias, np.complex128 if as_given else np.float64)
    planes = np.full((p.mb, p.oc, p.oh, p.ow), np.nan, p.dst_dtype)
    channels_last = np.full((p.mb, p.oh, p.ow, p.oc), np.nan, p.dst_dtype).transpose(0, 3, 1, 2)
    other = np.ascontiguousarray(images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    pairs = [(images, planes), (images, channels_last), (other, planes)]
    pairs += [(other, channels_last)] * (plan.tile.role in ("oc", "dc"))
    for x, out in pairs:
        for packs in (None, {}):  # weights for this call, weights to be kept
            out[...] = np.nan
            run(plan, x, weight, bias, out, packs)
            np.testing.assert_array_equal(out, expected, err_msg=str(plan))


def with_blocks(plan: Plan, **changes: Any) -> Plan:
    """Return the plan with some of its blocks replaced."""
    return replace(plan, blocks=replace(plan.blocks, **changes))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("role", ["oc", "ow"])
def test_dense_tile(isa: str, role: str, dtype: str) -> None:
    rng = np.random.default_rng(0)
    with forced(isa) as kernels:
        lanes, tiles = lanes_and_tiles(kernels, dtype, role)
        for _, nv, m in tiles:
            # Exactly one tile in each direction, then one more pixel and channel than that.
            vectors, scalars = (nv * lanes, m)
            for more in (0, 1):
                ocg, ow = (vectors, scalars) if role == "oc" else (scalars, vectors)
                kw = WIDTHS[(nv + m + more) % len(WIDTHS)]
                p = problem(
                    dtype,
                    g=1,
                    icg=2,
                    ocg=ocg + more,
                    oh=2,
                    ow=ow + more,
                    kh=2,
                    kw=kw,
                    sh=1,
                    sw=1 + more,
                )
                check(make_plan(p, kernels.tiles, CACHES, 1, False, (role, nv, m)), rng)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_kernel_of_every_tile(isa: str, dtype: str) -> None:
    rng = np.random.default_rng(1)
    with forced(isa) as kernels:
        lanes = kernels.tiles.vector_bytes // np.dtype(dtype).itemsize
        for role, nv, m in kernels.module.variants():
            if role in ("dw", "dc"):
                continue
            ocg, ow = (nv * lanes, m) if role == "oc" else (m, nv * lanes)
            # Above the image the padding leaves one tap of (8, 2, 1), and two of (3, 3, 1).
            shapes = ((3, 1, 1), (8, 1, 1), (8, 2, 1), (3, 3, 1), (3, 3, 3), *((3, 2, width) for width in WIDTHS))
            for icg, kh, kw in shapes:
                for sw in (1, 2):  # where the taps of a row are neighbours, and where they are not
                    p = problem(dtype, g=1, icg=icg, ocg=ocg, oh=2, ow=ow, kh=kh, kw=kw, sh=1, sw=sw)
                    check(make_plan(p, kernels.tiles, CACHES, 1, False, (role, nv, m)), rng)
                    # A cache so small that the channels come in several passes.
                    check(make_plan(p, kernels.tiles, Caches(64, 256), 1, False, (role, nv, m)), rng)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_tile_of_pixels_that_lie_apart(isa: str, dtype: str) -> None:
    """Under a 1x1 kernel, with channels left over from those of a turn: channels-last images are read as they lie."""
    rng = np.random.default_rng(5)
    with forced(isa) as kernels:
        lanes, tiles = lanes_and_tiles(kernels, dtype, "oc")
        for role, nv, m in tiles:
            for icg in (16, 17, 18, 39):
                for stride in (1, 2):
                    p = problem(
                        dtype, g=2, icg=icg, ocg=nv * lanes + 1, oh=2, ow=m + 1, kh=1, kw=1, sh=stride, sw=stride
                    )
                    p = replace(p, pt=0, pl=0, ih=2 * stride, iw=(m + 1) * stride)
                    whole = make_plan(p, kernels.tiles, CACHES, 1, False, (role, nv, m))
                    check(whole, rng)
                    if icg == 39:
                        check(with_blocks(whole, ic_slice=20), rng)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_tile_of_vectors_in_the_image(isa: str, dtype: str) -> None:
    """Under a 1x1 kernel, rows of as many pixels as a tile has, and of one more; of one less they are gathered."""
    rng = np.random.default_rng(7)
    read = set()
    with forced(isa) as kernels:
        lanes, tiles = lanes_and_tiles(kernels, dtype, "ow")
        for role, nv, m in tiles:
            for ow in (nv * lanes - 1, nv * lanes, nv * lanes + 1):
                for icg, stride in ((3, 1), (4, 2), (9, 1)):
                    p = problem(dtype, g=2, icg=icg, ocg=2 * m + 1, oh=2, ow=ow, kh=1, kw=1, sh=stride, sw=1)
                    p = replace(p, pt=0, pl=0, ih=2 * stride, iw=ow)
                    whole = make_plan(p, kernels.tiles, CACHES, 1, False, (role, nv, m))
                    check(whole, rng)
                    read.add((ow < nv * lanes, whole.reads_image))
    assert read == {(True, False), (False, True)}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("role", ["oc", "ow"])
def test_strips_of_groups(isa: str, role: str, dtype: str) -> None:
    """Pixels of 2 and of 3 of 5 groups gathered together: in rows and in panels, for all output channels or shares."""
    rng = np.random.default_rng(6)
    with forced(isa) as kernels:
        lanes, tiles = lanes_and_tiles(kernels, dtype, role)
        nv, m = 2, max(m for _, nv, m in tiles if nv == 2)
        for kw, panel in ((3, 0), (1, 0), (1, nv * lanes if role == "ow" else m)):
            p = problem(dtype, g=5, icg=3, ocg=5 * lanes, oh=3, ow=3 * max(m, lanes), kh=2, kw=kw, sh=1, sw=1)
            whole = make_plan(p, kernels.tiles, CACHES, 1, False, (role, nv, m))
            cols = lay_out(kw, 1, 1, panel or p.ow, 0 if panel else whole.tile.overhang)
            for groups in (2, 3):
                for shares in (1, 2):
                    changes = {"g_blk": 2 * groups, "g_strip": groups, "n_oc_task": shares}
                    check(with_blocks(whole, **changes, panel=panel, cols=cols), rng)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_tile_in_slices(isa: str, dtype: str) -> None:
    """5 channels, 2 at a time: the sums of all tiles of a block wait for the next ones."""
    rng = np.random.default_rng(4)
    with forced(isa) as kernels:
        lanes, tiles = lanes_and_tiles(kernels, dtype, "oc")
        for role, nv, m in tiles:
            for more in (0, 1):
                for kh, kw in ((1, 1), (3, 2)):
                    p = problem(
                        dtype, g=2, icg=5, ocg=2 * nv * lanes - more, oh=3, ow=2 * m + more, kh=kh, kw=kw, sh=1, sw=1
                    )
                    whole = make_plan(p, kernels.tiles, CACHES, 1, False, (role, nv, m))
                    assert whole.n_ic_blk == 1
                    check(with_blocks(whole, ic_slice=2), rng)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_every_tile_of_complex_numbers(isa: str, dtype: str) -> None:
    """Pairs of channels, of which a tile may begin or end in the middle; in passes and slices, too."""
    rng = np.random.default_rng(5)
    with forced(isa) as kernels:
        lanes = 2 * kernels.tiles.vector_bytes // np.dtype(dtype).itemsize
        for role, nv, m in kernels.module.variants():
            if role == "dw" or (role == "dc" and lanes == 2):  # a pair of channels into a pair needs other tiles
                continue
            g, icg, ocg, ow = {
                "oc": (2, 3, nv * lanes // 2, m),
                "ow": (2, 3, (m + 1) // 2, nv * lanes),
                "dc": (lanes // 2, 1, 1, m),
            }[role]
            for kh, kw in ((1, 1), (2, 3)):
                for more, caches in enumerate((CACHES, Caches(64, 256))):
                    numbers = problem(
                        dtype, g=g, icg=icg, ocg=ocg + more * (role != "dc"), oh=2, ow=ow + more, kh=kh, kw=kw, sh=1,
                        sw=1 + more,
                    )  # fmt: skip
                    numbers = replace(numbers, dtype=ACCUMULATOR[dtype])
                    plan = make_plan(real_problem(numbers), kernels.tiles, caches, 1, False, (role, nv, m))
                    check(plan, rng, numbers)
                    if role == "oc" and plan.n_ic_blk == 1:
                        check(with_blocks(plan, ic_slice=1), rng, numbers)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_tile_fuses(isa: str, dtype: str) -> None:
    """No instance rounds a product by itself, as some compilers' tunings would have the smallest tiles do.

    With x = w = 1 + e, bias -1 and e = 2 ** -p just below half the precision, the product's last term, e * e, is lost
    unless it reaches the sum unrounded.
    """
    if isa == "x86-64-v2":
        pytest.skip("no fused multiply-add")
    e = 2.0 ** -(13 if dtype == "float32" else 28)
    with forced(isa) as kernels:
        lanes = kernels.tiles.vector_bytes // np.dtype(dtype).itemsize
        for role, nv, m in kernels.module.variants():
            rows = [(1, 1, 1), (1, 1, 3), (1, 1, 4)]  # channels, and rows and columns of the kernel
            for icg, kh, kw in {"dw": [(1, 3, 3)], "dc": rows}.get(role, [*rows, (4, 1, 1), (1, 3, 3)]):
                g, ocg, oh, ow = {
                    "oc": (1, nv * lanes, 1, m),
                    "ow": (1, m, 1, nv * lanes),
                    "dw": (1, 1, m, nv * lanes),
                    "dc": (lanes, 1, 1, m),
                }[role]
                bordered = problem(dtype, g=g, icg=icg, ocg=ocg, oh=oh, ow=ow, kh=kh, kw=kw, sh=1, sw=1)
                p = replace(bordered, ih=oh + kh - 1, iw=ow + kw - 1, pt=0, pl=0)
                x = np.full((p.mb, p.ic, p.ih, p.iw), 1 + e, dtype)
                weight = np.zeros((p.oc, icg, kh, kw), dtype)
                weight[:, -1, -1, -1] = 1 + e
                out = np.empty((p.mb, p.oc, p.oh, p.ow), dtype)
                plan = make_plan(p, kernels.tiles, CACHES, 1, False, (role, nv, m))
                run(plan, x, weight, np.full(p.oc, -1, dtype), out)
                assert (out == 2 * e + e * e).all(), str(plan)


@pytest.mark.parametrize("dtype", DTYPES)
def test_depthwise_tile(isa: str, dtype: str) -> None:
    rng = np.random.default_rng(2)
    with forced(isa) as kernels:
        lanes, tiles = lanes_and_tiles(kernels, dtype, "dw")
        assert kernels.tiles.depthwise_kernels
        for role, nv, rows in tiles:
            for kh, sh in sorted(
                kernels.tiles.depthwise_kernels & {(k, s) for k in (1, 2, 3, 4, 5, 7, 11) for s in (1, 2)}
            ):
                for more in (0, 1):
                    p = problem(
                        dtype, g=2, icg=1, ocg=1 + more, oh=rows + more, ow=nv * lanes + more,
                        kh=kh, kw=3, sh=sh, sw=1 + more,
                    )  # fmt: skip
                    check(make_plan(p, kernels.tiles, CACHES, 1, False, (role, nv, rows)), rng)


@pytest.mark.parametrize("dtype", DTYPES)
def test_grids_of_depthwise_tiles(isa: str, dtype: str) -> None:
    """Bands of two heights in rows of one to three widths of tiles, from each of the rows that are a dilation apart.

    In a strip and in the image; with a first level cache that holds all bands, some, or one.
    """
    rng = np.random.default_rng(8)
    with forced(isa) as kernels:
        lanes, tiles = lanes_and_tiles(kernels, dtype, "dw")
        for role, nv, rows in tiles:
            for width in (nv * lanes * 2, nv * lanes * 3 - 1, nv * lanes * 4 + 1):
                for oh, dilation, ways in ((5 * rows + 1, 1, 2), (5 * rows + 1, 1, 64), (23, 2, 64), (19, 9, 2)):
                    p = problem(dtype, g=2, icg=1, ocg=2, oh=oh, ow=width, kh=3, kw=3, sh=1, sw=1)
                    bordered = replace(p, dh=dilation, pt=dilation, ih=oh + dilation)
                    within = replace(p, dh=dilation, pt=0, pl=0, ih=oh + 2 * dilation, iw=width + 2)
                    for given in (bordered, within):
                        plan = make_plan(given, kernels.tiles, CACHES, 1, False, (role, nv, rows))
                        check(replace(plan, l1_ways=ways), rng)


@pytest.mark.parametrize("dtype", DTYPES)
def test_depthwise_tile_of_channels(isa: str, dtype: str) -> None:
    rng = np.random.default_rng(2)
    with forced(isa) as kernels:
        lanes, tiles = lanes_and_tiles(kernels, dtype, "dc")
        for role, nv, pixels in tiles:
            # One vector of channels, and more of them than four cache lines hold.
            for vectors, kw in [*((1, width) for width in WIDTHS), (17, 2)]:
                for more in (0, 1):
                    p = problem(
                        dtype, g=vectors * lanes + more, icg=1, ocg=1, oh=2, ow=pixels + more,
                        kh=2, kw=kw, sh=1, sw=1 + more,
                    )  # fmt: skip
                    check(make_plan(p, kernels.tiles, CACHES, 1, False, (role, nv, pixels)), rng)


@pytest.mark.parametrize("dtype", DTYPES)
def test_repeated_channels(isa: str, dtype: str) -> None:
    """Several output channels of each channel; parts of 17 vectors begin within those of one."""
    rng = np.random.default_rng(2)
    with forced(isa) as kernels:
        lanes, tiles = lanes_and_tiles(kernels, dtype, "dc")
        for repeats in {2, 3, 5, 7, lanes}:
            if repeats > lanes:
                continue
            for role, nv, pixels in tiles:
                for vectors in (1, 17):
                    p = problem(
                        dtype, g=vectors * lanes // repeats + 1, icg=1, ocg=repeats, oh=2, ow=pixels + 1,
                        kh=2, kw=3, sh=1, sw=2,
                    )  # fmt: skip
                    check(make_plan(p, kernels.tiles, CACHES, 1, False, (role, nv, pixels)), rng)


@pytest.mark.parametrize("dtype", DTYPES)
def test_depthwise_tile_of_channels_in_the_image(isa: str, dtype: str) -> None:
    """So many pixels that they are read where they are: inside a frame or, far from each other, in rectangles."""
    rng = np.random.default_rng(2)
    with forced(isa) as kernels:
        lanes, tiles = lanes_and_tiles(kernels, dtype, "dc")
        for role, nv, pixels in tiles:
            near = problem(dtype, g=3 * lanes + 1, icg=1, ocg=1, oh=28, ow=29, kh=3, kw=3, sh=1, sw=1)
            far = replace(near, ih=28, iw=29, dh=5, dw=4, pt=5, pb=5, pl=4, pr=4)
            for p in (near, far):
                check(make_plan(p, kernels.tiles, CACHES, 1, False, (role, nv, pixels)), rng)


@pytest.mark.parametrize("dtype", DTYPES)
def test_groups_in_a_vector(isa: str, dtype: str) -> None:
    """2, 4, ... channels to a group, by vectors that hold several groups."""
    rng = np.random.default_rng(3)
    with forced(isa) as kernels:
        lanes, tiles = lanes_and_tiles(kernels, dtype, "dc")
        for icg in (2, 4, 8):
            if icg >= lanes:
                continue
            for role, nv, pixels in tiles:
                for more in (0, 1):
                    p = problem(
                        dtype, g=lanes // icg + more, icg=icg, ocg=icg, oh=2 + 20 * more, ow=pixels + more,
                        kh=2, kw=1 + 2 * more, sh=1, sw=1 + more,
                    )  # fmt: skip
                    check(make_plan(p, kernels.tiles, CACHES, 1, False, (role, nv, pixels)), rng)


def test_the_plan_names_listed_tiles_only(isa: str) -> None:
    rng = np.random.default_rng(3)
    with forced(isa) as kernels:
        listed = set(kernels.module.variants())
        for _ in range(300):
            g, icg, ocg, oh, ow, kh, kw = (int(n) for n in rng.integers(1, [5, 20, 200, 60, 130, 8, 8]))
            p = problem("float32", g=g, icg=icg, ocg=ocg, oh=oh, ow=ow, kh=kh, kw=kw, sh=1, sw=1)
            plan = make_plan(p, kernels.tiles, CACHES, 2)
            assert (plan.tile.role, plan.tile.NV, plan.tile.largest) in listed

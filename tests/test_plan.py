"""The plan is a value: tested without compiled code, without data."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pyconv._blocks import Blocks
from pyconv._line import lay_flat, lay_out
from pyconv._plan import Plan, make_plan
from pyconv._prices import even_tails, tile_cycles, unevenness
from pyconv._problem import ConvProblem
from pyconv._tiles import Caches, TileTable, round_up

AVX512 = TileTable.of(
    "x86-64-v4",
    64,
    [(role, nv, m) for role in ("oc", "ow") for nv, most in enumerate((14, 14, 8, 6), 1) for m in range(1, most + 1)]
    + [("dw", nv, rows) for nv in range(1, 5) for rows in range(1, 5)]
    + [("dc", 1, pixels) for pixels in range(1, 15)],
    [(3, 1), (3, 2), (5, 1), (5, 2)],
)
AVX2 = TileTable.of(
    "x86-64-v3",
    32,
    [(role, nv, m) for role in ("oc", "ow") for nv, most in enumerate((14, 6, 4, 3), 1) for m in range(1, most + 1)]
    + [("dw", nv, rows) for nv, most in enumerate((4, 4, 4, 2), 1) for rows in range(1, most + 1)]
    + [("dc", 1, pixels) for pixels in range(1, 15)],
    [(3, 1), (3, 2), (5, 1), (5, 2)],
)
CACHES = Caches(32 << 10, 1 << 20)
HALF_L2 = replace(CACHES, l2=512 << 10)
LARGE = Caches(48 << 10, 2 << 20)

LAYER = ConvProblem(
    mb=1, g=1, ic=64, ih=56, iw=56, oc=64, oh=56, ow=56, kh=3, kw=3, sh=1, sw=1, dh=1, dw=1,
    pt=1, pb=1, pl=1, pr=1, padding_mode="zeros", dtype="float32", src_dtype="float32", dst_dtype="float32",
)  # fmt: skip
DEPTHWISE = replace(LAYER, g=64)


def plan(problem: ConvProblem, threads: int = 1, caches: Caches = CACHES) -> Plan:
    return make_plan(problem, AVX512, caches, threads)


def test_an_ordinary_layer_puts_its_output_channels_into_vectors() -> None:
    assert plan(LAYER).tile.role == "oc"
    assert plan(LAYER).tile.lanes == 16


def test_few_output_channels_put_pixels_into_vectors() -> None:
    assert plan(replace(LAYER, oc=3)).tile.role == "ow"


def test_depthwise_has_a_tile_of_its_own_where_one_exists() -> None:
    assert plan(DEPTHWISE).tile.role == "dw"
    assert plan(replace(DEPTHWISE, dh=2, pt=2, pb=2)).tile.role == "dw"
    assert plan(replace(DEPTHWISE, dh=2, sh=2, pt=2, pb=2, oh=28)).tile.role == "dc"
    assert plan(replace(DEPTHWISE, kh=2, pt=0, pb=1)).tile.role == "dc"


def test_depthwise_vectors_are_channels_where_these_are_neighbours_or_rows_are_short() -> None:
    assert make_plan(DEPTHWISE, AVX512, CACHES, 1, channels_last=True).tile.role == "dc"
    assert plan(replace(DEPTHWISE, ih=14, iw=14, oh=14, ow=14)).tile.role == "dc"
    assert plan(replace(DEPTHWISE, g=3, ic=3, oc=3, ih=14, iw=14, oh=14, ow=14)).tile.role == "dw"


@pytest.mark.parametrize("ic", [1, 64, 512, 4096, 65536])
@pytest.mark.parametrize("size", [1, 7, 56, 1000])
@pytest.mark.parametrize("kernel", [1, 3, 9])
def test_scratch_is_bounded_by_the_cache(ic: int, size: int, kernel: int) -> None:
    p = replace(LAYER, ic=ic, ih=size, iw=size, oh=size, ow=size, kh=kernel, kw=kernel,
                pt=kernel // 2, pb=kernel // 2, pl=kernel // 2, pr=kernel // 2)  # fmt: skip
    chosen = plan(p)
    whole_small_map = size * size <= 400 and chosen.n_oh_blk == chosen.n_ow_blk == chosen.n_ic_blk == 1
    assert chosen.strip_bytes <= (5 << 19 if whole_small_map else CACHES.l2)
    assert chosen.thread_bytes <= (4 << 20 if whole_small_map else 2 * CACHES.l2)


@pytest.mark.parametrize("ic", [25_088, 100_000])
def test_sums_that_wait_are_bounded_too(ic: int) -> None:
    p = replace(LAYER, ic=ic, oc=100_000, ih=32, iw=32, oh=32, ow=32, kh=1, kw=1, pt=0, pb=0, pl=0, pr=0)
    assert plan(p).n_ic_blk > 1
    assert plan(p).thread_bytes <= 2 * CACHES.l2


@pytest.mark.parametrize("channels", [4, 17, 31, 129])
def test_a_last_vector_of_channels_finds_room(channels: int) -> None:
    """Its tiles run along the rows of a block, or down its columns where these are fewer than a tile's pixels."""
    for oh in (*range(1, 40), 200, 1000):
        for ow in (*range(1, 20), 30, 500, 3001):
            p = replace(DEPTHWISE, g=channels, ic=channels, oc=channels, ih=oh, iw=ow, oh=oh, ow=ow)
            chosen = make_plan(p, AVX512, CACHES, 1, channels_last=True)
            if chosen.tile.role != "dc":
                continue
            for rows in {chosen.blocks.oh_blk, oh % chosen.blocks.oh_blk}:
                for columns in {chosen.blocks.ow_blk, ow % chosen.blocks.ow_blk}:
                    down = columns < min(rows, chosen.tile.M[0])
                    band, length = (columns, rows) if down else (rows, columns)
                    assert min(band, chosen.blocks.band) * length * chosen.tile.vector_bytes <= chosen.tile_bytes, p


def test_a_large_map_reads_the_larger_of_weights_and_image_once() -> None:
    deep = replace(LAYER, ic=512, oc=512, ih=28, iw=28, oh=28, ow=28)
    wide = replace(LAYER, ih=224, iw=224, oh=224, ow=224)
    of_weights, of_pixels = (make_plan(p, AVX512, CACHES, 1, tile=("oc", 4, 6)) for p in (deep, wide))
    assert of_weights.n_ic_blk > 1
    assert (of_weights.n_oh_blk, of_weights.blocks.n_oc_task > 1) == (1, True)
    assert of_pixels.n_ic_blk > 1
    assert (of_pixels.n_oh_blk > 1, of_pixels.blocks.n_oc_task) == (True, 1)


def pointwise(ic: int, size: int, oc: int) -> ConvProblem:
    pixels = size * size
    return replace(LAYER, ic=ic, oc=oc, ih=1, iw=pixels, oh=1, ow=pixels, kh=1, kw=1, pt=0, pb=0, pl=0, pr=0)


def dense(icg: int, size: int, oc: int, g: int = 1, p: int = 1) -> ConvProblem:
    """Return a 3x3 convolution that computes a map of size x size pixels."""
    full = size + 2 - 2 * p
    return replace(LAYER, g=g, ic=icg * g, oc=oc, ih=full, iw=full, oh=size, ow=size, pt=p, pb=p, pl=p, pr=p)


def patches(ic: int, size: int, oc: int, k: int) -> ConvProblem:
    full = size * k
    return replace(
        LAYER, ic=ic, oc=oc, ih=full, iw=full, oh=size, ow=size, kh=k, kw=k, sh=k, sw=k, pt=0, pb=0, pl=0, pr=0
    )


def signal(ic: int, ow: int, oc: int, k: int, s: int = 1) -> ConvProblem:
    iw = (ow - 1) * s + k
    return replace(LAYER, ic=ic, oc=oc, ih=1, iw=iw, oh=1, ow=ow, kh=1, kw=k, sw=s, pt=0, pb=0, pl=0, pr=0)


def test_outputs_that_share_no_pixel_lie_in_a_flat_strip() -> None:
    tokens = patches(3, 56, 96, 4)
    flat = make_plan(tokens, AVX2, HALF_L2, 1)
    assert flat.blocks.flat
    assert flat.row_pitch == flat.blocks.ow_blk == 56
    assert not make_plan(replace(tokens, sh=3, ih=169), AVX2, HALF_L2, 1).blocks.flat, "rows share pixels"
    assert not make_plan(replace(tokens, pl=1, pr=1, iw=222), AVX2, HALF_L2, 1).blocks.flat, "there are explicit zeros"
    assert not make_plan(replace(tokens, oh=1, ih=4), AVX2, HALF_L2, 1).blocks.flat, "there is one row"


def test_many_pixels_of_scalars_come_in_panels() -> None:
    deep = make_plan(pointwise(2048, 7, 512), AVX2, HALF_L2, 1)
    assert (deep.tile.role, deep.blocks.ow_blk) == ("oc", 49)
    assert deep.blocks.panel == deep.blocks.cols.length == deep.tile.largest
    assert deep.n_panels == 9


def test_long_rows_of_scalars_come_in_panels_unless_channels_are_neighbours() -> None:
    def panel(icg: int, size: int, x_channels_last: bool, src_dtype: str = "float32") -> int:
        p = replace(pointwise(icg, size, 960), src_dtype=src_dtype)
        return make_plan(p, AVX2, HALF_L2, 1, tile=("oc", 2, 6), x_channels_last=x_channels_last).blocks.panel

    assert panel(160, 7, x_channels_last=False) == 6
    assert panel(160, 7, x_channels_last=True) == 0
    assert panel(2048, 7, x_channels_last=False) == 6
    assert panel(2048, 7, x_channels_last=True) == 0, "they are read in the image"
    assert panel(2048, 7, x_channels_last=True, src_dtype="float16") == 6, "they are converted"
    assert panel(80, 7, x_channels_last=False) == 0, "all tiles fit half of the cache"
    assert panel(960, 5, x_channels_last=False) == 0, "a row is no longer than two lines"


def test_rows_are_cut_between_tiles() -> None:
    last = {"channels_last": True, "x_channels_last": True}
    p = replace(LAYER, ic=512, oc=512, ih=52, iw=52, oh=52, ow=52)
    assert make_plan(p, AVX2, HALF_L2, 1, tile=("oc", 3, 4), **last).blocks.ow_blk == 28, "not two times 26"
    p = pointwise(512, 14, 160)
    assert make_plan(p, AVX2, HALF_L2, 1, tile=("oc", 3, 4), **last).blocks.ow_blk == 52, "not four times 49"


def test_images_larger_than_the_cache_come_in_passes_of_three_vectors() -> None:
    large = replace(LAYER, ic=128, oc=128, ih=112, iw=112, oh=112, ow=112)
    assert plan(large, caches=Caches(48 << 10, 2 << 20)).tile.NV == 3
    assert plan(large, caches=Caches(48 << 10, 16 << 20)).tile.NV == 2, "as cheap, and without passes"


def test_channels_lie_together_as_far_as_a_first_level_cache_goes() -> None:
    p = replace(DEPTHWISE, kh=7, kw=7, pt=3, pb=3, pl=3, pr=3)
    for l1, lanes in ((48 << 10, 16), (128 << 10, 64)):
        chosen = make_plan(p, AVX512, Caches(l1, 2 << 20), 1, channels_last=True, x_channels_last=True)
        assert chosen.tile.role == "dc"
        assert chosen.blocks.slot == lanes


def test_few_strips_of_points_far_apart_reuse_weights_from_beyond_the_cache() -> None:
    p = replace(
        LAYER, ic=512, oc=1024, ih=28, iw=28, oh=14, ow=14, kh=1, kw=1, sh=2, sw=2, pt=0, pb=0, pl=0, pr=0,
        dtype="float64", src_dtype="float64", dst_dtype="float64",
    )  # fmt: skip
    chosen = make_plan(p, AVX2, HALF_L2, 1, tile=("oc", 2, 6))
    assert chosen.blocks.oh_blk == 4
    assert HALF_L2.l2 // 4 < chosen.strip_bytes <= HALF_L2.l2 // 2


def test_vectors_of_pixels_leave_a_flat_strip_only_if_they_have_to() -> None:
    def panel(icg: int, stride: int) -> int:
        p = replace(pointwise(icg, 28, 128), ih=28 * stride, iw=28 * stride, oh=28, ow=28, sh=stride, sw=stride)
        return make_plan(p, AVX2, HALF_L2, 1, tile=("ow", 2, 6)).blocks.panel

    assert panel(160, 1) == 0
    assert panel(256, 2) == 0
    assert panel(264, 2) == 16
    one_row = make_plan(pointwise(192, 28, 128), AVX2, HALF_L2, 1, tile=("ow", 2, 6))
    assert one_row.blocks.panel == 16


def test_pixels_that_overflow_the_first_level_cache_come_in_panels() -> None:
    deep = make_plan(pointwise(512, 28, 128), AVX2, HALF_L2, 1)
    assert deep.tile.role == "ow"
    assert deep.blocks.panel == deep.blocks.cols.length == deep.tile.NV * deep.tile.lanes
    assert deep.n_panels > 1
    assert deep.strip_bytes == 4 * deep.n_panels * 512 * deep.blocks.panel
    shallow = make_plan(pointwise(64, 56, 256), AVX2, HALF_L2, 1)
    assert (shallow.tile.role, shallow.blocks.panel, shallow.n_panels) == ("ow", 0, 1)


def test_scalars_that_overflow_the_first_level_cache_come_in_whole_lines() -> None:
    deep = make_plan(pointwise(832, 7, 128), AVX2, HALF_L2, 1, tile=("oc", 2, 6))
    assert (deep.n_ow_blk, deep.blocks.ow_blk, deep.blocks.cols.length) == (2, 25, 32)
    shallow = make_plan(pointwise(64, 7, 384), AVX2, HALF_L2, 1, tile=("oc", 2, 6))
    assert (shallow.n_ow_blk, shallow.blocks.cols.length) == (1, 49)


def test_weights_that_overflow_the_second_level_cache_are_fetched_once() -> None:
    heavy = replace(LAYER, ic=512, oc=512, ih=14, iw=14, oh=14, ow=14)
    light = replace(heavy, oc=32)
    assert make_plan(heavy, AVX2, HALF_L2, 1, tile=("oc", 2, 6)).n_oh_blk == 1
    assert make_plan(light, AVX2, HALF_L2, 1, tile=("oc", 2, 6)).n_oh_blk > 1


def test_rows_are_cut_where_a_tile_would_sweep_over_many_pages() -> None:
    def blocks(channels: int, size: int, kw: int = 3) -> Blocks:
        p = replace(LAYER, ic=channels, oc=256, ih=size + 2, iw=size + kw - 1, oh=size, ow=size, kw=kw, pt=0, pl=0)
        return make_plan(replace(p, pb=0, pr=0), AVX2, HALF_L2, 1, tile=("oc", 2, 6)).blocks

    for channels, size, ow_blk in ((128, 138, 69), (256, 136, 34), (256, 56, 28), (64, 138, 138), (32, 1000, 334)):
        chosen = blocks(channels, size)
        assert chosen.ow_blk == ow_blk
        assert 3 * channels * chosen.cols.length * 4 <= 32 * 4096
    assert blocks(256, 28).ow_blk == 28, "two pieces of 14 pixels would have tiles of 4"
    assert blocks(256, 136, kw=1).ow_blk > 34, "under kernels of one column each pixel is read once"


def test_rows_stay_whole_where_the_cache_holds_those_of_a_pass() -> None:
    for channels, size, kernel, dtype in ((1024, 28, 3, "float32"), (1024, 28, 3, "float64"), (640, 30, 5, "float32")):
        extents = {"ic": channels, "oc": 1024, "ih": size, "iw": size, "oh": size, "ow": size}
        same = dict.fromkeys(("pt", "pb", "pl", "pr"), kernel // 2)
        p = replace(LAYER, **extents, **same, kh=kernel, kw=kernel, dtype=dtype, src_dtype=dtype, dst_dtype=dtype)
        chosen = make_plan(p, AVX2, HALF_L2, 1, tile=("oc", 2, 6))
        assert chosen.blocks.ow_blk == size
        assert 512 // kernel**2 <= chosen.blocks.ic_blk < channels
        assert chosen.strip_bytes <= HALF_L2.l2


def test_rows_of_a_flat_map_which_comes_in_no_passes_are_long() -> None:
    flat = replace(LAYER, ic=384, oc=512, ih=1, iw=56, oh=1, ow=56, kh=5, kw=5, pt=2, pb=2, pl=2, pr=2)
    chosen = make_plan(flat, AVX2, HALF_L2, 1, tile=("oc", 2, 6))
    assert (chosen.n_ic_blk, chosen.blocks.ow_blk) == (1, 56)


def test_strips_of_many_pixels_leave_the_cache_to_weights() -> None:
    def strip(channels: int, size: int) -> tuple[int, int]:
        p = replace(LAYER, ic=channels, oc=1024, ih=size, iw=size, oh=size, ow=size)
        chosen = make_plan(p, AVX2, HALF_L2, 1, tile=("oc", 2, 6))
        return chosen.strip_bytes, chosen.blocks.oh_blk * chosen.blocks.ow_blk

    for channels, size in ((64, 56), (128, 84), (256, 56), (512, 32), (512, 28)):
        size_of_strip, pixels = strip(channels, size)
        assert size_of_strip <= HALF_L2.l2 // 2 or pixels < 256 + size
    assert strip(512, 32)[0] > 0.9 * HALF_L2.l2, "of few pixels, as many as fit"


def test_heavy_weights_are_fetched_once_under_small_maps() -> None:
    expand = make_plan(pointwise(512, 7, 2048), AVX2, HALF_L2, 1, tile=("oc", 2, 6))
    assert (expand.n_ow_blk, expand.blocks.panel, expand.blocks.ic_slice) == (1, 6, 512)
    assert make_plan(pointwise(832, 7, 384), AVX2, HALF_L2, 1, tile=("oc", 2, 6)).n_ow_blk == 1
    beyond_the_cache = make_plan(pointwise(1024, 14, 512), AVX2, HALF_L2, 1, tile=("oc", 2, 6))
    assert beyond_the_cache.n_ow_blk == 7


def test_small_maps_stay_whole_beyond_the_cache_where_taps_share_their_pixels() -> None:
    def extents(channels: int, size: int, stride: int, kernel: int = 3, l2: int = 512 << 10) -> tuple[int, int, int]:
        p = replace(
            LAYER, ic=channels, oc=channels, ih=size * stride, iw=size * stride, oh=size, ow=size, kh=kernel, kw=kernel,
            sh=stride, sw=stride,
        )  # fmt: skip
        chosen = make_plan(p, AVX2, replace(CACHES, l2=l2), 1, tile=("oc", 4, 3))
        assert chosen.strip_bytes <= min(5 * l2, 5 << 19)
        return chosen.blocks.oh_blk, chosen.blocks.ow_blk, chosen.n_ic_blk

    assert extents(256, 14, 2) == extents(512, 14, 2) == (14, 14, 1)
    assert extents(512, 16, 2) == (16, 16, 1)
    assert extents(1024, 14, 1) == (14, 14, 1)
    assert extents(1024, 20, 1) == (20, 20, 1)
    assert extents(256, 14, 2, l2=128 << 10) != (14, 14, 1), "more than five times the cache"
    assert extents(1024, 14, 2, l2=1 << 20) != (14, 14, 1), "more than 2.5 MiB"
    assert extents(256, 21, 2) != (21, 21, 1), "more pixels than weights are worth"
    assert extents(512, 14, 3) != (14, 14, 1), "each pixel serves one tap"


def test_pixels_and_weights_beyond_the_second_level_cache_come_in_slices() -> None:
    small = replace(LAYER, ic=512, oc=512, ih=7, iw=7, oh=7, ow=7)
    chosen = make_plan(small, AVX2, HALF_L2, 1, tile=("oc", 3, 4))
    assert chosen.n_ic_blk == 1
    assert chosen.blocks.ic_slice < 512 == chosen.blocks.ic_blk
    assert HALF_L2.l2 // 8 < chosen.blocks.ic_slice * (3 * 64 + 9 * 3 * 32) <= HALF_L2.l2 // 4
    assert make_plan(small, AVX2, replace(HALF_L2, l2=2 << 20), 1, tile=("oc", 3, 4)).blocks.ic_slice == 512


def test_groups_of_neighbouring_channels_share_a_strip() -> None:
    def blocks(channels: int, size: int, stride: int = 1, threads: int = 1, **changes: Any) -> Blocks:
        p = replace(LAYER, ic=channels, oc=channels, g=32, ih=size * stride, iw=size * stride, oh=size, ow=size)
        p = replace(p, sh=stride, sw=stride, **changes)
        return make_plan(p, AVX2, HALF_L2, threads, channels_last=True, x_channels_last=True).blocks

    small = blocks(512, 28)
    assert (small.g_strip, small.oh_blk) == (4, 28), "16 channels are a line, and four lines are gathered together"
    assert blocks(1024, 7).g_blk == 10, "of two groups in a strip, five times as many operations as a task may have"
    assert blocks(256, 56).g_strip == 1, "all rows of 8 groups are larger than half of the cache"
    strided = blocks(256, 28, stride=2)
    assert (strided.g_strip, strided.g_blk, strided.oh_blk) == (8, 8, 7)
    assert blocks(4096, 7).g_strip == 1, "a group has more channels than are gathered together"
    assert blocks(256, 28, kh=1, kw=1, pt=0, pb=0, pl=0, pr=0).g_strip == 1
    assert blocks(256, 28, stride=2, iw=60_000, ow=30_000).g_strip == 1
    p = replace(LAYER, ic=512, oc=512, g=32, ih=28, iw=28, oh=28, ow=28)
    assert make_plan(p, AVX2, HALF_L2, 1).blocks.g_strip == 1
    for threads, groups in ((2, 4), (4, 4), (8, 2), (16, 1)):
        shared = make_plan(p, AVX2, HALF_L2, threads, channels_last=True, x_channels_last=True)
        assert (shared.blocks.g_strip, shared.n_oh_blk) == (groups, 1), "no thread has less than two strips"
    uneven = make_plan(replace(p, g=9, ic=72, oc=72), AVX2, HALF_L2, 1, channels_last=True, x_channels_last=True)
    assert uneven.blocks.g_strip == 5, "not 8 and 1"


def test_groups_of_a_strip_fit_the_cache_whole() -> None:
    for size in range(1, 70):
        for icg in (1, 2, 3, 8, 12, 33, 64):
            p = replace(LAYER, ic=icg * 12, oc=12 * 8, g=12, ih=size, iw=size, oh=size, ow=size)
            for stride in (1, 2):
                strided = replace(p, sh=stride, sw=stride, ih=size * stride, iw=size * stride)
                chosen = make_plan(strided, AVX2, HALF_L2, 1, channels_last=True, x_channels_last=True)
                b = chosen.blocks
                assert b.g_strip == 1 or (b.ic_blk == icg and chosen.n_ow_blk == 1 and b.g_blk % b.g_strip == 0)
                assert b.g_strip == 1 or chosen.strip_bytes <= HALF_L2.l2 // 2


def test_groups_follow_one_another_on_maps_of_little_more_than_their_share() -> None:
    p = replace(LAYER, ic=256, oc=256, g=32, oh=28, ow=28, sh=2, sw=2)
    tile = ("ow", 2, 6)
    chosen = make_plan(p, AVX2, HALF_L2, 1, tile=tile)
    assert HALF_L2.l2 // 4 < chosen.strip_bytes
    assert (chosen.n_oh_blk, chosen.blocks.g_blk) == (1, 11)
    assert make_plan(replace(p, ih=80, iw=80, oh=40, ow=40), AVX2, HALF_L2, 1, tile=tile).n_oh_blk > 1
    assert make_plan(replace(p, ic=8, oc=8, g=1), AVX2, HALF_L2, 1, tile=tile).n_oh_blk > 1, "there is one group"


def test_weights_of_one_call_are_packed_by_the_tasks_that_want_them() -> None:
    small = replace(LAYER, ic=512, oc=512, ih=7, iw=7, oh=7, ow=7)
    assert plan(small).packs_in_tasks
    assert plan(small, threads=8).packs_in_tasks
    assert plan(replace(small, mb=2)).packs_in_tasks
    assert not plan(replace(small, mb=3)).packs_in_tasks
    assert not plan(LAYER).packs_in_tasks
    assert not plan(replace(DEPTHWISE, mb=3)).packs_in_tasks
    assert plan(small).part_bytes < plan(small).packed_size * 4 / 10


def test_a_pass_sums_enough_taps_to_pay_for_its_sums() -> None:
    deep = replace(LAYER, ic=512, oc=512, ih=28, iw=28, oh=28, ow=28)
    chosen = make_plan(deep, AVX512, HALF_L2, 1, tile=("oc", 3, 8))
    assert chosen.n_ic_blk > 1
    assert 512 <= 9 * chosen.blocks.ic_blk < 600


def test_only_vectors_of_a_whole_line_want_their_weights_in_the_first_level_cache() -> None:
    deep = replace(LAYER, ic=256, oc=256, ih=28, iw=28, oh=28, ow=28)
    assert make_plan(deep, AVX512, HALF_L2, 1, tile=("oc", 3, 8)).n_ic_blk > 1
    assert make_plan(deep, AVX2, HALF_L2, 1, tile=("oc", 3, 4)).n_ic_blk == 1


def test_three_pixels_by_four_vectors_suit_a_few_pixels_of_four_vectors_of_channels() -> None:
    groups = replace(LAYER, g=32, ic=1024, oc=1024, ih=7, iw=7, oh=7, ow=7)
    tile = make_plan(groups, AVX2, HALF_L2, 1, channels_last=True, x_channels_last=True).tile
    assert (tile.role, tile.NV, tile.largest) == ("oc", 4, 3)


def test_strided_points_follow_one_another_in_slices() -> None:
    """Lines of 1024 channels hold the pixels of the next tile: few channels at a time, and they are still there."""
    strided = replace(pointwise(1024, 7, 512), ih=14, iw=14, oh=7, ow=7, sh=2, sw=2)
    blocks = make_plan(strided, AVX2, HALF_L2, 1, tile=("oc", 2, 6)).blocks
    assert blocks.flat
    assert 16 << 9 < blocks.ic_slice * (64 + 64) <= 16 << 10
    in_the_image = make_plan(strided, AVX2, HALF_L2, 1, tile=("oc", 2, 6), x_channels_last=True).blocks
    assert in_the_image.ic_slice == 1024
    one_row = make_plan(pointwise(1024, 7, 512), AVX2, HALF_L2, 1, tile=("oc", 2, 6)).blocks
    assert (one_row.flat, one_row.panel, one_row.ic_slice) == (False, 6, 1024)


def test_vectors_of_pixels_serve_kernels_of_few_channels_on_wide_maps() -> None:
    """They are stored as they are, and the lines that a tile reads stay in the first level cache."""
    wide = replace(LAYER, ih=224, iw=224, oh=224, ow=224)
    assert make_plan(wide, AVX2, HALF_L2, 1).tile.role == "ow"
    assert make_plan(replace(wide, ic=256), AVX2, HALF_L2, 1).tile.role == "oc"


def test_few_output_channels_read_pixels_in_the_image() -> None:
    assert make_plan(pointwise(480, 14, 16), AVX2, HALF_L2, 1).reads_image
    assert not make_plan(pointwise(480, 14, 256), AVX2, HALF_L2, 1).reads_image, "there are too many"
    assert not make_plan(replace(pointwise(480, 14, 16), src_dtype="uint8"), AVX2, HALF_L2, 1).reads_image
    assert not make_plan(replace(LAYER, oc=8), AVX2, HALF_L2, 1, tile=("ow", 2, 6)).reads_image, "it is no 1x1 kernel"
    assert not make_plan(pointwise(480, 3, 16), AVX2, HALF_L2, 1, tile=("ow", 2, 6)).reads_image, "9 pixels, 16 a tile"
    integers = replace(pointwise(480, 14, 16), dtype="uint32", src_dtype="int32")
    assert make_plan(integers, AVX2, HALF_L2, 1, tile=("ow", 2, 6)).reads_image, "sums are of the same bits"


def test_scalars_of_points_are_read_in_the_image() -> None:
    def reads(p: ConvProblem) -> bool:
        return make_plan(p, AVX2, HALF_L2, 1, tile=("oc", 2, 6), x_channels_last=True).reads_image

    points = pointwise(16, 14, 64)
    assert reads(points)
    assert reads(replace(points, ih=28, iw=28, oh=14, ow=14, sh=2, sw=2)), "they may lie apart"
    assert not reads(replace(points, ic=15)), "of few channels a pixel has too little of a line"
    assert not reads(replace(points, g=2)), "8 channels of each"
    assert not reads(replace(points, src_dtype="float16")), "they are converted"
    assert not reads(replace(points, pl=1, ow=points.ow + 1)), "some are zeros"
    assert not reads(replace(points, pr=1, ow=points.ow + 1)), "some are zeros"
    assert reads(replace(points, ih=28, oh=14, sh=2, pb=1)), "no output reads the padding"
    assert not reads(replace(LAYER, ic=16)), "it is no 1x1 kernel"
    sliced = make_plan(replace(points, ic=31), AVX2, HALF_L2, 1, tile=("oc", 2, 6))
    assert not replace(sliced, blocks=replace(sliced.blocks, ic_slice=16)).reads_image, (
        "15 channels in the second slice"
    )


def test_vectors_of_channels_are_read_in_an_image_that_has_each_of_them_once() -> None:
    tile = AVX2.tile(DEPTHWISE, "dc", 1)
    assert tile.reads_image(DEPTHWISE, x_channels_last=True)
    assert not tile.reads_image(DEPTHWISE, x_channels_last=False), "pixels are neighbours there"
    assert not tile.reads_image(replace(DEPTHWISE, oc=2 * DEPTHWISE.oc), x_channels_last=True), "they are repeated"
    assert not tile.reads_image(replace(DEPTHWISE, src_dtype="uint8"), x_channels_last=True), "they are converted"


def test_many_channels_for_one_block_come_a_line_at_a_time() -> None:
    tile = make_plan(pointwise(64, 388, 2), AVX2, HALF_L2, 1).tile
    assert (tile.role, tile.NV) == ("ow", 2)
    assert make_plan(pointwise(8, 388, 2), AVX2, HALF_L2, 1).tile.NV > 2


def test_strided_points_of_channels_last_images_keep_their_rows() -> None:
    """Their tiles end with each row: what would suit one of 49 pixels does not suit seven of 7."""
    p = replace(LAYER, ic=1024, oc=2048, ih=14, iw=14, oh=7, ow=7, kh=1, kw=1, sh=2, sw=2, pt=0, pb=0, pl=0, pr=0)
    assert make_plan(p, AVX2, HALF_L2, 1, channels_last=True, x_channels_last=True).tile.NV > 2
    assert make_plan(p, AVX2, HALF_L2, 1, channels_last=True).tile.NV == 2


def test_vectors_of_strided_pixels_in_panels_are_priced_row_by_row() -> None:
    """Two of them leave 2 of 16 lanes of a row of 14 pixels unused."""

    def role(icg: int) -> str:
        p = replace(pointwise(icg, 14, 1024), ih=28, iw=28, oh=14, ow=14, sh=2, sw=2)
        return make_plan(p, AVX2, HALF_L2, 1).tile.role

    assert role(512) == "oc"
    assert role(128) == "ow", "no panels: rows follow one another"


def test_a_strip_of_many_rows_holds_fewer_channels() -> None:
    """Where the sums of many rows fit, the rows under a tall, dilated kernel may not."""
    tall = replace(
        LAYER, mb=9, ic=512, oc=1, ih=300, iw=31, oh=100, ow=5015, kh=5, kw=11, sw=2, dh=100, dw=2,
        pt=100, pb=100, pl=5000, pr=5000,
    )  # fmt: skip
    for table in (AVX2, AVX512):
        for tile in (None, ("oc", 1, 14)):
            assert make_plan(tall, table, Caches(4 << 10, 256 << 10), 1, tile=tile).strip_bytes <= 256 << 10


def test_units_of_half_the_width_leave_time_to_stream_weights() -> None:
    deep = replace(LAYER, ic=512, oc=512, ih=28, iw=28, oh=28, ow=28)
    tile = ("oc", 4, 6)
    two, one = (make_plan(deep, replace(AVX512, fmas=fmas), CACHES, 1, tile=tile) for fmas in (2, 1))
    assert two.n_ic_blk > one.n_ic_blk > 1
    assert one.n_ic_blk == 3, "in half of the second level cache"


def test_few_taps_take_no_more_accumulators_than_can_wait_to_be_stored() -> None:
    first = replace(LAYER, ic=3, ih=224, iw=224, oh=224, ow=224)
    chosen = make_plan(first, replace(AVX512, fmas=1), CACHES, 1)
    assert chosen.tile.role == "ow"
    assert chosen.tile.largest * chosen.tile.NV <= 16


def test_wide_loads_are_fewer_than_two_a_cycle() -> None:
    for m, nv in ((6, 4), (8, 3), (14, 2)):
        assert tile_cycles(m, nv, nv, 64, 2) == pytest.approx(m * nv / 2 + 0.05 * (m + nv) / 1.5)
    assert tile_cycles(14, 1, 1, 64, 2) == pytest.approx(1.05 * 15 / 1.5), "a load for each multiply-add"
    assert tile_cycles(14, 2, 2, 64, 1) == 28
    deep = replace(LAYER, ic=256, oc=256)
    assert plan(deep).tile.NV == 3, "streams fewer weights than four"


@pytest.mark.parametrize("table", [AVX2, AVX512], ids=lambda table: table.isa)
def test_transposing_pays_where_vectors_of_pixels_have_few_sums_or_tails(table: TileTable) -> None:
    def role(p: ConvProblem) -> str:
        return make_plan(p, of_all_sizes, HALF_L2, 1).tile.role

    of_all_sizes = replace(table, depthwise_kernels=frozenset((k, s) for k in (1, 3, 5, 7, 31) for s in (1, 2)))

    def depthwise(size: int, k: int, stride: int = 1) -> ConvProblem:
        image = {"ih": size * stride, "iw": size * stride, "oh": size, "ow": size, "sh": stride, "sw": stride}
        return replace(DEPTHWISE, **image, kh=k, kw=k, pt=k // 2, pb=k // 2, pl=k // 2, pr=k // 2)

    assert role(depthwise(56, 3)) == "dw"
    assert role(depthwise(28, 3)) == ("dw" if table is AVX2 else "dc"), "two vectors of 16 are too few sums"
    assert role(depthwise(28, 7)) == "dc", "taps enough to make up for it"
    assert role(depthwise(28, 7, stride=2)) == "dc"
    assert role(depthwise(56, 31)) == "dw", "the pixels under a tile are more than a first level cache holds"
    one_unit = replace(table, fmas=1)
    assert make_plan(depthwise(28, 3), one_unit, HALF_L2, 1).tile.role == "dw", "enough for a single unit"
    assert role(replace(depthwise(28, 3), iw=32, ow=32)) == "dw"
    assert role(depthwise(14, 3)) == role(depthwise(7, 3)) == "dc", "vectors mostly of tails"
    signal = replace(DEPTHWISE, kh=1, pt=0, pb=0, ih=1, oh=1, iw=400, ow=400)
    assert role(signal) == "dw"
    assert role(replace(signal, kw=31, pl=15, pr=15)) == "dc", "a tile of one row is of four chains at most"


@pytest.mark.parametrize("table", [AVX2, AVX512], ids=lambda table: table.isa)
@pytest.mark.parametrize("last", [False, True])
def test_wide_strides_do_not_gather_what_lies_between_their_taps(table: TileTable, last: bool) -> None:
    table = replace(table, depthwise_kernels=frozenset({(1, 1), (3, 1)}))
    for stride in (8, 64, 3000, 35000):
        for kh in (1, 3):
            wide = replace(DEPTHWISE, kh=kh, ih=8, oh=8, iw=14 * stride, ow=14, sw=stride, pt=kh // 2, pb=kh // 2)
            chosen = make_plan(wide, table, HALF_L2, 1, channels_last=last, x_channels_last=last)
            assert chosen.scratch_bytes <= 2 * HALF_L2.l2
            assert last or chosen.tile.role == "dw"


def test_channels_are_repeated_where_the_outputs_are_neighbours() -> None:
    twice = replace(DEPTHWISE, oc=2 * DEPTHWISE.oc)
    chosen = make_plan(twice, AVX2, HALF_L2, 1, channels_last=True, x_channels_last=True)
    assert chosen.tile.role == "dc"
    assert chosen.blocks.slot == 40, "output channels"
    assert chosen.source_slot == 24, "20 of them, or 21 where the first one's began before"
    strip, source = chosen.row_pitch * chosen.blocks.rows.length, 24 * chosen.blocks.cols.length
    assert chosen.strip_bytes == round_up(4 * (strip + 8 + source), 64)
    assert make_plan(DEPTHWISE, AVX2, HALF_L2, 1, channels_last=True).source_slot == 0
    assert make_plan(twice, AVX2, HALF_L2, 1).tile.role == "dw"
    for repeats in (7, 8):
        many = replace(DEPTHWISE, oc=repeats * DEPTHWISE.oc)
        role = make_plan(many, AVX2, HALF_L2, 1, channels_last=True).tile.role
        assert role == ("dc" if repeats < 8 else "oc"), "a whole vector takes the channel as a scalar"


def test_neighbouring_channels_are_permuted_where_groups_are_few_lanes() -> None:
    def role(table: TileTable, icg: int, stride: int = 1, size: int = 56) -> str:
        p = replace(LAYER, g=64 // icg, sh=stride, sw=stride, ih=size * stride, iw=size * stride, oh=size, ow=size)
        return make_plan(p, table, HALF_L2, 1, channels_last=True, x_channels_last=True).tile.role

    assert [role(AVX2, icg) for icg in (1, 2, 4)] == ["dc", "dc", "ow"]
    assert [role(AVX512, icg) for icg in (1, 2, 4, 8)] == ["dc", "dc", "dc", "ow"]
    assert [role(AVX512, icg, stride=2) for icg in (4, 8)] == ["dc", "ow"]
    assert [role(AVX2, icg, stride=2, size=14) for icg in (4, 8)] == ["dc", "oc"], "rows of one tile"


def test_a_part_of_a_vector_for_each_pixel_takes_time() -> None:
    groups = replace(LAYER, g=32, ic=96, oc=96, ih=28, iw=28, oh=28, ow=28)
    assert make_plan(groups, AVX2, HALF_L2, 1, channels_last=True, x_channels_last=True).tile.role == "ow"
    few = pointwise(480, 14, 16)
    assert make_plan(few, AVX512, CACHES, 1, channels_last=True, x_channels_last=True).tile.role == "oc"
    assert make_plan(few, AVX512, CACHES, 1).tile.role == "ow"


def test_threads_have_tiles_that_they_can_share() -> None:
    p = replace(LAYER, ic=512, oc=512, ih=7, iw=7, oh=7, ow=7)
    for threads in (2, 4, 8):
        tile = plan(p, threads).tile
        assert unevenness(tile.n_oc_blk(p), 7, threads) < 1.1
    assert AVX512.tile(p, "oc", 3).n_oc_blk(p) == 11
    assert unevenness(11, 7, 8) == pytest.approx(8 / 7), "eight of seven rows, or else more of eleven blocks"
    assert unevenness(11, 7, 1) == 1


MEASURED = {
    "3x4 tiles wait for weights": (dense(256, 14, 256), AVX2, HALF_L2, ("oc", 2)),
    "14x1 tiles are short of loads": (dense(3, 32, 64), AVX2, HALF_L2, ("ow", 2)),
    "so are scalars of pixels": (dense(16, 14, 512, g=32), AVX2, HALF_L2, ("oc", 2)),
    "lines are written beside other work": (dense(1, 570, 64, p=0), AVX2, HALF_L2, ("ow", 2)),
    "patches stream": (patches(3, 16, 1024, 14), AVX2, HALF_L2, ("ow", 2)),
    "whatever their number, past vectors of whole lines": (signal(512, 999, 512, k=2, s=2), AVX512, LARGE, ("ow", 4)),
    "past shorter ones they do not if they are many": (signal(512, 999, 512, k=2, s=2), AVX2, HALF_L2, ("oc", 2)),
    "two taps are too few to reuse pixels": (signal(32, 15_999, 64, k=2), AVX2, HALF_L2, ("ow", 2)),
    "all the more if these are far away": (signal(2048, 999, 33, k=2), AVX2, HALF_L2, ("ow", 2)),
    "pixels in the image may be far away": (pointwise(256, 56, 64), AVX512, LARGE, ("ow", 3)),
    "few of them may not": (pointwise(64, 56, 64), AVX512, LARGE, ("ow", 2)),
    "nor those of small images, of which little is made": (pointwise(48, 28, 12), AVX512, LARGE, ("ow", 3)),
}


@pytest.mark.parametrize("rule", MEASURED)
def test_the_cheapest_tile_is_among_the_fastest_measured(rule: str) -> None:
    problem, table, caches, fastest = MEASURED[rule]
    tile = make_plan(problem, table, caches, 1).tile
    assert (tile.role, tile.NV) == fastest


def test_all_channels_of_a_pixel_are_written_at_once() -> None:
    image = replace(dense(3, 112, 32), ih=224, iw=224, sh=2, sw=2, pb=0, pr=0)
    assert make_plan(image, AVX2, HALF_L2, 1, channels_last=True, x_channels_last=True).tile.NV == 4


def test_an_empty_batch_has_a_plan() -> None:
    assert plan(replace(LAYER, mb=0)).n_tasks == 0


def test_rows_that_are_held_have_room() -> None:
    """Those of a block of vectors, transposed 8 or 16 at a time, in the buffers of as many tiles as wait."""
    for table in (AVX2, AVX512):
        for nv, most in enumerate(table.most("oc"), 1):
            for m in range(1, most + 1):
                tile = make_plan(LAYER, table, CACHES, 1, tile=("oc", nv, m))
                assert tile.n_buffers * tile.tile_bytes >= tile.rows_held * nv * table.vector_bytes
                assert tile.rows_held % 16 == 0


def test_scratch_is_that_of_each_thread() -> None:
    chosen = plan(LAYER, threads=4)
    assert chosen.blocks.threads == 4
    assert 4 * chosen.thread_bytes <= chosen.scratch_bytes < 4 * (chosen.thread_bytes + 4096)
    assert chosen.scratch_bytes % (4 * 4096) == 0, "whole pages, where there are several threads"
    assert plan(LAYER).scratch_bytes == plan(LAYER).thread_bytes


def test_small_work_runs_on_one_thread() -> None:
    tiny = replace(LAYER, ic=1, oc=1, ih=8, iw=8, oh=8, ow=8)
    assert plan(tiny, threads=64).blocks.threads == 1


def test_the_printed_plan_says_what_matters() -> None:
    text = str(plan(LAYER))
    for part in ("x86-64-v4", "oc-vector", "tile", "1 thread,", "KiB scratch"):
        assert part in text


def test_plans_that_share_packed_weights_agree_on_their_packing() -> None:
    assert plan(LAYER).packing == plan(replace(LAYER, mb=9)).packing
    tiles = [make_plan(replace(LAYER, ic=ic), AVX512, CACHES, 1, tile=("oc", 2, 14)).packing for ic in (32, 64)]
    assert tiles[0] != tiles[1]
    assert (
        plan(LAYER).packing != plan(replace(LAYER, dtype="float64", src_dtype="float64", dst_dtype="float64")).packing
    )


@pytest.mark.parametrize(
    ("n", "most", "tails"),
    [(18, 14, [(9, 2)]), (7, 8, [(7, 1)]), (23, 8, [(8, 2), (7, 1)]), (1, 4, [(1, 1)])],
)
def test_tails_are_even(n: int, most: int, tails: list[tuple[int, int]]) -> None:
    assert list(even_tails(n, most)) == tails
    assert sum(size * count for size, count in tails) == n


@pytest.mark.parametrize("taps", [(1, 1), (2, 3), (4, 4)])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("n_cols", [1, 3, 14, 16])
@pytest.mark.parametrize("overhang", [0, 7])
def test_flat_taps_find_their_pixels(taps: tuple[int, int], dilation: int, n_cols: int, overhang: int) -> None:
    """Each tap has a plane of its own, in which rows follow one another, with room for a vector to reach past it."""
    n_rows = 5
    steps = [k * dilation for k in taps]
    rows, cols = lay_flat(
        lay_out(taps[0], steps[0], dilation, n_rows),
        lay_out(taps[1], steps[1], dilation, n_cols, overhang),
        n_rows,
        n_cols,
        overhang,
    )
    assert rows.length == 1  # all of a channel's planes are columns
    holds: dict[int, tuple[int, int]] = {}
    for down in rows.segments:
        for along in cols.segments:
            plane = down.offset * n_cols + along.offset
            for i in range(n_rows * n_cols):
                assert plane + i not in holds, "two planes share a slot"
                holds[plane + i] = (down.first + i // n_cols * steps[0], along.first + i % n_cols * steps[1])
            assert plane % (overhang + 1) == 0
            assert plane + n_rows * n_cols + overhang <= cols.length
            assert not any(plane + n_rows * n_cols + i in holds for i in range(overhang))
    for kh, kw in np.ndindex(*taps):
        for i in range(n_rows * n_cols):
            found = holds[rows.taps[kh] * n_cols + cols.taps[kw] + i]
            assert found == (i // n_cols * steps[0] + kh * dilation, i % n_cols * steps[1] + kw * dilation)


@pytest.mark.parametrize("taps", [1, 2, 3, 7])
@pytest.mark.parametrize("step", [1, 2, 3, 8])
@pytest.mark.parametrize("dilation", [1, 2, 5])
@pytest.mark.parametrize("block", [1, 2, 9])
@pytest.mark.parametrize("overhang", [0, 3])
def test_every_tap_finds_its_coordinate(taps: int, step: int, dilation: int, block: int, overhang: int) -> None:
    line = lay_out(taps, step, dilation, block, overhang)
    holds: dict[int, int] = {}
    for segment in line.segments:
        for j in range(block + segment.extra):
            slot = segment.offset + j
            assert slot not in holds, "two segments share a slot"
            holds[slot] = segment.first + j * step
        assert segment.offset + block + segment.extra + overhang <= line.length
    for k in range(taps):
        for i in range(block):
            assert holds[line.taps[k] + i] == i * step + k * dilation
    window = (block - 1) * step + (taps - 1) * dilation + 1
    assert len(holds) <= min(window, taps * block)


@pytest.mark.parametrize("step", [1, 2, 3])
def test_the_only_tap_lies_at_the_pixel(step: int) -> None:
    """A strip holds nothing before the pixels of a 1x1 kernel."""
    assert list(lay_out(1, step, 1, 5, 15).taps) == [0]

"""What threads share out: even parts, cut where their outputs meet least."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest

from pyconv._plan import Plan, make_plan
from pyconv._problem import ConvProblem
from test_plan import AVX2, AVX512, HALF_L2, LAYER

POINTS = replace(LAYER, kh=1, kw=1, pt=0, pb=0, pl=0, pr=0, ih=1, oh=1, iw=784, ow=784)


def square(channels: int, size: int, *, batch: int = 1) -> ConvProblem:
    return replace(LAYER, mb=batch, ic=channels, oc=channels, ih=size, iw=size, oh=size, ow=size)


def shared(p: ConvProblem, threads: int, *, channels_last: bool = False) -> Plan:
    return make_plan(p, AVX2, HALF_L2, threads, channels_last, x_channels_last=channels_last)


def work(plan: Plan) -> Iterator[int]:
    """Go through the tasks in their order: blocks of channels times pixels of each."""
    p, b = plan.problem, plan.blocks
    shares = [len(range(i, plan.n_oc_blk, b.n_oc_task)) for i in range(b.n_oc_task)]  # the large ones first
    of_a_part = b.n_oc_task // b.n_oc_part
    for _ in range(p.mb * plan.n_g_blk):
        for part in range(b.n_oc_part):
            for row in range(plan.n_oh_blk):
                for col in range(plan.n_ow_blk):
                    pixels = min(b.oh_blk, p.oh - row * b.oh_blk) * min(b.ow_blk, p.ow - col * b.ow_blk)
                    yield from (pixels * share for share in shares[part * of_a_part : (part + 1) * of_a_part])


def busiest(plan: Plan) -> float:
    """Tell what the thread with the most to do has to do, if none is delayed, by what would be even."""
    tasks, threads = list(work(plan)), plan.blocks.threads
    ends = [len(tasks) * i // threads for i in range(threads + 1)]
    return max(sum(tasks[a:b]) for a, b in pairwise(ends)) * threads / sum(tasks)


@pytest.mark.parametrize("threads", [1, 2, 3, 8, 13, 64, 97])
@pytest.mark.parametrize("channels_last", [False, True])
def test_threads_get_tasks(threads: int, channels_last: bool) -> None:
    choose = random.Random(threads).choice
    for _ in range(300):
        channels, groups, size = choose((1, 3, 16, 48, 100, 512)), choose((1, 1, 4, 32)), choose((1, 5, 7, 14, 28, 100))
        p = replace(square(channels * groups, size, batch=choose((1, 2, 5))), g=groups)
        if choose((True, False)):
            p = replace(p, kh=1, kw=1, pt=0, pb=0, pl=0, pr=0)
        chosen = shared(p, threads, channels_last=channels_last)
        tile = (chosen.tile.role, chosen.tile.NV, chosen.tile.largest)
        alone = make_plan(p, AVX2, HALF_L2, 1, channels_last, tile, channels_last)
        b = chosen.blocks
        assert 1 <= b.threads <= threads
        assert chosen.n_tasks >= b.threads
        assert b.n_oc_task <= chosen.n_oc_blk
        assert b.n_oc_task % b.n_oc_part == 0
        if b.g_strip == alone.blocks.g_strip:
            assert b.oh_blk <= alone.blocks.oh_blk
            assert b.ow_blk <= alone.blocks.ow_blk, "what one thread takes fits the caches"
            assert chosen.thread_bytes <= alone.thread_bytes


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("threads", [2, 4, 8, 16])
def test_threads_have_as_much_to_do(threads: int, channels_last: bool) -> None:
    for channels, size in ((64, 56), (128, 28), (256, 14)):
        assert busiest(shared(square(channels, size), threads, channels_last=channels_last)) < 1.15
    for batch in (2, 3, 7):
        assert busiest(shared(square(64, 56, batch=batch), threads, channels_last=channels_last)) < 1.15


@pytest.mark.parametrize("threads", [5, 7, 11, 13, 43, 97])
def test_numbers_without_divisors_are_shared_out_too(threads: int) -> None:
    for table in (AVX2, AVX512):
        for channels, size in ((512, 7), (256, 14), (128, 28)):
            chosen = make_plan(square(channels, size), table, HALF_L2, threads)
            assert chosen.blocks.threads / busiest(chosen) > 0.65 * threads


def test_rows_that_follow_one_another_as_one_are_cut() -> None:
    chosen = shared(replace(POINTS, ic=64, oc=64), 2)
    assert chosen.n_ow_blk * chosen.blocks.n_oc_part > 1
    assert busiest(chosen) < 1.1


def test_heavy_weights_are_shared_out_and_the_rows_of_light_ones() -> None:
    heavy = shared(square(512, 7), 2).blocks
    assert (heavy.n_oc_part, heavy.oh_blk) == (2, 7)
    light = shared(replace(LAYER, ic=16, oc=16, ih=224, iw=224, oh=224, ow=224), 2)
    assert light.blocks.n_oc_part == 1
    assert light.n_oh_blk >= 2


def test_no_pixel_is_two_threads_where_its_channels_are_neighbours() -> None:
    for threads in (2, 4, 8):
        assert shared(square(64, 56), threads, channels_last=True).blocks.n_oc_part == 1


def test_parts_of_the_channels_serve_where_there_are_few_rows() -> None:
    single = replace(LAYER, ic=512, oc=512, ih=1, iw=7, oh=1, ow=7, kh=1, pt=0, pb=0)
    for channels_last in (False, True):
        assert make_plan(single, AVX512, HALF_L2, 8, channels_last).blocks.n_oc_task == 8


def test_batches_that_threads_share_evenly_are_not_cut_further() -> None:
    p = square(512, 7, batch=16)
    assert shared(p, 4).blocks == replace(shared(p, 1).blocks, threads=4)

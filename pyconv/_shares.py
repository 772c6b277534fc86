"""What threads share out: parts of the output channels, and blocks of pixels.

Each thread begins with tasks that follow one another, and takes over those of others when it has none left
(_queue.pxd). With two threads, and an output of four channels stored as (C, H, W)::

    two blocks of rows       c0 |aaaabbbb| c1 |aaaabbbb| c2 |aaaabbbb| c3 |aaaabbbb|
    two parts of channels    c0 |aaaaaaaa| c1 |aaaaaaaa| c2 |bbbbbbbb| c3 |bbbbbbbb|

Where the outputs of two threads meet, prefetchers take lines from the cache of one for the other, which costs as much
as writing kilobytes: in every channel, if they share rows. Threads with parts of the channels meet once, but each of
them gathers all pixels. Stored as (H, W, C), it is the other way round: parts of the channels meet in every pixel.

What a share of the work takes is estimated for each way to cut it, and the cheapest is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pyconv._prices import GATHER, needed_parts, ways_to_part
from pyconv._problem import ConvProblem
from pyconv._tiles import Caches, Tile, ceil_div, item_size


@dataclass(frozen=True, slots=True)
class Shares:
    """How the pixels and the output channels of an image and strip are cut into tasks.

    One of `n_oc_part` parts of the output channels after the other, in each of them block by block of `oh_blk` rows and
    `ow_blk` columns, and all blocks in `n_oc_task` shares of the output channels, a multiple of `n_oc_part`.
    """

    n_oc_part: int
    n_oc_task: int
    oh_blk: int
    ow_blk: int


# Cycles that it takes for outputs of two threads to meet (measured: 1100 where they overtake one another; threads that
# keep to their ranges, 64 to 1024 channels, lose less: parts of the channels gain 5 % at most).
_MEETING = 300
# How many times as long as neighbouring pixels others take to be gathered.
_STRIDED = 1.6
# Cycles beside that for each row of a channel (measured, 512 channels on 7x7 pixels: 50 to 80), and of 1x1 kernels,
# whose rows are long or come in the pieces of panels (measured, of 6 pixels: 18).
_ROW, _PIECE = 60, 15
# Bytes a cycle, from other cores' caches and from memory (measured: what a thread more that gathers the same pixels
# costs, 0.7 and 1.1 cycles for a pixel of 4 bytes in vectors of 8, by strides 1.2 and 0.8 in vectors of 16; and 20 to
# 30 % of the time for half of 9 MiB of weights, 512 channels on 7x7 pixels).
_NEAR, _FAR = 12, 6
# The part of its time by which a thread with a single task is late, because something else wants its core, or half of
# it: of several tasks others take over what has not begun. The more threads, the likelier that one is late (measured,
# one task each: two threads nothing, 8 and 16 on virtual processors 10 to 35 % more time than several).
_LATE, _LATEST = 0.05, 0.35  # for each thread, and at most


def share_out(
    p: ConvProblem,
    tile: Tile,
    caches: Caches,
    threads: int,
    n_strips: int,
    one: Shares,
    panel: int | None,
    channels_last: bool,
) -> Shares:
    """Cut the tasks of a problem, of a tile and for these caches, for two threads or more.

    Parameters
    ----------
    n_strips : int
        Strips of an image: its groups, or so many together.
    one : Shares
        What a task may be at most, as one thread would take it.
    panel : int or None
        Pixels of a row that tasks gather together, 0 for all of them; None if they gather none.
    channels_last : bool
        Whether neighbouring channels, not neighbouring pixels, lie side by side in the output.
    """
    units = p.mb * n_strips
    needed = needed_parts(units, threads)
    if needed == 1:
        return one
    ways = _ways(p, tile, needed, one)
    multiply_adds, taps = tile.lanes * tile.fmas, p.ic // p.g * p.kh * p.kw
    n_oc_blk = tile.n_oc_blk(p)
    channels = p.oc // n_strips
    weights = channels * taps * item_size(p)
    image = p.ic // n_strips * p.ih * p.iw * item_size(p)
    a_pixel = GATHER / tile.lanes + item_size(p) / (_FAR if image > caches.l2 // 2 else _NEAR)
    a_pixel *= 1 if p.sw == 1 else _STRIDED
    a_row = _ROW if p.kh * p.kw > 1 else _PIECE
    late = min(_LATEST, _LATE * threads)
    of_own_channels = tile.role == "dc"  # gathered by the task that wants them alone

    def cycles(way: Shares) -> float:
        """Estimate the time of the thread with the most to do."""
        blocks = ceil_div(p.oh, way.oh_blk) * ceil_div(p.ow, way.ow_blk)
        of_a_block = way.n_oc_task // way.n_oc_part  # tasks
        of_a_part = blocks * of_a_block
        tasks = ceil_div(units * of_a_part * way.n_oc_part, threads)
        share = ceil_div(n_oc_blk, way.n_oc_task) / n_oc_blk
        rows = way.oh_blk * p.kh if p.rows_apart else (way.oh_blk - 1) * p.sh + (p.kh - 1) * p.dh + 1
        gathered = 0 if panel is None else p.ic // n_strips * min(p.ih, rows)  # rows
        pieces = ceil_div(way.ow_blk, panel) if panel else 1
        gathering = gathered * (pieces * a_row + min(p.iw, way.ow_blk * p.sw) * a_pixel)
        gathering *= share if of_own_channels else 1
        multiplying = way.oh_blk * way.ow_blk * channels * share * taps / multiply_adds
        own_weights = weights / way.n_oc_part  # read once, if they stay in the cache
        if own_weights > caches.l2 * 3 // 4:
            own_weights = weights * share * tasks
        reading = own_weights / _FAR if weights > caches.l2 // 2 else 0
        meetings = 0.0
        if not channels_last:
            meetings = channels / way.n_oc_part if tasks % of_a_part else 0
        elif tasks % (of_a_part * way.n_oc_part) and (way.n_oc_part > 1 or tasks % of_a_block):
            meetings = way.oh_blk * way.ow_blk * (ceil_div(tasks, of_a_block) if way.n_oc_part > 1 else 1)
        return (tasks + late) * (multiplying + gathering) + reading + meetings * _MEETING

    return min(ways, key=cycles)


def _ways(p: ConvProblem, tile: Tile, needed: int, one: Shares) -> Iterator[Shares]:
    """Go through ways to cut what one thread would take so that `needed` threads have as much to do, or nearly so."""
    n_oc_blk = tile.n_oc_blk(p)
    # Rows are cut, and the only one into whole tiles.
    step, length, blk = (1, p.oh, one.oh_blk) if p.oh > 1 else (tile.pixels, p.ow, one.ow_blk)
    most = ceil_div(length, step)
    fewest = ceil_div(length, blk)
    for n_oc_part in ways_to_part(n_oc_blk, needed):
        among = ceil_div(needed, n_oc_part)  # threads that share the pixels of a part
        each = ceil_div(one.n_oc_task, n_oc_part)
        for n_oc_task in (n_oc_part * each, n_oc_part * each * 2):
            if n_oc_task > n_oc_blk:
                continue
            even = range(ceil_div(fewest, among), ceil_div(fewest, among) + 4)
            for cut in {min(blk, ceil_div(most, min(n, most)) * step) for n in (fewest, *(n * among for n in even))}:
                oh_blk, ow_blk = (cut, one.ow_blk) if p.oh > 1 else (one.oh_blk, cut)
                yield Shares(n_oc_part, n_oc_task, oh_blk, ow_blk)

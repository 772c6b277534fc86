"""Blocks: which pixels and channels a task takes, what its strip holds, and in which portions it sums them.

A task owns a block of output rows (and columns, where rows are long) of one image and group, and all output channels or
a share of them. Its strip should leave the larger part of L2 to the packed weights, which stream past it once for every
tile. From the whole of a problem downwards:

    tasks     rows, columns, shares of the output channels                               _strip, _at_once
              what several threads share out of them                                     _shares.py
    passes    channels that are gathered, and summed by all tiles, before the next       _passes
    blocks    output channels, as many as a tile has: how weights are packed             Tile.n_oc_blk
    slices    channels that the tiles of one block sum before the next                   _slice
    panels    pixels of one tile that lie in a row of their own                          _columns

All rules are of the kind "what is used again should still be there": in the first level cache within a tile's turn, in
the second between turns. The numbers beside them were measured on the processors that docs and README name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pyconv._line import Line, lay_flat, lay_out, length_of
from pyconv._prices import L2_STREAM, eaten, even_tails, tile_cycles
from pyconv._problem import ConvProblem
from pyconv._shares import Shares, share_out
from pyconv._tiles import CACHE_LINE, PAGE, Caches, Tile, ceil_div, item_size, round_up

_NEIGHBOURS = 4 * CACHE_LINE  # bytes that are gathered together: prefetchers bring in neighbouring lines


@dataclass(frozen=True, slots=True)
class Blocks:
    """The outcome.

    A task takes `g_blk` groups one after the other (more than one where they are small), whose pixels are gathered
    `g_strip` at a time, `oh_blk` rows, `ow_blk` columns and one of `n_oc_task` shares of the output channels; these
    come in `n_oc_part` parts, each with the tasks of all pixels before the next. A pass takes `ic_blk` input channels
    through all tiles of a task, a slice `ic_slice` of them through those of a block. A `slot` of the strip's lines,
    `rows` and `cols`, is one element, or as many vectors of channels as are gathered together. The strip is one of
    whole rows or, where `panel` is not 0, one for the so many pixels of each tile, one after the other; in a `flat` one
    rows follow one another as one (_line.py), for tiles that fit them better. Vectors of channels go through `band`
    rows before the next channels take their turn.
    """

    g_blk: int
    g_strip: int
    oh_blk: int
    ow_blk: int
    ic_blk: int
    ic_slice: int
    n_oc_part: int
    n_oc_task: int
    slot: int
    band: int
    panel: int
    flat: bool
    rows: Line
    cols: Line
    threads: int


def choose_blocks(
    p: ConvProblem, tile: Tile, caches: Caches, threads: int, channels_last: bool = False, x_channels_last: bool = False
) -> Blocks:
    """Choose the blocks for a tile, caches, threads, and the layouts of output and image."""
    icg, g, n_oc_blk = p.ic // p.g, tile.groups(p), tile.n_oc_blk(p)
    slot = _slot(p, tile, caches) if tile.role == "dc" else 1
    g_strip = _groups_of_a_strip(p, tile, caches, threads) if x_channels_last else 1
    oh_blk, ow_blk, ic_blk = _strip(p, tile, caches, slot, g_strip, x_channels_last)
    g_blk = g_strip
    # Channels that are neighbours in the output, and come one at a time, find its lines in the cache.
    beside = tile.role == "dw" and channels_last
    if beside:
        g_blk, oh_blk = _groups_beside(p, threads), min(oh_blk, _rows_beside(p, caches))
    n_strips = ceil_div(g, g_blk)
    n_oc_task, oh_blk, ow_blk = _at_once(p, n_strips, n_oc_blk, oh_blk, ow_blk, tile.pixels)
    panel, cols = _columns(p, tile, caches, slot, ow_blk, x_channels_last)
    if _in_passes(p, tile, caches, oh_blk):
        oh_blk, ic_blk, n_oc_pass = _passes(p, tile, caches, ow_blk, cols.length)
        n_oc_task = max(n_oc_task, n_oc_pass)
    ic_slice = _slice(p, tile, caches, ic_blk, x_channels_last)
    if ic_blk < icg:
        # The sums of a task wait for the next channels: no more of them than half of the second level cache holds.
        n_oc_task = max(n_oc_task, ceil_div(n_oc_blk, max(1, caches.l2 // 2 // (oh_blk * _row_sums(tile, ow_blk)))))
    shares = Shares(1, min(n_oc_blk, n_oc_task), oh_blk, ow_blk)
    if threads > 1:
        gathered = None if tile.reads_image(p, x_channels_last) else panel
        shares = share_out(p, tile, caches, threads, n_strips, shares, gathered, channels_last)
    oh_blk, n_oc_task = shares.oh_blk, shares.n_oc_task
    if shares.ow_blk < ow_blk:
        ow_blk = shares.ow_blk
        panel, cols = _columns(p, tile, caches, slot, ow_blk, x_channels_last)
    tasks = p.mb * n_strips * ceil_div(p.oh, oh_blk) * ceil_div(p.ow, ow_blk)
    if not beside and tasks == p.mb * n_strips and n_oc_task == 1 and ic_blk == icg:
        g_blk = g_strip * _together(p, n_strips, tasks, threads)
        tasks = p.mb * ceil_div(g, g_blk)
    # Channel vectors: the sums of a band of rows in half of the first level cache, the pixels in the other.
    band = max(1, min(oh_blk, caches.l1 // 2 // (ow_blk * tile.vector_bytes))) if tile.role == "dc" else 1
    rows = lay_out(*_row_axis(p, oh_blk, slot))
    flat = not panel and oh_blk > 1 and ow_blk == p.ow and _may_be_flat(p, tile, caches)
    if flat:
        rows, cols = lay_flat(rows, cols, oh_blk, ow_blk, tile.overhang)
    return Blocks(
        g_blk, g_strip, oh_blk, ow_blk, ic_blk, ic_slice, shares.n_oc_part, n_oc_task, slot, band, panel, flat, rows,
        cols, min(threads, tasks * n_oc_task),
    )  # fmt: skip


def useful_flops(p: ConvProblem) -> int:
    return 2 * p.mb * p.oc * p.oh * p.ow * (p.ic // p.g) * p.kh * p.kw


def largest(most: int, fits: Callable[[int], bool]) -> int:
    """Return the largest number from 1 to `most` that fits, where all below one that fits do; 1 if none does."""
    low, high = 1, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _line(p: ConvProblem) -> int:
    """Elements of a cache line."""
    return CACHE_LINE // item_size(p)


def _channel_bytes(p: ConvProblem, tile: Tile) -> int:
    """Bytes of one input channel's weights in a block."""
    return p.kh * p.kw * tile.NV * tile.vector_bytes


def _row_axis(p: ConvProblem, oh_blk: int, slot: int) -> tuple[int, int, int, int]:
    """Describe the rows of a strip. Channels of one pixel stay together: its neighbours may lie a stride apart."""
    if slot > 1:
        return p.kh, 1, p.dh, (oh_blk - 1) * p.sh + 1
    return p.kh, p.sh, p.dh, oh_blk


def _col_axis(p: ConvProblem, ow_blk: int, slot: int, overhang: int) -> tuple[int, int, int, int, int]:
    """Describe the columns of a strip."""
    if slot > 1:
        return p.kw, 1, p.dw, (ow_blk - 1) * p.sw + 1, 0
    return p.kw, p.sw, p.dw, ow_blk, overhang


def _slot(p: ConvProblem, tile: Tile, caches: Caches) -> int:
    """Return how many lanes, output channels, lie side by side in the strip, under channel vectors.

    So many vectors of neighbouring channels together as leave a strip as tall as the kernel four times over, and that
    not much larger than the first level cache, where the lines of one vector lie as far apart (measured, 7x7 kernels on
    56 pixels, 2 MiB of L2: 30 %).
    """
    window = min(p.ih + p.pt + p.pb, 4 * p.kh * p.dh) * min(p.iw + p.pl + p.pr, p.ow * p.sw + p.kw * p.dw)
    fitting = min(caches.l2 // 4, 4 * caches.l1) // (window * tile.vector_bytes)
    return tile.lanes * max(1, min(tile.n_oc_blk(p), _NEIGHBOURS // tile.vector_bytes, fitting))


def _least_rows(p: ConvProblem) -> int:
    """Return how many output rows a strip has at least, where the cache holds them."""
    return 1 if p.rows_apart else min(p.kh + p.kh // 2, p.oh)


def _groups_of_a_strip(p: ConvProblem, tile: Tile, caches: Caches, threads: int) -> int:
    """Return how many groups are gathered together, where neighbouring channels lie side by side in the image.

    Those of a few lines that follow one another: a group alone has less of a pixel than the memory delivers, and the
    next pixel's part is where no prefetcher expects it. Half of L2 may go to their strip, seeing that they have few
    weights. Where it does not hold all rows, some are gathered again, which is worth it only for pixels that are a
    stride apart (measured, groups of 8 to 32 channels: maps of up to 28 pixels take 2 to 20 % less time, of 56 pixels
    with stride 2 15 to 45 %; without a stride, in cut rows, 0 to 15 % more).
    """
    if tile.role not in ("oc", "ow") or p.of_patches or _in_passes(p, tile, caches, 0):
        return 1
    half = caches.l2 // 2 // item_size(p)
    columns = length_of(*_col_axis(p, p.ow, 1, tile.overhang))
    neighbours = _NEIGHBOURS * p.g // (p.ic * item_size(p))
    n = min(p.g, neighbours, p.mb * p.g // (2 * threads if threads > 1 else 1))  # every thread has two strips
    n = ceil_div(p.g, ceil_div(p.g, max(1, n)))

    def fits(oh_blk: int) -> bool:
        return n * p.ic // p.g * length_of(*_row_axis(p, oh_blk, 1)) * columns <= half

    return n if n > 1 and (fits(p.oh) or (p.sw > 1 and fits(_least_rows(p)))) else 1


def _groups_beside(p: ConvProblem, threads: int) -> int:
    """Return how many groups a task takes whose output channels are neighbours: all, or enough to fill their lines."""
    n = ceil_div(2 * threads, p.mb * p.oh) if threads > 1 else 1
    line = max(1, _NEIGHBOURS * p.g // (p.oc * item_size(p)))
    return min(p.g, round_up(ceil_div(p.g, n), line))


def _rows_beside(p: ConvProblem, caches: Caches) -> int:
    """Return how many rows of all channels a task takes, where each channel alone writes parts of the same lines.

    Rows of the output and of the image that half of the second level cache holds, if it does not hold the whole output
    (measured, twice 32 channels on 112x112 pixels, 512 KiB of L2: 14 % less time than all rows; where the third level
    is far away, whole maps took 5 times as long; an output of 400 KiB loses 5 %).
    """
    if p.oc * p.oh * p.ow * item_size(p) <= caches.l2:
        return p.oh
    a_row = (p.oc * p.ow + p.ic * p.iw * p.sh) * item_size(p)
    return ceil_div(p.oh, ceil_div(p.oh, max(1, caches.l2 // 2 // a_row)))


_LONGEST = 2  # lines of the cache
_PAGES = 32  # with those of a block of weights about as many as first level translation buffers hold, 48 to 96
_HEAVY = 2  # times the second level cache: weights that are fetched from beyond it for every strip
_PIXELS = 256  # of a strip, to be worth that
_FEW = 400  # pixels of a whole map that may lie beyond the second level cache
_FAR = 5  # times that cache, its strip at most
_FARTHEST = 5 << 19  # bytes of it at most, of the 4 MiB that scratch may take


def _time_in_pieces(p: ConvProblem, tile: Tile, piece: int) -> float:
    """Cycles that a row of scalars takes for one tap, in pieces of so many pixels, each in tiles of its own."""
    shape = tile.NV, tile.NV, tile.vector_bytes, tile.fmas

    def time(pixels: int) -> float:
        return sum(tiles * tile_cycles(m, *shape) for m, tiles in even_tails(pixels, tile.largest)) if pixels else 0

    whole, rest = divmod(p.ow, piece)
    return whole * time(piece) + time(rest)


def _shorter(p: ConvProblem, tile: Tile, caches: Caches, n: int) -> int:
    """Return in how many pieces rows are cut, at least n, under kernels that are wider than one column.

    Each tile of scalars of pixels sweeps over the rows that its kernel covers, of all channels, and over a block of
    weights. What lies on more pages than a translation buffer holds is looked up anew by every tile, and prefetchers
    end with each page (measured, 3x3 kernels on 56 to 280 pixels: some 9 cycles for each page of a tile's way; rows of
    32 pages or less take 1 to 5 % less time). Not where the pieces divide into smaller tiles (measured: 14 pixels for
    28 take 6 % more).
    """
    if tile.role != "oc" or p.kw == 1:
        return n
    in_passes = _comes_in_passes(p, tile, caches)
    of_a_slice = _slice(p, tile, caches, p.ic // p.g, x_channels_last=False)

    def time(n: int) -> float:
        return _time_in_pieces(p, tile, ceil_div(p.ow, n))

    def is_short(n: int) -> bool:
        ow_blk = ceil_div(p.ow, n)
        columns = length_of(*_col_axis(p, ow_blk, 1, 0))
        channels = _passes(p, tile, caches, ow_blk, columns)[1] if in_passes else of_a_slice
        return p.kh * channels * columns * item_size(p) <= _PAGES * PAGE

    least, most = n, ceil_div(p.ow, tile.largest)
    if not is_short(n) and most > n and is_short(most):
        least += largest(most - n, lambda k: not is_short(n + k - 1))
    return next((k for k in range(least, 2 * least) if time(k) <= 1.02 * time(n)), n)


def _is_sparse(p: ConvProblem, tile: Tile, caches: Caches, x_channels_last: bool = False) -> bool:
    """Tell whether rows are to be short, and to fill their cache lines.

    Under oc-vector a tile reads a line of pixels for each channel, beside its vectors of weights: where the first level
    cache holds no more than one tile's, the next tile fetches its neighbours from lines that follow one another, two of
    them at most (measured: 3 to 30 %, the more the worse the lines of a channel fit those of the cache). Longer rows
    come in panels (`_columns`; measured, 49 pixels: 8 to 35 %; of rows of 28, panels lose 0 to 10 %). Rows of points
    that are a stride apart follow one another, and their channels come in slices (`_slice`). Where channels are
    neighbours in the image, and pixels are read there, a pixel's lines follow one another, too.
    """
    a_channel = CACHE_LINE + tile.NV * tile.vector_bytes
    deep = p.ic // p.g * a_channel > caches.l1
    dense = _are_points_apart(p) or tile.reads_image(p, x_channels_last)
    return tile.role == "oc" and p.kw == 1 and deep and not dense


def _are_points_apart(p: ConvProblem) -> bool:
    """Tell whether a 1x1 kernel takes every so many rows and columns."""
    return p.kh == p.kw == 1 and p.sh > 1 and p.sw > 1 and p.oh > 1


def _may_be_flat(p: ConvProblem, tile: Tile, caches: Caches) -> bool:
    """Tell whether rows may follow one another: each tap has pixels of its own, and no row is to fill cache lines."""
    return p.of_patches and tile.role in ("oc", "ow") and not _is_sparse(p, tile, caches)


def _strip(
    p: ConvProblem, tile: Tile, caches: Caches, slot: int, g_strip: int, x_channels_last: bool
) -> tuple[int, int, int]:
    """``(oh_blk, ow_blk, ic_blk)``: a strip within its share of L2, of rows as long as can be.

    A quarter of L2 leaves room for the weights that stream past the strip, and for the pixels of the next one. The rows
    that a kernel taller than the stride reaches beyond a block are gathered again for the next one: few rows would be
    mostly that. Three quarters of L2 may go to one and a half times as many rows as the kernel has; half of it, of a
    single channel, whose weights are few, to eight times as many. Three eighths may go to all rows of one of several
    groups (measured, 8 channels on 28 pixels with stride 2: 10 to 13 %; without a stride within 1 %).

    Weights that L2 cannot hold are fetched again, from beyond it, for every block. Where they are more than twice its
    size, a strip may take all of it for up to so many pixels as are worth that, and half of it for more (measured: a
    strip of half instead of nearly all takes 1 to 4 % less time, of 100 pixels 2 % more, of 64 6 %); of scalars of
    pixels under kernels of one row all of it, where they are larger than it and that makes it the whole image; if they
    are points a stride apart, half of it (measured, float64, 4 MiB of weights: 26 %). Vectors of pixels under a kernel
    of one row may take half of it where the weights are more than half (measured, 512 KiB of L2, weights of 1 to 9 MiB:
    3x3 kernels gain 5 to 15 %, 1x1 kernels up to 20 %, the more the farther away the weights are). And a whole map of
    few pixels may lie beyond it, where taps share pixels: each block of output channels reads it once and in order, a
    pixel for several taps of all its lanes, and the weights come once, instead of the pixels once and the weights for
    every part of the map (measured, strips of 1.1 to 4.3 times 512 KiB, weights of 2 to 37 MiB: up to 24 % less time,
    float64 up to 34 %, weights packed in every call up to 38 %; maps of 576 pixels and more take 0 to 3 % more).

    Rows are cut, into whole tiles of `unit` pixels, only where L2 does not hold so many of them, or where tiles would
    sweep over many pages (`_shorter`): every cut is a line of the output that is fetched and written twice, and the
    processor fetches rows ahead that follow one another (measured: whole rows gain 1 to 10 % of a dense layer, 20 % of
    a filter on 4096 pixels). Where channels come in passes, L2 need only hold the rows of as many as make a pass worth
    it (measured, 3x3 and 5x5 kernels of 640 to 2048 channels: 1 to 29 %).
    """
    unit, overhang = tile.pixels, tile.overhang
    longest = _LONGEST * _line(p) if _is_sparse(p, tile, caches, x_channels_last) else p.ow
    l2 = caches.l2 // item_size(p) // slot
    icg = p.ic // p.g if slot == 1 else 1
    weights = p.oc // p.g * icg * p.kh * p.kw
    share, half, most, worth, far = l2 // 4, l2 // 2, l2 * 3 // 4, 0, 0
    if g_strip > 1:
        most = share = half
    elif p.kh == 1 or slot > 1:
        apart = _are_points_apart(p) and not x_channels_last and weights > l2
        most = half = share = l2 // 2 if slot == 1 and ((overhang and weights > l2 // 2) or apart) else share
        if slot == 1 and not overhang and weights >= l2 and p.oh * icg * length_of(*_col_axis(p, p.ow, slot, 0)) <= l2:
            most, half, share, longest = l2, l2, l2, p.ow
    elif weights > _HEAVY * l2:
        most, share, worth, far = l2, half, _PIXELS, min(_FAR * l2, _FARTHEST // item_size(p))

    def row(ow_blk: int) -> int:
        return g_strip * icg * length_of(*_col_axis(p, ow_blk, slot, overhang))

    def slots(oh_blk: int, ow_blk: int) -> int:
        return length_of(*_row_axis(p, oh_blk, slot)) * row(ow_blk)

    if p.oh * p.ow <= _FEW and not p.of_patches and slots(p.oh, p.ow) <= far:
        return p.oh, p.ow, icg
    units = ceil_div(p.ow, unit)
    least = _least_rows(p)
    channels = min(icg, _least_in_a_pass(p)) if _comes_in_passes(p, tile, caches) else icg
    if slots(least, unit) * channels > most * icg:
        least = 1
    whole = largest(units, lambda n: slots(least, min(n * unit, p.ow)) * channels <= most * icg)
    n_ow_blk = max(ceil_div(units, whole), ceil_div(p.ow, longest))
    n_ow_blk = _shorter(p, tile, caches, n_ow_blk)
    # Vectors of pixels fill whole tiles; scalars may be as good in tiles of about as many (measured, pieces of 66, 50
    # and 26 pixels: those of 68, 52 and 28 take 1 to 5 % less).
    ow_blk = ceil_div(p.ow, n_ow_blk)
    full = min(p.ow, ceil_div(units, n_ow_blk) * unit)
    if overhang or (full > ow_blk and _time_in_pieces(p, tile, full) < _time_in_pieces(p, tile, ow_blk)):
        ow_blk = full
    oh_blk = max(least, largest(p.oh, lambda n: slots(n, ow_blk) <= share))
    oh_blk = max(oh_blk, largest(min(p.oh, ceil_div(worth, ow_blk)), lambda n: slots(n, ow_blk) <= most))
    if p.ic == p.g and slot == 1:
        oh_blk = max(oh_blk, largest(min(p.oh, 8 * p.kh), lambda n: slots(n, ow_blk) <= half))
    if p.g > 1 and p.kh > 1 and slot == 1 and slots(p.oh, ow_blk) <= l2 * 3 // 8:
        oh_blk = p.oh  # groups follow one another, and find their zeros where the last one's were
    oh_blk = ceil_div(p.oh, ceil_div(p.oh, oh_blk))
    ic_blk = max(1, min(icg, most * icg // slots(1, ow_blk)))
    if slot > 1:
        return oh_blk, ow_blk, p.ic // p.g
    return 1 if ic_blk < icg else oh_blk, ow_blk, ic_blk


# Between tasks a call looks for Ctrl-C: this many operations are some 50 ms of a core.
_FLOPS_AT_ONCE = 4_000_000_000


def _at_once(p: ConvProblem, n_strips: int, n_oc_blk: int, oh_blk: int, ow_blk: int, unit: int) -> tuple[int, int, int]:
    """``(n_oc_task, oh_blk, ow_blk)`` of tasks that are soon done: shares of the output channels, then fewer pixels."""
    a_pixel = 2 * (p.oc // n_strips) * (p.ic // p.g) * p.kh * p.kw
    n_oc_task = min(n_oc_blk, ceil_div(oh_blk * ow_blk * a_pixel, _FLOPS_AT_ONCE))
    most = max(1, _FLOPS_AT_ONCE * n_oc_task // a_pixel)
    if oh_blk * ow_blk > most:
        oh_blk = max(1, most // ow_blk)
    if ow_blk > max(most, unit):
        ow_blk = max(1, most // unit) * unit
    return n_oc_task, oh_blk, ow_blk


def _columns(
    p: ConvProblem, tile: Tile, caches: Caches, slot: int, ow_blk: int, x_channels_last: bool
) -> tuple[int, Line]:
    """``(panel, cols)``: the pixels of a panel, 0 where rows are whole, and the columns of a row or panel."""
    # Vectors of pixels that fill a good part of the first level cache (`Tile.has_panels`); and scalars of pixels, if
    # rows are longer than two lines, and sparse or all their tiles together as large. Where it is channels that lie
    # side by side in the image, each panel has to be transposed: worth it for sparse rows only (measured: others take
    # twice the time).
    column = p.ic // p.g * p.kh * item_size(p)
    long = tile.role == "oc" and p.kw == p.kh == 1 and ow_blk > _LONGEST * _line(p)
    sparse = _is_sparse(p, tile, caches, x_channels_last)
    if tile.has_panels(p, caches) or (long and (sparse or (column * ow_blk > caches.l1 // 2 and not x_channels_last))):
        return tile.pixels, lay_out(*_col_axis(p, tile.pixels, slot, 0))
    if sparse and ow_blk > _line(p):
        ow_blk = round_up(ow_blk, _line(p))
    return 0, lay_out(*_col_axis(p, ow_blk, slot, tile.overhang))


_TAPS_PER_PASS = 512


def _weights_share(p: ConvProblem, tile: Tile, caches: Caches) -> int:
    """Bytes of a block's weights that stay in a cache while the tiles of a large map stream past them.

    Tiles that eat weights faster than the second level cache delivers them beside all else want them in half of the
    first level cache, where each vector is a line (measured: 5 to 17 %; of half a line the sums' way to memory costs 2
    to 9 % more than it saves). Otherwise half of the second will do, where they would not fit it as a whole (measured:
    8 to 10 %).
    """
    if tile.vector_bytes == CACHE_LINE and eaten(tile, tile.largest) >= L2_STREAM:
        return caches.l1 // 2
    weights = _channel_bytes(p, tile) * (p.ic // p.g)
    return caches.l2 // 2 if weights > caches.l2 else weights


def _in_passes(p: ConvProblem, tile: Tile, caches: Caches, oh_blk: int) -> bool:
    """Tell whether passes pay. Smaller maps, with few rows for each block of weights, gain nothing."""
    weights = _channel_bytes(p, tile) * (p.ic // p.g)
    return tile.role == "oc" and p.kh * p.kw > 1 and oh_blk < p.oh and weights > _weights_share(p, tile, caches)


def _comes_in_passes(p: ConvProblem, tile: Tile, caches: Caches) -> bool:
    """Tell, before the rows of a strip are known, whether there will be passes, as far as the map is tall enough."""
    return p.oh > _least_rows(p) and _in_passes(p, tile, caches, 0)


def _least_in_a_pass(p: ConvProblem) -> int:
    """Return how many channels make a pass worth its sums' way to memory and back.

    Measured, 3x3: passes of 18 channels take 5 to 10 % longer than passes of 64.
    """
    return ceil_div(_TAPS_PER_PASS, p.kh * p.kw)


def _most_in_a_pass(p: ConvProblem, tile: Tile, caches: Caches) -> int:
    """Return how many channels a pass takes, at most: those whose weights a share of a cache holds, or the least."""
    return max(_weights_share(p, tile, caches) // _channel_bytes(p, tile), _least_in_a_pass(p))


def _row_sums(tile: Tile, ow_blk: int) -> int:
    """Bytes of the sums of one block's tiles in a row, where they wait for the next channels."""
    return ceil_div(ow_blk, tile.pixels) * tile.bytes


def _passes(p: ConvProblem, tile: Tile, caches: Caches, ow_blk: int, columns: int) -> tuple[int, int, int]:
    """``(oh_blk, ic_blk, n_oc_task)`` of a map in passes, in strips of so many columns."""
    icg = p.ic // p.g
    ic_blk = ceil_div(icg, ceil_div(icg, _most_in_a_pass(p, tile, caches)))
    oh_blk, n_oc_task = _rows_and_tasks(p, tile.n_oc_blk(p), caches.l2 // 2 // _row_sums(tile, ow_blk))
    fitting = caches.l2 // item_size(p) // (length_of(*_row_axis(p, oh_blk, 1)) * columns)
    return oh_blk, min(ic_blk, max(1, fitting)), n_oc_task


def _rows_and_tasks(p: ConvProblem, n_oc_blk: int, most: int) -> tuple[int, int]:
    """``(oh_blk, n_oc_task)`` for channels in passes: `most` rows of sums, of one block each, fit the cache.

    Every block of rows reads all weights again, every share of the output channels the whole image: the least of both.
    """
    weights, pixels = p.oc * p.kh * p.kw, p.ih * p.iw

    def rows(n_oc_task: int) -> int:
        oh_blk = max(1, min(p.oh, most // ceil_div(n_oc_blk, n_oc_task)))
        return ceil_div(p.oh, ceil_div(p.oh, oh_blk))

    n_oc_task = min(range(1, n_oc_blk + 1), key=lambda n: ceil_div(p.oh, rows(n)) * weights + n * pixels)
    return rows(n_oc_task), n_oc_task


def _slice(p: ConvProblem, tile: Tile, caches: Caches, ic_blk: int, x_channels_last: bool) -> int:
    """Return how many channels the tiles of a block sum before the next ones.

    What every tile of a block reads may not stay in L2 beside what streams through it: so many channels at a time as
    leave most of it free (measured, 512 channels on 7x7 pixels: 10 to 14 %). The lines of strided points hold those of
    two tiles and more: they stay in half of the first level cache until the next (measured, 1024 channels on 7x7
    pixels: 20 to 25 %), unless it is channels that are neighbours.
    """
    icg = p.ic // p.g
    if tile.role != "oc" or ic_blk < icg:
        return ic_blk
    of_a_tile = p.kh * CACHE_LINE + _channel_bytes(p, tile)  # bytes of one channel
    if _are_points_apart(p) and not x_channels_last and of_a_tile * icg > caches.l1:
        room = caches.l1 // 2
    elif of_a_tile * icg >= caches.l2 // 2:
        room = caches.l2 // 4
    else:
        return ic_blk
    return ceil_div(icg, ceil_div(icg, max(1, room // of_a_tile)))


# Opening a parallel region costs a few microseconds; below this much work for each thread (some 10 us) it does not pay.
_FLOPS_PER_THREAD = 1_000_000
# Small groups are put together up to this many operations, as long as there are tasks enough to even out the threads.
_FLOPS_PER_TASK = 10_000_000
_TASKS_PER_THREAD = 4


def worthwhile(p: ConvProblem, threads: int) -> int:
    """Return how many of so many threads have enough to do."""
    return max(1, min(threads, useful_flops(p) // _FLOPS_PER_THREAD))


def is_serial(problem: ConvProblem) -> bool:
    """Tell whether a problem is too small for more than one thread."""
    return useful_flops(problem) < 2 * _FLOPS_PER_THREAD


def _together(p: ConvProblem, n_strips: int, tasks: int, threads: int) -> int:
    """Return how many strips, of a group or of several, a task takes, one after the other."""
    most = n_strips if threads == 1 else tasks // (_TASKS_PER_THREAD * threads)
    return max(1, min(n_strips, most, _FLOPS_PER_TASK * tasks // max(1, useful_flops(p))))

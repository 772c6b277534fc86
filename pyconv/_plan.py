"""From a problem to a plan: which tile, in which role, over which blocks, by how many threads.

A plan is a value: a pure function of (problem, tile table, cache sizes, thread count), made without touching data or
compiled code, printable and testable. It decides everything that the kernel then only carries out. No decision can
change a bit of the result (_tile.pxd), only the time and the scratch.

**Tile.** The cheapest of those that the build offers (_tiles.py).

**Blocks.** A task owns a block of output rows (and columns, where rows are long) of one image and group. Its strip
should leave the larger part of L2 to the packed weights, which stream past it once for every tile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from pyconv import _dtypes
from pyconv._line import Line, lay_out
from pyconv._problem import ConvProblem
from pyconv._tiles import (
    CACHE_LINE,
    CHANNEL_VECTORS,
    L2_STREAM,
    Caches,
    TileTable,
    ceil_div,
    choose_tile,
    item_size,
    round_up,
    tile_bytes,
)

_PAGE = 4096  # a first level cache has as many sets as a page has lines
_NEIGHBOURS = 4 * CACHE_LINE  # bytes that are gathered together: prefetchers bring in neighbouring lines


@dataclass(frozen=True, slots=True)
class Plan:
    """How a problem is computed. See the module's text; the fields are read by ``_kernels.Convolution``.

    ``M[NV - 1]`` is the largest number of scalars that go with NV vectors. ``n_oc_blk`` counts the blocks that the
    output channels of a group are packed in, ``n_oc_task`` the tasks that share these blocks out. A task takes
    ``g_blk`` groups one after the other: more than one where they are small. A ``slot`` of the strip's lines is one
    element, or as many vectors of channels as are gathered together. The strip is one of whole rows or, where ``panel``
    is not 0, one for the so many pixels of each tile, one after the other. Vectors of channels go through `band` rows
    before the next channels take their turn; a set of the first level cache holds `l1_ways` lines.
    """

    problem: ConvProblem
    isa: str
    role: str
    lanes: int
    NV: int
    M: tuple[int, ...]
    g_blk: int
    oh_blk: int
    ow_blk: int
    ic_blk: int
    n_oc_blk: int
    n_oc_task: int
    slot: int
    band: int
    l1_ways: int
    panel: int
    ic_slice: int
    rows: Line
    cols: Line
    threads: int

    @property
    def g(self) -> int:
        """Groups, of `icg` input and `ocg` output channels each. Vectors of channels make one group of all."""
        return 1 if self.role == "dc" else self.problem.g

    @property
    def icg(self) -> int:
        return self.problem.ic // self.problem.g

    @property
    def ocg(self) -> int:
        return self.problem.oc // self.g

    @property
    def n_g_blk(self) -> int:
        return ceil_div(self.g, self.g_blk)

    @property
    def n_oh_blk(self) -> int:
        return ceil_div(self.problem.oh, self.oh_blk)

    @property
    def n_ow_blk(self) -> int:
        return ceil_div(self.problem.ow, self.ow_blk)

    @property
    def n_ic_blk(self) -> int:
        return ceil_div(self.icg, self.ic_blk)

    @property
    def n_tasks(self) -> int:
        p = self.problem
        return p.mb * self.n_g_blk * self.n_oh_blk * self.n_ow_blk * self.n_oc_task

    @property
    def flops(self) -> int:
        """Useful operations: two for each multiply-add, padding included."""
        return useful_flops(self.problem)

    @property
    def work_per_task(self) -> int:
        """Operations of a task, and 50 for each element that is gathered or stored: the time it takes in memory."""
        p = self.problem
        tasks = max(1, self.n_tasks)
        gathered = self.g_blk * self.n_ic_blk * self.n_panels * self.panel_slots
        return self.flops // tasks + 50 * (gathered + p.mb * p.oc * p.oh * p.ow // tasks) + 1

    @property
    def oc_units(self) -> int:
        """What the output channels of a group are counted in: vectors where channels are in vectors."""
        return ceil_div(self.ocg, self.lanes) if self.role in CHANNEL_VECTORS else self.ocg

    @property
    def unit_pitch(self) -> int:
        """Elements of one unit's packed bias and weights. A bias has as many as a vector, whichever way vectors run."""
        p = self.problem
        width = self.lanes if self.role in CHANNEL_VECTORS else 1
        return self.lanes + width * self.icg * p.kh * p.kw

    @property
    def group_pitch(self) -> int:
        """Elements of a group's packed bias and weights."""
        return self.oc_units * self.unit_pitch

    @property
    def packs_in_tasks(self) -> bool:
        """Whether weights of a single call are packed in the tasks, block by block, where that happens twice at most.

        From three times on it takes less time to pack all of them first (measured).
        """
        times = self.problem.mb * self.n_oh_blk * self.n_ow_blk
        return times <= 2 and self.n_ic_blk == 1 and (self.role == "oc" or (self.role == "ow" and self.oh_blk == 1))

    @property
    def part_bytes(self) -> int:
        """Bytes of the largest block's bias and one slice of its weights, packed."""
        p = self.problem
        width = self.lanes if self.role in CHANNEL_VECTORS else 1
        unit = self.lanes + width * self.ic_slice * p.kh * p.kw
        return round_up(ceil_div(self.oc_units, self.n_oc_blk) * unit * item_size(p), CACHE_LINE)

    @property
    def n_waiting(self) -> int:
        """Tiles whose sums wait for the next channels: all of a task's between passes, of a block's between slices."""
        if self.n_ic_blk > 1:
            return self.tiles_per_task
        return self.tiles_per_block if self.ic_slice < self.ic_blk else 1

    @property
    def skips(self) -> bool:
        """Whether rows of the kernel that lie in a padding of zeros may be left out, where all weights are finite.

        Sums that wait for the next channels keep all their taps: maps whose channels come in passes are large, and have
        little padding.
        """
        p = self.problem
        padded = p.padding_mode == "zeros" and p.pt + p.pb > 0 and p.kh > 1
        return padded and self.role in ("oc", "ow") and self.n_ic_blk == 1

    @property
    def packed_size(self) -> int:
        """Elements of the packed weights, and one that tells whether they are finite."""
        return self.g * self.group_pitch + self.skips

    @property
    def pixel_bytes(self) -> int:
        """Bytes of one element of the image."""
        return _dtypes.item_size(self.problem.src_dtype)

    @property
    def strip_ic(self) -> int:
        """Channels of the reduction that lie beside one another in the strip; the others are lanes of a slot."""
        return 1 if self.role == "dc" else self.ic_blk

    @property
    def n_panels(self) -> int:
        return ceil_div(self.ow_blk, self.panel) if self.panel else 1

    @property
    def panel_slots(self) -> int:
        """Elements of a panel; of the strip, where it is one of whole rows."""
        return self.rows.length * self.strip_ic * self.cols.length * self.slot

    @property
    def strip_bytes(self) -> int:
        return round_up(self.n_panels * self.panel_slots * item_size(self.problem), CACHE_LINE)

    @property
    def tiles_per_task(self) -> int:
        """Tiles of a full task, at most."""
        return ceil_div(self.n_oc_blk, self.n_oc_task) * self.tiles_per_block

    @property
    def tiles_per_block(self) -> int:
        """Tiles of one block of output channels in a full task, at most."""
        if self.role in CHANNEL_VECTORS:
            per_row = max(ceil_div(self.ow_blk, m) for m in self.M[: self.NV] if m)
        else:
            per_row = ceil_div(ceil_div(self.ow_blk, self.lanes), self.NV)
        return self.oh_blk * per_row

    @property
    def tile_bytes(self) -> int:
        """Buffer of one tile; under ``"dc"``, of a band of rows."""
        if self.role == "dc":
            # The last vector of channels, if it is not full, waits here for a band of rows; of columns, where these are
            # fewer than a tile's pixels and the tiles run down them.
            down = min(self.band, self.ow_blk, self.M[0] - 1) * self.oh_blk if self.ocg % self.lanes else 0
            return round_up(max(self.band * self.ow_blk, down), 16) * self.vector_bytes
        return tile_bytes(self.role, self.NV, self.M, self.vector_bytes)

    @property
    def thread_bytes(self) -> int:
        """Scratch of one thread: a strip and the buffers of the tiles in flight."""
        # A slice's tiles leave the sums that they start from: they may have to start again.
        sets = 2 if self.n_ic_blk == 1 and self.n_waiting > 1 else 1
        return self.strip_bytes + sets * self.n_waiting * self.tile_bytes + CACHE_LINE

    @property
    def vector_bytes(self) -> int:
        return self.lanes * item_size(self.problem)

    @property
    def scratch_bytes(self) -> int:
        """Scratch of a call, over all threads."""
        return self.threads * self.thread_bytes

    @property
    def packing(self) -> str:
        """Equal for plans that share one packed copy of the weights."""
        p = self.problem
        return f"{self.isa} {self.role in CHANNEL_VECTORS} {self.lanes} {self.n_oc_blk} {p.dtype} {self.g} {self.skips}"

    def __str__(self) -> str:
        p = self.problem
        tile = {
            "oc": f"{self.M[self.NV - 1]} pixels x {self.NV} vectors of {self.lanes} output channels",
            "ow": f"{self.M[self.NV - 1]} output channels x {self.NV} vectors of {self.lanes} pixels",
            "dw": f"{self.M[self.NV - 1]} rows x {self.NV} vectors of {self.lanes} pixels",
            "dc": f"{self.M[self.NV - 1]} pixels x {self.lanes} channels",
        }[self.role]
        role = {"oc": "oc-vector", "ow": "ow-vector", "dw": "depthwise", "dc": "channel vectors"}[self.role]
        return (
            f"{self.isa}, {role}, tile {tile}, blocks of {self.oh_blk}x{self.ow_blk} of {p.oh}x{p.ow} pixels, "
            f"{self.n_tasks} tasks on {self.threads} thread{'s' if self.threads != 1 else ''}, "
            f"{self.scratch_bytes / 1024:.0f} KiB scratch"
        )


def useful_flops(p: ConvProblem) -> int:
    return 2 * p.mb * p.oc * p.oh * p.ow * (p.ic // p.g) * p.kh * p.kw


def largest(most: int, fits: Callable[[int], bool]) -> int:
    """Return the largest number from 1 to `most` that fits, where all below one that fits do; 1 if none does."""
    low, high = 1, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _rows(p: ConvProblem, oh_blk: int, slot: int) -> Line:
    """Lay out the rows of a strip. Channels of one pixel stay together: its neighbours may lie a stride apart."""
    if slot > 1:
        return lay_out(p.kh, 1, p.dh, (oh_blk - 1) * p.sh + 1)
    return lay_out(p.kh, p.sh, p.dh, oh_blk)


def _cols(p: ConvProblem, ow_blk: int, slot: int, overhang: int) -> Line:
    """Lay out the columns of a strip."""
    if slot > 1:
        return lay_out(p.kw, 1, p.dw, (ow_blk - 1) * p.sw + 1)
    return lay_out(p.kw, p.sw, p.dw, ow_blk, overhang)


# Between tasks a call looks for Ctrl-C: this many operations are some 50 ms of a core.
_FLOPS_AT_ONCE = 4_000_000_000


def _at_once(p: ConvProblem, g: int, n_oc_blk: int, oh_blk: int, ow_blk: int, unit: int) -> tuple[int, int, int]:
    """``(n_oc_task, oh_blk, ow_blk)`` of tasks that are soon done: shares of the output channels, then fewer pixels."""
    a_pixel = 2 * (p.oc // g) * (p.ic // p.g) * p.kh * p.kw
    n_oc_task = min(n_oc_blk, ceil_div(oh_blk * ow_blk * a_pixel, _FLOPS_AT_ONCE))
    most = max(1, _FLOPS_AT_ONCE * n_oc_task // a_pixel)
    if oh_blk * ow_blk > most:
        oh_blk = max(1, most // ow_blk)
    if ow_blk > max(most, unit):
        ow_blk = max(1, most // unit) * unit
    return n_oc_task, oh_blk, ow_blk


def _blocks(p: ConvProblem, caches: Caches, overhang: int, unit: int, slot: int, longest: int) -> tuple[int, int, int]:
    """``(oh_blk, ow_blk, ic_blk)``: a strip within its share of L2, of rows as long as can be, up to `longest` pixels.

    A quarter of L2 leaves room for the weights that stream past the strip, and for the pixels of the next one. The rows
    that the kernel reaches beyond a block are gathered again for the next one: few rows for a tall kernel would be
    mostly that. Three quarters of L2 may go to one and a half times as many rows as the kernel has; half of it, of a
    single channel, whose weights are few, to eight times as many.

    Weights that L2 cannot hold are fetched again, from beyond it, for every block. So a strip may take all of it where
    they are more than twice its size; under kernels of one row where they are four times its size and that makes it the
    whole image. Vectors of pixels under a kernel of one row may take half of it where the weights are more than half
    (measured, 512 KiB of L2, weights of 1 to 9 MiB: 3x3 kernels gain 5 to 15 %, 1x1 kernels up to 20 %; where other
    work leaves the weights in a third level cache, the whole image loses up to as much).

    Rows are cut, into whole tiles of `unit` pixels, only where L2 does not hold so many of them: every cut is a line of
    the output that is fetched and written twice, and the processor fetches rows ahead that follow one another
    (measured: whole rows gain 1 to 10 % of a dense layer, 20 % of a filter on 4096 pixels).
    """
    l2 = caches.l2 // item_size(p) // slot
    icg = p.ic // p.g if slot == 1 else 1
    weights = p.oc // p.g * icg * p.kh * p.kw
    share, half, most = l2 // 4, l2 // 2, l2 * 3 // 4
    if p.kh == 1 or slot > 1:
        most = half = share = l2 // 2 if slot == 1 and overhang and weights > l2 // 2 else share
        if slot == 1 and not overhang and weights >= 4 * l2 and p.oh * icg * _cols(p, p.ow, slot, 0).length <= l2:
            most, half, share, longest = l2, l2, l2, p.ow
    elif weights > 2 * l2:
        most = half = share = l2

    def row(ow_blk: int) -> int:
        return icg * _cols(p, ow_blk, slot, overhang).length

    def slots(oh_blk: int, ow_blk: int) -> int:
        return _rows(p, oh_blk, slot).length * row(ow_blk)

    units = ceil_div(p.ow, unit)
    least = min(p.kh + p.kh // 2, p.oh)
    if slots(least, unit) > most:
        least = 1
    whole = largest(units, lambda n: slots(least, n * unit) <= most)
    n_ow_blk = max(ceil_div(units, whole), ceil_div(p.ow, longest))
    # Vectors of pixels fill whole tiles; scalars are as good in tiles of about as many.
    ow_blk = min(p.ow, ceil_div(units, n_ow_blk) * unit if overhang else ceil_div(p.ow, n_ow_blk))
    oh_blk = max(least, largest(p.oh, lambda n: slots(n, ow_blk) <= share))
    if p.ic == p.g and slot == 1:
        oh_blk = max(oh_blk, largest(min(p.oh, 8 * p.kh), lambda n: slots(n, ow_blk) <= half))
    oh_blk = ceil_div(p.oh, ceil_div(p.oh, oh_blk))
    ic_blk = max(1, min(icg, most * icg // slots(1, ow_blk)))
    return 1 if ic_blk < icg else oh_blk, ow_blk, ic_blk


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


_TAPS_PER_PASS = 512


def _weights_share(table: TileTable, caches: Caches, weights: int, m: int) -> int:
    """Bytes of a block's `weights` that stay in a cache while the tiles of a large map stream past them.

    Tiles that eat weights faster than the second level cache delivers them beside all else want them in half of the
    first level cache (measured: 5 to 17 %). Otherwise half of the second will do, where they would not fit it as a
    whole (measured: 8 to 10 %).
    """
    if table.vector_bytes * table.fmas / m >= L2_STREAM:
        return caches.l1 // 2
    return caches.l2 // 2 if weights > caches.l2 else weights


# Opening a parallel region costs a few microseconds; below this much work for each thread (some 10 us) it does not pay.
_FLOPS_PER_THREAD = 1_000_000
# Small groups are put together up to this many operations, as long as there are tasks enough to even out the threads.
_FLOPS_PER_TASK = 10_000_000
_TASKS_PER_THREAD = 4


def is_serial(problem: ConvProblem) -> bool:
    """Tell whether a problem is too small for more than one thread."""
    return useful_flops(problem) < 2 * _FLOPS_PER_THREAD


@lru_cache(maxsize=1024)
def make_plan(
    problem: ConvProblem,
    table: TileTable,
    caches: Caches,
    threads: int,
    channels_last: bool = False,
    tile: tuple[str, int, int] | None = None,
) -> Plan:
    """Plan a problem.

    Parameters
    ----------
    problem : ConvProblem
        What to compute; at least one image.
    table : TileTable
        The tiles to choose from.
    caches : Caches
        Sizes that the blocks are fitted to.
    threads : int
        The most threads to use.
    channels_last : bool, optional
        Whether neighbouring channels, not neighbouring pixels, lie side by side in the output.
    tile : (role, NV, M), optional
        Use this variant instead of the cheapest (tests and benchmarks go through all of them).
    """
    p = problem
    icg = p.ic // p.g
    lanes = table.vector_bytes // item_size(p)
    if tile is None:
        role, nv = choose_tile(p, table, caches, channels_last)
        largest_m = table.most(role)
    else:
        role, nv, m = tile
        largest_m = tuple(min(m, most) for most in table.most(role))
    if role == "dw" and p.kh not in (1, 3):  # no more rows than the kernel has: each would need a case of its own
        largest_m = tuple(min(m, p.kh) for m in largest_m)
    g = 1 if role == "dc" else p.g
    units = ceil_div(p.oc // g, lanes) if role in CHANNEL_VECTORS else p.oc // g
    n_oc_blk = ceil_div(units, {"oc": nv, "ow": largest_m[nv - 1], "dw": 1, "dc": 1}[role])

    overhang = 0 if role in CHANNEL_VECTORS else lanes - 1
    unit = largest_m[nv - 1] if role in CHANNEL_VECTORS else nv * lanes
    slot = 1
    if role == "dc":
        # So many vectors of neighbouring channels together as leave a strip as tall as the kernel four times over.
        window = min(p.ih + p.pt + p.pb, 4 * p.kh * p.dh) * min(p.iw + p.pl + p.pr, p.ow * p.sw + p.kw * p.dw)
        fitting = caches.l2 // 4 // (window * table.vector_bytes)
        slot = lanes * max(1, min(n_oc_blk, _NEIGHBOURS // table.vector_bytes, fitting))
    # A line of pixels for each channel, beside its vectors of weights: where the first level cache holds no more than
    # one tile's, the next tile fetches its neighbours from lines that follow one another, two of them at most
    # (measured: 3 to 30 %, the more the worse the lines of a channel fit those of the cache).
    line = CACHE_LINE // item_size(p)
    sparse = role == "oc" and p.kw == 1 and icg * (CACHE_LINE + nv * table.vector_bytes) > caches.l1
    oh_blk, ow_blk, ic_blk = _blocks(p, caches, overhang, unit, slot, 2 * line if sparse else p.ow)
    if role == "dc":
        ic_blk = icg
    n_oc_task, oh_blk, ow_blk = _at_once(p, g, n_oc_blk, oh_blk, ow_blk, unit)
    # Pixels of a tile that no first level cache holds arrive sooner where they lie in a row (measured: 2 to 20 %).
    deep = icg * p.kh * unit * item_size(p) > caches.l1 // 2
    panel = unit if role == "ow" and p.kw == 1 and deep else 0
    if panel:
        cols = _cols(p, panel, slot, 0)
    else:
        cols = _cols(p, round_up(ow_blk, line) if sparse and ow_blk > line else ow_blk, slot, overhang)
    rows = _rows(p, oh_blk, slot)
    # The sums of one block's tiles in a row, where they wait for the next channels.
    row_sums = ceil_div(ow_blk, unit) * tile_bytes(role, nv, largest_m, table.vector_bytes)
    channel = p.kh * p.kw * nv * table.vector_bytes
    share = _weights_share(table, caches, channel * icg, largest_m[nv - 1])
    if role == "oc" and p.kh * p.kw > 1 and oh_blk < p.oh and channel * icg > share:
        # A large map: as many channels in a pass as keep a block's weights in this share of a cache, and enough for the
        # tiles to be worth their sums' way to memory and back (measured, 3x3: passes of 18 channels take 5 to 10 %
        # longer than passes of 64). Smaller maps, with few rows for each block of weights, gain nothing.
        most = max(share // channel, ceil_div(_TAPS_PER_PASS, p.kh * p.kw))
        ic_blk = ceil_div(icg, ceil_div(icg, most))
        oh_blk, shares = _rows_and_tasks(p, n_oc_blk, caches.l2 // 2 // row_sums)
        n_oc_task = max(n_oc_task, shares)
        rows = _rows(p, oh_blk, slot)
        ic_blk = min(ic_blk, max(1, caches.l2 // item_size(p) // (rows.length * cols.length)))
    ic_slice = ic_blk
    of_a_tile = p.kh * CACHE_LINE + channel  # bytes of one channel that a tile reads
    if role == "oc" and ic_blk == icg and of_a_tile * icg >= caches.l2 // 2:
        # What every tile of a block reads does not stay in L2 beside what streams through it: so many channels at a
        # time as leave most of it free (measured, 512 channels on 7x7 pixels: 10 to 14 %).
        ic_slice = ceil_div(icg, ceil_div(icg, max(1, caches.l2 // 4 // of_a_tile)))
    threads = max(1, min(threads, useful_flops(p) // _FLOPS_PER_THREAD))
    if threads > 1:
        weights, pixels = p.oc // p.g * icg * p.kh * p.kw, icg * p.ih * p.iw
        if weights > max(2 * caches.l2 // item_size(p), 8 * pixels):
            # Each thread its own weights, which take more time to fetch than all of the image (measured, 2 threads,
            # 512 channels on 7x7 and 14x14 pixels: 20 to 30 %; weights of 3 times the image lose as much).
            n_oc_task = max(n_oc_task, min(n_oc_blk, ceil_div(2 * threads, p.mb * g)))
        # Blocks of rows until every thread has two tasks, then blocks of output channels.
        wanted = ceil_div(2 * threads, p.mb * g * ceil_div(p.ow, ow_blk) * n_oc_task)
        oh_blk = min(oh_blk, max(1, ceil_div(p.oh, wanted)))
        rows = _rows(p, oh_blk, slot)
    tasks = p.mb * g * ceil_div(p.oh, oh_blk) * ceil_div(p.ow, ow_blk)
    n_oc_task = min(n_oc_blk, max(n_oc_task, ceil_div(threads, max(1, tasks))))
    if ic_blk < icg:
        # The sums of a task wait for the next channels: no more of them than half of the second level cache holds.
        n_oc_task = max(n_oc_task, ceil_div(n_oc_blk, max(1, caches.l2 // 2 // (oh_blk * row_sums))))
    g_blk = 1
    if g > 1 and tasks == p.mb * g and n_oc_task == 1 and ic_blk == icg:
        most = g if threads == 1 else tasks // (_TASKS_PER_THREAD * threads)
        g_blk = max(1, min(g, most, _FLOPS_PER_TASK * tasks // max(1, useful_flops(p))))
        tasks = p.mb * ceil_div(g, g_blk)
    # Channel vectors: the sums of a band of rows in half of the first level cache, the pixels in the other.
    band = max(1, min(oh_blk, caches.l1 // 2 // (ow_blk * table.vector_bytes))) if role == "dc" else 1
    return Plan(
        problem, table.isa, role, lanes, nv, largest_m, g_blk, oh_blk, ow_blk, ic_blk, n_oc_blk, n_oc_task,
        slot, band, caches.l1 // _PAGE, panel, ic_slice, rows, cols, min(threads, tasks * n_oc_task),
    )  # fmt: skip

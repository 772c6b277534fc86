"""From a problem to a plan: which tile, in which role, over which blocks, by how many threads.

A plan is a value: a pure function of (problem, tile table, cache sizes, thread count, layouts), made without touching
data or compiled code, printable and testable. It decides everything that the kernel then only carries out. No decision
can change a bit of the result (_tile.pxd), only the time and the scratch.

**Tile.** The cheapest of those that the build offers (_tiles.py, _prices.py).

**Blocks.** Which pixels and channels a task takes, and in which portions it sums them (_blocks.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from pyconv import _dtypes
from pyconv._blocks import Blocks, choose_blocks, useful_flops, worthwhile
from pyconv._prices import choose_tile
from pyconv._problem import ConvProblem
from pyconv._tiles import CACHE_LINE, LEAST_CHANNELS, PAGE, Caches, Tile, TileTable, ceil_div, item_size, round_up
from pyconv._words import counted

_ROWS_HELD = 48  # whole transpositions of 16 rows, and whole tiles of 3, 4, 6 and 8 pixels; of 14, 42 rows
# Bytes of one way of a cache: the first level has as many sets as a page has lines, the second, with few exceptions,
# 1024 (_in_place.pxi).
_L1_WAY = PAGE
_L2_WAY = 64 << 10


@dataclass(frozen=True, slots=True)
class Plan:
    """How a problem is computed; `_kernels.Convolution` reads it.

    Sets of the caches hold `l1_ways` and `l2_ways` lines. What it adds to its parts is how many there are of each:
    tasks, panels, tiles, bytes.
    """

    problem: ConvProblem
    isa: str
    tile: Tile
    blocks: Blocks
    l1_ways: int
    l2_ways: int

    @property
    def g(self) -> int:
        """Groups, of `icg` input and `ocg` output channels each."""
        return self.tile.groups(self.problem)

    @property
    def icg(self) -> int:
        return self.problem.ic // self.problem.g

    @property
    def ocg(self) -> int:
        return self.problem.oc // self.g

    @property
    def n_g_blk(self) -> int:
        return ceil_div(self.g, self.blocks.g_blk)

    @property
    def n_oh_blk(self) -> int:
        return ceil_div(self.problem.oh, self.blocks.oh_blk)

    @property
    def n_ow_blk(self) -> int:
        return ceil_div(self.problem.ow, self.blocks.ow_blk)

    @property
    def n_ic_blk(self) -> int:
        return ceil_div(self.icg, self.blocks.ic_blk)

    @property
    def n_tasks(self) -> int:
        p = self.problem
        return p.mb * self.n_g_blk * self.n_oh_blk * self.n_ow_blk * self.blocks.n_oc_task

    @property
    def flops(self) -> int:
        """Useful operations: two for each multiply-add, padding included."""
        return useful_flops(self.problem)

    @property
    def work_per_task(self) -> int:
        """Operations of a task, and 50 for each element that is gathered or stored: the time it takes in memory."""
        p = self.problem
        tasks = max(1, self.n_tasks)
        gathered = self.blocks.g_blk // self.blocks.g_strip * self.n_ic_blk * self.strip_size
        return self.flops // tasks + 50 * (gathered + p.mb * p.oc * p.oh * p.ow // tasks) + 1

    @property
    def oc_units(self) -> int:
        """What the output channels of a group are packed in: vectors of them, or single ones."""
        return self.tile.oc_units(self.problem)

    @property
    def n_oc_blk(self) -> int:
        """Blocks of these units, as wide as the tile; the tasks share them out."""
        return self.tile.n_oc_blk(self.problem)

    @property
    def unit_pitch(self) -> int:
        """Elements of one unit's packed bias and weights. A bias has as many as a vector, whichever way vectors run."""
        p = self.problem
        return self.tile.lanes + self.tile.unit * self.icg * p.kh * p.kw

    @property
    def group_pitch(self) -> int:
        """Elements of a group's packed bias and weights."""
        return self.oc_units * self.unit_pitch

    @property
    def packs_in_tasks(self) -> bool:
        """Whether weights of a single call are packed in the tasks, block by block, where tasks do so twice at most.

        From three times on it takes less time to pack all of them first (measured); so it does memory, where a block is
        that large. (Depthwise tasks that frame the image pack their channel's few weights for each rectangle.)
        """
        p, role, b = self.problem, self.tile.role, self.blocks
        times = p.mb * self.n_oh_blk * self.n_ow_blk
        at_hand = role in ("oc", "dw") or (role == "ow" and b.oh_blk == 1)
        smaller = b.threads * self.part_bytes <= round_up(self.packed_size * item_size(p), CACHE_LINE)
        return times <= 2 and self.n_ic_blk == 1 and at_hand and smaller

    @property
    def part_bytes(self) -> int:
        """Bytes of the largest block's bias and one slice of its weights, packed."""
        p = self.problem
        unit = self.tile.lanes + self.tile.unit * self.blocks.ic_slice * p.kh * p.kw
        return round_up(ceil_div(self.oc_units, self.n_oc_blk) * unit * item_size(p), CACHE_LINE)

    @property
    def n_buffers(self) -> int:
        """Buffers of one tile's sums: for all tiles of a task between passes, for those of a block between slices.

        Where no sums wait, the same buffers serve all tiles: one, or as many as the rows that are held take.
        """
        if self.n_ic_blk > 1:
            return self.blocks_per_task * self.tiles_per_block
        if self.blocks.ic_slice < self.blocks.ic_blk:
            return self.tiles_per_block
        return ceil_div(self.rows_held * self.tile.NV * self.tile.vector_bytes, self.tile.bytes)

    @property
    def rows_held(self) -> int:
        """Rows of sums, a pixel each, that are stored together under oc-vector, unless the output has them as they are.

        The pixels of one tile would not fill the 8 or 16 rows of a transposition, nor a line of the output (measured:
        3x3 kernels on 64 to 512 channels take 1 to 2 % less time, 1x1 kernels 1 to 4 %).
        """
        return _ROWS_HELD if self.tile.role == "oc" else 1

    @property
    def skips(self) -> bool:
        """Whether rows of the kernel that lie in a padding of zeros may be left out, where all weights are finite.

        Sums that wait for the next pass keep all their taps: maps whose channels come in passes are large, and have
        little padding.
        """
        p = self.problem
        padded = p.padding_mode == "zeros" and p.pt + p.pb > 0 and p.kh > 1
        return padded and self.tile.role in ("oc", "ow") and self.n_ic_blk == 1

    @property
    def packed_size(self) -> int:
        """Elements of the packed weights, and one that tells whether they are finite."""
        return self.g * self.group_pitch + self.skips

    @property
    def reads_image(self) -> bool:
        """Whether pixels are read in the image, where neighbours there are what the tile takes them to be.

        Scalars take channels for neighbours, vectors pixels. Rows and channels may have been cut since the tile was
        chosen.
        """
        b, of_scalars = self.blocks, self.tile.role == "oc"
        if of_scalars:
            enough = self.icg // ceil_div(self.icg, b.ic_slice) >= LEAST_CHANNELS
        else:
            enough = b.ow_blk >= self.tile.pixels
        return enough and self.n_ic_blk == 1 and self.tile.reads_image(self.problem, x_channels_last=of_scalars)

    @property
    def pixel_bytes(self) -> int:
        """Bytes of one element of the image."""
        return _dtypes.item_size(self.problem.src_dtype)

    @property
    def strip_ic(self) -> int:
        """Channels of the reduction that lie beside one another in the strip; the others are lanes of a slot."""
        return 1 if self.tile.role == "dc" else self.blocks.g_strip * self.blocks.ic_blk

    @property
    def row_pitch(self) -> int:
        """Elements of the strip from one row of pixels to the next."""
        b = self.blocks
        return b.ow_blk if b.flat else self.strip_ic * b.cols.length * b.slot

    @property
    def n_panels(self) -> int:
        b = self.blocks
        return ceil_div(b.ow_blk, b.panel) if b.panel else 1

    @property
    def panel_slots(self) -> int:
        """Elements of a panel; of the strip, where it is one of whole rows."""
        b = self.blocks
        return b.rows.length * self.strip_ic * b.cols.length * b.slot

    @property
    def source_slot(self) -> int:
        """Elements of a pixel's single channels, in whole vectors, where the strip repeats them; else 0."""
        repeats, lanes = self.tile.repeats(self.problem), self.tile.lanes
        # A slot begins with whichever lane of the first channel.
        return round_up(ceil_div(self.blocks.slot - 1, repeats) + 1, lanes) if repeats > 1 else 0

    @property
    def strip_size(self) -> int:
        """Elements of the strip."""
        return self.n_panels * self.panel_slots

    @property
    def strip_bytes(self) -> int:
        """Bytes of the strip; where it repeats channels, of a row of single ones behind it, too, read in vectors."""
        source = self.blocks.cols.length * self.source_slot
        size = self.strip_size + (source + self.tile.lanes if source else 0)
        return round_up(size * item_size(self.problem), CACHE_LINE)

    @property
    def blocks_per_task(self) -> int:
        """Blocks of output channels of a task, at most."""
        return ceil_div(self.n_oc_blk, self.blocks.n_oc_task)

    @property
    def tiles_per_task(self) -> int:
        """Tiles of a full task, at most, if the output's rows follow one another where the strip's do."""
        b = self.blocks
        tiles = self._tiles_of(b.oh_blk * b.ow_blk) if b.flat else self.tiles_per_block
        return self.blocks_per_task * tiles

    @property
    def tiles_per_block(self) -> int:
        """Tiles of one block of output channels in a full task, at most, wherever the output's rows lie."""
        return self.blocks.oh_blk * self._tiles_of(self.blocks.ow_blk)

    def _tiles_of(self, pixels: int) -> int:
        """Count the tiles of a row of so many pixels, at most."""
        tile = self.tile
        if tile.in_channels:
            return max(ceil_div(pixels, m) for m in tile.M[: tile.NV] if m)
        return ceil_div(ceil_div(pixels, tile.lanes), tile.NV)

    @property
    def tile_bytes(self) -> int:
        """Buffer of one tile; under ``"dc"``, of a band of rows."""
        tile, b = self.tile, self.blocks
        if tile.role != "dc":
            return tile.bytes
        # The last vector of channels, if it is not full, waits here for a band of rows; of columns, where these are
        # fewer than a tile's pixels and the tiles run down them.
        down = min(b.band, b.ow_blk, tile.M[0] - 1) * b.oh_blk if self.ocg % tile.lanes else 0
        return round_up(max(b.band * b.ow_blk, down), 16) * tile.vector_bytes

    @property
    def thread_bytes(self) -> int:
        """Scratch of one thread: a strip and the buffers of the tiles in flight."""
        # A slice's tiles leave the sums that they start from: they may have to start again.
        sets = 2 if self.blocks.ic_slice < self.blocks.ic_blk else 1
        return self.strip_bytes + sets * self.n_buffers * self.tile_bytes + CACHE_LINE

    @property
    def scratch_bytes(self) -> int:
        """Scratch of a call with packed weights, over all threads; several have pages of their own.

        A single call takes `part_bytes` for each thread in addition, or `packed_size` elements in all. Beside that each
        call takes a line for each thread, and the offset of each tap.
        """
        threads = self.blocks.threads
        return threads * (self.thread_bytes if threads == 1 else round_up(self.thread_bytes, PAGE))

    @property
    def packing(self) -> str:
        """Equal for plans that share one packed copy of the weights."""
        p, t = self.problem, self.tile
        return f"{self.isa} {t.in_channels} {t.lanes} {self.n_oc_blk} {p.dtype} {self.g} {self.icg} {self.skips}"

    def __str__(self) -> str:
        p, b = self.problem, self.blocks
        role = {"oc": "oc-vector", "ow": "ow-vector", "dw": "depthwise", "dc": "channel vectors"}[self.tile.role]
        return (
            f"{self.isa}, {role}, tile {self.tile}, blocks of {b.oh_blk}x{b.ow_blk} of {p.oh}x{p.ow} pixels, "
            f"{counted(self.n_tasks, 'task')} on {counted(b.threads, 'thread')}, "
            f"{self.scratch_bytes / 1024:.0f} KiB scratch"
        )


@lru_cache(maxsize=1024)
def make_plan(
    problem: ConvProblem,
    table: TileTable,
    caches: Caches,
    threads: int,
    channels_last: bool = False,
    tile: tuple[str, int, int] | None = None,
    x_channels_last: bool = False,
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
    x_channels_last : bool, optional
        Whether neighbouring channels lie side by side in the image.
    """
    threads = worthwhile(problem, threads)
    if tile is None:
        role, nv = choose_tile(problem, table, caches, channels_last, x_channels_last, threads)
        chosen = table.tile(problem, role, nv)
    else:
        chosen = table.tile(problem, *tile)
    blocks = choose_blocks(problem, chosen, caches, threads, channels_last, x_channels_last)
    return Plan(problem, table.isa, chosen, blocks, caches.l1 // _L1_WAY, caches.l2 // _L2_WAY)

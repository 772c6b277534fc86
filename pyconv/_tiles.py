"""A tile, those that a build offers, what each would cost, and the choice.

The cost of a tile for one tap, in cycles, is that of its scarcest resource (`tile_cycles`); what leaves the registers
costs more (`store_cycles`). Every role and every NV is priced with all its tails (ragged output channels, ragged rows),
and the cheapest wins. The numbers are of the kinds of processor, not of one machine: how wide its multiply-add units
are, how many loads it issues, how large its caches are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from math import gcd

from pyconv import _dtypes
from pyconv._problem import ConvProblem
from pyconv._words import counted

PAGE = 4096  # bytes of memory
CACHE_LINE = 64
# Bytes a cycle of what streams past a tile: the second level cache delivers 32 to 64 at its best, of which the other
# operand, and what the prefetcher gets wrong, take their part.
L2_STREAM = 16
_STREAMS = 16  # more than a processor keeps fetching ahead in
_MOST_BLOCKS = 6  # Tile.reads_image
CHANNEL_VECTORS = ("oc", "dc")  # the roles whose vectors are made of output channels
_MAX_NV = 4


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def round_up(a: int, b: int) -> int:
    return ceil_div(a, b) * b


def item_size(problem: ConvProblem) -> int:
    """Bytes of an accumulator."""
    return _dtypes.item_size(problem.dtype)


@dataclass(frozen=True, slots=True)
class Tile:
    """The tile of a plan: ``M[NV - 1]`` is the largest number of scalars that go with NV vectors of `lanes`."""

    role: str
    NV: int
    M: tuple[int, ...]
    lanes: int
    vector_bytes: int
    fmas: int

    @property
    def largest(self) -> int:
        """Scalars that go with all its vectors."""
        return self.M[self.NV - 1]

    @property
    def in_channels(self) -> bool:
        """Whether its vectors are made of output channels."""
        return self.role in CHANNEL_VECTORS

    @property
    def pixels(self) -> int:
        """Pixels of a row that it computes."""
        return self.largest if self.in_channels else self.NV * self.lanes

    @property
    def overhang(self) -> int:
        """Pixels that its vectors may reach past a row."""
        return 0 if self.in_channels else self.lanes - 1

    @property
    def bytes(self) -> int:
        """Bytes of the buffer that its sums pass through: rows of up to NV vectors.

        Rows are transposed 8 at a time, 16 where more than 8 are left. Those of several tiles, one after the other,
        need no more than these tiles' buffers: to round up one by one is never less. Under oc-vector, a block of fewer
        vectors has longer columns of scalars.
        """
        shapes = [(m, v) for v, m in enumerate(self.M[: self.NV], start=1) if self.role == "oc" or v == self.NV]
        return max(round_up(m, 8) * v for m, v in shapes) * self.vector_bytes

    @property
    def unit(self) -> int:
        """Output channels that are packed together: a vector of them, or one."""
        return self.lanes if self.in_channels else 1

    def groups(self, p: ConvProblem) -> int:
        """Count the groups: vectors of channels make one of all."""
        return 1 if self.role == "dc" else p.g

    def oc_units(self, p: ConvProblem) -> int:
        """Count the units of a group's output channels."""
        return ceil_div(p.oc // self.groups(p), self.unit)

    def n_oc_blk(self, p: ConvProblem) -> int:
        """Count the blocks of the output channels of a group, as wide as the tile."""
        return ceil_div(self.oc_units(p), {"oc": self.NV, "ow": self.largest, "dw": 1, "dc": 1}[self.role])

    def reads_image(self, p: ConvProblem) -> bool:
        """Whether its vectors of pixels are read in the image, where they are neighbours there (_in_place.pxi).

        Under a 1x1 kernel they may be, if a row has as many as a tile. They are on more pages than in a strip, which
        tells in every block of output channels (measured: 1 block takes 5 to 50 % less time, 2 to 6 take 3 to 20 %
        less, of pixels from memory -3 to 14 %; 11 take 7 % less to 9 % more, of pixels from memory 5 to 11 % more).
        """
        points = p.kh * p.kw == p.sw == 1 and p.pt == p.pb == p.pl == p.pr == 0 and _dtypes.is_sum(p.src_dtype, p.dtype)
        return self.role == "ow" and points and p.ow >= self.pixels and self.n_oc_blk(p) <= _MOST_BLOCKS

    def has_panels(self, p: ConvProblem, caches: Caches) -> bool:
        """Whether the pixels of each tile, if they are its vectors, lie in a row of their own (_blocks.py: panels).

        They arrive sooner there, if those of all channels take a good part of the first level cache (measured: 2 to
        20 %, of little more than a third 1 to 4 %: as much as a flat strip is worth).
        """
        column = p.ic // p.g * p.kh * item_size(p)
        part = caches.l1 // (2 if p.of_patches and p.oh > 1 else 3)
        return self.role == "ow" and p.kw == 1 and column * self.pixels > part

    def __str__(self) -> str:
        vectors = f"{counted(self.NV, 'vector')} of {self.lanes}"
        return {
            "oc": f"{self.largest} pixels x {vectors} output channels",
            "ow": f"{self.largest} output channels x {vectors} pixels",
            "dw": f"{self.largest} rows x {vectors} pixels",
            "dc": f"{self.largest} pixels x {self.lanes} channels",
        }[self.role]


@dataclass(frozen=True, slots=True)
class TileTable:
    """What one build of the kernels offers, on this processor.

    ``largest[role][NV - 1]`` is the largest M that fits its registers; ``fmas`` vectors are multiplied and added in a
    cycle.
    """

    isa: str
    vector_bytes: int
    largest: tuple[tuple[str, tuple[int, ...]], ...]
    depthwise_kernels: frozenset[tuple[int, int]]
    fmas: int = 2

    @classmethod
    def of(
        cls,
        isa: str,
        vector_bytes: int,
        variants: Iterable[tuple[str, int, int]],
        depthwise_kernels: Iterable[tuple[int, int]],
        fmas: int = 2,
    ) -> TileTable:
        """Summarise the list of variants ``(role, NV, M)`` that a build reports."""
        most: dict[str, list[int]] = {}
        for role, nv, m in variants:
            row = most.setdefault(role, [0] * _MAX_NV)
            row[nv - 1] = max(row[nv - 1], m)
        return cls(
            isa,
            vector_bytes,
            tuple((role, tuple(row)) for role, row in most.items()),
            frozenset(depthwise_kernels),
            fmas,
        )

    def most(self, role: str) -> tuple[int, ...]:
        """Return the largest M for NV = 1, 2, 3, 4; 0 where none fits, or the build has no such role."""
        return next((row for name, row in self.largest if name == role), (0,) * _MAX_NV)

    def tile(self, p: ConvProblem, role: str, nv: int, m: int | None = None) -> Tile:
        """Return the tile of this role with up to nv vectors, and with as many scalars as fit or at most m."""
        limits = [] if m is None else [m]
        if role == "dw" and p.kh not in (1, 3):  # no more rows than the kernel's: each would need a case of its own
            limits.append(p.kh)
        most = tuple(min([largest, *limits]) for largest in self.most(role))
        return Tile(role, nv, most, self.vector_bytes // item_size(p), self.vector_bytes, self.fmas)


@dataclass(frozen=True, slots=True)
class Caches:
    """Bytes of one core's first and second level data cache."""

    l1: int
    l2: int


def loads_per_cycle(vector_bytes: int, fmas: int) -> float:
    """Tell how many vectors are loaded in a cycle: two, but of 64 bytes one, or little more (measured: 1.1)."""
    if vector_bytes < CACHE_LINE:
        return 2
    return 1.1 if fmas > 1 else 1


@lru_cache(maxsize=1024)
def tile_cycles(m: int, nv: int, vector_loads: float, vector_bytes: int, fmas: int) -> float:
    """Cycles that a tile of m scalars and nv vectors takes for one tap.

    One or two multiply-adds are issued a cycle, four instructions in all. An accumulator is ready again after 4 or 5
    cycles, and where one unit has more of them than the other, it is behind (measured, AVX2: 8 take 5.2 cycles, 7 and
    9 take 5.4). A broadcast into 64 bytes counts as a load of as many where the units are as wide, and as one of 4
    bytes where they are not. The loop itself adds up to 3 instructions.
    """
    wide = loads_per_cycle(vector_bytes, fmas)
    loads = m / max(wide, 2 // fmas) + vector_loads / wide
    chains = m * nv
    return max(chains / fmas, loads, 5.0 + (0.5 if chains in (7, 9) else 0), (chains + m + nv + 3) / 4)


def store_cycles(m: int, nv: int, lanes: int, vector_bytes: int, transposed: bool, multiplying: float) -> float:
    """Cycles from the accumulators to the output that multiplying does not hide, beside some 20 for the call.

    The output is rarely in the first level cache, and its rows lie a page or more apart: a line written takes 14
    cycles (measured). 16 lines can wait for it while the next tile multiplies; more of them stall it (measured: tiles
    of up to 14 accumulators take 10 to 20 % less where few taps are summed). Transposing 8 vectors takes 24 shuffles,
    one a cycle, 16 of 16 lanes 64, and each of the pieces of columns that they become goes to another line: 7 cycles.
    """
    if not transposed:
        lines = m * nv * vector_bytes / CACHE_LINE
        return 20 + max(14 * (lines - 16), 14 * lines - multiplying, 0)
    if lanes == 16 and m > 8:
        return 20 + nv * (64 + 7 * lanes)
    return 20 + ceil_div(m, 8) * nv * (24 + 7 * lanes)


def even_tails(n: int, most: int) -> list[tuple[int, int]]:
    """``(size, how many)`` of the parts, at most ``most`` long, that n is evenly split into."""
    parts = ceil_div(n, most)
    big = ceil_div(n, parts)
    n_big = n - parts * (big - 1)
    return [(big, n_big)] if n_big == parts else [(big, n_big), (big - 1, parts - n_big)]


def row_cycles(p: ConvProblem, table: TileTable, caches: Caches, tile: tuple[str, int], channels_last: bool) -> float:
    """Cycles for one row of the output, of one image and group, in tiles of this role and up to this NV."""
    role, nv = tile
    most = table.most(role)
    taps = p.ic // p.g * p.kh * p.kw
    vectors, scalars = p.oc // p.g, p.ow
    if role == "ow":
        vectors, scalars = scalars, vectors
    transposed = (role == "oc") != channels_last
    lanes = table.vector_bytes // item_size(p)
    # Vectors of pixels start on the boundary of a cache line for one tap of a row, say: the others are two loads.
    loads = 1.0 if role == "oc" else 2 - 1 / p.kw
    cycles = 0.0
    for v, blocks in even_tails(ceil_div(vectors, lanes), nv):
        for m, tiles in even_tails(scalars, most[v - 1] if role == "oc" else most[nv - 1]):
            multiplying = taps * tile_cycles(m, v, loads * v, table.vector_bytes, table.fmas)
            storing = store_cycles(m, v, lanes, table.vector_bytes, transposed, multiplying)
            cycles += blocks * tiles * (multiplying + storing)
    if role == "ow":  # a row begins anew with each block's weights (measured, 27 taps: 5 %)
        cycles += 100 * ceil_div(scalars, most[nv - 1])
    # Vectors of pixels start anywhere in a cache line and lie a channel apart, those of packed weights on its boundary
    # and in a row. It shows where they do not stay in the first level cache (measured: 0 to 15 %), unless the units are
    # slow enough to leave the time for it (measured: nothing).
    lines = p.ic // p.g * p.kh * min(p.sw, p.kw) * (nv * table.vector_bytes + CACHE_LINE)
    far = role == "ow" and p.kw > 1 and lines > caches.l1 and table.fmas > 1
    # Under a 1x1 kernel no tap reads what another has read: all pixels stream (measured: 4 to 12 %). So do weights, on
    # lines of their own. From caches that deliver 64 bytes a cycle the hungriest tiles lose 0 to 10 %, 3 on average.
    eaten = table.vector_bytes * table.fmas / most[nv - 1]
    pixels_stream = role == "ow" and p.kw == 1
    weights_stream = role == "oc" and taps * nv * table.vector_bytes > caches.l1
    if far or (pixels_stream and eaten >= L2_STREAM * max(1, table.vector_bytes // 32)):
        return cycles * 1.08
    wide = table.vector_bytes == CACHE_LINE and eaten > L2_STREAM
    return cycles * (1.03 if wide and (pixels_stream or weights_stream) else 1.0)


def depthwise_cycles(p: ConvProblem, tile: Tile) -> float:
    """Cycles that the multiply-adds of one channel take, in tiles of rows of vectors of pixels.

    For one column of the kernel a tile loads each row of the input, vectors that begin anywhere in a cache line, and
    each weight for each of its own rows (the only one of a column once), two loads a cycle. A chain, one for each of
    its vectors, advances every 4 cycles at best; every 5, seeing that 8 chains leave the units idle now and then, and
    12 do not (measured: 12 gain 0 to 15 % of the time, the more the larger the kernel; the 4 that one row of 28 pixels
    had, 15 to 30 %).
    """
    vectors = ceil_div(p.ow, tile.lanes)
    beyond = (1 - 1 / p.kw) * tile.vector_bytes / CACHE_LINE  # the part of vectors that ends in another line
    cycles = 0.0
    for rows, bands in even_tails(p.oh, tile.largest):
        loaded = (rows - 1) * p.sh + p.kh if p.kh > 1 else rows
        for v, tiles in even_tails(vectors, max(1, min(tile.NV, p.ow // tile.lanes))):
            weights = rows * p.kh if p.kh > 1 else 1
            loads = (loaded * v * (1 + beyond) + weights) / loads_per_cycle(tile.vector_bytes, tile.fmas)
            cycles += bands * tiles * max(rows * v * p.kh / tile.fmas, loads, 5.0 * p.kh)
    return cycles * p.kw


def in_channel_vectors(p: ConvProblem, lanes: int) -> bool:
    """Whether a vector of channels holds whole groups, of as many channels out as in."""
    icg = p.ic // p.g
    return p.ic == p.oc and (icg == 1 or (icg < lanes and lanes % icg == 0))


def needed_parts(units: int, threads: int) -> int:
    """Return in how many parts each of so many images and groups is cut, for threads to have as many of them."""
    return threads // gcd(units, threads)


def ways_to_part(n_oc_blk: int, needed: int) -> list[int]:
    """Return numbers of parts of the output channels, the rest of those needed to be cut out of the pixels."""
    return [n for n in sorted({ceil_div(needed, among) for among in range(1, needed + 1)}) if n <= n_oc_blk]


@lru_cache(maxsize=1024)
def unevenness(n_oc_blk: int, rows: int, needed: int) -> float:
    """Tell how many times its even share the busiest thread has, at best, of so many blocks and rows.

    Rows of pixels or, of a single one, tiles: what threads share out beside blocks of output channels (_shares.py).
    """

    def share(parts: int, cuts: int) -> float:
        tasks = parts * cuts
        largest = round_up(n_oc_blk, parts) / n_oc_blk * round_up(rows, cuts) / rows
        return largest * round_up(tasks, needed) / tasks

    ways = ((n, min(rows, ceil_div(needed, n) * k)) for n in ways_to_part(n_oc_blk, needed) for k in (1, 2, 4))
    return min(share(*way) for way in ways)


# Cycles that gathering a vector of pixels takes (measured, 1x1 kernels on 14 and 28 pixels: 3.1 and 4.3).
GATHER = 3


def choose_tile(
    p: ConvProblem,
    table: TileTable,
    caches: Caches,
    channels_last: bool,
    x_channels_last: bool = False,
    threads: int = 1,
) -> tuple[str, int]:
    """Choose the cheapest (role, NV) for the layouts of the output and of the image."""
    lanes = table.vector_bytes // item_size(p)
    of_pixels = p.ic == p.g and 1 in (p.dh, p.sh) and p.oc <= 2 * p.g and (p.kh, p.sh) in table.depthwise_kernels
    # Beside channel vectors, whose time goes with the pixels, vectors of pixels pay for each row as for 7 pixels (at
    # stride 2 for 5) and for each vector as for 0.65 of its lanes (measured: 3x3 to 7x7, 8 and 16 lanes, both dtypes).
    # Without a stride, tiles of a single vector have too few sums to keep two units busy (measured, 28 pixels of 16
    # lanes: 3 to 30 %, the more the larger the kernel).
    wide = (7 if p.sw == 1 else 5) + 0.65 * round_up(p.ow, lanes) <= p.ow and (p.sw > 1 or p.ow >= table.fmas * lanes)
    # Groups of several channels take a permutation for each multiply-add: where the image has to be transposed for it,
    # too, or where groups are wide and vectors of pixels not strided, the other roles are faster (measured, groups of
    # 2 to 8 channels).
    icg = p.ic // p.g
    elsewhere = icg > 1 or (of_pixels and wide)
    if channels_last:
        elsewhere = icg > 4 and p.sw == 1
    if in_channel_vectors(p, lanes) and 2 * p.ic >= lanes and table.most("dc")[0] and not elsewhere:
        return "dc", 1
    if of_pixels:
        tiles = [table.tile(p, "dw", nv) for nv, rows in enumerate(table.most("dw"), start=1) if rows]
        return "dw", min(tiles, key=lambda tile: depthwise_cycles(p, tile)).NV
    points = p.kh * p.kw == 1
    # Rows follow one another as one, unless they are read in the image or pixels come in panels.
    may_be_flat = p.of_patches and p.oh > 1 and not (points and x_channels_last)
    flat = replace(p, oh=1, ow=p.oh * p.ow) if may_be_flat else p
    offered = [(role, nv) for role in ("oc", "ow") for nv, m in enumerate(table.most(role), start=1) if m]
    if points and icg >= _STREAMS and p.oc // p.g <= table.most("ow")[0]:
        # Pixels of which little is made come from far away for the most part. If they do so in many streams, a line of
        # each at a time is best (measured, 64 channels to 2 of 388x388 pixels: two lines take 1.8 times as long; of 8
        # channels they take 15 to 50 % less, in the cache 0 to 8 % less).
        offered = [(role, nv) for role, nv in offered if role == "oc" or nv * table.vector_bytes <= CACHE_LINE]

    needed = needed_parts(p.mb * p.g, threads)

    def cycles(tile: tuple[str, int]) -> float:
        rows = p if may_be_flat and table.tile(p, *tile).has_panels(p, caches) else flat
        gathers = points and not x_channels_last and not table.tile(p, *tile).reads_image(p)
        gathering = GATHER * icg * ceil_div(rows.ow, lanes) if gathers else 0
        price = rows.oh * (gathering + row_cycles(rows, table, caches, tile, channels_last))
        return price * uneven(table.tile(p, *tile)) if needed > 1 else price

    def uneven(tile: Tile) -> float:
        return unevenness(tile.n_oc_blk(p), p.oh if p.oh > 1 else ceil_div(p.ow, tile.pixels), needed)

    return min(offered, key=cycles)

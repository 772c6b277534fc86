"""What each tile would cost, and the choice.

The cost of a tile for one tap, in cycles, is that of its scarcest resource (`tile_cycles`); what leaves the registers
costs more (`store_cycles`), and so do pixels before they are read (`gather_cycles`). Every role and every NV is priced
with all its tails (ragged output channels, ragged rows), and the cheapest wins. The numbers are of the kinds of
processor, not of one machine: how wide its multiply-add units are, how many loads it issues, how large its caches are.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from math import gcd

from pyconv._problem import ConvProblem
from pyconv._tiles import CACHE_LINE, Caches, Tile, TileTable, ceil_div, item_size, round_up

# Bytes a cycle of what streams past a tile: the second level cache delivers 32 to 64 at its best, of which the other
# operand, and what the prefetcher gets wrong, take their part.
L2_STREAM = 16
_STREAMS = 16  # more than a processor keeps fetching ahead in
# Cycles that it takes to transpose 8 vectors: so many shuffles, one a cycle (16 vectors of 16 lanes: 64), and each of
# the pieces of columns that they become, in a strip or in the output.
_SHUFFLES, _PIECE_IN_STRIP, _PIECE_IN_OUTPUT = 24, 2, 7
# Cycles that gathering a vector of pixels takes (measured, 1x1 kernels on 14 and 28 pixels: 3.1 and 4.3).
GATHER = 3
_MOST_APART = 512  # pixels (`_wait_for_weights`)
# The part of its cycles that a load of a whole line costs, where multiply-adds have the longer way to go.
_IN_THE_WAY = 0.05
# The part of the loads that a tile of two multiply-adds a cycle gets: 14x1 tiles of 32 bytes reach 0.84 of the speed of
# 6x2 tiles beside a neighbour on the core's other thread, 0.92 without (measured); the prices of 286 layers in every
# tile fit their times best so.
_LOADED = 0.9


def loads_per_cycle(vector_bytes: int, fmas: int) -> float:
    """Tell how many vectors are loaded in a cycle: two, but of 64 bytes fewer.

    Measured, 64 bytes: tiles alone 1.1 and more; the prices of 342 layers in every tile fit their times best with 1.5.
    """
    if vector_bytes < CACHE_LINE:
        return 2
    return 1.5 if fmas > 1 else 1


@lru_cache(maxsize=1024)
def tile_cycles(m: int, nv: int, vector_loads: float, vector_bytes: int, fmas: int) -> float:
    """Cycles that a tile of m scalars and nv vectors takes for one tap.

    One or two multiply-adds are issued a cycle, four instructions in all. An accumulator is ready again after 4 or 5
    cycles, and where one unit has more of them than the other, it is behind (measured, AVX2: 8 take 5.2 cycles, 7 and
    9 take 5.4). A broadcast into 64 bytes counts as a load of as many where the units are as wide, and as one of 4
    bytes where they are not; of shorter ones, not all are to be had (`_LOADED`). The loop itself adds up to 3
    instructions.
    """
    wide = loads_per_cycle(vector_bytes, fmas)
    of_lines = vector_bytes == CACHE_LINE
    loads = m / max(wide, 2 // fmas) + vector_loads / wide
    if fmas > 1 and not of_lines:
        loads /= _LOADED
    chains = m * nv
    cycles = max(chains / fmas, loads, 5.0 + (0.5 if chains in (7, 9) else 0), (chains + m + nv + 3) / 4)
    return cycles + _IN_THE_WAY * loads if fmas > 1 and of_lines else cycles


def _transposing(lanes: int, a_piece: int) -> float:
    """Cycles that it takes to transpose 8 vectors, to pieces of columns that take so long each."""
    return _SHUFFLES + a_piece * lanes


def store_cycles(m: int, nv: int, lanes: int, vector_bytes: int, transposed: bool, multiplying: float) -> float:
    """Cycles from the accumulators to the output that multiplying does not hide, beside some 20 for the call.

    The output is rarely in the first level cache, and its rows lie a page or more apart: a line written takes 14
    cycles (measured, one after the other), in part beside other work (the prices of 475 layers in every tile fit their
    times best with 8). 16 lines can wait for it while the next tile multiplies; more of them stall it (measured: tiles
    of up to 14 accumulators take 10 to 20 % less where few taps are summed). Each of the pieces of columns that
    transposed vectors become goes to another line.
    """
    if not transposed:
        lines = m * nv * vector_bytes / CACHE_LINE
        return 20 + max(8 * (lines - 16), 8 * lines - multiplying, 0)
    if lanes == 16 and m > 8:
        return 20 + nv * (64 + _PIECE_IN_OUTPUT * lanes)
    return 20 + ceil_div(m, 8) * nv * _transposing(lanes, _PIECE_IN_OUTPUT)


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
        cycles += 120 * ceil_div(scalars, most[nv - 1])
    elif not transposed and vectors % lanes:  # a part of a vector for each pixel (measured, 2 to 4 channels: 11 to 14)
        cycles += 12 * scalars
    if role == "oc" and channels_last and ceil_div(vectors, lanes) > nv:
        # No block writes all channels of a pixel at once (measured, 3 channels to 32: at once 3 to 10 % less time than
        # 16 at a time).
        cycles += 6 * scalars
    wait = _wait_for_weights if role == "oc" else _wait_for_pixels
    return cycles * wait(p, table, caches, nv)


def eaten(tile: Tile | TileTable, m: int) -> float:
    """Bytes of vectors that a tile of m scalars reads in a cycle."""
    return tile.vector_bytes * tile.fmas / m


def _wait_for_pixels(p: ConvProblem, table: TileTable, caches: Caches, nv: int) -> float:
    """Return how many times its cycles a row takes in up to nv vectors of pixels, which not always are in L1.

    They start anywhere in a cache line and lie a channel apart, those of packed weights on its boundary and in a row.
    It shows where they do not stay in the first level cache (measured: 0 to 15 %), unless the units are slow enough to
    leave the time for it (measured: nothing). Under a kernel of one column no tap of a row reads what another has read:
    all pixels stream (measured: 4 to 12 %; from caches that deliver 64 bytes a cycle the hungriest tiles lose 0 to
    10 %, 3 on average).
    """
    appetite = eaten(table, table.most("ow")[nv - 1])
    hungriest = appetite >= L2_STREAM * max(1, table.vector_bytes // 32)
    if p.kw == 1:
        if hungriest:
            return 1.08
        return 1.03 if appetite > L2_STREAM and table.vector_bytes == CACHE_LINE and table.fmas > 1 else 1.0
    lines = p.ic // p.g * p.kh * min(p.sw, p.kw) * (nv * table.vector_bytes + CACHE_LINE)
    far = lines > caches.l1 and table.fmas > 1
    if p.kw == 2 and hungriest:
        # Not more than two taps do (measured, 32 channels: 0 to 18 %; 2048: 8 %).
        return 1.14 if far else 1.06
    return 1.08 if far else 1.0


def _wait_for_weights(p: ConvProblem, table: TileTable, caches: Caches, nv: int) -> float:
    """Return how many times its cycles a row takes in up to nv vectors of weights, which not always are in L1."""
    if table.fmas == 1:
        return 1.0
    appetite = eaten(table, table.most("oc")[nv - 1])
    channels = p.ic // p.g * p.kh
    weights = channels * p.kw * nv * table.vector_bytes
    if table.vector_bytes < CACHE_LINE:
        # Beside more than half of what the second level cache delivers to such vectors in a cycle (measured, blocks of
        # 64 KiB and more: tiles that eat less take 1 to 8 % less, the more beside others on the core's other thread).
        waiting = 1.06 if appetite > L2_STREAM and weights > 2 * caches.l1 else 1.0
    elif appetite > L2_STREAM:
        waiting = 1.03 if weights > caches.l1 else 1.0
    elif appetite < L2_STREAM:
        # Tiles that eat less get no passes (`_weights_share`): where the image is larger than the cache, their strips
        # have few rows, many of them gathered twice (measured, 128 channels on 112 to 280 pixels: 4 to 40 %).
        few_rows = p.kh > p.sh and _exceeds_l2(p, caches)
        wider = even_tails(ceil_div(p.oc // p.g, table.vector_bytes // item_size(p)), 3)[0][0] > nv
        waiting = 1.05 if few_rows and wider else 1.0  # where blocks of three vectors would get passes
    else:
        waiting = 1.0
    # Patches, and signals with a stride: the pixels of a tap lie on lines of their own, which stream beside weights, a
    # line for the few pixels of a tile. Vectors of pixels take it whole (measured: 6 to 40 % less time with 64 bytes;
    # with 32 bytes 6 to 26 % less on 16 to 256 pixels, up to 16 % more on 1000 and more; not measured with 16).
    apart = p.kw > 1 and p.sw > 1 and (p.of_patches or p.kh == 1)
    tap_lines = channels * min(p.sw, p.kw) * CACHE_LINE
    whole = table.vector_bytes == CACHE_LINE or (table.vector_bytes == 32 and p.oh * p.ow <= _MOST_APART)
    return waiting * (1.1 if apart and whole and tap_lines + weights > 2 * caches.l1 else 1.0)


def gather_cycles(p: ConvProblem, pixels: int, tile: Tile, caches: Caches, x_channels_last: bool) -> float:
    """Cycles that it takes to bring a row of points to where a tile of a 1x1 kernel reads them.

    Other kernels read the same strip in every role. In the image it costs as much only where they come from beyond the
    second level cache, those of a tile take a good part of the first, and its vectors are whole lines (measured, 256
    channels of 56x56 pixels: tiles that the pixels are gathered for take 10 to 40 % less). Vectors of neighbouring
    channels become those of pixels by transposition, 8 of them at a time.
    """
    if p.kh * p.kw > 1:
        return 0
    if tile.reads_image(p, x_channels_last):
        of_lines = tile.vector_bytes == CACHE_LINE and tile.has_panels(p, caches)
        if not (of_lines and _exceeds_l2(p, caches)):
            return 0
    a_vector = _transposing(tile.lanes, _PIECE_IN_STRIP) / 8 if x_channels_last else GATHER
    return p.ic // p.g * ceil_div(pixels, tile.lanes) * a_vector


def _exceeds_l2(p: ConvProblem, caches: Caches) -> bool:
    """Whether a group's image, in the dtype of the sums, is larger than the second level cache."""
    return p.ic // p.g * p.ih * p.iw * item_size(p) > caches.l2


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


def plane_cycles(p: ConvProblem, tile: Tile) -> float:
    """Cycles that one channel takes in vectors of pixels: multiply-adds, and rows that are gathered.

    10 cycles for a row and 5 for a vector of it fit the choice between these prices and those of `channel_cycles` best
    (measured, 3x3 to 13x13 kernels on 7 to 112 pixels, 8 and 16 lanes: of 76 layers, the cheaper way takes 0.7 % more
    time than the better one, on average).
    """
    rows, columns = min(p.ih, p.oh * p.kh), min(p.iw, p.ow * p.kw)
    return depthwise_cycles(p, tile) + rows * (10 + 5 * ceil_div(columns, tile.lanes))


def channel_cycles(p: ConvProblem, tile: Tile, caches: Caches) -> float:
    """Cycles that one channel takes in channel vectors, where pixels are neighbours in memory: both are transposed.

    All pixels of the image are, whatever lies between the taps of a stride. What the first level cache does not hold of
    the pixels under a tile comes from the second with every tap (measured, 31x31 kernels: 15 to 20 %).
    """
    loads = (1 + 1 / tile.largest) / loads_per_cycle(tile.vector_bytes, tile.fmas)
    if p.kh * (tile.largest + p.kw - 1) * tile.vector_bytes > caches.l1:
        loads *= 1.2
    a_pixel = p.kh * p.kw * max(1 / tile.fmas, loads) + _transposing(tile.lanes, _PIECE_IN_OUTPUT) / 8
    a_source = _transposing(tile.lanes, _PIECE_IN_STRIP) / 8
    return (p.oh * p.ow * a_pixel + p.ih * p.iw * a_source) / tile.lanes


def _in_channel_vectors(p: ConvProblem, lanes: int) -> bool:
    """Whether a vector of output channels is made of whole groups with as many inputs, or of several single channels.

    Of each of these less than a vector is made: a whole one takes the channel as a scalar (measured, 1x1 to 5x5 kernels
    with stride 1 and 2: 2 to 7 of 8 lanes take 0.3 to 0.95 times as long as elsewhere, of three channels up to 1.4
    times; 8 of them 0.85 to 1.4 times). Half a vector will do, but not of channels that are repeated (measured, 4 of 8
    lanes: they take 1.1 to 2.1 times as long).
    """
    icg = p.ic // p.g
    if p.oc > p.ic:
        return icg == 1 and lanes <= p.oc < lanes * p.ic
    return p.oc == p.ic and 2 * p.oc >= lanes > icg and lanes % icg == 0


def _window_fits(p: ConvProblem, tile: Tile, caches: Caches) -> bool:
    """Tell whether half of the second level cache holds what lies under a tile of channel vectors, the least strip."""
    rows = (p.kh - 1) * p.dh + 1
    columns = (min(tile.largest, p.ow) - 1) * p.sw + (p.kw - 1) * p.dw + 1
    return rows * columns * tile.vector_bytes <= caches.l2 // 2


def _is_worth_permuting(p: ConvProblem, tile: Tile) -> bool:
    """Tell whether groups of channels that are neighbours in memory are best summed in channel vectors.

    Those of several channels take a permutation for each multiply-add there, in other roles transpositions of the
    pixels and of the sums (measured: groups of a quarter of the lanes take 0.4 times as long there as elsewhere, of
    half of them 1.1 to 1.5 times, except in short rows with a stride, 0.65 to 1 times).
    """
    icg = p.ic // p.g
    short = p.sw > 1 and p.ow <= tile.largest
    return icg == 1 or icg * (2 if short else 4) <= tile.lanes


def _takes_channel_vectors(
    p: ConvProblem, table: TileTable, caches: Caches, planes: list[Tile], channels_last: bool
) -> bool:
    """Tell whether channel vectors are the cheapest, also beside these tiles of planes."""
    lanes = table.vector_bytes // item_size(p)
    if not _in_channel_vectors(p, lanes):
        return False
    tile = table.tile(p, "dc", 1)
    if not tile.largest or not _window_fits(p, tile, caches):
        return False
    if channels_last:
        return _is_worth_permuting(p, tile)
    if p.ic > p.g or p.oc > p.ic:  # images would have to be transposed, and their pixels permuted or repeated
        return False
    if p.sw == 1 and p.ow < table.fmas * lanes:  # too few sums elsewhere (measured, 28 of 16 lanes: 3 to 30 %)
        return True
    price = channel_cycles(p, tile, caches)
    return all(price < plane_cycles(p, plane) for plane in planes)


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


def choose_tile(
    p: ConvProblem,
    table: TileTable,
    caches: Caches,
    channels_last: bool,
    x_channels_last: bool = False,
    threads: int = 1,
) -> tuple[str, int]:
    """Choose the cheapest (role, NV) for the layouts of the output and of the image."""
    of_pixels = p.ic == p.g and 1 in (p.dh, p.sh) and p.oc <= 2 * p.g and (p.kh, p.sh) in table.depthwise_kernels
    planes = [table.tile(p, "dw", nv) for nv, rows in enumerate(table.most("dw"), start=1) if rows and of_pixels]
    if _takes_channel_vectors(p, table, caches, planes, channels_last):
        return "dc", 1
    if planes:
        return "dw", min(planes, key=lambda tile: depthwise_cycles(p, tile)).NV
    icg = p.ic // p.g
    points = p.kh * p.kw == 1
    # Rows follow one another as one, unless they are read in the image or pixels come in panels.
    may_be_flat = p.of_patches and p.oh > 1 and not (points and x_channels_last)
    flat = replace(p, oh=1, ow=p.oh * p.ow) if may_be_flat else p
    offered = [(role, nv) for role in ("oc", "ow") for nv, m in enumerate(table.most(role), start=1) if m]
    if points and _exceeds_l2(p, caches) and icg >= _STREAMS and p.oc // p.g <= table.most("ow")[0]:
        # Pixels of which little is made, and that come in many streams: a line of each at a time is best (measured, 64
        # channels to 2 of 388x388 pixels: two lines take 1.8 times as long; of 8 channels they take 15 to 50 % less, in
        # the cache 0 to 15 % less).
        offered = [(role, nv) for role, nv in offered if role == "oc" or nv * table.vector_bytes <= CACHE_LINE]

    needed = needed_parts(p.mb * p.g, threads)

    def cycles(tile: tuple[str, int]) -> float:
        offer = table.tile(p, *tile)
        rows = p if may_be_flat and offer.has_panels(p, caches) else flat
        gathering = gather_cycles(p, rows.ow, offer, caches, x_channels_last)
        price = rows.oh * (gathering + row_cycles(rows, table, caches, tile, channels_last))
        return price * uneven(offer) if needed > 1 else price

    def uneven(tile: Tile) -> float:
        return unevenness(tile.n_oc_blk(p), p.oh if p.oh > 1 else ceil_div(p.ow, tile.pixels), needed)

    return min(offered, key=cycles)

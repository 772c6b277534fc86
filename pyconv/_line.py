"""One axis of a strip: which coordinates of the image it holds, and where each tap finds them.

An output position ``o`` reads coordinate ``o * step + k * dilation`` of the padded image for its tap ``k``. A tile
wants the same tap of neighbouring positions to lie side by side, whatever the stride. Taps whose ``k * dilation`` leave
the same remainder modulo the stride see the same sequence of coordinates, only shifted: they can share one *segment*,
which holds every ``step``-th coordinate::

    step 2, 3 taps, 4 positions          coordinate  0 1 2 3 4 5 6 7 8
    segment 0 (taps 0 and 2)                         0   2   4   6   8
    segment 1 (tap 1)                                  1   3   5   7

Sharing pays while the taps' shifts overlap. Where they do not (a dilation wider than the block of outputs), a tap gets
a segment of its own, so that no axis ever holds more than the smaller of the window's extent and one slot for each
(position, tap).

Where no two outputs share a pixel, every tap has a segment of its own on both axes, and nothing keeps its rows from
following one another as one, in a plane for each tap (`lay_flat`). Tiles then need not end with each row::

    two rows of 4 positions in tiles of at most 3         0 1 | 2 3     4 5 | 6 7
    the same, following one another                       0 1 2 | 3 4 5 | 6 7

Lines are counted in slots. One of rows steps from row to row of the strip, which in flat strips is one of pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Segment:
    """Every ``step``-th coordinate from ``first`` on; slots ``[offset, offset + positions + extra)`` of the line."""

    first: int
    extra: int
    offset: int


@dataclass(frozen=True, slots=True)
class Line:
    """The slots of one axis for a block of output positions.

    ``taps[k]`` is the slot that tap ``k`` of the block's first position reads; position ``i`` reads slot
    ``taps[k] + i``. Each segment has room for vectors that reach past the block.
    """

    segments: tuple[Segment, ...]
    taps: tuple[int, ...]
    length: int


def lay_flat(rows: Line, cols: Line, n_rows: int, n_cols: int, overhang: int = 0) -> tuple[Line, Line]:
    """Lay out both axes where each tap has segments of its own: the pixels of its rows follow one another.

    Slots of rows are ``n_cols`` apart, and those of columns neighbours: pixel ``(i, j)`` of a block, of a tap, is slot
    ``i * n_cols + j`` of a plane. A vector may read `overhang` slots beyond the last, and planes start on the boundary
    of one.
    """
    vector = overhang + 1
    tall = n_rows + -(-overhang // n_cols)
    tall += next(more for more in range(vector) if (tall + more) * n_cols % vector == 0)

    def spread(line: Line, step: int, length: int) -> Line:
        taps = tuple(k * step for k in range(len(line.taps)))
        where = dict(zip(line.taps, taps, strict=True))
        return Line(tuple(Segment(s.first, 0, where[s.offset]) for s in line.segments), taps, length)

    n = len(cols.taps)
    return spread(rows, n * tall, 1), spread(cols, tall * n_cols, len(rows.taps) * n * tall * n_cols)


def lay_out(taps: int, step: int, dilation: int, block: int, overhang: int = 0) -> Line:
    """Lay out one axis for ``block`` output positions.

    Parameters
    ----------
    taps, step, dilation : int
        Kernel extent, stride and dilation along this axis.
    block : int
        Output positions that the line serves.
    overhang : int, optional
        Slots that a vector may read beyond the last position; where vectors read, every line starts on
        the boundary of one, too.
    """
    offsets = [0] * taps
    segments: list[Segment] = []
    length = 0
    for shared, extra in _segments(taps, step, dilation, block):
        segments.append(Segment(shared[0] * dilation, extra, length))
        for k in shared:
            offsets[k] = length + (k - shared[0]) * dilation // step
        length += block + extra + overhang
    return Line(tuple(segments), tuple(offsets), _in_vectors(length, overhang))


def length_of(taps: int, step: int, dilation: int, block: int, overhang: int = 0) -> int:
    """Return the length of the line that `lay_out` makes of these, without making it."""
    length = sum(block + extra + overhang for _, extra in _segments(taps, step, dilation, block))
    return _in_vectors(length, overhang)


def _in_vectors(length: int, overhang: int) -> int:
    vector = overhang + 1
    return -(-length // vector) * vector


def _segments(taps: int, step: int, dilation: int, block: int) -> Iterator[tuple[range, int]]:
    """Yield the taps of every segment, and its slots beyond one for each position."""
    for shared, extra in _by_remainder(taps, step, dilation):
        if block + extra <= block * len(shared):
            yield shared, extra
        else:
            yield from ((range(k, k + 1), 0) for k in shared)


@lru_cache(maxsize=256)
def _by_remainder(taps: int, step: int, dilation: int) -> tuple[tuple[range, int], ...]:
    """Sort the taps by the remainder of the stride that they read, and tell how far those of each reach."""
    period = step // math.gcd(step, dilation)  # from a tap to the next of its remainder
    shared = [range(0)] * min(period, taps)  # first: a kernel too large for memory fails here, at once
    for k in range(len(shared)):
        shared[k] = range(k, taps, period)
    return tuple((some, (some[-1] - some[0]) * dilation // step) for some in shared)

"""A tile, and those that a build offers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pyconv import _dtypes
from pyconv._problem import ConvProblem
from pyconv._words import counted

PAGE = 4096  # bytes of memory
CACHE_LINE = 64
LEAST_CHANNELS = 16  # Tile.reads_image; never less than the four of a turn (_tile.pxd: APART)
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

    def repeats(self, p: ConvProblem) -> int:
        """Return how many times a strip of channel vectors holds each channel: once for each that is made of it."""
        return p.oc // p.ic if self.role == "dc" else 1

    def reads_image(self, p: ConvProblem, x_channels_last: bool) -> bool:
        """Whether pixels are read in a dense image, not gathered from it, but for some at its borders (_in_place.pxi).

        Vectors of channels are, where channels are neighbours there and none is repeated; others under a 1x1 kernel.

        Scalars of pixels may lie apart, so that it may be channels that are neighbours there, of which there should be
        some (measured: 16 and more gain 0 to 50 %, mostly 10 to 25 %, 12 and 8 lose 10 %).

        Vectors of pixels are where a row has as many neighbours as a tile. They are on more pages than in a strip,
        which tells in every block of output channels (measured: 1 block takes 5 to 50 % less time, 2 to 6 take 3 to
        20 % less, of pixels from memory -3 to 14 %; 11 take 7 % less to 9 % more, of pixels from memory 5 to 11 %
        more).
        """
        if not _dtypes.is_sum(p.src_dtype, p.dtype):
            return False
        if self.role == "dc":
            return x_channels_last and self.repeats(p) == 1
        inside = p.pt == p.pl == 0 and (p.oh - 1) * p.sh < p.ih and (p.ow - 1) * p.sw < p.iw
        if p.kh * p.kw > 1 or not inside:
            return False
        if x_channels_last:
            return self.role == "oc" and p.ic // p.g >= LEAST_CHANNELS
        return self.role == "ow" and p.sw == 1 and p.ow >= self.pixels and self.n_oc_blk(p) <= _MOST_BLOCKS

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

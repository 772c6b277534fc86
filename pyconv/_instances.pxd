# From numbers known at run time to constants known at compile time: every instance of the register tiles.
#
# Every function of a .pxd file is inlined where it is called, so each role gets a C function for each kind of
# kernel (_doors.pxi), small enough to be compiled well, whose body is one of these ladders.
#
# An instance that would not fit into the registers of this build is never called, and is compiled to nothing. The
# Python list of what exists (`variants` in _kernels.pyx) comes from the same two predicates.

from pyconv._depthwise cimport (
    channels_fits, channels_tile, channels_tiles, depthwise_fits, depthwise_tile, depthwise_tiles,
)
from pyconv._tile cimport APART, Grid, tile, tile_fits, tiles
from pyconv._vector cimport FUSED, INTEGERS, real, vec


cdef inline void _fitting(
    const int role, const int SHAPE, const int NV, const int M,
    const real *strip, const real *weights, const vec *start, char *out, const Grid *grid,
) noexcept nogil:
    if tile_fits(M, NV):
        if SHAPE == APART:
            tiles(role, SHAPE, NV, M, strip, weights, start, out, grid)
        else:
            tile(role, SHAPE, NV, M, strip, weights, start, out, grid)


cdef inline void _by_m(
    const int role, const int SHAPE, const int NV, int M,
    const real *strip, const real *weights, const vec *start, char *out, const Grid *grid,
) noexcept nogil:
    if M == 1:
        _fitting(role, SHAPE, NV, 1, strip, weights, start, out, grid)
    elif M == 2:
        _fitting(role, SHAPE, NV, 2, strip, weights, start, out, grid)
    elif M == 3:
        _fitting(role, SHAPE, NV, 3, strip, weights, start, out, grid)
    elif M == 4:
        _fitting(role, SHAPE, NV, 4, strip, weights, start, out, grid)
    elif M == 5:
        _fitting(role, SHAPE, NV, 5, strip, weights, start, out, grid)
    elif M == 6:
        _fitting(role, SHAPE, NV, 6, strip, weights, start, out, grid)
    elif M == 7:
        _fitting(role, SHAPE, NV, 7, strip, weights, start, out, grid)
    elif M == 8:
        _fitting(role, SHAPE, NV, 8, strip, weights, start, out, grid)
    elif M == 9:
        _fitting(role, SHAPE, NV, 9, strip, weights, start, out, grid)
    elif M == 10:
        _fitting(role, SHAPE, NV, 10, strip, weights, start, out, grid)
    elif M == 11:
        _fitting(role, SHAPE, NV, 11, strip, weights, start, out, grid)
    elif M == 12:
        _fitting(role, SHAPE, NV, 12, strip, weights, start, out, grid)
    elif M == 13:
        _fitting(role, SHAPE, NV, 13, strip, weights, start, out, grid)
    elif M == 14:
        _fitting(role, SHAPE, NV, 14, strip, weights, start, out, grid)


cdef inline void by_nv(
    const int role, const int SHAPE, int NV, int M,
    const real *strip, const real *weights, const vec *start, char *out, const Grid *grid,
) noexcept nogil:
    if NV == 1:
        _by_m(role, SHAPE, 1, M, strip, weights, start, out, grid)
    elif NV == 2:
        _by_m(role, SHAPE, 2, M, strip, weights, start, out, grid)
    elif NV == 3:
        _by_m(role, SHAPE, 3, M, strip, weights, start, out, grid)
    elif NV == 4:
        _by_m(role, SHAPE, 4, M, strip, weights, start, out, grid)


cdef inline void _fitting_depthwise(
    const int KH, const int KW, const int SH, const int NV, const int R,
    const real *pixels, const real *weights, const vec *bias, char *out, const Grid *grid,
) noexcept nogil:
    if depthwise_fits(R, NV):
        if FUSED:
            depthwise_tiles(KH, KW, SH, NV, R, pixels, weights, bias, out, grid)
        else:
            depthwise_tile(KH, KW, SH, NV, R, pixels, grid.row_pitch, weights, bias, grid.taps, out, grid.pitch)


cdef inline void _by_rows(
    const int KH, const int KW, const int SH, const int NV, int R,
    const real *pixels, const real *weights, const vec *bias, char *out, const Grid *grid,
) noexcept nogil:
    if R == 1:
        _fitting_depthwise(KH, KW, SH, NV, 1, pixels, weights, bias, out, grid)
    elif R == 2:
        _fitting_depthwise(KH, KW, SH, NV, 2, pixels, weights, bias, out, grid)
    elif R == 3:
        _fitting_depthwise(KH, KW, SH, NV, 3, pixels, weights, bias, out, grid)
    elif R == 4:
        _fitting_depthwise(KH, KW, SH, NV, 4, pixels, weights, bias, out, grid)


cdef inline void depthwise_by_nv(
    const int KH, const int KW, const int SH, int NV, int R,
    const real *pixels, const real *weights, const vec *bias, char *out, const Grid *grid,
) noexcept nogil:
    if NV == 1:
        _by_rows(KH, KW, SH, 1, R, pixels, weights, bias, out, grid)
    elif NV == 2:
        _by_rows(KH, KW, SH, 2, R, pixels, weights, bias, out, grid)
    elif NV == 3:
        _by_rows(KH, KW, SH, 3, R, pixels, weights, bias, out, grid)
    elif NV == 4:
        _by_rows(KH, KW, SH, 4, R, pixels, weights, bias, out, grid)


cdef inline bint depthwise_exists(Py_ssize_t KH, Py_ssize_t SH) noexcept nogil:
    if INTEGERS:
        return False
    return True if SH == 1 else SH == 2 and (KH == 3 or KH == 5 or KH == 7)


cdef inline void _fitting_channels(
    const bint GROUPED, const bint BORDERED, const int R,
    const real *strip, const real *weights, const vec *bias, char *out,
    Py_ssize_t pitch, const Grid *grid,
) noexcept nogil:
    if channels_fits(R):
        if FUSED and not GROUPED:
            channels_tiles(BORDERED, R, strip, weights, bias, out, pitch, grid)
        else:
            channels_tile(
                GROUPED, BORDERED, R, strip, grid.row_pitch, weights, bias, grid.taps, out, pitch,
            )


cdef inline void channels_by_pixels(
    const bint GROUPED, const bint BORDERED, int R,
    const real *strip, const real *weights, const vec *bias, char *out,
    Py_ssize_t pitch, const Grid *grid,
) noexcept nogil:
    if R == 1:
        _fitting_channels(GROUPED, BORDERED, 1, strip, weights, bias, out, pitch, grid)
    elif R == 2:
        _fitting_channels(GROUPED, BORDERED, 2, strip, weights, bias, out, pitch, grid)
    elif R == 3:
        _fitting_channels(GROUPED, BORDERED, 3, strip, weights, bias, out, pitch, grid)
    elif R == 4:
        _fitting_channels(GROUPED, BORDERED, 4, strip, weights, bias, out, pitch, grid)
    elif R == 5:
        _fitting_channels(GROUPED, BORDERED, 5, strip, weights, bias, out, pitch, grid)
    elif R == 6:
        _fitting_channels(GROUPED, BORDERED, 6, strip, weights, bias, out, pitch, grid)
    elif R == 7:
        _fitting_channels(GROUPED, BORDERED, 7, strip, weights, bias, out, pitch, grid)
    elif R == 8:
        _fitting_channels(GROUPED, BORDERED, 8, strip, weights, bias, out, pitch, grid)
    elif R == 9:
        _fitting_channels(GROUPED, BORDERED, 9, strip, weights, bias, out, pitch, grid)
    elif R == 10:
        _fitting_channels(GROUPED, BORDERED, 10, strip, weights, bias, out, pitch, grid)
    elif R == 11:
        _fitting_channels(GROUPED, BORDERED, 11, strip, weights, bias, out, pitch, grid)
    elif R == 12:
        _fitting_channels(GROUPED, BORDERED, 12, strip, weights, bias, out, pitch, grid)
    elif R == 13:
        _fitting_channels(GROUPED, BORDERED, 13, strip, weights, bias, out, pitch, grid)
    elif R == 14:
        _fitting_channels(GROUPED, BORDERED, 14, strip, weights, bias, out, pitch, grid)

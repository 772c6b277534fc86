"""The loop nests around the tiles, and the only entry points of the compiled part.

This file is compiled once for each instruction set (setup.py: LEVELS) into a module of its own; _dispatch.py chooses.
A `Convolution` is a plan (_plan.py) lowered to C: numbers and offset tables, no decisions. Its call

    for task in tasks:                       in parallel: (image, group, row block, column block, channel block)
        for channels of the reduction:       one pass, or as many as the plan found to suit the caches
            gather the strip                                                                    _strip.pxd
            for block, for row, for tile:    in an order that depends on the role
                multiply                     from the bias or the sums so far                    _tile.pxd
                scatter                      unless the tile ends in the output itself          _store.pxd

writes each output element from exactly one task, so that there is nothing to lock, and nothing that a thread count
could change.
"""

from cpython.buffer cimport (
    PyBUF_SIMPLE, PyBUF_STRIDES, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer,
)
from cpython.exc cimport PyErr_CheckSignals
from cython.parallel cimport prange, threadid
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from pyconv._ahead cimport Ahead, look_ahead, pixels_of
from pyconv._channels cimport gather_channels
from pyconv._denormals cimport FLUSHING, float_state, rounds_down, set_float_state
from pyconv._depthwise cimport MAX_ROWS, channels_fits, depthwise_fits
from pyconv._half cimport brain, half
from pyconv._instances cimport by_nv, channels_by_pixels, depthwise_by_nv, depthwise_exists
from pyconv._lowered cimport (
    BFLOAT16, BOOL, FLOAT16, FLOAT32, FLOAT64, INT8, INT16, INT32, UINT8, UINT16, UINT32, UINT64, Call, Lowered, Task,
    decode,
)
from pyconv._pack cimport all_finite, pack_group
from pyconv._peak cimport CHAINS, multiply_add_chains
from pyconv._split cimport Split, size_of, split, split_by, start_of
from pyconv._store cimport scatter_as
from pyconv._strip cimport (
    Axis, Image, Segment, gather, gather_dense, int16, int32, int64, int8, is_dense, pixel, uint16, uint32, uint64,
    uint8,
)
from pyconv._tile cimport DEPTHWISE, DEPTHWISE_CHANNELS, MAX_M, MAX_NV, OC_VECTOR, OW_VECTOR, Taps, tile_fits
from pyconv._vector cimport INTEGERS, VECTOR_BYTES, f32, f32v, f64, f64v, real, vec

cdef extern from "omp.h" nogil:
    int omp_get_max_threads()

cdef extern from "stdlib.h" nogil:
    int posix_memalign(void **memory, size_t alignment, size_t size)

cdef enum:
    CACHE_LINE = 64
    PAGE = 4096
    # A tile buffer's rows: MAX_M rounded up to the 8 rows that are transposed at a time.
    TILE_ROWS = 16
    TILE_BYTES = TILE_ROWS * MAX_NV * VECTOR_BYTES

ROLES = {"oc": OC_VECTOR, "ow": OW_VECTOR, "dw": DEPTHWISE, "dc": DEPTHWISE_CHANNELS}
PADDING_MODES = ("zeros", "reflect", "replicate", "circular")  # in the order of _strip.pxd
# What this build sums in 4 and in 8 bytes (FLOAT32 and FLOAT64 below): dtypes of the same bits.
SUMS = ({"uint32", "int32"}, {"uint64", "int64"}) if INTEGERS else ({"float32"}, {"float64"})
PIXELS = (
    "float32", "float64", "bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16",
    "bfloat16",
)

# The instances' doors: a C function for each role and kernel.

cdef void oc_1x1(
    int NV, int M, const real *strip, const real *weights, const Taps *taps,
    const vec *start, bint first, char *out, Py_ssize_t pitch,
) noexcept nogil:
    by_nv(OC_VECTOR, True, NV, M, strip, weights, taps, start, first, out, pitch)


cdef void oc_taps(
    int NV, int M, const real *strip, const real *weights, const Taps *taps,
    const vec *start, bint first, char *out, Py_ssize_t pitch,
) noexcept nogil:
    by_nv(OC_VECTOR, False, NV, M, strip, weights, taps, start, first, out, pitch)


cdef void ow_1x1(
    int NV, int M, const real *strip, const real *weights, const Taps *taps,
    const vec *start, bint first, char *out, Py_ssize_t pitch,
) noexcept nogil:
    by_nv(OW_VECTOR, True, NV, M, strip, weights, taps, start, first, out, pitch)


cdef void ow_taps(
    int NV, int M, const real *strip, const real *weights, const Taps *taps,
    const vec *start, bint first, char *out, Py_ssize_t pitch,
) noexcept nogil:
    by_nv(OW_VECTOR, False, NV, M, strip, weights, taps, start, first, out, pitch)


cdef void dw_1s1(
    int NV, int R, const real *strip, Py_ssize_t row_pitch, const real *weights, const Taps *taps,
    const vec *bias, char *out, Py_ssize_t pitch,
) noexcept nogil:
    depthwise_by_nv(1, 0, 1, NV, R, strip, row_pitch, weights, taps, bias, out, pitch)


cdef void dw_3s1(
    int NV, int R, const real *strip, Py_ssize_t row_pitch, const real *weights, const Taps *taps,
    const vec *bias, char *out, Py_ssize_t pitch,
) noexcept nogil:
    if taps.n_kw == 3:
        depthwise_by_nv(3, 3, 1, NV, R, strip, row_pitch, weights, taps, bias, out, pitch)
    else:
        depthwise_by_nv(3, 0, 1, NV, R, strip, row_pitch, weights, taps, bias, out, pitch)


cdef void dw_3s2(
    int NV, int R, const real *strip, Py_ssize_t row_pitch, const real *weights, const Taps *taps,
    const vec *bias, char *out, Py_ssize_t pitch,
) noexcept nogil:
    if taps.n_kw == 3:
        depthwise_by_nv(3, 3, 2, NV, R, strip, row_pitch, weights, taps, bias, out, pitch)
    else:
        depthwise_by_nv(3, 0, 2, NV, R, strip, row_pitch, weights, taps, bias, out, pitch)


cdef void dw_5s1(
    int NV, int R, const real *strip, Py_ssize_t row_pitch, const real *weights, const Taps *taps,
    const vec *bias, char *out, Py_ssize_t pitch,
) noexcept nogil:
    depthwise_by_nv(5, 5, 1, NV, R, strip, row_pitch, weights, taps, bias, out, pitch)


cdef void dw_5s2(
    int NV, int R, const real *strip, Py_ssize_t row_pitch, const real *weights, const Taps *taps,
    const vec *bias, char *out, Py_ssize_t pitch,
) noexcept nogil:
    if taps.n_kw == 5:
        depthwise_by_nv(5, 5, 2, NV, R, strip, row_pitch, weights, taps, bias, out, pitch)
    else:
        depthwise_by_nv(5, 0, 2, NV, R, strip, row_pitch, weights, taps, bias, out, pitch)


cdef void dw_7s2(
    int NV, int R, const real *strip, Py_ssize_t row_pitch, const real *weights, const Taps *taps,
    const vec *bias, char *out, Py_ssize_t pitch,
) noexcept nogil:
    depthwise_by_nv(7, 0, 2, NV, R, strip, row_pitch, weights, taps, bias, out, pitch)


cdef void dw_any(
    int NV, int R, const real *strip, Py_ssize_t row_pitch, const real *weights, const Taps *taps,
    const vec *bias, char *out, Py_ssize_t pitch,
) noexcept nogil:
    depthwise_by_nv(0, 0, 1, NV, R, strip, row_pitch, weights, taps, bias, out, pitch)


cdef void dc_taps(
    int R, const real *strip, Py_ssize_t step, const real *weights, const Taps *taps,
    const vec *bias, char *out, Py_ssize_t pitch,
) noexcept nogil:
    channels_by_pixels(False, R, strip, step, weights, taps, bias, out, pitch)


cdef void dc_groups(
    int R, const real *strip, Py_ssize_t step, const real *weights, const Taps *taps,
    const vec *bias, char *out, Py_ssize_t pitch,
) noexcept nogil:
    channels_by_pixels(True, R, strip, step, weights, taps, bias, out, pitch)


cdef inline void run_tile_vec(
    int role, int NV, int M, const real *strip, const real *weights, const Taps *taps,
    const vec *start, bint first, char *out, Py_ssize_t pitch,
) noexcept nogil:
    if role == OC_VECTOR:
        if taps.n_kw == taps.n_kh == 1:
            oc_1x1(NV, M, strip, weights, taps, start, first, out, pitch)
        else:
            oc_taps(NV, M, strip, weights, taps, start, first, out, pitch)
    elif taps.n_kw == taps.n_kh == 1:
        ow_1x1(NV, M, strip, weights, taps, start, first, out, pitch)
    else:
        ow_taps(NV, M, strip, weights, taps, start, first, out, pitch)


cdef inline void run_tile(
    int role, int NV, int M, const real *strip, const real *weights, const Taps *taps,
    const real *start, bint first, char *out, Py_ssize_t pitch,
) noexcept nogil:
    if real is f32:
        run_tile_vec(
            role, NV, M, strip, weights, taps, <const f32v *> start, first, out, pitch)
    else:
        run_tile_vec(
            role, NV, M, strip, weights, taps, <const f64v *> start, first, out, pitch)


cdef inline void run_depthwise_vec(
    Py_ssize_t SH, int NV, int R, const real *strip, Py_ssize_t row_pitch, const real *weights, const Taps *taps,
    const vec *bias, char *out, Py_ssize_t pitch,
) noexcept nogil:
    if taps.n_kh == 1 and SH == 1:
        dw_1s1(NV, R, strip, row_pitch, weights, taps, bias, out, pitch)
    elif taps.n_kh == 3 and SH == 1:
        dw_3s1(NV, R, strip, row_pitch, weights, taps, bias, out, pitch)
    elif taps.n_kh == taps.n_kw == 5 and SH == 1:
        dw_5s1(NV, R, strip, row_pitch, weights, taps, bias, out, pitch)
    elif SH == 1:
        dw_any(NV, R, strip, row_pitch, weights, taps, bias, out, pitch)
    elif taps.n_kh == 3 and SH == 2:
        dw_3s2(NV, R, strip, row_pitch, weights, taps, bias, out, pitch)
    elif taps.n_kh == 5 and SH == 2:
        dw_5s2(NV, R, strip, row_pitch, weights, taps, bias, out, pitch)
    elif taps.n_kh == 7 and SH == 2:
        dw_7s2(NV, R, strip, row_pitch, weights, taps, bias, out, pitch)


cdef inline void run_depthwise(
    Py_ssize_t SH, int NV, int R, const real *strip, Py_ssize_t row_pitch, const real *weights, const Taps *taps,
    const real *bias, char *out, Py_ssize_t pitch,
) noexcept nogil:
    if real is f32:
        run_depthwise_vec(SH, NV, R, strip, row_pitch, weights, taps, <const f32v *> bias, out, pitch)
    else:
        run_depthwise_vec(SH, NV, R, strip, row_pitch, weights, taps, <const f64v *> bias, out, pitch)


cdef inline void run_channels_vec(
    int R, const real *strip, Py_ssize_t step, const real *weights, const Taps *taps,
    const vec *bias, char *out, Py_ssize_t pitch,
) noexcept nogil:
    if taps.n_ic == 1:
        dc_taps(R, strip, step, weights, taps, bias, out, pitch)
    else:
        dc_groups(R, strip, step, weights, taps, bias, out, pitch)


cdef inline void run_channels(
    int R, const real *strip, Py_ssize_t step, const real *weights, const Taps *taps,
    const real *bias, char *out, Py_ssize_t pitch,
) noexcept nogil:
    if real is f32:
        run_channels_vec(R, strip, step, weights, taps, <const f32v *> bias, out, pitch)
    else:
        run_channels_vec(R, strip, step, weights, taps, <const f64v *> bias, out, pitch)


cdef void gather_strip(
    const Lowered *p, real *strip, const pixel *pixels, const Image *image, const Task *t, Py_ssize_t n_ic,
) noexcept nogil:
    gather(
        strip, p.row_pitch, p.ic_pitch, pixels, image, &p.rows, &p.cols, n_ic,
        t.oh_start, t.n_oh, t.ow_start, t.n_ow, t.overhang,
    )


cdef void gather_channels_strip(
    const Lowered *p, real *strip, const pixel *pixels, const Image *image, const Task *t, Py_ssize_t n_ch,
) noexcept nogil:
    gather_channels(
        strip, p.row_pitch, p.slot, pixels, image, &p.rows, &p.cols, n_ch,
        t.oh_start * p.sh, (t.n_oh - 1) * p.sh + 1, t.ow_start * p.sw, (t.n_ow - 1) * p.sw + 1,
    )


cdef void gather_dense_strip(
    const Lowered *p, real *strip, const Image *image, const Task *t, Py_ssize_t n_ic, bint cleared,
) noexcept nogil:
    gather_dense(
        strip, p.row_pitch, p.ic_pitch, image, &p.rows, &p.cols, n_ic,
        t.oh_start, t.n_oh, t.ow_start, t.n_ow, t.overhang, cleared,
    )


cdef inline void gather_from(
    const Lowered *p, real *strip, const pixel *pixels, const Image *image, const Task *t, Py_ssize_t n_ic,
    bint cleared,
) noexcept nogil:
    if not INTEGERS and p.role == DEPTHWISE_CHANNELS:
        gather_channels_strip(p, strip, pixels, image, t, n_ic)
        return
    if pixel is real:
        if is_dense(image, sizeof(real)):
            gather_dense_strip(p, strip, image, t, n_ic, cleared)
            return
    gather_strip(p, strip, pixels, image, t, n_ic)


cdef inline void gather_pixels(
    const Lowered *p, real *strip, const Image *image, const Task *t, Py_ssize_t n_ic, bint cleared,
) noexcept nogil:
    # From the image's dtype to the accumulator's. float32 accumulators take the integers that they hold exactly.
    # `cleared`: the strip held the same pixels of another group before.
    if p.pixel == p.dtype or (INTEGERS and real is f64):
        gather_from(p, strip, <const real *> image.data, image, t, n_ic, cleared)
    elif p.pixel == UINT8 or p.pixel == BOOL:
        gather_from(p, strip, <const uint8 *> image.data, image, t, n_ic, cleared)
    elif p.pixel == INT8:
        gather_from(p, strip, <const int8 *> image.data, image, t, n_ic, cleared)
    elif p.pixel == UINT16:
        gather_from(p, strip, <const uint16 *> image.data, image, t, n_ic, cleared)
    elif p.pixel == INT16:
        gather_from(p, strip, <const int16 *> image.data, image, t, n_ic, cleared)
    elif INTEGERS:
        pass
    elif p.pixel == FLOAT16:
        gather_from(p, strip, <const half *> image.data, image, t, n_ic, cleared)
    elif p.pixel == BFLOAT16:
        gather_from(p, strip, <const brain *> image.data, image, t, n_ic, cleared)
    elif real is f64:
        if p.pixel == UINT32:
            gather_from(p, strip, <const uint32 *> image.data, image, t, n_ic, cleared)
        elif p.pixel == INT32:
            gather_from(p, strip, <const int32 *> image.data, image, t, n_ic, cleared)
        elif p.pixel == UINT64:
            gather_from(p, strip, <const uint64 *> image.data, image, t, n_ic, cleared)
        else:
            gather_from(p, strip, <const int64 *> image.data, image, t, n_ic, cleared)


cdef enum:
    CHANNELS_AT_ONCE = 16  # a first level translation buffer holds 48 pages or more


cdef inline Split pixel_tiles(const Lowered *p, const Task *t) noexcept nogil:
    # A row of a task in tiles of vectors of pixels.
    return split_by((t.n_ow + p.lanes - 1) // p.lanes, p.NV)


cdef inline Py_ssize_t first_pixel(const Lowered *p, const Task *t, const Split *tiles, Py_ssize_t i) noexcept nogil:
    # Of tile i. One that would reach past the row moves back to end with it, where it can: the pixels computed twice
    # get the same bits twice.
    return max(0, min(start_of(tiles, i) * p.lanes, t.n_ow - size_of(tiles, i) * p.lanes))


cdef inline void gather_panels(
    const Lowered *p, real *strip, const Image *image, const Task *t, Py_ssize_t n_ic, bint cleared,
) noexcept nogil:
    # The strip of a task; where tiles have panels, each its own. A few channels go through all panels before the next,
    # while their pages are at hand.
    cdef:
        Py_ssize_t i, k, ic, width
        Split tiles
        Task part = t[0]
        Image planes = image[0]
    if p.panel_pitch == 0:
        gather_pixels(p, strip, image, t, n_ic, cleared)
        return
    tiles = pixel_tiles(p, t)
    for k in range((n_ic + CHANNELS_AT_ONCE - 1) // CHANNELS_AT_ONCE):
        ic = k * CHANNELS_AT_ONCE
        planes.data = image.data + ic * image.ic_stride
        for i in range(tiles.parts):
            width = size_of(&tiles, i) * p.lanes
            part.ow_start = t.ow_start + first_pixel(p, t, &tiles, i)
            part.n_ow = min(width, t.n_ow)
            part.overhang = width - part.n_ow
            gather_pixels(
                p, strip + i * p.panel_pitch + ic * p.ic_pitch, &planes, &part, min(CHANNELS_AT_ONCE, n_ic - ic),
                cleared,
            )


cdef void store_tile(
    int dtype, const real *c, Py_ssize_t rows, Py_ssize_t room, Py_ssize_t lanes, Py_ssize_t width,
    char *out, Py_ssize_t row_stride, Py_ssize_t lane_stride,
) noexcept nogil:
    # A function of its own: transpositions want all the registers.
    scatter_as(dtype, c, rows, room, lanes, width, out, row_stride, lane_stride)


cdef struct Pass:
    # One pass of a task over the channels [ic_start, ic_start + taps.n_ic) of the reduction.
    Taps taps
    Ahead ahead
    Py_ssize_t ic_start
    Py_ssize_t low  # the kernel's first row that a tile sums
    int result  # dtype of the output
    bint narrow  # whether that is narrower than the accumulator's, so that no tile ends in the output itself
    bint first, last
    bint skips  # whether rows of the kernel that lie in the padding may be left out
    Py_ssize_t tile_pitch  # from one tile's buffer to the next; 0 where one pass is all and one buffer serves


cdef inline char *output_of(
    const Lowered *p, const Call *call, const Task *t, Py_ssize_t oc, Py_ssize_t row, Py_ssize_t col,
) noexcept nogil:
    return (
        call.out + t.n * call.out_stride[0] + (t.g * p.ocg + oc) * call.out_stride[1]
        + (t.oh_start + row) * call.out_stride[2] + (t.ow_start + col) * call.out_stride[3]
    )


cdef inline bint fits_output(
    const Call *call, const Task *t, Py_ssize_t row, Py_ssize_t width, Py_ssize_t size,
) noexcept nogil:
    # Whether a vector of `width` pixels from the start of a row on can be stored as it is. What reaches past the row
    # lands on the rows below it, where these follow at once: they are this task's and will be written after it.
    return not call.narrow and call.out_stride[3] == size and (
        width <= t.n_ow or (call.out_stride[2] == t.n_ow * size and row * t.n_ow + width <= t.n_oh * t.n_ow)
    )


cdef inline bint holds_negative_zero(
    const real *first, Py_ssize_t pitch, Py_ssize_t rows, Py_ssize_t n,
) noexcept nogil:
    # In rows of n neighbours, `pitch` bytes apart. Compared as integers: -0.0 == 0.0.
    cdef:
        Py_ssize_t _row, i
        bint found = False
        const char *row = <const char *> first
    for _row in range(rows):
        for i in range(n):
            if real is f32:
                found |= (<const uint32 *> row)[i] == <uint32> 1 << 31
            else:
                found |= (<const uint64 *> row)[i] == <uint64> 1 << 63
        row = row + pitch
    return found


cdef inline void take_rows(const Lowered *p, Pass *q, Py_ssize_t oh) noexcept nogil:
    # The taps of output row oh: without the rows of the kernel that lie in a padding of zeros, above and below the
    # image, if the weights are finite, and if some are left. What is left out is +0.0 or -0.0, and to add that changes
    # one number: -0.0 (+0.0 where sums are rounded down: then nothing is left out). So the sum of all taps is that of
    # the others, or it is +0.0 where theirs is -0.0: `run_tile_again` looks for that.
    cdef:
        Py_ssize_t low = 0
        Py_ssize_t high = p.kh
        Py_ssize_t first = oh * p.sh - p.rows.pad  # the image's row under the kernel's first
    if q.skips:
        if first < 0:
            low = min(p.kh, (p.dh - 1 - first) // p.dh)
        if first + p.row_reach >= p.rows.extent:
            high = max(0, (p.rows.extent - first + p.dh - 1) // p.dh)
    if low >= high:
        low, high = 0, p.kh
    q.low = low
    q.taps.offset = p.offset + low * p.kw
    q.taps.n_taps = (high - low) * p.kw
    q.taps.n_skipped = (p.kh - high + low) * p.kw


cdef void run_tile_again(
    int role, int NV, Py_ssize_t M, const real *strip, const real *weights, const Pass *q, const real *bias,
    char *out, Py_ssize_t pitch,
) noexcept nogil:
    # With all taps, where those that were left out could have made a difference.
    cdef:
        Taps taps = q.taps
        Py_ssize_t width = NV * (VECTOR_BYTES // <Py_ssize_t> sizeof(real))
    if INTEGERS or not holds_negative_zero(<const real *> out, pitch, M, width):
        return
    taps.offset = taps.offset - q.low * taps.n_kw
    taps.n_taps = taps.n_taps + taps.n_skipped
    taps.n_skipped = 0
    run_tile(role, NV, <int> M, strip, weights, &taps, bias, True, out, pitch)


cdef inline void multiply_tile(
    int role, int NV, Py_ssize_t M, Py_ssize_t room, Py_ssize_t lanes, const real *strip, const real *weights, Pass *q,
    const real *bias, real *c, char *out, Py_ssize_t row_stride, Py_ssize_t lane_stride,
) noexcept nogil:
    # One tile, from the bias or the sums so far to the output or the sums. Of the scalars that follow its own, those up
    # to `room` will have their tiles later, in the same task.
    cdef:
        Py_ssize_t width = NV * (VECTOR_BYTES // <Py_ssize_t> sizeof(real))
        Py_ssize_t lowest = q.low * q.taps.n_kw * (width if role == OC_VECTOR else M)
        Py_ssize_t pitch = width * <Py_ssize_t> sizeof(real)
        bint direct = q.last and not q.narrow and lanes == width and lane_stride == <Py_ssize_t> sizeof(real)
        char *to = <char *> c
        const real *start = bias if q.first else c
    if direct:
        to = out
        pitch = row_stride
    look_ahead(&q.ahead, &q.taps)
    run_tile(role, NV, <int> M, strip, weights + lowest, &q.taps, start, q.first, to, pitch)
    if q.taps.n_skipped:
        run_tile_again(role, NV, M, strip, weights, q, bias, to, pitch)
    if q.last and not direct:
        store_tile(q.result, c, M, room, lanes, width, out, row_stride, lane_stride)


cdef inline void multiply_oc(
    const Lowered *p, const Call *call, const Task *t, Pass *q,
    const real *strip, const real *group, real *c,
) noexcept nogil:
    # Vectors of output channels times scalars of pixels.
    cdef:
        Py_ssize_t VL = VECTOR_BYTES // sizeof(real)
        Py_ssize_t taps = p.kh * p.kw
        Py_ssize_t block, oc, width, row, i, j, col, m
        int NV
        Split tiles
        const real *weights
    for block in range(t.block_begin, t.block_end):
        oc = start_of(&p.oc_split, block) * VL
        NV = <int> size_of(&p.oc_split, block)
        width = NV * VL
        weights = group + p.bias_pitch + (oc * p.icg + q.ic_start * width) * taps
        tiles = split_by(t.n_ow, p.M[NV])
        for i in range(t.n_oh):
            # From the middle on: rows at the border leave weights out, and would not fetch them for the others.
            row = (i + t.n_oh // 2) % t.n_oh
            take_rows(p, q, t.oh_start + row)
            col = 0
            for j in range(tiles.parts):
                m = size_of(&tiles, j)
                multiply_tile(
                    OC_VECTOR, NV, m, t.n_ow - col, min(width, p.ocg - oc), strip + row * p.row_pitch + col, weights, q,
                    group + oc, c, output_of(p, call, t, oc, row, col), call.out_stride[3], call.out_stride[1],
                )
                c = c + q.tile_pitch
                col = col + m
    # end: block


cdef inline void multiply_ow(
    const Lowered *p, const Call *call, const Task *t, Pass *q,
    const real *strip, const real *group, real *c,
) noexcept nogil:
    # Vectors of pixels times scalars of output channels.
    cdef:
        Py_ssize_t VL = VECTOR_BYTES // sizeof(real)
        Py_ssize_t taps = p.kh * p.kw
        Py_ssize_t row, i, block, oc, m, col, width, lanes
        # Past the channels of this task.
        Py_ssize_t end = start_of(&p.oc_split, t.block_end - 1) + size_of(&p.oc_split, t.block_end - 1)
        int NV
        Split tiles = pixel_tiles(p, t)
        const real *weights
        const real *pixels
    for row in range(t.n_oh):
        take_rows(p, q, t.oh_start + row)
        for block in range(t.block_begin, t.block_end):
            oc = start_of(&p.oc_split, block)
            m = size_of(&p.oc_split, block)
            weights = group + p.bias_pitch + (oc * p.icg + q.ic_start * m) * taps
            for i in range(tiles.parts):
                NV = <int> size_of(&tiles, i)
                width = NV * VL
                col = first_pixel(p, t, &tiles, i)
                lanes = width if fits_output(call, t, row, width, sizeof(real)) else min(width, t.n_ow)
                pixels = strip + row * p.row_pitch + (i * p.panel_pitch if p.panel_pitch else col)
                multiply_tile(
                    OW_VECTOR, NV, m, end - oc, lanes, pixels, weights, q,
                    group + oc * VL, c, output_of(p, call, t, oc, row, col), call.out_stride[1], call.out_stride[3],
                )
                c = c + q.tile_pitch
    # end: row


cdef inline void multiply_dw(
    const Lowered *p, const Call *call, const Task *t, Pass *q,
    const real *strip, const real *group, real *c,
) noexcept nogil:
    # Vectors of pixels in several rows times the weights of one channel. Rows that a dilation apart share their input:
    # a tile takes every `dh`-th row.
    cdef:
        Py_ssize_t VL = VECTOR_BYTES // sizeof(real)
        Py_ssize_t oc, i, j, first, row, n_rows, start, col, width
        Py_ssize_t row_pitch = p.dh * p.row_pitch
        Py_ssize_t out_pitch = p.dh * call.out_stride[2]
        int NV
        # Tiles no wider than the row: the last one moves back to end with it, and no tile needs a buffer.
        Split tiles = split_by((t.n_ow + VL - 1) // VL, max(1, min(p.NV, t.n_ow // VL)))
        Split bands
        const real *weights
        const real *pixels
        char *out
    for oc in range(t.block_begin, t.block_end):
        weights = group + p.bias_pitch + oc * p.kh * p.kw
        for first in range(min(p.dh, t.n_oh)):
            bands = split_by((t.n_oh - first + p.dh - 1) // p.dh, p.M[p.NV])
            row = first
            for j in range(bands.parts):
                n_rows = size_of(&bands, j)
                start = 0
                for i in range(tiles.parts):
                    NV = <int> size_of(&tiles, i)
                    width = NV * VL
                    col = max(0, min(start, t.n_ow - width))
                    pixels = strip + row * p.row_pitch + col
                    out = output_of(p, call, t, oc, row, col)
                    if (p.dh == 1 or width <= t.n_ow) and fits_output(call, t, row + n_rows - 1, width, sizeof(real)):
                        run_depthwise(
                            p.rows.step, NV, <int> n_rows, pixels, row_pitch, weights, &q.taps, group + oc * VL,
                            out, out_pitch,
                        )
                    else:
                        run_depthwise(
                            p.rows.step, NV, <int> n_rows, pixels, row_pitch, weights, &q.taps, group + oc * VL,
                            <char *> c, width * sizeof(real),
                        )
                        store_tile(
                            q.result, c, n_rows, n_rows, min(width, t.n_ow), width, out, out_pitch, call.out_stride[3],
                        )
                    start = start + width
                row = row + n_rows * p.dh
    # end: oc


cdef inline bint in_place(const Lowered *p, const Call *call) noexcept nogil:
    # Whether channel vectors may be read in the image itself. Pixels lie as many bytes apart as there are channels, and
    # where these share a large power of two with a page, few sets of the first level cache hold all of them: half of a
    # tile's at least should find room (measured: 1.5 times too many still gain 1.16, three times too many take 1.3).
    cdef:
        Py_ssize_t pitch = call.x_stride[3]
        Py_ssize_t sets = PAGE // CACHE_LINE
        Py_ssize_t lines = p.kh * ((min(p.M[1], p.ow) - 1) * p.sw + p.col_reach + 1)
    if p.role != DEPTHWISE_CHANNELS or p.pixel != p.dtype or call.x_stride[1] != p.pixel_bytes:
        return False
    while sets > 1 and pitch % (2 * CACHE_LINE) == 0:
        pitch = pitch // 2
        sets = sets // 2
    return lines <= 2 * sets * p.l1_ways


cdef struct Pixels:
    # Where the channel vectors of a rectangle of output pixels are read: a strip, or the image itself.
    const char *data                 # the first tap of the first pixel, of channel 0
    Py_ssize_t row_step, col_step    # from one output pixel to the next, in bytes
    const Py_ssize_t *offset         # of every tap, in bytes


cdef inline void multiply_channels(
    const Lowered *p, const Call *call, const Task *t, Pass *q, const Pixels *pixels, const real *group, real *c,
) noexcept nogil:
    # Vectors of channels in several pixels times vectors of weights: the blocks [t.block_begin, t.block_end) of the
    # output pixels of t. A band of rows at a time, so that its lines are still at hand for the next of its rows.
    cdef:
        Py_ssize_t VL = VECTOR_BYTES // sizeof(real)
        Py_ssize_t size = sizeof(real)
        Py_ssize_t block, oc, lanes, begin, end, row, i, col, m, count
        Py_ssize_t n_rows = t.n_oh
        Py_ssize_t n_cols = t.n_ow
        Py_ssize_t row_step = pixels.row_step
        Py_ssize_t col_step = pixels.col_step
        Py_ssize_t out_row = call.out_stride[2]
        Py_ssize_t out_col = call.out_stride[3]
        bint direct = call.out_stride[1] == size and not q.narrow
        # Rows that follow each other in the output as pixels do are scattered as one.
        bint flat = out_row == n_cols * out_col
        Split tiles
        const real *weights
        const char *source
        char *out
    if direct and n_cols < min(n_rows, p.M[1]):  # a narrow border: tiles run down its columns
        n_rows, n_cols = n_cols, n_rows
        row_step, col_step = col_step, row_step
        out_row, out_col = out_col, out_row
    tiles = split_by(n_cols, p.M[1])
    q.taps.offset = pixels.offset
    begin = 0
    while begin < n_rows:
        end = min(n_rows, begin + (p.band if direct or flat else 1))
        for block in range(t.block_begin, t.block_end):
            oc = block * VL
            lanes = min(VL, p.ocg - oc)
            weights = group + p.bias_pitch + oc * p.icg * p.kh * p.kw
            out = output_of(p, call, t, oc, 0, 0) + begin * out_row
            source = pixels.data + (block - t.block_begin) * VECTOR_BYTES + begin * row_step
            col = 0
            for i in range(tiles.parts):
                m = size_of(&tiles, i)
                for row in range(end - begin):
                    if direct and lanes == VL:
                        run_channels(
                            <int> m, <const real *> (source + row * row_step), col_step, weights, &q.taps, group + oc,
                            out + row * out_row + col * out_col, out_col,
                        )
                    else:
                        run_channels(
                            <int> m, <const real *> (source + row * row_step), col_step, weights, &q.taps, group + oc,
                            <char *> (c + (row * n_cols + col) * VL), VECTOR_BYTES,
                        )
                source = source + m * col_step
                col = col + m
            if direct and lanes < VL:
                for row in range(end - begin):
                    store_tile(
                        q.result, c + row * n_cols * VL, n_cols, n_cols, lanes, VL, out + row * out_row, out_col, size,
                    )
            if not direct:
                count = (end - begin) * n_cols
                store_tile(q.result, c, count, count, lanes, VL, out, out_col, call.out_stride[1])
        begin = end


cdef void multiply_strip_channels(
    const Lowered *p, const Call *call, const Task *t, Pass *q, const Image *image, real *strip, const real *group,
    real *c,
) noexcept nogil:
    # By way of a strip for each few blocks of channels; nothing where t has no pixels.
    cdef:
        Py_ssize_t VL = VECTOR_BYTES // sizeof(real)
        Py_ssize_t k
        Split slots = split_by(t.block_end - t.block_begin, p.slot // VL)
        Pixels pixels
        Task part = t[0]
        Image planes = image[0]
    if t.n_oh == 0 or t.n_ow == 0:
        return
    pixels.data = <const char *> strip
    pixels.row_step = p.sh * p.row_pitch * <Py_ssize_t> sizeof(real)
    pixels.col_step = p.sw * p.slot * <Py_ssize_t> sizeof(real)
    pixels.offset = p.offset
    for k in range(slots.parts):
        part.block_begin = t.block_begin + start_of(&slots, k)
        part.block_end = part.block_begin + size_of(&slots, k)
        planes.data = image.data + part.block_begin * VL * image.ic_stride
        gather_pixels(p, strip, &planes, &part, min(part.block_end * VL, p.ocg) - part.block_begin * VL, False)
        multiply_channels(p, call, &part, q, &pixels, group, c)


cdef inline void inner_pixels(
    const Axis *axis, Py_ssize_t stride, Py_ssize_t reach, Py_ssize_t start, Py_ssize_t n,
    Py_ssize_t *low, Py_ssize_t *high,
) noexcept nogil:
    # Of the output positions [start, start + n), those all of whose taps lie inside the image: [low, high).
    low[0] = min(max(start, (axis.pad + stride - 1) // stride), start + n)
    high[0] = start
    if axis.extent + axis.pad > reach:
        high[0] = min(start + n, (axis.extent + axis.pad - 1 - reach) // stride + 1)
    high[0] = max(low[0], high[0])


cdef inline Py_ssize_t extent(Py_ssize_t n, Py_ssize_t stride, Py_ssize_t reach) noexcept nogil:
    # Of the pixels that n neighbouring outputs read.
    return (n - 1) * stride + reach + 1 if n else 0


cdef inline Task rectangle(
    const Task *t, Py_ssize_t oh_start, Py_ssize_t oh_end, Py_ssize_t ow_start, Py_ssize_t ow_end,
) noexcept nogil:
    # The task t for the output pixels of [oh_start, oh_end) x [ow_start, ow_end).
    cdef Task part = t[0]
    part.oh_start, part.n_oh = oh_start, oh_end - oh_start
    part.ow_start, part.n_ow = ow_start, ow_end - ow_start
    return part


cdef inline void multiply_dc(
    const Lowered *p, const Call *call, const Task *t, Pass *q, const Image *image, real *strip, const real *group,
    real *c,
) noexcept nogil:
    # Where channels are neighbours, pixels whose taps all lie inside the image are read where they are, if there are
    # any; a frame of up to four rectangles around them goes by way of the strip, and so does the last block if it is no
    # whole vector.
    cdef:
        Py_ssize_t VL = VECTOR_BYTES // sizeof(real)
        Py_ssize_t top, bottom, left, right, rows, framed
        Py_ssize_t end = min(t.block_end, p.ocg // VL)
        Py_ssize_t oh_end = t.oh_start + t.n_oh
        Py_ssize_t ow_end = t.ow_start + t.n_ow
        Pixels pixels
        Task frame
        Task part = t[0]
    inner_pixels(&p.rows, p.sh, p.row_reach, t.oh_start, t.n_oh, &top, &bottom)
    inner_pixels(&p.cols, p.sw, p.col_reach, t.ow_start, t.n_ow, &left, &right)
    rows = extent(bottom - top, p.sh, p.row_reach)
    framed = (
        extent(top - t.oh_start, p.sh, p.row_reach) + extent(oh_end - bottom, p.sh, p.row_reach)
    ) * extent(t.n_ow, p.sw, p.col_reach) + rows * (
        extent(left - t.ow_start, p.sw, p.col_reach) + extent(ow_end - right, p.sw, p.col_reach)
    )
    # Worth it where the frame is at most half of the strip that it saves, and where the pixels of a tile do not keep
    # displacing each other.
    if (
        not call.in_place or end <= t.block_begin or bottom <= top or right <= left
        or 2 * framed > extent(t.n_oh, p.sh, p.row_reach) * extent(t.n_ow, p.sw, p.col_reach)
    ):
        multiply_strip_channels(p, call, t, q, image, strip, group, c)
        return
    if end < t.block_end:
        part.block_begin = end
        multiply_strip_channels(p, call, &part, q, image, strip, group, c)
        part.block_begin = t.block_begin
        part.block_end = end
    frame = rectangle(&part, t.oh_start, top, t.ow_start, ow_end)
    multiply_strip_channels(p, call, &frame, q, image, strip, group, c)
    frame = rectangle(&part, bottom, oh_end, t.ow_start, ow_end)
    multiply_strip_channels(p, call, &frame, q, image, strip, group, c)
    frame = rectangle(&part, top, bottom, t.ow_start, left)
    multiply_strip_channels(p, call, &frame, q, image, strip, group, c)
    frame = rectangle(&part, top, bottom, right, ow_end)
    multiply_strip_channels(p, call, &frame, q, image, strip, group, c)
    part = rectangle(&part, top, bottom, left, right)
    pixels.row_step = p.sh * image.ih_stride
    pixels.col_step = p.sw * image.iw_stride
    pixels.offset = call.offset
    pixels.data = (
        image.data + part.block_begin * VECTOR_BYTES
        + (top * p.sh - p.rows.pad) * image.ih_stride + (left * p.sw - p.cols.pad) * image.iw_stride
    )
    multiply_channels(p, call, &part, q, &pixels, group, c)


cdef inline void run_task_of(
    const Lowered *p, const Call *call, Py_ssize_t index, const real *tag, char *scratch,
) noexcept nogil:
    cdef:
        Task t = decode(p, index)
        Pass q
        Image image
        Py_ssize_t i
        Py_ssize_t first_g = t.g
        Py_ssize_t end = t.g + t.n_g
        real *strip = <real *> scratch
        real *c = <real *> (scratch + p.strip_bytes)
        const real *group
    q.taps.n_kh = p.kh
    q.taps.n_kw = p.kw
    q.taps.kh_offset = p.kh_offset
    q.taps.kw_offset = p.kw_offset
    q.taps.offset = p.offset
    q.taps.n_taps = p.kh * p.kw
    q.taps.n_skipped = 0
    q.taps.ic_pitch = p.ic_pitch
    q.ahead = pixels_of(p, call, index + 1)
    q.low = 0
    q.result = p.result
    q.narrow = call.narrow
    q.skips = call.skips and (<const real *> call.packed)[p.g * p.group_pitch] != 0
    q.tile_pitch = p.tile_bytes // <Py_ssize_t> sizeof(real) if p.n_ic_blk > 1 else 0
    image.ic_stride = call.x_stride[1]
    image.ih_stride = call.x_stride[2]
    image.iw_stride = call.x_stride[3]
    image.padding_mode = p.padding_mode
    while t.g < end:
        group = (<const real *> call.packed) + t.g * p.group_pitch
        for i in range(p.n_ic_blk):
            q.first = i == 0
            q.last = i == p.n_ic_blk - 1
            q.ic_start = i * p.ic_blk
            q.taps.n_ic = min(p.ic_blk, p.icg - q.ic_start)
            image.data = call.x + t.n * call.x_stride[0] + (t.g * p.icg + q.ic_start) * call.x_stride[1]
            if p.role == DEPTHWISE_CHANNELS:
                multiply_dc(p, call, &t, &q, &image, strip, group, c)
                continue
            gather_panels(p, strip, &image, &t, q.taps.n_ic, t.g > first_g and p.n_ic_blk == 1)
            if p.role == OC_VECTOR:
                multiply_oc(p, call, &t, &q, strip, group, c)
            elif p.role == OW_VECTOR:
                multiply_ow(p, call, &t, &q, strip, group, c)
            else:
                multiply_dw(p, call, &t, &q, strip, group, c)
        t.g = t.g + 1


cdef void run_task(const Lowered *p, const Call *call, Py_ssize_t index, Py_ssize_t thread) noexcept nogil:
    cdef char *scratch = call.scratch + thread * p.thread_bytes
    # OpenMP's threads have the rounding mode of whoever began them: the caller's is wanted, and theirs left as it was.
    cdef unsigned long state = float_state()
    set_float_state(call.float_state)
    if p.dtype == FLOAT32:
        run_task_of(p, call, index, <const f32 *> call.x, scratch)
    else:
        run_task_of(p, call, index, <const f64 *> call.x, scratch)
    set_float_state(state)


def variants():
    """Every tile of this build: ``(role, NV, M)``; depthwise, ``("dw", NV, rows)`` and ``("dc", 1, pixels)``."""
    cdef int NV, M
    found = []
    for NV in range(1, MAX_NV + 1):
        for M in range(1, MAX_M + 1):
            if tile_fits(M, NV):
                found.append(("oc", NV, M))
                found.append(("ow", NV, M))
        for M in range(1, MAX_ROWS + 1):
            if depthwise_fits(M, NV):
                found.append(("dw", NV, M))
    for M in range(1, MAX_M + 1):
        if channels_fits(M):
            found.append(("dc", 1, M))
    return tuple(found)


def vector_bytes():
    """The width of a vector in this build."""
    return VECTOR_BYTES


def max_threads():
    """How many threads OpenMP would use for a parallel region of this thread's."""
    return omp_get_max_threads()


def address(array):
    """Where an array's memory begins: NumPy's own ways to tell take microseconds, and crash where memory lacks."""
    cdef:
        Py_buffer buffer
        size_t begin
    PyObject_GetBuffer(array, &buffer, PyBUF_SIMPLE)
    begin = <size_t> buffer.buf
    PyBuffer_Release(&buffer)
    return begin


def has_depthwise(kh, sh):
    """Whether the depthwise tile exists for a kernel of ``kh`` rows and a vertical stride of ``sh``."""
    return depthwise_exists(kh, sh)


def multiply_adds(dtype, Py_ssize_t steps):
    """Run the peak loop of this build on one core; return the operations done (two for each multiply-add and lane)."""
    cdef:
        # CHAINS vectors of at most 64 bytes.
        f32 singles[12 * 16]
        f64 doubles[12 * 8]
        Py_ssize_t i
        double total = 0
        bint single = dtype in SUMS[0]
    for i in range(12 * 16):
        singles[i] = 1 + i  # every chain its own: equal ones would be computed once
    for i in range(12 * 8):
        doubles[i] = 1 + i
    with nogil:
        if single:
            multiply_add_chains(steps, <f32> 0.5, <f32v *> singles)
        else:
            multiply_add_chains(steps, <f64> 0.5, <f64v *> doubles)
    # Every chain must be of consequence, or the compiler drops it.
    for i in range(12 * 16):
        total += singles[i]
    for i in range(12 * 8):
        total += doubles[i]
    if total != total:
        raise ArithmeticError("the peak loop diverged")
    return 2 * steps * CHAINS * VECTOR_BYTES // (4 if single else 8)


cdef void repeat_tile(
    int role, int NV, int M, const Taps *taps, const real *strip, const real *weights, real *c, Py_ssize_t repeats,
) noexcept nogil:
    cdef Py_ssize_t _repeat
    for _repeat in range(repeats):
        run_tile(role, NV, M, strip, weights, taps, c, False, <char *> c, NV * VECTOR_BYTES)


def tile_multiply_adds(
    dtype, role, int NV, int M, Py_ssize_t n_ic, Py_ssize_t n_kh, Py_ssize_t n_kw, Py_ssize_t repeats,
):
    """Run one tile alone, over a strip and weights of zeros; return the operations done, as `multiply_adds` does.

    The strip is as narrow as the tile allows, so that with few channels everything stays in the first level cache.
    """
    cdef:
        bint single = dtype in SUMS[0]
        Py_ssize_t size = 4 if single else 8
        Py_ssize_t VL = VECTOR_BYTES // size
        int tile_role = ROLES[role]
        Py_ssize_t pixels = M if tile_role == OC_VECTOR else NV * VL
        Py_ssize_t scalars = NV * VL if tile_role == OC_VECTOR else M
        Py_ssize_t width = (pixels + n_kw - 1 + VL - 1) // VL * VL
        Py_ssize_t strip_bytes = n_kh * n_ic * width * size
        Py_ssize_t weight_bytes = (n_ic * n_kh * n_kw * scalars * size + CACHE_LINE - 1) // CACHE_LINE * CACHE_LINE
        Py_ssize_t offset[32 * 32]
        void *memory = NULL
        char *base
        Taps taps
        Py_ssize_t k
    if (role, NV, M) not in variants() or tile_role > OW_VECTOR or not (0 < n_kh <= 32 and 0 < n_kw <= 32):
        raise ValueError(f"no tile ({role!r}, {NV}, {M}) for a {n_kh}x{n_kw} kernel")
    if not 0 < n_ic <= 1 << 20:
        raise ValueError(f"n_ic must be from 1 to {1 << 20}, got {n_ic}")
    if posix_memalign(&memory, CACHE_LINE, strip_bytes + weight_bytes + TILE_BYTES) != 0:
        raise MemoryError
    memset(memory, 0, strip_bytes + weight_bytes + TILE_BYTES)
    base = <char *> memory
    memset(&taps, 0, sizeof(Taps))
    taps.n_ic, taps.n_kh, taps.n_kw, taps.ic_pitch = n_ic, n_kh, n_kw, width
    taps.offset, taps.ahead = offset, base
    taps.n_taps = n_kh * n_kw
    for k in range(n_kh * n_kw):
        offset[k] = (k // n_kw * n_ic * width + k % n_kw) * size
    with nogil:
        if single:
            repeat_tile(
                tile_role, NV, M, &taps, <const f32 *> (base + weight_bytes), <const f32 *> base,
                <f32 *> (base + weight_bytes + strip_bytes), repeats,
            )
        else:
            repeat_tile(
                tile_role, NV, M, &taps, <const f64 *> (base + weight_bytes), <const f64 *> base,
                <f64 *> (base + weight_bytes + strip_bytes), repeats,
            )
    free(memory)
    return 2 * repeats * n_ic * n_kh * n_kw * M * NV * VL


cdef void set_strides(Py_ssize_t *strides, const Py_buffer *array, int axes, bint one_row) noexcept:
    # Of image, channel, row and pixel.
    cdef int last = array.ndim - 1
    strides[0] = array.strides[0] if last > axes else 0
    strides[1] = array.strides[last - axes]
    strides[2] = array.strides[last - 1] if axes == 2 else 0
    strides[3] = array.strides[last]
    if one_row and axes == 2 and array.shape[last] == 1:
        strides[3] = strides[2]  # a column as a row; the stride of an axis of length 1 means nothing


cdef class Convolution:
    """A plan, lowered: ``pack`` the weights, then call it on arrays.

    Parameters
    ----------
    plan : pyconv._plan.Plan
        Made for this module's vector width and variants.
    """

    cdef:
        Lowered p
        void *tables

    def __cinit__(self, plan):
        cdef Lowered *p = &self.p
        problem = plan.problem
        p.role = ROLES[plan.role]
        same = SUMS[0] if problem.dtype in SUMS[0] else SUMS[1]
        p.dtype = FLOAT32 if same is SUMS[0] else FLOAT64
        p.pixel = p.dtype if problem.src_dtype in same else PIXELS.index(problem.src_dtype)
        p.result = p.dtype if problem.dst_dtype in same else PIXELS.index(problem.dst_dtype)
        p.pixel_bytes, p.lanes = plan.pixel_bytes, plan.lanes
        p.row_reach = (problem.kh - 1) * problem.dh
        p.col_reach = (problem.kw - 1) * problem.dw
        p.padding_mode = PADDING_MODES.index(problem.padding_mode)
        p.mb, p.g, p.oh, p.ow, p.kh, p.kw = problem.mb, plan.g, problem.oh, problem.ow, problem.kh, problem.kw
        p.icg, p.ocg = plan.icg, plan.ocg
        p.NV = plan.NV
        for nv, m in enumerate(plan.M, start=1):
            p.M[nv] = m
        p.dh, p.dw, p.sh, p.sw = problem.dh, problem.dw, problem.sh, problem.sw
        p.skips = plan.skips
        p.slot, p.band, p.l1_ways = plan.slot, plan.band, plan.l1_ways
        p.g_blk, p.oh_blk, p.ow_blk, p.ic_blk = plan.g_blk, plan.oh_blk, plan.ow_blk, plan.ic_blk
        p.n_g_blk = plan.n_g_blk
        p.n_oh_blk, p.n_ow_blk, p.n_ic_blk = plan.n_oh_blk, plan.n_ow_blk, plan.n_ic_blk
        p.n_oc_task = plan.n_oc_task
        self._set_channels(plan)
        self._set_strip(plan)
        p.n_tasks, p.tiles_per_task = plan.n_tasks, plan.tiles_per_task
        p.work_per_task = plan.work_per_task

    cdef _set_channels(self, plan):
        cdef:
            Lowered *p = &self.p
        p.oc_split = split(plan.oc_units, plan.n_oc_blk)
        p.task_split = split(plan.n_oc_blk, p.n_oc_task)
        p.bias_pitch, p.group_pitch = plan.bias_pitch, plan.group_pitch

    cdef _set_strip(self, plan):
        cdef:
            Lowered *p = &self.p
            Py_ssize_t *offsets
            Segment *segments
        rows, cols, problem = plan.rows, plan.cols, plan.problem
        self.tables = calloc(
            (p.kh + p.kw + p.kh * p.kw) * sizeof(Py_ssize_t)
            + (len(rows.segments) + len(cols.segments)) * sizeof(Segment), 1
        )
        if self.tables == NULL:
            raise MemoryError("the offset tables of a convolution")
        offsets = <Py_ssize_t *> self.tables
        segments = <Segment *> (offsets + p.kh + p.kw + p.kh * p.kw)
        p.ic_pitch = cols.length
        p.row_pitch = plan.strip_ic * p.ic_pitch * plan.slot
        p.panel_pitch = plan.panel_slots if plan.panel else 0
        p.kh_offset = offsets
        p.kw_offset = offsets + p.kh
        p.offset = offsets + p.kh + p.kw
        for k, tap in enumerate(rows.taps):
            p.kh_offset[k] = tap * p.row_pitch
        for k, tap in enumerate(cols.taps):
            p.kw_offset[k] = tap * plan.slot
        for k in range(p.kh * p.kw):
            p.offset[k] = (p.kh_offset[k // p.kw] + p.kw_offset[k % p.kw]) * plan.vector_bytes // plan.lanes
        # A strip of channel vectors holds the rows and columns of the image as they are.
        sh, sw = (1, 1) if p.role == DEPTHWISE_CHANNELS else (problem.sh, problem.sw)
        p.rows = Axis(problem.ih, problem.pt, sh, len(rows.segments), segments)
        p.cols = Axis(problem.iw, problem.pl, sw, len(cols.segments), segments + len(rows.segments))
        for k, segment in enumerate(rows.segments + cols.segments):
            segments[k] = Segment(segment.first, segment.extra, segment.offset)
        p.strip_bytes, p.tile_bytes = plan.strip_bytes, plan.tile_bytes
        p.thread_bytes = plan.thread_bytes

    def __dealloc__(self):
        free(self.tables)

    def pack(self, weight, bias, packed):
        """Fill ``packed`` (`packed_size` elements of the plan) from ``weight`` (oc, ic // g[, kh], kw) and ``bias``."""
        cdef:
            Py_buffer w, b, to
            Py_ssize_t strides[4]
        PyObject_GetBuffer(weight, &w, PyBUF_STRIDES)
        try:
            PyObject_GetBuffer(packed, &to, PyBUF_STRIDES | PyBUF_WRITABLE)
            try:
                set_strides(strides, &w, w.ndim - 2, False)
                strides[0] = w.strides[0]
                if bias is None:
                    self._pack(<const char *> w.buf, strides, NULL, 0, to.buf)
                    return
                PyObject_GetBuffer(bias, &b, PyBUF_STRIDES)
                try:
                    self._pack(<const char *> w.buf, strides, <const char *> b.buf, b.strides[0], to.buf)
                finally:
                    PyBuffer_Release(&b)
            finally:
                PyBuffer_Release(&to)
        finally:
            PyBuffer_Release(&w)

    cdef _pack(
        self, const char *weight, const Py_ssize_t *strides, const char *bias, Py_ssize_t bias_stride, void *packed,
    ):
        cdef:
            Lowered *p = &self.p
            Py_ssize_t g
        with nogil:
            for g in range(p.g):
                if p.dtype == FLOAT32:
                    pack_group(p, weight, strides, bias, bias_stride, <f32 *> packed + g * p.group_pitch)
                else:
                    pack_group(p, weight, strides, bias, bias_stride, <f64 *> packed + g * p.group_pitch)
                weight = weight + p.ocg * strides[0]
                if bias != NULL:
                    bias = bias + p.ocg * bias_stride
            if p.skips:
                if p.dtype == FLOAT32:
                    (<f32 *> packed)[p.g * p.group_pitch] = all_finite(<const f32 *> packed, p.g * p.group_pitch)
                else:
                    (<f64 *> packed)[p.g * p.group_pitch] = all_finite(<const f64 *> packed, p.g * p.group_pitch)

    def __call__(self, x, packed, out, Py_ssize_t n_threads, int axes, bint flush=False):
        """Convolve ``x`` (mb, ic, ih, iw) with packed weights into ``out`` (mb, oc, oh, ow), any strides.

        The batch axis may be missing, and with `axes` 1 the height is. A problem of one row takes images whose rows
        follow one another as one row. ``flush``: subnormal numbers are zeros.
        """
        cdef:
            Py_buffer xb, wb, ob
            Call call
        PyObject_GetBuffer(x, &xb, PyBUF_STRIDES)
        try:
            PyObject_GetBuffer(packed, &wb, PyBUF_STRIDES)
            try:
                PyObject_GetBuffer(out, &ob, PyBUF_STRIDES | PyBUF_WRITABLE)
                try:
                    set_strides(call.x_stride, &xb, axes, self.p.rows.extent == 1)
                    set_strides(call.out_stride, &ob, axes, self.p.oh == 1)
                    call.float_state = float_state() | (FLUSHING if flush else 0)
                    call.x = <const char *> xb.buf
                    call.packed = <const char *> wb.buf
                    call.out = <char *> ob.buf
                    self._run(&call, n_threads)
                finally:
                    PyBuffer_Release(&ob)
            finally:
                PyBuffer_Release(&wb)
        finally:
            PyBuffer_Release(&xb)

    cdef _run(self, Call *call, Py_ssize_t n_threads):
        cdef:
            Lowered *p = &self.p
            Py_ssize_t begin = 0
            Py_ssize_t end, t, i
            # Between slices a pending Ctrl-C is answered: 2 GFLOP are some 20 ms of a core at its best.
            Py_ssize_t slice_tasks = max(n_threads, n_threads * 2_000_000_000 // p.work_per_task)
            Py_ssize_t chunk
            void *scratch = NULL
            Py_ssize_t bytes = n_threads * p.thread_bytes
            Py_ssize_t offset_bytes = p.kh * p.kw * <Py_ssize_t> sizeof(Py_ssize_t)
        if posix_memalign(&scratch, CACHE_LINE, bytes + offset_bytes) != 0:
            raise MemoryError(f"{bytes + offset_bytes} bytes of scratch for a convolution")
        call.scratch = <char *> scratch
        call.narrow = p.result != p.dtype
        call.offset = <Py_ssize_t *> (call.scratch + bytes)
        call.in_place = in_place(p, call)
        call.skips = p.skips and not rounds_down(call.float_state)
        # Not otherwise: the stride of an axis of length 1 may be any number, too large to multiply.
        for i in range(p.kh * p.kw if call.in_place else 0):
            call.offset[i] = i // p.kw * p.dh * call.x_stride[2] + i % p.kw * p.dw * call.x_stride[3]
        try:
            # Tiles are transposed 8 rows at a time, and rows past the last one are read before they are dropped.
            for i in range(n_threads):
                memset(call.scratch + i * p.thread_bytes + p.strip_bytes, 0, p.thread_bytes - p.strip_bytes)
            while begin < p.n_tasks:
                end = min(p.n_tasks, begin + slice_tasks)
                with nogil:
                    if n_threads == 1:
                        for t in range(begin, end):
                            run_task(p, call, t, 0)
                    else:
                        chunk = max(1, (end - begin) // (16 * n_threads))
                        for t in prange(begin, end, num_threads=<int> n_threads, schedule="dynamic", chunksize=chunk):
                            run_task(p, call, t, threadid())
                begin = end
                if begin < p.n_tasks:
                    PyErr_CheckSignals()
        finally:
            free(scratch)

# The doors: what the loop nests call, compiled into functions of its own (included by _kernels.pyx).
#
# Every function of a .pxd file is inlined where it is called. A door is where that ends: one C function for each role
# of the tile and kernel, for each gather and for the rest that wants all the registers, small enough to be compiled
# well. Turns of many taps (_tile.pxd), and depthwise kernels whose width is known, are for builds that take a tap with
# few instructions: there the loop counts (measured on x86-64-v2: known widths take up to 1.5 times as long). So are
# loops over tiles within an instance.

from pyconv._ahead cimport look_ahead
from pyconv._channels cimport gather_channels, repeat_channels
from pyconv._instances cimport by_nv, channels_by_pixels, depthwise_by_nv
from pyconv._lowered cimport Lowered, Task, Weights
from pyconv._pack cimport pack_part
from pyconv._store cimport scatter_as, scatter_parts
from pyconv._strip cimport Axis, Image, Segment, gather, gather_dense, is_dense
from pyconv._tile cimport (
    ANY, APART, DEPTHWISE, FOUR, MANY, OC_VECTOR, ONE, OW_VECTOR, SQUARE, THREE, TWO, Grid, Taps,
)
from pyconv._vector cimport (
    FUSED, INTEGERS, VECTOR_BYTES, channels_code, f32, f32v, f64, f64v, one_copy, real, tile_code, vec,
)
from pyconv._widen cimport widen_as

# One tap of each channel is all of a 1x1 kernel, and may be what the padding leaves of a taller one.
cdef inline void by_points(
    const int role, int NV, int M, const real *strip, const real *weights, const vec *start, char *out,
    const Grid *grid,
) noexcept nogil:
    if FUSED and grid.taps.n_ic % 4 == 0 and grid.taps.n_skipped == 0:
        by_nv(role, FOUR, NV, M, strip, weights, start, out, grid)
    else:
        by_nv(role, ONE, NV, M, strip, weights, start, out, grid)


cdef inline void by_taps(
    const int role, int NV, int M, const real *strip, const real *weights, const vec *start, char *out,
    const Grid *grid,
) noexcept nogil:
    if FUSED and grid.taps.n_taps > 3:
        by_nv(role, MANY, NV, M, strip, weights, start, out, grid)
    elif FUSED and grid.taps.n_taps == 3:
        by_nv(role, THREE, NV, M, strip, weights, start, out, grid)
    elif FUSED:
        by_nv(role, TWO, NV, M, strip, weights, start, out, grid)
    else:
        by_nv(role, ANY, NV, M, strip, weights, start, out, grid)


cdef tile_code oc_1x1(
    int NV, int M, const real *strip, const real *weights, const vec *start, char *out, const Grid *grid,
) noexcept nogil:
    by_points(OC_VECTOR, NV, M, strip, weights, start, out, grid)


cdef tile_code oc_1x1_apart(
    int NV, int M, const real *strip, const real *weights, const vec *start, char *out, const Grid *grid,
) noexcept nogil:
    if FUSED:
        by_nv(OC_VECTOR, APART, NV, M, strip, weights, start, out, grid)


cdef tile_code ow_1x1(
    int NV, int M, const real *strip, const real *weights, const vec *start, char *out, const Grid *grid,
) noexcept nogil:
    by_points(OW_VECTOR, NV, M, strip, weights, start, out, grid)


cdef tile_code oc_3x3(
    int NV, int M, const real *strip, const real *weights, const vec *start, char *out, const Grid *grid,
) noexcept nogil:
    by_nv(OC_VECTOR, SQUARE, NV, M, strip, weights, start, out, grid)


cdef tile_code ow_3x3(
    int NV, int M, const real *strip, const real *weights, const vec *start, char *out, const Grid *grid,
) noexcept nogil:
    by_nv(OW_VECTOR, SQUARE, NV, M, strip, weights, start, out, grid)


cdef tile_code oc_taps(
    int NV, int M, const real *strip, const real *weights, const vec *start, char *out, const Grid *grid,
) noexcept nogil:
    by_taps(OC_VECTOR, NV, M, strip, weights, start, out, grid)


cdef tile_code ow_taps(
    int NV, int M, const real *strip, const real *weights, const vec *start, char *out, const Grid *grid,
) noexcept nogil:
    by_taps(OW_VECTOR, NV, M, strip, weights, start, out, grid)


cdef void dw_1s1(
    int NV, int R, const real *pixels, const real *weights, const vec *bias, char *out, const Grid *grid,
) noexcept nogil:
    depthwise_by_nv(1, 0, 1, NV, R, pixels, weights, bias, out, grid)


cdef void dw_3s1(
    int NV, int R, const real *pixels, const real *weights, const vec *bias, char *out, const Grid *grid,
) noexcept nogil:
    if FUSED and grid.taps.n_kw == 3:
        depthwise_by_nv(3, 3, 1, NV, R, pixels, weights, bias, out, grid)
    else:
        depthwise_by_nv(3, 0, 1, NV, R, pixels, weights, bias, out, grid)


cdef void dw_3s2(
    int NV, int R, const real *pixels, const real *weights, const vec *bias, char *out, const Grid *grid,
) noexcept nogil:
    if FUSED and grid.taps.n_kw == 3:
        depthwise_by_nv(3, 3, 2, NV, R, pixels, weights, bias, out, grid)
    else:
        depthwise_by_nv(3, 0, 2, NV, R, pixels, weights, bias, out, grid)


cdef void dw_5s1(
    int NV, int R, const real *pixels, const real *weights, const vec *bias, char *out, const Grid *grid,
) noexcept nogil:
    if FUSED:
        depthwise_by_nv(5, 5, 1, NV, R, pixels, weights, bias, out, grid)
    else:
        depthwise_by_nv(5, 0, 1, NV, R, pixels, weights, bias, out, grid)


cdef void dw_5s2(
    int NV, int R, const real *pixels, const real *weights, const vec *bias, char *out, const Grid *grid,
) noexcept nogil:
    if FUSED and grid.taps.n_kw == 5:
        depthwise_by_nv(5, 5, 2, NV, R, pixels, weights, bias, out, grid)
    else:
        depthwise_by_nv(5, 0, 2, NV, R, pixels, weights, bias, out, grid)


cdef void dw_7s2(
    int NV, int R, const real *pixels, const real *weights, const vec *bias, char *out, const Grid *grid,
) noexcept nogil:
    depthwise_by_nv(7, 0, 2, NV, R, pixels, weights, bias, out, grid)


cdef void dw_any(
    int NV, int R, const real *pixels, const real *weights, const vec *bias, char *out, const Grid *grid,
) noexcept nogil:
    depthwise_by_nv(0, 0, 1, NV, R, pixels, weights, bias, out, grid)


cdef channels_code dc_taps(
    int R, const real *strip, const real *weights, const vec *bias, char *out, const Grid *grid,
) noexcept nogil:
    # A pitch that is known saves an addition for each pixel (measured, sums that end in a buffer: 3 to 6 % of a layer).
    if grid.pitch == VECTOR_BYTES:
        channels_by_pixels(False, False, R, strip, weights, bias, out, VECTOR_BYTES, grid)
    else:
        channels_by_pixels(False, False, R, strip, weights, bias, out, grid.pitch, grid)


cdef channels_code dc_groups(
    int R, const real *strip, const real *weights, const vec *bias, char *out, const Grid *grid,
) noexcept nogil:
    channels_by_pixels(True, False, R, strip, weights, bias, out, grid.pitch, grid)


cdef void dc_borders(
    int R, const real *strip, const real *weights, const vec *bias, char *out, const Grid *grid,
) noexcept nogil:
    channels_by_pixels(False, True, R, strip, weights, bias, out, grid.pitch, grid)


cdef inline void run_tiles_vec(
    int role, int NV, int M, const real *strip, const real *weights, const vec *start, char *out, const Grid *grid,
) noexcept nogil:
    cdef:
        const Taps *taps = grid.taps
        bint point = taps.n_taps == 1
        bint square = FUSED and taps.n_kw == taps.n_kh == 3 and taps.n_skipped == 0
        Py_ssize_t _i
    if point:
        strip = <const real *> (<const char *> strip + taps.offset[0])
    if role == OC_VECTOR and taps.pixel_step:
        oc_1x1_apart(NV, M, strip, weights, start, out, grid)
        return
    for _i in range(grid.n):
        look_ahead(taps.ahead)
        if role == OC_VECTOR:
            if point:
                oc_1x1(NV, M, strip, weights, start, out, grid)
            elif square:
                oc_3x3(NV, M, strip, weights, start, out, grid)
            else:
                oc_taps(NV, M, strip, weights, start, out, grid)
        elif point:
            ow_1x1(NV, M, strip, weights, start, out, grid)
        elif square:
            ow_3x3(NV, M, strip, weights, start, out, grid)
        else:
            ow_taps(NV, M, strip, weights, start, out, grid)
        strip = <const real *> (<const char *> strip + grid.next_pixel)
        start = <const vec *> (<const char *> start + grid.next_start)
        out = out + grid.next_out


cdef inline void run_tiles(
    int role, int NV, int M, const real *strip, const real *weights, const real *start, char *out, const Grid *grid,
) noexcept nogil:
    # A line of tiles, from the bias or the sums so far, `start`, to `out`.
    if real is f32:
        run_tiles_vec(role, NV, M, strip, weights, <const f32v *> start, out, grid)
    else:
        run_tiles_vec(role, NV, M, strip, weights, <const f64v *> start, out, grid)


cdef inline void run_depthwise(
    Py_ssize_t SH, int NV, int R, const real *pixels, const real *weights, const vec *bias, char *out,
    const Grid *grid,
) noexcept nogil:
    cdef const Taps *taps = grid.taps
    if taps.n_kh == 1 and SH == 1:
        dw_1s1(NV, R, pixels, weights, bias, out, grid)
    elif taps.n_kh == 3 and SH == 1:
        dw_3s1(NV, R, pixels, weights, bias, out, grid)
    elif taps.n_kh == taps.n_kw == 5 and SH == 1:
        dw_5s1(NV, R, pixels, weights, bias, out, grid)
    elif SH == 1:
        dw_any(NV, R, pixels, weights, bias, out, grid)
    elif taps.n_kh == 3 and SH == 2:
        dw_3s2(NV, R, pixels, weights, bias, out, grid)
    elif taps.n_kh == 5 and SH == 2:
        dw_5s2(NV, R, pixels, weights, bias, out, grid)
    elif taps.n_kh == 7 and SH == 2:
        dw_7s2(NV, R, pixels, weights, bias, out, grid)


cdef inline void run_channels(
    int R, const real *strip, const real *weights, const vec *bias, char *out, const Grid *grid,
) noexcept nogil:
    if grid.taps.inside != NULL:
        dc_borders(R, strip, weights, bias, out, grid)
    elif grid.taps.n_ic == 1:
        dc_taps(R, strip, weights, bias, out, grid)
    else:
        dc_groups(R, strip, weights, bias, out, grid)


cdef inline void run_instance_vec(
    const int role, Py_ssize_t SH, int NV, int R, const real *pixels, const real *weights, const vec *bias, char *out,
    const Grid *grid,
) noexcept nogil:
    if role == DEPTHWISE:
        run_depthwise(SH, NV, R, pixels, weights, bias, out, grid)
    else:
        run_channels(R, pixels, weights, bias, out, grid)


cdef inline void run_instance(
    const int role, Py_ssize_t SH, int NV, int R, const real *pixels, const real *weights, const real *bias, char *out,
    const Grid *grid,
) noexcept nogil:
    if real is f32:
        run_instance_vec(role, SH, NV, R, pixels, weights, <const f32v *> bias, out, grid)
    else:
        run_instance_vec(role, SH, NV, R, pixels, weights, <const f64v *> bias, out, grid)


cdef inline void run_grid(
    const int role, Py_ssize_t SH, int NV, int R, const real *pixels, const real *weights, const real *bias, char *out,
    const Grid *grid,
) noexcept nogil:
    # Tiles of R rows under DEPTHWISE, of R pixels under DEPTHWISE_CHANNELS. Those of groups one by one: they take so
    # long that to find their instance does not count.
    cdef Py_ssize_t i, j
    if FUSED and (role == DEPTHWISE or grid.taps.n_ic == 1):
        run_instance(role, SH, NV, R, pixels, weights, bias, out, grid)
        return
    for j in range(grid.times):
        for i in range(grid.n):
            run_instance(
                role, SH, NV, R, <const real *> (<const char *> pixels + j * grid.again_pixel + i * grid.next_pixel),
                <const real *> (<const char *> weights + i * grid.next_weights),
                <const real *> (<const char *> bias + i * grid.next_start),
                out + j * grid.again_out + i * grid.next_out, grid,
            )


cdef void widen_f32(
    int dtype, void *slots, Py_ssize_t pitch, const char *lines, Py_ssize_t line_pitch, Py_ssize_t n_lines,
    Py_ssize_t stride, Py_ssize_t n,
) noexcept nogil:
    widen_as(dtype, <f32 *> slots, pitch, lines, line_pitch, n_lines, stride, n)


cdef void widen_f64(
    int dtype, void *slots, Py_ssize_t pitch, const char *lines, Py_ssize_t line_pitch, Py_ssize_t n_lines,
    Py_ssize_t stride, Py_ssize_t n,
) noexcept nogil:
    widen_as(dtype, <f64 *> slots, pitch, lines, line_pitch, n_lines, stride, n)


cdef void gather_strip(
    const Lowered *p, real *strip, const Image *image, const Task *t, Py_ssize_t n_ic,
) noexcept nogil:
    gather(
        strip, p.row_pitch, p.ic_pitch, image, &p.rows, &p.cols, n_ic,
        t.oh_start, t.n_oh, t.ow_start, t.n_ow, t.overhang,
    )


cdef one_copy gather_channels_strip(
    const Lowered *p, real *strip, Py_ssize_t slot, const Image *image, const Axis *rows, const Task *t,
    Py_ssize_t n_ch,
) noexcept nogil:
    gather_channels(
        strip, p.row_pitch, slot, image, rows, &p.cols, n_ch,
        t.oh_start * p.sh, (t.n_oh - 1) * p.sh + 1, t.ow_start * p.sw, (t.n_ow - 1) * p.sw + 1,
    )


cdef void gather_repeated(
    const Lowered *p, real *strip, const Image *image, const Task *t, Py_ssize_t skipped, Py_ssize_t n,
) noexcept nogil:
    # n lanes of channels, each as often as it is wanted, but for the first one `skipped` times less. Row by row, by way
    # of a row of single channels behind the strip.
    cdef:
        Py_ssize_t s, _row
        Py_ssize_t n_ch = (skipped + n + p.repeats - 1) // p.repeats
        Task line = t[0]
        Axis rows = p.rows
        Segment segment  # of one row, which is its first alone: `line` begins at the top
        real *source = strip + p.source_offset
        real *slots
    line.oh_start, line.n_oh = 0, 1
    rows.n_segments, rows.segments = 1, &segment
    segment.extra = segment.offset = 0
    for s in range(p.rows.n_segments):
        segment.first = t.oh_start * p.sh + p.rows.segments[s].first
        slots = strip + p.rows.segments[s].offset * p.row_pitch
        for _row in range((t.n_oh - 1) * p.sh + 1 + p.rows.segments[s].extra):
            gather_channels_strip(p, source, p.source_slot, image, &rows, &line, n_ch)
            repeat_channels(slots, p.slot, source, p.source_slot, p.ic_pitch, p.repeats, skipped, n)
            segment.first = segment.first + 1
            slots = slots + p.row_pitch


cdef void gather_dense_strip(
    const Lowered *p, real *strip, const Image *image, const Task *t, Py_ssize_t n_ic, bint cleared,
) noexcept nogil:
    gather_dense(
        strip, p.row_pitch, p.ic_pitch, image, &p.rows, &p.cols, n_ic,
        t.oh_start, t.n_oh, t.ow_start, t.n_ow, t.overhang, cleared,
    )


cdef inline void gather_pixels(
    const Lowered *p, real *strip, const Image *image, const Task *t, Py_ssize_t n_ic, bint cleared,
) noexcept nogil:
    # `cleared`: the strip held the same pixels of another group before.
    if is_dense(image):
        gather_dense_strip(p, strip, image, t, n_ic, cleared)
    else:
        gather_strip(p, strip, image, t, n_ic)


cdef inline void gather_channel_vectors(
    const Lowered *p, real *strip, const Image *image, const Task *t,
) noexcept nogil:
    # The channels of a task's blocks.
    cdef:
        Image channels = image[0]
        Py_ssize_t VL = VECTOR_BYTES // sizeof(real)
        Py_ssize_t first = t.block_begin * VL
        Py_ssize_t n = min(t.block_end * VL, p.ocg) - first
    if INTEGERS:
        return
    channels.ic = image.ic + first // p.repeats
    if p.repeats > 1:
        gather_repeated(p, strip, &channels, t, first % p.repeats, n)
    else:
        gather_channels_strip(p, strip, p.slot, &channels, &p.rows, t, n)


cdef void store_tile(
    int dtype, const real *c, Py_ssize_t rows, Py_ssize_t room, Py_ssize_t lanes, Py_ssize_t width,
    char *out, Py_ssize_t row_stride, Py_ssize_t lane_stride,
) noexcept nogil:
    # A function of its own: transpositions want all the registers.
    scatter_as(dtype, c, rows, room, lanes, width, out, row_stride, lane_stride)


cdef void store_parts(
    const real *c, Py_ssize_t rows, Py_ssize_t lanes, Py_ssize_t width, char *out, Py_ssize_t row_stride,
    Py_ssize_t pair_stride,
) noexcept nogil:
    scatter_parts(c, rows, lanes, width, out, row_stride, pair_stride)


cdef bint pack_here(
    const Lowered *p, const Weights *weights, Py_ssize_t g, Py_ssize_t block, Py_ssize_t ic_start, Py_ssize_t n_ic,
    real *part,
) noexcept nogil:
    # A function of its own: transpositions want all the registers.
    return pack_part(p, weights, g, block, ic_start, n_ic, part)

# The depthwise tiles: one input channel feeds one output channel, so there is no outer product.
#
#     role                 vectors of                 reuse                            natural for
#     DEPTHWISE            pixels of a row, NCHW      an input row, by R output rows   wide maps, few channels
#     DEPTHWISE_CHANNELS   channels of a pixel        the weights, by R pixels         NHWC; narrow and strided maps
#
# The second also serves groups of 2, 4, ... channels in and as many out, whole groups to a vector: the vector of a
# pixel is permuted so that all lanes of a group hold the group's first channel, then its second.
#
#     pixel   a b c d | e f g h     ic 0   a a a a | e e e e     ic 1   b b b b | f f f f     ...
#
# Where several channels are made of each, its strip holds that channel for all of them (_channels.pxd).
#
# Each output is the chain of _tile.pxd: from the bias, kh and kw ascending. Pixels lie in a strip, or where the user
# has them (_in_place.pxi). The strip of DEPTHWISE is that of the other tiles (_strip.pxd), that of DEPTHWISE_CHANNELS
# holds whole vectors of channels for each pixel (_channels.pxd).

from pyconv._tile cimport MAX_M, MAX_NV, Grid, Taps
from pyconv._vector cimport (
    INTEGERS, VECTOR_BYTES, VECTOR_REGISTERS, assume, f32v, muladd, muladd_each, read_anew, real, spread_f32,
    spread_f64, vec,
)

cdef enum:
    MAX_ROWS = 4


cdef inline bint depthwise_fits(const int R, const int NV) noexcept nogil:
    # R * NV accumulators, NV vectors of the input row, one weight.
    return not INTEGERS and R <= MAX_ROWS and R * NV + NV + 1 <= VECTOR_REGISTERS


cdef inline bint channels_fits(const int R) noexcept nogil:
    # R accumulators, the weights of a tap and a pixel.
    return not INTEGERS and R <= MAX_M and R + 2 <= VECTOR_REGISTERS


cdef inline vec spread(vec a, Py_ssize_t n, Py_ssize_t i) noexcept nogil:
    if vec is f32v:
        return spread_f32(a, n, i)
    else:
        return spread_f64(a, n, i)


cdef inline void channels_tile(
    const bint GROUPED, const bint BORDERED, const int R,
    const real *strip, Py_ssize_t step, const real *weights, const vec *bias, const Taps *taps,
    char *out, Py_ssize_t pitch,
) noexcept nogil:
    # R neighbouring pixels of VL channels, `step` bytes apart in the strip: acc[r] += weights[ic][tap] * strip[tap][r],
    # lane by lane, where each lane of a group gets the group's channel ic. A load for each multiply-add, as many as a
    # processor does in a cycle; with groups a permutation, too. At a border a tap may have one vector of zeros for all
    # pixels.
    cdef:
        vec acc[MAX_M]
        vec w, x
        int r
        Py_ssize_t ic, t
        Py_ssize_t tap_step = step
        Py_ssize_t n_ic = taps.n_ic if GROUPED else 1
        Py_ssize_t n_taps = taps.n_kh * taps.n_kw
        const char *pixel
        # Pixels that are found from the same one. Multiples of a step of its own for each tap would take as long.
        int ABREAST = 1 if BORDERED else 4
    assume(n_ic > 0)
    assume(n_taps > 0)
    for r in range(R):
        acc[r] = bias[0]
    for ic in range(n_ic):
        for t in range(n_taps):
            if BORDERED:
                pixel = <const char *> ((<Py_ssize_t> strip & taps.inside[t]) + taps.offset[t])
                tap_step = step & taps.inside[t]
            else:
                pixel = <const char *> strip + taps.offset[t]
            w = (<const vec *> weights)[0]
            weights = weights + VECTOR_BYTES // sizeof(real)
            for r in range(R):
                x = (<const vec *> (pixel + r % ABREAST * tap_step))[0]
                if GROUPED:
                    x = spread(x, n_ic, ic)
                acc[r] = muladd_each(acc[r], x, w)
                if r % ABREAST == ABREAST - 1:
                    pixel = pixel + ABREAST * tap_step
    for r in range(R):
        (<vec *> (out + r * pitch))[0] = acc[r]


cdef inline void depthwise_row(
    const int low, const int high, const int KW, const int SH, const int NV,
    Py_ssize_t i, const real *pixels, Py_ssize_t row_pitch, const real *weights, const Taps *taps, vec *acc,
) noexcept nogil:
    # Row i of the input for the rows [low, high) of the output that it serves: for row r it is tap i - r * SH.
    cdef:
        vec x[MAX_NV]
        int r, v
        Py_ssize_t kw
        Py_ssize_t n_kw = KW if KW else taps.n_kw
        const char *first = <const char *> pixels + low * row_pitch
        const Py_ssize_t *offset = taps.offset + (i - low * SH) * n_kw
        const vec *row
    assume(n_kw > 0)
    for kw in range(n_kw):
        row = <const vec *> (first + offset[kw])
        for v in range(NV):
            x[v] = row[v]
        for r in range(low, high):
            for v in range(NV):
                acc[r * NV + v] = muladd(acc[r * NV + v], x[v], weights[(i - r * SH) * n_kw + kw])


cdef inline void depthwise_single_rows(
    const int NV, const int R, const real *pixels, Py_ssize_t row_pitch, const real *weights, const Taps *taps,
    vec *acc,
) noexcept nogil:
    # A kernel of one row: rows share no input, but one after the other would be too few chains to keep both units busy.
    cdef:
        int r, v
        Py_ssize_t kw
        const char *first
    assume(taps.n_kw > 0)
    for kw in range(taps.n_kw):
        first = <const char *> pixels + taps.offset[kw]
        for r in range(R):
            for v in range(NV):
                acc[r * NV + v] = muladd(acc[r * NV + v], (<const vec *> (first + r * row_pitch))[v], weights[kw])


cdef inline void depthwise_static_row(
    const int i, const int KH, const int KW, const int SH, const int NV, const int R,
    const real *pixels, Py_ssize_t row_pitch, const real *weights, const Taps *taps, vec *acc,
) noexcept nogil:
    # Row i, if there is one, for a kernel of KH rows.
    if (R - 1) * SH + KH > i:
        depthwise_row(
            (i - KH + SH) // SH if i >= KH else 0, i // SH + 1 if i // SH < R else R, KW, SH, NV,
            i, pixels, row_pitch, weights, taps, acc,
        )


cdef inline void depthwise_tile(
    const int KH, const int KW, const int SH, const int NV, const int R,
    const real *pixels, Py_ssize_t row_pitch, const real *weights, const vec *bias, const Taps *taps,
    char *out, Py_ssize_t pitch,
) noexcept nogil:
    # R output rows at once, so that each row of the input is loaded once for all of them. As i ascends so does kh for
    # every r: the chain of each output is still kh, kw ascending. KH and KW are 0 where they are not known at compile
    # time: then SH is 1, and the kernel has R rows or more. The first and the last rows serve some of the output rows
    # and are written out one by one, because the compiler unrolls no loop around the loop over kw, and accumulators
    # that are chosen at run time would live in memory.
    cdef:
        vec acc[MAX_ROWS * MAX_NV]
        int r, v
        Py_ssize_t i
        Py_ssize_t n_kh = taps.n_kh
    for r in range(R * NV):
        acc[r] = bias[0]
    if KH == 1:
        depthwise_single_rows(NV, R, pixels, row_pitch, weights, taps, acc)
    elif KH == 0:
        if R > 1:
            depthwise_row(0, 1, KW, 1, NV, 0, pixels, row_pitch, weights, taps, acc)
        if R > 2:
            depthwise_row(0, 2, KW, 1, NV, 1, pixels, row_pitch, weights, taps, acc)
        if R > 3:
            depthwise_row(0, 3, KW, 1, NV, 2, pixels, row_pitch, weights, taps, acc)
        for i in range(R - 1, n_kh):
            depthwise_row(0, R, KW, 1, NV, i, pixels, row_pitch, weights, taps, acc)
        if R > 1:
            depthwise_row(1, R, KW, 1, NV, n_kh, pixels, row_pitch, weights, taps, acc)
        if R > 2:
            depthwise_row(2, R, KW, 1, NV, n_kh + 1, pixels, row_pitch, weights, taps, acc)
        if R > 3:
            depthwise_row(3, R, KW, 1, NV, n_kh + 2, pixels, row_pitch, weights, taps, acc)
    else:
        depthwise_static_row(0, KH, KW, SH, NV, R, pixels, row_pitch, weights, taps, acc)
        depthwise_static_row(1, KH, KW, SH, NV, R, pixels, row_pitch, weights, taps, acc)
        depthwise_static_row(2, KH, KW, SH, NV, R, pixels, row_pitch, weights, taps, acc)
        depthwise_static_row(3, KH, KW, SH, NV, R, pixels, row_pitch, weights, taps, acc)
        depthwise_static_row(4, KH, KW, SH, NV, R, pixels, row_pitch, weights, taps, acc)
        depthwise_static_row(5, KH, KW, SH, NV, R, pixels, row_pitch, weights, taps, acc)
        depthwise_static_row(6, KH, KW, SH, NV, R, pixels, row_pitch, weights, taps, acc)
        depthwise_static_row(7, KH, KW, SH, NV, R, pixels, row_pitch, weights, taps, acc)
        depthwise_static_row(8, KH, KW, SH, NV, R, pixels, row_pitch, weights, taps, acc)
        depthwise_static_row(9, KH, KW, SH, NV, R, pixels, row_pitch, weights, taps, acc)
        depthwise_static_row(10, KH, KW, SH, NV, R, pixels, row_pitch, weights, taps, acc)
        depthwise_static_row(11, KH, KW, SH, NV, R, pixels, row_pitch, weights, taps, acc)
        depthwise_static_row(12, KH, KW, SH, NV, R, pixels, row_pitch, weights, taps, acc)
    for r in range(R):
        for v in range(NV):
            (<vec *> (out + r * pitch))[v] = acc[r * NV + v]


cdef inline void channels_tiles(
    const bint BORDERED, const int R, const real *strip, const real *weights, const vec *bias, char *out,
    Py_ssize_t pitch, const Grid *grid,
) noexcept nogil:
    cdef:
        Py_ssize_t _j, i
        Py_ssize_t step = grid.row_pitch
        const Taps *taps = grid.taps
    for _j in range(grid.times):
        for i in range(grid.n):
            channels_tile(
                False, BORDERED, R, <const real *> (<const char *> strip + i * grid.next_pixel), step,
                <const real *> (<const char *> weights + i * grid.next_weights),
                <const vec *> (<const char *> bias + i * grid.next_start), taps, out + i * grid.next_out, pitch,
            )
        strip = <const real *> (<const char *> strip + grid.again_pixel)
        out = out + grid.again_out


cdef inline void depthwise_tiles(
    const int KH, const int KW, const int SH, const int NV, const int R,
    const real *pixels, const real *weights, const vec *bias, char *out, const Grid *grid,
) noexcept nogil:
    # Of one channel: all have its bias, weights and offsets, which would take registers from the accumulators, if they
    # stayed.
    cdef:
        Py_ssize_t _j, _i
        Py_ssize_t row_pitch = grid.row_pitch
        Py_ssize_t pitch = grid.pitch
        const Taps *taps = grid.taps
        const char *pixel
        char *to
    for _j in range(grid.times):
        pixel, to = <const char *> pixels, out
        for _i in range(grid.n):
            read_anew(weights)
            read_anew(bias)
            read_anew(taps)
            depthwise_tile(KH, KW, SH, NV, R, <const real *> pixel, row_pitch, weights, bias, taps, to, pitch)
            pixel = pixel + grid.next_pixel
            to = to + grid.next_out
        pixels = <const real *> (<const char *> pixels + grid.again_pixel)
        out = out + grid.again_out

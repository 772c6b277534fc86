# The register tiles: all arithmetic of pyconv happens here.
#
#     acc[m][v] += a[t][m] * b[t][v]        m < M scalars, v < NV vectors of VL lanes
#
# for every t = (ic, kh, kw) of the reduction, in that nesting and ascending: one chain of fused multiply-adds for
# each output element, whatever the tile's size, its role or the vector's width. That is why the bits never change.
#
#     role        scalars a                                    vectors b
#     OC_VECTOR   M neighbouring pixels of the strip           weights [ic][kh][kw][NV * VL], packed
#     OW_VECTOR   weights [ic][kh][kw][M], packed              NV * VL neighbouring pixels of the strip
#
# Depthwise convolution, where one input channel feeds one output channel, is no outer product. It has two small tiles:
# DEPTHWISE with vectors of pixels, DEPTHWISE_CHANNELS with vectors of channels for images stored as (N, H, W, C).
#
# The caller provides a strip in which every tap of every pixel exists (_strip.pxd): the tile knows no borders, no
# strides, no layouts. The strip's address of (ic, kh, kw) is ic * ic_pitch + offset[kh, kw] plus the pixel's number.
# The chain starts from the bias (a vector for each v under OC_VECTOR, for each m under OW_VECTOR) or, where the
# channels come in several passes, from the sums so far. It ends in rows of NV vectors, `pitch` bytes apart: in the
# output itself where its rows lie so, else in a tile buffer (_store.pxd).
#
# M, NV and the role are compile-time constants of an instance (_instances.pxd), so that the loops over m and v unroll
# and acc lives in registers. Per tap the loop issues M * NV multiply-adds, two a cycle, and M + NV loads, two a cycle
# at best (`tile_cycles` in _plan.py). A multiply-add takes 4 cycles, so at least 8 accumulators keep both units busy.
# Registers: M * NV accumulators, NV vectors, one scalar (see `tile_fits`). The loop over the taps stays a loop: where
# it is unrolled, the compiler moves accumulators from register to register between the copies.
#
# Reference: Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", ACM TOMS 34 (2008);
# Georganas et al., "Anatomy of High-Performance Deep Learning Convolutions on SIMD Architectures", SC 2018.

from pyconv._vector cimport VECTOR_BYTES, VECTOR_REGISTERS, assume, in_register, muladd, muladd_each, prefetch, real, vec

cdef enum:
    OC_VECTOR = 0
    OW_VECTOR = 1
    DEPTHWISE = 2
    DEPTHWISE_CHANNELS = 3

cdef enum:
    MAX_M = 14
    MAX_NV = 4
    MAX_ACCUMULATORS = 28
    MAX_ROWS = 4  # of the depthwise tile


cdef struct Taps:
    # Where the taps of pixel 0 lie in a strip.
    Py_ssize_t n_ic, n_kh, n_kw
    Py_ssize_t ic_pitch           # in elements
    const Py_ssize_t *kh_offset   # of the depthwise tile's rows and columns, in elements
    const Py_ssize_t *kw_offset
    const Py_ssize_t *offset      # of tap kh * n_kw + kw, in bytes
    # A line of the image for each channel that will be wanted soon, in bytes; a pitch of 0 where none will.
    const char *ahead
    Py_ssize_t ahead_pitch


cdef inline bint tile_fits(const int M, const int NV) noexcept nogil:
    # 32 registers: 14x1 (capped: a longer column of scalars gains nothing), 14x2, 8x3, 6x4. 16: 14x1, 6x2, 4x3, 2x4.
    # 9x3 would fit 32 as well, but its ninth row would take a transposition of 8 rows of its own.
    return M <= (8 if NV == 3 else MAX_M) and M * NV + NV + 1 <= VECTOR_REGISTERS


cdef inline bint depthwise_fits(const int R, const int NV) noexcept nogil:
    # R * NV accumulators, NV vectors of the input row, one weight.
    return R <= MAX_ROWS and R * NV + NV + 1 <= VECTOR_REGISTERS


cdef inline void tile(
    const int role, const bint ONE_TAP, const int NV, const int M,
    const real *strip, const real *weights, const Taps *taps,
    const vec *start, bint first, char *out, Py_ssize_t pitch,
) noexcept nogil:
    # ONE_TAP: a 1x1 kernel, whose tap lies at the pixel itself. The chain of (m, v) starts from the sums
    # start[m * NV + v] or, the first time, from the bias.
    cdef:
        vec acc[MAX_ACCUMULATORS]
        vec b[MAX_NV]
        real a
        int m, v
        Py_ssize_t _ic, t
        Py_ssize_t n_ic = taps.n_ic
        Py_ssize_t n_taps = 1 if ONE_TAP else taps.n_kh * taps.n_kw
        const char *ahead = taps.ahead
        const real *pixel
        const real *scalars
        const vec *vectors
        Py_ssize_t step = NV
        Py_ssize_t spread = 1
    # A loop that may be skipped costs registers: the accumulators would have to survive two ways around it.
    assume(n_ic > 0)
    assume(n_taps > 0)
    if first:
        step, spread = (0, 1) if role == OC_VECTOR else (1, 0)
    for m in range(M):
        for v in range(NV):
            acc[m * NV + v] = start[v * spread]
        start = start + step
    for _ic in range(n_ic):
        prefetch(ahead)
        ahead = ahead + taps.ahead_pitch
        for t in range(n_taps):
            pixel = strip if ONE_TAP else <const real *> (<const char *> strip + taps.offset[t])
            if role == OC_VECTOR:
                scalars = pixel
                vectors = <const vec *> weights
                weights = weights + NV * (VECTOR_BYTES // sizeof(real))
            else:
                scalars = weights
                vectors = <const vec *> pixel
                weights = weights + M
            for v in range(NV):
                b[v] = vectors[v]
                if 1 < M <= 3:  # for so few uses the compiler would rather load it for each
                    in_register(b[v])
            for m in range(M):
                a = scalars[m]
                for v in range(NV):
                    acc[m * NV + v] = muladd(acc[m * NV + v], b[v], a)
        strip = strip + taps.ic_pitch
    for m in range(M):
        for v in range(NV):
            (<vec *> (out + m * pitch))[v] = acc[m * NV + v]


cdef inline bint channels_fits(const int R) noexcept nogil:
    # R accumulators and the weights of a tap; the pixels are operands in memory.
    return R <= MAX_M and R + 1 <= VECTOR_REGISTERS


cdef inline void channels_tile(
    const int R, const real *strip, Py_ssize_t step, const real *weights, const Taps *taps,
    const vec *bias, char *out, Py_ssize_t pitch,
) noexcept nogil:
    # R neighbouring pixels of VL channels, `step` bytes apart in the strip: acc[r] += weights[tap] * strip[tap][r], lane
    # by lane. A load for each multiply-add, as many as a processor does in a cycle.
    cdef:
        vec acc[MAX_M]
        vec w
        int r
        Py_ssize_t t
        Py_ssize_t n_taps = taps.n_kh * taps.n_kw
        const char *pixel
    assume(n_taps > 0)
    for r in range(R):
        acc[r] = bias[0]
    for t in range(n_taps):
        pixel = <const char *> strip + taps.offset[t]
        w = (<const vec *> weights)[0]
        weights = weights + VECTOR_BYTES // sizeof(real)
        for r in range(R):
            acc[r] = muladd_each(acc[r], (<const vec *> pixel)[0], w)
            pixel = pixel + step
    for r in range(R):
        (<vec *> (out + r * pitch))[0] = acc[r]


cdef inline void depthwise_row(
    const int low, const int high, const int KW, const int SH, const int NV,
    Py_ssize_t i, const real *strip, Py_ssize_t row_pitch, const real *weights, const Taps *taps, vec *acc,
) noexcept nogil:
    # Row i of the input for the rows [low, high) of the output that it serves: for row r it is tap i - r * SH.
    cdef:
        vec x[MAX_NV]
        int r, v
        Py_ssize_t kw
        Py_ssize_t n_kw = KW if KW else taps.n_kw
        const real *row = strip + low * row_pitch + taps.kh_offset[i - low * SH]
        const vec *pixels
    assume(n_kw > 0)
    for kw in range(n_kw):
        pixels = <const vec *> (row + taps.kw_offset[kw])
        for v in range(NV):
            x[v] = pixels[v]
        for r in range(low, high):
            for v in range(NV):
                acc[r * NV + v] = muladd(acc[r * NV + v], x[v], weights[(i - r * SH) * n_kw + kw])


cdef inline void depthwise_static_row(
    const int i, const int KH, const int KW, const int SH, const int NV, const int R,
    const real *strip, Py_ssize_t row_pitch, const real *weights, const Taps *taps, vec *acc,
) noexcept nogil:
    # Row i, if there is one, for a kernel of KH rows.
    if (R - 1) * SH + KH > i:
        depthwise_row(
            (i - KH + SH) // SH if i >= KH else 0, i // SH + 1 if i // SH < R else R, KW, SH, NV,
            i, strip, row_pitch, weights, taps, acc,
        )


cdef inline void depthwise_tile(
    const int KH, const int KW, const int SH, const int NV, const int R,
    const real *strip, Py_ssize_t row_pitch, const real *weights, const Taps *taps,
    const vec *bias, char *out, Py_ssize_t pitch,
) noexcept nogil:
    # R output rows at once, so that each row of the input is loaded once for all of them. As i ascends so does kh for
    # every r: the chain of each output is still kh, kw ascending. KH and KW are 0 where they are not known at compile
    # time: then SH is 1, and the kernel has R rows or more. The first and the last rows serve some of the output rows and
    # are written out one by one, because the compiler unrolls no loop around the loop over kw, and accumulators that
    # are chosen at run time would live in memory.
    cdef:
        vec acc[MAX_ROWS * MAX_NV]
        int r, v
        Py_ssize_t i
        Py_ssize_t n_kh = taps.n_kh
    for r in range(R * NV):
        acc[r] = bias[0]
    if KH == 0:
        if R > 1:
            depthwise_row(0, 1, KW, 1, NV, 0, strip, row_pitch, weights, taps, acc)
        if R > 2:
            depthwise_row(0, 2, KW, 1, NV, 1, strip, row_pitch, weights, taps, acc)
        if R > 3:
            depthwise_row(0, 3, KW, 1, NV, 2, strip, row_pitch, weights, taps, acc)
        for i in range(R - 1, n_kh):
            depthwise_row(0, R, KW, 1, NV, i, strip, row_pitch, weights, taps, acc)
        if R > 1:
            depthwise_row(1, R, KW, 1, NV, n_kh, strip, row_pitch, weights, taps, acc)
        if R > 2:
            depthwise_row(2, R, KW, 1, NV, n_kh + 1, strip, row_pitch, weights, taps, acc)
        if R > 3:
            depthwise_row(3, R, KW, 1, NV, n_kh + 2, strip, row_pitch, weights, taps, acc)
    else:
        depthwise_static_row(0, KH, KW, SH, NV, R, strip, row_pitch, weights, taps, acc)
        depthwise_static_row(1, KH, KW, SH, NV, R, strip, row_pitch, weights, taps, acc)
        depthwise_static_row(2, KH, KW, SH, NV, R, strip, row_pitch, weights, taps, acc)
        depthwise_static_row(3, KH, KW, SH, NV, R, strip, row_pitch, weights, taps, acc)
        depthwise_static_row(4, KH, KW, SH, NV, R, strip, row_pitch, weights, taps, acc)
        depthwise_static_row(5, KH, KW, SH, NV, R, strip, row_pitch, weights, taps, acc)
        depthwise_static_row(6, KH, KW, SH, NV, R, strip, row_pitch, weights, taps, acc)
        depthwise_static_row(7, KH, KW, SH, NV, R, strip, row_pitch, weights, taps, acc)
        depthwise_static_row(8, KH, KW, SH, NV, R, strip, row_pitch, weights, taps, acc)
        depthwise_static_row(9, KH, KW, SH, NV, R, strip, row_pitch, weights, taps, acc)
        depthwise_static_row(10, KH, KW, SH, NV, R, strip, row_pitch, weights, taps, acc)
        depthwise_static_row(11, KH, KW, SH, NV, R, strip, row_pitch, weights, taps, acc)
        depthwise_static_row(12, KH, KW, SH, NV, R, strip, row_pitch, weights, taps, acc)
    for r in range(R):
        for v in range(NV):
            (<vec *> (out + r * pitch))[v] = acc[r * NV + v]

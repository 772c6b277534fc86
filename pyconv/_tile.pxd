# The register tiles. All arithmetic of pyconv happens here and, for depthwise convolution, in _depthwise.pxd.
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
# The caller provides a strip in which every tap of every pixel exists (_strip.pxd): the tile knows no borders, no
# strides, no layouts. The strip's address of (ic, kh, kw) is ic * ic_pitch + offset[kh, kw] plus the pixel's number.
# The chain starts from the bias (a vector for each v under OC_VECTOR, for each m under OW_VECTOR) or, where the
# channels come in several passes, from the sums so far. It ends in rows of NV vectors, `pitch` bytes apart: in the
# output itself where its rows lie so, else in a tile buffer (_store.pxd).
#
# M, NV and the role are compile-time constants of an instance (_instances.pxd), so that the loops over m and v unroll
# and acc lives in registers. Per tap the loop issues M * NV multiply-adds, two a cycle, and M + NV loads, two a cycle
# at best (`tile_cycles` in _tiles.py). A multiply-add takes 4 cycles, so at least 8 accumulators keep both units busy.
# Registers: M * NV accumulators, NV vectors, one scalar (see `tile_fits`).
#
# Reference: Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", ACM TOMS 34 (2008);
# Georganas et al., "Anatomy of High-Performance Deep Learning Convolutions on SIMD Architectures", SC 2018.

from pyconv._vector cimport (
    INTEGERS, VECTOR_BYTES, VECTOR_REGISTERS, assume, broadcast, by_itself, in_register, muladd_each,
    prefetch, real, vec,
)

cdef enum:
    OC_VECTOR = 0
    OW_VECTOR = 1
    DEPTHWISE = 2
    DEPTHWISE_CHANNELS = 3

cdef enum:
    MAX_M = 14
    MAX_NV = 4
    MAX_ACCUMULATORS = 28


cdef struct Taps:
    # Where the taps of pixel 0 lie in a strip.
    Py_ssize_t n_ic, n_kh, n_kw
    Py_ssize_t ic_pitch           # in elements
    const Py_ssize_t *kh_offset   # of rows and columns (_depthwise.pxd), in elements
    const Py_ssize_t *kw_offset
    const Py_ssize_t *offset      # of the taps that a tile sums, kh * n_kw + kw, in bytes
    Py_ssize_t n_taps             # how many those are, and how many lie between them and the next channel's
    Py_ssize_t n_skipped
    # A line of the image for each channel that will be wanted soon, in bytes; a pitch of 0 where none will.
    const char *ahead
    Py_ssize_t ahead_pitch


cdef inline bint tile_fits(const int M, const int NV) noexcept nogil:
    # 32 registers: 14x1 (capped: a longer column of scalars gains nothing), 14x2, 8x3, 6x4. 16: 14x1, 6x2, 4x3, 2x4.
    # 9x3 would fit 32 as well, but its ninth row would take a transposition of 8 rows of its own.
    # Of integers, which few people convolve, a quarter of the tiles reaches what their multiplier does.
    if INTEGERS:
        return M <= 8 and NV <= 2 and M * NV + NV + 1 <= VECTOR_REGISTERS
    return M <= (8 if NV == 3 else MAX_M) and M * NV + NV + 1 <= VECTOR_REGISTERS


cdef enum:
    # How many taps a turn of the innermost loop takes, and where they lie. Each tap of a tile of 6x2 takes 20
    # instructions; where two threads share a core, those of the loop around it take their time, too (measured beside a
    # busy one, with 21 to 23 instructions a tap instead of 25: 10 to 30 %, in 1x1 kernels 1 to 9 %; on a core of its
    # own nothing). Builds that take a tap with more instructions gain too little for the size of the code.
    ANY = 0     # one, anywhere
    ROW = 1     # three: a row of a kernel of three columns
    SQUARE = 2  # nine: a 3x3 kernel
    ONE = 3     # that of a 1x1 kernel
    FOUR = 4    # those of four channels under a 1x1 kernel, whose channels are a multiple of 4


cdef inline void multiply_tap(
    const int role, const int NV, const int M, vec *acc, const real *pixel, const real *weights,
) noexcept nogil:
    cdef:
        vec b[MAX_NV]
        vec a
        int m, v
        const real *scalars = pixel if role == OC_VECTOR else weights
        const vec *vectors = <const vec *> (weights if role == OC_VECTOR else pixel)
    for v in range(NV):
        b[v] = vectors[v]
        if NV == 2 or 1 < M <= 3 and NV == 1:  # else the compiler would rather load it for each use
            in_register(b[v])
    for m in range(M):
        a = broadcast(scalars[m], b[0])
        in_register(a)
        for v in range(NV):
            acc[m * NV + v] = muladd_each(acc[m * NV + v], b[v], a)


cdef inline void multiply_row(
    const int role, const int NV, const int M, vec *acc, const char *pixel, Py_ssize_t second, Py_ssize_t third,
    const real *weights, Py_ssize_t width,
) noexcept nogil:
    # Three taps: the first one's, and `second` and `third` bytes from there.
    multiply_tap(role, NV, M, acc, <const real *> pixel, weights)
    multiply_tap(role, NV, M, acc, <const real *> (pixel + second), weights + width)
    multiply_tap(role, NV, M, acc, <const real *> (pixel + third), weights + 2 * width)


cdef inline void tile(
    const int role, const int SHAPE, const int NV, const int M,
    const real *strip, const real *weights, const Taps *taps,
    const vec *start, bint first, char *out, Py_ssize_t pitch,
) noexcept nogil:
    # The chain of (m, v) starts from the sums start[m * NV + v] or, the first time, from the bias.
    cdef:
        vec acc[MAX_ACCUMULATORS]
        int m, v
        Py_ssize_t _i, t
        Py_ssize_t n = taps.n_ic // 4 if SHAPE == FOUR else taps.n_ic
        Py_ssize_t n_taps = taps.n_taps
        Py_ssize_t width = NV * (VECTOR_BYTES // sizeof(real)) if role == OC_VECTOR else M
        Py_ssize_t ic_pitch = taps.ic_pitch * <Py_ssize_t> sizeof(real)
        Py_ssize_t ahead_pitch = taps.ahead_pitch
        const char *ahead = taps.ahead
        const char *pixel = <const char *> strip  # 0, of a channel; under a 3x3 kernel in its first row's first tap
        const char *row
        const char *tap
        const char *second_row = pixel
        const char *third_row = pixel
        Py_ssize_t second = 0
        Py_ssize_t third = 0
        Py_ssize_t step = NV
        Py_ssize_t between = 1
    # A loop that may be skipped costs registers: the accumulators would have to survive two ways around it.
    assume(n > 0)
    assume(n_taps > 0)
    if SHAPE == ROW or SHAPE == SQUARE:
        assume(n_taps >= 3)
        second = taps.offset[1] - taps.offset[0]
        third = taps.offset[2] - taps.offset[0]
    if SHAPE == SQUARE:
        second_row = pixel + taps.offset[3]
        third_row = pixel + taps.offset[6]
        pixel = pixel + taps.offset[0]
    if first:
        step, between = (0, 1) if role == OC_VECTOR else (1, 0)
    for m in range(M):
        for v in range(NV):
            acc[m * NV + v] = start[v * between]
        start = start + step
    for _i in range(n):
        prefetch(ahead)
        if SHAPE == ONE:
            multiply_tap(role, NV, M, acc, <const real *> pixel, weights)
            weights = weights + width
        elif SHAPE == FOUR:
            prefetch(ahead + ahead_pitch)
            prefetch(ahead + 2 * ahead_pitch)
            prefetch(ahead + 3 * ahead_pitch)
            multiply_tap(role, NV, M, acc, <const real *> pixel, weights)
            multiply_tap(role, NV, M, acc, <const real *> (pixel + ic_pitch), weights + width)
            multiply_tap(role, NV, M, acc, <const real *> (pixel + 2 * ic_pitch), weights + 2 * width)
            multiply_tap(role, NV, M, acc, <const real *> (pixel + 3 * ic_pitch), weights + 3 * width)
            weights = weights + 4 * width
            pixel = pixel + 3 * ic_pitch
            ahead = ahead + 3 * ahead_pitch
        elif SHAPE == SQUARE:
            multiply_row(role, NV, M, acc, pixel, second, third, weights, width)
            multiply_row(role, NV, M, acc, second_row, second, third, weights + 3 * width, width)
            multiply_row(role, NV, M, acc, third_row, second, third, weights + 6 * width, width)
            second_row = second_row + ic_pitch
            third_row = third_row + ic_pitch
            weights = weights + 9 * width
        elif SHAPE == ROW:
            for t in range(n_taps // 3):
                row = pixel + taps.offset[3 * t]
                multiply_tap(role, NV, M, acc, <const real *> row, weights)
                tap = row + second
                by_itself(tap)
                multiply_tap(role, NV, M, acc, <const real *> tap, weights + width)
                tap = row + third
                by_itself(tap)
                multiply_tap(role, NV, M, acc, <const real *> tap, weights + 2 * width)
                weights = weights + 3 * width
        else:
            for t in range(n_taps):
                multiply_tap(role, NV, M, acc, <const real *> (pixel + taps.offset[t]), weights)
                weights = weights + width
        if SHAPE == ANY or SHAPE == ROW:
            weights = weights + taps.n_skipped * width
        pixel = pixel + ic_pitch
        ahead = ahead + ahead_pitch
    for m in range(M):
        for v in range(NV):
            (<vec *> (out + m * pitch))[v] = acc[m * NV + v]

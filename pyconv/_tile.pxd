# The register tiles. All arithmetic of pyconv happens here and, for depthwise convolution, in _depthwise.pxd.
#
#     acc[m][v] += a[t][m] * b[t][v]        m < M scalars, v < NV vectors of VL lanes
#
# for every t = (ic, kh, kw) of the reduction, in that nesting and ascending: one chain of fused multiply-adds for
# each output element, whatever the tile's size, its role or the vector's width. That is why the bits never change (but
# for those of a NaN, where two meet: the processor takes the first operand's, and roles have them in different order).
#
#     role        scalars a                                    vectors b
#     OC_VECTOR   M neighbouring pixels of the strip           weights [ic][kh][kw][NV * VL], packed
#     OW_VECTOR   weights [ic][kh][kw][M], packed              NV * VL neighbouring pixels of the strip
#
# The caller provides a strip in which every tap of every pixel exists (_strip.pxd): the tile knows no borders, no
# strides, no layouts. (The pixels of a 1x1 kernel may be those of the image, scalars a `pixel_step` from each other.)
# The address of (ic, kh, kw) is ic * ic_step + offset[kh, kw] plus the pixel's number. The chain starts from the
# bias (a vector for each v under OC_VECTOR, for each m under OW_VECTOR) or, where the channels come in several passes,
# from the sums so far. It ends in rows of NV vectors, `pitch` bytes apart: in the output itself where its rows lie so,
# else in a tile buffer (_store.pxd).
#
# M, NV and the role are compile-time constants of an instance (_instances.pxd), so that the loops over m and v unroll
# and acc lives in registers. Per tap the loop issues M * NV multiply-adds, two a cycle, and M + NV loads, two a cycle
# at best (`tile_cycles` in _prices.py). A multiply-add takes 4 or 5 cycles: 8 to 10 accumulators keep both units busy.
# Registers: M * NV accumulators, NV vectors and a scalar, or M scalars and a vector (see `tile_fits`).
#
# Reference: Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", ACM TOMS 34 (2008);
# Georganas et al., "Anatomy of High-Performance Deep Learning Convolutions on SIMD Architectures", SC 2018.

from pyconv._ahead cimport Ahead, look_ahead
from pyconv._vector cimport (
    FUSED, INTEGERS, VECTOR_BYTES, VECTOR_REGISTERS, assume, broadcast, in_register, muladd_each, prefetch, real, vec,
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
    # Where the taps of pixel 0 lie.
    Py_ssize_t n_ic, n_kh, n_kw
    Py_ssize_t ic_step            # bytes from channel to channel
    Py_ssize_t pixel_step         # bytes from pixel to pixel where scalars are not neighbours, else 0
    const Py_ssize_t *offset      # of the taps that a tile sums, kh * n_kw + kw, in bytes
    const Py_ssize_t *inside      # all bits, or none for a tap whose offset is an address of zeros; NULL: all for all
    Py_ssize_t n_taps             # how many those are, and how many lie between them and the next channel's
    Py_ssize_t n_skipped
    Ahead *ahead                  # what else each tile asks the memory for


cdef struct Grid:
    # Tiles of one size, `n` in a line, in which each is as far from the next, and `times` such lines, of the depthwise
    # roles (1 elsewhere). In bytes. Addresses are arguments beside it: what each tile had to write here, for the next
    # one to read, would keep that waiting (measured, where a tile ends, AVX-512: 10 to 20 % of tiles of few taps).
    const Taps *taps
    bint first            # whether chains start from the bias, which is the same for all rows, or from the sums so far
    Py_ssize_t pitch      # from one row of a tile to the next, where it ends
    Py_ssize_t row_pitch  # and in the strip: from row to row under DEPTHWISE, from pixel to pixel of channel vectors
    Py_ssize_t n, times
    Py_ssize_t next_pixel, next_weights, next_start, next_out  # from one tile to the next in a line
    Py_ssize_t again_pixel, again_out  # from one line to the next, with the same weights and the same bias


cdef inline bint tile_fits(const int M, const int NV) noexcept nogil:
    # 32 registers: 14x1 (capped: a longer column of scalars gains nothing), 14x2, 8x3, 6x4. 16: 14x1, 6x2, 4x3, 3x4;
    # where products take a register, too, 2x4.
    # 9x3 would fit 32 as well, but its ninth row would take a transposition of 8 rows of its own.
    # Of integers, which few people convolve, a quarter of the tiles reaches what their multiplier does.
    if INTEGERS:
        return M <= 8 and NV <= 2 and M * NV + NV + 1 <= VECTOR_REGISTERS
    return M <= (8 if NV == 3 else MAX_M) and M * NV + (min(M, NV) if FUSED else NV) + 1 <= VECTOR_REGISTERS


cdef enum:
    # How many taps a turn of the innermost loop takes, and where they lie. Each tap of a tile of 6x2 takes 20
    # instructions; where two threads share a core, those of the loop around it take their time, too (measured beside a
    # busy one, with 21 to 23 instructions a tap instead of 25: 10 to 30 % of 3x3 and of three taps, 3 to 13 % of 5x5
    # and 7x7, 1 to 9 % of 1x1 kernels; on a core of its own -2 to 2 %). Builds that take a tap with more instructions
    # gain too little for the size of the code: to them every kernel is ANY or ONE.
    ANY = 0     # one, anywhere
    MANY = 1    # four, anywhere, and what is left of a kernel of four or more
    TWO = 2     # all of a kernel of two
    THREE = 3   # of three
    SQUARE = 9  # all nine of a 3x3 kernel
    ONE = 10    # the only one of a channel
    FOUR = 11   # those of four channels under a 1x1 kernel, whose channels are a multiple of 4
    APART = 12  # those of four neighbouring channels, of pixels that lie apart; what is left of four or more one by one


cdef inline real scalar(const real *scalars, int m, Py_ssize_t step) noexcept nogil:
    # Scalars are `step` bytes from each other, or neighbours where that is 0.
    return (<const real *> (<const char *> scalars + m * step))[0] if step else scalars[m]


cdef inline void multiply_tap(
    const int role, const int NV, const int M, vec *acc, const real *pixel, const real *weights, Py_ssize_t step,
) noexcept nogil:
    # Of scalars and vectors the fewer are held in registers for the others.
    cdef:
        vec held[MAX_NV]
        vec other
        int m, v
        const real *scalars = pixel if role == OC_VECTOR else weights
        const vec *vectors = <const vec *> (weights if role == OC_VECTOR else pixel)
    if M < NV:
        for m in range(M):
            held[m] = broadcast(scalar(scalars, m, step), acc[0])
            in_register(held[m])
        for v in range(NV):
            other = vectors[v]
            in_register(other)
            for m in range(M):
                acc[m * NV + v] = muladd_each(acc[m * NV + v], other, held[m])
    else:
        for v in range(NV):
            held[v] = vectors[v]
            if NV == 2 or 1 < M <= 3 and NV == 1:  # else the compiler would rather load it for each use
                in_register(held[v])
        for m in range(M):
            other = broadcast(scalar(scalars, m, step), acc[0])
            in_register(other)
            for v in range(NV):
                acc[m * NV + v] = muladd_each(acc[m * NV + v], held[v], other)


cdef inline void multiply_row(
    const int role, const int TAPS, const int NV, const int M, vec *acc, const char *pixel, Py_ssize_t second,
    Py_ssize_t third, const real *weights, Py_ssize_t width,
) noexcept nogil:
    # Two or three taps: the first one's, and `second` and `third` bytes from there.
    multiply_tap(role, NV, M, acc, <const real *> pixel, weights, 0)
    multiply_tap(role, NV, M, acc, <const real *> (pixel + second), weights + width, 0)
    if TAPS == 3:
        multiply_tap(role, NV, M, acc, <const real *> (pixel + third), weights + 2 * width, 0)


cdef inline void sum_points(
    const int role, const int AT_ONCE, const int NV, const int M, vec *acc, const char *pixel, const real *weights,
    const Taps *taps, Py_ssize_t width,
) noexcept nogil:
    # The only tap of each channel, AT_ONCE channels a turn. `pixel` is the tap's: tiles of few channels would wait for
    # its offset.
    cdef:
        Py_ssize_t _i
        int k
        Py_ssize_t n = taps.n_ic // AT_ONCE
        Py_ssize_t ic_step = taps.ic_step
        Py_ssize_t between = width if AT_ONCE > 1 else (1 + taps.n_skipped) * width
        const char *ahead = taps.ahead.line
    assume(n > 0)
    for _i in range(n):
        for k in range(AT_ONCE):
            prefetch(ahead + k * taps.ahead.pitch)
        for k in range(AT_ONCE):
            multiply_tap(role, NV, M, acc, <const real *> (pixel + k * ic_step), weights + k * width, 0)
        pixel = pixel + AT_ONCE * ic_step
        weights = weights + AT_ONCE * between
        ahead = ahead + AT_ONCE * taps.ahead.pitch


cdef inline void sum_points_apart(
    const int NV, const int M, vec *acc, const char *pixel, const real *weights, const Taps *taps, Py_ssize_t width,
) noexcept nogil:
    # The same under OC_VECTOR in an image whose channels are neighbours.
    cdef:
        Py_ssize_t _i
        int k
        Py_ssize_t n = taps.n_ic // 4
        Py_ssize_t step = taps.pixel_step
        const char *ahead = taps.ahead.line
    assume(n > 0)
    assume(step > 0)
    for _i in range(n):
        for k in range(4):
            prefetch(ahead + k * taps.ahead.pitch)
        for k in range(4):
            multiply_tap(OC_VECTOR, NV, M, acc, <const real *> pixel + k, weights + k * width, step)
        pixel = pixel + 4 * sizeof(real)
        weights = weights + 4 * width
        ahead = ahead + 4 * taps.ahead.pitch
    for _i in range(taps.n_ic % 4):
        multiply_tap(OC_VECTOR, NV, M, acc, <const real *> pixel, weights, step)
        pixel = pixel + sizeof(real)
        weights = weights + width


cdef inline void sum_rows(
    const int role, const int TAPS, const int NV, const int M, vec *acc, const char *pixel, const real *weights,
    const Taps *taps, Py_ssize_t width,
) noexcept nogil:
    # All taps of a channel a turn: two or three in a line, or three rows of three.
    cdef:
        Py_ssize_t _i
        int row = 3 if TAPS == SQUARE else TAPS
        Py_ssize_t ic_step = taps.ic_step
        Py_ssize_t second = taps.offset[1] - taps.offset[0]
        Py_ssize_t third = taps.offset[row - 1] - taps.offset[0]
        const char *first_row = pixel + taps.offset[0]
        const char *second_row = pixel
        const char *third_row = pixel
        const char *ahead = taps.ahead.line
    assume(taps.n_ic > 0)
    if TAPS == SQUARE:
        second_row = pixel + taps.offset[3]
        third_row = pixel + taps.offset[6]
    for _i in range(taps.n_ic):
        prefetch(ahead)
        multiply_row(role, row, NV, M, acc, first_row, second, third, weights, width)
        if TAPS == SQUARE:
            multiply_row(role, row, NV, M, acc, second_row, second, third, weights + 3 * width, width)
            multiply_row(role, row, NV, M, acc, third_row, second, third, weights + 6 * width, width)
        first_row = first_row + ic_step
        second_row = second_row + ic_step
        third_row = third_row + ic_step
        weights = weights + (TAPS if TAPS == SQUARE else TAPS + taps.n_skipped) * width
        ahead = ahead + taps.ahead.pitch


cdef inline void multiply_two(
    const int role, const int NV, const int M, vec *acc, const char *pixel, const Py_ssize_t *offset,
    const real *weights, Py_ssize_t width,
) noexcept nogil:
    multiply_tap(role, NV, M, acc, <const real *> (pixel + offset[0]), weights, 0)
    multiply_tap(role, NV, M, acc, <const real *> (pixel + offset[1]), weights + width, 0)


cdef inline void sum_taps(
    const int role, const int AT_ONCE, const int NV, const int M, vec *acc, const char *pixel, const real *weights,
    const Taps *taps, Py_ssize_t width,
) noexcept nogil:
    # Taps that lie anywhere: one at a time, or by fours, of which there is one at least, then two, then one.
    cdef:
        Py_ssize_t _i, _t
        Py_ssize_t n = taps.n_taps // AT_ONCE
        const Py_ssize_t *offset
        const char *ahead = taps.ahead.line
    # A loop that may be skipped costs registers: the accumulators would have to survive two ways around it.
    assume(taps.n_ic > 0)
    assume(n > 0)
    for _i in range(taps.n_ic):
        prefetch(ahead)
        offset = taps.offset
        for _t in range(n):
            if AT_ONCE == 4:
                multiply_two(role, NV, M, acc, pixel, offset, weights, width)
                multiply_two(role, NV, M, acc, pixel, offset + 2, weights + 2 * width, width)
            else:
                multiply_tap(role, NV, M, acc, <const real *> (pixel + offset[0]), weights, 0)
            offset = offset + AT_ONCE
            weights = weights + AT_ONCE * width
        if AT_ONCE == 4 and taps.n_taps & 2:
            multiply_two(role, NV, M, acc, pixel, offset, weights, width)
            offset = offset + 2
            weights = weights + 2 * width
        if AT_ONCE == 4 and taps.n_taps & 1:
            multiply_tap(role, NV, M, acc, <const real *> (pixel + offset[0]), weights, 0)
            weights = weights + width
        pixel = pixel + taps.ic_step
        weights = weights + taps.n_skipped * width
        ahead = ahead + taps.ahead.pitch


cdef inline void tile(
    const int role, const int SHAPE, const int NV, const int M,
    const real *strip, const real *weights, const vec *start, char *out, const Grid *grid,
) noexcept nogil:
    # One of a grid. The chain of (m, v) starts from the sums start[m * NV + v] or, the first time, from the bias.
    cdef:
        vec acc[MAX_ACCUMULATORS]
        int m, v
        const Taps *taps = grid.taps
        Py_ssize_t width = NV * (VECTOR_BYTES // sizeof(real)) if role == OC_VECTOR else M
        Py_ssize_t step = NV
        Py_ssize_t between = 1
        const char *pixel = <const char *> strip
    if grid.first:
        step, between = (0, 1) if role == OC_VECTOR else (1, 0)
    for m in range(M):
        for v in range(NV):
            acc[m * NV + v] = start[v * between]
        start = start + step
    if SHAPE == ONE:
        sum_points(role, 1, NV, M, acc, pixel, weights, taps, width)
    elif SHAPE == FOUR:
        sum_points(role, 4, NV, M, acc, pixel, weights, taps, width)
    elif SHAPE == APART:
        sum_points_apart(NV, M, acc, pixel, weights, taps, width)
    elif SHAPE == TWO or SHAPE == THREE or SHAPE == SQUARE:
        sum_rows(role, SHAPE, NV, M, acc, pixel, weights, taps, width)
    elif SHAPE == MANY:
        sum_taps(role, 4, NV, M, acc, pixel, weights, taps, width)
    else:
        sum_taps(role, 1, NV, M, acc, pixel, weights, taps, width)
    for m in range(M):
        for v in range(NV):
            (<vec *> (out + m * grid.pitch))[v] = acc[m * NV + v]


cdef inline void tiles(
    const int role, const int SHAPE, const int NV, const int M,
    const real *strip, const real *weights, const vec *start, char *out, const Grid *grid,
) noexcept nogil:
    # A line of them in one instance: to find it takes as long as some taps (measured, APART: kernels on 16 to 32
    # channels take 8 to 20 % less time. In other shapes the compiler moves accumulators from register to register then,
    # and the 6x2 tile takes up to 1.4 times as long).
    cdef Py_ssize_t _i
    for _i in range(grid.n):
        look_ahead(grid.taps.ahead)
        tile(role, SHAPE, NV, M, strip, weights, start, out, grid)
        strip = <const real *> (<const char *> strip + grid.next_pixel)
        start = <const vec *> (<const char *> start + grid.next_start)
        out = out + grid.next_out

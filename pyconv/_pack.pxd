# Packed weights: in the order in which a tile reads them, zeros in the lanes that no channel fills.
#
#     [group] [block of output channels] [bias, one for each lane] [ic][kh][kw][lane or scalar of the block]
#     and, where the plan asks (`skips`), one element more: 1 where all weights are finite, else 0
#
# A block is the transpose of its channels' weights: rows of a channel become columns of a tap. Where a channel's
# weights lie one after the other it is transposed in registers, 8 channels at a time.
#
# Weights that are kept are packed once, many of them by all threads. Those of a single call are packed by the tasks
# that multiply them, a block at a time, where that happens twice at most (Plan.packs_in_tasks): what is packed is used
# from the cache, does not go to memory, and is never there as a whole.

from libc.string cimport memcpy, memset

from pyconv._copy cimport copy_few
from pyconv._lowered cimport Lowered, Weights
from pyconv._split cimport size_of, start_of
from pyconv._tile cimport DEPTHWISE_CHANNELS, OC_VECTOR
from pyconv._vector cimport VECTOR_BYTES, prefetch, real, transpose8, transpose8_to


cdef enum:
    CACHE_LINE = 64
    # Taps of 8 channels that are packed before the next 8 channels: long rows, so that they stream from memory, of so
    # few taps that the lines that they all write to stay in the second level cache (measured: rows of 64 take 1.6
    # times as long).
    TAPS_AT_ONCE = 1024
    AHEAD = 512  # bytes, of a row: what the processor fetches by itself comes late, and not at all for 8 rows at once


cdef inline void pack_few(
    const real *weight, Py_ssize_t pitch, Py_ssize_t n_oc, bint has_eight, Py_ssize_t n_taps, Py_ssize_t width,
    Py_ssize_t lanes, Py_ssize_t room, real *to,
) noexcept nogil:
    # to[tap][oc] = weight[oc][tap] of n_oc <= 8 rows, of which memory may have eight; zeros from there to `lanes` <= 8.
    # All eight are written where the `room` elements that belong to this and later taps hold them: what is too much is
    # of the following taps, and they come next.
    cdef:
        Py_ssize_t VL = VECTOR_BYTES // sizeof(real)
        Py_ssize_t v, oc, i
        real rows[8 * 16]
        real block[8 * 16]
        const real *row
        bint whole = has_eight and n_oc == lanes
    if not whole:
        memset(rows, 0, sizeof(rows))
    for v in range(n_taps // VL):
        if v * VECTOR_BYTES % CACHE_LINE == 0:
            for oc in range(n_oc):
                prefetch(<const char *> (weight + v * VL) + oc * pitch + AHEAD)
        if whole and (VL - 1) * width + 8 <= room:
            transpose8_to(weight + v * VL, pitch, <char *> to, width * <Py_ssize_t> sizeof(real))
        else:
            for oc in range(n_oc):
                row = <const real *> (<const char *> weight + oc * pitch) + v * VL
                memcpy(rows + oc * (VECTOR_BYTES // sizeof(real)), row, VECTOR_BYTES)
            transpose8(rows, VECTOR_BYTES, block)
            for i in range(VECTOR_BYTES // sizeof(real)):
                copy_few(<char *> (to + i * width), block + 8 * i, lanes)
        to = to + VL * width
        room = room - VL * width
    for i in range(n_taps - n_taps % VL, n_taps):
        for oc in range(lanes):
            to[oc] = (<const real *> (<const char *> weight + oc * pitch))[i] if oc < n_oc else 0
        to = to + width


cdef inline void pack_dense(
    const real *weight, Py_ssize_t pitch, Py_ssize_t n_oc, Py_ssize_t n_rows, Py_ssize_t n_taps, Py_ssize_t width,
    real *to,
) noexcept nogil:
    # to[tap][oc] = weight[oc][tap] for n_oc of n_rows rows of neighbouring taps, `pitch` bytes apart. The last rows
    # come first: they may write to the first ones of the next tap.
    cdef:
        Py_ssize_t i, k, tap, oc, n
        Py_ssize_t n_few = (width + 7) // 8
        const real *rows
    if width == 1:
        memcpy(to, weight, n_taps * sizeof(real))
        return
    for i in range((n_taps + TAPS_AT_ONCE - 1) // TAPS_AT_ONCE):
        tap = i * TAPS_AT_ONCE
        for k in range(n_few):
            oc = (n_few - 1 - k) * 8
            n = max(0, min(8, n_oc - oc))
            rows = weight
            if n > 0:
                rows = <const real *> (<const char *> weight + oc * pitch) + tap
            pack_few(
                rows, pitch, n, oc + 8 <= n_rows, min(TAPS_AT_ONCE, n_taps - tap), width, min(8, width - oc),
                (n_taps - tap) * width - oc, to + tap * width + oc,
            )


cdef inline void pack_block(
    const Lowered *p, const char *weight, const Py_ssize_t *strides, Py_ssize_t n_ic, Py_ssize_t n_oc,
    Py_ssize_t n_rows, Py_ssize_t width, real *to,
) noexcept nogil:
    cdef:
        Py_ssize_t size = sizeof(real)
        Py_ssize_t ic, kh, kw, oc
        const char *pixel
    if (
        (p.kw == 1 or strides[3] == size) and (p.kh == 1 or strides[2] == p.kw * size)
        and (p.icg == 1 or strides[1] == p.kh * p.kw * size)
    ):
        pack_dense(<const real *> weight, strides[0], n_oc, n_rows, n_ic * p.kh * p.kw, width, to)
        return
    for ic in range(n_ic):
        for kh in range(p.kh):
            for kw in range(p.kw):
                pixel = weight + ic * strides[1] + kh * strides[2] + kw * strides[3]
                for oc in range(width):
                    to[oc] = (<const real *> (pixel + oc * strides[0]))[0] if oc < n_oc else 0
                to = to + width


cdef inline bint all_finite(const real *values, Py_ssize_t n) noexcept nogil:
    # A finite number times zero is zero. The zero is of the numbers' own type, as a plain one would be a double, at a
    # third of the speed.
    cdef:
        Py_ssize_t i
        real zero = 0
        bint found = False
    for i in range(n):
        found |= values[i] * zero != zero
    return not found


cdef inline bint pack_part(
    const Lowered *p, const Weights *w, Py_ssize_t g, Py_ssize_t block, Py_ssize_t ic_start, Py_ssize_t n_ic,
    real *part,
) noexcept nogil:
    # The channels [ic_start, ic_start + n_ic) of a block of group g, after its bias. Returns whether the weights are
    # finite, or False where nobody asks.
    cdef:
        bint in_vectors = p.role == OC_VECTOR or p.role == DEPTHWISE_CHANNELS
        Py_ssize_t VL = VECTOR_BYTES // sizeof(real)
        Py_ssize_t start = start_of(&p.oc_split, block)
        Py_ssize_t n = size_of(&p.oc_split, block)
        Py_ssize_t biases = n * VL
        # A bias that goes with a scalar stands in every lane of a vector.
        Py_ssize_t copies = 1 if in_vectors else VL
        Py_ssize_t i, oc
        const char *bias = w.bias
    if bias != NULL:
        bias = bias + g * p.ocg * w.bias_stride
    if in_vectors:
        start, n = start * VL, n * VL
    for i in range(biases):
        oc = start + i // copies
        part[i] = (<const real *> (bias + oc * w.bias_stride))[0] if bias != NULL and oc < p.ocg else 0
    pack_block(
        p, w.data + (g * p.ocg + start) * w.stride[0] + ic_start * w.stride[1], w.stride, n_ic, min(n, p.ocg - start),
        (p.g - g) * p.ocg - start, n, part + biases,
    )
    return p.skips and all_finite(part + biases, n * n_ic * p.kh * p.kw)

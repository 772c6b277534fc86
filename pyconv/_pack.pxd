# Packed weights: in the order in which a tile reads them, zeros in the lanes that no channel fills.
#
#     [group] [bias, one for each lane] [block of output channels][ic][kh][kw][lane or scalar of the block]
#     and, where the plan asks (`skips`), one element more: 1 where all of them are finite, else 0
#
# A block is the transpose of its channels' weights: rows of a channel become columns of a tap. Where a channel's
# weights lie one after the other it is transposed in registers, 8 channels at a time.

from libc.string cimport memcpy

from pyconv._lowered cimport Lowered
from pyconv._split cimport size_of, start_of
from pyconv._tile cimport DEPTHWISE_CHANNELS, OC_VECTOR
from pyconv._vector cimport VECTOR_BYTES, real, transpose8


cdef inline void pack_dense(
    const real *weight, Py_ssize_t pitch, Py_ssize_t n_oc, Py_ssize_t n_taps, Py_ssize_t width, real *to,
) noexcept nogil:
    # to[tap][oc] = weight[oc][tap] for rows of neighbouring taps, `pitch` bytes apart.
    cdef:
        Py_ssize_t VL = VECTOR_BYTES // sizeof(real)
        Py_ssize_t by_eight = n_oc - n_oc % 8
        Py_ssize_t v, tap, oc, i
        real block[8 * 16]
    for v in range(n_taps // VL):
        tap = v * VL
        for oc in range(0, by_eight, 8):
            transpose8(<const real *> (<const char *> weight + oc * pitch) + tap, pitch, block)
            for i in range(VECTOR_BYTES // sizeof(real)):
                memcpy(to + (tap + i) * width + oc, block + 8 * i, 8 * sizeof(real))
        for oc in range(by_eight, n_oc):
            for i in range(VL):
                to[(tap + i) * width + oc] = (<const real *> (<const char *> weight + oc * pitch))[tap + i]
    for tap in range(n_taps - n_taps % VL, n_taps):
        for oc in range(n_oc):
            to[tap * width + oc] = (<const real *> (<const char *> weight + oc * pitch))[tap]


cdef inline void pack_block(
    const Lowered *p, const char *weight, const Py_ssize_t *strides, Py_ssize_t n_oc, Py_ssize_t width, real *to,
) noexcept nogil:
    cdef:
        Py_ssize_t size = sizeof(real)
        Py_ssize_t n_taps = p.icg * p.kh * p.kw
        Py_ssize_t tap, ic, kh, kw, oc
        const char *pixel
    for tap in range(n_taps if n_oc < width else 0):
        for oc in range(n_oc, width):
            to[tap * width + oc] = 0
    if (
        (p.kw == 1 or strides[3] == size) and (p.kh == 1 or strides[2] == p.kw * size)
        and (p.icg == 1 or strides[1] == p.kh * p.kw * size)
    ):
        pack_dense(<const real *> weight, strides[0], n_oc, n_taps, width, to)
        return
    for ic in range(p.icg):
        for kh in range(p.kh):
            for kw in range(p.kw):
                pixel = weight + ic * strides[1] + kh * strides[2] + kw * strides[3]
                for oc in range(n_oc):
                    to[oc] = (<const real *> (pixel + oc * strides[0]))[0]
                to = to + width


cdef inline bint all_finite(const real *values, Py_ssize_t n) noexcept nogil:
    # A finite number times zero is zero.
    cdef:
        Py_ssize_t i
        bint found = False
    for i in range(n):
        found |= values[i] * 0 != 0
    return not found


cdef inline void pack_group(
    const Lowered *p, const char *weight, const Py_ssize_t *strides,
    const char *bias, Py_ssize_t bias_stride, real *packed,
) noexcept nogil:
    # weight[oc][ic][kh][kw], of one group, to [block][ic][kh][kw][lane or scalar], after its bias.
    cdef:
        bint in_vectors = p.role == OC_VECTOR or p.role == DEPTHWISE_CHANNELS
        Py_ssize_t VL = VECTOR_BYTES // sizeof(real) if in_vectors else 1
        # A bias that goes with a scalar stands in every lane of a vector.
        Py_ssize_t copies = 1 if in_vectors else VECTOR_BYTES // sizeof(real)
        Py_ssize_t K = p.icg * p.kh * p.kw
        Py_ssize_t block, oc, width, k
    for k in range(p.bias_pitch):
        oc = k // copies
        packed[k] = (<const real *> (bias + oc * bias_stride))[0] if bias != NULL and oc < p.ocg else 0
    for block in range(p.oc_split.parts):
        oc = start_of(&p.oc_split, block) * VL
        width = size_of(&p.oc_split, block) * VL
        pack_block(p, weight + oc * strides[0], strides, min(width, p.ocg - oc), width, packed + p.bias_pitch + oc * K)
    # end: block

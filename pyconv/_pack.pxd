# Packed weights: in the order in which a tile reads them, zeros in the lanes that no channel fills.
#
#     [group] [bias, one for each lane] [block of output channels][ic][kh][kw][lane or scalar of the block]

from pyconv._lowered cimport Lowered
from pyconv._split cimport size_of, start_of
from pyconv._tile cimport OC_VECTOR
from pyconv._vector cimport VECTOR_BYTES, real


cdef inline void pack_group(
    const Lowered *p, const real *tag, const char *weight, const Py_ssize_t *strides,
    const char *bias, Py_ssize_t bias_stride, real *packed,
) noexcept nogil:
    # weight[oc][ic][kh][kw], of one group, to [block][ic][kh][kw][lane or scalar], after its bias.
    cdef:
        Py_ssize_t VL = VECTOR_BYTES // sizeof(real) if p.role == OC_VECTOR else 1
        # A bias that goes with a scalar stands in every lane of a vector.
        Py_ssize_t copies = 1 if p.role == OC_VECTOR else VECTOR_BYTES // sizeof(real)
        Py_ssize_t K = p.icg * p.kh * p.kw
        Py_ssize_t block, oc, width, n_oc, ic, kh, kw, k
        const char *tap
        real *to
    for k in range(p.bias_pitch):
        oc = k // copies
        packed[k] = (<const real *> (bias + oc * bias_stride))[0] if bias != NULL and oc < p.ocg else 0
    for block in range(p.oc_split.parts):
        oc = start_of(&p.oc_split, block) * VL
        width = size_of(&p.oc_split, block) * VL
        n_oc = min(width, p.ocg - oc)
        to = packed + p.bias_pitch + oc * K
        for ic in range(p.icg):
            for kh in range(p.kh):
                for kw in range(p.kw):
                    tap = weight + oc * strides[0] + ic * strides[1] + kh * strides[2] + kw * strides[3]
                    for k in range(n_oc):
                        to[k] = (<const real *> (tap + k * strides[0]))[0]
                    for k in range(n_oc, width):
                        to[k] = 0
                    to = to + width
    # end: block

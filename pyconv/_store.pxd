# Scatter: from a tile buffer c[rows][NV * VL] to the output.
#
# It knows rows and lanes only; the role of the tile decides which of the two are pixels and which are channels.
# Where the lanes are neighbours in the output (channels-last under OC_VECTOR, NCHW under OW_VECTOR) a row is copied
# (and a full tile has no need of a buffer: it ends in the output itself); where the rows are, the buffer is transposed
# in registers, 8 rows at a time; other strides go element by element.

from libc.string cimport memcpy

from pyconv._copy cimport copy_few, copy_row
from pyconv._vector cimport VECTOR_BYTES, real, transpose8


cdef inline void scatter_columns(
    const real *c, Py_ssize_t rows, Py_ssize_t lanes, Py_ssize_t width, char *out, Py_ssize_t lane_stride,
) noexcept nogil:
    # Rows are neighbours in the output. The buffer has a multiple of 8 rows; those past `rows` are not stored.
    cdef:
        Py_ssize_t VL = VECTOR_BYTES // sizeof(real)
        Py_ssize_t r, i, k, lane
        real block[8 * 16]
    for r in range(0, rows, 8):
        for i in range((lanes + VL - 1) // VL):
            lane = i * VL
            transpose8(c + r * width + lane, width * sizeof(real), block)
            if rows - r >= 8 and lanes - lane >= VL:
                # Sizes known to the compiler: columns go from the registers straight to the output.
                for k in range(VECTOR_BYTES // sizeof(real)):
                    memcpy(out + (lane + k) * lane_stride + r * sizeof(real), block + 8 * k, 8 * sizeof(real))
                continue
            for k in range(min(VL, lanes - lane)):
                copy_few(out + (lane + k) * lane_stride + r * sizeof(real), block + 8 * k, min(8, rows - r))


cdef inline void scatter(
    const real *c, Py_ssize_t rows, Py_ssize_t lanes, Py_ssize_t width,
    char *out, Py_ssize_t row_stride, Py_ssize_t lane_stride,
) noexcept nogil:
    # Strides of the output in bytes.
    cdef Py_ssize_t r, k
    if lane_stride == sizeof(real):
        for r in range(rows):
            copy_row(out + r * row_stride, c + r * width, lanes)
    elif row_stride == sizeof(real):
        scatter_columns(c, rows, lanes, width, out, lane_stride)
    else:
        for r in range(rows):
            for k in range(lanes):
                (<real *> (out + r * row_stride + k * lane_stride))[0] = c[r * width + k]

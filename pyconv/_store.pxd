# Scatter: from a tile buffer c[rows][NV * VL] to the output.
#
# It knows rows and lanes only; the role of the tile decides which of the two are pixels and which are channels.
# Where the lanes are neighbours in the output (channels-last under OC_VECTOR, NCHW under OW_VECTOR) a row is copied
# (and a full tile has no need of a buffer: it ends in the output itself); where the rows are, the buffer is transposed
# in registers, 8 or 16 rows at a time; other strides go element by element. Outputs of a narrower dtype than that of
# the sums are rounded here, row by row.

from libc.string cimport memcpy

from pyconv._copy cimport copy_few, copy_row
from pyconv._half cimport brain, half, narrow_halves, to_brain
from pyconv._tile cimport MAX_NV
from pyconv._vector cimport VECTOR_BYTES, f32, f32v, real, transpose8, transpose8_to, transpose16_to
from pyconv._widen cimport BFLOAT16, FLOAT16, INT8, INT16, UINT8, UINT16, uint16, uint8


cdef inline void scatter_columns(
    const real *c, Py_ssize_t rows, Py_ssize_t room, Py_ssize_t lanes, Py_ssize_t width,
    char *out, Py_ssize_t lane_stride,
) noexcept nogil:
    # Rows are neighbours in the output. The buffer has a multiple of 8 rows, of 16 if more than 8; those past `rows`
    # are stored too, where there is room for them: whole vectors are one move, and pieces of them several.
    cdef:
        Py_ssize_t VL = VECTOR_BYTES // sizeof(real)
        Py_ssize_t pitch = width * sizeof(real)
        Py_ssize_t i, k, n, r, step
        real block[16 * 16]
        char *to
    for i in range((lanes + VL - 1) // VL):
        r = 0
        while r < rows:
            to = out + i * VL * lane_stride + r * sizeof(real)
            step = 16 if VL == 16 and rows - r > 8 else 8
            n = min(VL, lanes - i * VL)
            if room - r >= step and n == VL:
                if VL == 16 and step == 16:
                    transpose16_to(<const f32v *> (c + r * width), pitch, to, lane_stride)
                else:
                    transpose8_to(c + r * width, pitch, to, lane_stride)
            elif VL == 16 and step == 16:
                transpose16_to(<const f32v *> (c + r * width), pitch, <char *> block, 64)
                for k in range(n):
                    copy_row(to + k * lane_stride, block + 16 * k, min(16, rows - r))
            else:
                transpose8(c + r * width, pitch, block)
                for k in range(n):
                    copy_few(to + k * lane_stride, block + 8 * k, min(8, rows - r))
            r = r + step
        c = c + VL


cdef inline void scatter(
    const real *c, Py_ssize_t rows, Py_ssize_t room, Py_ssize_t lanes, Py_ssize_t width,
    char *out, Py_ssize_t row_stride, Py_ssize_t lane_stride,
) noexcept nogil:
    # Strides of the output in bytes.
    cdef Py_ssize_t r, k
    if lane_stride == sizeof(real):
        for r in range(rows):
            copy_row(out + r * row_stride, c + r * width, lanes)
    elif row_stride == sizeof(real):
        scatter_columns(c, rows, room, lanes, width, out, lane_stride)
    else:
        for r in range(rows):
            for k in range(lanes):
                (<real *> (out + r * row_stride + k * lane_stride))[0] = c[r * width + k]


cdef inline void scatter_parts(
    const real *c, Py_ssize_t rows, Py_ssize_t lanes, Py_ssize_t width, char *out, Py_ssize_t row_stride,
    Py_ssize_t pair_stride,
) noexcept nogil:
    # Lanes are real and imaginary parts in turn: a complex number is one move. The output is aligned to parts only.
    cdef Py_ssize_t r, k
    for k in range(lanes // 2):
        for r in range(rows):
            memcpy(out + k * pair_stride + r * row_stride, c + r * width + 2 * k, 2 * sizeof(real))


ctypedef fused narrow:
    half
    brain
    uint8
    uint16


cdef inline void scatter_narrow(
    const real *c, Py_ssize_t rows, Py_ssize_t lanes, Py_ssize_t width,
    narrow *out, Py_ssize_t row_stride, Py_ssize_t lane_stride,
) noexcept nogil:
    cdef:
        Py_ssize_t r, k
        narrow row[16 * MAX_NV]
        char *to
    for r in range(rows):
        if narrow is half:
            if real is f32:
                narrow_halves(row, <const float *> (c + r * width), width)
        else:
            for k in range(width):
                if narrow is brain:
                    row[k] = to_brain(c[r * width + k])
                else:
                    row[k] = <narrow> c[r * width + k]
        to = <char *> out + r * row_stride
        if lane_stride == sizeof(narrow):
            memcpy(to, row, lanes * sizeof(narrow))
        else:
            for k in range(lanes):
                (<narrow *> (to + k * lane_stride))[0] = row[k]


cdef inline void scatter_as(
    int dtype, const real *c, Py_ssize_t rows, Py_ssize_t room, Py_ssize_t lanes, Py_ssize_t width,
    char *out, Py_ssize_t row_stride, Py_ssize_t lane_stride,
) noexcept nogil:
    # To outputs of any dtype. Of an integer the lower bytes remain. There is room for rows, or for more where what
    # follows them is the caller's to write later.
    if real is f32:
        if dtype == INT8 or dtype == UINT8:
            scatter_narrow(c, rows, lanes, width, <uint8 *> out, row_stride, lane_stride)
            return
        if dtype == INT16 or dtype == UINT16:
            scatter_narrow(c, rows, lanes, width, <uint16 *> out, row_stride, lane_stride)
            return
        if dtype == FLOAT16:
            scatter_narrow(c, rows, lanes, width, <half *> out, row_stride, lane_stride)
            return
        if dtype == BFLOAT16:
            scatter_narrow(c, rows, lanes, width, <brain *> out, row_stride, lane_stride)
            return
    scatter(c, rows, room, lanes, width, out, row_stride, lane_stride)

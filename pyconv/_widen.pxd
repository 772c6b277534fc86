# Widen: elements of the image's dtype, exactly as they are, in the dtype of the sums.
#
# Every gather moves neighbours and strided elements of a row, whatever they are; only how one element is read depends
# on the image's dtype, and that is here. float32 sums take the integers that they hold exactly.

from pyconv._half cimport brain, from_brain, from_half, half, widen_even_halves, widen_halves
from pyconv._vector cimport INTEGERS, f32, f64, real

cdef enum:
    FLOAT32
    FLOAT64
    BOOL
    UINT8
    INT8
    UINT16
    INT16
    UINT32
    INT32
    UINT64
    INT64
    FLOAT16
    BFLOAT16

ctypedef unsigned char uint8
ctypedef signed char int8
ctypedef unsigned short uint16
ctypedef short int16
ctypedef unsigned int uint32
ctypedef int int32
ctypedef unsigned long long uint64
ctypedef long long int64

ctypedef fused pixel:
    uint8
    int8
    uint16
    int16
    uint32
    int32
    uint64
    int64
    half
    brain


cdef inline void widen_one(real *slot, const pixel *value) noexcept nogil:
    if pixel is half:
        slot[0] = from_half(value[0])
    elif pixel is brain:
        slot[0] = from_brain(value[0])
    else:
        slot[0] = <real> value[0]


cdef inline void widen_line(real *slots, const pixel *line, Py_ssize_t stride, Py_ssize_t n) noexcept nogil:
    # A loop for each of the strides that are common, which the compiler turns into one over vectors.
    cdef Py_ssize_t j
    if stride == sizeof(pixel):
        if pixel is half and real is f32:
            widen_halves(<float *> slots, line, n)
        else:
            for j in range(n):
                widen_one(slots + j, line + j)
    elif stride == 2 * sizeof(pixel):
        if pixel is half and real is f32:
            widen_even_halves(<float *> slots, line, n)
        else:
            for j in range(n):
                widen_one(slots + j, line + 2 * j)
    else:
        for j in range(n):
            widen_one(slots + j, <const pixel *> (<const char *> line + j * stride))


cdef inline void widen_lines(
    real *slots, Py_ssize_t pitch, const pixel *lines, Py_ssize_t line_pitch, Py_ssize_t n_lines, Py_ssize_t stride,
    Py_ssize_t n,
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n_lines):
        widen_line(slots + i * pitch, <const pixel *> (<const char *> lines + i * line_pitch), stride, n)


cdef inline void widen_as(
    int dtype, real *slots, Py_ssize_t pitch, const char *lines, Py_ssize_t line_pitch, Py_ssize_t n_lines,
    Py_ssize_t stride, Py_ssize_t n,
) noexcept nogil:
    # Lines of n elements of this dtype: `pitch` slots apart there, `line_pitch` bytes here, elements `stride` bytes. Of
    # what no image has beside such sums (_arguments.py: check_dtypes) there is nothing: it would be code for nobody.
    if INTEGERS and real is f64:
        return
    if dtype == UINT8 or dtype == BOOL:
        widen_lines(slots, pitch, <const uint8 *> lines, line_pitch, n_lines, stride, n)
    elif dtype == INT8:
        widen_lines(slots, pitch, <const int8 *> lines, line_pitch, n_lines, stride, n)
    elif dtype == UINT16:
        widen_lines(slots, pitch, <const uint16 *> lines, line_pitch, n_lines, stride, n)
    elif dtype == INT16:
        widen_lines(slots, pitch, <const int16 *> lines, line_pitch, n_lines, stride, n)
    elif INTEGERS:
        pass
    elif dtype == FLOAT16:
        widen_lines(slots, pitch, <const half *> lines, line_pitch, n_lines, stride, n)
    elif dtype == BFLOAT16:
        widen_lines(slots, pitch, <const brain *> lines, line_pitch, n_lines, stride, n)
    elif real is f32:
        pass
    elif dtype == UINT32:
        widen_lines(slots, pitch, <const uint32 *> lines, line_pitch, n_lines, stride, n)
    elif dtype == INT32:
        widen_lines(slots, pitch, <const int32 *> lines, line_pitch, n_lines, stride, n)
    elif dtype == UINT64:
        widen_lines(slots, pitch, <const uint64 *> lines, line_pitch, n_lines, stride, n)
    else:
        widen_lines(slots, pitch, <const int64 *> lines, line_pitch, n_lines, stride, n)

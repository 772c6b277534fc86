# 16-bit floats: exact on the way in, rounded once, to nearest even, on the way out.
#
#     half     IEEE binary16 (numpy.float16)     sign, 5 bits of exponent, 10 of mantissa
#     brain    bfloat16 (ml_dtypes.bfloat16)     sign, 8 bits of exponent, 7 of mantissa: the upper half of a float32
#
# Rows by the processor's own instructions from x86-64-v3 on. The rest in integer arithmetic, without branches, so that
# loops over pixels become loops over vectors on any instruction set. Neither depends on whether the processor flushes
# subnormal float32 numbers to zero.

from libc.stdint cimport uint16_t, uint32_t
from libc.string cimport memcpy

from pyconv._vector cimport CONVERTS_HALVES, narrow8, widen8, widen8_even

# Structures, for Cython tells two names of one arithmetic type apart nowhere.
cdef struct half:
    uint16_t bits


cdef struct brain:
    uint16_t bits


cdef enum:
    BIAS = 112 << 23  # between the exponents of float32 and half, in its place
    INFINITE = 0x7F800000


cdef inline uint32_t bits_of(float value) noexcept nogil:
    cdef uint32_t bits
    memcpy(&bits, &value, 4)
    return bits


cdef inline float float_of(uint32_t bits) noexcept nogil:
    cdef float value
    memcpy(&value, &bits, 4)
    return value


cdef inline float from_half(half value) noexcept nogil:
    cdef:
        uint32_t bits = value.bits
        uint32_t magnitude = ((bits & 0x7FFF) << 13) + BIAS
        # Without exponent it is the mantissa times 2 ** -24, with the last exponent it is infinite or no number.
        uint32_t subnormal = bits_of(<float> <int> (bits & 0x3FF) * <float> 5.9604644775390625e-8)
    magnitude = magnitude + BIAS if (bits & 0x7C00) == 0x7C00 else magnitude
    magnitude = magnitude if bits & 0x7C00 else subnormal
    return float_of(magnitude | (bits & 0x8000) << 16)


cdef inline half to_half(float value) noexcept nogil:
    cdef:
        uint32_t bits = bits_of(value)
        uint32_t magnitude = bits & 0x7FFFFFFF
        half rounded
        uint32_t result = (magnitude + 0xFFF + (magnitude >> 13 & 1) - BIAS) >> 13
        # Below 2 ** -14 the step is 2 ** -24. All is 0 before 26 bits are shifted out.
        uint32_t exponent = magnitude >> 23
        uint32_t mantissa = (magnitude & 0x7FFFFF) | 0x800000
        uint32_t shift = 126 - exponent if 100 <= exponent <= 112 else 26
        uint32_t subnormal = (mantissa + ((<uint32_t> 1 << (shift - 1)) - 1) + (mantissa >> shift & 1)) >> shift
    result = result if magnitude >= bits_of(<float> 6.103515625e-5) else subnormal
    result = result if magnitude < bits_of(65520) else 0x7C00  # half a step above the largest
    result = result if magnitude <= INFINITE else 0x7E00
    rounded.bits = <uint16_t> (result | (bits >> 16 & 0x8000))
    return rounded


cdef inline void widen_halves(float *to, const half *values, Py_ssize_t n) noexcept nogil:
    # A row. Of 8 and more, the last 8 may overlap those before.
    cdef Py_ssize_t i
    if CONVERTS_HALVES and n >= 8:
        for i in range((n - 1) // 8):
            widen8(to + 8 * i, values + 8 * i)
        widen8(to + n - 8, values + n - 8)
        return
    for i in range(n):
        to[i] = from_half(values[i])


cdef inline void widen_even_halves(float *to, const half *values, Py_ssize_t n) noexcept nogil:
    # Every second one. 8 at a time as long as there is one more after them: they read its neighbour before it.
    cdef:
        Py_ssize_t i
        Py_ssize_t done = 0
    if CONVERTS_HALVES and n > 8:
        done = (n - 1) // 8 * 8
        for i in range(0, done, 8):
            widen8_even(to + i, values + 2 * i)
    for i in range(done, n):
        to[i] = from_half(values[2 * i])


cdef inline void narrow_halves(half *to, const float *values, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    if CONVERTS_HALVES and n % 8 == 0:
        for i in range(0, n, 8):
            narrow8(to + i, values + i)
        return
    for i in range(n):
        to[i] = to_half(values[i])


cdef inline float from_brain(brain value) noexcept nogil:
    return float_of(<uint32_t> value.bits << 16)


cdef inline brain to_brain(float value) noexcept nogil:
    cdef:
        uint32_t bits = bits_of(value)
        brain rounded
        uint32_t result = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    rounded.bits = <uint16_t> (result if (bits & 0x7FFFFFFF) <= INFINITE else bits >> 16 | 0x40)
    return rounded

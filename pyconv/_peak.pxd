# The yardstick: as many multiply-adds as one core can issue, with nothing to load and nothing to wait for.
#
# 12 independent accumulators cover two units of 4 cycles' latency each, with room for a longer pipeline, and fit the
# 16 registers of the smaller instruction sets.

from pyconv._vector cimport muladd, real, vec

cdef enum:
    CHAINS = 12


cdef inline void multiply_add_chains(Py_ssize_t steps, real a, vec *c) noexcept nogil:
    # acc = 1 + a * acc with a = 1/2 tends to 2: no value overflows or becomes denormal, and nothing can be hoisted. Of
    # integers, which wrap around, any a but 0 will do.
    cdef:
        vec acc[CHAINS]
        vec one = c[0]
        Py_ssize_t _step
        int i
    for i in range(CHAINS):
        acc[i] = c[i]
    for _step in range(steps):
        for i in range(CHAINS):
            acc[i] = muladd(one, acc[i], a)
    for i in range(CHAINS):
        c[i] = acc[i]

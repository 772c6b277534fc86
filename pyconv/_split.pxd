# n items in parts that differ by one at most, and the parts of a size that hold them.
#
# A remainder would leave one tile that uses a fraction of the registers at the price of a whole one: 18 pixels are
# 9 + 9, not 14 + 4. `even_tails` in _prices.py prices the same parts.

cdef struct Split:
    # n items in `parts` parts that differ by one at most: the first n_big have `big` items.
    Py_ssize_t parts, big, n_big


cdef inline Split split(Py_ssize_t n, Py_ssize_t parts) noexcept nogil:
    cdef Split s
    s.parts = parts
    s.big = (n + parts - 1) // max(1, parts)  # of nothing there are no parts
    s.n_big = n - parts * (s.big - 1)
    return s


cdef inline Split split_by(Py_ssize_t n, Py_ssize_t most) noexcept nogil:
    return split(n, (n + most - 1) // most)


cdef inline Py_ssize_t start_of(const Split *s, Py_ssize_t i) noexcept nogil:
    return i * s.big - max(i - s.n_big, 0)


cdef inline Py_ssize_t size_of(const Split *s, Py_ssize_t i) noexcept nogil:
    return s.big if i < s.n_big else s.big - 1


cdef inline Py_ssize_t as_large(const Split *s, Py_ssize_t i) noexcept nogil:
    # How many parts from i on have the size of part i.
    return (s.n_big if i < s.n_big else s.parts) - i


cdef inline Py_ssize_t up_to(Py_ssize_t unit, Py_ssize_t n) noexcept nogil:
    # The next multiple of a unit.
    return (n + unit - 1) // unit * unit

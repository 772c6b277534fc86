# Rows moved in whole vectors: every gather and scatter ends here.
#
# Rows are short, so nothing here is a call. A row is moved in vectors the last of which ends with it and may overlap
# the one before: no byte beyond a row is read or written, and there is no remainder. Rows shorter than a vector take
# two overlapping moves of a fixed size.

from libc.string cimport memcpy

from pyconv._vector cimport (
    VECTOR_BYTES, f32, even_f32, even_f32q, even_f64, even_f64q, f32q, f32v, f64q, f64v, first_f32, first_f64,
    pick_f32q, pick_f64q, real, second_f32, second_f64, vec, zeros_f32, zeros_f64,
)


cdef inline void copy_few(char *out, const real *values, Py_ssize_t n) noexcept nogil:
    # n <= 8 neighbours, in at most two moves of a fixed size, which may overlap.
    if n == 8:
        memcpy(out, values, 8 * sizeof(real))
    elif n >= 4:
        memcpy(out, values, 4 * sizeof(real))
        memcpy(out + (n - 4) * sizeof(real), values + n - 4, 4 * sizeof(real))
    elif n >= 2:
        memcpy(out, values, 2 * sizeof(real))
        memcpy(out + (n - 2) * sizeof(real), values + n - 2, 2 * sizeof(real))
    else:
        memcpy(out, values, sizeof(real))


cdef inline void copy_vectors(char *out, const vec *values, Py_ssize_t bytes) noexcept nogil:
    # In whole vectors, the last of which ends with the row and may overlap the one before.
    cdef Py_ssize_t i
    for i in range((bytes - 1) // VECTOR_BYTES):
        (<vec *> out)[i] = values[i]
    (<vec *> (out + bytes - VECTOR_BYTES))[0] = (<const vec *> (<const char *> values + bytes - VECTOR_BYTES))[0]


cdef inline void copy_row(char *out, const real *values, Py_ssize_t n) noexcept nogil:
    # n neighbours, without a call: rows are short.
    if n * <Py_ssize_t> sizeof(real) >= VECTOR_BYTES:
        if real is f32:
            copy_vectors(out, <const f32v *> values, n * sizeof(real))
        else:
            copy_vectors(out, <const f64v *> values, n * sizeof(real))
    elif n > 8:
        memcpy(out, values, 8 * sizeof(real))
        memcpy(out + (n - 8) * sizeof(real), values + n - 8, 8 * sizeof(real))
    elif n > 0:
        copy_few(out, values, n)


cdef inline void copy_rows_vec(
    char *to, Py_ssize_t to_pitch, const vec *source, Py_ssize_t pitch, Py_ssize_t rows, Py_ssize_t bytes,
) noexcept nogil:
    cdef Py_ssize_t _row
    for _row in range(rows):
        copy_vectors(to, source, bytes)
        to = to + to_pitch
        source = <const vec *> (<const char *> source + pitch)


cdef inline void copy_rows(
    real *to, Py_ssize_t to_pitch, const real *source, Py_ssize_t pitch, Py_ssize_t rows, Py_ssize_t n,
) noexcept nogil:
    # Rows of n neighbours: `to_pitch` elements apart there, `pitch` bytes apart here.
    cdef Py_ssize_t row
    if n * <Py_ssize_t> sizeof(real) < VECTOR_BYTES:
        for row in range(rows):
            copy_row(<char *> (to + row * to_pitch), <const real *> (<const char *> source + row * pitch), n)
    elif real is f32:
        copy_rows_vec(<char *> to, to_pitch * 4, <const f32v *> source, pitch, rows, n * 4)
    else:
        copy_rows_vec(<char *> to, to_pitch * 8, <const f64v *> source, pitch, rows, n * 8)


ctypedef fused few_vec:
    f32q
    f64q


cdef inline void copy_even_few(few_vec *to, const real *source, Py_ssize_t n, Py_ssize_t lanes) noexcept nogil:
    # As `copy_even_vec`, for rows shorter than its vectors.
    cdef:
        Py_ssize_t i, start
        const few_vec *first
        const few_vec *second
    for i in range((n + lanes - 1) // lanes):
        start = min(i * lanes, n - lanes)
        first = <const few_vec *> (source + 2 * start)
        second = <const few_vec *> (source + 2 * start + lanes - 1)
        if few_vec is f32q:
            (<few_vec *> (<real *> to + start))[0] = even_f32q(first[0], second[0])
        else:
            (<few_vec *> (<real *> to + start))[0] = even_f64q(first[0], second[0])


cdef inline void copy_even_vec(vec *to, const real *source, Py_ssize_t n, Py_ssize_t lanes) noexcept nogil:
    # In whole vectors, the last of which ends with the row. Nothing beyond source[2 * (n - 1)] is read.
    cdef:
        Py_ssize_t i, start
        const vec *first
        const vec *second
    for i in range((n + lanes - 1) // lanes):
        start = min(i * lanes, n - lanes)
        first = <const vec *> (source + 2 * start)
        second = <const vec *> (source + 2 * start + lanes - 1)
        if vec is f32v:
            (<vec *> (<real *> to + start))[0] = even_f32(first[0], second[0])
        else:
            (<vec *> (<real *> to + start))[0] = even_f64(first[0], second[0])


cdef inline void copy_even(real *to, const real *source, Py_ssize_t n) noexcept nogil:
    # n of every second element.
    cdef:
        Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
        Py_ssize_t few = 16 // sizeof(real)
        Py_ssize_t i
    if n < few:
        for i in range(n):
            to[i] = source[2 * i]
    elif n < lanes:
        if real is f32:
            copy_even_few(<f32q *> to, source, n, few)
        else:
            copy_even_few(<f64q *> to, source, n, few)
    elif real is f32:
        copy_even_vec(<f32v *> to, source, n, lanes)
    else:
        copy_even_vec(<f64v *> to, source, n, lanes)


cdef inline void copy_every(real *to, const real *source, Py_ssize_t stride, Py_ssize_t n) noexcept nogil:
    # n elements, `stride` bytes apart. Those without a shuffle of their own are stored 16 bytes at a time, the last of
    # which end with them: one by one they would wait for the stores.
    cdef:
        Py_ssize_t few = 16 // sizeof(real)
        Py_ssize_t i, start
        const char *at = <const char *> source
    if stride == sizeof(real):
        copy_row(<char *> to, source, n)
    elif stride == 2 * sizeof(real):
        copy_even(to, source, n)
    elif n < few:
        for i in range(n):
            to[i] = (<const real *> (at + i * stride))[0]
    else:
        for i in range((n + few - 1) // few):
            start = min(i * few, n - few)
            if real is f32:
                (<f32q *> (to + start))[0] = pick_f32q(at + start * stride, stride)
            else:
                (<f64q *> (to + start))[0] = pick_f64q(at + start * stride, stride)


cdef inline void deal(vec *r, const int S) noexcept nogil:
    # S * VL neighbours, dealt out to S vectors in turn. Number them by their bits: each step takes the last bit of the
    # lane to the front of the vector's number, until those of the turn stand there, in their order.
    cdef:
        vec t[8]
        int i
        int step = S
    while step > 1:
        for i in range(S // 2):
            if vec is f32v:
                t[i] = first_f32(r[2 * i], r[2 * i + 1])
                t[i + S // 2] = second_f32(r[2 * i], r[2 * i + 1])
            else:
                t[i] = first_f64(r[2 * i], r[2 * i + 1])
                t[i + S // 2] = second_f64(r[2 * i], r[2 * i + 1])
        for i in range(S):
            r[i] = t[i]
        step = step // 2


cdef inline void copy_phases_vec(
    const int S, real *to, const Py_ssize_t *slots, const vec *tag, const real *source, Py_ssize_t n, Py_ssize_t lanes,
) noexcept nogil:
    cdef:
        vec r[8]
        Py_ssize_t i, start
        int k
    for i in range((n + lanes - 1) // lanes):
        start = min(i * lanes, n - lanes)
        for k in range(S):
            r[k] = (<const vec *> (source + S * start + k * lanes))[0]
        deal(r, S)
        for k in range(S):
            (<vec *> (to + slots[k] + start))[0] = r[k]


cdef inline void copy_phases(
    const int S, real *to, const Py_ssize_t *slots, const real *source, Py_ssize_t n,
) noexcept nogil:
    # n times S neighbours, n a vector or more: those of each phase k together, at to[slots[k]] and on.
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    if real is f32:
        copy_phases_vec(S, to, slots, <const f32v *> source, source, n, lanes)
    else:
        copy_phases_vec(S, to, slots, <const f64v *> source, source, n, lanes)


cdef inline void clear_ends_vec(vec *row, vec *end, vec zeros, Py_ssize_t before, Py_ssize_t after) noexcept nogil:
    if before:
        row[0] = zeros
    if after:
        end[0] = zeros


cdef inline void clear_ends(real *row, Py_ssize_t low, Py_ssize_t high, Py_ssize_t end) noexcept nogil:
    # Zeros in [0, low) and [high, end) of a row whose middle will be written afterwards: it may be cleared, too.
    cdef:
        Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
        Py_ssize_t i
    if low > lanes or end - high > lanes or end < lanes:
        for i in range(low):
            row[i] = 0
        for i in range(high, end):
            row[i] = 0
    elif real is f32:
        clear_ends_vec(<f32v *> row, <f32v *> (row + end - lanes), zeros_f32(), low, end - high)
    else:
        clear_ends_vec(<f64v *> row, <f64v *> (row + end - lanes), zeros_f64(), low, end - high)


cdef inline void copy_pixels_vec(
    real *to, Py_ssize_t slot, const vec *source, Py_ssize_t pitch, Py_ssize_t bytes, Py_ssize_t n,
) noexcept nogil:
    cdef Py_ssize_t _i
    for _i in range(n):
        copy_vectors(<char *> to, source, bytes)
        to = to + slot
        source = <const vec *> (<const char *> source + pitch)


cdef inline void copy_pixels(
    real *to, Py_ssize_t slot, const real *source, Py_ssize_t pitch, Py_ssize_t n_ch, Py_ssize_t n,
) noexcept nogil:
    # n pixels of n_ch neighbouring channels, a vector or more: `slot` elements apart there, `pitch` bytes apart here.
    if real is f32:
        copy_pixels_vec(to, slot, <const f32v *> source, pitch, n_ch * sizeof(real), n)
    else:
        copy_pixels_vec(to, slot, <const f64v *> source, pitch, n_ch * sizeof(real), n)

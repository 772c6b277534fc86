# What the benchmark measures against: the peak loop, and one tile alone (included by _kernels.pyx).

from libc.stdlib cimport free
from libc.string cimport memset

from pyconv._ahead cimport Ahead, expect_nothing
from pyconv._peak cimport CHAINS, multiply_add_chains
from pyconv._split cimport up_to
from pyconv._tile cimport OC_VECTOR, OW_VECTOR, Grid, Taps
from pyconv._vector cimport INTEGERS, VECTOR_BYTES, f32, f32v, f64, f64v


def multiply_adds(dtype, Py_ssize_t steps):
    """Run the peak loop of this build on one core; return the operations done (two for each multiply-add and lane)."""
    cdef:
        # CHAINS vectors of at most 64 bytes.
        f32 singles[12 * 16]
        f64 doubles[12 * 8]
        Py_ssize_t i
        double total = 0
        # Of floats, one half (_peak.pxd); of integers, an odd number that the compiler does not know: it would multiply
        # by shifts and additions.
        double factor = 2654435761 + 2 * steps if INTEGERS else 0.5
        bint single = dtype in SUMS[0]
    for i in range(12 * 16):
        singles[i] = 1 + i  # every chain its own: equal ones would be computed once
    for i in range(12 * 8):
        doubles[i] = 1 + i
    with nogil:
        if single:
            multiply_add_chains(steps, <f32> factor, <f32v *> singles)
        else:
            multiply_add_chains(steps, <f64> factor, <f64v *> doubles)
    # Every chain must be of consequence, or the compiler drops it.
    for i in range(12 * 16):
        total += singles[i]
    for i in range(12 * 8):
        total += doubles[i]
    if total != total:
        raise ArithmeticError("the peak loop diverged")
    return 2 * steps * CHAINS * VECTOR_BYTES // (4 if single else 8)


def tile_multiply_adds(
    dtype, role, int NV, int M, Py_ssize_t n_ic, Py_ssize_t n_kh, Py_ssize_t n_kw, Py_ssize_t repeats,
):
    """Run one tile alone, over a strip and weights of zeros; return the operations done, as `multiply_adds` does.

    The strip is as narrow as the tile allows, so that with few channels everything stays in the first level cache.
    """
    cdef:
        bint single = dtype in SUMS[0]
        Py_ssize_t size = 4 if single else 8
        Py_ssize_t VL = VECTOR_BYTES // size
        int tile_role = ROLES[role]
        Py_ssize_t pixels = M if tile_role == OC_VECTOR else NV * VL
        Py_ssize_t scalars = NV * VL if tile_role == OC_VECTOR else M
        Py_ssize_t width = up_to(VL, pixels + n_kw - 1)
        Py_ssize_t strip_bytes = n_kh * n_ic * width * size
        Py_ssize_t weight_bytes = up_to(CACHE_LINE, n_ic * n_kh * n_kw * scalars * size)
        Py_ssize_t offset[32 * 32]
        void *memory = NULL
        char *base
        char *sums
        Ahead ahead
        Taps taps
        Grid line
        Py_ssize_t k
    if (role, NV, M) not in variants() or tile_role > OW_VECTOR or not (0 < n_kh <= 32 and 0 < n_kw <= 32):
        raise ValueError(f"no tile ({role!r}, {NV}, {M}) for a {n_kh}x{n_kw} kernel")
    if not 0 < n_ic <= 1 << 20:
        raise ValueError(f"n_ic must be from 1 to {1 << 20}, got {n_ic}")
    if posix_memalign(&memory, CACHE_LINE, strip_bytes + weight_bytes + TILE_BYTES) != 0:
        raise MemoryError
    memset(memory, 0, strip_bytes + weight_bytes + TILE_BYTES)
    base = <char *> memory
    sums = base + weight_bytes + strip_bytes
    memset(&ahead, 0, sizeof(Ahead))
    expect_nothing(&ahead)
    memset(&taps, 0, sizeof(Taps))
    memset(&line, 0, sizeof(Grid))
    line.taps, line.pitch, line.n, line.times = &taps, NV * VECTOR_BYTES, repeats, 1
    taps.n_ic, taps.n_kh, taps.n_kw, taps.ic_step = n_ic, n_kh, n_kw, width * size
    taps.offset, taps.ahead = offset, &ahead
    taps.n_taps = n_kh * n_kw
    for k in range(n_kh * n_kw):
        offset[k] = (k // n_kw * n_ic * width + k % n_kw) * size
    with nogil:
        if single:
            run_tiles(
                tile_role, NV, M, <const f32 *> (base + weight_bytes), <const f32 *> base, <const f32 *> sums, sums,
                &line,
            )
        else:
            run_tiles(
                tile_role, NV, M, <const f64 *> (base + weight_bytes), <const f64 *> base, <const f64 *> sums, sums,
                &line,
            )
    free(memory)
    return 2 * repeats * n_ic * n_kh * n_kw * M * NV * VL

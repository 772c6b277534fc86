# The widest vector of the instruction set that this module is compiled for.
#
# The compiler's flags alone choose it: one source, built once for each level, and once more for integers, where f32 and
# f64 stand for unsigned integers of 4 and 8 bytes, whose sums and products wrap around as NumPy's do. To Cython a
# vector is an arithmetic type like any other; to C it is a vector of VECTOR_BYTES bytes, so `acc = muladd(acc, b, a)`
# becomes one fused multiply-add of VL lanes. It may lie at any address that suits its element: rows of an image start
# anywhere.
#
# Only addition and multiplication (contracted to a fused multiply-add by the compiler's default rule) and a few
# permutations are needed, and conversions of 16-bit floats; interleaving two vectors turns a tile's rows into its
# columns (see `transpose8`).

cdef extern from *:
    """
    #if defined(__AVX512F__)
    #  define VECTOR_BYTES 64
    #  define VECTOR_REGISTERS 32
    #  define F32_LANES 16
    #  define F64_LANES 8
    #elif defined(__AVX__)
    #  define VECTOR_BYTES 32
    #  define VECTOR_REGISTERS 16
    #  define F32_LANES 8
    #  define F64_LANES 4
    #else
    #  define VECTOR_BYTES 16
    #  define F32_LANES 4
    #  define F64_LANES 2
    #  if defined(__aarch64__)
    #    define VECTOR_REGISTERS 32
    #  else
    #    define VECTOR_REGISTERS 16
    #  endif
    #endif
    #if defined(PYCONV_INTEGERS)
    #  define INTEGERS 1
    typedef unsigned int       f32;
    typedef unsigned long long f64;
    #else
    #  define INTEGERS 0
    typedef float  f32;
    typedef double f64;
    #endif
    #if !INTEGERS && (defined(__FMA__) || defined(__aarch64__))
    #  define FUSED 1
    #else
    #  define FUSED 0
    #endif
    typedef f32    f32v __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));
    typedef f64    f64v __attribute__((vector_size(VECTOR_BYTES), aligned(8), may_alias));
    typedef f32    f32o __attribute__((vector_size(32), aligned(4), may_alias));
    typedef f32    f32q __attribute__((vector_size(16), aligned(4), may_alias));
    typedef f64    f64q __attribute__((vector_size(16), aligned(8), may_alias));
    typedef int       i32o __attribute__((vector_size(32)));
    typedef int       i32q __attribute__((vector_size(16)));
    typedef long long i64q __attribute__((vector_size(16)));
    typedef int       i32v __attribute__((vector_size(VECTOR_BYTES)));
    typedef long long i64v __attribute__((vector_size(VECTOR_BYTES)));
    typedef int       i32u __attribute__((vector_size(VECTOR_BYTES), aligned(4)));
    typedef long long i64u __attribute__((vector_size(VECTOR_BYTES), aligned(8)));

    #define muladd(acc, v, s) ((acc) + (v) * (__typeof__((acc)[0]))(s))
    // Less zero, not plus: that would turn -0.0 into 0.0. No subtraction is left of it in any rounding mode, because
    // compilers take x - 0.0 for x unless they are told to mind the mode (-frounding-math).
    #define broadcast(s, like) ((__typeof__((like)[0]))(s) - (__typeof__(like)) {0})
    #define muladd_each(acc, v, w) ((acc) + (v) * (w))

    #define assume(condition) do { if (!(condition)) __builtin_unreachable(); } while (0)
    #define prefetch(address) __builtin_prefetch(address, 0, 2)
    #if defined(__AVX512F__)
    #  define VECTOR_CLASS "v"
    #elif defined(__x86_64__)
    #  define VECTOR_CLASS "x"
    #else
    #  define VECTOR_CLASS "w"
    #endif
    #define in_register(v) __asm__("" : "+" VECTOR_CLASS(v))
    #define read_anew(pointer) __asm__("" : "+r"(pointer))

    // gcc's usual allocator moves accumulators from register to register in loops of many taps. Elsewhere it is the
    // better one (measured: depthwise kernels of 5x5 take 1.6 times as long without it).
    // gcc also makes each address from the one before, where pixels are one distance apart: a chain as long as their
    // loads (measured: channels-last depthwise kernels take 2 to 5 % more time).
    // And it would make a large function twice where one of its callers has a constant for it.
    #if defined(__GNUC__) && !defined(__clang__)
    #  define TILE_CODE __attribute__((optimize("ira-algorithm=priority"))) void
    #  define CHANNELS_CODE __attribute__((optimize("no-tree-slsr"))) void
    #  define ONE_COPY __attribute__((noclone)) void
    #else
    #  define TILE_CODE void
    #  define CHANNELS_CODE void
    #  define ONE_COPY void
    #endif

    #define LOW_2   0, 2
    #define HIGH_2  1, 3
    #define LOW_4   0, 4, 1, 5
    #define HIGH_4  2, 6, 3, 7
    #define LOW_8   0, 8, 1, 9, 2, 10, 3, 11
    #define HIGH_8  4, 12, 5, 13, 6, 14, 7, 15
    #define LOW_16  0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
    #define HIGH_16 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
    #define EVEN_2  0, 3
    #define EVEN_4  0, 2, 5, 7
    #define EVEN_8  0, 2, 4, 6, 9, 11, 13, 15
    #define EVEN_16 0, 2, 4, 6, 8, 10, 12, 14, 17, 19, 21, 23, 25, 27, 29, 31
    #define FIRST_2   0, 2
    #define FIRST_4   0, 2, 4, 6
    #define FIRST_8   0, 2, 4, 6, 8, 10, 12, 14
    #define FIRST_16  0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
    #define SECOND_2  1, 3
    #define SECOND_4  1, 3, 5, 7
    #define SECOND_8  1, 3, 5, 7, 9, 11, 13, 15
    #define SECOND_16 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
    #define PASTE(half, lanes)  half##lanes
    #define INDICES(half, lanes) PASTE(half, lanes)
    #if defined(__clang__)
    #  define SHUFFLE(mask, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
    #else
    #  define SHUFFLE(mask, a, b, ...) __builtin_shuffle(a, b, (mask){__VA_ARGS__})
    #endif
    #define zip_low_f32q(a, b)  SHUFFLE(i32q, a, b, LOW_4)
    #define zip_high_f32q(a, b) SHUFFLE(i32q, a, b, HIGH_4)
    #define zip_low_f32o(a, b)  SHUFFLE(i32o, a, b, 0, 8, 1, 9, 4, 12, 5, 13)
    #define zip_high_f32o(a, b) SHUFFLE(i32o, a, b, 2, 10, 3, 11, 6, 14, 7, 15)
    #define low_halves_f32o(a, b)  SHUFFLE(i32o, a, b, 0, 1, 2, 3, 8, 9, 10, 11)
    #define high_halves_f32o(a, b) SHUFFLE(i32o, a, b, 4, 5, 6, 7, 12, 13, 14, 15)
    #if VECTOR_BYTES == 32
    #  define zip_low_f32  zip_low_f32o
    #  define zip_high_f32 zip_high_f32o
    #  define zip_low_f64(a, b)  SHUFFLE(i64v, a, b, 0, 4, 2, 6)
    #  define zip_high_f64(a, b) SHUFFLE(i64v, a, b, 1, 5, 3, 7)
    #  define low_halves_f32  low_halves_f32o
    #  define high_halves_f32 high_halves_f32o
    #  define low_halves_f64(a, b)  SHUFFLE(i64v, a, b, 0, 1, 4, 5)
    #  define high_halves_f64(a, b) SHUFFLE(i64v, a, b, 2, 3, 6, 7)
    #else
    #  define zip_low_f32(a, b)  SHUFFLE(i32v, a, b, INDICES(LOW_, F32_LANES))
    #  define zip_high_f32(a, b) SHUFFLE(i32v, a, b, INDICES(HIGH_, F32_LANES))
    #  define zip_low_f64(a, b)  SHUFFLE(i64v, a, b, INDICES(LOW_, F64_LANES))
    #  define zip_high_f64(a, b) SHUFFLE(i64v, a, b, INDICES(HIGH_, F64_LANES))
    #  define low_halves_f32(a, b)  (a)
    #  define high_halves_f32(a, b) (b)
    #  define low_halves_f64(a, b)  (a)
    #  define high_halves_f64(a, b) (b)
    #endif
    #define even_f32(a, b) SHUFFLE(i32v, a, b, INDICES(EVEN_, F32_LANES))
    #define even_f64(a, b) SHUFFLE(i64v, a, b, INDICES(EVEN_, F64_LANES))
    #define first_f32(a, b)  SHUFFLE(i32v, a, b, INDICES(FIRST_, F32_LANES))
    #define second_f32(a, b) SHUFFLE(i32v, a, b, INDICES(SECOND_, F32_LANES))
    #define first_f64(a, b)  SHUFFLE(i64v, a, b, INDICES(FIRST_, F64_LANES))
    #define second_f64(a, b) SHUFFLE(i64v, a, b, INDICES(SECOND_, F64_LANES))
    #define pick_f32q(p, step) ((f32q){ \
        *(const f32 *)(p), *(const f32 *)((p) + (step)), \
        *(const f32 *)((p) + 2 * (step)), *(const f32 *)((p) + 3 * (step))})
    #define pick_f64q(p, step) ((f64q){*(const f64 *)(p), *(const f64 *)((p) + (step))})
    #define even_f32q(a, b) SHUFFLE(i32q, a, b, EVEN_4)
    #define even_f64q(a, b) SHUFFLE(i64q, a, b, EVEN_2)
    #define IOTA_2  0, 1
    #define IOTA_4  IOTA_2, 2, 3
    #define IOTA_8  IOTA_4, 4, 5, 6, 7
    #define IOTA_16 IOTA_8, 8, 9, 10, 11, 12, 13, 14, 15
    #define SPREAD(iota, n, i) ((iota & -(n)) + (i))
    #if defined(__clang__)
    #  define spread_f32(a, n, i) __extension__ ({ \
           f32v from = (a), to; i32v at = SPREAD(((i32v){INDICES(IOTA_, F32_LANES)}), (int)(n), (int)(i)); \
           for (int lane = 0; lane < F32_LANES; ++lane) to[lane] = from[at[lane]]; to; })
    #  define spread_f64(a, n, i) __extension__ ({ \
           f64v from = (a), to; i64v at = SPREAD(((i64v){INDICES(IOTA_, F64_LANES)}), (long long)(n), (long long)(i)); \
           for (int lane = 0; lane < F64_LANES; ++lane) to[lane] = from[at[lane]]; to; })
    #  define permute_f32(a, at) __extension__ ({ \
           f32v from = (a), to; for (int lane = 0; lane < F32_LANES; ++lane) to[lane] = from[(at)[lane]]; to; })
    #  define permute_f64(a, at) __extension__ ({ \
           f64v from = (a), to; for (int lane = 0; lane < F64_LANES; ++lane) to[lane] = from[(at)[lane]]; to; })
    #else
    #  define spread_f32(a, n, i) __builtin_shuffle(a, SPREAD(((i32v){INDICES(IOTA_, F32_LANES)}), (int)(n), (int)(i)))
    #  define spread_f64(a, n, i) \
           __builtin_shuffle(a, SPREAD(((i64v){INDICES(IOTA_, F64_LANES)}), (long long)(n), (long long)(i)))
    #  define permute_f32(a, at) __builtin_shuffle(a, *(const i32u *)(at))
    #  define permute_f64(a, at) __builtin_shuffle(a, *(const i64u *)(at))
    #endif
    #if defined(__F16C__) && !defined(PYCONV_INTEGERS)
    #  define CONVERTS_HALVES 1
    typedef float f32e __attribute__((vector_size(32), aligned(4), may_alias));
    typedef short h8   __attribute__((vector_size(16), aligned(2), may_alias));
    typedef short i16e __attribute__((vector_size(16)));
    #  define widen8(to, from)  (*(f32e *)(to) = __builtin_ia32_vcvtph2ps256(*(const h8 *)(from)))
    #  define narrow8(to, from) (*(h8 *)(to) = __builtin_ia32_vcvtps2ph256(*(const f32e *)(from), 0))
    #  define widen8_even(to, from) (*(f32e *)(to) = __builtin_ia32_vcvtph2ps256( \
           SHUFFLE(i16e, ((const h8 *)(from))[0], ((const h8 *)(from))[1], 0, 2, 4, 6, 8, 10, 12, 14)))
    #else
    #  define CONVERTS_HALVES 0
    #  define widen8(to, from)      ((void) 0)
    #  define narrow8(to, from)     ((void) 0)
    #  define widen8_even(to, from) ((void) 0)
    #endif
    #define zeros_f32() ((f32v){0})
    #define zeros_f64() ((f64v){0})
    """
    ctypedef float f32
    ctypedef double f64
    ctypedef float f32v
    ctypedef double f64v
    # Of 32 bytes, in every build. Cython tells apart what types stand for, not their names (`row_vec`).
    ctypedef long double f32o
    ctypedef float f32q  # of 16 bytes, in every build
    ctypedef double f64q
    enum:
        VECTOR_BYTES
        VECTOR_REGISTERS
        INTEGERS  # whether this build sums integers
        FUSED  # whether a multiply-add is one instruction
    # muladd(acc, v, s) = acc + v * s with the scalar s in every lane.
    f32v muladd(f32v acc, f32v v, f32 s) noexcept nogil
    # The same with a scalar of its own for each lane.
    f32v muladd_each(f32v acc, f32v v, f32v w) noexcept nogil
    # The scalar s in every lane of a vector like another.
    f32v broadcast(f32 s, f32v like) noexcept nogil
    # What a function returns whose tiles keep their accumulators where they are.
    ctypedef void tile_code "TILE_CODE"
    # What a function returns whose tiles find each pixel by itself, not from the one before.
    ctypedef void channels_code "CHANNELS_CODE"
    ctypedef void one_copy "ONE_COPY"
    # Tell the compiler what the caller guarantees.
    void assume(bint condition) noexcept nogil
    # Ask for the cache line of an address, for the second level cache.
    void prefetch(const void *address) noexcept nogil
    # Keep a value in a vector register here: loaded once, it is not fetched again by each of its uses.
    void in_register(f32v v) noexcept nogil
    # Take a pointer for a new one: what it points to is loaded from here on, not kept in a register from before.
    void read_anew(const void *pointer) noexcept nogil
    # The halves of a[0] b[0] a[1] b[1] ..., of 32 bytes those of each 16: one instruction, where the whole takes two.
    f32v zip_low_f32(f32v a, f32v b) noexcept nogil
    f32v zip_high_f32(f32v a, f32v b) noexcept nogil
    f32o zip_low_f32o(f32o a, f32o b) noexcept nogil
    f32o zip_high_f32o(f32o a, f32o b) noexcept nogil
    f32q zip_low_f32q(f32q a, f32q b) noexcept nogil
    f32q zip_high_f32q(f32q a, f32q b) noexcept nogil
    f64v zip_low_f64(f64v a, f64v b) noexcept nogil
    f64v zip_high_f64(f64v a, f64v b) noexcept nogil
    # The first halves of a and b, and the second ones, of vectors of 32 bytes.
    f32v low_halves_f32(f32v a, f32v b) noexcept nogil
    f32v high_halves_f32(f32v a, f32v b) noexcept nogil
    f64v low_halves_f64(f64v a, f64v b) noexcept nogil
    f64v high_halves_f64(f64v a, f64v b) noexcept nogil
    f32o low_halves_f32o(f32o a, f32o b) noexcept nogil
    f32o high_halves_f32o(f32o a, f32o b) noexcept nogil
    # a[0] a[2] ... b[1] b[3] ...: every second element, where b starts one element before the end of a.
    f32v even_f32(f32v a, f32v b) noexcept nogil
    f64v even_f64(f64v a, f64v b) noexcept nogil
    # The first and the second of each pair of neighbours in a and then b.
    f32v first_f32(f32v a, f32v b) noexcept nogil
    f32v second_f32(f32v a, f32v b) noexcept nogil
    f64v first_f64(f64v a, f64v b) noexcept nogil
    f64v second_f64(f64v a, f64v b) noexcept nogil
    # 16 bytes of elements `step` bytes apart.
    f32q pick_f32q(const char *at, Py_ssize_t step) noexcept nogil
    f64q pick_f64q(const char *at, Py_ssize_t step) noexcept nogil
    f32q even_f32q(f32q a, f32q b) noexcept nogil
    f64q even_f64q(f64q a, f64q b) noexcept nogil
    # Element i of every n neighbours (a power of two) in the place of all of them.
    f32v spread_f32(f32v a, Py_ssize_t n, Py_ssize_t i) noexcept nogil
    f64v spread_f64(f64v a, Py_ssize_t n, Py_ssize_t i) noexcept nogil
    # Element lanes[i] in place i.
    f32v permute_f32(f32v a, const int *lanes) noexcept nogil
    f64v permute_f64(f64v a, const long long *lanes) noexcept nogil
    # 8 neighbours between binary16 and float32, rounded to nearest even in every mode; of 16, every second one.
    enum:
        CONVERTS_HALVES  # whether this build has the instructions
    void widen8(float *to, const void *values) noexcept nogil
    void narrow8(void *to, const float *values) noexcept nogil
    void widen8_even(float *to, const void *values) noexcept nogil
    f32v zeros_f32() noexcept nogil
    f64v zeros_f64() noexcept nogil


ctypedef fused real:
    f32
    f64

ctypedef fused vec:
    f32v
    f64v

ctypedef fused row_vec:  # what rows are transposed in
    f32v
    f64v
    f32o


cdef inline void interleave(row_vec *r, const int R) noexcept nogil:
    # One step of a transposition: number the elements of r by the bits (vector ... 1 0 | lane ... 0), where the lanes
    # are those of 16 bytes or, of longer vectors than 32 bytes, all; interleaving vector i with vector i + R / 2
    # rotates these bits left by one.
    cdef:
        row_vec t[16]
        int i
    for i in range(R // 2):
        if row_vec is f32v:
            t[2 * i] = zip_low_f32(r[i], r[i + R // 2])
            t[2 * i + 1] = zip_high_f32(r[i], r[i + R // 2])
        elif row_vec is f64v:
            t[2 * i] = zip_low_f64(r[i], r[i + R // 2])
            t[2 * i + 1] = zip_high_f64(r[i], r[i + R // 2])
        else:
            t[2 * i] = zip_low_f32o(r[i], r[i + R // 2])
            t[2 * i + 1] = zip_high_f32o(r[i], r[i + R // 2])
    for i in range(R):
        r[i] = t[i]


cdef inline void load_rows(row_vec *r, const int R, const row_vec *rows, Py_ssize_t pitch) noexcept nogil:
    cdef int i
    for i in range(R):
        r[i] = (<const row_vec *> (<const char *> rows + i * pitch))[0]


cdef inline void transpose_squares(row_vec *r) noexcept nogil:
    # 8 rows of a vector of at most 32 bytes to columns of 8, by squares that fill 16 bytes a row: E rows by E columns.
    # The halves of longer vectors change places first, and then nothing has to cross from one 16 bytes to others.
    cdef:
        int E = 2 if row_vec is f64v else 4
        int VL = E * (<int> sizeof(row_vec) // 16)
        int parts = 8 // VL  # vectors of a column
        row_vec t[8]
        int i, part
    if sizeof(row_vec) == 32:
        for part in range(parts):
            for i in range(part * VL, part * VL + E):
                if row_vec is f32v:
                    r[i], r[i + E] = low_halves_f32(r[i], r[i + E]), high_halves_f32(r[i], r[i + E])
                elif row_vec is f64v:
                    r[i], r[i + E] = low_halves_f64(r[i], r[i + E]), high_halves_f64(r[i], r[i + E])
                else:
                    r[i], r[i + E] = low_halves_f32o(r[i], r[i + E]), high_halves_f32o(r[i], r[i + E])
    for i in range(8 // E):
        interleave[row_vec](r + i * E, E)
        if E == 4:
            interleave[row_vec](r + i * E, E)
    for i in range(8):
        t[i] = r[i]
    for part in range(parts):
        for i in range(VL):
            r[i * parts + part] = t[part * VL + i]


cdef inline void transpose8_vec(vec *r, const vec *rows, Py_ssize_t pitch) noexcept nogil:
    # To VL columns of 8, one after the other.
    load_rows[vec](r, 8, rows, pitch)
    if VECTOR_BYTES <= 32:
        transpose_squares[vec](r)
        return
    interleave[vec](r, 8)  # each column is half of a vector
    interleave[vec](r, 8)
    interleave[vec](r, 8)


cdef inline void transpose8(const real *rows, Py_ssize_t pitch, real *columns) noexcept nogil:
    # 8 rows of VL elements, `pitch` bytes apart, become VL columns of 8, one after the other.
    cdef:
        f32v r32[8]
        f64v r64[8]
        int i
    if real is f32:
        transpose8_vec(r32, <const f32v *> rows, pitch)
        for i in range(8):
            (<f32v *> columns)[i] = r32[i]
    else:
        transpose8_vec(r64, <const f64v *> rows, pitch)
        for i in range(8):
            (<f64v *> columns)[i] = r64[i]


cdef inline void transpose8_to(
    const real *rows, Py_ssize_t pitch, char *columns, Py_ssize_t column_pitch,
) noexcept nogil:
    # The same straight to where the columns belong: the registers hold several parts of one, one, or both of two.
    cdef:
        f32v r32[8]
        f64v r64[8]
        int i
        int parts = 8 * sizeof(real) // VECTOR_BYTES
    if real is f32:
        transpose8_vec(r32, <const f32v *> rows, pitch)
        for i in range(8):
            if VECTOR_BYTES == 64:
                (<f32o *> (columns + 2 * i * column_pitch))[0] = (<f32o *> &r32[i])[0]
                (<f32o *> (columns + (2 * i + 1) * column_pitch))[0] = (<f32o *> &r32[i])[1]
            else:
                (<f32v *> (columns + i // parts * column_pitch + i % parts * VECTOR_BYTES))[0] = r32[i]
    else:
        transpose8_vec(r64, <const f64v *> rows, pitch)
        for i in range(8):
            (<f64v *> (columns + i // parts * column_pitch + i % parts * VECTOR_BYTES))[0] = r64[i]


cdef inline void transpose16_to(
    const f32v *rows, Py_ssize_t pitch, char *columns, Py_ssize_t column_pitch,
) noexcept nogil:
    # 16 rows of 16 lanes, of vectors of 64 bytes only, to 16 columns.
    cdef:
        f32v r[16]
        int i
    load_rows[f32v](r, 16, rows, pitch)
    interleave[f32v](r, 16)
    interleave[f32v](r, 16)
    interleave[f32v](r, 16)
    interleave[f32v](r, 16)
    for i in range(16):
        (<f32v *> (columns + i * column_pitch))[0] = r[i]


cdef inline void transpose_octets_to(
    const f32 *rows, Py_ssize_t pitch, char *columns, Py_ssize_t column_pitch,
) noexcept nogil:
    # 8 rows of 8, for rows that no longer vector may read.
    cdef:
        f32o r[8]
        int i
    load_rows[f32o](r, 8, <const f32o *> rows, pitch)
    transpose_squares[f32o](r)
    for i in range(8):
        (<f32o *> (columns + i * column_pitch))[0] = r[i]


cdef inline void transpose_quads_to(
    const f32 *rows, Py_ssize_t pitch, char *columns, Py_ssize_t column_pitch, Py_ssize_t n,
) noexcept nogil:
    # 4 rows of 4, to the first n of 4 columns.
    cdef:
        f32q r[4]
        f32q low[2]
        f32q high[2]
        int i
    for i in range(4):
        r[i] = (<const f32q *> (<const char *> rows + i * pitch))[0]
    for i in range(2):
        low[i] = zip_low_f32q(r[i], r[i + 2])
        high[i] = zip_high_f32q(r[i], r[i + 2])
    (<f32q *> columns)[0] = zip_low_f32q(low[0], low[1])
    (<f32q *> (columns + column_pitch))[0] = zip_high_f32q(low[0], low[1])
    if n > 2:
        (<f32q *> (columns + 2 * column_pitch))[0] = zip_low_f32q(high[0], high[1])
    if n > 3:
        (<f32q *> (columns + 3 * column_pitch))[0] = zip_high_f32q(high[0], high[1])

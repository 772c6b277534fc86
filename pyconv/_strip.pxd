# Gather: from the user's array, as it lies in memory, into a strip, in which every tap of every pixel exists.
#
#     strip[row][ic][col]
#
# Everything irregular ends here: padding and its modes, stride, dilation, any byte strides, the image's dtype. Only
# elements of the array are read, each as often as the strip holds it, and every slot of the strip that a tile may
# read is written (a vector may reach past the last pixel of a row: those slots are zero).
#
# How one axis of the strip is laid out is decided by _line.py: as segments, each of which holds every `step`-th
# coordinate of the image from a first one on, so that a strided convolution, too, reads neighbouring slots:
#
#     stride 2, 3 taps:   coordinates  0 1 2 3 4 5 6     segment 0:  0 2 4 6     taps 0 and 2
#                                                        segment 1:  1 3 5       tap 1

from libc.string cimport memcpy, memset

from pyconv._copy cimport clear_ends, copy_even, copy_pairs, copy_row, copy_rows
from pyconv._half cimport brain, from_brain, from_half, half
from pyconv._vector cimport VECTOR_BYTES, f32, f64, real, transpose8

ctypedef unsigned char uint8
ctypedef signed char int8
ctypedef unsigned short uint16
ctypedef short int16
ctypedef unsigned int uint32
ctypedef int int32
ctypedef unsigned long long uint64
ctypedef long long int64

ctypedef fused pixel:
    f32
    f64
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

cdef enum:
    ZEROS = 0
    REFLECT = 1
    REPLICATE = 2
    CIRCULAR = 3

cdef enum:
    KNOWN_RUNS = 8  # of a row's segments, found once for all rows: a division is slower than a short row


cdef struct Segment:
    Py_ssize_t first   # coordinate of its first slot, for output position 0 of an unpadded image
    Py_ssize_t extra   # slots beyond one for each output position
    Py_ssize_t offset  # its first slot in the line


cdef struct Axis:
    Py_ssize_t extent    # of the image
    Py_ssize_t pad       # before coordinate 0
    Py_ssize_t step      # the convolution's stride
    Py_ssize_t n_segments
    Segment *segments


cdef struct Image:
    const char *data  # of one image and group
    Py_ssize_t ic_stride, ih_stride, iw_stride  # bytes
    int padding_mode


cdef struct Run:
    # A segment's slots for some output positions: [0, low) lie before the image, [low, high) in it, [high, count)
    # after it. Slot j holds coordinate first + j * step.
    Py_ssize_t first, low, high, count


cdef inline Run run_of(const Axis *axis, const Segment *segment, Py_ssize_t start, Py_ssize_t n) noexcept nogil:
    # For output positions [start, start + n).
    cdef Run run
    run.first = start * axis.step + segment.first - axis.pad
    run.count = n + segment.extra
    run.low = (axis.step - 1 - run.first) // axis.step if run.first < 0 else 0
    run.high = (axis.extent - run.first + axis.step - 1) // axis.step if run.first < axis.extent else 0
    run.low = min(run.low, run.count)
    run.high = min(run.high, run.count)
    return run


cdef inline Py_ssize_t source_of(int padding_mode, Py_ssize_t i, Py_ssize_t extent) noexcept nogil:
    # The coordinate whose value stands at coordinate i of the padded image; -1: an explicit zero. _problem.py has
    # checked that one reflection, or one turn, is enough.
    if 0 <= i < extent:
        return i
    if padding_mode == REFLECT:
        return -i if i < 0 else 2 * (extent - 1) - i
    if padding_mode == REPLICATE:
        return 0 if i < 0 else extent - 1
    if padding_mode == CIRCULAR:
        return i + extent if i < 0 else i - extent
    return -1


cdef inline void put(real *slot, const pixel *value) noexcept nogil:
    # An element of the image, widened to the accumulator's dtype.
    if pixel is half:
        slot[0] = from_half(value[0])
    elif pixel is brain:
        slot[0] = from_brain(value[0])
    else:
        slot[0] = <real> value[0]


cdef inline bint is_padded(const Run *run) noexcept nogil:
    return run.low > 0 or run.high < run.count


cdef inline void gather_border(
    real *slots, const pixel *line, const Image *image, const Axis *cols, const Run *run,
    Py_ssize_t begin, Py_ssize_t end,
) noexcept nogil:
    cdef Py_ssize_t j, source
    for j in range(begin, end):
        source = source_of(image.padding_mode, run.first + j * cols.step, cols.extent)
        if source < 0:
            slots[j] = 0
        else:
            put(slots + j, <const pixel *> (<const char *> line + source * image.iw_stride))


cdef inline void gather_inside(
    real *slots, const pixel *line, Py_ssize_t stride, Py_ssize_t n,
) noexcept nogil:
    cdef Py_ssize_t j
    if stride == sizeof(pixel):
        if pixel is real:
            copy_row(<char *> slots, line, n)
        else:
            for j in range(n):
                put(slots + j, line + j)
    elif stride == 2 * sizeof(pixel):
        if pixel is real:
            copy_even(slots, line, n)
        else:
            for j in range(n):
                put(slots + j, line + 2 * j)
    else:
        for j in range(n):
            put(slots + j, <const pixel *> (<const char *> line + j * stride))


cdef inline void transpose_inside(
    real *slots, Py_ssize_t ic_pitch, const real *line, Py_ssize_t stride, Py_ssize_t n_ic, Py_ssize_t n,
) noexcept nogil:
    # Channels-last: neighbouring channels lie together, neighbouring pixels `stride` bytes apart.
    cdef:
        Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
        Py_ssize_t i, j, ic, k
        real block[8 * 16]
        const real *source
    for j in range(0, n - 7, 8):
        source = <const real *> (<const char *> line + j * stride)
        for i in range(n_ic // lanes):
            transpose8(source + i * lanes, stride, block)
            for k in range(lanes):
                memcpy(slots + (i * lanes + k) * ic_pitch + j, block + 8 * k, 8 * sizeof(real))
        for ic in range(n_ic - n_ic % lanes, n_ic):
            for k in range(8):
                slots[ic * ic_pitch + j + k] = (<const real *> (<const char *> source + k * stride))[ic]
    for j in range(n - n % 8, n):
        source = <const real *> (<const char *> line + j * stride)
        for ic in range(n_ic):
            slots[ic * ic_pitch + j] = source[ic]


cdef inline void gather_row(
    real *row, Py_ssize_t ic_pitch, const pixel *line, const Image *image, const Axis *cols, const Run *known,
    Py_ssize_t n_ic, Py_ssize_t start, Py_ssize_t n, Py_ssize_t overhang,
) noexcept nogil:
    # One row of the image, all channels: output columns [start, start + n), then zeros for `overhang` more. `known` are
    # the runs of the first KNOWN_RUNS segments.
    cdef:
        Py_ssize_t s, ic, j
        bint borders, zeros, filled
        Py_ssize_t stride = cols.step * image.iw_stride
        bint channels_last = n_ic > 1 and image.ic_stride == sizeof(pixel) and stride != sizeof(pixel)
        Run run
        real *slots
        const pixel *channel
        const pixel *inside
    for s in range(cols.n_segments):
        run = known[s] if s < KNOWN_RUNS else run_of(cols, &cols.segments[s], start, n)
        slots = row + cols.segments[s].offset
        inside = line
        if run.high > run.low:
            inside = <const pixel *> (<const char *> line + (run.first + run.low * cols.step) * image.iw_stride)
        borders = is_padded(&run)
        zeros = image.padding_mode == ZEROS
        filled = False
        if pixel is real:
            if stride == sizeof(pixel) and not borders and not overhang:
                copy_rows(slots, ic_pitch, inside, image.ic_stride, n_ic, run.count)
                continue
            if channels_last and run.high > run.low:
                transpose_inside(slots + run.low, ic_pitch, inside, stride, n_ic, run.high - run.low)
                filled = True
        for ic in range(n_ic):
            if zeros and not filled:
                if borders or overhang:
                    clear_ends(slots, run.low, run.high, run.count + overhang)
            elif borders or overhang:
                channel = <const pixel *> (<const char *> line + ic * image.ic_stride)
                gather_border(slots, channel, image, cols, &run, 0, run.low)
                gather_border(slots, channel, image, cols, &run, run.high, run.count)
                for j in range(run.count, run.count + overhang):
                    slots[j] = 0
            if not filled and run.high > run.low:
                gather_inside(
                    slots + run.low,
                    <const pixel *> (<const char *> inside + ic * image.ic_stride),
                    stride, run.high - run.low,
                )
            slots = slots + ic_pitch


cdef inline void gather(
    real *strip, Py_ssize_t row_pitch, Py_ssize_t ic_pitch, const pixel *tag,
    const Image *image, const Axis *rows, const Axis *cols, Py_ssize_t n_ic,
    Py_ssize_t oh_start, Py_ssize_t n_oh, Py_ssize_t ow_start, Py_ssize_t n_ow, Py_ssize_t overhang,
) noexcept nogil:
    # The strip of output rows [oh_start, oh_start + n_oh) and columns [ow_start, ow_start + n_ow). A vector may read
    # `overhang` slots past these. `tag` carries the image's dtype only.
    cdef:
        Py_ssize_t s, j, source
        Run run
        Run known[KNOWN_RUNS]
        real *row
    for s in range(min(cols.n_segments, KNOWN_RUNS)):
        known[s] = run_of(cols, &cols.segments[s], ow_start, n_ow)
    for s in range(rows.n_segments):
        run = run_of(rows, &rows.segments[s], oh_start, n_oh)
        row = strip + rows.segments[s].offset * row_pitch
        for j in range(run.count):
            source = source_of(image.padding_mode, run.first + j * rows.step, rows.extent)
            if source < 0:
                memset(row, 0, row_pitch * sizeof(real))
            else:
                gather_row(
                    row, ic_pitch, <const pixel *> (image.data + source * image.ih_stride),
                    image, cols, known, n_ic, ow_start, n_ow, overhang,
                )
            row = row + row_pitch


cdef inline bint is_dense(const Image *image, const Axis *cols, Py_ssize_t pixel_bytes) noexcept nogil:
    # Whether `gather_dense` serves: neighbouring pixels, every one or every second of them, zeros around.
    return image.iw_stride == pixel_bytes and cols.step <= 2 and image.padding_mode == ZEROS


cdef inline void gather_lines(
    real *row, Py_ssize_t row_pitch, Py_ssize_t ic_pitch, const char *line, Py_ssize_t row_step, Py_ssize_t ic_stride,
    const Axis *cols, Py_ssize_t segment, const Run *part, Py_ssize_t n_rows, Py_ssize_t n_ic, Py_ssize_t end,
) noexcept nogil:
    # One segment of the strip's columns, from `line` on, of which every slot up to `end` is wanted.
    cdef:
        Py_ssize_t _j, ic
        Py_ssize_t low = part.low
        Py_ssize_t n = part.high - low
        bint every = cols.step == 1
        real *slots = row + cols.segments[segment].offset
        const char *inside = line + (part.first + low * cols.step) * <Py_ssize_t> sizeof(real)
    for _j in range(n_rows):
        for ic in range(n_ic):
            if n < end:
                clear_ends(slots + ic * ic_pitch, low, part.high, end)
            if every:
                copy_row(<char *> (slots + ic * ic_pitch + low), <const real *> (inside + ic * ic_stride), n)
            else:
                copy_even(slots + ic * ic_pitch + low, <const real *> (inside + ic * ic_stride), n)
        slots = slots + row_pitch
        inside = inside + row_step


cdef inline void gather_pairs(
    real *row, Py_ssize_t row_pitch, Py_ssize_t ic_pitch, const char *line, Py_ssize_t row_step, Py_ssize_t ic_stride,
    const Axis *cols, Py_ssize_t segment, const Run *part, const Run *other, Py_ssize_t n_rows, Py_ssize_t n_ic,
    Py_ssize_t overhang, bint cleared,
) noexcept nogil:
    # Two segments at once: `segment` holds the first of each pair of neighbours, the other one the second.
    cdef:
        Py_ssize_t _j, ic
        Py_ssize_t pairs = min(part.high - part.low, other.high - other.low)
        Py_ssize_t n_first = part.high - part.low - pairs
        Py_ssize_t n_second = other.high - other.low - pairs
        real *first = row + cols.segments[segment].offset
        real *second = row + cols.segments[1 - segment].offset
        const real *inside
    line = line + (part.first + part.low * 2) * <Py_ssize_t> sizeof(real)
    for _j in range(n_rows):
        for ic in range(n_ic):
            inside = <const real *> (line + ic * ic_stride)
            if not cleared:
                clear_ends(first + ic * ic_pitch, part.low, part.high, part.count + overhang)
                clear_ends(second + ic * ic_pitch, other.low, other.high, other.count + overhang)
            copy_pairs(first + ic * ic_pitch + part.low, second + ic * ic_pitch + other.low, inside, pairs)
            if n_first:
                copy_even(first + ic * ic_pitch + part.low + pairs, inside + 2 * pairs, n_first)
            if n_second:
                copy_even(second + ic * ic_pitch + other.low + pairs, inside + 2 * pairs + 1, n_second)
        first = first + row_pitch
        second = second + row_pitch
        line = line + row_step


cdef inline void gather_dense(
    real *strip, Py_ssize_t row_pitch, Py_ssize_t ic_pitch,
    const Image *image, const Axis *rows, const Axis *cols, Py_ssize_t n_ic,
    Py_ssize_t oh_start, Py_ssize_t n_oh, Py_ssize_t ow_start, Py_ssize_t n_ow, Py_ssize_t overhang, bint cleared,
) noexcept nogil:
    # `gather` for the ordinary case, in which a row takes little more time than it takes to copy. `cleared`: the zeros
    # are still there from the same pixels of another group.
    cdef:
        Py_ssize_t s, k, apart
        Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
        Py_ssize_t row_step = rows.step * image.ih_stride
        Run run
        Run part
        Run other
        real *row
        const char *line
    for s in range(rows.n_segments):
        run = run_of(rows, &rows.segments[s], oh_start, n_oh)
        row = strip + rows.segments[s].offset * row_pitch
        if run.low and not cleared:
            memset(row, 0, run.low * row_pitch * sizeof(real))
        if run.high < run.count and not cleared:
            memset(row + run.high * row_pitch, 0, (run.count - run.high) * row_pitch * sizeof(real))
        if run.high <= run.low:
            continue
        row = row + run.low * row_pitch
        line = image.data + (run.first + run.low * rows.step) * image.ih_stride
        if cols.step == 2 and cols.n_segments == 2:
            part = run_of(cols, &cols.segments[0], ow_start, n_ow)
            other = run_of(cols, &cols.segments[1], ow_start, n_ow)
            apart = other.first + 2 * other.low - part.first - 2 * part.low
            if (apart == 1 or apart == -1) and min(part.high - part.low, other.high - other.low) >= lanes:
                if apart == 1:
                    gather_pairs(
                        row, row_pitch, ic_pitch, line, row_step, image.ic_stride, cols, 0, &part, &other,
                        run.high - run.low, n_ic, overhang, cleared,
                    )
                else:
                    gather_pairs(
                        row, row_pitch, ic_pitch, line, row_step, image.ic_stride, cols, 1, &other, &part,
                        run.high - run.low, n_ic, overhang, cleared,
                    )
                continue
        for k in range(cols.n_segments):
            part = run_of(cols, &cols.segments[k], ow_start, n_ow)
            gather_lines(
                row, row_pitch, ic_pitch, line, row_step, image.ic_stride, cols, k, &part, run.high - run.low, n_ic,
                part.high - part.low if cleared else part.count + overhang,
            )

# Gather: from the user's array, as it lies in memory, into a strip, in which every tap of every pixel exists.
#
#     strip[row][ic][col]            rows, the usual form
#     strip[tile][row][ic][col]      panels, one for the pixels of each tile
#     strip[ic][kh][kw][row][col]    flat, where every tap has pixels of its own (_line.py)
#
# Everything irregular ends here: padding and its modes, stride, dilation, any byte strides, the image's dtype. Nothing
# before the first element of a row of the array is read, or after its last; between two, where no page of memory fits,
# vectors may read what is not the array's, and drop it. Every slot of the strip that a tile may read is written (a
# vector may reach past the last pixel of a row: those slots are zero, or pixels of the next).
#
# How one axis of the strip is laid out is decided by _line.py: as segments, each of which holds every `step`-th
# coordinate of the image from a first one on, so that a strided convolution, too, reads neighbouring slots:
#
#     stride 2, 3 taps:   coordinates  0 1 2 3 4 5 6     segment 0:  0 2 4 6     taps 0 and 2
#                                                        segment 1:  1 3 5       tap 1

from libc.string cimport memset

from pyconv._copy cimport clear_ends, copy_every, copy_phases, copy_row, copy_rows
from pyconv._vector cimport (
    VECTOR_BYTES, f32, f32v, real, transpose8_to, transpose16_to, transpose_octets_to, transpose_quads_to,
)

cdef enum:
    ZEROS = 0
    REFLECT = 1
    REPLICATE = 2
    CIRCULAR = 3

cdef enum:
    PAGE = 4096  # bytes of memory: what lies between two pixels that are no farther apart may be read

cdef enum:
    KNOWN_SPANS = 8  # of a row's segments, found once for all rows: a division is slower than a short row


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


# `widen_as` of _widen.pxd. By address, because it is too large to be inlined wherever elements are read.
ctypedef void (*Widen)(
    int dtype, void *slots, Py_ssize_t pitch, const char *lines, Py_ssize_t line_pitch, Py_ssize_t n_lines,
    Py_ssize_t stride, Py_ssize_t n,
) noexcept nogil


cdef struct Image:
    const char *data  # of channel 0
    int dtype
    Py_ssize_t size  # of an element
    Widen widen  # NULL where elements are of the dtype of the sums
    Py_ssize_t ic  # the first channel to be gathered
    Py_ssize_t ic_pair, ic_stride, ih_stride, iw_stride  # bytes, as in `channel_at`
    int padding_mode


cdef inline Py_ssize_t channel_at(Py_ssize_t c, Py_ssize_t pair, Py_ssize_t stride) noexcept nogil:
    # Where channel c lies, in bytes from the first. The parts of complex numbers are two neighbours, whatever their
    # channels are apart; other channels are as far from each other as pairs of them are.
    return (c >> 1) * pair + (c & 1) * stride


cdef inline Py_ssize_t channel_of(const Image *image, Py_ssize_t ic) noexcept nogil:
    return channel_at(image.ic + ic, image.ic_pair, image.ic_stride)


cdef inline bint is_regular(const Image *image) noexcept nogil:
    # Whether all channels are one stride apart.
    return image.ic_pair == 2 * image.ic_stride


cdef struct Span:
    # A segment's slots for some output positions: [0, low) lie before the image, [low, high) in it, [high, count)
    # after it. Slot j holds coordinate first + j * step.
    Py_ssize_t first, low, high, count


cdef inline Span span_of(const Axis *axis, const Segment *segment, Py_ssize_t start, Py_ssize_t n) noexcept nogil:
    # For output positions [start, start + n).
    cdef Span span
    span.first = start * axis.step + segment.first - axis.pad
    span.count = n + segment.extra
    span.low = (axis.step - 1 - span.first) // axis.step if span.first < 0 else 0
    span.high = (axis.extent - span.first + axis.step - 1) // axis.step if span.first < axis.extent else 0
    span.low = min(span.low, span.count)
    span.high = min(span.high, span.count)
    return span


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


cdef inline void gather_lines(
    const Image *image, real *slots, Py_ssize_t pitch, const char *lines, Py_ssize_t line_pitch, Py_ssize_t n_lines,
    Py_ssize_t stride, Py_ssize_t n,
) noexcept nogil:
    # Lines of n elements: `pitch` slots apart there, `line_pitch` bytes apart here, and elements `stride` bytes.
    cdef Py_ssize_t _i
    if image.widen != NULL:
        image.widen(image.dtype, slots, pitch, lines, line_pitch, n_lines, stride, n)
    elif stride == sizeof(real):
        copy_rows(slots, pitch, <const real *> lines, line_pitch, n_lines, n)
    else:
        for _i in range(n_lines):
            copy_every(slots, <const real *> lines, stride, n)
            slots = slots + pitch
            lines = lines + line_pitch


cdef inline void gather_line(
    const Image *image, real *slots, const char *line, Py_ssize_t stride, Py_ssize_t n,
) noexcept nogil:
    gather_lines(image, slots, 0, line, 0, 1, stride, n)


cdef inline void gather_planes(
    const Image *image, real *slots, Py_ssize_t ic_pitch, const char *line, Py_ssize_t n_ic, Py_ssize_t stride,
    Py_ssize_t n,
) noexcept nogil:
    # n elements of each channel, `stride` bytes apart, from one of channel 0 on.
    cdef Py_ssize_t ic
    if is_regular(image):
        gather_lines(image, slots, ic_pitch, line + channel_of(image, 0), image.ic_stride, n_ic, stride, n)
    else:
        for ic in range(n_ic):
            gather_line(image, slots + ic * ic_pitch, line + channel_of(image, ic), stride, n)


cdef inline void gather_borders(
    const Image *image, real *slots, Py_ssize_t ic_pitch, const char *line, Py_ssize_t n_ic, const Axis *cols,
    const Span *span, Py_ssize_t overhang,
) noexcept nogil:
    # What lies in the padding. The pixels that stand there are one distance apart on each side: forwards, backwards, or
    # none.
    cdef:
        Py_ssize_t ic, begin, n, i, first, second
        int side
    if image.padding_mode == ZEROS:
        for ic in range(n_ic):
            clear_ends(slots + ic * ic_pitch, span.low, span.high, span.count + overhang)
        return
    for side in range(2):
        begin = span.high if side else 0
        n = (span.count if side else span.low) - begin
        if n > 0:
            i = span.first + begin * cols.step
            first = second = source_of(image.padding_mode, i, cols.extent)
            if n > 1:
                second = source_of(image.padding_mode, i + cols.step, cols.extent)
            gather_planes(
                image, slots + begin, ic_pitch, line + first * image.iw_stride, n_ic,
                (second - first) * image.iw_stride, n,
            )
    if overhang:
        for ic in range(n_ic):
            clear_ends(slots + ic * ic_pitch + span.count, 0, 0, overhang)


cdef inline void transpose_one_by_one(
    real *slots, Py_ssize_t ic_pitch, const real *line, Py_ssize_t stride, Py_ssize_t n_ic, Py_ssize_t n,
) noexcept nogil:
    cdef:
        Py_ssize_t j, ic
        const real *source
    for j in range(n):
        source = <const real *> (<const char *> line + j * stride)
        for ic in range(n_ic):
            slots[ic * ic_pitch + j] = source[ic]


cdef inline void transpose_few(
    f32 *slots, Py_ssize_t ic_pitch, const f32 *line, Py_ssize_t stride, Py_ssize_t n_ic, Py_ssize_t n,
) noexcept nogil:
    # Few channels or pixels, four by four. Two or three channels are read with what follows them, which the next pixel
    # shows to be in reach; the last pixel has none, and is not.
    cdef:
        Py_ssize_t last = n_ic < 4
        Py_ssize_t whole = n - last
        Py_ssize_t i, j, ic, pixel
    if whole < 4 or (last and not 0 < stride <= PAGE):
        transpose_one_by_one(slots, ic_pitch, line, stride, n_ic, n)
        return
    for j in range((whole + 3) // 4):
        pixel = min(j * 4, whole - 4)
        for i in range((n_ic + 3) // 4):
            ic = max(0, min(i * 4, n_ic - 4))
            transpose_quads_to(
                <const f32 *> (<const char *> line + pixel * stride) + ic, stride,
                <char *> (slots + ic * ic_pitch + pixel), ic_pitch * sizeof(f32), min(4, n_ic),
            )
    transpose_one_by_one(
        slots + whole, ic_pitch, <const f32 *> (<const char *> line + whole * stride), stride, n_ic, last,
    )


cdef inline void transpose_inside(
    real *slots, Py_ssize_t ic_pitch, const real *line, Py_ssize_t stride, Py_ssize_t n_ic, Py_ssize_t n,
) noexcept nogil:
    # Channels-last: neighbouring channels lie together, neighbouring pixels `stride` bytes apart. In blocks of whole
    # vectors, the last of which end with the channels, or the row, and may overlap those before them.
    cdef:
        Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
        Py_ssize_t width = lanes if n_ic >= lanes else 8
        Py_ssize_t height = 16 if lanes == 16 and n_ic >= 16 and n >= 16 else 8
        Py_ssize_t pitch = ic_pitch * sizeof(real)
        Py_ssize_t i, j, ic, pixel
        const real *source
        char *to
    if n_ic < width and real is f32:
        transpose_few(<f32 *> slots, ic_pitch, <const f32 *> line, stride, n_ic, n)
        return
    if n < 8 and real is f32:  # compiled by itself: what knows of few channels is faster for them
        transpose_few(<f32 *> slots, ic_pitch, <const f32 *> line, stride, n_ic, n)
        return
    if n < 8 or n_ic < width:
        transpose_one_by_one(slots, ic_pitch, line, stride, n_ic, n)
        return
    for j in range((n + height - 1) // height):
        pixel = min(j * height, n - height)
        for i in range((n_ic + width - 1) // width):
            ic = min(i * width, n_ic - width)
            source = <const real *> (<const char *> line + pixel * stride) + ic
            to = <char *> (slots + ic * ic_pitch + pixel)
            if height == 16:
                transpose16_to(<const f32v *> source, stride, to, pitch)
            elif width == lanes:
                transpose8_to(source, stride, to, pitch)
            else:
                transpose_octets_to(<const f32 *> source, stride, to, pitch)


cdef enum:
    WIDENED = 1024  # elements of one part: an eighth of a first level cache


cdef inline void widen_inside(
    f32 *slots, Py_ssize_t ic_pitch, const char *line, const Image *image, Py_ssize_t stride, Py_ssize_t n_ic,
    Py_ssize_t n,
) noexcept nogil:
    # Channels-last of another dtype: some pixels at a time are widened as they lie, with what is between them, and then
    # transposed (measured: layers take 0 to 26 % less time than element by element; with sums of 8 bytes, which have
    # half as many lanes, up to 20 % more).
    cdef:
        f32 part[WIDENED]
        Py_ssize_t step = stride // image.size
        Py_ssize_t at_once = 1 + (WIDENED - n_ic) // step
        Py_ssize_t k, few
    for k in range((n + at_once - 1) // at_once):
        few = min(at_once, n - k * at_once)
        gather_line(image, &part[0], line + k * at_once * stride, image.size, (few - 1) * step + n_ic)
        transpose_inside(slots + k * at_once, ic_pitch, <const f32 *> part, step * sizeof(f32), n_ic, few)


cdef inline void gather_row(
    real *row, Py_ssize_t ic_pitch, const char *line, const Image *image, const Axis *cols, const Span *known,
    Py_ssize_t n_ic, Py_ssize_t start, Py_ssize_t n, Py_ssize_t overhang,
) noexcept nogil:
    # One row of the image, all channels (or several rows of one, see `gather`): output columns [start, start + n), then
    # zeros for `overhang` more. `known` are the spans of the first KNOWN_SPANS segments.
    cdef:
        Py_ssize_t s, n_inside
        Py_ssize_t size = image.size
        Py_ssize_t stride = cols.step * image.iw_stride
        bint channels_last = is_regular(image) and n_ic > 1 and image.ic_stride == size and stride != size
        # Whether no more than half of what lies from pixel to pixel is between them.
        bint compact = stride % size == 0 and 0 < stride <= min(PAGE, 2 * n_ic * size) and n_ic <= WIDENED
        Span span
        real *slots
        const char *inside
        const char *first
    for s in range(cols.n_segments):
        span = known[s] if s < KNOWN_SPANS else span_of(cols, &cols.segments[s], start, n)
        slots = row + cols.segments[s].offset
        if span.low > 0 or span.high < span.count or overhang:
            gather_borders(image, slots, ic_pitch, line, n_ic, cols, &span, overhang)
        if span.high <= span.low:
            continue
        slots = slots + span.low
        n_inside = span.high - span.low
        inside = line + (span.first + span.low * cols.step) * image.iw_stride
        first = inside + channel_of(image, 0)
        if channels_last and image.widen == NULL:
            transpose_inside(slots, ic_pitch, <const real *> first, stride, n_ic, n_inside)
            continue
        if real is f32:
            if channels_last and compact:
                widen_inside(slots, ic_pitch, first, image, stride, n_ic, n_inside)
                continue
        gather_planes(image, slots, ic_pitch, inside, n_ic, stride, n_inside)


cdef inline void gather(
    real *strip, Py_ssize_t row_pitch, Py_ssize_t ic_pitch,
    const Image *image, const Axis *rows, const Axis *cols, Py_ssize_t n_ic,
    Py_ssize_t oh_start, Py_ssize_t n_oh, Py_ssize_t ow_start, Py_ssize_t n_ow, Py_ssize_t overhang,
) noexcept nogil:
    # The strip of output rows [oh_start, oh_start + n_oh) and columns [ow_start, ow_start + n_ow). A vector may read
    # `overhang` slots past these.
    cdef:
        Py_ssize_t s, j, n, source, pitch, n_planes
        Span span
        Span known[KNOWN_SPANS]
        const Image *planes
        const char *line
        real *row
        Image lines = image[0]
    for s in range(min(cols.n_segments, KNOWN_SPANS)):
        known[s] = span_of(cols, &cols.segments[s], ow_start, n_ow)
    for s in range(rows.n_segments):
        span = span_of(rows, &rows.segments[s], oh_start, n_oh)
        row = strip + rows.segments[s].offset * row_pitch
        j = 0
        while j < span.count:
            source = source_of(image.padding_mode, span.first + j * rows.step, rows.extent)
            n = 1
            if source < 0:
                memset(row, 0, n_ic * ic_pitch * sizeof(real))
            else:
                planes, pitch, n_planes = image, ic_pitch, n_ic
                line = image.data + source * image.ih_stride
                if n_ic == 1 and span.low <= j < span.high - 1:
                    # Rows of a single channel that follow one another: as if they were channels of one row.
                    n = span.high - j
                    lines.ic = 0
                    lines.ic_stride = rows.step * image.ih_stride
                    lines.ic_pair = 2 * lines.ic_stride
                    planes, pitch, n_planes = &lines, row_pitch, n
                    line = line + channel_of(image, 0)
                gather_row(row, pitch, line, planes, cols, known, n_planes, ow_start, n_ow, overhang)
            row = row + n * row_pitch
            j = j + n


cdef inline bint is_dense(const Image *image) noexcept nogil:
    # Whether `gather_dense` serves: neighbouring pixels of the dtype of the sums, zeros around.
    return (
        image.widen == NULL and image.iw_stride == image.size and image.padding_mode == ZEROS and is_regular(image)
    )


cdef inline void gather_segment(
    real *row, Py_ssize_t row_pitch, Py_ssize_t ic_pitch, const char *line, Py_ssize_t row_step, Py_ssize_t ic_stride,
    const Axis *cols, Py_ssize_t segment, const Span *part, Py_ssize_t n_rows, Py_ssize_t n_ic, Py_ssize_t end,
) noexcept nogil:
    # One segment of the strip's columns, from `line` on, of which every slot up to `end` is wanted.
    cdef:
        Py_ssize_t _j, ic
        Py_ssize_t low = part.low
        Py_ssize_t n = part.high - low
        real *slots = row + cols.segments[segment].offset
        Py_ssize_t step = cols.step * <Py_ssize_t> sizeof(real)
        const char *inside = line + part.first * <Py_ssize_t> sizeof(real) + low * step
    for _j in range(n_rows):
        if n == end and cols.step == 1:
            copy_rows(slots + low, ic_pitch, <const real *> inside, ic_stride, n_ic, n)
        else:
            for ic in range(n_ic):
                if n < end:
                    clear_ends(slots + ic * ic_pitch, low, part.high, end)
                copy_every(slots + ic * ic_pitch + low, <const real *> (inside + ic * ic_stride), step, n)
        slots = slots + row_pitch
        inside = inside + row_step


cdef inline void clear_rows(real *row, Py_ssize_t row_pitch, Py_ssize_t n_rows, Py_ssize_t n) noexcept nogil:
    # The first n slots of each: others hold other channels.
    cdef Py_ssize_t _j
    for _j in range(n_rows):
        memset(row, 0, n * sizeof(real))
        row = row + row_pitch


cdef struct Phases:
    # All segments of a strip's columns, one for each remainder of the stride, sorted by their first pixel in the image.
    Py_ssize_t first      # the first of these pixels
    Py_ssize_t n          # slots that every segment has in the image
    Py_ssize_t slots[8]  # where those of each phase begin


cdef inline bint phases_of(const Axis *cols, const Span *spans, Phases *phases) noexcept nogil:
    # Whether these segments can be gathered at once: not where two taps of one remainder have a segment each.
    cdef:
        Py_ssize_t k, phase
        Py_ssize_t seen = 0
    phases.first = spans[0].first + spans[0].low * cols.step
    phases.n = spans[0].high - spans[0].low
    for k in range(1, cols.n_segments):
        phases.first = min(phases.first, spans[k].first + spans[k].low * cols.step)
        phases.n = min(phases.n, spans[k].high - spans[k].low)
    for k in range(cols.n_segments):
        phase = spans[k].first + spans[k].low * cols.step - phases.first
        if phase >= cols.step or seen & (1 << phase):
            return False
        seen |= 1 << phase
        phases.slots[phase] = cols.segments[k].offset + spans[k].low
    return True


cdef inline void gather_phases(
    const int S, real *row, Py_ssize_t row_pitch, Py_ssize_t ic_pitch, const char *line, Py_ssize_t row_step,
    Py_ssize_t ic_stride, const Axis *cols, const Span *spans, const Phases *phases, Py_ssize_t n_rows, Py_ssize_t n_ic,
    Py_ssize_t overhang, bint cleared,
) noexcept nogil:
    # All segments at once: every pixel is read once, in whole vectors.
    cdef:
        Py_ssize_t _j, ic, k, low, n
        real *slots
        const real *inside
        const real *rest
    for _j in range(n_rows):
        for ic in range(n_ic):
            slots = row + ic * ic_pitch
            inside = <const real *> (line + ic * ic_stride)
            if not cleared:
                for k in range(S):
                    clear_ends(slots + cols.segments[k].offset, spans[k].low, spans[k].high, spans[k].count + overhang)
            copy_phases(S, slots, phases.slots, inside + phases.first, phases.n)
            for k in range(S):
                low = spans[k].low + phases.n
                n = spans[k].high - low
                if n:
                    rest = inside + spans[k].first + low * S
                    copy_every(slots + cols.segments[k].offset + low, rest, S * sizeof(real), n)
        row = row + row_pitch
        line = line + row_step


cdef inline void gather_dense(
    real *strip, Py_ssize_t row_pitch, Py_ssize_t ic_pitch,
    const Image *image, const Axis *rows, const Axis *cols, Py_ssize_t n_ic,
    Py_ssize_t oh_start, Py_ssize_t n_oh, Py_ssize_t ow_start, Py_ssize_t n_ow, Py_ssize_t overhang, bint cleared,
) noexcept nogil:
    # `gather` for the ordinary case, in which a row takes little more time than it takes to copy. `cleared`: the zeros
    # are still there from the same pixels of another group.
    cdef:
        Py_ssize_t s, k
        Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
        Py_ssize_t row_step = rows.step * image.ih_stride
        Span span
        Span part
        Span parts[8]
        Phases phases
        bint at_once = False
        real *row
        const char *line
    if cols.step == cols.n_segments and (cols.step == 2 or cols.step == 4 or cols.step == 8):
        for k in range(cols.n_segments):
            parts[k] = span_of(cols, &cols.segments[k], ow_start, n_ow)
        at_once = phases_of(cols, parts, &phases) and phases.n >= lanes
    for s in range(rows.n_segments):
        span = span_of(rows, &rows.segments[s], oh_start, n_oh)
        row = strip + rows.segments[s].offset * row_pitch
        if not cleared:
            clear_rows(row, row_pitch, span.low, n_ic * ic_pitch)
            clear_rows(row + span.high * row_pitch, row_pitch, span.count - span.high, n_ic * ic_pitch)
        if span.high <= span.low:
            continue
        row = row + span.low * row_pitch
        line = image.data + channel_of(image, 0) + (span.first + span.low * rows.step) * image.ih_stride
        if at_once and cols.step == 2:
            gather_phases(
                2, row, row_pitch, ic_pitch, line, row_step, image.ic_stride, cols, parts, &phases,
                span.high - span.low, n_ic, overhang, cleared,
            )
        elif at_once and cols.step == 4:
            gather_phases(
                4, row, row_pitch, ic_pitch, line, row_step, image.ic_stride, cols, parts, &phases,
                span.high - span.low, n_ic, overhang, cleared,
            )
        elif at_once:
            gather_phases(
                8, row, row_pitch, ic_pitch, line, row_step, image.ic_stride, cols, parts, &phases,
                span.high - span.low, n_ic, overhang, cleared,
            )
        else:
            for k in range(cols.n_segments):
                part = span_of(cols, &cols.segments[k], ow_start, n_ow)
                gather_segment(
                    row, row_pitch, ic_pitch, line, row_step, image.ic_stride, cols, k, &part, span.high - span.low,
                    n_ic, part.high - part.low if cleared else part.count + overhang,
                )

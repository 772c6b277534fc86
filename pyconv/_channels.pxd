# Gather into a strip of channel vectors: strip[row][col][channel], padding in place.
#
# The channels of a pixel stay together, so rows and columns are those of the image: strides and dilations are left to
# the tile's offsets. Images stored as (N, H, W, C) are copied; those stored as (N, C, H, W) are transposed in
# registers. Where several output channels are made of each, the strip holds it once for each of them: to its tiles all
# kernels are of as many channels out as in.
#
#     a b c d     three each     a a a b b b c c c d d d

from libc.string cimport memcpy, memset

from pyconv._copy cimport copy_pixels
from pyconv._split cimport up_to
from pyconv._strip cimport (
    ZEROS, Axis, Image, Span, channel_of, gather_line, gather_lines, is_regular, source_of, span_of,
)
from pyconv._vector cimport (
    VECTOR_BYTES, f32, f32v, f64v, permute_f32, permute_f64, real, transpose8, vec, zeros_f32, zeros_f64,
)


cdef inline void gather_slot(
    real *channels, Py_ssize_t slot, const Image *image, const char *line, const Axis *cols, Py_ssize_t i,
    Py_ssize_t n_ch,
) noexcept nogil:
    # The channels of the pixel at coordinate i of the padded image.
    cdef Py_ssize_t c
    cdef Py_ssize_t source = source_of(image.padding_mode, i, cols.extent)
    if source < 0:
        memset(channels, 0, slot * sizeof(real))
        return
    line = line + source * image.iw_stride
    if is_regular(image):
        gather_line(image, channels, line + channel_of(image, 0), image.ic_stride, n_ch)
    else:
        for c in range(n_ch):
            gather_line(image, channels + c, line + channel_of(image, c), 0, 1)
    for c in range(n_ch, slot):
        channels[c] = 0


cdef inline void clear_vector(vec *channels, vec zeros) noexcept nogil:
    channels[0] = zeros


cdef inline void clear_last(real *channels, Py_ssize_t slot) noexcept nogil:
    # The last vector of a slot.
    if real is f32:
        clear_vector(<f32v *> (channels + slot) - 1, zeros_f32())
    else:
        clear_vector(<f64v *> (channels + slot) - 1, zeros_f64())


cdef inline void repeat_channels(
    real *slots, Py_ssize_t slot, const real *channels, Py_ssize_t channels_slot, Py_ssize_t n_pixels,
    Py_ssize_t repeats, Py_ssize_t skipped, Py_ssize_t n,
) noexcept nogil:
    # Each channel of a pixel in `repeats` lanes of its slot, but the first one in `skipped` fewer: n lanes, rounded up
    # to whole vectors; those past n repeat the last channel. A vector is read from where each vector's first lane comes
    # from, though it may not all be wanted. (Pixels of the row that this task did not gather are as they were.)
    cdef:
        Py_ssize_t VL = VECTOR_BYTES // sizeof(real)
        Py_ssize_t last = (skipped + n - 1) // repeats
        int of_f32[16]  # where each lane comes from, counted from the first
        long long of_f64[8]
        Py_ssize_t c = 0
        Py_ssize_t nth = skipped  # of the lanes of channel c
        Py_ssize_t _pixel, i, k, first
        const real *source
        real *to
    for k in range((n + VL - 1) // VL):
        first = c
        for i in range(VL):
            if real is f32:
                of_f32[i] = <int> (min(c, last) - first)
            else:
                of_f64[i] = min(c, last) - first
            nth = nth + 1
            if nth == repeats:
                c, nth = c + 1, 0
        source = channels + first
        to = slots + k * VL
        for _pixel in range(n_pixels):
            if real is f32:
                (<f32v *> to)[0] = permute_f32((<const f32v *> source)[0], of_f32)
            else:
                (<f64v *> to)[0] = permute_f64((<const f64v *> source)[0], of_f64)
            source = source + channels_slot
            to = to + slot


cdef inline void transpose_planes(
    real *slots, Py_ssize_t row_pitch, Py_ssize_t slot, const real *planes, Py_ssize_t plane_pitch,
    Py_ssize_t n_rows, Py_ssize_t n_cols, Py_ssize_t n_ch,
) noexcept nogil:
    # Neighbouring rows of planes, one plane for each of 8 channels or more, `plane_pitch` bytes apart: pixels are one
    # axis, transposed VL of them and 8 channels at a time. The last vector of pixels ends with them and may overlap the
    # one before, and so may the last 8 channels.
    cdef:
        Py_ssize_t VL = VECTOR_BYTES // sizeof(real)
        Py_ssize_t n = n_rows * n_cols
        Py_ssize_t used = up_to(VL, n_ch)
        Py_ssize_t i, k, j, c, start, row, col
        real *pixels[16]
        real block[8 * 16]
    for i in range((n + VL - 1) // VL):
        start = min(i * VL, n - VL)
        row = start // n_cols
        col = start - row * n_cols
        for k in range(VECTOR_BYTES // sizeof(real)):
            pixels[k] = slots + row * row_pitch + col * slot
            col = col + 1
            if col == n_cols:
                col = 0
                row = row + 1
        if used > n_ch:
            for k in range(VECTOR_BYTES // sizeof(real)):
                clear_last(pixels[k], used)
        for j in range((n_ch + 7) // 8):
            c = min(8 * j, n_ch - 8)
            transpose8(<const real *> (<const char *> planes + c * plane_pitch) + start, plane_pitch, block)
            for k in range(VECTOR_BYTES // sizeof(real)):
                memcpy(pixels[k] + c, block + 8 * k, 8 * sizeof(real))


cdef inline bint gather_inside_channels(
    real *slots, Py_ssize_t row_pitch, Py_ssize_t slot, const char *first, const Image *image,
    Py_ssize_t n_rows, Py_ssize_t n_cols, Py_ssize_t n_ch,
) noexcept nogil:
    # A rectangle of the image, in whole vectors where either channels or pixels are neighbours; False where channels
    # are not all one stride apart.
    cdef:
        Py_ssize_t VL = VECTOR_BYTES // sizeof(real)
        Py_ssize_t used = up_to(VL, n_ch)
        Py_ssize_t size = sizeof(real)
        Py_ssize_t _row, col
        bint own = image.widen == NULL
        bint planes = own and image.iw_stride == size and n_ch >= 8
    if not is_regular(image):
        return False
    first = first + channel_of(image, 0)
    if planes and image.ih_stride == n_cols * size and n_rows * n_cols >= VL:
        transpose_planes(slots, row_pitch, slot, <const real *> first, image.ic_stride, n_rows, n_cols, n_ch)
        return True
    for _row in range(n_rows):
        if planes and n_cols >= VL:
            transpose_planes(slots, row_pitch, slot, <const real *> first, image.ic_stride, 1, n_cols, n_ch)
        else:
            if used > n_ch:
                for col in range(n_cols):
                    clear_last(slots + col * slot, used)
            if own and image.ic_stride == size and n_ch >= VL:
                copy_pixels(slots, slot, <const real *> first, image.iw_stride, n_ch, n_cols)
            else:
                gather_lines(image, slots, slot, first, image.iw_stride, n_cols, image.ic_stride, n_ch)
        slots = slots + row_pitch
        first = first + image.ih_stride
    return True


cdef inline void gather_border_slots(
    real *slots, Py_ssize_t slot, const Image *image, const char *line, const Axis *cols, Py_ssize_t i, Py_ssize_t n,
    Py_ssize_t n_ch,
) noexcept nogil:
    # n slots from coordinate i of the padded image on.
    cdef Py_ssize_t j
    if image.padding_mode == ZEROS and (i + n <= 0 or i >= cols.extent):
        memset(slots, 0, n * slot * sizeof(real))
        return
    for j in range(n):
        gather_slot(slots + j * slot, slot, image, line, cols, i + j, n_ch)


cdef inline void gather_channels(
    real *strip, Py_ssize_t row_pitch, Py_ssize_t slot, const Image *image, const Axis *rows, const Axis *cols,
    Py_ssize_t n_ch, Py_ssize_t ih_start, Py_ssize_t n_ih, Py_ssize_t iw_start, Py_ssize_t n_iw,
) noexcept nogil:
    # A strip of `slot` channels for each pixel, strip[row][col][channel], with zeros past channel n_ch up to a whole
    # vector. Rows and columns are those of the image (both steps are 1).
    cdef:
        Py_ssize_t s, k, j, source, begin, end
        Span span
        Span part
        real *slots
        const char *line
        bint done  # whether the pixels inside the image are there
    for s in range(rows.n_segments):
        span = span_of(rows, &rows.segments[s], ih_start, n_ih)
        for k in range(cols.n_segments):
            part = span_of(cols, &cols.segments[k], iw_start, n_iw)
            slots = strip + rows.segments[s].offset * row_pitch + cols.segments[k].offset * slot
            done = False
            if span.high > span.low and part.high > part.low:
                line = image.data + (span.first + span.low) * image.ih_stride
                done = gather_inside_channels(
                    slots + span.low * row_pitch + part.low * slot, row_pitch, slot,
                    line + (part.first + part.low) * image.iw_stride, image,
                    span.high - span.low, part.high - part.low, n_ch,
                )
            for j in range(span.count):
                source = source_of(image.padding_mode, span.first + j, rows.extent)
                if source < 0:
                    memset(slots, 0, part.count * slot * sizeof(real))
                else:
                    line = image.data + source * image.ih_stride
                    begin = end = 0
                    if done and span.low <= j < span.high:
                        begin, end = part.low, part.high
                    gather_border_slots(slots, slot, image, line, cols, part.first, begin, n_ch)
                    gather_border_slots(
                        slots + end * slot, slot, image, line, cols, part.first + end, part.count - end, n_ch,
                    )
                slots = slots + row_pitch

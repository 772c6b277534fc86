# Gather into a strip of channel vectors: strip[row][col][channel], padding in place.
#
# The channels of a pixel stay together, so rows and columns are those of the image: strides and dilations are left to
# the tile's offsets. Images stored as (N, H, W, C) are copied; those stored as (N, C, H, W) are transposed in
# registers.

from libc.string cimport memcpy, memset

from pyconv._copy cimport copy_pixels
from pyconv._strip cimport Axis, Image, Run, pixel, run_of, source_of
from pyconv._vector cimport VECTOR_BYTES, real, transpose8


cdef inline void gather_slot(
    real *channels, Py_ssize_t slot, const pixel *tag, const Image *image, const char *line, const Axis *cols,
    Py_ssize_t i, Py_ssize_t n_ch,
) noexcept nogil:
    # The channels of the pixel at coordinate i of the padded image.
    cdef Py_ssize_t c
    cdef Py_ssize_t source = source_of(image.padding_mode, i, cols.extent)
    if source < 0:
        memset(channels, 0, slot * sizeof(real))
        return
    line = line + source * image.iw_stride
    for c in range(n_ch):
        channels[c] = <real> (<const pixel *> (line + c * image.ic_stride))[0]
    for c in range(n_ch, slot):
        channels[c] = 0


cdef inline void gather_planes(
    real *slots, Py_ssize_t row_pitch, Py_ssize_t slot, const real *planes, Py_ssize_t plane_pitch,
    Py_ssize_t n_rows, Py_ssize_t n_cols,
) noexcept nogil:
    # Whole rows of dense planes, one for each channel, `plane_pitch` bytes apart: pixels are one axis, transposed VL of
    # them and 8 channels at a time. The last vector of pixels ends with them and may overlap the one before.
    cdef:
        Py_ssize_t VL = VECTOR_BYTES // sizeof(real)
        Py_ssize_t n = n_rows * n_cols
        Py_ssize_t i, k, c, start, row, col
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
        for c in range(slot // 8):
            transpose8(<const real *> (<const char *> planes + 8 * c * plane_pitch) + start, plane_pitch, block)
            for k in range(VECTOR_BYTES // sizeof(real)):
                memcpy(pixels[k] + 8 * c, block + 8 * k, 8 * sizeof(real))


cdef inline void gather_channels(
    real *strip, Py_ssize_t row_pitch, Py_ssize_t slot, const pixel *tag,
    const Image *image, const Axis *rows, const Axis *cols,
    Py_ssize_t n_ch, Py_ssize_t ih_start, Py_ssize_t n_ih, Py_ssize_t iw_start, Py_ssize_t n_iw,
) noexcept nogil:
    # A strip of `slot` channels for each pixel, strip[row][col][channel], whole vectors, with zeros past channel n_ch.
    # Rows and columns are those of the image (both steps are 1). `tag` carries the image's dtype only.
    cdef:
        Py_ssize_t VL = VECTOR_BYTES // sizeof(real)
        Py_ssize_t s, k, j, i, source, begin, end
        Run run
        Run part
        real *row
        real *slots
        const char *line
        const char *inside
        bint planes = False  # whether `gather_planes` has been here
    for s in range(rows.n_segments):
        run = run_of(rows, &rows.segments[s], ih_start, n_ih)
        row = strip + rows.segments[s].offset * row_pitch
        if pixel is real:
            planes = (
                cols.n_segments == 1 and n_ch == slot and slot % 8 == 0 and image.iw_stride == sizeof(pixel)
                and image.ih_stride == cols.extent * <Py_ssize_t> sizeof(pixel)
                and (run.high - run.low) * cols.extent >= VL
            )
            if planes:
                part = run_of(cols, &cols.segments[0], iw_start, n_iw)
                planes = part.first + part.low == 0 and part.high - part.low == cols.extent
            if planes:
                gather_planes(
                    row + run.low * row_pitch + part.low * slot, row_pitch, slot,
                    <const real *> (image.data + (run.first + run.low) * image.ih_stride), image.ic_stride,
                    run.high - run.low, cols.extent,
                )
        for j in range(run.count):
            source = source_of(image.padding_mode, run.first + j, rows.extent)
            if source < 0:
                memset(row, 0, row_pitch * sizeof(real))
                row = row + row_pitch
                continue
            line = image.data + source * image.ih_stride
            for k in range(cols.n_segments):
                part = run_of(cols, &cols.segments[k], iw_start, n_iw)
                slots = row + cols.segments[k].offset * slot
                begin = end = 0  # the slots that are, or have been, filled in whole vectors
                if planes and run.low <= j < run.high:
                    begin, end = part.low, part.high
                elif pixel is real:
                    if n_ch == slot and image.ic_stride == sizeof(pixel) and part.high > part.low:
                        begin, end = part.low, part.high
                        inside = line + (part.first + begin) * image.iw_stride
                        copy_pixels(
                            slots + begin * slot, <const real *> inside, image.iw_stride, slot // VL, end - begin,
                        )
                for i in range(begin):
                    gather_slot(slots + i * slot, slot, tag, image, line, cols, part.first + i, n_ch)
                for i in range(end, part.count):
                    gather_slot(slots + i * slot, slot, tag, image, line, cols, part.first + i, n_ch)
            row = row + row_pitch

# Depthwise pixels that are read where the user has them (included by _kernels.pyx).
#
# Where a tile's vectors lie in the image as they would in a strip, neighbours along a row (DEPTHWISE) or along the
# channels (DEPTHWISE_CHANNELS), pixels whose taps all lie inside the image need none. A frame around them does:
#
#     +-----------------------+      strip: explicit zeros, every tap exists
#     |        strip          |
#     |   +---------------+   |
#     |   |   the image   |   |      the image itself, its own strides
#     |   +---------------+   |
#     |                       |
#     +-----------------------+
#
# A tile inside reads no pixel but those of its taps: no vector reaches past the row, no row past the image.

from pyconv._lowered cimport Call, Lowered, Task
from pyconv._strip cimport Axis
from pyconv._tile cimport DEPTHWISE, DEPTHWISE_CHANNELS

cdef enum:
    L1_SETS = 64
    L2_SETS = 1024


cdef struct Pixels:
    # Where the vectors of a rectangle of output pixels are read: a strip, or the image itself.
    const char *data                 # the first tap of the first pixel, of its first channel
    Py_ssize_t row_step, col_step    # from one output pixel to the next, in bytes
    const Py_ssize_t *offset         # of every tap, in bytes


cdef inline Py_ssize_t room(Py_ssize_t pitch, Py_ssize_t sets, Py_ssize_t ways) noexcept nogil:
    # How many lines that lie `pitch` bytes apart a cache has room for: few where that is a large power of two.
    while sets > 1 and pitch % (2 * CACHE_LINE) == 0:
        pitch = pitch // 2
        sets = sets // 2
    return sets * ways


cdef inline bint in_place(const Lowered *p, const Call *call) noexcept nogil:
    # Whether vectors may be read in the image, for outputs all of whose taps lie inside it, if there are any.
    cdef Py_ssize_t lines, rows
    if p.pixel != p.dtype or p.row_reach >= p.rows.extent or p.col_reach >= p.cols.extent:
        return False
    if p.role == DEPTHWISE:
        # Rows of the image that a tile reads are read again by the tile below, and its own are written meanwhile: the
        # second level cache should have room for twice as many (measured, 4096 pixels to a row: 3x1 to 7x1 kernels
        # gain 6 to 11 %, 11x1 to 31x1 lose 3 to 13 %; of 4000 pixels, 11x1 gain 31 %).
        rows = min(p.M[p.NV], p.oh)
        lines = p.kh + (rows - 1) * p.sh + rows
        return (
            p.sw == 1 and call.x_stride[3] == p.pixel_bytes
            and 2 * lines <= room(p.dh * call.x_stride[2], L2_SETS, p.l2_ways)
        )
    if p.role != DEPTHWISE_CHANNELS or call.x_pair != 2 * p.pixel_bytes:
        return False
    # Pixels lie as many bytes apart as there are channels. Half of those of a tile at least should find room in the
    # first level cache (measured: 1.5 times too many still gain 1.16, three times too many take 1.3).
    lines = p.kh * ((min(p.M[1], p.ow) - 1) * p.sw + p.col_reach + 1)
    return lines <= 2 * room(call.x_stride[3], L1_SETS, p.l1_ways)


cdef inline void inner_pixels(
    const Axis *axis, Py_ssize_t stride, Py_ssize_t reach, Py_ssize_t start, Py_ssize_t n,
    Py_ssize_t *low, Py_ssize_t *high,
) noexcept nogil:
    # Of the output positions [start, start + n), those all of whose taps lie inside the image: [low, high).
    low[0] = min(max(start, (axis.pad + stride - 1) // stride), start + n)
    high[0] = start
    if axis.extent + axis.pad > reach:
        high[0] = min(start + n, (axis.extent + axis.pad - 1 - reach) // stride + 1)
    high[0] = max(low[0], high[0])


cdef inline Py_ssize_t extent(Py_ssize_t n, Py_ssize_t stride, Py_ssize_t reach) noexcept nogil:
    # Of the pixels that n neighbouring outputs read.
    return (n - 1) * stride + reach + 1 if n else 0


cdef inline Task rectangle(
    const Task *t, Py_ssize_t oh_start, Py_ssize_t oh_end, Py_ssize_t ow_start, Py_ssize_t ow_end,
) noexcept nogil:
    # The task t for the output pixels of [oh_start, oh_end) x [ow_start, ow_end).
    cdef Task part = t[0]
    part.oh_start, part.n_oh = oh_start, oh_end - oh_start
    part.ow_start, part.n_ow = ow_start, ow_end - ow_start
    return part


cdef struct Framed:
    Task inner
    Task frame[4]  # each may be empty


cdef inline bint frame_of(const Lowered *p, const Task *t, Py_ssize_t width, Framed *framed) noexcept nogil:
    # A task in rectangles, none that is not empty narrower than `width`; False where it is not worth it: the frame
    # should be at most half of the strip that it saves.
    cdef:
        Py_ssize_t top, bottom, left, right, rows, slots
        Py_ssize_t oh_end = t.oh_start + t.n_oh
        Py_ssize_t ow_end = t.ow_start + t.n_ow
    inner_pixels(&p.rows, p.sh, p.row_reach, t.oh_start, t.n_oh, &top, &bottom)
    inner_pixels(&p.cols, p.sw, p.col_reach, t.ow_start, t.n_ow, &left, &right)
    if left > t.ow_start:
        left = max(left, t.ow_start + width)
    if right < ow_end:
        right = min(right, ow_end - width)
    if bottom <= top or right - left < width:
        return False
    rows = extent(bottom - top, p.sh, p.row_reach)
    slots = (
        extent(top - t.oh_start, p.sh, p.row_reach) + extent(oh_end - bottom, p.sh, p.row_reach)
    ) * extent(t.n_ow, p.sw, p.col_reach) + rows * (
        extent(left - t.ow_start, p.sw, p.col_reach) + extent(ow_end - right, p.sw, p.col_reach)
    )
    framed.frame[0] = rectangle(t, t.oh_start, top, t.ow_start, ow_end)
    framed.frame[1] = rectangle(t, bottom, oh_end, t.ow_start, ow_end)
    framed.frame[2] = rectangle(t, top, bottom, t.ow_start, left)
    framed.frame[3] = rectangle(t, top, bottom, right, ow_end)
    framed.inner = rectangle(t, top, bottom, left, right)
    return 2 * slots <= extent(t.n_oh, p.sh, p.row_reach) * extent(t.n_ow, p.sw, p.col_reach)


cdef inline Pixels pixels_in_image(
    const Lowered *p, const Call *call, const Image *image, const Task *t, Py_ssize_t channel,
) noexcept nogil:
    # Those of a task all of whose taps lie in the image, from this channel of its on.
    cdef Pixels pixels
    pixels.row_step = p.sh * image.ih_stride
    pixels.col_step = p.sw * image.iw_stride
    pixels.offset = call.offset
    pixels.data = (
        image.data + channel_of(image, channel)
        + (t.oh_start * p.sh - p.rows.pad) * image.ih_stride + (t.ow_start * p.sw - p.cols.pad) * image.iw_stride
    )
    return pixels

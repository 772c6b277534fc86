# Pixels that are read where the user has them (included by _kernels.pyx).
#
# Under a 1x1 kernel nothing need be gathered: vectors of pixels serve where pixels are neighbours, scalars, which may
# lie apart (_tile.pxd: APART), where channels are.
#
# Where a depthwise tile's vectors lie in the image as they would in a strip, neighbours along a row (DEPTHWISE) or
# along the channels (DEPTHWISE_CHANNELS), pixels whose taps all lie inside the image need none. A frame around them
# does. Where it would be most of the image, as around dilated taps, channels go through the rectangles whose pixels
# have the same taps inside the image, and find a vector of zeros for each of the others.
#
#     +-----------------------+          +-------+-------+-------+
#     |        strip          |          |   1   |   2   |   3   |
#     |   +---------------+   |          +-------+-------+-------+
#     |   |   the image   |   |          |   4   |   5   |   6   |
#     |   +---------------+   |          +-------+-------+-------+
#     |                       |          |   7   |   8   |   9   |
#     +-----------------------+          +-------+-------+-------+
#
# A tile reads no pixel but those of its taps: no vector reaches past the row, no row past the image.

from pyconv._lowered cimport Call, Lowered, Task
from pyconv._split cimport size_of
from pyconv._strip cimport ZEROS, Axis, Image, channel_of
from pyconv._tile cimport DEPTHWISE, DEPTHWISE_CHANNELS, OC_VECTOR, OW_VECTOR
from pyconv._vector cimport FUSED

cdef enum:
    L1_SETS = 64
    L2_SETS = 1024
    # Taps that a kernel may have in rectangles, and how many pixels these should have on average: at borders one pixel
    # wide tiles are of few pixels and take as long as others.
    MOST_TAPS = 64
    LEAST_PIXELS = 64


cdef inline Py_ssize_t room(Py_ssize_t pitch, Py_ssize_t sets, Py_ssize_t ways) noexcept nogil:
    # How many lines that lie `pitch` bytes apart a cache has room for: few where that is a large power of two.
    while sets > 1 and pitch % (2 * CACHE_LINE) == 0:
        pitch = pitch // 2
        sets = sets // 2
    return sets * ways


cdef inline bint in_place(const Lowered *p, const Call *call) noexcept nogil:
    # Whether pixels may be read in the image, as far as strides and sets of the caches go: points, where the plan would
    # have it; those of depthwise tiles whose taps lie inside it.
    cdef Py_ssize_t lines, rows
    if p.pixel != p.dtype:
        return False
    if p.role == OW_VECTOR:
        # A tile's lines of all channels should find room in the first level cache, half of them at least (measured: 32
        # times as many take 20 % more time than gathering them).
        return (
            p.reads_image and call.x_stride[3] == p.pixel_bytes and call.x_pair == 2 * call.x_stride[1]
            and p.icg <= 2 * room(call.x_stride[1], L1_SETS, p.l1_ways)
        )
    if p.role == OC_VECTOR:
        # A tile reads each of its pixels from a line that it comes back to for the next channels: the first level cache
        # should have room for them, and for a line of something else.
        lines = p.M[size_of(&p.oc_split, p.oc_split.parts - 1)]
        return (
            FUSED and p.reads_image and call.x_stride[1] == p.pixel_bytes and call.x_pair == 2 * p.pixel_bytes
            and call.x_stride[3] > p.pixel_bytes and lines < room(p.sw * call.x_stride[3], L1_SETS, p.l1_ways)
        )
    if p.role == DEPTHWISE:
        if p.row_reach >= p.rows.extent or p.col_reach >= p.cols.extent:
            return False
        # Rows of the image that a tile reads are read again by the tile below, and its own are written meanwhile: the
        # second level cache should have room for twice as many (measured, 4096 pixels to a row: 3x1 to 7x1 kernels
        # gain 6 to 11 %, 11x1 to 31x1 lose 3 to 13 %; of 4000 pixels, 11x1 gain 31 %).
        rows = min(p.M[p.NV], p.oh)
        lines = p.kh + (rows - 1) * p.sh + rows
        return (
            p.sw == 1 and call.x_stride[3] == p.pixel_bytes
            and 2 * lines <= room(p.dh * call.x_stride[2], L2_SETS, p.l2_ways)
        )
    # The image has each channel once.
    if p.role != DEPTHWISE_CHANNELS or p.repeats > 1 or call.x_pair != 2 * p.pixel_bytes:
        return False
    # Rectangles may begin outside the image: not so far that addresses would not be numbers.
    if (
        p.rows.pad + p.oh * p.sh + p.row_reach > 8 * p.rows.extent
        or p.cols.pad + p.ow * p.sw + p.col_reach > 8 * p.cols.extent
    ):
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


cdef struct Stretch:
    # Output positions [start, end) of an axis whose taps inside the image are [low, high).
    Py_ssize_t start, end, low, high


cdef inline Stretch stretch_of(
    const Axis *axis, Py_ssize_t n_taps, Py_ssize_t stride, Py_ssize_t dilation, Py_ssize_t start, Py_ssize_t end,
) noexcept nogil:
    # From `start` on, as long as can be, to `end` at most.
    cdef:
        Stretch s
        Py_ssize_t low, high
    s.start, s.end = start, start + 1
    taps_inside(axis, n_taps, stride, dilation, start, &s.low, &s.high)
    while s.end < end:
        taps_inside(axis, n_taps, stride, dilation, s.end, &low, &high)
        if low != s.low or high != s.high:
            break
        s.end += 1
    return s


cdef inline Stretch rows_from(const Lowered *p, const Task *t, Py_ssize_t row) noexcept nogil:
    return stretch_of(&p.rows, p.kh, p.sh, p.dh, row, t.oh_start + t.n_oh)


cdef inline Stretch cols_from(const Lowered *p, const Task *t, Py_ssize_t col) noexcept nogil:
    return stretch_of(&p.cols, p.kw, p.sw, p.dw, col, t.ow_start + t.n_ow)


cdef inline bint may_have_rectangles(const Lowered *p) noexcept nogil:
    return p.padding_mode == ZEROS and p.kh * p.kw <= MOST_TAPS and p.icg == 1


cdef inline bint has_large_rectangles(const Lowered *p, const Task *t) noexcept nogil:
    # Whether it takes less time to go through a task in rectangles than to gather it: if the strip has half as many
    # pixels again as the image (measured, 33x33 pixels: dilated by 4, 1.5 times as many, 12 to 27 % less; by 12, three
    # times as many, 40 to 60 % less; by 2, 1.3 times as many, 2 to 10 % more).
    cdef:
        Py_ssize_t n_rows = 0
        Py_ssize_t n_cols = 0
        Py_ssize_t row = t.oh_start
        Py_ssize_t col = t.ow_start
    while row < t.oh_start + t.n_oh:
        row = rows_from(p, t, row).end
        n_rows += 1
    while col < t.ow_start + t.n_ow:
        col = cols_from(p, t, col).end
        n_cols += 1
    return (
        n_rows * n_cols * LEAST_PIXELS <= t.n_oh * t.n_ow
        and 2 * extent(t.n_oh, p.sh, p.row_reach) * extent(t.n_ow, p.sw, p.col_reach)
        >= 3 * t.n_oh * p.sh * t.n_ow * p.sw
    )


cdef inline Pixels pixels_in_image(
    const Lowered *p, const Call *call, const Image *image, const Task *t, Py_ssize_t channel,
) noexcept nogil:
    # Those of a task, from this channel of its on: scalars, or vectors of pixels, all of whose taps lie in the image.
    cdef Pixels pixels
    pixels.row_step = p.sh * image.ih_stride
    pixels.col_step = p.sw * image.iw_stride
    pixels.ic_step = image.ic_stride
    pixels.panel_step = 0
    pixels.offset, pixels.inside = call.offset, NULL
    pixels.data = (
        image.data + channel_of(image, channel)
        + (t.oh_start * p.sh - p.rows.pad) * image.ih_stride + (t.ow_start * p.sw - p.cols.pad) * image.iw_stride
    )
    return pixels

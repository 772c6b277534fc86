# The loop nests around the tiles of channel vectors (included by _kernels.pyx).
#
# Where channels are neighbours in the image, pixels whose taps all lie inside it are read where they are, and only a
# frame around them goes by way of a strip:
#
#     +-----------------------+      strip: explicit zeros, every tap exists
#     |        strip          |
#     |   +---------------+   |
#     |   |   the image   |   |      the image itself, its own strides
#     |   +---------------+   |
#     |                       |
#     +-----------------------+

from pyconv._lowered cimport Call, Lowered, Task
from pyconv._split cimport Split, size_of, split_by, start_of
from pyconv._strip cimport Axis, Image, channel_of
from pyconv._tile cimport DEPTHWISE_CHANNELS
from pyconv._vector cimport VECTOR_BYTES, real

cdef enum:
    PAGE = 4096


cdef inline bint in_place(const Lowered *p, const Call *call) noexcept nogil:
    # Whether channel vectors may be read in the image itself. Pixels lie as many bytes apart as there are channels, and
    # where these share a large power of two with a page, few sets of the first level cache hold all of them: half of a
    # tile's at least should find room (measured: 1.5 times too many still gain 1.16, three times too many take 1.3).
    cdef:
        Py_ssize_t pitch = call.x_stride[3]
        Py_ssize_t sets = PAGE // CACHE_LINE
        Py_ssize_t lines = p.kh * ((min(p.M[1], p.ow) - 1) * p.sw + p.col_reach + 1)
    if p.role != DEPTHWISE_CHANNELS or p.pixel != p.dtype or call.x_pair != 2 * p.pixel_bytes:
        return False
    while sets > 1 and pitch % (2 * CACHE_LINE) == 0:
        pitch = pitch // 2
        sets = sets // 2
    return lines <= 2 * sets * p.l1_ways


cdef struct Pixels:
    # Where the channel vectors of a rectangle of output pixels are read: a strip, or the image itself.
    const char *data                 # the first tap of the first pixel, of channel 0
    Py_ssize_t row_step, col_step    # from one output pixel to the next, in bytes
    const Py_ssize_t *offset         # of every tap, in bytes


cdef inline void multiply_channels(
    const Lowered *p, const Call *call, const Task *t, Pass *q, const Pixels *pixels, const real *group, real *c,
) noexcept nogil:
    # Vectors of channels in several pixels times vectors of weights: the blocks [t.block_begin, t.block_end) of the
    # output pixels of t. A band of rows at a time, so that its lines are still at hand for the next of its rows.
    cdef:
        Py_ssize_t VL = VECTOR_BYTES // sizeof(real)
        Py_ssize_t size = sizeof(real)
        Py_ssize_t block, oc, lanes, begin, end, row, i, col, m, count
        Py_ssize_t n_rows = t.n_oh
        Py_ssize_t n_cols = t.n_ow
        Py_ssize_t row_step = pixels.row_step
        Py_ssize_t col_step = pixels.col_step
        Py_ssize_t out_row = call.out_stride[2]
        Py_ssize_t out_col = call.out_stride[3]
        bint direct = call.out_stride[1] == size and not call.apart
        # Rows that follow each other in the output as pixels do are scattered as one.
        bint flat = out_row == n_cols * out_col
        Split tiles
        const real *bias
        const real *weights
        const char *source
        char *out
    if direct and n_cols < min(n_rows, p.M[1]):  # a narrow border: tiles run down its columns
        n_rows, n_cols = n_cols, n_rows
        row_step, col_step = col_step, row_step
        out_row, out_col = out_col, out_row
    tiles = split_by(n_cols, p.M[1])
    q.taps.offset = pixels.offset
    begin = 0
    while begin < n_rows:
        end = min(n_rows, begin + (p.band if direct or flat else 1))
        for block in range(t.block_begin, t.block_end):
            oc = block * VL
            lanes = min(VL, p.ocg - oc)
            bias = group + block * p.unit_pitch
            weights = bias + VL
            out = output_of(p, call, t, oc, 0, 0) + begin * out_row
            source = pixels.data + (block - t.block_begin) * VECTOR_BYTES + begin * row_step
            col = 0
            for i in range(tiles.parts):
                m = size_of(&tiles, i)
                for row in range(end - begin):
                    if direct and lanes == VL:
                        run_channels(
                            <int> m, <const real *> (source + row * row_step), col_step, weights, &q.taps, bias,
                            out + row * out_row + col * out_col, out_col,
                        )
                    else:
                        run_channels(
                            <int> m, <const real *> (source + row * row_step), col_step, weights, &q.taps, bias,
                            <char *> (c + (row * n_cols + col) * VL), VECTOR_BYTES,
                        )
                source = source + m * col_step
                col = col + m
            if direct and lanes < VL:
                for row in range(end - begin):
                    store_tile(
                        q.result, c + row * n_cols * VL, n_cols, n_cols, lanes, VL, out + row * out_row, out_col, size,
                    )
            if not direct:
                count = (end - begin) * n_cols
                store_channels(call, q.result, c, count, count, lanes, VL, out, out_col, call.out_stride[1])
        begin = end


cdef void multiply_strip_channels(
    const Lowered *p, const Call *call, const Task *t, Pass *q, const Image *image, real *strip, const real *group,
    real *c,
) noexcept nogil:
    # By way of a strip for each few blocks of channels; nothing where t has no pixels.
    cdef:
        Py_ssize_t VL = VECTOR_BYTES // sizeof(real)
        Py_ssize_t k
        Split slots = split_by(t.block_end - t.block_begin, p.slot // VL)
        Pixels pixels
        Task part = t[0]
        Image planes = image[0]
    if t.n_oh == 0 or t.n_ow == 0:
        return
    pixels.data = <const char *> strip
    pixels.row_step = p.sh * p.row_pitch * <Py_ssize_t> sizeof(real)
    pixels.col_step = p.sw * p.slot * <Py_ssize_t> sizeof(real)
    pixels.offset = p.offset
    for k in range(slots.parts):
        part.block_begin = t.block_begin + start_of(&slots, k)
        part.block_end = part.block_begin + size_of(&slots, k)
        planes.ic = image.ic + part.block_begin * VL
        gather_pixels(p, strip, &planes, &part, min(part.block_end * VL, p.ocg) - part.block_begin * VL, False)
        multiply_channels(p, call, &part, q, &pixels, group, c)


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


cdef inline void multiply_dc(
    const Lowered *p, const Call *call, const Task *t, Pass *q, const Image *image, real *strip, const real *group,
    real *c,
) noexcept nogil:
    # Where channels are neighbours, pixels whose taps all lie inside the image are read where they are, if there are
    # any; a frame of up to four rectangles around them goes by way of the strip, and so does the last block if it is no
    # whole vector.
    cdef:
        Py_ssize_t VL = VECTOR_BYTES // sizeof(real)
        Py_ssize_t top, bottom, left, right, rows, framed
        Py_ssize_t end = min(t.block_end, p.ocg // VL)
        Py_ssize_t oh_end = t.oh_start + t.n_oh
        Py_ssize_t ow_end = t.ow_start + t.n_ow
        Pixels pixels
        Task frame
        Task part = t[0]
    inner_pixels(&p.rows, p.sh, p.row_reach, t.oh_start, t.n_oh, &top, &bottom)
    inner_pixels(&p.cols, p.sw, p.col_reach, t.ow_start, t.n_ow, &left, &right)
    rows = extent(bottom - top, p.sh, p.row_reach)
    framed = (
        extent(top - t.oh_start, p.sh, p.row_reach) + extent(oh_end - bottom, p.sh, p.row_reach)
    ) * extent(t.n_ow, p.sw, p.col_reach) + rows * (
        extent(left - t.ow_start, p.sw, p.col_reach) + extent(ow_end - right, p.sw, p.col_reach)
    )
    # Worth it where the frame is at most half of the strip that it saves, and where the pixels of a tile do not keep
    # displacing each other.
    if (
        not call.in_place or end <= t.block_begin or bottom <= top or right <= left
        or 2 * framed > extent(t.n_oh, p.sh, p.row_reach) * extent(t.n_ow, p.sw, p.col_reach)
    ):
        multiply_strip_channels(p, call, t, q, image, strip, group, c)
        return
    if end < t.block_end:
        part.block_begin = end
        multiply_strip_channels(p, call, &part, q, image, strip, group, c)
        part.block_begin = t.block_begin
        part.block_end = end
    frame = rectangle(&part, t.oh_start, top, t.ow_start, ow_end)
    multiply_strip_channels(p, call, &frame, q, image, strip, group, c)
    frame = rectangle(&part, bottom, oh_end, t.ow_start, ow_end)
    multiply_strip_channels(p, call, &frame, q, image, strip, group, c)
    frame = rectangle(&part, top, bottom, t.ow_start, left)
    multiply_strip_channels(p, call, &frame, q, image, strip, group, c)
    frame = rectangle(&part, top, bottom, right, ow_end)
    multiply_strip_channels(p, call, &frame, q, image, strip, group, c)
    part = rectangle(&part, top, bottom, left, right)
    pixels.row_step = p.sh * image.ih_stride
    pixels.col_step = p.sw * image.iw_stride
    pixels.offset = call.offset
    pixels.data = (
        image.data + channel_of(image, part.block_begin * VL)
        + (top * p.sh - p.rows.pad) * image.ih_stride + (left * p.sw - p.cols.pad) * image.iw_stride
    )
    multiply_channels(p, call, &part, q, &pixels, group, c)

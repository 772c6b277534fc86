# The loop nests around the depthwise tiles (included by _kernels.pyx): vectors of pixels, and vectors of channels.
#
# Each goes through rectangles of output pixels whose taps lie in a strip or, where that is worth it, in the image
# itself and, those of the padding, in a vector of zeros (_in_place.pxi).

from libc.string cimport memset

from pyconv._lowered cimport Call, Lowered, Task
from pyconv._split cimport Split, as_large, size_of, split, split_by, start_of
from pyconv._strip cimport PAGE, Image
from pyconv._tile cimport DEPTHWISE, DEPTHWISE_CHANNELS, Grid
from pyconv._vector cimport VECTOR_BYTES, real

cdef enum:
    # Vectors of channels that a tile's pixels are summed for one after the other, four cache lines of each pixel
    # (measured, 3x3 with stride 1 and 2: 4 to 38 % less time than one vector; two, and more than these, gain less).
    TOGETHER = 4 * CACHE_LINE // VECTOR_BYTES


cdef void multiply_bands(
    const Lowered *p, const Call *call, const Task *t, const Pass *q, const Pixels *pixels, const real *bias, real *c,
    Py_ssize_t oc, const Runs *runs, Py_ssize_t row, Py_ssize_t n_rows, Py_ssize_t bands, Py_ssize_t again, Grid *grid,
) noexcept nogil:
    # Through a grid whose taps and row pitch are set; what else it has is set here. Bands of `n_rows` rows, every
    # `dh`-th; the first begins with `row`, each of the others `again` rows below the one before. In grids of all of
    # them; where rows have tiles of several widths, of no more than half of the first level cache holds, before the
    # next width.
    cdef:
        Py_ssize_t VL = VECTOR_BYTES // sizeof(real)
        Py_ssize_t size = sizeof(real)
        Py_ssize_t at_once = bands
        Py_ssize_t out_pitch = p.dh * call.out_stride[2]
        Py_ssize_t i, k, col, width
        int NV
        bint whole = t.n_ow >= VL and fits_output(call, t, 0, VL, size)
        const real *weights = bias + VL
        const real *source
        char *out
    if not whole:
        at_once = 1
    elif bands > 1 and runs.n > 1:  # of a row: its output, and its pixels
        at_once = max(1, p.l1_ways * PAGE // 2 // (n_rows * t.n_ow * size * (1 + p.rows.step * p.cols.step)))
    while bands > 0:
        source = <const real *> (pixels.data + row * pixels.row_step)
        out = output_of(p, call, t, oc, row, 0)
        for i in range(runs.n):
            NV, col = <int> runs.size[i], runs.first_pixel[i]
            width = NV * VL
            if whole or (p.dh == 1 and fits_output(call, t, row + n_rows - 1, width, size)):
                grid.n, grid.next_pixel, grid.next_out = runs.tiles[i], runs.step[i] * size, runs.step[i] * size
                grid.times = min(at_once, bands)
                grid.again_pixel, grid.again_out = again * pixels.row_step, again * call.out_stride[2]
                grid.pitch = out_pitch
                run_grid(
                    DEPTHWISE, p.rows.step, NV, <int> n_rows, source + col, weights, bias, out + col * size, grid,
                )
                continue
            grid.n = grid.times = 1
            grid.pitch = width * size
            for k in range(runs.tiles[i]):
                run_grid(DEPTHWISE, p.rows.step, NV, <int> n_rows, source + col, weights, bias, <char *> c, grid)
                store_tile(
                    q.result, c, n_rows, n_rows, min(width, t.n_ow), width, out + col * call.out_stride[3], out_pitch,
                    call.out_stride[3],
                )
                col = col + runs.step[i]
        row = row + at_once * again
        bands = bands - at_once


cdef inline void multiply_rows(
    const Lowered *p, const Call *call, const Task *t, Pass *q, const Pixels *pixels, const real *group, real *c,
) noexcept nogil:
    # Vectors of pixels in several rows times the weights of one channel. Rows that a dilation apart share their input:
    # a tile takes every `dh`-th row, from each of the first `dh` rows on. Bands of as many rows follow one another
    # downwards, and from one beginning to the next: the more of them go through grids.
    cdef:
        Py_ssize_t VL = VECTOR_BYTES // sizeof(real)
        Py_ssize_t oc, i, j, k, row, down, n_rows, n_bands, n_begin
        # Tiles no wider than the row, if it has a vector's pixels: none needs a buffer.
        Split tiles = split_by((t.n_ow + VL - 1) // VL, max(1, min(p.NV, t.n_ow // VL)))
        Runs runs = runs_of(&tiles, VL, t.n_ow)
        Split beginnings = split(t.n_oh, min(p.dh, t.n_oh))  # and how many rows each has
        Split bands
        Grid grid
        const real *bias
    q.taps.offset = pixels.offset
    memset(&grid, 0, sizeof(Grid))
    grid.taps, grid.row_pitch = &q.taps, p.dh * pixels.row_step
    for oc in range(t.block_begin, t.block_end):
        bias = part_of(p, call, t, oc, q, group)
        k = 0
        while k < beginnings.parts:
            n_begin = as_large(&beginnings, k)
            bands = split_by(size_of(&beginnings, k), p.M[p.NV])
            j = 0
            while j < bands.parts:
                n_bands = as_large(&bands, j)
                n_rows = size_of(&bands, j)
                row = k + start_of(&bands, j) * p.dh
                down = n_rows * p.dh
                if n_bands >= n_begin:
                    for i in range(n_begin):
                        multiply_bands(
                            p, call, t, q, pixels, bias, c, oc, &runs, row + i, n_rows, n_bands, down, &grid,
                        )
                else:
                    for i in range(n_bands):
                        multiply_bands(
                            p, call, t, q, pixels, bias, c, oc, &runs, row + i * down, n_rows, n_begin, 1, &grid,
                        )
                j = j + n_bands
            k = k + n_begin


cdef inline void multiply_strip_rows(
    const Lowered *p, const Call *call, const Task *t, Pass *q, const Image *image, real *strip, const real *group,
    real *c, bint cleared,
) noexcept nogil:
    # By way of a strip; nothing where t has no pixels.
    cdef Pixels pixels = pixels_in_strip(p, <const real *> strip)
    if t.n_oh == 0 or t.n_ow == 0:
        return
    gather_pixels(p, strip, image, t, 1, cleared)
    multiply_rows(p, call, t, q, &pixels, group, c)


cdef inline void multiply_dw(
    const Lowered *p, const Call *call, const Task *t, Pass *q, const Image *image, real *strip, const real *group,
    real *c, bint cleared,
) noexcept nogil:
    # Of one channel. The sides of a frame are as wide as a tile: narrower ones would take as long.
    cdef:
        Py_ssize_t i
        Pixels pixels
        Framed framed
    if not call.in_place or not frame_of(p, t, p.NV * p.lanes, &framed):
        multiply_strip_rows(p, call, t, q, image, strip, group, c, cleared)
        return
    for i in range(4):
        multiply_strip_rows(p, call, &framed.frame[i], q, image, strip, group, c, False)
    pixels = pixels_in_image(p, call, image, &framed.inner, 0)
    multiply_rows(p, call, &framed.inner, q, &pixels, group, c)


cdef inline void multiply_channels(
    const Lowered *p, const Call *call, const Task *t, Pass *q, const Pixels *pixels, const real *group, real *c,
) noexcept nogil:
    # Vectors of channels in several pixels times vectors of weights: the blocks [t.block_begin, t.block_end) of the
    # output pixels of t. A band of rows at a time, so that its lines are still at hand for the next of its rows; and
    # blocks that share lines of the output, and of the image, one after the other in each tile of pixels.
    cdef:
        Py_ssize_t VL = VECTOR_BYTES // sizeof(real)
        Py_ssize_t size = sizeof(real)
        Py_ssize_t block, oc, lanes, together, begin, end, row, i, col, m, count
        Py_ssize_t n_full = p.ocg // VL
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
        Grid grid
        const real *bias
        const real *weights
        const char *source
        char *out
        char *to
    if direct and n_cols < min(n_rows, p.M[1]):  # a narrow border: tiles run down its columns
        n_rows, n_cols = n_cols, n_rows
        row_step, col_step = col_step, row_step
        out_row, out_col = out_col, out_row
    tiles = split_by(n_cols, p.M[1])
    q.taps.offset, q.taps.inside = pixels.offset, pixels.inside
    memset(&grid, 0, sizeof(Grid))
    grid.taps, grid.row_pitch = &q.taps, col_step
    grid.next_pixel = grid.next_out = VECTOR_BYTES
    grid.next_weights = grid.next_start = p.unit_pitch * size
    grid.again_pixel = row_step
    begin = 0
    while begin < n_rows:
        end = min(n_rows, begin + (p.band if direct or flat else 1))
        block = t.block_begin
        while block < t.block_end:
            oc = block * VL
            lanes = min(VL, p.ocg - oc)
            # Where tiles end in a buffer it holds one block.
            together = max(1, min(TOGETHER, min(t.block_end, n_full) - block)) if direct else 1
            bias = group + block * p.unit_pitch
            weights = bias + VL
            out = output_of(p, call, t, oc, 0, 0) + begin * out_row
            source = pixels.data + (block - t.block_begin) * VECTOR_BYTES + begin * row_step
            grid.n, grid.times = together, end - begin
            col = 0
            for i in range(tiles.parts):
                m = size_of(&tiles, i)
                if direct and lanes == VL:
                    to, grid.pitch, grid.again_out = out + col * out_col, out_col, out_row
                else:
                    to, grid.pitch, grid.again_out = <char *> (c + col * VL), VECTOR_BYTES, n_cols * VECTOR_BYTES
                run_grid(DEPTHWISE_CHANNELS, p.sh, 1, <int> m, <const real *> source, weights, bias, to, &grid)
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
            block = block + together
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
        Pixels pixels = pixels_in_strip(p, <const real *> strip)
        Task part = t[0]
    if t.n_oh == 0 or t.n_ow == 0:
        return
    # This strip has the image's rows and columns, whatever the stride.
    pixels.row_step = pixels.row_step * p.sh
    pixels.col_step = pixels.col_step * p.sw * p.slot
    for k in range(slots.parts):
        part.block_begin = t.block_begin + start_of(&slots, k)
        part.block_end = part.block_begin + size_of(&slots, k)
        gather_channel_vectors(p, strip, image, &part)
        multiply_channels(p, call, &part, q, &pixels, group, c)


cdef inline void multiply_rectangles(
    const Lowered *p, const Call *call, const Task *t, Pass *q, const Image *image, const real *group, real *c,
) noexcept nogil:
    # Of whole vectors of channels, in the image itself.
    cdef:
        Py_ssize_t VL = VECTOR_BYTES // sizeof(real)
        Py_ssize_t offset[MOST_TAPS]
        Py_ssize_t inside[MOST_TAPS]
        real zeros[16]  # a vector, at least
        Py_ssize_t k
        Py_ssize_t row = t.oh_start
        Py_ssize_t col
        Stretch rows, cols
        Task part
        Pixels pixels
    memset(zeros, 0, sizeof(zeros))
    while row < t.oh_start + t.n_oh:
        rows = rows_from(p, t, row)
        col = t.ow_start
        while col < t.ow_start + t.n_ow:
            cols = cols_from(p, t, col)
            for k in range(p.kh * p.kw):
                offset[k], inside[k] = <Py_ssize_t> zeros, 0
                if rows.low <= k // p.kw < rows.high and cols.low <= k % p.kw < cols.high:
                    offset[k], inside[k] = call.offset[k], -1
            part = rectangle(t, rows.start, rows.end, cols.start, cols.end)
            pixels = pixels_in_image(p, call, image, &part, t.block_begin * VL)
            pixels.offset, pixels.inside = offset, inside
            multiply_channels(p, call, &part, q, &pixels, group, c)
            col = cols.end
        row = rows.end


cdef inline void multiply_dc(
    const Lowered *p, const Call *call, const Task *t, Pass *q, const Image *image, real *strip, const real *group,
    real *c,
) noexcept nogil:
    # Of all channels. The last block, if it is no whole vector, goes by way of the strip.
    cdef:
        Py_ssize_t i
        Py_ssize_t VL = VECTOR_BYTES // sizeof(real)
        Py_ssize_t end = min(t.block_end, p.ocg // VL)
        bint in_place = call.in_place and end > t.block_begin
        bint framed = False
        Pixels pixels
        Framed parts
        Task part = t[0]
    part.block_end = end
    if in_place:
        framed = frame_of(p, &part, 1, &parts)
        in_place = framed or (may_have_rectangles(p) and has_large_rectangles(p, t))
    if not in_place:
        multiply_strip_channels(p, call, t, q, image, strip, group, c)
        return
    if end < t.block_end:
        part.block_begin, part.block_end = end, t.block_end
        multiply_strip_channels(p, call, &part, q, image, strip, group, c)
        part.block_begin, part.block_end = t.block_begin, end
    if not framed:
        multiply_rectangles(p, call, &part, q, image, group, c)
        return
    for i in range(4):
        multiply_strip_channels(p, call, &parts.frame[i], q, image, strip, group, c)
    pixels = pixels_in_image(p, call, image, &parts.inner, t.block_begin * VL)
    multiply_channels(p, call, &parts.inner, q, &pixels, group, c)

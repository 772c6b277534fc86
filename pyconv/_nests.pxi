# The loop nests around the tiles of a strip: blocks of output channels, rows, tiles (included by _kernels.pyx).
#
# Every tile goes from the bias, or the sums so far, to the output, or to sums that wait for the next channels. What
# oc-vector sums, and the output has in another form, is held until there are some tiles of it: most often to be
# transposed. Under oc-vector a block goes through its channels in slices where its pixels and weights would not stay in
# the cache for the next tile. The depthwise tiles, which may do without a strip, have nests of their own:
# _depthwise_nests.pxi.

from libc.string cimport memset

from pyconv._ahead cimport LINE, Ahead, expect_nothing, expect_weights
from pyconv._lowered cimport Call, Lowered, Task, decode, is_split
from pyconv._split cimport Split, as_large, size_of, split_by, start_of
from pyconv._strip cimport PAGE, Image, channel_at
from pyconv._tile cimport OC_VECTOR, OW_VECTOR, Grid, Taps
from pyconv._vector cimport INTEGERS, VECTOR_BYTES, f32, real
from pyconv._widen cimport uint32, uint64

cdef enum:
    PAGES_AT_ONCE = 16  # of 48 to 96 that a first level translation buffer holds
    TILES_BEFORE = 2    # that pixels in the image are asked for (measured: 1 to 30 are no better)


cdef inline Py_ssize_t unit_of(const Lowered *p) noexcept nogil:
    # Pixels that the widths of tiles count: single ones, or vectors of them.
    return 1 if p.role == OC_VECTOR else p.lanes


cdef inline Split tiles_of(const Lowered *p, const Task *t, int NV, bint in_panels) noexcept nogil:
    # A row of a task in tiles. Blocks of fewer vectors of channels have longer tiles, unless these have panels.
    if p.role == OC_VECTOR:
        return split_by(t.n_ow, p.M[p.NV if in_panels else NV])
    return split_by((t.n_ow + p.lanes - 1) // p.lanes, NV)


cdef inline Py_ssize_t first_pixel(
    const Split *tiles, Py_ssize_t VL, Py_ssize_t n_ow, Py_ssize_t tile,
) noexcept nogil:
    # A tile that would reach past the row moves back to end with it, where it can: the pixels computed twice get the
    # same bits twice.
    return max(0, min(start_of(tiles, tile) * VL, n_ow - size_of(tiles, tile) * VL))


cdef struct Runs:
    # The tiles of a row: n runs of tiles of one size, in pixels or in vectors of them.
    int n
    Py_ssize_t size[3]
    Py_ssize_t tiles[3]
    Py_ssize_t first_tile[3]
    Py_ssize_t first_pixel[3]
    Py_ssize_t step[3]  # pixels from a tile to the next


cdef inline Runs runs_of(const Split *tiles, Py_ssize_t VL, Py_ssize_t n_ow) noexcept nogil:
    # Of vectors of VL pixels, or of single ones. Two sizes, and the last tile by itself where it moves back, unless it
    # is the second of its run: two are as far apart as they are.
    cdef:
        Runs runs
        Py_ssize_t n, width
        Py_ssize_t tile = 0
    runs.n = 0
    while tile < tiles.parts:
        runs.size[runs.n] = size_of(tiles, tile)
        runs.first_tile[runs.n] = tile
        runs.first_pixel[runs.n] = first_pixel(tiles, VL, n_ow, tile)
        width = runs.size[runs.n] * VL
        n = as_large(tiles, tile)
        runs.step[runs.n] = width
        if runs.first_pixel[runs.n] + n * width > n_ow:
            if n == 2:
                runs.step[runs.n] = first_pixel(tiles, VL, n_ow, tile + 1) - runs.first_pixel[runs.n]
            else:
                n = max(1, n - 1)
        runs.tiles[runs.n] = n
        runs.n += 1
        tile += n
    return runs


cdef struct Pixels:
    # Where the pixels of a rectangle of the output are read: a strip, or the image itself. In bytes.
    const char *data                 # the first tap of the first pixel, of its first channel
    Py_ssize_t row_step, col_step    # from one output pixel to the next
    Py_ssize_t ic_step               # from one channel to the next
    Py_ssize_t panel_step            # from the pixels of one tile to those of the next; 0 where rows are whole
    const Py_ssize_t *offset         # of every tap
    const Py_ssize_t *inside         # as in Taps


cdef inline Pixels pixels_in_strip(const Lowered *p, const real *strip) noexcept nogil:
    cdef Pixels pixels
    pixels.data = <const char *> strip
    pixels.row_step = p.row_pitch * <Py_ssize_t> sizeof(real)
    pixels.col_step = sizeof(real)
    pixels.ic_step = p.ic_pitch * <Py_ssize_t> sizeof(real)
    pixels.panel_step = p.panel_pitch * <Py_ssize_t> sizeof(real)
    pixels.offset, pixels.inside = p.offset, NULL
    return pixels


cdef inline Py_ssize_t first_of(const Pixels *pixels, const Runs *runs, Py_ssize_t i) noexcept nogil:
    # Where the run's pixels are in their row.
    return runs.first_tile[i] * pixels.panel_step if pixels.panel_step else runs.first_pixel[i] * pixels.col_step


cdef inline Py_ssize_t between(const Pixels *pixels, const Runs *runs, Py_ssize_t i) noexcept nogil:
    # From the pixels of a tile of the run to those of the next.
    return pixels.panel_step if pixels.panel_step else runs.step[i] * pixels.col_step


cdef inline void gather_panels(
    const Lowered *p, real *strip, const Image *image, const Task *t, Py_ssize_t n_ic, bint cleared,
) noexcept nogil:
    # The strip of a task; where tiles have panels, each its own. The channels of a few pages go through all panels
    # before the next, while these are at hand.
    cdef:
        Py_ssize_t i, k, ic, width, unit, at_once
        Split tiles
        Task part = t[0]
        Image planes = image[0]
    if p.panel_pitch == 0:
        gather_pixels(p, strip, image, t, n_ic, cleared)
        return
    unit = unit_of(p)
    tiles = tiles_of(p, t, p.NV, True)
    at_once = PAGES_AT_ONCE * max(1, 2 * PAGE // max(1, image.ic_pair, -image.ic_pair))
    for k in range((n_ic + at_once - 1) // at_once):
        ic = k * at_once
        planes.ic = image.ic + ic
        for i in range(tiles.parts):
            width = size_of(&tiles, i) * unit
            part.ow_start = t.ow_start + first_pixel(&tiles, unit, t.n_ow, i)
            part.n_ow = min(width, t.n_ow)
            part.overhang = width - part.n_ow
            gather_pixels(
                p, strip + i * p.panel_pitch + ic * p.ic_pitch, &planes, &part, min(at_once, n_ic - ic), cleared,
            )


cdef inline Ahead pixels_of(const Lowered *p, const Call *call, const Task *t) noexcept nogil:
    # What a task gathers, for the tiles before it to ask for; nothing where neither pixels nor channels follow one
    # another. Rows that do are one.
    cdef:
        Ahead ahead
        Py_ssize_t begin, end, n_bytes
        bint dense = call.x_stride[3] == p.pixel_bytes
        bint channels_last = (
            call.x_stride[1] == p.pixel_bytes and call.x_pair == 2 * p.pixel_bytes
            and call.x_stride[3] == p.icg * p.pixel_bytes
        )
    memset(&ahead, 0, sizeof(Ahead))
    ahead.tiles = p.tiles_per_task
    if p.ic_slice < p.icg or not (dense or channels_last):
        return ahead
    ahead.ic_stride = call.x_stride[1] if dense else LINE
    ahead.part_bytes = LINE if dense else p.icg * LINE
    begin = max(0, t.oh_start * p.rows.step - p.rows.pad)
    end = min(p.rows.extent, (t.oh_start + t.n_oh - 1) * p.rows.step - p.rows.pad + p.row_reach + 1)
    ahead.n_rows = max(0, end - begin)
    ahead.data = (
        call.x + t.n * call.x_stride[0] + t.g * p.icg * call.x_stride[1] + begin * call.x_stride[2]
    )
    begin = max(0, t.ow_start * p.cols.step - p.cols.pad)
    end = min(p.cols.extent, (t.ow_start + t.n_ow - 1) * p.cols.step - p.cols.pad + p.col_reach + 1)
    n_bytes = max(0, end - begin) * call.x_stride[3]
    if n_bytes == call.x_stride[2]:
        n_bytes = n_bytes * ahead.n_rows
        ahead.n_rows = min(1, ahead.n_rows)
    ahead.n_parts = (n_bytes + ahead.part_bytes - 1) // ahead.part_bytes
    ahead.data = ahead.data + begin * call.x_stride[3]
    ahead.row_stride = call.x_stride[2]
    if ahead.n_parts == 0:
        ahead.n_rows = 0
    ahead.per_tile = ahead.n_rows * ahead.n_parts
    return ahead


cdef inline Ahead pixels_after(
    const Lowered *p, const Call *call, const Task *t, Py_ssize_t index, bint in_image,
) noexcept nogil:
    # Those of the group of a task that comes next, or of the next task; none where it gathers the same pixels again, or
    # where tiles do not ask. Vectors of pixels in the image, mostly one row to a task, keep the tiles of the first
    # block of output channels waiting: these ask for them a little before, unless they are all of the task, and too
    # fast for that (measured: pixels from memory 3 to 10 %, in the cache 0 to 5 %; a single block of 2 channels would
    # take 1.5 times as long).
    cdef:
        Task next = t[0]
        Ahead nothing
        Ahead own
        Py_ssize_t tile_bytes = p.NV * p.lanes * p.pixel_bytes
    if in_image and p.role == OW_VECTOR and t.block_end - t.block_begin > 1:
        own = pixels_of(p, call, t)
        own.data = own.data + TILES_BEFORE * tile_bytes
        own.n_parts = (own.n_parts * own.part_bytes + tile_bytes - 1) // tile_bytes
        own.part_bytes = tile_bytes
        own.per_tile = own.tiles = 1
        return own
    if p.role == OC_VECTOR or p.role == OW_VECTOR:
        next.g = t.g + 1
        if t.n_g > 1:
            return pixels_of(p, call, &next)
        if index + 1 < p.n_tasks:
            next = decode(p, index + 1)
            if next.n != t.n or next.g != t.g or next.oh_start != t.oh_start or next.ow_start != t.ow_start:
                return pixels_of(p, call, &next)
    memset(&nothing, 0, sizeof(Ahead))
    nothing.tiles = 1
    return nothing


cdef struct Pass:
    # One pass of a task over the channels [ic_start, ic_start + taps.n_ic) of the reduction.
    Taps taps
    Py_ssize_t ic_start
    Py_ssize_t ic_first  # of a slice of the pass, from ic_start on
    Py_ssize_t n_before  # channels in a packed block before these
    Py_ssize_t low  # the kernel's first row that a tile sums
    int result  # dtype of the output
    bint first, last
    bint skips  # whether rows of the kernel that lie in the padding may be left out
    char *part_space  # for a block of weights, where these are not packed yet
    Py_ssize_t tile_pitch  # from one tile's sums to the next; 0 where none wait, and the same buffers serve all


cdef inline char *output_of(
    const Lowered *p, const Call *call, const Task *t, Py_ssize_t oc, Py_ssize_t row, Py_ssize_t col,
) noexcept nogil:
    return (
        call.out + t.n * call.out_stride[0] + channel_at(t.g * p.ocg + oc, call.out_pair, call.out_stride[1])
        + (t.oh_start + row) * call.out_stride[2] + (t.ow_start + col) * call.out_stride[3]
    )


cdef inline bint fits_output(
    const Call *call, const Task *t, Py_ssize_t row, Py_ssize_t width, Py_ssize_t size,
) noexcept nogil:
    # Whether a vector of `width` pixels from the start of a row on can be stored as it is. What reaches past the row
    # lands on the rows below it, where these follow at once: they are this task's and will be written after it.
    return not call.apart and call.out_stride[3] == size and (
        width <= t.n_ow or (call.out_stride[2] == t.n_ow * size and row * t.n_ow + width <= t.n_oh * t.n_ow)
    )


cdef inline bint holds_negative_zero(
    const real *first, Py_ssize_t pitch, Py_ssize_t rows, Py_ssize_t n,
) noexcept nogil:
    # In rows of n neighbours, `pitch` bytes apart. Compared as integers: -0.0 == 0.0.
    cdef:
        Py_ssize_t _row, i
        bint found = False
        const char *row = <const char *> first
    for _row in range(rows):
        for i in range(n):
            if real is f32:
                found |= (<const uint32 *> row)[i] == <uint32> 1 << 31
            else:
                found |= (<const uint64 *> row)[i] == <uint64> 1 << 63
        row = row + pitch
    return found


cdef inline void taps_inside(
    const Axis *axis, Py_ssize_t n_taps, Py_ssize_t stride, Py_ssize_t dilation, Py_ssize_t position,
    Py_ssize_t *low, Py_ssize_t *high,
) noexcept nogil:
    # Of an output position, the taps that lie inside the image: [low, high), none where that is empty.
    cdef Py_ssize_t first = position * stride - axis.pad  # the coordinate under the first tap
    low[0], high[0] = 0, n_taps
    if first < 0:
        low[0] = min(n_taps, (dilation - 1 - first) // dilation)
    if first + (n_taps - 1) * dilation >= axis.extent:
        high[0] = max(0, (axis.extent - first + dilation - 1) // dilation)


cdef inline void take_rows(const Lowered *p, Pass *q, Py_ssize_t oh) noexcept nogil:
    # The taps of output row oh: without the rows of the kernel that lie in a padding of zeros, above and below the
    # image, if the weights are finite, and if some are left. What is left out is +0.0 or -0.0, and to add that changes
    # one number: -0.0 (+0.0 where sums are rounded down: then nothing is left out). So the sum of all taps is that of
    # the others, or it is +0.0 where theirs is -0.0: `run_tiles_again` looks for that.
    cdef:
        Py_ssize_t low = 0
        Py_ssize_t high = p.kh
    if q.skips:
        taps_inside(&p.rows, p.kh, p.sh, p.dh, oh, &low, &high)
    if low >= high:
        low, high = 0, p.kh
    q.low = low
    q.taps.offset = p.offset + low * p.kw
    q.taps.n_taps = (high - low) * p.kw
    q.taps.n_skipped = (p.kh - high + low) * p.kw


cdef void run_tiles_again(
    int role, int NV, Py_ssize_t M, const real *strip, const real *weights, const real *start, char *out,
    const Pass *q, const Grid *grid,
) noexcept nogil:
    # With all taps, where those that were left out could have made a difference.
    cdef:
        Py_ssize_t i
        Py_ssize_t width = NV * (VECTOR_BYTES // <Py_ssize_t> sizeof(real))
        Taps taps = q.taps
        Grid one = grid[0]
    if INTEGERS:
        return
    taps.offset = taps.offset - q.low * taps.n_kw
    taps.n_taps = taps.n_taps + taps.n_skipped
    taps.n_skipped = 0
    one.taps = &taps
    one.n = 1
    for i in range(grid.n):
        if holds_negative_zero(<const real *> out, grid.pitch, M, width):
            run_tiles(
                role, NV, <int> M, <const real *> (<const char *> strip + i * grid.next_pixel), weights,
                <const real *> (<const char *> start + i * grid.next_start), out, &one,
            )
        out = out + grid.next_out


cdef inline void store_channels(
    const Call *call, int result, const real *c, Py_ssize_t rows, Py_ssize_t room, Py_ssize_t lanes, Py_ssize_t width,
    char *out, Py_ssize_t row_stride, Py_ssize_t lane_stride,
) noexcept nogil:
    # Rows of pixels, whose lanes are channels.
    if is_split(call):
        store_parts(c, rows, lanes, width, out, row_stride, call.out_pair)
    else:
        store_tile(result, c, rows, room, lanes, width, out, row_stride, lane_stride)


cdef inline void store_pixels(
    const Call *call, int result, Py_ssize_t oc, const real *c, Py_ssize_t rows, Py_ssize_t room, Py_ssize_t lanes,
    Py_ssize_t width, char *out, Py_ssize_t row_stride, Py_ssize_t lane_stride,
) noexcept nogil:
    # Rows of channels, from output channel `oc` on, whose lanes are pixels.
    cdef Py_ssize_t r
    if is_split(call):
        out = out - channel_at(oc, call.out_pair, row_stride)
        for r in range(rows):
            store_tile(
                result, c + r * width, 1, 1, lanes, width, out + channel_at(oc + r, call.out_pair, row_stride), 0,
                lane_stride,
            )
    else:
        store_tile(result, c, rows, room, lanes, width, out, row_stride, lane_stride)


cdef struct Target:
    # Where the tiles of a run end in the output: rows of scalars, whose lanes make vectors. Strides in bytes.
    Py_ssize_t oc    # the first tile's first channel
    char *out
    Py_ssize_t row_stride, lane_stride
    Py_ssize_t step  # from a tile's first row to the next one's
    Py_ssize_t room  # scalars from the first tile's on that have their tiles, now or later, in this task
    Py_ssize_t lanes  # of each tile that are wanted


cdef inline bint is_final(const Call *call, const Target *target, Py_ssize_t width, Py_ssize_t size) noexcept nogil:
    # Whether the output has the rows of tiles, of elements of this size, as they are.
    return not call.apart and target.lanes == width and target.lane_stride == size


cdef inline Grid line_of(const Pass *q, Py_ssize_t n, Py_ssize_t next_pixel, Py_ssize_t size) noexcept nogil:
    # n tiles of a pass, wherever they end.
    cdef Grid grid
    memset(&grid, 0, sizeof(Grid))
    grid.taps, grid.first = &q.taps, q.first
    grid.n, grid.times = n, 1
    grid.next_pixel = next_pixel
    grid.next_start = 0 if q.first else q.tile_pitch * size
    return grid


cdef inline void multiply_line(
    const Pass *q, int role, int NV, Py_ssize_t M, const real *strip, const real *weights, const real *start, char *out,
    const Grid *grid,
) noexcept nogil:
    # A line of tiles, from the bias or the sums so far, `start`, to `out`.
    cdef Py_ssize_t width = NV * (VECTOR_BYTES // <Py_ssize_t> sizeof(real)) if role == OC_VECTOR else M
    run_tiles(role, NV, <int> M, strip, weights + q.low * q.taps.n_kw * width, start, out, grid)
    if q.taps.n_skipped:
        run_tiles_again(role, NV, M, strip, weights, start, out, q, grid)


cdef inline void multiply_tiles(
    const Call *call, const Pass *q, int role, int NV, Py_ssize_t M, Py_ssize_t n, const real *strip,
    Py_ssize_t next_pixel, const real *weights, const real *start, real *c, const Target *target,
) noexcept nogil:
    # The n tiles of a run, from the bias or the sums so far, `start`, to the output or the sums, `c`.
    cdef:
        Py_ssize_t width = NV * (VECTOR_BYTES // <Py_ssize_t> sizeof(real))
        char *out = <char *> c
        Grid line = line_of(q, n, next_pixel, sizeof(real))
    if q.last and is_final(call, target, width, sizeof(real)):
        out, line.pitch, line.next_out = target.out, target.row_stride, target.step
    else:
        line.pitch = width * <Py_ssize_t> sizeof(real)
        line.next_out = q.tile_pitch * <Py_ssize_t> sizeof(real)
    multiply_line(q, role, NV, M, strip, weights, start, out, &line)


cdef inline void multiply_and_store(
    const Call *call, const Pass *q, int NV, Py_ssize_t M, Py_ssize_t n, const real *strip, Py_ssize_t next_pixel,
    const real *weights, const real *start, real *c, const Target *target,
) noexcept nogil:
    # The same under OW_VECTOR to an output that has not the rows of tiles as they are, one by one.
    cdef:
        Py_ssize_t i
        Target to = target[0]
    for i in range(n):
        multiply_tiles(call, q, OW_VECTOR, NV, M, 1, strip, 0, weights, start, c, &to)
        store_pixels(
            call, q.result, to.oc, c, M, to.room, to.lanes, NV * (VECTOR_BYTES // <Py_ssize_t> sizeof(real)), to.out,
            to.row_stride, to.lane_stride,
        )
        c = c + q.tile_pitch
        start = start + (0 if q.first else q.tile_pitch)
        strip = <const real *> (<const char *> strip + next_pixel)
        to.out = to.out + to.step


cdef struct Held:
    # Rows of sums, a pixel each, that follow one another here and in the output, which has them in another form.
    char *sums
    Py_ssize_t rows
    char *out
    Py_ssize_t room  # pixels from the first row's on that have their tiles, now or later, in this task


cdef inline void store_held(
    const Call *call, const Pass *q, const real *sums, Py_ssize_t width, const Target *target, Held *held,
) noexcept nogil:
    if held.rows > 0:
        store_channels(
            call, q.result, sums, held.rows, held.room, target.lanes, width, held.out, target.row_stride,
            target.lane_stride,
        )
    held.rows = 0


cdef inline void multiply_and_hold(
    const Lowered *p, const Call *call, const Pass *q, int NV, Py_ssize_t M, Py_ssize_t n, const real *strip,
    Py_ssize_t next_pixel, const real *weights, const real *start, real *c, const Target *target, Held *held,
) noexcept nogil:
    # The n tiles of a run under OC_VECTOR, behind the sums that are held, which are stored when there are enough. Where
    # those of passes wait, they are replaced from the first tile's on, after they have been read (Tile.bytes).
    cdef:
        Py_ssize_t width = NV * (VECTOR_BYTES // <Py_ssize_t> sizeof(real))
        Py_ssize_t i = 0
        Grid line = line_of(q, n, next_pixel, sizeof(real))
    line.pitch = width * <Py_ssize_t> sizeof(real)
    line.next_out = M * line.pitch
    while i < n:
        if held.rows + M > p.rows_held:
            store_held(call, q, <const real *> held.sums, width, target, held)
        if held.rows == 0:
            held.sums = <char *> c
            held.out = target.out + i * target.step
            held.room = target.room - i * M
        line.n = min(n - i, (p.rows_held - held.rows) // M)
        multiply_line(
            q, OC_VECTOR, NV, M, <const real *> (<const char *> strip + i * next_pixel), weights,
            <const real *> (<const char *> start + i * line.next_start), held.sums + held.rows * line.pitch, &line,
        )
        held.rows = held.rows + line.n * M
        i = i + line.n


cdef inline const real *part_of(
    const Lowered *p, const Call *call, const Task *t, Py_ssize_t block, Pass *q, const real *group,
) noexcept nogil:
    # The packed bias of a block, and after it its weights, those of the pass `q.n_before` channels on.
    if call.packed == NULL:
        q.n_before = 0
        q.skips = call.skips
        if not pack_here(p, call.weights, t.g, block, q.ic_start + q.ic_first, q.taps.n_ic, <real *> q.part_space):
            q.skips = False
        return <const real *> q.part_space
    q.n_before = q.ic_start + q.ic_first
    return group + start_of(&p.oc_split, block) * p.unit_pitch


cdef inline const real *weights_of(
    const Lowered *p, const real *bias, Py_ssize_t size, Py_ssize_t ic,
) noexcept nogil:
    # A packed block's weights, from a channel on: of `size` vectors or scalars, each with a vector of bias before them.
    cdef Py_ssize_t VL = VECTOR_BYTES // sizeof(real)
    return bias + size * VL + ic * size * (VL if p.role == OC_VECTOR else 1) * p.kh * p.kw


cdef inline void expect_turn(
    const Lowered *p, const Call *call, const Task *t, const Pass *q, const Pass *part, Py_ssize_t block,
    const real *group, Py_ssize_t tiles,
) noexcept nogil:
    # Has the tiles of a block, which sum a part of the pass, ask for the weights after theirs, where these are packed:
    # those of the next part, of the next block, or of the next group, if that is this task's or all of the next task.
    # What comes after the last of these is not told here.
    cdef:
        Py_ssize_t ic = part.ic_first + part.taps.n_ic
        Py_ssize_t n_ic = min(part.taps.n_ic, q.taps.n_ic - ic)
        bint alone = p.n_oh_blk == p.n_ow_blk == p.n_oc_task == 1  # in its group
        Py_ssize_t size
        const real *bias
        const real *weights
        const real *end
    expect_nothing(q.taps.ahead)
    if call.packed == NULL:
        return
    if n_ic == 0:
        ic, n_ic = 0, part.taps.n_ic
        block = block + 1
        if block == t.block_end:
            if t.n_g == 1 and not (alone and t.g + 1 < p.g):
                return
            block = t.block_begin
            group = group + p.group_pitch
    size = size_of(&p.oc_split, block)
    bias = group + start_of(&p.oc_split, block) * p.unit_pitch
    weights = weights_of(p, bias, size, q.ic_start + ic)
    end = weights_of(p, bias, size, q.ic_start + ic + n_ic)
    expect_weights(q.taps.ahead, weights, <const char *> end - <const char *> weights, tiles, part.taps.n_ic)


cdef inline Pass slice_of(const Lowered *p, const Pass *q, const Split *slices, Py_ssize_t i) noexcept nogil:
    # Slice i of a pass.
    cdef Pass part = q[0]
    part.ic_first = start_of(slices, i)
    part.taps.n_ic = size_of(slices, i)
    part.first = q.first and i == 0
    part.last = q.last and i == slices.parts - 1
    return part


cdef inline void multiply_oc(
    const Lowered *p, const Call *call, const Task *t, Pass *q,
    const Pixels *pixels, const real *group, real *c,
) noexcept nogil:
    # Vectors of output channels times scalars of pixels.
    cdef:
        Py_ssize_t VL = VECTOR_BYTES // sizeof(real)
        Py_ssize_t block, oc, width, row, i, j, k, m, n, col
        int NV
        Split tiles
        Runs runs
        Split slices = split_by(q.taps.n_ic, p.ic_slice)
        Pass part
        const real *bias
        const real *weights
        const char *row_of_pixels
        const real *source
        const real *begin  # where sums are taken on
        real *start
        real *to = c
        Target target
        Held held
        bint holds
        bint dense = call.out_stride[2] == t.n_ow * call.out_stride[3]  # rows follow one another
    held.sums, held.rows = NULL, 0
    target.row_stride = call.out_stride[3]
    target.lane_stride = call.out_stride[1]
    for block in range(t.block_begin, t.block_end):
        oc = start_of(&p.oc_split, block) * VL
        NV = <int> size_of(&p.oc_split, block)
        width = NV * VL
        target.oc = t.g * p.ocg + oc
        target.lanes = min(width, p.ocg - oc)
        tiles = tiles_of(p, t, NV, pixels.panel_step > 0)
        runs = runs_of(&tiles, unit_of(p), t.n_ow)
        for k in range(slices.parts):
            part = slice_of(p, q, &slices, k)
            bias = part_of(p, call, t, block, &part, group)
            weights = weights_of(p, bias, NV, part.n_before)
            expect_turn(p, call, t, q, &part, block, group, t.n_oh * tiles.parts)
            start = to
            if slices.parts > 1:
                start = c + k % 2 * p.n_buffers * q.tile_pitch
                to = c + (k + 1) % 2 * p.n_buffers * q.tile_pitch
            holds = part.last and not is_final(call, &target, width, sizeof(real))
            for i in range(t.n_oh):
                # From the middle on: rows at the border leave weights out, and would not fetch them for the others.
                row = (i + t.n_oh // 2) % t.n_oh
                take_rows(p, &part, t.oh_start + row)
                row_of_pixels = pixels.data + part.ic_first * pixels.ic_step + row * pixels.row_step
                if row == 0 or not dense:  # what is held ends where the next row does not follow
                    store_held(call, &part, <const real *> held.sums, width, &target, &held)
                for j in range(runs.n):
                    m, n, col = runs.size[j], runs.tiles[j], runs.first_pixel[j]
                    target.out = output_of(p, call, t, oc, row, col)
                    target.step = runs.step[j] * target.row_stride
                    target.room = t.n_ow - col
                    if dense:
                        target.room += ((t.n_oh if i < t.n_oh - t.n_oh // 2 else t.n_oh // 2) - row - 1) * t.n_ow
                    begin = bias if part.first else start
                    source = <const real *> (row_of_pixels + first_of(pixels, &runs, j))
                    if holds:
                        multiply_and_hold(
                            p, call, &part, NV, m, n, source, between(pixels, &runs, j), weights,
                            begin, to, &target, &held,
                        )
                    else:
                        multiply_tiles(
                            call, &part, OC_VECTOR, NV, m, n, source, between(pixels, &runs, j), weights,
                            begin, to, &target,
                        )
                    start = start + n * q.tile_pitch
                    to = to + n * q.tile_pitch
            store_held(call, &part, <const real *> held.sums, width, &target, &held)


cdef inline void multiply_ow(
    const Lowered *p, const Call *call, const Task *t, Pass *q,
    const Pixels *pixels, const real *group, real *c,
) noexcept nogil:
    # Vectors of pixels times scalars of output channels.
    cdef:
        Py_ssize_t VL = VECTOR_BYTES // sizeof(real)
        Py_ssize_t row, i, block, oc, m, n, col, width
        # Past the channels of this task.
        Py_ssize_t end = start_of(&p.oc_split, t.block_end - 1) + size_of(&p.oc_split, t.block_end - 1)
        int NV
        Split tiles = tiles_of(p, t, p.NV, pixels.panel_step > 0)
        Runs runs = runs_of(&tiles, unit_of(p), t.n_ow)
        const real *bias
        const real *weights
        const char *source
        const real *begin
        Target target
    target.row_stride = call.out_stride[1]
    target.lane_stride = call.out_stride[3]
    for row in range(t.n_oh):
        for block in range(t.block_begin, t.block_end):
            oc = start_of(&p.oc_split, block)
            m = size_of(&p.oc_split, block)
            bias = part_of(p, call, t, block, q, group)
            weights = weights_of(p, bias, m, q.n_before)
            take_rows(p, q, t.oh_start + row)
            expect_turn(p, call, t, q, q, block, group, tiles.parts)
            target.oc = t.g * p.ocg + oc
            target.room = end - oc
            for i in range(runs.n):
                NV, n, col = <int> runs.size[i], runs.tiles[i], runs.first_pixel[i]
                width = NV * VL
                target.lanes = width if fits_output(call, t, row, width, sizeof(real)) else min(width, t.n_ow)
                target.out = output_of(p, call, t, oc, row, col)
                target.step = runs.step[i] * target.lane_stride
                source = pixels.data + row * pixels.row_step + first_of(pixels, &runs, i)
                begin = bias if q.first else c
                if not q.last or is_final(call, &target, width, sizeof(real)):
                    multiply_tiles(
                        call, q, OW_VECTOR, NV, m, n, <const real *> source, between(pixels, &runs, i), weights,
                        begin, c, &target,
                    )
                else:
                    multiply_and_store(
                        call, q, NV, m, n, <const real *> source, between(pixels, &runs, i), weights,
                        begin, c, &target,
                    )
                c = c + n * q.tile_pitch

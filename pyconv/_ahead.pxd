# Look-ahead: while a task computes, the pixels of the next one are on their way to the second level cache.
#
# A hint only: it neither reads nor faults, wherever a line ends, whether or not the next task is this thread's.

from libc.string cimport memset

from pyconv._lowered cimport Call, Lowered, Task, decode
from pyconv._tile cimport Taps

cdef enum:
    LINE = 64


cdef struct Ahead:
    # Where the next task's pixels lie, a cache line at a time: a tile asks for one line of every channel, so that they
    # arrive while this task computes instead of while the next one gathers. The lines are spread evenly over the tiles.
    const char *data
    Py_ssize_t ic_stride, row_stride, n_rows, n_lines
    Py_ssize_t row, line
    Py_ssize_t per_tile, tiles, due  # lines: n_rows * n_lines for `tiles` tiles, and the fraction that is due


cdef inline void look_ahead(Ahead *ahead, Taps *taps) noexcept nogil:
    taps.ahead = ahead.data + ahead.row * ahead.row_stride + ahead.line * LINE
    taps.ahead_pitch = ahead.ic_stride
    ahead.due += ahead.per_tile
    if ahead.due >= ahead.tiles and ahead.row < ahead.n_rows:
        ahead.due -= ahead.tiles
        ahead.line += 1
        if ahead.line == ahead.n_lines:
            ahead.line = 0
            ahead.row += 1
    else:
        taps.ahead = <const char *> taps
        taps.ahead_pitch = 0


cdef inline Ahead pixels_of(const Lowered *p, const Call *call, Py_ssize_t index) noexcept nogil:
    cdef:
        Task t
        Ahead ahead
        Py_ssize_t begin, end
    memset(&ahead, 0, sizeof(Ahead))
    ahead.data = call.x
    ahead.tiles = 1
    if (
        index >= p.n_tasks or index % p.n_oc_task or p.ic_slice < p.icg or p.g_blk > 1
        or call.x_stride[3] != p.pixel_bytes
    ):
        return ahead
    t = decode(p, index)
    begin = max(0, t.oh_start * p.rows.step - p.rows.pad)
    end = min(p.rows.extent, (t.oh_start + t.n_oh - 1) * p.rows.step - p.rows.pad + p.row_reach + 1)
    ahead.n_rows = max(0, end - begin)
    ahead.data = ahead.data + (
        t.n * call.x_stride[0] + t.g * p.icg * call.x_stride[1] + begin * call.x_stride[2]
    )
    begin = max(0, t.ow_start * p.cols.step - p.cols.pad)
    end = min(p.cols.extent, (t.ow_start + t.n_ow - 1) * p.cols.step - p.cols.pad + p.col_reach + 1)
    ahead.n_lines = (max(0, end - begin) * p.pixel_bytes + LINE - 1) // LINE
    ahead.data = ahead.data + begin * call.x_stride[3]
    ahead.ic_stride = call.x_stride[1]
    ahead.row_stride = call.x_stride[2]
    if ahead.n_lines == 0:
        ahead.n_rows = 0
    ahead.per_tile = ahead.n_rows * ahead.n_lines
    ahead.tiles = p.tiles_per_task
    return ahead

# Look-ahead: while a task computes, the pixels of the next one are on their way to the second level cache.
#
# A hint only: it neither reads nor faults, wherever a line ends, whether or not the next task is this thread's.

cdef enum:
    LINE = 64


cdef struct Ahead:
    # Where the next task's pixels lie, a cache line at a time: a tile asks for one line of every channel, so that they
    # arrive while this task computes instead of while the next one gathers. The lines are spread evenly over the tiles.
    const char *data
    Py_ssize_t ic_stride, row_stride, n_rows, n_lines
    Py_ssize_t n_row, n_line  # the next one's numbers
    Py_ssize_t per_tile, tiles, due  # lines: n_rows * n_lines for `tiles` tiles, and the fraction that is due
    # What the present tile asks for, in the first channel, and how far the next one's is; 0 where it asks for nothing.
    const char *line
    Py_ssize_t pitch


cdef inline void look_ahead(Ahead *ahead) noexcept nogil:
    ahead.due += ahead.per_tile
    if ahead.due >= ahead.tiles and ahead.n_row < ahead.n_rows:
        ahead.line = ahead.data + ahead.n_row * ahead.row_stride + ahead.n_line * LINE
        ahead.pitch = ahead.ic_stride
        ahead.due -= ahead.tiles
        ahead.n_line += 1
        if ahead.n_line == ahead.n_lines:
            ahead.n_line = 0
            ahead.n_row += 1
    else:
        ahead.line = <const char *> ahead
        ahead.pitch = 0

# Look-ahead: while tiles compute, what comes after them is on its way to the second level cache: the pixels of the next
# group or task (where they are read in the image, of the next tiles), and the weights of the next block of output
# channels, or of its next channels.
#
# A hint only: it neither reads nor faults, wherever a line ends, whether or not the next task is this thread's.
#
# Every tile asks for one address of each channel that it sums. Pixels are asked for in parts: a line of every channel
# or, where channels are neighbours, as many lines that follow one another. Where no part is due, weights are, which
# follow one another in memory, by steps that would spread them evenly over all tiles before their turn; the last of
# them are left out where some tiles ask for pixels. (Measured, 512 KiB of L2: maps of 7 and 14 pixels whose weights it
# does not hold take 5 to 25 % less time, 1x1 kernels on 56 channels-last pixels 3 to 8 %. What the processor fetches by
# itself arrives too late for the first tile of a block, and for the transposition of channels-last pixels.)

cdef enum:
    LINE = 64


cdef struct Ahead:
    # Where the next pixels lie: rows of so many parts, each of which a tile asks for. They are spread evenly over
    # `tiles` tiles.
    const char *data
    Py_ssize_t ic_stride, row_stride, n_rows, part_bytes, n_parts
    Py_ssize_t n_row, n_part  # the next one's numbers
    Py_ssize_t per_tile, tiles, due  # parts: n_rows * n_parts for `tiles` tiles, and the fraction that is due
    # The weights that no tile has asked for yet; in bytes from there to the next channel's, and to the next tile's.
    const char *weights
    Py_ssize_t weights_pitch, weights_step
    # What the present tile asks for, in the first channel, and how far the next one's is; 0 where it asks for nothing.
    const char *line
    Py_ssize_t pitch


cdef inline void look_ahead(Ahead *ahead) noexcept nogil:
    ahead.due += ahead.per_tile
    if ahead.due >= ahead.tiles and ahead.n_row < ahead.n_rows:
        ahead.line = ahead.data + ahead.n_row * ahead.row_stride + ahead.n_part * ahead.part_bytes
        ahead.pitch = ahead.ic_stride
        ahead.due -= ahead.tiles
        ahead.n_part += 1
        if ahead.n_part == ahead.n_parts:
            ahead.n_part = 0
            ahead.n_row += 1
    else:
        ahead.line = ahead.weights
        ahead.pitch = ahead.weights_pitch
        ahead.weights = ahead.weights + ahead.weights_step


cdef inline void expect_weights(
    Ahead *ahead, const void *weights, Py_ssize_t n_bytes, Py_ssize_t tiles, Py_ssize_t n_ic,
) noexcept nogil:
    # In so many tiles of n_ic channels each; no line is left out, rather the last ones.
    cdef Py_ssize_t turns = tiles * n_ic
    ahead.weights = <const char *> weights
    ahead.weights_pitch = min(LINE, (n_bytes + turns - 1) // turns)
    ahead.weights_step = ahead.weights_pitch * n_ic


cdef inline void expect_nothing(Ahead *ahead) noexcept nogil:
    ahead.weights = <const char *> ahead
    ahead.weights_pitch = ahead.weights_step = 0

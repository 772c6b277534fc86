# A plan as C sees it: numbers and offset tables, no decisions; what a call adds to it; and one task of a call.
#
# Tasks are numbered through, image by image, block of groups by block of groups, part of the output channels by part,
# row block by row block, column block by column block, with the shares of the part last: neighbours in number share a
# strip, then an image.

from pyconv._split cimport Split, size_of, start_of
from pyconv._strip cimport Axis
from pyconv._tile cimport DEPTHWISE_CHANNELS, MAX_NV, OC_VECTOR


cdef struct Lowered:
    int role, dtype, pixel, result, NV  # dtypes of the accumulator, the image and the output
    Py_ssize_t pixel_bytes, lanes
    Py_ssize_t M[MAX_NV + 1]  # the largest M of a tile with NV vectors
    Py_ssize_t mb, g, icg, ocg, oh, ow, kh, kw, dh, dw, sh, sw
    Py_ssize_t slot  # elements of one slot of the strip: a vector or more where its lanes are channels, else 1
    Py_ssize_t repeats      # lanes of a slot that hold each channel
    # The row that these come from, of single channels: elements of each of its slots, and of the strip before it.
    Py_ssize_t source_slot, source_offset
    Py_ssize_t band  # rows that are computed before the next block of channels, where vectors are of channels
    Py_ssize_t l1_ways, l2_ways  # lines that a set of each cache holds
    Py_ssize_t g_blk, g_strip, oh_blk, ow_blk, ic_blk
    Py_ssize_t n_g_blk, n_oh_blk, n_ow_blk, n_ic_blk, n_oc_part, n_oc_task
    Py_ssize_t n_tasks, work_per_task, tiles_per_task
    Py_ssize_t ic_slice   # channels that the tiles of a block sum before the next channels
    Py_ssize_t n_buffers  # for the sums of a tile that wait for those, or that are held
    Py_ssize_t rows_held  # rows of sums that are stored together, at most
    Split oc_split    # output channels of a group (oc: in vectors) into blocks of packed weights
    Split task_split  # these blocks into tasks
    Axis rows, cols
    Py_ssize_t row_reach, col_reach  # from the first tap's pixel to the last one's
    Py_ssize_t row_pitch, ic_pitch  # of the strip, in elements
    Py_ssize_t panel_pitch          # from the pixels of one tile to those of the next; 0 where rows are whole
    bint flat                       # whether the rows of a task follow one another in the strip as one
    Py_ssize_t *offset              # of every tap, in bytes
    Py_ssize_t strip_bytes, tile_bytes, thread_bytes
    Py_ssize_t unit_pitch, group_pitch  # of the packed weights, in elements; unit_pitch for each item of oc_split
    Py_ssize_t part_bytes               # of one slice of the largest block
    int padding_mode
    bint reads_image  # whether points are, vectors where pixels are neighbours there, scalars where channels are
    bint skips  # whether rows of the kernel in the padding are left out where all weights are finite


cdef struct Weights:
    # Weights and bias as the user has them. Strides in bytes: of output channel, input channel, row and column.
    const char *data
    const char *bias  # NULL for none
    Py_ssize_t stride[4]
    Py_ssize_t bias_stride


cdef struct Call:
    # What differs from call to call: addresses and strides, in bytes.
    const char *x
    const char *packed        # NULL where tasks pack the weights
    const Weights *weights
    char *out
    char *scratch
    Py_ssize_t thread_bytes  # of it: the plan's, and a block of weights where tasks pack them
    Py_ssize_t *offset  # of every tap in the image, in bytes
    unsigned long float_state  # of the caller, and subnormal numbers as zeros where it asks for that
    bint apart          # whether no tile ends in the output itself: its elements are narrower, or parts of complex ones
    bint skips          # whether the padding may be left out, as the plan would
    bint in_place       # whether pixels are read in the image, where that is worth it (_in_place.pxi)
    Py_ssize_t x_stride[4]    # of image, channel, row and pixel
    Py_ssize_t out_stride[4]
    Py_ssize_t x_pair, out_pair  # of pairs of channels (_strip.pxd: channel_at)


cdef inline bint is_split(const Call *call) noexcept nogil:
    # Whether the output's channels are not all one stride apart: parts of complex numbers.
    return call.out_pair != 2 * call.out_stride[1]


cdef struct Task:
    Py_ssize_t n, g, n_g, oh_start, n_oh, ow_start, n_ow, block_begin, block_end
    Py_ssize_t overhang  # slots that a vector reads past the last pixel of a row: none where tiles move back instead


cdef inline Py_ssize_t overhang_of(const Lowered *p, Py_ssize_t n) noexcept nogil:
    # Of the last tile of n pixels.
    if p.role == OC_VECTOR or p.role == DEPTHWISE_CHANNELS or n >= p.NV * p.lanes:
        return 0
    return (p.lanes - n % p.lanes) % p.lanes


cdef inline Task decode(const Lowered *p, Py_ssize_t index) noexcept nogil:
    cdef:
        Task t
        Py_ssize_t of_a_part = p.n_oc_task // p.n_oc_part
        Py_ssize_t share = index % of_a_part
    index = index // of_a_part
    t.ow_start = index % p.n_ow_blk * p.ow_blk
    t.n_ow = min(p.ow_blk, p.ow - t.ow_start)
    index = index // p.n_ow_blk
    t.oh_start = index % p.n_oh_blk * p.oh_blk
    t.n_oh = min(p.oh_blk, p.oh - t.oh_start)
    index = index // p.n_oh_blk
    share = share + index % p.n_oc_part * of_a_part
    t.block_begin = start_of(&p.task_split, share)
    t.block_end = t.block_begin + size_of(&p.task_split, share)
    index = index // p.n_oc_part
    t.g = index % p.n_g_blk * p.g_blk
    t.n_g = min(p.g_blk, p.g - t.g)
    t.n = index // p.n_g_blk
    t.overhang = overhang_of(p, t.n_oh * t.n_ow if p.flat else t.n_ow)
    return t


cdef inline Task flattened(const Task *t) noexcept nogil:
    # Rows that follow one another as one row.
    cdef Task row = t[0]
    row.n_ow = t.n_oh * t.n_ow
    row.n_oh = 1
    return row

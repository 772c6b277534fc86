"""The only entry points of the compiled part, and the loop over tasks.

This file is compiled once for each instruction set (setup.py: LEVELS) into a module of its own; _dispatch.py chooses.
A `Convolution` is a plan (_plan.py) lowered to C: numbers and offset tables, no decisions. Its run

    for task in tasks:                       in parallel: (image, group, part of the channels, rows, columns, share)
        for channels of the reduction:       one pass, or as many as the plan found to suit the caches
            gather the strip                 if the image does not serve as it is       _strip.pxd, _in_place.pxi
            for block, for row, for tile:    in an order that depends on the role  _nests, _depthwise_nests.pxi
                multiply                     from the bias or the sums so far                   _tile.pxd
                scatter                      unless the tile ends in the output itself          _store.pxd

writes each output element from exactly one task, so that there is nothing to lock, and nothing that a thread count
could change.
"""

from itertools import product

from cpython.buffer cimport (
    PyBUF_SIMPLE, PyBUF_STRIDES, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer,
)
from cpython.exc cimport PyErr_CheckSignals
from cython.parallel cimport parallel, prange, threadid
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from pyconv._ahead cimport Ahead
from pyconv._denormals cimport FLUSHING, float_state, rounds_down, set_float_state
from pyconv._depthwise cimport MAX_ROWS, channels_fits, depthwise_fits
from pyconv._instances cimport depthwise_exists
from pyconv._lowered cimport Call, Lowered, Task, Weights, decode, flattened, is_split, overhang_of
from pyconv._queue cimport Queue, deal, next_task
from pyconv._split cimport split, start_of, up_to
from pyconv._strip cimport Axis, Image, Segment
from pyconv._tile cimport DEPTHWISE, DEPTHWISE_CHANNELS, MAX_M, MAX_NV, OC_VECTOR, OW_VECTOR, tile_fits
from pyconv._vector cimport INTEGERS, VECTOR_BYTES, f32, f64, real
from pyconv._widen cimport FLOAT32, FLOAT64

cdef extern from "omp.h" nogil:
    int omp_get_max_threads()
    int omp_get_thread_limit()

cdef extern from "stdlib.h" nogil:
    int posix_memalign(void **memory, size_t alignment, size_t size)

cdef enum:
    CACHE_LINE = 64
    # A tile buffer's rows: MAX_M rounded up to the 8 rows that are transposed at a time.
    TILE_ROWS = 16
    TILE_BYTES = TILE_ROWS * MAX_NV * VECTOR_BYTES

ROLES = {"oc": OC_VECTOR, "ow": OW_VECTOR, "dw": DEPTHWISE, "dc": DEPTHWISE_CHANNELS}
PADDING_MODES = ("zeros", "reflect", "replicate", "circular")  # in the order of _strip.pxd
# What this build sums in 4 and in 8 bytes (FLOAT32 and FLOAT64 below): dtypes of the same bits.
SUMS = ({"uint32", "int32"}, {"uint64", "int64"}) if INTEGERS else ({"float32"}, {"float64"})
PIXELS = (  # in the order of _widen.pxd
    "float32", "float64", "bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16",
    "bfloat16",
)

include "_doors.pxi"
include "_nests.pxi"
include "_in_place.pxi"
include "_depthwise_nests.pxi"
include "_yardsticks.pxi"


cdef inline void run_task_of(
    const Lowered *p, const Call *call, Py_ssize_t index, const real *tag, char *scratch,
) noexcept nogil:
    cdef:
        Task t = decode(p, index)
        Task rows
        Pass q
        Ahead ahead
        Image image
        Py_ssize_t i
        Py_ssize_t first_g = t.g
        Py_ssize_t nth  # of the groups in the strip
        bint cleared, flat, in_image
        real *strip = <real *> scratch
        real *c = <real *> (scratch + p.strip_bytes)
        Pixels pixels
        const real *group
    q.taps.n_kh = p.kh
    q.taps.n_kw = p.kw
    q.taps.offset = p.offset
    q.taps.n_taps = p.kh * p.kw
    q.taps.n_skipped = 0
    in_image = call.in_place and (p.role == OC_VECTOR or p.role == OW_VECTOR and t.n_ow >= p.NV * p.lanes)
    q.taps.pixel_step = call.x_stride[3] * p.sw if in_image and p.role == OC_VECTOR else 0
    q.taps.ahead = &ahead
    q.low = 0
    q.ic_first = 0
    q.result = p.result
    q.skips = call.packed != NULL and call.skips and (<const real *> call.packed)[p.g * p.group_pitch] != 0
    q.part_space = scratch + p.thread_bytes
    q.tile_pitch = p.tile_bytes // <Py_ssize_t> sizeof(real) if p.n_ic_blk > 1 or p.ic_slice < p.icg else 0
    image.data = call.x + t.n * call.x_stride[0]
    image.dtype, image.size = p.pixel, p.pixel_bytes
    image.widen = NULL
    if p.pixel != p.dtype:
        image.widen = widen_f32 if real is f32 else widen_f64
    image.ic_pair = call.x_pair
    image.ic_stride = call.x_stride[1]
    image.ih_stride = call.x_stride[2]
    image.iw_stride = call.x_stride[3]
    image.padding_mode = p.padding_mode
    # The output's rows may lie anywhere: then tiles end with each of them, and the last may look past the strip's.
    flat = p.flat and not in_image and call.out_stride[2] == p.ow * call.out_stride[3]
    if p.flat and not flat:
        t.overhang = max(t.overhang, overhang_of(p, t.n_ow))
    while t.n_g > 0:
        rows = flattened(&t) if flat else t
        ahead = pixels_after(p, call, &t, index, in_image)
        nth = (t.g - first_g) % p.g_strip
        group = NULL
        if call.packed != NULL:
            group = (<const real *> call.packed) + t.g * p.group_pitch
        for i in range(p.n_ic_blk):
            q.first = i == 0
            q.last = i == p.n_ic_blk - 1
            q.ic_start = i * p.ic_blk
            q.taps.n_ic = min(p.ic_blk, p.icg - q.ic_start)
            image.ic = t.g * p.icg + q.ic_start
            cleared = t.g > first_g and p.n_ic_blk == 1
            if p.role == DEPTHWISE_CHANNELS:
                multiply_dc(p, call, &t, &q, &image, strip, group, c)
            elif p.role == DEPTHWISE:
                multiply_dw(p, call, &t, &q, &image, strip, group, c, cleared)
            else:
                if in_image:
                    pixels = pixels_in_image(p, call, &image, &t, 0)
                else:
                    if nth == 0:
                        gather_panels(p, strip, &image, &t, min(p.g_strip, t.n_g) * q.taps.n_ic, cleared)
                    pixels = pixels_in_strip(p, <const real *> strip + nth * p.icg * p.ic_pitch)
                q.taps.ic_step = pixels.ic_step
                if p.role == OC_VECTOR:
                    multiply_oc(p, call, &rows, &q, &pixels, group, c)
                else:
                    multiply_ow(p, call, &rows, &q, &pixels, group, c)
        t.g = t.g + 1
        t.n_g = t.n_g - 1


cdef void run_task(const Lowered *p, const Call *call, Py_ssize_t index, Py_ssize_t thread) noexcept nogil:
    cdef char *scratch = call.scratch + thread * call.thread_bytes
    # OpenMP's threads have the rounding mode of whoever began them: the caller's is wanted, and theirs left as it was.
    cdef unsigned long state = float_state()
    set_float_state(call.float_state)
    if p.dtype == FLOAT32:
        run_task_of(p, call, index, <const f32 *> call.x, scratch)
    else:
        run_task_of(p, call, index, <const f64 *> call.x, scratch)
    set_float_state(state)


cdef void run_tasks(const Lowered *p, const Call *call, Queue *queues, Py_ssize_t n, Py_ssize_t thread) noexcept nogil:
    # Those of a thread, and of the others what these have not begun.
    cdef Py_ssize_t passed = 0
    cdef Py_ssize_t task = next_task(queues, n, thread, &passed)
    while task >= 0:
        run_task(p, call, task, thread)
        task = next_task(queues, n, thread, &passed)


def variants():
    """Every tile of this build: ``(role, NV, M)``; depthwise, ``("dw", NV, rows)`` and ``("dc", 1, pixels)``."""
    cdef int NV, M
    found = []
    for NV in range(1, MAX_NV + 1):
        for M in range(1, MAX_M + 1):
            if tile_fits(M, NV):
                found.append(("oc", NV, M))
                found.append(("ow", NV, M))
        for M in range(1, MAX_ROWS + 1):
            if depthwise_fits(M, NV):
                found.append(("dw", NV, M))
    for M in range(1, MAX_M + 1):
        if channels_fits(M):
            found.append(("dc", 1, M))
    return tuple(found)


def vector_bytes():
    """The width of a vector in this build."""
    return VECTOR_BYTES


def max_threads():
    """How many threads OpenMP would use for a parallel region of this thread's."""
    return min(omp_get_max_threads(), omp_get_thread_limit())


def address(array):
    """Where an array's memory begins: NumPy's own ways to tell take microseconds, and crash where memory lacks."""
    cdef:
        Py_buffer buffer
        size_t begin
    PyObject_GetBuffer(array, &buffer, PyBUF_SIMPLE)
    begin = <size_t> buffer.buf
    PyBuffer_Release(&buffer)
    return begin


def has_depthwise(kh, sh):
    """Whether the depthwise tile exists for a kernel of ``kh`` rows and a vertical stride of ``sh``."""
    return depthwise_exists(kh, sh)


cdef void set_strides(Py_ssize_t *strides, const Py_buffer *array, int axes, bint one_row) noexcept:
    # Of image, channel, row and pixel. That of an axis of length 1 means nothing, and may be too large to multiply: it
    # becomes what it would be in an array without gaps.
    cdef:
        int i, to
        int last = array.ndim - 1
        Py_ssize_t dense = array.itemsize
    for i in range(4):
        strides[i] = 0
    for i in range(array.ndim):  # from the last axis on
        to = 3 - i if i < axes else 1 + axes - i
        strides[to] = array.strides[last - i] if array.shape[last - i] > 1 else dense
        dense = strides[to] * array.shape[last - i]
    if one_row and axes == 2 and array.shape[last] == 1:
        strides[3] = strides[2]  # a column as a row


cdef Py_ssize_t take_parts(Py_ssize_t *strides, const Py_buffer *array, Py_ssize_t size) noexcept:
    # From a pair of channels to the next. Elements of twice the expected size are complex: their parts are channels.
    cdef Py_ssize_t pair = 2 * strides[1]
    if array.itemsize == 2 * size:
        pair = strides[1]
        strides[1] = size
    return pair


cdef class Given:
    """Holds the buffers of weights and bias while they are read."""

    cdef:
        Weights weights
        Py_buffer weight, bias

    def __cinit__(self, weight, bias):
        PyObject_GetBuffer(weight, &self.weight, PyBUF_STRIDES)
        set_strides(self.weights.stride, &self.weight, self.weight.ndim - 2, False)
        self.weights.data = <const char *> self.weight.buf
        if bias is not None:
            PyObject_GetBuffer(bias, &self.bias, PyBUF_STRIDES)
            self.weights.bias = <const char *> self.bias.buf
            self.weights.bias_stride = self.bias.strides[0]

    def __dealloc__(self):
        # One that was never filled is all zeros, and released as such: nothing happens.
        PyBuffer_Release(&self.bias)
        PyBuffer_Release(&self.weight)


cdef bint pack_nth(const Lowered *p, const Weights *weights, Py_ssize_t i, real *packed) noexcept nogil:
    # Block i of all groups' blocks, to its place.
    cdef:
        Py_ssize_t g = i // p.oc_split.parts
        Py_ssize_t block = i % p.oc_split.parts
    return pack_here(
        p, weights, g, block, 0, p.icg, packed + g * p.group_pitch + start_of(&p.oc_split, block) * p.unit_pitch)


cdef void pack_all(const Lowered *p, const Weights *weights, Py_ssize_t n_threads, real *packed) noexcept:
    # Weights to be kept, by n threads.
    cdef:
        Py_ssize_t i
        Py_ssize_t n = p.oc_split.parts
        bint finite = True
    with nogil:
        if n_threads == 1:
            for i in range(p.g * n):
                finite &= pack_nth(p, weights, i, packed)
        else:
            for i in prange(p.g * n, num_threads=<int> n_threads, schedule="static"):
                finite &= pack_nth(p, weights, i, packed)
    if p.skips:
        packed[p.g * p.group_pitch] = finite


cdef class Convolution:
    """A plan, lowered: ``pack`` the weights, then ``run`` it on arrays.

    Parameters
    ----------
    plan : pyconv._plan.Plan
        Made for this module's vector width and variants.
    """

    cdef:
        Lowered p
        void *tables

    def __cinit__(self, plan):
        cdef Lowered *p = &self.p
        problem, tile, blocks = plan.problem, plan.tile, plan.blocks
        p.role = ROLES[tile.role]
        same = SUMS[0] if problem.dtype in SUMS[0] else SUMS[1]
        p.dtype = FLOAT32 if same is SUMS[0] else FLOAT64
        p.pixel = p.dtype if problem.src_dtype in same else PIXELS.index(problem.src_dtype)
        p.result = p.dtype if problem.dst_dtype in same else PIXELS.index(problem.dst_dtype)
        p.pixel_bytes, p.lanes = plan.pixel_bytes, tile.lanes
        p.row_reach = (problem.kh - 1) * problem.dh
        p.col_reach = (problem.kw - 1) * problem.dw
        p.padding_mode = PADDING_MODES.index(problem.padding_mode)
        p.mb, p.g, p.oh, p.ow, p.kh, p.kw = problem.mb, plan.g, problem.oh, problem.ow, problem.kh, problem.kw
        p.icg, p.ocg = plan.icg, plan.ocg
        p.NV = tile.NV
        for nv, m in enumerate(tile.M, start=1):
            p.M[nv] = m
        p.dh, p.dw, p.sh, p.sw = problem.dh, problem.dw, problem.sh, problem.sw
        p.skips = plan.skips
        p.reads_image = plan.reads_image
        p.slot, p.band = blocks.slot, blocks.band
        p.repeats, p.source_slot, p.source_offset = tile.repeats(problem), plan.source_slot, plan.strip_size
        p.l1_ways, p.l2_ways = plan.l1_ways, plan.l2_ways
        p.g_blk, p.g_strip = blocks.g_blk, blocks.g_strip
        p.oh_blk, p.ow_blk, p.ic_blk = blocks.oh_blk, blocks.ow_blk, blocks.ic_blk
        p.n_g_blk = plan.n_g_blk
        p.n_oh_blk, p.n_ow_blk, p.n_ic_blk = plan.n_oh_blk, plan.n_ow_blk, plan.n_ic_blk
        p.n_oc_part, p.n_oc_task = blocks.n_oc_part, blocks.n_oc_task
        self._set_channels(plan)
        self._set_strip(plan)
        p.n_tasks, p.tiles_per_task = plan.n_tasks, plan.tiles_per_task
        p.ic_slice, p.n_buffers, p.rows_held = blocks.ic_slice, plan.n_buffers, plan.rows_held
        p.work_per_task = plan.work_per_task

    cdef _set_channels(self, plan):
        cdef:
            Lowered *p = &self.p
        p.oc_split = split(plan.oc_units, plan.n_oc_blk)
        p.task_split = split(plan.n_oc_blk, p.n_oc_task)
        p.unit_pitch, p.group_pitch, p.part_bytes = plan.unit_pitch, plan.group_pitch, plan.part_bytes

    cdef _set_strip(self, plan):
        cdef:
            Lowered *p = &self.p
            Py_ssize_t *offsets
            Segment *segments
        problem, tile, blocks = plan.problem, plan.tile, plan.blocks
        rows, cols = blocks.rows, blocks.cols
        self.tables = calloc(
            p.kh * p.kw * sizeof(Py_ssize_t) + (len(rows.segments) + len(cols.segments)) * sizeof(Segment), 1
        )
        if self.tables == NULL:
            raise MemoryError("the offset tables of a convolution")
        offsets = <Py_ssize_t *> self.tables
        segments = <Segment *> (offsets + p.kh * p.kw)
        p.ic_pitch = cols.length
        p.row_pitch = plan.row_pitch
        p.flat = blocks.flat
        p.panel_pitch = plan.panel_slots if blocks.panel else 0
        p.offset = offsets
        item = tile.vector_bytes // tile.lanes
        for k, (row, col) in enumerate(product(rows.taps, cols.taps)):
            p.offset[k] = (row * p.row_pitch + col * blocks.slot) * item
        # A strip of channel vectors holds the rows and columns of the image as they are.
        sh, sw = (1, 1) if p.role == DEPTHWISE_CHANNELS else (problem.sh, problem.sw)
        p.rows = Axis(problem.ih, problem.pt, sh, len(rows.segments), segments)
        p.cols = Axis(problem.iw, problem.pl, sw, len(cols.segments), segments + len(rows.segments))
        for k, segment in enumerate(rows.segments + cols.segments):
            segments[k] = Segment(segment.first, segment.extra, segment.offset)
        p.strip_bytes, p.tile_bytes = plan.strip_bytes, plan.tile_bytes
        p.thread_bytes = plan.thread_bytes

    def __dealloc__(self):
        free(self.tables)

    def pack(self, weight, bias, packed, Py_ssize_t n_threads):
        """Fill ``packed`` (`packed_size` elements of the plan) from ``weight`` (oc, ic // g[, kh], kw) and ``bias``."""
        cdef:
            Py_buffer to
            Given given
        given = Given(weight, bias)
        PyObject_GetBuffer(packed, &to, PyBUF_STRIDES | PyBUF_WRITABLE)
        try:
            if self.p.dtype == FLOAT32:
                pack_all(&self.p, &given.weights, n_threads, <f32 *> to.buf)
            else:
                pack_all(&self.p, &given.weights, n_threads, <f64 *> to.buf)
        finally:
            PyBuffer_Release(&to)

    def run(self, x, packed, out, Py_ssize_t n_threads, int axes, bint flush=False):
        """Convolve ``x`` (mb, ic, ih, iw) with packed weights into ``out`` (mb, oc, oh, ow), any strides.

        The batch axis may be missing, and with `axes` 1 the height is. A problem of one row takes images whose rows
        follow one another as one row. Complex ``x`` and ``out`` have half as many channels: each is a pair of the
        problem's. ``flush``: subnormal numbers are zeros.
        """
        cdef:
            Py_buffer weights
            Call call
        PyObject_GetBuffer(packed, &weights, PyBUF_STRIDES)
        try:
            call.packed = <const char *> weights.buf
            call.weights = NULL
            self._call(&call, x, out, n_threads, axes, flush)
        finally:
            PyBuffer_Release(&weights)

    def run_packing(self, x, weight, bias, out, Py_ssize_t n_threads, int axes, bint flush=False):
        """The same with weights as they are, for plans that pack them in their tasks."""
        cdef:
            Given given
            Call call
        given = Given(weight, bias)
        call.packed = NULL
        call.weights = &given.weights
        self._call(&call, x, out, n_threads, axes, flush)

    cdef _call(self, Call *call, x, out, Py_ssize_t n_threads, int axes, bint flush):
        cdef:
            Py_buffer xb, ob
            Py_ssize_t sum_bytes = sizeof(f32) if self.p.dtype == FLOAT32 else sizeof(f64)
        PyObject_GetBuffer(x, &xb, PyBUF_STRIDES)
        try:
            PyObject_GetBuffer(out, &ob, PyBUF_STRIDES | PyBUF_WRITABLE)
            try:
                set_strides(call.x_stride, &xb, axes, self.p.rows.extent == 1)
                set_strides(call.out_stride, &ob, axes, self.p.oh == 1)
                call.x_pair = take_parts(call.x_stride, &xb, self.p.pixel_bytes)
                call.out_pair = take_parts(call.out_stride, &ob, sum_bytes)
                call.float_state = float_state() | (FLUSHING if flush else 0)
                call.x = <const char *> xb.buf
                call.out = <char *> ob.buf
                self._run(call, n_threads)
            finally:
                PyBuffer_Release(&ob)
        finally:
            PyBuffer_Release(&xb)

    cdef _run(self, Call *call, Py_ssize_t n_threads):
        cdef:
            Lowered *p = &self.p
            Py_ssize_t begin = 0
            Py_ssize_t end, t, i
            # Between so many a pending Ctrl-C is answered: 2 GFLOP are some 20 ms of a core at its best.
            Py_ssize_t tasks_at_once = n_threads * max(1, 2_000_000_000 // p.work_per_task)
            Queue *queues
            void *scratch = NULL
            Py_ssize_t thread_bytes = p.thread_bytes + (p.part_bytes if call.packed == NULL else 0)
            # Prefetchers go on from one thread's scratch into the next one's, but not from page to page (measured, two
            # threads: up to 15 %).
            Py_ssize_t alignment = CACHE_LINE if n_threads == 1 else PAGE
            Py_ssize_t bytes = n_threads * up_to(alignment, thread_bytes)
            Py_ssize_t queue_bytes = n_threads * <Py_ssize_t> sizeof(Queue)
            Py_ssize_t all_bytes = bytes + queue_bytes + p.kh * p.kw * <Py_ssize_t> sizeof(Py_ssize_t)
        if posix_memalign(&scratch, alignment, all_bytes) != 0:
            raise MemoryError(f"{all_bytes} bytes of scratch for a convolution")
        call.scratch = <char *> scratch
        call.thread_bytes = bytes // n_threads
        call.apart = p.result != p.dtype or is_split(call)
        queues = <Queue *> (call.scratch + bytes)
        call.offset = <Py_ssize_t *> (call.scratch + bytes + queue_bytes)
        call.in_place = in_place(p, call)
        call.skips = p.skips and not rounds_down(call.float_state)
        for i in range(p.kh * p.kw if call.in_place else 0):
            call.offset[i] = i // p.kw * p.dh * call.x_stride[2] + i % p.kw * p.dw * call.x_stride[3]
        try:
            # Sums are transposed 8 or 16 rows at a time: those past the last one are read before they are dropped.
            for i in range(n_threads):
                memset(call.scratch + i * call.thread_bytes + p.strip_bytes, 0, p.thread_bytes - p.strip_bytes)
            while begin < p.n_tasks:
                end = min(p.n_tasks, begin + tasks_at_once)
                with nogil:
                    if n_threads == 1:
                        for t in range(begin, end):
                            run_task(p, call, t, 0)
                    else:
                        deal(queues, n_threads, begin, end)
                        with parallel(num_threads=<int> n_threads):
                            run_tasks(p, call, queues, n_threads, threadid())
                begin = end
                if begin < p.n_tasks:
                    PyErr_CheckSignals()
        finally:
            free(scratch)

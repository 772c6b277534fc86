# Tasks by thread: a range for each, of tasks that follow one another, and none idle while another has some left.
#
#     tasks      0 1 2 3 | 4 5 6 7 | 8 9 10        each thread goes through its own range from the front,
#     threads    0         1         2             then on through what is left of the next thread's, and the next
#
# What a thread writes lies together that way, and where it has written before: lines that two threads write go from
# cache to cache (_shares.py), which OpenMP's dynamic schedule, task by task, does for all of them. Its static schedule
# waits for a thread whose core something else wants.

from pyconv._ahead cimport LINE

cdef extern from * nogil:
    enum: __ATOMIC_RELAXED
    Py_ssize_t fetch_add "__atomic_fetch_add" (Py_ssize_t *, Py_ssize_t, int) noexcept


cdef struct Range:
    Py_ssize_t next, end


cdef union Queue:
    # A line of its own, which no other thread's turns take away.
    Range range
    char line[LINE]


cdef inline void deal(Queue *queues, Py_ssize_t n, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    # The tasks [begin, end) among n threads.
    cdef Py_ssize_t i
    for i in range(n):
        queues[i].range.next = begin + (end - begin) * i // n
        queues[i].range.end = begin + (end - begin) * (i + 1) // n


cdef inline Py_ssize_t next_task(Queue *queues, Py_ssize_t n, Py_ssize_t thread, Py_ssize_t *passed) noexcept nogil:
    # One that no thread has begun, -1 if there is none. `passed`, first 0, counts the ranges found empty.
    cdef Queue *queue
    cdef Py_ssize_t task
    while passed[0] < n:
        queue = queues + (thread + passed[0]) % n
        task = fetch_add(&queue.range.next, 1, __ATOMIC_RELAXED)
        if task < queue.range.end:
            return task
        passed[0] += 1
    return -1

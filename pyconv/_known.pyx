"""What a call is recognised by when it comes again. Compiled without architecture flags: it runs before all else.

A call is the same as one before if its settings are the same objects and its arrays have the same layouts. To ask that
in Python costs as much as a small convolution. NumPy tells the layout of an array in one object, a capsule around a
struct that C programs read: https://numpy.org/doc/stable/reference/arrays.interface.html#c-struct-access
"""

from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.string cimport memcmp

cdef enum:
    ALIGNED = 0x100  # NumPy's flag of an array
    AXES = 4  # of images, and the most of any array here
    SETTINGS = 5  # of a call

cdef struct ArrayInterface:
    int two
    int ndim
    char kind
    int itemsize
    int flags
    Py_ssize_t *shape
    Py_ssize_t *strides
    void *data
    void *descr


cdef class Layout:
    """What NumPy arrays have in common that can take each other's place: dtype, shape and strides; all are aligned."""

    cdef:
        object ndarray, dtype
        int ndim
        Py_ssize_t shape[AXES]
        Py_ssize_t strides[AXES]

    def __cinit__(self, ndarray, dtype, shape, strides):
        self.ndarray, self.dtype, self.ndim = ndarray, dtype, len(shape)
        if self.ndim > AXES or len(strides) != self.ndim:
            raise ValueError(f"at most 4 axes, each with a stride, got {shape} and {strides}")
        for axis in range(self.ndim):
            self.shape[axis], self.strides[axis] = shape[axis], strides[axis]

    cpdef bint fits(self, array) except -1:
        """Whether an object is such an array (and not a subclass's): to ask for each takes three times as long.

        The buffer protocol would not do: of contiguous arrays it makes up the strides of axes of length 1.
        """
        cdef:
            const ArrayInterface *found
            Py_ssize_t size = self.ndim * <Py_ssize_t> sizeof(Py_ssize_t)
        if type(array) is not self.ndarray or array.dtype is not self.dtype:
            return False
        capsule = array.__array_struct__
        found = <const ArrayInterface *> PyCapsule_GetPointer(capsule, NULL)
        return (
            found.ndim == self.ndim and found.flags & ALIGNED
            and memcmp(found.shape, self.shape, size) == 0 and memcmp(found.strides, self.strides, size) == 0
        )


cdef class Known:
    """A call that was made, with what another of the same is recognised by. It never changes: threads may share it.

    Parameters
    ----------
    input, weight, bias : Layout or None
        None for a weight that need not be looked at, nor then the bias; else for a bias that is None.
    settings : tuple
        Five objects that cannot change.
    call : object
        What to return.
    """

    cdef:
        Layout input, weight, bias
        tuple settings
        object call

    def __cinit__(self, Layout input not None, Layout weight, Layout bias, tuple settings not None, call):
        if len(settings) != SETTINGS:
            raise ValueError(f"a call has {SETTINGS} settings, got {settings}")
        self.input, self.weight, self.bias, self.settings, self.call = input, weight, bias, settings, call

    def recall(self, input, weight, bias, tuple settings not None):
        """Return the call, if this is another of the same, else None."""
        # The very same settings, not equal ones: True is no stride, though it equals 1.
        if len(settings) != SETTINGS:
            return None
        for i in range(SETTINGS):
            if settings[i] is not self.settings[i]:
                return None
        if not self.input.fits(input):
            return None
        if self.weight is not None:
            if not self.weight.fits(weight):
                return None
            if (bias is not None) if self.bias is None else not self.bias.fits(bias):
                return None
        return self.call

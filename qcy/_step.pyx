"""One bound call of a kernel: what direct calls run once, and programs run in a row.

Design
------
a. A kernel's public function takes operands, checks nothing and computes nothing: it returns a
   `Step`, which is a C function, a block of arguments for it, and the scratch memory it wants. The
   same loop therefore serves a call that runs once, a bound call that runs often, and a program.
b. An operand is an array, or a `Place` in a memory that is not there yet. `at` makes either an
   address when the step runs: an array's memory is `ABSOLUTE`, whose base is 0. So a step that
   knows its arrays runs by itself, and one that knows its place in an arena runs in many at once.
c. A step owns nothing that changes while it runs: any number of threads may run it at once.
"""
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

import numpy as np

from qcy._threads cimport borrow, give_back

cdef set _plain = {int, float, str, tuple, type(None)}
#: Kinds of arguments that are no arrays; asking any other whether it is one takes longer.
PLAIN = _plain
cdef object NDARRAY = np.ndarray


cdef class Place:
    """Where an array will lie when a program runs: what a `Recorder` hands out.

    It has as much of an array's manners as primitives need. Their results, given a place, are
    places.

    Parameters
    ----------
    memory : int
        Which memory of the run.
    offset : int
        Bytes from its start.
    shape : sequence of int
    dtype : dtype
    recorder : Recorder
    """

    def __init__(self, int memory, Py_ssize_t offset, shape=(), dtype=None, recorder=None):
        self.where.memory = memory
        self.where.offset = offset
        self.shape = tuple(shape)
        self.dtype = np.dtype(dtype)
        self.recorder = recorder

    @property
    def memory(self):
        """Which memory of the run."""
        return self.where.memory

    @property
    def offset(self):
        """Bytes from its start."""
        return self.where.offset

    @property
    def ndim(self):
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self):
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __len__(self):
        if not self.shape:
            raise TypeError("a place without axes has no length")
        return self.shape[0]

    def reshape(self, *shape):
        """Return the same place with another shape."""
        shape = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple) else shape
        shape = list(shape)
        if -1 in shape:
            known = -int(np.prod(shape, dtype=np.int64))
            shape[shape.index(-1)] = self.size // known if known else 0
        if int(np.prod(shape, dtype=np.int64)) != self.size:
            raise ValueError(f"shape {tuple(shape)} does not fit {self.shape}")
        return Place(self.where.memory, self.where.offset, shape, self.dtype, self.recorder)

    def __repr__(self):
        return f"Place({self.where.memory}, {self.where.offset}, {self.shape}, {self.dtype})"


cdef place_t place_of(object operand, list owners) except *:
    """Return where an operand lies; an array is kept alive by `owners`."""
    cdef place_t where
    cdef Py_buffer buffer
    if type(operand) is Place:
        return (<Place> operand).where
    where.memory = ABSOLUTE
    where.offset = 0
    if operand is not None:
        PyObject_GetBuffer(operand, &buffer, PyBUF_SIMPLE)
        where.offset = <Py_ssize_t> buffer.buf
        PyBuffer_Release(&buffer)
        owners.append(operand)
    return where


cdef bint _overlap(object out, const Py_buffer* written, object given) except -1:
    """Whether an operand shares memory with an output, as far as bounds tell."""
    cdef Py_buffer read
    cdef bint result
    if type(given) is not NDARRAY and not hasattr(type(given), "__array__"):
        return False
    try:
        PyObject_GetBuffer(given, &read, PyBUF_SIMPLE)
    except (BufferError, ValueError, TypeError):        # not in one piece, or a Tensor
        return np.may_share_memory(out, np.asarray(given))
    if written == NULL:
        result = np.may_share_memory(out, given)
    else:
        result = (
            written.len > 0 and read.len > 0
            and <char*> written.buf < <char*> read.buf + read.len
            and <char*> read.buf < <char*> written.buf + written.len
        )
    PyBuffer_Release(&read)
    return result


def check_apart(out, tuple args not None, dict kwargs=None):
    """Check that an output overlaps no argument, as it was given and not as it is converted.

    Raises
    ------
    ValueError
        If it does.
    """
    cdef Py_buffer buffer
    cdef const Py_buffer* written = &buffer
    cdef bint shared = False
    if not isinstance(out, NDARRAY):
        return                          # refused elsewhere
    try:
        PyObject_GetBuffer(out, &buffer, PyBUF_SIMPLE)
    except (BufferError, ValueError):                   # not in one piece: refused elsewhere
        written = NULL
    try:
        for value in args:
            if type(value) not in _plain:
                shared = shared or _overlap(out, written, value)
        if kwargs is not None:
            for name, value in kwargs.items():
                if type(value) not in _plain and name != "out":
                    shared = shared or _overlap(out, written, value)
    finally:
        if written != NULL:
            PyBuffer_Release(&buffer)
    if shared:
        raise ValueError("out must not overlap an input")


cdef Step new_step(run_t function, const void* args, size_t size, list owners):
    """Return a step with a copy of its arguments."""
    cdef Step step = Step.__new__(Step)
    step.args = malloc(size)
    if step.args == NULL:
        raise MemoryError("no room for a step's arguments")
    memcpy(step.args, args, size)
    step.function = function
    step.owners = owners
    step.most_threads = 2147483647
    step.complaint = "the kernel found {} values that it cannot compute with"
    return step


cdef class Step:
    """A kernel and its arguments, ready to run."""

    def __dealloc__(self):
        free(self.args)

    cdef Py_ssize_t scratch_for(self, int n_threads) noexcept nogil:
        return self.scratch + n_threads * self.scratch_per_thread

    cpdef run(self, object n_threads=None):
        """Run the step, all of whose operands are arrays.

        Parameters
        ----------
        n_threads : int, optional
            Threads to use at most. Default: see `qcy.threads`.

        Raises
        ------
        ValueError
            If the kernel found something in its input that it cannot compute with.
        """
        cdef uint8_t* memories[N_MEMORIES]
        cdef long taken = borrow(n_threads, self.most_threads), found = 0
        cdef void* scratch = NULL
        cdef Py_ssize_t size = self.scratch_for(<int> taken)
        memories[ABSOLUTE] = memories[SCRATCH] = memories[ARENA] = NULL
        try:
            if size > 0:
                scratch = malloc(size + 64)
                if scratch == NULL:
                    raise MemoryError(f"no room for {size} bytes of scratch memory")
                memories[SCRATCH] = <uint8_t*> ((<size_t> scratch + 63) & ~<size_t> 63)
            with nogil:
                found = self.function(self.args, memories, <int> taken)
        finally:
            free(scratch)
            give_back(taken)
        if found:
            raise ValueError(self.complaint.format(found))


cdef class BoundCall:
    """A call whose arguments were checked once, ready to run often.

    It reads its inputs where they lie, and writes its result to `out`. It may run in several
    threads at once only if nothing but `out` of one of them is looked at, as they all write there.

    Attributes
    ----------
    out : ndarray
        Where the result goes.
    """

    def __init__(self, Step step not None, out, n_threads=None):
        self.step = step
        self.out = out
        self.n_threads = n_threads

    def __call__(self):
        self.step.run(self.n_threads)
        return self.out

    def __repr__(self):
        return f"BoundCall(out={self.out.dtype} of shape {self.out.shape})"

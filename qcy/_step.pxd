"""One bound call of a kernel: what direct calls run once, and programs run in a row."""
from libc.stdint cimport uint8_t

cdef enum:
    ABSOLUTE = 0        # memories[0] is NULL: an offset into it is an address
    SCRATCH = 1         # memories[1] is what a kernel may write on while it runs
    ARENA = 2           # memories[2] holds what one step of a program leaves for the next
    N_MEMORIES = 3

# Where an operand lies: in one of the memories, and how far into it.
cdef struct place_t:
    int memory
    Py_ssize_t offset

# Returns 0, or what went wrong: a kernel says how many NaNs it saw.
ctypedef long (*run_t)(const void* args, uint8_t** memories, int n_threads) noexcept nogil


cdef inline void* at(place_t place, uint8_t** memories) noexcept nogil:
    """Return where an operand lies, now that the memories are known."""
    return <void*> (<size_t> memories[place.memory] + <size_t> place.offset)


cdef class Place:
    cdef place_t where
    cdef readonly tuple shape
    cdef readonly object dtype
    cdef readonly object recorder


cdef class Step:
    cdef run_t function
    cdef void* args
    cdef readonly object owners             # what the operands' memory belongs to
    cdef readonly int most_threads          # it never gains from more
    cdef public str complaint               # of an error in its input, that {} are wrong
    cdef Py_ssize_t scratch                 # bytes, for all threads
    cdef Py_ssize_t scratch_per_thread      # bytes, and these for each
    cdef Py_ssize_t scratch_for(self, int n_threads) noexcept nogil
    cpdef run(self, object n_threads=*)


cdef class BoundCall:
    cdef Step step
    cdef readonly object out
    cdef object n_threads


cdef place_t place_of(object operand, list owners) except *
cdef Step new_step(run_t function, const void* args, size_t size, list owners)

"""A flat list of bound kernel calls that run one after another, without Python in between."""
from qcy._step cimport run_t


# One step, for loops without Python.
cdef struct call_t:
    run_t function
    const void* args
    int most_threads
    Py_ssize_t scratch
    Py_ssize_t scratch_per_thread


cdef class Arena:
    cdef void* memory
    cdef Py_ssize_t size


cdef class Program:
    cdef readonly tuple steps
    cdef readonly Py_ssize_t arena_bytes
    cdef call_t* calls
    cdef Py_ssize_t n_steps
    cdef int most_threads
    cdef list idle
    cdef Py_ssize_t scratch_for(self, int n_threads) noexcept nogil
    cdef Arena take_arena(self, Py_ssize_t size)


cdef class BoundProgram:
    cdef Program program
    cdef tuple arrays
    cdef void** addresses
    cdef object n_threads
    cdef readonly object out
    cdef int run(self, object ends, list stamps) except -1

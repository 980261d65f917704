"""A flat list of bound kernel calls that run one after another, without Python in between.

Design
------
a. Steps are collected by a `Recorder` (_recorder.py), which also plans where their results lie.
b. A `Program` changes nothing of its own while it runs. Each run takes an arena, and gives it back
   for the next; any number of threads may run one program at once.
"""
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t
from libc.stdlib cimport free, malloc

from time import perf_counter_ns

from qcy._step cimport ABSOLUTE, ARENA, N_MEMORIES, SCRATCH, Step
from qcy._threads cimport borrow, give_back

#: Which memory of a run holds its arena, and which is the first that it is given.
ARENA_MEMORY = ARENA
FIRST_PORT = N_MEMORIES

cdef enum:
    LINE = 64               # bytes of a cache line
    MOST_PORTS = 64         # arrays that one run is given


cdef class Arena:
    """Memory of one run, on a cache line."""

    def __dealloc__(self):
        free(self.memory)


cdef class Program:
    """Steps and the size of what they need.

    Parameters
    ----------
    recorder : Recorder
    """

    def __init__(self, recorder):
        cdef Step step
        cdef Py_ssize_t i
        self.steps = tuple(recorder.steps)
        self.arena_bytes = recorder.size
        self.n_steps = len(self.steps)
        self.most_threads = 1
        self.idle = []
        self.calls = <call_t*> malloc(max(1, self.n_steps) * sizeof(call_t))
        if self.calls == NULL:
            raise MemoryError("no room for the steps of a program")
        for i in range(self.n_steps):
            step = self.steps[i]
            self.calls[i].function = step.function
            self.calls[i].args = step.args
            self.calls[i].most_threads = step.most_threads
            self.calls[i].scratch = step.scratch
            self.calls[i].scratch_per_thread = step.scratch_per_thread
            self.most_threads = max(self.most_threads, step.most_threads)

    def __dealloc__(self):
        free(self.calls)

    cdef Py_ssize_t scratch_for(self, int n_threads) noexcept nogil:
        """Return the bytes of scratch memory that the neediest step takes."""
        cdef Py_ssize_t most = 0, i
        cdef const call_t* call
        for i in range(self.n_steps):
            call = &self.calls[i]
            most = max(
                most,
                call.scratch + min(n_threads, call.most_threads) * call.scratch_per_thread,
            )
        return most

    cdef Arena take_arena(self, Py_ssize_t size):
        cdef Arena arena
        try:
            arena = self.idle.pop()
            if arena.size >= size:
                return arena
        except IndexError:
            pass
        arena = Arena.__new__(Arena)
        arena.memory = malloc(size + LINE)
        if arena.memory == NULL:
            raise MemoryError(f"no room for {size} bytes of a program's results")
        arena.size = size
        return arena

    def bind(self, arrays, out, n_threads=None):
        """Return the program with its arrays, ready to run.

        Parameters
        ----------
        arrays : sequence of ndarray
            One for each port: C-ordered, of its shape and dtype.
        out : object
            What a call returns.
        n_threads : int, optional
        """
        return BoundProgram(self, tuple(arrays), out, n_threads)

    def __repr__(self):
        return f"Program({self.n_steps} steps, {self.arena_bytes} bytes)"


cdef class BoundProgram:
    """A program and its arrays, ready to run often.

    It reads its inputs where they lie, and writes its results where `out` is.

    Attributes
    ----------
    out : ndarray, or tuple of them
        Where the results go.
    """

    def __init__(self, Program program not None, tuple arrays not None, out, n_threads=None):
        cdef Py_buffer buffer
        self.program = program
        self.arrays = arrays
        self.out = out
        self.n_threads = n_threads
        if len(arrays) > MOST_PORTS:
            raise ValueError(f"a program has at most {MOST_PORTS} inputs and outputs")
        self.addresses = <void**> malloc(max(1, len(arrays)) * sizeof(void*))
        if self.addresses == NULL:
            raise MemoryError("no room for the addresses of a program's arrays")
        for i, array in enumerate(arrays):
            PyObject_GetBuffer(array, &buffer, PyBUF_SIMPLE)
            self.addresses[i] = buffer.buf
            PyBuffer_Release(&buffer)

    def __dealloc__(self):
        free(self.addresses)

    def __call__(self):
        self.run(None, None)
        return self.out

    def timed(self, ends):
        """Run once, and return how long each range of steps took.

        Parameters
        ----------
        ends : sequence of int
            Where each range ends, and the next begins; the last is the number of steps.

        Returns
        -------
        list of int
            Nanoseconds of each range, with what looking at the clock costs.
        """
        cdef list stamps = []
        self.run(ends, stamps)
        return [after - before for before, after in zip(stamps, stamps[1:])]

    cdef int run(self, object ends, list stamps) except -1:
        """Run all steps: at once, or by ranges with a look at the clock after each."""
        cdef uint8_t* memories[N_MEMORIES + MOST_PORTS]
        cdef Program program = self.program
        cdef long taken = borrow(self.n_threads, program.most_threads), found = 0
        cdef Py_ssize_t i, end
        cdef Arena arena
        cdef int n_threads = <int> taken
        try:
            arena = program.take_arena(program.arena_bytes + program.scratch_for(n_threads) + LINE)
            memories[ABSOLUTE] = NULL
            memories[ARENA] = <uint8_t*> (
                (<size_t> arena.memory + LINE - 1) & ~<size_t> (LINE - 1)
            )
            memories[SCRATCH] = memories[ARENA] + program.arena_bytes
            for i in range(len(self.arrays)):
                memories[N_MEMORIES + i] = <uint8_t*> self.addresses[i]
            i = 0
            if stamps is not None:
                stamps.append(perf_counter_ns())
                for end in ends:
                    with nogil:
                        i = run_calls(program.calls, i, end, memories, n_threads, &found)
                    if found:
                        break
                    stamps.append(perf_counter_ns())
            else:
                with nogil:
                    i = run_calls(program.calls, 0, program.n_steps, memories, n_threads, &found)
            program.idle.append(arena)
        finally:
            give_back(taken)
        if found:
            raise ValueError((<Step> program.steps[i]).complaint.format(found))
        return 0

    def __repr__(self):
        return f"BoundProgram({self.program.n_steps} steps)"


cdef Py_ssize_t run_calls(
    const call_t* calls, Py_ssize_t first, Py_ssize_t end, uint8_t** memories, int n_threads,
    long* found
) noexcept nogil:
    """Run steps in a row; return the first that complains, or the end."""
    cdef Py_ssize_t i
    for i in range(first, end):
        found[0] = calls[i].function(calls[i].args, memories, min(n_threads, calls[i].most_threads))
        if found[0]:
            return i
    return end

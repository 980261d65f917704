"""The machine's limit: products whose operands and sums never leave the registers."""
from libc.stdint cimport int8_t, int32_t, uint8_t
from libc.string cimport memset

from qcy._step cimport SCRATCH, Step, new_step
from qcy._threads cimport parallel_for

cdef extern from "peak.h":
    Py_ssize_t QCY_PEAK_OPS
    void qcy_peak_run(
        const uint8_t* a, const int8_t* b, Py_ssize_t n, int32_t* out
    ) noexcept nogil

cdef enum:
    PEAK_BYTES = 4096       # words of A, a step of a panel, and a tile of sums


cdef struct peak_t:
    Py_ssize_t n_steps
    Py_ssize_t n_tasks
    uint8_t* scratch


cdef void _peak_task(const void* args, Py_ssize_t index, int worker) noexcept nogil:
    cdef const peak_t* peak_ = <const peak_t*> args
    cdef uint8_t* scratch = peak_.scratch + worker * PEAK_BYTES
    memset(scratch, 1, PEAK_BYTES)
    qcy_peak_run(
        scratch, <const int8_t*> scratch + 128, peak_.n_steps, <int32_t*> (scratch + 2048)
    )


cdef long _run_peak(const void* args, uint8_t** memories, int n_threads) noexcept nogil:
    cdef peak_t peak_ = (<const peak_t*> args)[0]
    peak_.scratch = memories[SCRATCH]
    parallel_for(_peak_task, &peak_, peak_.n_tasks, n_threads)
    return 0


def peak(Py_ssize_t n_steps, Py_ssize_t n_tasks, /):
    """Return the step of products that no memory holds up, and how many operations it is."""
    cdef peak_t peak_
    cdef Step step
    peak_.n_steps = n_steps
    peak_.n_tasks = n_tasks
    step = new_step(_run_peak, &peak_, sizeof(peak_), [])
    step.scratch_per_thread = PEAK_BYTES
    return step, QCY_PEAK_OPS * n_steps * n_tasks

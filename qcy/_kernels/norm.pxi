"""Layer normalization of rows of codes."""
from libc.stdint cimport uint8_t
from libc.string cimport memset

from qcy._kernels._output cimport output_from, qcy_output
from qcy._step cimport Step, at, new_step, place_of, place_t
from qcy._threads cimport parallel_for

cdef extern from "rows.h":
    ctypedef struct qcy_norm:
        double epsilon
        const float* factor
        const float* shift
        uint8_t flip
        qcy_output out
    enum:
        QCY_BLOCK
    void qcy_norm_row(
        const uint8_t* codes, Py_ssize_t n, const qcy_norm* norm, uint8_t* out
    ) noexcept nogil

#: Factors and shifts have a multiple of it.
BLOCK = QCY_BLOCK

cdef enum:
    NORM_CHUNK = 16384           # codes that a thread takes at a time, about
    NORM_FEWEST = 65536          # codes below which waking threads costs more than they save


cdef struct norm_t:
    place_t codes
    place_t out
    Py_ssize_t n_rows
    Py_ssize_t n_cols
    Py_ssize_t rows_per_task
    qcy_norm norm
    # What one run adds:
    uint8_t** memories


cdef void _norm_task(const void* args, Py_ssize_t index, int worker) noexcept nogil:
    cdef const norm_t* run = <const norm_t*> args
    cdef Py_ssize_t i, first = index * run.rows_per_task
    cdef const uint8_t* codes = <const uint8_t*> at(run.codes, run.memories)
    cdef uint8_t* out = <uint8_t*> at(run.out, run.memories)
    for i in range(first, min(run.n_rows, first + run.rows_per_task)):
        qcy_norm_row(codes + i * run.n_cols, run.n_cols, &run.norm, out + i * run.n_cols)


cdef long _run_norm(const void* args, uint8_t** memories, int n_threads) noexcept nogil:
    cdef norm_t run = (<const norm_t*> args)[0]
    run.memories = memories
    parallel_for(
        _norm_task, &run, (run.n_rows + run.rows_per_task - 1) // run.rows_per_task, n_threads
    )
    return 0


def layer_norm(
    object codes,               # (M, N)
    Py_ssize_t n_rows,
    Py_ssize_t n_cols,          # at least 1, at most 65536
    double epsilon,             # in units of (a step of the input times N)**2
    const float[::1] factor,    # (N, padded to a multiple of BLOCK)
    const float[::1] shift,
    uint8_t flip,               # 0x80: the input is int8
    tuple target,               # zero point, low, high, flip as uint8; and wild
    object out,                 # (M, N)
    /,
):
    """Return the step of equation (24)."""
    cdef norm_t run
    cdef Step step
    cdef list owners = [factor, shift]
    memset(&run, 0, sizeof(run))
    run.codes = place_of(codes, owners)
    run.out = place_of(out, owners)
    run.n_rows = n_rows
    run.n_cols = n_cols
    run.rows_per_task = max(1, NORM_CHUNK // n_cols)
    run.norm.epsilon = epsilon
    run.norm.factor = &factor[0]
    run.norm.shift = &shift[0]
    run.norm.flip = flip
    run.norm.out = output_from(target)
    step = new_step(_run_norm, &run, sizeof(run), owners)
    if n_rows * n_cols < NORM_FEWEST:
        step.most_threads = 1
    return step

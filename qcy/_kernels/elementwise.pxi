"""Sums, products, clamps and tables of codes, element by element; and the softmax of rows.

Codes come and go as bytes; `flip` 0x80 turns int8 bytes into uint8 and back.
"""
from libc.stdint cimport int32_t, uint8_t
from libc.string cimport memset

from qcy._kernels._output cimport output_from, qcy_output
from qcy._step cimport Step, at, new_step, place_of, place_t
from qcy._threads cimport parallel_for

cdef extern from "elementwise.h":
    ctypedef struct qcy_pair:
        int a_zero
        int b_zero
        int a_signed
        int b_signed
        float a_multiplier
        float b_multiplier
        qcy_output out
    void qcy_add_run(
        const uint8_t* a, const uint8_t* b, Py_ssize_t n, const qcy_pair* pair, uint8_t* out
    ) noexcept nogil
    void qcy_mul_run(
        const uint8_t* a, const uint8_t* b, Py_ssize_t n, const qcy_pair* pair, uint8_t* out
    ) noexcept nogil
    void qcy_clamp_run(
        const uint8_t* codes, Py_ssize_t n, uint8_t low, uint8_t high, uint8_t flip, uint8_t* out
    ) noexcept nogil
    void qcy_lookup_run(
        const uint8_t* codes, Py_ssize_t n, const uint8_t* table, uint8_t* out
    ) noexcept nogil

cdef enum:
    CHUNK = 16384           # elements that a thread takes at a time
    FEWEST = 65536          # elements below which waking threads costs more than they save

ctypedef enum operation_t:
    ADD
    MUL
    CLAMP
    LOOKUP


cdef struct elementwise_t:
    operation_t operation
    place_t a
    place_t b
    place_t out
    Py_ssize_t size
    qcy_pair pair
    uint8_t low                 # of a clamp, as uint8
    uint8_t high
    uint8_t flip
    const uint8_t* table
    # What one run adds:
    uint8_t** memories


cdef void _elementwise_task(const void* args, Py_ssize_t index, int worker) noexcept nogil:
    cdef const elementwise_t* run = <const elementwise_t*> args
    cdef Py_ssize_t first = index * CHUNK, n = min(CHUNK, run.size - index * CHUNK)
    cdef const uint8_t* a = <const uint8_t*> at(run.a, run.memories) + first
    cdef const uint8_t* b = <const uint8_t*> at(run.b, run.memories) + first
    cdef uint8_t* out = <uint8_t*> at(run.out, run.memories) + first
    if run.operation == ADD:
        qcy_add_run(a, b, n, &run.pair, out)
    elif run.operation == MUL:
        qcy_mul_run(a, b, n, &run.pair, out)
    elif run.operation == CLAMP:
        qcy_clamp_run(a, n, run.low, run.high, run.flip, out)
    else:
        qcy_lookup_run(a, n, run.table, out)


cdef long _run_elementwise(const void* args, uint8_t** memories, int n_threads) noexcept nogil:
    cdef elementwise_t run = (<const elementwise_t*> args)[0]
    run.memories = memories
    parallel_for(_elementwise_task, &run, (run.size + CHUNK - 1) // CHUNK, n_threads)
    return 0


cdef Step _elementwise_step(
    elementwise_t* run, operation_t operation, object a, object b, Py_ssize_t size, object out,
    list owners,
):
    cdef Step step
    run.operation = operation
    run.a = place_of(a, owners)
    run.b = place_of(b, owners)
    run.out = place_of(out, owners)
    run.size = size
    step = new_step(_run_elementwise, run, sizeof(elementwise_t), owners)
    if size < FEWEST:
        step.most_threads = 1
    return step


cdef void _set_pair(
    elementwise_t* run, float a_multiplier, float b_multiplier, tuple operands, tuple target
):
    memset(run, 0, sizeof(elementwise_t))
    run.pair.a_multiplier = a_multiplier
    run.pair.b_multiplier = b_multiplier
    (
        run.pair.a_zero, run.pair.b_zero, run.pair.a_signed, run.pair.b_signed,
    ) = operands
    run.pair.out = output_from(target)


def add(
    object a,
    object b,
    Py_ssize_t size,
    float a_multiplier,
    float b_multiplier,
    tuple operands,             # zero points of a and b, and whether they are int8
    tuple target,               # zero point, low, high, flip as uint8; and wild
    object out,
    /,
):
    """Return the step of equation (15): two float32 products, their sum, one rounding."""
    cdef elementwise_t run
    _set_pair(&run, a_multiplier, b_multiplier, operands, target)
    return _elementwise_step(&run, ADD, a, b, size, out, [])


def mul(
    object a,
    object b,
    Py_ssize_t size,
    float multiplier,
    tuple operands,             # zero points of a and b, and whether they are int8
    tuple target,               # zero point, low, high, flip as uint8; and wild
    object out,
    /,
):
    """Return the step of equation (9) on the product of two codes less their zero points."""
    cdef elementwise_t run
    _set_pair(&run, multiplier, 0, operands, target)
    return _elementwise_step(&run, MUL, a, b, size, out, [])


def clamp(
    object codes,
    Py_ssize_t size,
    uint8_t low,                # as uint8
    uint8_t high,
    uint8_t flip,               # 0x80: the codes are int8
    object out,
    /,
):
    """Return the step of equation (14): ReLU and its kin are clamps of codes."""
    cdef elementwise_t run
    memset(&run, 0, sizeof(elementwise_t))
    run.low = low
    run.high = high
    run.flip = flip
    return _elementwise_step(&run, CLAMP, codes, None, size, out, [])


def lookup(
    object codes,
    Py_ssize_t size,
    const uint8_t[::1] table,   # (256,) by the code's byte
    object out,
    /,
):
    """Return the step of equation (17): each code replaced by its entry in a table."""
    cdef elementwise_t run
    memset(&run, 0, sizeof(elementwise_t))
    run.table = &table[0]
    return _elementwise_step(&run, LOOKUP, codes, None, size, out, [table])


# -------------------------------------------------------------------------------------- softmax

cdef struct softmax_t:
    place_t codes
    place_t out
    const int32_t* table
    Py_ssize_t n_rows
    Py_ssize_t n_cols
    int32_t qmin
    int32_t qmax
    uint8_t flip
    # What one run adds:
    uint8_t** memories


cdef void _softmax_row(const void* args, Py_ssize_t index, int worker) noexcept nogil:
    cdef const softmax_t* run = <const softmax_t*> args
    cdef const uint8_t* codes = <const uint8_t*> at(run.codes, run.memories) + index * run.n_cols
    cdef uint8_t* out = <uint8_t*> at(run.out, run.memories) + index * run.n_cols
    cdef Py_ssize_t j
    cdef int32_t largest = 0, code
    cdef unsigned long long total = 0, part
    for j in range(run.n_cols):
        largest = max(largest, <int32_t> (codes[j] ^ run.flip))
    for j in range(run.n_cols):
        total += run.table[largest - (codes[j] ^ run.flip)]
    for j in range(run.n_cols):
        part = run.table[largest - (codes[j] ^ run.flip)]
        part = (512 * part + total) // (2 * total)
        code = run.qmin + <int32_t> part
        out[j] = <uint8_t> min(code, run.qmax)


cdef long _run_softmax(const void* args, uint8_t** memories, int n_threads) noexcept nogil:
    cdef softmax_t run = (<const softmax_t*> args)[0]
    if run.n_cols == 0:
        return 0
    run.memories = memories
    parallel_for(_softmax_row, &run, run.n_rows, n_threads)
    return 0


def softmax(
    object codes,                       # (M, N)
    Py_ssize_t n_rows,
    Py_ssize_t n_cols,
    const int32_t[::1] table,           # (256,) exponentials by distance from the row's largest
    uint8_t flip,                       # 0x80: the codes are int8
    int32_t qmin,                       # of the output
    int32_t qmax,
    object out,                         # (M, N)
    /,
):
    """Return the step of equation (18), integers only."""
    cdef softmax_t run
    cdef Step step
    cdef list owners = [table]
    memset(&run, 0, sizeof(run))
    run.codes = place_of(codes, owners)
    run.out = place_of(out, owners)
    run.table = &table[0]
    run.n_rows = n_rows
    run.n_cols = n_cols
    run.flip = flip
    run.qmin = qmin
    run.qmax = qmax
    step = new_step(_run_softmax, &run, sizeof(run), owners)
    if n_rows * n_cols < FEWEST // 4:
        step.most_threads = 1
    return step

"""Codes moved and not changed: axes in another order, arrays side by side, rows by number."""
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcpy, memset

from qcy._step cimport Step, at, new_step, place_of, place_t
from qcy._threads cimport parallel_for

cdef enum:
    FEWEST = 131072         # codes below which waking threads costs more than they save


# ---------------------------------------------------------------------------------- another order

cdef struct permute_t:
    place_t source
    place_t out
    Py_ssize_t shape[4]         # of the output
    Py_ssize_t step[4]          # in the source, of each axis of the output
    Py_ssize_t offset           # in the source, of the first code
    # What one run adds:
    uint8_t** memories


cdef void _permute_task(const void* args, Py_ssize_t index, int worker) noexcept nogil:
    """Write the codes of one index of the first two axes."""
    cdef const permute_t* p = <const permute_t*> args
    cdef Py_ssize_t rows = p.shape[2], columns = p.shape[3], i, j
    cdef Py_ssize_t row_step = p.step[2], step = p.step[3]
    cdef const uint8_t* source = <const uint8_t*> at(p.source, p.memories)
    cdef uint8_t* out = <uint8_t*> at(p.out, p.memories) + index * rows * columns
    source += p.offset + index // p.shape[1] * p.step[0] + index % p.shape[1] * p.step[1]
    if step == 1:
        for i in range(rows):
            memcpy(out + i * columns, source + i * row_step, columns)
    elif columns == 3:              # colours, the usual case
        for i in range(rows):
            out[3 * i] = source[i * row_step]
            out[3 * i + 1] = source[i * row_step + step]
            out[3 * i + 2] = source[i * row_step + 2 * step]
    else:
        for i in range(rows):
            for j in range(columns):
                out[i * columns + j] = source[i * row_step + j * step]


cdef long _run_permute(const void* args, uint8_t** memories, int n_threads) noexcept nogil:
    cdef permute_t p = (<const permute_t*> args)[0]
    if p.shape[2] * p.shape[3] == 0:
        return 0
    p.memories = memories
    parallel_for(_permute_task, &p, p.shape[0] * p.shape[1], n_threads)
    return 0


def permute(object source, tuple shape, tuple steps, object out, Py_ssize_t offset=0, /):
    """Return the step that writes `source` in another order of its axes.

    `shape` is the output's, four axes of it, `steps` are those of its axes in the source, and
    `offset` is where its first code lies there.
    """
    cdef permute_t p
    cdef Step step
    cdef list owners = []
    cdef int i
    memset(&p, 0, sizeof(p))
    p.source = place_of(source, owners)
    p.out = place_of(out, owners)
    p.offset = offset
    for i in range(4):
        p.shape[i] = shape[i]
        p.step[i] = steps[i]
    step = new_step(_run_permute, &p, sizeof(p), owners)
    if p.shape[0] * p.shape[1] * p.shape[2] * p.shape[3] < FEWEST:
        step.most_threads = 1
    return step


# ---------------------------------------------------------------------------------- side by side

cdef struct beside_t:
    place_t source
    place_t out
    Py_ssize_t n_rows
    Py_ssize_t n_bytes          # of a row of the source
    Py_ssize_t stride           # between rows of the output
    Py_ssize_t offset           # where the source's rows go in them


cdef long _run_beside(const void* args, uint8_t** memories, int n_threads) noexcept nogil:
    cdef const beside_t* p = <const beside_t*> args
    cdef const uint8_t* source = <const uint8_t*> at(p.source, memories)
    cdef uint8_t* out = <uint8_t*> at(p.out, memories) + p.offset
    cdef Py_ssize_t i
    for i in range(p.n_rows):
        memcpy(out + i * p.stride, source + i * p.n_bytes, p.n_bytes)
    return 0


def beside(object source, Py_ssize_t n_rows, Py_ssize_t n_bytes, Py_ssize_t stride,
           Py_ssize_t offset, object out, /):
    """Return the step that writes rows into parts of longer rows."""
    cdef beside_t p
    cdef Step step
    cdef list owners = []
    p.source = place_of(source, owners)
    p.out = place_of(out, owners)
    p.n_rows = n_rows
    p.n_bytes = n_bytes
    p.stride = stride
    p.offset = offset
    step = new_step(_run_beside, &p, sizeof(p), owners)
    step.most_threads = 1
    return step


# ------------------------------------------------------------------------------- rows by number

cdef struct take_t:
    place_t index
    place_t out
    const uint8_t* rows
    Py_ssize_t n_taken
    Py_ssize_t n_rows
    Py_ssize_t n_bytes          # of a row


cdef long _run_take(const void* args, uint8_t** memories, int n_threads) noexcept nogil:
    """Return how many indices are no numbers of rows; they take the first."""
    cdef const take_t* p = <const take_t*> args
    cdef const float* index = <const float*> at(p.index, memories)
    cdef uint8_t* out = <uint8_t*> at(p.out, memories)
    cdef Py_ssize_t i, row
    cdef long n_bad = 0
    for i in range(p.n_taken):
        row = 0
        if 0 <= index[i] < p.n_rows:        # false for a NaN
            row = <Py_ssize_t> index[i]
            n_bad += row != index[i]
        else:
            n_bad += 1
        if p.n_bytes > 0:                   # else there may be no address
            memcpy(out + i * p.n_bytes, p.rows + row * p.n_bytes, p.n_bytes)
    return n_bad


def take(
    object index,                       # (n_taken,) float32
    Py_ssize_t n_taken,
    const uint8_t[:, ::1] rows,
    object out,                         # (n_taken, bytes of a row)
    /,
):
    """Return the step that copies rows by their numbers."""
    cdef take_t p
    cdef Step step
    cdef list owners = [rows]
    p.index = place_of(index, owners)
    p.out = place_of(out, owners)
    p.rows = &rows[0, 0] if rows.shape[1] else NULL
    p.n_taken = n_taken
    p.n_rows = rows.shape[0]
    p.n_bytes = rows.shape[1]
    step = new_step(_run_take, &p, sizeof(p), owners)
    step.most_threads = 1
    step.complaint = f"indices must be whole numbers from 0 to {p.n_rows - 1}; {{}} are not"
    return step


# ---------------------------------------------------------------------------- pieces by their place

cdef enum:
    PIECES_PER_TASK = 4096


cdef struct pieces_t:
    place_t source
    place_t out
    const int64_t* starts       # in the source; below 0: `fill`
    Py_ssize_t n_pieces
    Py_ssize_t n_bytes          # of a piece
    uint8_t fill
    # What one run adds:
    uint8_t** memories


cdef void _pieces_task(const void* args, Py_ssize_t index, int worker) noexcept nogil:
    cdef const pieces_t* p = <const pieces_t*> args
    cdef const uint8_t* source = <const uint8_t*> at(p.source, p.memories)
    cdef uint8_t* out = <uint8_t*> at(p.out, p.memories)
    cdef Py_ssize_t first = index * PIECES_PER_TASK, n_bytes = p.n_bytes, i
    cdef Py_ssize_t end = min(first + PIECES_PER_TASK, p.n_pieces)
    cdef const int64_t* starts = p.starts
    if n_bytes == 1:
        for i in range(first, end):
            out[i] = p.fill if starts[i] < 0 else source[starts[i]]
        return
    for i in range(first, end):
        if starts[i] < 0:
            memset(out + i * n_bytes, p.fill, n_bytes)
        else:
            memcpy(out + i * n_bytes, source + starts[i], n_bytes)


cdef long _run_pieces(const void* args, uint8_t** memories, int n_threads) noexcept nogil:
    cdef pieces_t p = (<const pieces_t*> args)[0]
    p.memories = memories
    parallel_for(
        _pieces_task, &p, (p.n_pieces + PIECES_PER_TASK - 1) // PIECES_PER_TASK, n_threads
    )
    return 0


def pieces(
    object source,
    const int64_t[::1] starts,          # of each piece in the source; below 0: `fill`
    Py_ssize_t n_bytes,                 # of a piece
    uint8_t fill,
    object out,                         # (pieces, n_bytes)
    /,
):
    """Return the step that puts pieces of the source one after another."""
    cdef pieces_t p
    cdef Step step
    cdef list owners = [starts]
    memset(&p, 0, sizeof(p))
    p.source = place_of(source, owners)
    p.out = place_of(out, owners)
    p.starts = &starts[0] if starts.shape[0] else NULL
    p.n_pieces = starts.shape[0]
    p.n_bytes = n_bytes
    p.fill = fill
    step = new_step(_run_pieces, &p, sizeof(p), owners)
    if p.n_pieces * p.n_bytes < FEWEST:
        step.most_threads = 1
    return step

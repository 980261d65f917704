"""What a kernel may ask of threads: run this task so many times."""

# `worker` is below the number of threads: it tells a task which scratch memory is its own.
ctypedef void (*task_t)(const void* args, Py_ssize_t index, int worker) noexcept nogil

cdef void parallel_for(
    task_t task, const void* args, Py_ssize_t n_tasks, int n_threads
) noexcept nogil


# Borrow threads from the process's budget, waiting while all are lent; and give them back.
cdef long borrow(object n_threads, long most) except -1
cdef int give_back(long taken) except -1

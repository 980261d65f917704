"""How many threads a loop gets, and the one parallel loop. The only module that speaks of threads.

Design
------
a. A kernel hands `parallel_for` a task: a C function that is called once per index. A small pool of
   qcy's own (_pool.h) runs it, and where POSIX threads are missing the one ``prange`` in qcy does;
   kernels know of neither, and are built without OpenMP. The pool is there because of what happens
   when another process keeps a core busy: an OpenMP barrier then waits for a share that nobody
   runs, for milliseconds, while the pool's caller takes every task that nobody has begun.
b. Threads are borrowed (`borrow`, `borrowed`) from one budget per process, so that Python threads
   which all call qcy at once do not multiply: together they never run more than the default count,
   or than the largest number that one of them asked for by name. A call waits while nothing is
   left, and takes what there is, at least one.
c. libgomp hangs in a child that was forked after a parallel region, and a pool has lost its
   threads there: such a child runs serially.
"""
import os
import threading
from pathlib import Path

from cython.parallel cimport parallel, prange, threadid

cdef extern from "_pool.h":
    bint QCY_POOL
    ctypedef void (*qcy_task)(const void* args, Py_ssize_t index, int worker) noexcept nogil
    void qcy_run(qcy_task task, const void* args, long n_tasks, int n_threads) noexcept nogil
    void qcy_pool_after_fork()

cdef extern from *:
    """
    #ifdef _OPENMP
    #define QCY_OPENMP 1
    #else
    #define QCY_OPENMP 0
    #endif
    #ifdef _MSC_VER
    #include <intrin.h>
    static long qcy_atomic_add(long volatile *p, long n) { return _InterlockedExchangeAdd(p, n); }
    static int qcy_atomic_swap(long volatile *p, long old, long now)
    {
        return _InterlockedCompareExchange(p, now, old) == old;
    }
    #else
    static long qcy_atomic_add(long volatile *p, long n)
    {
        return __atomic_fetch_add(p, n, __ATOMIC_SEQ_CST);
    }
    static int qcy_atomic_swap(long volatile *p, long old, long now)
    {
        return __atomic_compare_exchange_n(p, &old, now, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }
    #endif
    """
    bint QCY_OPENMP
    long qcy_atomic_add(long* p, long n) nogil
    bint qcy_atomic_swap(long* p, long old, long now) nogil

#: Whether qcy was built with OpenMP.
openmp_enabled = bool(QCY_OPENMP)

# Set by the first parallel region and looked at by a forked child.
cdef bint _has_been_parallel = False
cdef bint _is_serial = False

# Threads that run kernels now, and calls that wait for one of them to end.
cdef long _n_running = 0
cdef long _n_waiting = 0
cdef long _most_running = 0
cdef object _turn = threading.Condition()

_local = threading.local()

#: What runs parallel loops: "pool", qcy's own threads; "openmp"; or "serial". QCY_THREADING=openmp
#: asks for OpenMP where both are there.
threading_layer = (
    "pool" if QCY_POOL and not (QCY_OPENMP and os.environ.get("QCY_THREADING") == "openmp")
    else "openmp" if QCY_OPENMP else "serial"
)
cdef bint _use_pool = threading_layer == "pool"


cdef void parallel_for(
    task_t task, const void* args, Py_ssize_t n_tasks, int n_threads
) noexcept nogil:
    """Call ``task(args, i, worker)`` for every i below `n_tasks`, in any order."""
    global _has_been_parallel
    cdef Py_ssize_t i
    if n_threads > n_tasks:
        n_threads = <int> n_tasks
    if n_threads <= 1 or not (QCY_POOL or QCY_OPENMP):
        for i in range(n_tasks):
            task(args, i, 0)
        return
    _has_been_parallel = True
    if _use_pool:
        qcy_run(task, args, n_tasks, n_threads)
        return
    with parallel(num_threads=n_threads):
        for i in prange(n_tasks, schedule="dynamic"):
            task(args, i, threadid())


def _cgroup_quota():
    """Return how many CPUs the control groups of this process allow, or None."""
    quotas = []
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":           # version 2: one tree
            root = Path("/sys/fs/cgroup")
        elif "cpu" in controllers.split(","):
            root = Path("/sys/fs/cgroup/cpu")
        else:
            continue
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            try:
                if controllers == "":
                    quota, period = (folder / "cpu.max").read_text().split()
                else:
                    quota = (folder / "cpu.cfs_quota_us").read_text()
                    period = (folder / "cpu.cfs_period_us").read_text()
                if quota != "max" and int(quota) > 0:
                    quotas.append(int(quota) / int(period))
            except (OSError, ValueError):
                pass                    # no limit at this level
            if folder == root:
                break
    return min(quotas, default=None)


def _available_cpus():
    """Return the CPUs this process may use: the affinity mask and the cgroup quota, at least 1."""
    try:
        n = len(os.sched_getaffinity(0))
    except AttributeError:              # macOS, Windows
        n = os.cpu_count() or 1
    quota = _cgroup_quota()
    return max(1, n if quota is None else min(n, int(quota)))


cdef long _default = _available_cpus()


#: More would run no faster anywhere, and a number mistyped should not start a million.
MOST_THREADS = 256


def effective_n_threads(n_threads=None, name="n_threads"):
    """Return the number of threads that a call may use.

    Parameters
    ----------
    n_threads : int, optional
        A number asked for by name. Default: that of the `threads` block in force, else the CPUs
        of the affinity mask and the cgroup quota. At most `MOST_THREADS`; always 1 in a child
        forked after a parallel region.
    name : str
        What the caller calls it.

    Raises
    ------
    TypeError, ValueError
        If `n_threads` is not a positive int.
    """
    if n_threads is None:
        n_threads = getattr(_local, "n_threads", None)
        if n_threads is None:
            n_threads = _default
    elif isinstance(n_threads, bool) or not hasattr(n_threads, "__index__"):
        raise TypeError(f"{name} must be an int, got {n_threads!r}")
    elif n_threads < 1:
        raise ValueError(f"{name} must be at least 1, got {n_threads}")
    return 1 if _is_serial else min(int(n_threads), MOST_THREADS)


cdef long _take(long wanted) noexcept:
    """Take up to `wanted` threads from the budget; return 0 if all are lent."""
    global _most_running
    cdef long limit = max(_default, wanted), running, n
    while True:
        running = qcy_atomic_add(&_n_running, 0)
        n = min(wanted, limit - running)
        if n < 1:
            return 0
        if qcy_atomic_swap(&_n_running, running, running + n):
            _most_running = max(_most_running, running + n)
            return n


cdef long borrow(object n_threads, long most) except -1:
    """Borrow the threads that a call may use, but not more than `most`, which it gains from."""
    cdef long wanted = 1, taken
    if most > 1 or n_threads is not None:
        wanted = min(<long> effective_n_threads(n_threads), most)
    taken = _take(wanted)
    if taken == 0:
        with _turn:
            qcy_atomic_add(&_n_waiting, 1)
            try:
                taken = _take(wanted)
                while taken == 0:
                    _turn.wait()
                    taken = _take(wanted)
            finally:
                qcy_atomic_add(&_n_waiting, -1)
            _turn.notify()          # in case it left something for the next in line
    return taken


cdef int give_back(long taken) except -1:
    qcy_atomic_add(&_n_running, -taken)
    if qcy_atomic_add(&_n_waiting, 0) > 0:
        with _turn:
            _turn.notify()
    return 0


cdef class borrowed:
    """Context manager that borrows up to `n_threads` from the process's budget.

    ``with borrowed(n_threads) as n:`` gives the number to run with. It waits while all are lent.
    """

    cdef object wanted
    cdef long taken

    def __init__(self, n_threads=None):
        self.wanted = n_threads

    def __enter__(self):
        self.taken = borrow(self.wanted, 2147483647)
        return self.taken

    def __exit__(self, *exception):
        give_back(self.taken)


class threads:
    """Limit the threads that qcy's calls in this Python thread use, inside a ``with`` block.

    The result of a call never depends on it, byte for byte. The limit belongs to the Python
    thread that set it; blocks nest.

    Parameters
    ----------
    n : int
        Number of threads, at least 1. It may exceed the number of CPUs; above 256 it is 256.

    Raises
    ------
    TypeError, ValueError
        If `n` is not a positive int.

    Examples
    --------
    >>> import qcy
    >>> with qcy.threads(1):
    ...     qcy.info()["threads"]
    1
    """

    def __init__(self, n):
        if n is None:
            raise TypeError("n must be an int, got None")
        effective_n_threads(n, "n")
        self._n = min(int(n), MOST_THREADS)

    def __enter__(self):
        # Kept by the thread, not by the block: several may enter one block at once.
        if not hasattr(_local, "outer"):
            _local.outer = []
        _local.outer.append(getattr(_local, "n_threads", None))
        _local.n_threads = self._n
        return self

    def __exit__(self, *exception):
        _local.n_threads = _local.outer.pop()


def most_running(reset=False):
    """Return the largest number of threads that ran kernels at once so far (for tests)."""
    global _most_running
    most = _most_running
    if reset:
        _most_running = 0
    return most


def _after_fork():
    """In a forked child: nothing is running, and libgomp's threads are gone for good."""
    global _is_serial, _n_running, _n_waiting, _turn
    _n_running = _n_waiting = 0
    _turn = threading.Condition()
    qcy_pool_after_fork()
    _is_serial = _is_serial or _has_been_parallel


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

"""The pool of threads, by itself: every task runs once, and a worker that came late rests."""

import ctypes
import shutil
import subprocess
import time
from pathlib import Path

import pytest

HEADER = Path(__file__).resolve().parent.parent / "qcy" / "_pool.h"
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
# Tasks note who ran them. A worker's take 30 ms, the caller's 1 ms.
SOURCE = r"""
#define _GNU_SOURCE
#include "_pool.h"
#include <string.h>
#include <unistd.h>
typedef struct { int *ran_by; int is_slow; } job;
static void task(const void *args, ptrdiff_t i, int worker)
{
    const job *j = args;
    if (j->is_slow) usleep(worker ? 30000 : 1000);
    j->ran_by[i] += 1 + worker;
}
int pool(void) { return QCY_POOL; }
void run(int *ran_by, long n, int n_threads, int is_slow)
{
    job j = {ran_by, is_slow};
    memset(ran_by, 0, n * sizeof(int));
    qcy_run(task, &j, n, n_threads);
}
"""


@pytest.fixture
def run(tmp_path):
    """Return a function of a new pool, that runs n tasks and returns 1 + the worker of each."""
    if COMPILER is None or not HEADER.exists():
        pytest.skip("no compiler, or no header")
    source, library = tmp_path / "pool.c", tmp_path / "pool.so"
    source.write_text(SOURCE)
    subprocess.run(
        [COMPILER, "-shared", "-fPIC", "-pthread", f"-I{HEADER.parent}", str(source),
         "-o", str(library)], check=True,
    )
    pool = ctypes.CDLL(str(library))
    if not pool.pool():
        pytest.skip("no pool here")

    def run(n_tasks, n_threads, is_slow=False):
        ran_by = (ctypes.c_int * n_tasks)()
        pool.run(ran_by, ctypes.c_long(n_tasks), n_threads, int(is_slow))
        return list(ran_by)

    return run


@pytest.mark.parametrize("n_threads", [2, 3, 8])
def test_every_task_runs_once(run, n_threads):
    for n_tasks in (1, 2, 7, 100) * 20:
        assert all(1 <= by <= n_threads for by in run(n_tasks, n_threads))


def test_a_worker_that_came_late_rests(run):
    for _ in range(100):
        if 2 in run(8, 2, is_slow=True):
            break
        time.sleep(0.02)            # on a busy machine it may not even have come
    else:
        pytest.fail("the worker never ran a task")
    start = time.perf_counter()
    ran_by = run(8, 2, is_slow=True)
    if time.perf_counter() - start > 0.08:
        pytest.skip("this machine is too busy: the rest may have been over")
    assert set(ran_by) == {1}
    time.sleep(0.15)                # its rest is a tenth of a second at most: then it comes again
    assert any(2 in run(64, 2, is_slow=True) for _ in range(20))

"""What a call on two threads takes while another process keeps one core busy.

A barrier would wait for the thread whose core is taken, for a time slice of the system: for
milliseconds, in a call of half of one. `python -m benchmarks.busy`, in the folder above, prints a
table.
"""

import os
import subprocess
import sys
import time

import numpy as np

from qcy import info, primitive

SIZE = 512
N_CALLS = 300
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
LOOP = "import os, sys\nos.sched_setaffinity(0, {int(sys.argv[1])})\nprint(flush=True)\nwhile 1: 0"


class BusyLoop:
    """Context manager: a process that keeps one core busy."""

    def __init__(self, core):
        self.core = core

    def __enter__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-c", LOOP, str(self.core)], stdout=subprocess.PIPE
        )
        self.process.stdout.readline()      # it has begun

    def __exit__(self, *exception):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def bound(n_threads):
    """Return a bound product of codes that has run a few times."""
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (SIZE, SIZE), np.uint8)
    b = primitive.pack_q8(rng.integers(-127, 128, (SIZE, SIZE), np.int8), b_scale=0.01)
    call = b.bind(
        a, np.ones((SIZE, SIZE), np.uint8), a_scale=0.1, out_scale=10.0, n_threads=n_threads
    )
    for _ in range(20):
        call()
    return call


def times(call):
    """Return how long each of `N_CALLS` calls took, in microseconds."""
    found = np.empty(N_CALLS)
    for i in range(N_CALLS):
        start = time.perf_counter()
        call()
        found[i] = (time.perf_counter() - start) * 1e6
    return found


class BusyCore:
    """The promise: median at most 1.6 times, 95th percentile at most 3 times one quiet thread."""

    params = CORES
    param_names = ["busy core"]

    def setup(self, core):
        if len(CORES) < 2:
            raise NotImplementedError
        alone = np.median(times(bound(1)))
        call = bound(2)
        with BusyLoop(core):
            self.ratios = times(call) / alone

    def track_median(self, core):
        return np.median(self.ratios)

    def track_p95(self, core):
        return np.percentile(self.ratios, 95)

    track_median.unit = track_p95.unit = "times one thread on a quiet machine"


def main():
    """Print, quiet and with each core busy, what one and two threads take."""
    print(f"{SIZE}^3, {N_CALLS} bound calls, {info()['variant']}, {info()['threading']};"
          f" load {os.getloadavg()[0]:.1f}")
    one, two = bound(1), bound(2)
    alone = np.median(times(one))
    print("busy   threads   median       p95        longest    median/alone   p95/alone")

    def row(busy, n_threads, call):
        found = times(call)
        median, p95 = np.median(found), np.percentile(found, 95)
        print(f"{busy:<6} {n_threads:>7}   {median:6.0f} us   {p95:6.0f} us   {found.max():6.0f} us"
              f"   {median / alone:12.2f}   {p95 / alone:9.2f}")

    row("none", 1, one)
    row("none", 2, two)
    for core in CORES:
        with BusyLoop(core):
            row(core, 1, one)
            row(core, 2, two)


if __name__ == "__main__":
    main()

"""Timing two things in turn, so that a machine whose speed drifts does not favour one."""

import statistics
import time


def ratio(slow, fast, repeats=40):
    """Return how many times faster `fast` is than `slow`: the ratio of their median times.

    Both are called in turn, after one call each to warm up.
    """
    times = {slow: [], fast: []}
    for call in times:
        call()
    for _ in range(repeats):
        for call, found in times.items():
            start = time.perf_counter()
            call()
            found.append(time.perf_counter() - start)
    return statistics.median(times[slow]) / statistics.median(times[fast])

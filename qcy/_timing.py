"""How long calls take: medians, in turn, so that a machine whose speed drifts favours none."""

import statistics
import time
from itertools import repeat


def medians(calls, rounds, shortest=0.0):
    """Return the median seconds of one call of each of several functions.

    Each is called once to warm up. Then all are measured in turn, round after round.

    Parameters
    ----------
    calls : sequence of callable
        Called without arguments.
    rounds : int
    shortest : float, default 0.0
        A measurement lasts at least about so many seconds: what is quicker is called several times
        in it, so that the clock does not count; and once before it, since the others have had the
        caches.
    """
    numbers = [_calls_in(call, shortest) for call in calls]
    found = [[] for _ in calls]
    for _ in range(rounds):
        for call, number, times in zip(calls, numbers, found, strict=True):
            if shortest:
                call()
            times.append(seconds(call, number) / number)
    return [statistics.median(times) for times in found]


def seconds(call, number=1):
    """Return the seconds that so many calls take."""
    start = time.perf_counter()
    for _ in repeat(None, number):
        call()
    return time.perf_counter() - start


def _calls_in(call, shortest):
    """Warm up, and return how many calls take about so many seconds."""
    call()
    number, taken = 1, seconds(call)
    while taken < shortest:
        number = max(2 * number, int(number * shortest / max(taken, 1e-9)))
        taken = seconds(call, number)
    return number

"""Progress of long loops: tqdm's bar if it is installed, plain lines otherwise."""

import sys
import time


def track(iterable, label, show=True):
    """Yield from `iterable` and show, on standard error, how far it is.

    Parameters
    ----------
    iterable : iterable
    label : str
        What is being done.
    show : bool, default True
    """
    if not show:
        return iterable
    try:
        from tqdm import tqdm
    except ImportError:
        return _lines(iterable, label)
    return tqdm(iterable, desc=label, unit="batch", file=sys.stderr)


def _lines(iterable, label, every=2.0):
    """Yield from `iterable` and write a line at the start, every few seconds, and at the end."""
    total = len(iterable) if hasattr(iterable, "__len__") else None
    of = "" if total is None else f" of {total}"
    last, n = time.monotonic(), 0
    print(f"{label}: 0{of} batches", file=sys.stderr)
    for item in iterable:
        yield item
        n += 1
        if time.monotonic() - last > every and n != total:
            print(f"{label}: {n}{of} batches", file=sys.stderr)
            last = time.monotonic()
    print(f"{label}: {n}{of} batches, done", file=sys.stderr)

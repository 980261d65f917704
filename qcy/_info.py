"""What qcy runs on here: for bug reports, and for anyone who wonders why it is slow."""

from functools import partial

from qcy import _cpu, _kernels, _threads, _version

#: Steps of a task of `peak`, and tasks of each thread: small ones, in case one core is busy.
PEAK_STEPS = 1000
PEAK_TASKS = 8


def info():
    """Return what qcy was built with and what it uses on this machine.

    Returns
    -------
    dict
        ``version``; ``variant``, the instruction set in use; ``variants``, those that were built
        and that this CPU runs, fastest first; ``threads``, how many a call may use; ``threading``,
        what runs them: "pool" (qcy's own), "openmp" or "serial"; ``openmp``, whether it was built
        with OpenMP; ``compiler``, what built it.

    Examples
    --------
    >>> sorted(qcy.info())
    ['compiler', 'openmp', 'threading', 'threads', 'variant', 'variants', 'version']
    """
    return {
        "version": _version.VERSION,
        "variant": _kernels.active.variant,
        "variants": _kernels.usable_variants(),
        "threads": _threads.effective_n_threads(),
        "threading": _threads.threading_layer,
        "openmp": _threads.openmp_enabled,
        "compiler": _cpu.compiler,
    }


def peak(n_threads=1):
    """Return a call that sums as many products as the machine can, and how many operations it does.

    Sums and weights stay in registers: nothing that uses the same instructions is faster. A call
    takes a small part of a millisecond.

    Parameters
    ----------
    n_threads : int, default 1

    Returns
    -------
    (callable, int)
    """
    step, n_ops = _kernels.active.q8.peak(PEAK_STEPS, PEAK_TASKS * n_threads)
    return partial(step.run, n_threads), n_ops

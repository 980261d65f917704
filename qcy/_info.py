"""What qcy runs on here: for bug reports, and for anyone who wonders why it is slow."""

from qcy import _cpu, _kernels, _threads, _version


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

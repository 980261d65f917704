"""Stopping a model's run from outside: cancellation and deadlines."""

import threading
import time

from qcy import _validate


class Cancelled(Exception):
    """A run was stopped by its `Context`, between two layers."""


class Context:
    """Tells a run that it should stop; looked at between layers.

    Parameters
    ----------
    timeout : float, optional
        Seconds from now until the deadline.

    Examples
    --------
    >>> ctx = Context()
    >>> ctx.cancel()
    >>> ctx.cancelled
    True
    """

    def __init__(self, timeout=None):
        if timeout is not None and not _validate.real("timeout", timeout) >= 0:
            raise ValueError(f"timeout must be at least 0 seconds, got {timeout}")
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._event = threading.Event()

    def cancel(self):
        """Stop the runs that use this context; may be called from any thread."""
        self._event.set()

    @property
    def cancelled(self):
        """Whether a run would stop now."""
        return self._event.is_set() or (
            self._deadline is not None and time.monotonic() >= self._deadline
        )

    def check(self):
        """Raise `Cancelled` if the run should stop."""
        if self._event.is_set():
            raise Cancelled("the run was cancelled")
        if self.cancelled:
            raise Cancelled("the run passed its deadline")


def split_context(inputs, ctx=None):
    """Return the inputs of a call and its context, which may stand last among the inputs.

    ``forward(x, ctx)`` and ``forward(x, ctx=ctx)`` are the same, also where `ctx` is None.

    Parameters
    ----------
    inputs : tuple
        What a call was given by position.
    ctx : Context or None
        What it was given by name.

    Returns
    -------
    inputs : tuple
    ctx : Context or None

    Raises
    ------
    TypeError
        If `ctx` is no Context, or there are two.
    """
    if any(isinstance(x, Context) for x in inputs[-1:]) or (inputs[1:] and inputs[-1] is None):
        if ctx is not None:
            raise TypeError(f"ctx must be given once, got {inputs[-1]!r} and {ctx!r}")
        *inputs, ctx = inputs
    if ctx is not None and not isinstance(ctx, Context):
        raise TypeError(f"ctx must be a Context, got {ctx!r}")
    return tuple(inputs), ctx

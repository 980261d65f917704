"""Stopping a model's run from outside: cancellation and deadlines."""

import threading
import time


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
        if timeout is not None and not timeout >= 0:
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

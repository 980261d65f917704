"""How many threads a loop gets, and the one parallel loop."""

from types import TracebackType

openmp_enabled: bool
threading_layer: str

MOST_THREADS: int

def effective_n_threads(n_threads: int | None = None, name: str = "n_threads") -> int:
    """Return the number of threads that a call may use."""

def most_running(reset: bool = False) -> int:
    """Return the largest number of threads that ran kernels at once so far."""

class borrowed:
    """Context manager that borrows up to `n_threads` from the process's budget."""

    def __init__(self, n_threads: int | None = None) -> None: ...
    def __enter__(self) -> int: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

class threads:
    """Limit the threads that qcy's calls in this Python thread use, inside a ``with`` block."""

    def __init__(self, n: int) -> None: ...
    def __enter__(self) -> threads: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

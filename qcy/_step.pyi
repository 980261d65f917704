"""One bound call of a kernel: what direct calls run once, and programs run in a row."""

from typing import Any

from numpy.typing import NDArray

PLAIN: frozenset[type]

def check_apart(
    out: object, args: tuple[object, ...], kwargs: dict[str, object] | None = None
) -> None:
    """Check that an output overlaps no argument, as it was given and not as it is converted."""

class Place:
    """A place in one of the memories that a program has when it runs."""

    def __init__(self, memory: int, offset: int) -> None: ...
    @property
    def memory(self) -> int:
        """Which memory."""

    @property
    def offset(self) -> int:
        """Bytes from its start."""

class Step:
    """A kernel and its arguments, ready to run."""

    complaint: str
    @property
    def owners(self) -> list[Any]:
        """What the operands' memory belongs to."""

    @property
    def most_threads(self) -> int:
        """It never gains from more."""

    def run(self, n_threads: int | None = None) -> None:
        """Run the step, all of whose operands are arrays."""

class BoundCall:
    """A call whose arguments were checked once, ready to run often."""

    def __init__(self, step: Step, out: NDArray[Any], n_threads: int | None = None) -> None: ...
    @property
    def out(self) -> NDArray[Any]:
        """Where the result goes."""

    def __call__(self) -> NDArray[Any]: ...

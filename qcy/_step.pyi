"""One bound call of a kernel: what direct calls run once, and programs run in a row."""

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

PLAIN: frozenset[type]

def check_apart(
    out: object, args: tuple[object, ...], kwargs: dict[str, object] | None = None
) -> None:
    """Check that an output overlaps no argument, as it was given and not as it is converted."""

class Place:
    """Where an array will lie when a program runs."""

    def __init__(
        self, memory: int, offset: int, shape: Sequence[int] = ..., dtype: Any = None,
        recorder: Any = None,
    ) -> None: ...
    @property
    def memory(self) -> int:
        """Which memory of the run."""

    @property
    def offset(self) -> int:
        """Bytes from its start."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> Any: ...
    @property
    def recorder(self) -> Any: ...
    @property
    def ndim(self) -> int: ...
    @property
    def size(self) -> int: ...
    def __len__(self) -> int: ...
    def reshape(self, *shape: Any) -> Place:
        """Return the same place with another shape."""

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

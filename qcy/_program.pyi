"""A flat list of bound kernel calls that run one after another, without Python in between."""

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from qcy._recorder import Recorder
from qcy._step import Step

ARENA_MEMORY: int
FIRST_PORT: int

class Program:
    """Steps and the size of what they need."""

    def __init__(self, recorder: Recorder) -> None: ...
    @property
    def steps(self) -> tuple[Step, ...]: ...
    @property
    def arena_bytes(self) -> int: ...
    def bind(
        self, arrays: Sequence[NDArray[Any]], out: Any, n_threads: int | None = None
    ) -> BoundProgram:
        """Return the program with its arrays, ready to run."""

class BoundProgram:
    """A program and its arrays, ready to run often."""

    def __init__(
        self, program: Program, arrays: tuple[NDArray[Any], ...], out: Any,
        n_threads: int | None = None,
    ) -> None: ...
    @property
    def out(self) -> Any:
        """Where the results go."""

    def __call__(self) -> Any: ...
    def timed(self, ends: Sequence[int]) -> list[int]:
        """Run once, and return how long each range of steps took, in nanoseconds."""

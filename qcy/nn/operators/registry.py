"""What every operator is: a function of plain arrays, under the name that ONNX gives it."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Definition:
    """One operator.

    Attributes
    ----------
    name : str
        As in ONNX; operators of other domains as ``"domain:name"``.
    function : callable
        ``function(*inputs, **attributes)``: plain arrays in (None for one that is left out), an
        array out, or a tuple of them. Attributes have ONNX's names and defaults.
    kind : {None, "table", "moves"}
        "table": a function of one input, element by element, which 256 entries can hold; "moves":
        what it gives are numbers of its first input, in other places.
    counts_outputs : bool
        Whether the function is told, as `n_outputs`, how many outputs somebody wants.
    """

    name: str
    function: Callable
    kind: str | None = None
    counts_outputs: bool = False


#: All operators by name.
OPERATORS = {}


def operator(*names, kind=None, counts_outputs=False):
    """Enter a function as the operator of these names."""

    def enter(function):
        for name in names:
            if name in OPERATORS:
                raise ValueError(f"operator {name!r} is defined twice")
            OPERATORS[name] = Definition(name, function, kind, counts_outputs)
        return function

    return enter

"""The generic tensor: any of ten numeric dtypes in one C-ordered block."""

from typing import Any, SupportsIndex, final

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

DTYPES: tuple[np.dtype[Any], ...]

_Number = int | float | np.integer[Any] | np.floating[Any]

def FloatTensor(data: ArrayLike | Tensor) -> Tensor:
    """Return a float32 `Tensor`."""

@final
class Tensor:
    """Multi-dimensional array of numbers."""

    __array_ufunc__: None
    __hash__: None  # type: ignore[assignment]

    def __init__(self, data: ArrayLike | Tensor, dtype: DTypeLike | None = None) -> None: ...
    @property
    def data(self) -> NDArray[Any]:
        """The values, C-ordered. Writing to it writes to the tensor."""
    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
    @property
    def size(self) -> int:
        """Number of elements."""
    @property
    def ndim(self) -> int:
        """Number of axes."""
    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements."""
    def clone(self) -> Tensor:
        """Return a Tensor with its own copy of the values."""
    def reshape(self, *shape: SupportsIndex | tuple[SupportsIndex, ...]) -> Tensor:
        """Return a Tensor of another shape that shares the values."""
    def transpose(self, *axes: SupportsIndex | tuple[SupportsIndex, ...]) -> Tensor:
        """Return a Tensor with its axes in another order, and its own values."""
    def at(self, *indices: SupportsIndex) -> int | float:
        """Return one element as a Python number."""
    def set_at(self, indices: SupportsIndex | tuple[SupportsIndex, ...], value: _Number) -> None:
        """Replace one element."""
    def fill(self, value: _Number) -> None:
        """Replace every element."""
    def scale(self, s: _Number) -> Tensor:
        """Return a Tensor with every element multiplied by a real number."""
    def astype(self, dtype: DTypeLike) -> Tensor:
        """Return a Tensor of another dtype, with its own values."""
    def sum(self, axis: SupportsIndex | tuple[SupportsIndex, ...] | None = None) -> Any:
        """Return the sum of the elements: a number, or a Tensor if `axis` is given."""
    def min_max(self) -> tuple[int, int] | tuple[float, float]:
        """Return the smallest and the largest element."""
    def min(self) -> int | float:
        """Return the smallest element."""
    def max(self) -> int | float:
        """Return the largest element."""
    def __getitem__(self, indices: SupportsIndex | tuple[SupportsIndex, ...]) -> int | float: ...
    def __setitem__(
        self, indices: SupportsIndex | tuple[SupportsIndex, ...], value: _Number
    ) -> None: ...
    def __add__(self, other: Tensor | _Number) -> Tensor: ...
    def __radd__(self, other: _Number) -> Tensor: ...
    def __sub__(self, other: Tensor | _Number) -> Tensor: ...
    def __rsub__(self, other: _Number) -> Tensor: ...
    def __mul__(self, other: Tensor | _Number) -> Tensor: ...
    def __rmul__(self, other: _Number) -> Tensor: ...
    def __matmul__(self, other: Tensor) -> Tensor: ...
    def __eq__(self, other: object) -> bool: ...
    def __len__(self) -> int: ...
    def __copy__(self) -> Tensor: ...
    def __array__(
        self, dtype: DTypeLike | None = None, copy: bool | None = None
    ) -> NDArray[Any]: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __dlpack__(self, **kwargs: Any) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...

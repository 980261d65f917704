"""The right operand of a product and how its sums are finished, bound for the kernels."""

import numpy as np
from numpy.typing import NDArray

class Product:
    """Addresses and numbers that depend on the weights and the scales, looked up once."""

    def __init__(
        self,
        panels: NDArray[np.int8],
        n_cols: int,
        offset: NDArray[np.int32],
        row_weight: NDArray[np.int32] | None = None,
        multiplier: NDArray[np.float32] | None = None,
        bias: NDArray[np.float32] | None = None,
        target: tuple[int, int, int, int, int] = ...,
        table: NDArray[np.uint8] | None = None,
    ) -> None: ...

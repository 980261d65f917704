"""The right operand of a product and how its sums are finished, bound for the kernels."""
from libc.stdint cimport int8_t, int32_t, uint8_t


cdef class Product:
    """Addresses and numbers that depend on the weights and the scales, looked up once.

    Parameters
    ----------
    panels : int8 array
        Packed weights, of one group of columns after another.
    n_cols : int
        Columns of one group.
    offset : int32 array
        Padded, like all that follow: bias and zero points, folded.
    row_weight : int32 array, optional
        What is added for each row, times a number of that row.
    multiplier : float32 array, optional
        None: the output is int32.
    bias : float32 array, optional
        With it the output is float32.
    target : tuple of int
        Zero point, low, high and flip of output in codes, all as uint8; and whether sums times
        multiplier may pass 2**31.
    table : (256,) uint8 array, optional
        Of a function that comes last, by the code's byte.
    """

    def __init__(
        self, const int8_t[::1] panels not None, Py_ssize_t n_cols,
        const int32_t[::1] offset not None, const int32_t[::1] row_weight=None,
        const float[::1] multiplier=None, const float[::1] bias=None,
        target=(0, 0, 255, 0, 0), const uint8_t[::1] table=None,
    ):
        self.bound.panels = &panels[0] if panels.shape[0] else NULL
        self.bound.n_cols = n_cols
        self.bound.offset = &offset[0] if offset.shape[0] else NULL
        self.bound.row_weight = NULL if row_weight is None else &row_weight[0]
        self.bound.multiplier = NULL if multiplier is None else &multiplier[0]
        self.bound.bias = NULL if bias is None else &bias[0]
        self.bound.table = NULL if table is None else &table[0]
        (
            self.bound.zero_point, self.bound.low, self.bound.high, self.bound.flip,
            self.bound.is_wild,
        ) = target
        self.owners = (panels, offset, row_weight, multiplier, bias, table)

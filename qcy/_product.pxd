"""The right operand of a product and how its sums are finished, bound for the kernels."""
from libc.stdint cimport int8_t, int32_t, uint8_t


# What is the same for every row of a product.
cdef struct product_t:
    const int8_t* panels
    Py_ssize_t n_taps
    Py_ssize_t depth            # numbers of one tap, as tiles read them
    Py_ssize_t n_cols
    const int32_t* offset       # (n_cols, padded) bias and zero points, folded
    const int32_t* row_weight   # (n_cols, padded) times a number for each row; or NULL
    const float* multiplier     # (n_cols, padded), or NULL: the output is then int32
    const float* bias           # (n_cols, padded) of float32 output; or NULL
    const uint8_t* table        # (256) of a function that comes last; or NULL
    int zero_point              # of the output, as uint8
    uint8_t low                 # clamp of the output, as uint8
    uint8_t high
    uint8_t flip                # 0x80 turns uint8 output into int8
    uint8_t is_wild             # sums times multiplier may pass 2**31


cdef class Product:
    cdef product_t bound
    cdef readonly object owners

"""The kernels that name no instruction, one module: compilers vectorize them as far as they can.

So few builds of it serve all variants. Each family stands in a file of its own, as in q8.pyx.
"""
include "tensor.pxi"
include "columns.pxi"
include "move.pxi"

"""The kernels of codes, one module for each variant: what Cython adds to a module is there once.

Each family stands in a file of its own and is included here. They share one space of names, so
what only one of them means has its name in it.
"""
include "pack.pxi"
include "gemm.pxi"
include "conv.pxi"
include "depthwise.pxi"
include "quantize.pxi"
include "elementwise.pxi"
include "norm.pxi"
include "attention.pxi"
include "pool.pxi"
include "peak.pxi"

"""How codes come out of reals, as the C headers have it: for the kernels that rest on them."""
from libc.stdint cimport uint8_t

cdef extern from "elementwise.h":
    ctypedef struct qcy_output:
        int zero_point
        uint8_t low
        uint8_t high
        uint8_t flip
        uint8_t is_wild


cdef inline qcy_output output_from(tuple target):
    """Unpack what Python hands over: zero point, low, high and flip as uint8; and wild."""
    cdef qcy_output output
    output.zero_point, output.low, output.high, output.flip, output.is_wild = target
    return output

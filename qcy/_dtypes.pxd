"""The numeric vocabulary of qcy: one fused type per family, declared once."""
from libc.stdint cimport (
    int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t,
)

ctypedef fused number_t:        # every dtype a Tensor may hold
    int8_t
    int16_t
    int32_t
    int64_t
    uint8_t
    uint16_t
    uint32_t
    uint64_t
    float
    double

ctypedef fused signed_t:        # the signed integers among them
    int8_t
    int16_t
    int32_t
    int64_t

ctypedef fused q8_t:            # what codes are stored in
    int8_t
    uint8_t

# Two more names, so that a kernel may take operands of different signedness.
ctypedef fused lhs_t:
    int8_t
    uint8_t

ctypedef fused rhs_t:
    int8_t
    uint8_t

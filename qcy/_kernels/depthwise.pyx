"""Depthwise convolution of codes, channels last: each channel by itself, many side by side."""
from libc.stdint cimport int8_t, int32_t, uint8_t

from qcy._kernels._window cimport input_column, input_row, window_from, window_t
from qcy._rounding cimport round_code
from qcy._threads cimport parallel_for

cdef enum:
    CHANNELS = 64               # summed side by side
    FEWEST_PRODUCTS = 131072    # below it, waking threads costs more than they save

cdef struct depthwise_t:
    window_t window
    const uint8_t* x
    const int8_t* weights       # (taps, C)
    const int32_t* bias         # (C,)
    const int32_t* w_zero       # (C,)
    const float* multiplier     # (C,), or NULL: the output is then int32
    int32_t x_zero
    int32_t zero_point
    float low                   # clamp of the output, less the zero point
    float high
    uint8_t flip
    uint8_t* out


cdef void _depthwise_row(const void* args, Py_ssize_t index, int worker) noexcept nogil:
    """Compute one row of output pixels."""
    cdef const depthwise_t* conv = <const depthwise_t*> args
    cdef const window_t* w = &conv.window
    cdef Py_ssize_t out_row = index % w.out_height, image = index // w.out_height
    cdef Py_ssize_t pixel, block, channel, n, i
    cdef int32_t acc[CHANNELS]
    for pixel in range(w.out_width):
        for block in range((w.channels + CHANNELS - 1) // CHANNELS):
            channel = block * CHANNELS
            n = min(CHANNELS, w.channels - channel)
            i = (index * w.out_width + pixel) * w.channels + channel
            if conv.multiplier == NULL:
                _depthwise_sums(
                    conv, image, out_row, pixel, channel, n, <int32_t*> conv.out + i
                )
            else:
                _depthwise_sums(conv, image, out_row, pixel, channel, n, acc)
                _depthwise_codes(conv, acc, conv.multiplier + channel, n, conv.out + i)


cdef void _depthwise_sums(
    const depthwise_t* conv,
    Py_ssize_t image,
    Py_ssize_t out_row,
    Py_ssize_t out_column,
    Py_ssize_t channel,
    Py_ssize_t n,
    int32_t* acc,
) noexcept nogil:
    cdef const window_t* w = &conv.window
    cdef Py_ssize_t tap_row, tap_column, row, column, i
    cdef const uint8_t* x
    cdef const int8_t* weights
    for i in range(n):
        acc[i] = conv.bias[channel + i]
    for tap_row in range(w.kernel_height):
        row = input_row(w, out_row, tap_row)
        if row < 0:
            continue                # outside, inputs are 0.0
        for tap_column in range(w.kernel_width):
            column = input_column(w, out_column, tap_column)
            if column < 0:
                continue
            x = conv.x + ((image * w.height + row) * w.width + column) * w.channels + channel
            weights = (
                conv.weights + (tap_row * w.kernel_width + tap_column) * w.channels + channel
            )
            _add_products(x, weights, conv.w_zero + channel, conv.x_zero, n, acc)


cdef void _add_products(
    const uint8_t* x, const int8_t* weights, const int32_t* w_zero, int32_t x_zero, Py_ssize_t n,
    int32_t* acc,
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        acc[i] += (<int32_t> x[i] - x_zero) * (<int32_t> weights[i] - w_zero[i])


cdef void _depthwise_codes(
    const depthwise_t* conv, const int32_t* acc, const float* multiplier, Py_ssize_t n,
    uint8_t* codes,
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        codes[i] = conv.flip ^ <uint8_t> round_code(
            <float> acc[i] * multiplier[i], conv.low, conv.high, conv.zero_point
        )


def depthwise(
    const uint8_t[:, :, :, ::1] x,      # (B, H, W, C)
    tuple window,
    int32_t x_zero,
    const int8_t[:, ::1] weights,       # (taps, C)
    const int32_t[::1] w_zero,          # (C,)
    const int32_t[::1] bias,            # (C,)
    int32_t[:, ::1] acc,                # (pixels, C), overwritten; or None
    const float[::1] multiplier,        # (C,), or None with acc
    int32_t zero_point,                 # of the output, as uint8
    uint8_t low,
    uint8_t high,
    uint8_t flip,
    uint8_t[:, ::1] codes,              # (pixels, C), overwritten; or None with acc
    int n_threads,
):
    cdef depthwise_t conv
    cdef Py_ssize_t n_rows = x.shape[0]
    conv.window = window_from(window)
    n_rows *= conv.window.out_height
    if n_rows == 0 or conv.window.out_width == 0 or conv.window.channels == 0:
        return
    conv.x = &x[0, 0, 0, 0] if x.size else NULL
    conv.x_zero = x_zero
    conv.weights = &weights[0, 0] if weights.size else NULL
    conv.w_zero = &w_zero[0]
    conv.bias = &bias[0]
    conv.multiplier = NULL if multiplier is None else &multiplier[0]
    conv.zero_point = zero_point
    conv.low = <float> (low - zero_point)
    conv.high = <float> (high - zero_point)
    conv.flip = flip
    conv.out = <uint8_t*> &acc[0, 0] if codes is None else &codes[0, 0]
    if <double> n_rows * conv.window.out_width * weights.size < FEWEST_PRODUCTS:
        n_threads = 1
    with nogil:
        parallel_for(_depthwise_row, &conv, n_rows, n_threads)

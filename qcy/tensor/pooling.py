"""Pooling of quantized images: methods of `QuantizedTensor`."""

import numpy as np

from qcy import primitive
from qcy.tensor.elementwise import check_out_params, check_per_tensor


def max_pool2d(self, kernel_size, stride=None, padding=0, dilation=1, layout="NCHW"):
    """Return the largest code of each window, parameters unchanged, equations (13) and (14).

    Parameters
    ----------
    kernel_size, stride, padding, dilation, layout
        As for `qcy.primitive.max_pool2d_q8`.
    """
    check_per_tensor(self)
    codes = primitive.max_pool2d_q8(
        self.codes.data, kernel_size, stride=stride, padding=padding, dilation=dilation,
        layout=layout,
    )
    return type(self)(codes, self.params)


def avg_pool2d(
    self, kernel_size, stride=None, padding=0, count_include_pad=False, out_params=None,
    layout="NCHW",
):
    """Return the mean of each window, equation (16).

    Parameters
    ----------
    kernel_size, stride, padding, count_include_pad, layout
        As for `qcy.primitive.avg_pool2d_q8`.
    out_params : QuantizationParams, optional
        Of the same dtype. Default: those of the input.
    """
    check_per_tensor(self)
    out_params = out_params or self.params
    check_out_params(out_params)
    if out_params.dtype != self.dtype:
        raise TypeError(f"out_params must be {self.dtype} as the input, got {out_params.dtype}")
    codes = primitive.avg_pool2d_q8(
        self.codes.data, kernel_size, x_scale=self.scale, out_scale=out_params.scale,
        x_zero_point=self.zero_point, out_zero_point=out_params.zero_point, stride=stride,
        padding=padding, count_include_pad=count_include_pad, layout=layout,
    )
    if out_params.narrow_range:
        np.maximum(codes, out_params.qmin, out=codes)
    return type(self)(codes, out_params)

"""Convolution of quantized tensors: a method of `QuantizedTensor`."""

import numpy as np

from qcy import primitive
from qcy.tensor.elementwise import check_out_params, check_per_tensor
from qcy.tensor.linalg import requantize_to_fit


def conv2d(
    self, kernel, bias=None, stride=1, padding=0, dilation=1, groups=1, out_params=None,
    layout="NCHW",
):
    """Return the convolution, exact in int32 and then requantized, equations (7), (9) and (13).

    Parameters
    ----------
    kernel : QuantizedTensor
        (O, C / groups, KH, KW), per tensor, or per channel of axis 0.
    bias : (O,) Tensor or array, int32, optional
        In units of ``self.scale * kernel.scale``.
    stride, dilation : int or (int, int), default 1
    padding : int, (int, int) or (top, left, bottom, right), default 0
    groups : int, default 1
    out_params : QuantizationParams, optional
        Default: what covers the result itself; that takes a second pass over the sums.
    layout : {"NCHW", "NHWC"}, default "NCHW"

    Returns
    -------
    QuantizedTensor

    Raises
    ------
    TypeError, ValueError
        If operands do not fit.
    """
    check_per_tensor(self)
    if not isinstance(kernel, type(self)):
        raise TypeError(f"kernel must be a QuantizedTensor, got {type(kernel).__name__}")
    if kernel.axis not in (None, 0):
        raise ValueError(f"kernel must be per channel of axis 0, not of {kernel.axis}")
    common = {
        "x_zero_point": self.zero_point, "w_zero_point": kernel.zero_point,
        "bias": None if bias is None else np.asarray(bias),
        "stride": stride, "padding": padding, "dilation": dilation, "groups": groups,
        "layout": layout,
    }
    if out_params is None:
        acc = primitive.conv2d_q8_accum(self.codes.data, kernel.codes.data, **common)
        channels_last = np.moveaxis(acc, 1, -1) if layout == "NCHW" else acc
        codes, out_params = requantize_to_fit(
            np.ascontiguousarray(channels_last), ("x_scale", self.scale),
            ("w_scale", kernel.scale), self.dtype,
        )
        if layout == "NCHW":
            codes = np.ascontiguousarray(np.moveaxis(codes, -1, 1))
        return type(self)(codes, out_params)
    check_out_params(out_params)
    return type(self)(
        primitive.conv2d_q8(
            self.codes.data, kernel.codes.data, x_scale=self.scale, w_scale=kernel.scale,
            out_scale=out_params.scale, out_zero_point=out_params.zero_point,
            out_dtype=out_params.dtype, clamp=(out_params.qmin, out_params.qmax), **common,
        ),
        out_params,
    )

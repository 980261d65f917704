"""The equations of docs/quantization.md, slowly and plainly, for tests to compare with.

Sums are int64 NumPy, (4), (5), (9), (15), (24), (25) are NumPy float32, TFLite's roundings (10)
are Python integers. Images are channels first; `nhwc` turns them. Nothing here is shared with qcy.
"""

from fractions import Fraction
from math import exp, floor

import numpy as np
from hypothesis import strategies as st

Q8 = (np.uint8, np.int8)
SEEDS = st.integers(0, 2**32 - 1)
DTYPES = st.sampled_from(Q8)


def code_range(dtype):
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)


def random_codes(rng, shape, dtype):
    """Return codes: all of them equally often, or extremes mostly, or one extreme only."""
    low, high = code_range(dtype)
    kind = rng.integers(4)
    if kind == 0:
        return rng.choice(np.array([low, low + 1, 0, high - 1, high], dtype), shape)
    if kind == 1:
        return np.full(shape, rng.choice([low, high]), dtype)
    return rng.integers(low, high, shape, dtype, endpoint=True)


def random_zero_point(rng, dtype, shape=None):
    """Return zero points; extremes and zero often."""
    low, high = code_range(dtype)
    often = np.array([low, high, 0, 1, high // 2])
    anywhere = rng.integers(low, high, shape, endpoint=True)
    result = np.where(rng.random(shape) < 0.5, rng.choice(often, shape), anywhere)
    return int(result) if shape is None else result


def random_clamp(rng, dtype):
    """Return a clamp, or None."""
    if rng.random() < 0.5:
        return None
    return tuple(sorted(rng.integers(*code_range(dtype), 2, endpoint=True).tolist()))


def saturate(steps, zero_point, dtype, clamp=None):
    """Turn integers, as float or int, into codes."""
    low, high = code_range(dtype) if clamp is None else clamp
    return np.clip(np.asarray(steps).astype(np.float64) + zero_point, low, high).astype(dtype)


def nhwc(images):
    """Return channels-first images channels last, C-ordered."""
    return np.ascontiguousarray(np.transpose(images, (0, 2, 3, 1)))


# ------------------------------------------------------------------------ quantize, requantize


def quantize(x, scale, zero_point, dtype):
    """Equation (4); scale and zero point broadcast against x."""
    with np.errstate(over="ignore", under="ignore"):
        ratio = np.asarray(x).astype(np.float32) / np.asarray(scale, np.float32)
    return saturate(np.rint(ratio), zero_point, dtype)


def dequantize(codes, scale, zero_point):
    """Equation (5)."""
    return np.asarray(scale, np.float32) * (codes.astype(np.int64) - zero_point).astype(np.float32)


def multiplier(a_scale, b_scale, out_scale):
    """Equation (9), first half."""
    with np.errstate(over="ignore", under="ignore"):
        return np.float32(a_scale) * np.asarray(b_scale, np.float32) / np.float32(out_scale)


def requantize(acc, multiplier, zero_point, dtype, clamp=None):
    """Equation (9), second half."""
    with np.errstate(over="ignore", under="ignore"):
        reals = np.asarray(acc).astype(np.float32) * np.asarray(multiplier, np.float32)
    return saturate(np.rint(reals), zero_point, dtype, clamp)


def tflite(acc, multiplier, rounding):
    """Equation (10) for one sum, in Python integers.

    The multiplier is ``q * 2**(shift - 31)`` with q in ``[2**30, 2**31)``.
    """
    left, shift = Fraction(float(multiplier)), 0
    while left >= 1:
        left, shift = left / 2, shift + 1
    while left < Fraction(1, 2):
        left, shift = left * 2, shift - 1
    q = left * 2**31
    assert q.denominator == 1
    if rounding == "tflite_single":             # (x*q + 2^(30-s)) >> (31-s)
        return floor(acc * q / Fraction(2) ** (31 - shift) + Fraction(1, 2))
    half = Fraction(1, 2)
    high = floor(acc * 2 ** max(shift, 0) * q / 2**31 + half)           # ties towards +inf
    magnitude = floor(abs(high) / Fraction(2) ** max(-shift, 0) + half)     # ties away from zero
    return magnitude if high >= 0 else -magnitude


def requantize_tflite(acc, multiplier, zero_point, dtype, rounding, clamp=None):
    """Equation (10) for (..., N) sums."""
    acc = np.asarray(acc)
    multiplier = np.broadcast_to(multiplier, acc.shape)
    low, high = code_range(dtype) if clamp is None else clamp
    codes = [
        min(max(tflite(int(x), m, rounding) + zero_point, low), high)
        for x, m in zip(acc.flat, multiplier.flat, strict=True)
    ]
    return np.array(codes, dtype).reshape(acc.shape)


# ----------------------------------------------------------------------------------- products


def sums(a, b, a_zero=0, b_zero=0, bias=0):
    """Equation (7), with leading axes as in ``numpy.matmul``."""
    return (a.astype(np.int64) - a_zero) @ (b.astype(np.int64) - b_zero) + bias


def sides(padding):
    """Return (top, left, bottom, right) of a number, a pair or four."""
    values = (padding,) if np.ndim(padding) == 0 else tuple(padding)
    return values * (4 // len(values))


def pair(value):
    return (value, value) if np.ndim(value) == 0 else tuple(value)


def taps(x, kernel, stride=1, padding=0, dilation=1, fill=0):
    """Yield, for each cell of the kernel, the (B, C, OH, OW) inputs under it."""
    (kh, kw), (sh, sw), (dh, dw) = pair(kernel), pair(stride), pair(dilation)
    top, left, bottom, right = sides(padding)
    padded = np.pad(
        x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill
    )
    oh = (padded.shape[2] - dh * (kh - 1) - 1) // sh + 1
    ow = (padded.shape[3] - dw * (kw - 1) - 1) // sw + 1
    for i in range(kh):
        for j in range(kw):
            rows = slice(i * dh, i * dh + (oh - 1) * sh + 1, sh)
            columns = slice(j * dw, j * dw + (ow - 1) * sw + 1, sw)
            yield (i, j), padded[:, :, rows, columns]


def conv_sums(x, w, x_zero=0, w_zero=0, bias=0, groups=1, **window):
    """Sums of a convolution; outside the image the input is 0.0, equation (13)."""
    real_x = x.astype(np.int64) - x_zero
    real_w = w.astype(np.int64) - np.reshape(w_zero, (-1, 1, 1, 1))
    total = 0
    for (i, j), part in taps(real_x, w.shape[2:], **window):
        outputs = [
            np.einsum("bchw,oc->bohw", xs, ws[:, :, i, j])
            for xs, ws in zip(
                np.split(part, groups, axis=1), np.split(real_w, groups), strict=True
            )
        ]
        total = total + np.concatenate(outputs, axis=1)
    return total + np.reshape(bias, (-1, 1, 1))


def scatter(cells, size, kernel, stride=1, padding=0, dilation=1):
    """Sum (B, C, KH, KW, H, W) cells into (B, C, *size) images: each under its place."""
    (sh, sw), (dh, dw) = pair(stride), pair(dilation)
    top, left, _, _ = sides(padding)
    batch, channels, kh, kw, height, width = cells.shape
    canvas = np.zeros(
        (batch, channels, size[0] + (height + kh) * (sh + dh) + top,
         size[1] + (width + kw) * (sw + dw) + left), np.int64
    )
    for i in range(kh):
        for j in range(kw):
            canvas[
                :, :, i * dh : i * dh + height * sh : sh, j * dw : j * dw + width * sw : sw
            ] += cells[:, :, i, j]
    return canvas[:, :, top : top + size[0], left : left + size[1]]


def conv_transpose_sums(
    x, w, x_zero=0, w_zero=0, bias=0, groups=1, output_padding=0, **window
):
    """Sums of a transposed convolution, equation (23); w is (C, O / groups, KH, KW)."""
    (kh, kw), padding = w.shape[2:], sides(window.get("padding", 0))
    (sh, sw), (dh, dw) = pair(window.get("stride", 1)), pair(window.get("dilation", 1))
    extra = pair(output_padding)
    size = (
        (x.shape[2] - 1) * sh - padding[0] - padding[2] + dh * (kh - 1) + 1 + extra[0],
        (x.shape[3] - 1) * sw - padding[1] - padding[3] + dw * (kw - 1) + 1 + extra[1],
    )
    real_x = x.astype(np.int64) - x_zero
    zeros = np.split(np.broadcast_to(w_zero, (w.shape[1] * groups,)), groups)
    images = [
        scatter(
            np.einsum("bchw,cokl->boklhw", xs, ws.astype(np.int64) - zero.reshape(-1, 1, 1)),
            size, (kh, kw), **window,
        )
        for xs, ws, zero in zip(
            np.split(real_x, groups, axis=1), np.split(w, groups), zeros, strict=True
        )
    ]
    return np.concatenate(images, axis=1) + np.reshape(bias, (-1, 1, 1))


# ------------------------------------------------------------------------ pooling, elementwise


def max_pool(x, kernel, **window):
    """The largest code of each window, cells outside ignored, equation (13)."""
    outside = code_range(x.dtype)[0] - 1
    largest = np.max(
        [part for _, part in taps(x.astype(np.int64), kernel, fill=outside, **window)], axis=0
    )
    return np.maximum(largest, outside + 1).astype(x.dtype)


def avg_pool(
    x, kernel, x_scale, out_scale, x_zero=0, out_zero=0, count_include_pad=False, **window
):
    """Equation (16)."""
    total = sum(part for _, part in taps(x.astype(np.int64) - x_zero, kernel, **window))
    inside = sum(part for _, part in taps(np.ones(x.shape, np.int64), kernel, **window))
    count = np.full_like(inside, np.prod(pair(kernel))) if count_include_pad else inside
    step = np.float32(x_scale) / (count.astype(np.float32) * np.float32(out_scale))
    return requantize(total, step, out_zero, x.dtype)


def add(a, b, scales, zeros, dtype, clamp=None):
    """Equation (15); scales and zero points of a, b and the output."""
    steps = [
        (codes.astype(np.int64) - zero).astype(np.float32) * (np.float32(s) / np.float32(scales[2]))
        for codes, zero, s in zip((a, b), zeros, scales, strict=False)
    ]
    return saturate(np.rint(steps[0] + steps[1]), zeros[2], dtype, clamp)


def mul(a, b, scales, zeros, dtype, clamp=None):
    """Equation (9) on products of codes, as (15) says."""
    acc = (a.astype(np.int64) - zeros[0]) * (b.astype(np.int64) - zeros[1])
    return requantize(acc, multiplier(*scales), zeros[2], dtype, clamp)


def layer_norm(
    codes, gamma, beta, scale, out_scale, out_zero=0, epsilon=1e-5, dtype=np.uint8, clamp=None
):
    """Equation (24), over the last axis."""
    n = codes.shape[-1]
    whole = codes.astype(np.int64)
    total = whole.sum(axis=-1, keepdims=True)
    spread = n * (whole**2).sum(axis=-1, keepdims=True) - total**2
    with np.errstate(over="ignore", under="ignore", divide="ignore"):
        units = np.float64(epsilon) * (n / np.float64(np.float32(scale))) ** 2
        root = (1 / np.sqrt(spread.astype(np.float64) + units)).astype(np.float32)
        factor, shift = (
            (np.asarray(x, np.float32).astype(np.float64) / np.float64(np.float32(out_scale)))
            .astype(np.float32) for x in (gamma, beta)
        )
        distance = (n * whole - total).astype(np.float32) * np.where(spread, root, np.float32(0))
        return saturate(np.rint(distance * factor + shift), out_zero, dtype, clamp)


def attention_weights(scores, step):
    """Equation (25): from scores to weights of 0 to 255, float32 in this order."""
    f32 = np.float32
    with np.errstate(over="ignore", under="ignore"):
        x = (scores.max(axis=-1, keepdims=True) - scores).astype(f32) * f32(step)
        x = np.minimum(x, f32(16))
        halvings = np.rint(x)
        part = x - halvings
        power = f32(-0.05500893) * part + f32(0.24221095)
        power = power * part + f32(-0.6932829)
        power = power * part + f32(1)
    return np.rint(f32(255) * np.ldexp(power, -halvings.astype(np.int32))).astype(np.int64)


def attention(
    q, k, v, n_heads, scales, zeros=(0, 0, 0), score_scale=None, dtype=np.uint8, clamp=None
):
    """Equation (25); scales of q, k, v and the output, zero points of q, v and the output."""
    most = float(np.finfo(np.float32).max)
    of_q, of_k, of_v, of_out = (float(np.float32(scale)) for scale in scales)
    shape = (*q.shape[:-1], v.shape[-1])
    q, k, v = (
        x.astype(np.int64).reshape(*x.shape[:-1], n_heads, x.shape[-1] // n_heads).swapaxes(-2, -3)
        for x in (q, k, v)
    )
    if score_scale is None:
        score_scale = q.shape[-1] ** -0.5
    step = min(of_q * of_k * float(np.float32(score_scale)) * np.log2(np.e), most)
    factor = np.float32(min(of_v / of_out, most))
    with np.errstate(over="ignore", under="ignore"):
        weights = attention_weights((q - zeros[0]) @ k.swapaxes(-1, -2), np.float32(step))
        total = weights.sum(axis=-1, keepdims=True).astype(np.float32)
        reals = (weights @ (v - zeros[1])).astype(np.float32) * (factor / total)
    return saturate(np.rint(reals), zeros[2], dtype, clamp).swapaxes(-2, -3).reshape(shape)


def softmax(row, scale, dtype):
    """Equation (18) for one row of codes, in Python integers."""
    low, high = code_range(dtype)
    scale = float(np.float32(scale))
    codes = [int(code) for code in row]
    parts = [round(2**24 * exp(-scale * (max(codes) - code))) for code in codes]
    total = sum(parts)
    return np.array([min(high, low + (512 * e + total) // (2 * total)) for e in parts], dtype)

"""Matrix products of codes."""

import numpy as np

from qcy import _validate
from qcy._step import check_apart
from qcy.primitive.binding import bindable
from qcy.primitive.codes import by_byte, code_table, flip_of, output_target, requantize_q8
from qcy.primitive.packed import PackedWeights
from qcy.primitive.packing import pack_q8, resolve


@bindable
def gemm_nn_q8(
    a, b, *, a_scale, b_scale=None, out_scale, a_zero_point=0, b_zero_point=0, out_zero_point=0,
    bias=None, out_dtype="uint8", rounding="nearest_even", clamp=None, table=None, out=None,
    n_threads=None,
):
    """Multiply two matrices of codes and requantize the result.

    ``saturate(rint(float32(acc) * multiplier) + out_zero_point)`` with the exact sums `acc` of
    equation (7) and ``multiplier = float32(float32(a_scale * b_scale) / out_scale)``, equation (9).

    Parameters
    ----------
    a : (M, K) array, int8 or uint8
        Left operand, codes.
    b : (K, N) array, int8 or uint8, or PackedWeights
        Right operand. Packed weights carry their own scale, zero point and bias; a plain array is
        packed inside the call.
    a_scale, out_scale : float
        Real size of one step of `a` and of the output.
    b_scale : float or (N,) array
        Real size of one step of `b`, one or one per column.
    a_zero_point, out_zero_point : int, default 0
        The code of 0.0.
    b_zero_point : int or (N,) array of int, default 0
        The code of 0.0, one or one per column.
    bias : (N,) array, int32, optional
        Added to the sums, in units of ``a_scale * b_scale``.
    out_dtype : {"uint8", "int8"}, default "uint8"
    rounding : {"nearest_even", "tflite", "tflite_single"}, default "nearest_even"
        Equation (10) tells the other two, which exist for parity with TFLite.
    clamp : (int, int), optional
        Smallest and largest output code, as a fused activation needs: ReLU is
        ``(out_zero_point, qmax)``.
    table : (256,) array, int8 or uint8, optional
        Of a function that comes last, equation (17): entry i is for the code ``qmin + i`` of
        `out_dtype`. Only with rounding to nearest even.
    out : (M, N) array of `out_dtype`, or of the table's dtype, optional
        Where to write the result; C-ordered, writable, apart from the inputs.
    n_threads : int, optional
        Threads to use. Default: see `qcy.threads`.

    Returns
    -------
    (M, N) array of `out_dtype`, or of the table's dtype
        This is `out`, if given.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, a sum could leave int32 (equation 11), or a multiplier is not
        a normal float32.

    References
    ----------
    .. [1] B. Jacob et al., "Quantization and Training of Neural Networks for Efficient
       Integer-Arithmetic-Only Inference", CVPR 2018, section 2.2.

    Examples
    --------
    >>> a = np.array([[130, 126]], np.uint8)
    >>> b = np.array([[30], [-40]], np.int8)
    >>> gemm_nn_q8(a, b, a_scale=0.5, b_scale=0.1, out_scale=0.2, a_zero_point=128)
    array([[35]], dtype=uint8)
    """
    a = _validate.q8_array("a", a, 2)
    packed = _resolve(b, b_scale, b_zero_point, bias, True)
    return _product(
        a, packed, a_scale, out_scale, a_zero_point, out_zero_point, out_dtype, rounding, clamp,
        out, table,
    )


@bindable
def gemm_nn_q8_accum(
    a, b, *, a_zero_point=0, b_zero_point=0, bias=None, out=None, n_threads=None
):
    """Multiply two matrices of codes into 32-bit sums, exactly.

    ``acc[i, j] = bias[j] + sum_k (a[i, k] - a_zero_point) * (b[k, j] - b_zero_point[j])``,
    equation (7).

    Parameters
    ----------
    a : (M, K) array, int8 or uint8
    b : (K, N) array, int8 or uint8, or PackedWeights
    a_zero_point : int, default 0
    b_zero_point : int or (N,) array of int, default 0
    bias : (N,) array, int32, optional
    out : (M, N) array, int32, optional
    n_threads : int, optional
        As for `gemm_nn_q8`.

    Returns
    -------
    (M, N) array, int32
        Sums in units of ``a_scale * b_scale``. This is `out`, if given.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or a sum could leave int32: equation (11).

    Examples
    --------
    >>> a = np.array([[130, 126]], np.uint8)
    >>> b = np.array([[3], [4]], np.int8)
    >>> gemm_nn_q8_accum(a, b, a_zero_point=128)
    array([[-2]], dtype=int32)
    """
    a = _validate.q8_array("a", a, 2)
    packed = _resolve(b, None, b_zero_point, bias, False)
    _validate.same_inner(a.shape, packed.shape)
    out = _validate.output("out", out, (a.shape[0], packed.shape[1]), np.int32)
    return _sums_step(a, packed, a_zero_point, out), out, None


@bindable
def gemm_dynamic_q8(a, b, *, bias=None, per_row=True, out=None, n_threads=None):
    """Multiply reals by weights in 8 bits: quantize the left operand on the way, give reals back.

    The left operand is quantized to uint8 by its own range, equation (6); then
    ``y = float32(acc) * float32(a_scale * b_scale) + bias``, equation (22). It needs no
    calibration.

    Parameters
    ----------
    a : (M, K) array, real
        Rounded to float32 if it is anything else.
    b : PackedWeights
        Made by `pack_q8` with a scale, from int8 or uint8 codes whose zero points are 0 (128 for
        uint8), and without a bias of its own.
    bias : (N,) array, real, optional
    per_row : bool, default True
        Whether each row of `a` has parameters of its own; False is ONNX's dynamic quantization.
    out : (M, N) array, float32, optional
    n_threads : int, optional
        As for `gemm_nn_q8`.

    Returns
    -------
    (M, N) array, float32

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or `a` holds a NaN or an infinity.

    Examples
    --------
    >>> b = pack_q8(np.array([[100], [-50]], np.int8), b_scale=0.01)
    >>> gemm_dynamic_q8(np.array([[2.55, 0.0]], np.float32), b)
    array([[2.55]], dtype=float32)
    """
    a = _validate.real_array("a", a)
    if a.ndim != 2:
        raise ValueError(f"a must have 2 dimensions, got shape {a.shape}")
    if not isinstance(b, PackedWeights):
        raise TypeError(f"b must be PackedWeights, made by pack_q8, got {type(b).__name__}")
    packed = _resolve(b, None, 0, None, True)
    _validate.same_inner(a.shape, packed.shape)
    if packed.bias is not None or packed._weight_zero.any():
        raise ValueError("b must be packed without a bias, and with zero points that stand for 0")
    n_cols = packed.shape[1]
    if bias is not None:
        bias = _validate.real_array("bias", bias)
        if bias.shape != (n_cols,):
            raise ValueError(f"bias must have shape {(n_cols,)}, got {bias.shape}")
    out = _validate.output("out", out, (a.shape[0], n_cols), np.float32)
    step = packed._kernels.q8.product(
        a, *a.shape, 0, True, bool(per_row), packed.dynamic_product(bias), out
    )
    step.complaint = "a must be finite and its range fit float32"
    return step, out, None


def gemm_batched_q8(
    a, b, *, a_scale, b_scale=None, out_scale, a_zero_point=0, b_zero_point=0, out_zero_point=0,
    bias=None, out_dtype="uint8", rounding="nearest_even", clamp=None, out=None, n_threads=None,
):
    """Multiply stacks of matrices of codes: `gemm_nn_q8` with leading axes broadcast.

    Parameters
    ----------
    a : (..., M, K) array, int8 or uint8
    b : (..., K, N) array, int8 or uint8, or PackedWeights
        Leading axes broadcast against those of `a`, as in ``numpy.matmul``.
    out : (..., M, N) array of `out_dtype`, optional
    a_scale, b_scale, out_scale, a_zero_point, b_zero_point, out_zero_point, bias, out_dtype, \
rounding, clamp, n_threads
        As for `gemm_nn_q8`; the same for every matrix of the stack.

    Returns
    -------
    (..., M, N) array of `out_dtype`

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; see `gemm_nn_q8`.

    Examples
    --------
    >>> a, b = np.ones((5, 2, 3), np.uint8), np.ones((3, 4), np.int8)
    >>> gemm_batched_q8(a, b, a_scale=1.0, b_scale=1.0, out_scale=1.0).shape
    (5, 2, 4)
    """
    check_apart(out, (a, b))
    a = _at_least_2d("a", _validate.q8_array("a", a))
    out_dtype = _validate.q8_dtype("out_dtype", out_dtype)
    common = (
        a_scale, out_scale, a_zero_point, out_zero_point, out_dtype, rounding, clamp,
    )
    if not isinstance(b, PackedWeights):
        b = _at_least_2d("b", _validate.q8_array("b", b))
    elif b.groups is not None:
        raise ValueError("b must be packed by pack_q8, it was packed for a convolution")
    _validate.same_inner(a.shape, b.shape)
    try:
        lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise ValueError(f"a is {a.shape} and b is {b.shape}: leading axes disagree") from None
    shape = (*lead, a.shape[-2], b.shape[-1])
    out = _validate.output("out", out, shape, out_dtype)
    if 0 in lead and not isinstance(b, PackedWeights):      # nothing to compute, all to check
        a, b = np.zeros((0, 0), a.dtype), np.zeros((0, shape[-1]), b.dtype)
    if isinstance(b, PackedWeights) or b.size == b.shape[-1] * b.shape[-2]:     # one right operand
        right = b if isinstance(b, PackedWeights) else b.reshape(b.shape[-2:])
        packed = _resolve(right, b_scale, b_zero_point, bias, True)
        left = np.broadcast_to(a, (*lead, *a.shape[-2:]))
        rows = np.ascontiguousarray(left).reshape(int(np.prod(shape[:-1])), a.shape[-1])
        _run(rows, packed, *common, out.reshape(-1, shape[-1]) if out.size else None, n_threads)
        return out
    left = np.broadcast_to(a, (*lead, *a.shape[-2:]))
    packed = np.empty(b.shape[:-2], object)
    for index in np.ndindex(packed.shape):
        packed[index] = _resolve(b[index], b_scale, b_zero_point, bias, True)
    packed = np.broadcast_to(packed, lead)
    for index in np.ndindex(lead):
        _run(np.ascontiguousarray(left[index]), packed[index], *common, out[index], n_threads)
    return out


def _run(*arguments):
    """Plan a product, run it, and leave the result in its output."""
    *plan, n_threads = arguments
    step, _, finish = _product(*plan)
    step.run(n_threads)
    if finish is not None:
        finish(n_threads)


def _at_least_2d(name, array):
    if array.ndim < 2:
        raise ValueError(f"{name} must have at least 2 dimensions, got shape {array.shape}")
    return array


def _resolve(b, scale, zero_point, bias, needs_scale):
    is_plain = scale is None and bias is None and type(zero_point) is int and zero_point == 0
    if is_plain and type(b) is PackedWeights and b.groups is None and b.scale is not None:
        return b
    if isinstance(b, PackedWeights) and b.groups is not None:
        raise ValueError("b must be packed by pack_q8, it was packed for a convolution")
    return resolve(
        ("b", "b_scale", "b_zero_point"), b, scale,
        zero_point if np.ndim(zero_point) or zero_point else None, bias,
        lambda codes: pack_q8(codes, b_zero_point=zero_point, bias=bias, b_scale=scale),
        needs_scale,
    )


def _product(
    a, packed, a_scale, out_scale, a_zero_point, out_zero_point, out_dtype, rounding, clamp, out,
    table=None,
):
    """Plan a product with output in codes."""
    _validate.same_inner(a.shape, packed.shape)
    settings = (
        a.dtype.num, a_scale, out_scale, a_zero_point, out_zero_point, out_dtype, rounding, clamp
    )
    if table is not None:
        table = code_table(table)
        settings = (*settings, table.dtype.num, table.tobytes())
    known = packed.kept(settings)
    if known is not None:               # checked before
        written, flip, right = known
        out = _validate.output("out", out, (a.shape[0], packed.shape[1]), written)
        return packed._kernels.q8.product(a, *a.shape, flip, False, False, right, out), out, None
    out_dtype = _validate.q8_dtype("out_dtype", out_dtype)
    written = out_dtype if table is None else table.dtype
    out = _validate.output("out", out, (a.shape[0], packed.shape[1]), written)
    a_scale = _validate.scale("a_scale", a_scale, 0)
    out_scale = _validate.scale("out_scale", out_scale, 0)
    _validate.choice("rounding", rounding, _validate.ROUNDINGS)
    target = output_target(out_dtype, out_zero_point, clamp)
    if rounding != "nearest_even":
        if table is not None:
            raise ValueError(f"table needs rounding='nearest_even', got {rounding!r}")
        acc = np.empty(out.shape, np.int32)

        def finish(n_threads):
            return requantize_q8(
                acc, packed.multipliers(a_scale, out_scale), zero_point=out_zero_point,
                dtype=out_dtype, rounding=rounding, clamp=clamp, out=out, n_threads=n_threads,
            )

        return _sums_step(a, packed, a_zero_point, acc), out, finish
    flip = flip_of(a.dtype)
    zero = _validate.code("a_zero_point", a_zero_point, a.dtype) + flip
    entries = None if table is None else by_byte(table, out_dtype).tobytes()
    right = packed.product(zero, (float(a_scale), float(out_scale)), target, entries)
    packed.keep(settings, (written, flip, right))
    return packed._kernels.q8.product(a, *a.shape, flip, False, False, right, out), out, None


def _sums_step(a, packed, a_zero_point, out):
    """Return the step that writes the sums of a left operand of (M, K) codes into `out`."""
    flip = flip_of(a.dtype)
    zero = _validate.code("a_zero_point", a_zero_point, a.dtype) + flip
    right = packed.product(zero)
    return packed._kernels.q8.product(a, *a.shape, flip, False, False, right, out)

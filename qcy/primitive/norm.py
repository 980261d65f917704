"""Layer normalization of codes."""

import numpy as np

from qcy import _kernels, _validate
from qcy.primitive.binding import bindable
from qcy.primitive.codes import flip_of, output_target

#: Features of a row: their distances from the mean, times their number, are exact in float32.
MOST_FEATURES = 65536


@bindable
def layer_norm_q8(
    codes, gamma, beta, *, scale, out_scale, out_zero_point=0, epsilon=1e-5, out_dtype="uint8",
    clamp=None, out=None, n_threads=None,
):
    """Normalize rows of codes to mean 0 and variance 1, times gamma, plus beta, equation (24).

    Sums are exact integers. The zero point of the codes cancels.

    Parameters
    ----------
    codes : (..., N) array, int8 or uint8
    gamma, beta : (N,) array
        Taken as float32.
    scale : float
        Real size of one step of `codes`.
    out_scale : float
    out_zero_point : int, default 0
    epsilon : float, default 1e-5
        Added to the variance.
    out_dtype : {"uint8", "int8"}, default "uint8"
    clamp : (int, int), optional
        Smallest and largest output code.
    out : (..., N) array of `out_dtype`, optional
    n_threads : int, optional

    Returns
    -------
    (..., N) array of `out_dtype`

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, N is not in [1, 65536], or gamma or beta is no finite float32
        in steps of the output.

    References
    ----------
    .. [1] J. L. Ba, J. R. Kiros, G. E. Hinton, "Layer Normalization", arXiv:1607.06450.

    Examples
    --------
    >>> codes = np.array([[10, 20, 30, 40]], np.uint8)
    >>> layer_norm_q8(codes, np.ones(4), np.zeros(4), scale=0.1, out_scale=0.01, out_zero_point=128)
    array([[  0,  83, 173, 255]], dtype=uint8)
    """
    codes = _validate.q8_array("codes", codes)
    n = codes.shape[-1] if codes.ndim else 0
    if not 1 <= n <= MOST_FEATURES:
        raise ValueError(f"codes must have 1 to {MOST_FEATURES} features, got shape {codes.shape}")
    scale = float(_validate.scale("scale", scale, 0))
    epsilon = _validate.real("epsilon", epsilon)
    if not epsilon >= 0:
        raise ValueError(f"epsilon must not be negative, got {epsilon}")
    kernel = _kernels.active.q8
    factor, shift = np.zeros((2, -(-n // kernel.BLOCK) * kernel.BLOCK), np.float32)
    factor[:n], shift[:n] = in_steps(gamma, beta, n, out_scale)
    reach = float(abs(factor).max()) * n**0.5 + float(abs(shift).max())
    out_dtype = _validate.q8_dtype("out_dtype", out_dtype)
    out = _validate.output("out", out, codes.shape, out_dtype)
    target = (*output_target(out_dtype, out_zero_point, clamp), reach >= 2.0**30)
    step = kernel.layer_norm(
        codes, codes.size // n, n, epsilon * (n / scale) ** 2, factor, shift,
        flip_of(codes.dtype), target, out,
    )
    return step, out, None


def in_steps(gamma, beta, n, out_scale):
    """Return gamma and beta as float32, in steps of the output."""
    out_scale = float(_validate.scale("out_scale", out_scale, 0))
    results = []
    for name, value in (("gamma", gamma), ("beta", beta)):
        array = _features(name, value, n)
        with np.errstate(over="ignore", under="ignore"):
            steps = (array / out_scale).astype(np.float32)
        if not np.isfinite(steps).all():
            largest = abs(array).max()
            raise ValueError(
                f"{name} / out_scale must fit float32, got {name} of {largest:.6g} and an "
                f"out_scale of {out_scale:.6g}"
            )
        results.append(steps)
    return results


def _features(name, value, n):
    """Return one finite float64 number for each feature."""
    array = _validate.real_array(name, value).astype(np.float64)
    if array.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), one for each feature, got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got {array[~np.isfinite(array)][0]}")
    return array

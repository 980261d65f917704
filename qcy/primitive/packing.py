"""Packed weights: what depends on the weights alone, done once."""

import numpy as np

from qcy import _kernels, _validate

#: The largest magnitude an int32 sum may reach, equation (11).
MAX_SUM = 2**31 - 1


class PackedWeights:
    """The right operand of a product, in the layout that the running kernels read.

    Made by `pack_q8` and `pack_conv_q8`; opaque and immutable. Pickling stores plain codes and
    packs them again for the machine that loads them.

    Attributes
    ----------
    shape : tuple of int
        (K, N) of a matrix, or (O, I / groups, KH, KW) of a convolution kernel.
    dtype : dtype
        int8 or uint8.
    groups : int or None
        Groups of a convolution kernel; None for a matrix.
    zero_point : (N,) int32 array
    bias : (N,) int32 array or None
    scale : float32 array, 0-d or (N,), or None
    """

    __slots__ = (
        "_folded", "_kernels", "_panels", "_sums", "_taps", "_weight_zero", "bias", "dtype",
        "groups", "scale", "shape", "zero_point",
    )

    def __init__(self, codes, zero_point, bias, scale, groups):
        self._kernels = _kernels.active
        self.shape, self.dtype, self.groups = codes.shape, codes.dtype, groups
        self.zero_point, self.bias, self.scale = zero_point, bias, scale
        for array in (zero_point, bias, scale):
            if array is not None:
                array.flags.writeable = False
        self._weight_zero = zero_point - (128 if self.dtype == np.uint8 else 0)
        n_groups, n_inner, n_cols = self._group_shape()
        size, padded = self._kernels.gemm.packed_size(n_inner, n_cols)
        self._panels = _aligned(n_groups * size)
        self._sums = np.empty((n_groups, n_cols), np.int32)
        magnitudes = np.empty((n_groups, n_cols), np.int64)
        flip = 0x80 if self.dtype == np.uint8 else 0
        for group, matrix in enumerate(self._matrices(codes)):
            self._kernels.gemm.pack(
                matrix.view(np.uint8), flip, self._panels[group * size : (group + 1) * size],
                self._weight_zero.reshape(n_groups, n_cols)[group], self._sums[group],
                magnitudes[group],
            )
        _check_sums(magnitudes.reshape(-1), bias)
        self._folded = (None, None)
        self._taps = None

    def _group_shape(self):
        """Return (groups, K, N) of the matrix products that this stands for."""
        if self.groups is None:
            return 1, *self.shape
        n_out, depth, height, width = self.shape
        return self.groups, height * width * depth, n_out // self.groups

    def _matrices(self, codes):
        """Yield the (K, N) matrix of each group: kernel rows, kernel columns, channels."""
        if self.groups is None:
            yield codes
            return
        n_groups, n_inner, n_cols = self._group_shape()
        for group in np.split(codes, n_groups):
            yield np.ascontiguousarray(group.transpose(2, 3, 1, 0).reshape(n_inner, n_cols))

    @property
    def is_depthwise(self):
        """Whether each channel is convolved by itself, into one channel."""
        return self.groups is not None and 1 < self.groups == self.shape[0] and self.shape[1] == 1

    @property
    def codes(self):
        """The plain codes again: an array of `shape` and `dtype`."""
        n_groups, n_inner, n_cols = self._group_shape()
        size, padded = self._kernels.gemm.packed_size(n_inner, n_cols)
        panel = self._kernels.gemm.PANEL
        groups = np.empty((n_groups, n_inner, n_cols), np.int8)
        cell = self._kernels.gemm.GROUP
        depth = -(-n_inner // cell)
        for group in range(n_groups):
            start = group * size
            for first in range(0, padded, panel):
                width = min(panel, padded - first)
                block = self._panels[start : start + cell * depth * width]
                plain = block.reshape(depth, width, cell).transpose(0, 2, 1).reshape(-1, width)
                valid = min(width, n_cols - first)
                groups[group, :, first : first + valid] = plain[:n_inner, :valid]
                start += block.size
        if self.dtype == np.uint8:
            groups = groups.view(np.uint8) ^ np.uint8(0x80)
        if self.groups is None:
            return groups[0]
        n_out, channels, height, width = self.shape
        kernels = groups.reshape(n_groups, height, width, channels, n_cols)
        return np.ascontiguousarray(kernels.transpose(0, 4, 3, 1, 2)).reshape(self.shape)

    def depthwise(self):
        """Return (taps, C) int8 weights, (C,) zero points and (C,) bias of a depthwise kernel."""
        if self._taps is None:
            codes = self.codes.reshape(self.shape[0], -1).T
            codes = codes if self.dtype == np.int8 else (codes ^ np.uint8(0x80)).view(np.int8)
            bias = np.zeros(self.shape[0], np.int32) if self.bias is None else self.bias
            self._taps = np.ascontiguousarray(codes), self._weight_zero, bias
        return self._taps

    def folded(self, a_zero, scales=None):
        """Return what the kernels add and multiply by, for one left operand.

        Parameters
        ----------
        a_zero : int
            Zero point of the left operand as uint8.
        scales : (a_scale, out_scale), optional
            For output in codes.

        Returns
        -------
        offset, minus_b_zero, multiplier : padded arrays; the last two may be None
        """
        key = (a_zero, scales)
        cached, result = self._folded
        if cached == key:
            return result
        n_groups, n_inner, n_cols = self._group_shape()
        _, padded = self._kernels.gemm.packed_size(n_inner, n_cols)
        offset = np.empty((n_groups, padded), np.int32)
        minus_b_zero = np.empty((n_groups, padded), np.int32)
        for group in range(n_groups):
            columns = slice(group * n_cols, (group + 1) * n_cols)
            self._kernels.gemm.fold(
                self._sums[group], self._weight_zero[columns],
                None if self.bias is None else self.bias[columns],
                a_zero, n_inner, offset[group], minus_b_zero[group],
            )
        multiplier = None
        if scales is not None:
            multiplier = np.zeros((n_groups, padded), np.float32)
            multiplier[:, :n_cols] = np.broadcast_to(
                self.multipliers(*scales), (n_groups * n_cols,)
            ).reshape(n_groups, n_cols)
            multiplier = multiplier.reshape(-1)
        has_zero = self._weight_zero.any()
        result = offset.reshape(-1), minus_b_zero.reshape(-1) if has_zero else None, multiplier
        self._folded = (key, result)
        return result

    def multipliers(self, a_scale, out_scale):
        """Return the multipliers of equation (9): 0-d, or one per output channel."""
        with np.errstate(over="ignore", under="ignore"):
            multiplier = (np.float32(a_scale) * self.scale) / np.float32(out_scale)
        return _validate.multipliers(
            np.asarray(multiplier, np.float32),
            ("input scale", a_scale), ("weight scale", self.scale), ("output scale", out_scale),
        )

    def __reduce__(self):
        return PackedWeights, (self.codes, self.zero_point, self.bias, self.scale, self.groups)

    def __repr__(self):
        groups = "" if self.groups is None else f", groups={self.groups}"
        return f"PackedWeights(shape={self.shape}, dtype={self.dtype}{groups})"


def _aligned(size, alignment=64):
    """Return int8 memory that starts on a cache line."""
    raw = np.zeros(size + alignment, np.int8)
    start = -raw.ctypes.data % alignment
    return raw[start : start + size]


def _check_sums(magnitudes, bias):
    """Check equation (11): no sum can leave int32, whatever the left operand holds."""
    reach = 255 * magnitudes
    if bias is not None:
        reach = reach + np.abs(bias.astype(np.int64))
    if (reach > MAX_SUM).any():
        column = int(np.argmax(reach > MAX_SUM))
        raise ValueError(
            f"the sum of output column {column} can reach {reach[column]}, it must not exceed "
            f"{MAX_SUM}: 255 * sum |b - b_zero_point| + |bias|"
        )


def _per_column(name, value, n_cols):
    """Return a checked bias: (N,) int32, or None."""
    return None if value is None else _validate.int32_array(name, value, (n_cols,)).copy()


def _pack(names, codes, n_cols, zero_point, bias, scale, groups):
    zero_point = _validate.zero_points(names[0], zero_point, codes.dtype, n_cols)
    zero_point = np.broadcast_to(zero_point, (n_cols,)).copy()
    bias = _per_column("bias", bias, n_cols)
    if scale is not None:
        scale = _validate.scale(names[1], scale, length=n_cols).copy()
    return PackedWeights(codes, zero_point, bias, scale, groups)


def pack_q8(b, *, b_zero_point=0, bias=None, b_scale=None):
    """Pack the right operand of matrix products.

    Parameters
    ----------
    b : (K, N) array, int8 or uint8
        Codes.
    b_zero_point : int or (N,) array of int, default 0
        The code of 0.0, one or one per column.
    bias : (N,) array, int32, optional
        Added to the sums, in units of ``a_scale * b_scale``.
    b_scale : float or (N,) array, optional
        Needed for products with 8-bit output.

    Returns
    -------
    PackedWeights

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or a sum could leave int32: equation (11).

    Examples
    --------
    >>> packed = pack_q8(np.array([[3], [4]], np.int8), bias=np.array([100]))
    >>> gemm_nn_q8_accum(np.array([[130, 126]], np.uint8), packed, a_zero_point=128)
    array([[98]], dtype=int32)
    """
    b = _validate.q8_array("b", b, 2)
    return _pack(("b_zero_point", "b_scale"), b, b.shape[1], b_zero_point, bias, b_scale, None)


def pack_conv_q8(w, *, w_zero_point=0, bias=None, w_scale=None, groups=1):
    """Pack the kernel of a convolution.

    Parameters
    ----------
    w : (O, I / groups, KH, KW) array, int8 or uint8
        Codes.
    w_zero_point : int or (O,) array of int, default 0
        The code of 0.0, one or one per output channel.
    bias : (O,) array, int32, optional
        Added to the sums, in units of ``x_scale * w_scale``.
    w_scale : float or (O,) array, optional
        Needed for convolutions with 8-bit output.
    groups : int, default 1
        Groups of channels that are convolved apart; divides O.

    Returns
    -------
    PackedWeights

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or a sum could leave int32: equation (11).

    Examples
    --------
    >>> pack_conv_q8(np.ones((8, 4, 3, 3), np.int8))
    PackedWeights(shape=(8, 4, 3, 3), dtype=int8, groups=1)
    """
    w = _validate.q8_array("w", w, 4)
    groups = _validate.integer("groups", groups, 1)
    if w.shape[0] % groups:
        raise ValueError(f"groups must divide the {w.shape[0]} output channels, got {groups}")
    return _pack(("w_zero_point", "w_scale"), w, w.shape[0], w_zero_point, bias, w_scale, groups)


def resolve(names, value, scale, zero_point, bias, pack, needs_scale):
    """Return packed weights: those given, whose scale, zero point and bias are theirs, or new ones.

    `names` are what the caller calls the operand, its scale and its zero point.
    """
    operand, scale_name, zero_name = names
    if not isinstance(value, PackedWeights):
        if needs_scale and scale is None:
            raise TypeError(f"{scale_name} is needed for output in codes")
        packed = pack(value)
    else:
        packed = value
        given = {scale_name: scale, zero_name: zero_point, "bias": bias}
        for name, argument in given.items():
            if argument is not None:
                raise TypeError(f"{name} is part of the packed {operand}; give it to the packing")
        if needs_scale and packed.scale is None:
            raise ValueError(f"{operand} was packed without a scale, output in codes needs one")
    return packed

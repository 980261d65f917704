"""Packed weights: the right operand of a product, as the running kernels read it."""

import numpy as np

from qcy import _kernels, _validate
from qcy._product import Product
from qcy._step import PLAIN

#: The largest magnitude an int32 sum may reach, equation (11).
MAX_SUM = 2**31 - 1
#: Numbers of a kernel row up to which kernels are packed whole.
MOST_WHOLE = 64


class PackedWeights:
    """The right operand of a product, in the layout that the running kernels read.

    Made by `pack_q8` and `pack_conv_q8`; opaque and immutable. Pickling stores plain codes and
    packs them again for the machine that loads them.

    Attributes
    ----------
    shape : tuple of int
        (K, N) of a matrix, (O, I / groups, KH, KW) of a convolution kernel, or (I, O / groups, KH,
        KW) of that of a transposed convolution.
    dtype : dtype
        int8 or uint8.
    groups : int or None
        Groups of a convolution kernel; None for a matrix.
    transposed : bool
        Whether it is the kernel of a transposed convolution.
    zero_point : (N,) int32 array
    bias : (N,) int32 array or None
    scale : float32 array, 0-d or (N,), or None
    """

    __slots__ = (
        "_inner", "_kept", "_kernels", "_panels", "_reach", "_sums", "_weight_zero", "bias",
        "dtype", "groups", "scale", "shape", "transposed", "zero_point",
    )

    def __init__(self, codes, zero_point, bias, scale, groups, transposed=False):
        self._kernels = _kernels.active
        self.shape, self.dtype, self.groups = codes.shape, codes.dtype, groups
        self.transposed = transposed
        self.zero_point, self.bias, self.scale = zero_point, bias, scale
        for array in (zero_point, bias, scale):
            if array is not None:
                array.flags.writeable = False
        if transposed:
            self._pack_transposed(codes)
            return
        self._inner = None
        self._weight_zero = zero_point - (128 if self.dtype == np.uint8 else 0)
        n_groups, n_taps, depth, n_cols = self._group_shape()
        size, _ = self._kernels.q8.packed_size(n_taps, depth, n_cols)
        self._panels = _aligned(n_groups * size)
        self._sums = np.empty((n_groups, n_cols), np.int32)
        magnitudes = np.empty(n_groups * n_cols, np.int64)
        flip = 0x80 if self.dtype == np.uint8 else 0
        by_column = codes.T if groups is None else codes.reshape(len(codes), n_taps * depth)
        self._kernels.q8.sum_columns(
            by_column.view(np.uint8), flip, self._weight_zero, self._sums.reshape(-1), magnitudes
        )
        self._reach = _check_sums(magnitudes, bias)
        for group, weights in enumerate(self._by_group(codes.view(np.uint8))):
            panels = self._panels[group * size : (group + 1) * size]
            self._kernels.q8.pack(weights, flip, panels)
        self._kept = {}

    def _pack_transposed(self, codes):
        """Pack the kernel of a transposed convolution.

        It multiplies each pixel by all its weights, as a 1x1 convolution with an output for each
        output channel and kernel cell does; then the products are scattered.
        """
        n_in, n_out, height, width = codes.shape
        grouped = codes.reshape(self.groups, n_in // self.groups, n_out, height, width)
        taps = height * width
        by_out = grouped.transpose(0, 2, 3, 4, 1).reshape(
            self.groups * n_out * taps, n_in // self.groups, 1, 1
        )
        self._inner = PackedWeights(
            np.ascontiguousarray(by_out), self.zero_point.repeat(taps), None, None, self.groups
        )
        # Every cell of a kernel may meet in one output.
        self._reach = _check_sums(
            (self._inner._reach / 255).astype(np.int64).reshape(-1, taps).sum(axis=1), self.bias,
            "channel",
        )

    @property
    def inner(self):
        """The 1x1 convolution in a transposed one: its outputs are channels by kernel cells."""
        return self._inner

    def _group_shape(self):
        """Return (groups, taps, depth, N) of the products that this stands for.

        A convolution has a tap for each kernel row, which holds its columns and their channels; or
        one tap for all of them, if it `is_whole`.
        """
        if self.groups is None:
            return 1, 1, *self.shape
        n_out, depth, height, width = self.shape
        if self.is_whole:
            return 1, 1, height * width * depth, n_out
        return self.groups, height, width * depth, n_out // self.groups

    def _by_group(self, codes):
        """Return the weights of each group: (taps, columns of a tap, channels, N)."""
        if self.groups is None:
            return [codes[None, None]]
        if self.is_whole:
            n_out, depth, height, width = codes.shape
            return [codes.reshape(n_out, depth, 1, height * width).transpose(2, 3, 1, 0)]
        return [group.transpose(2, 3, 1, 0) for group in np.split(codes, self.groups)]

    @property
    def is_depthwise(self):
        """Whether each channel is convolved by itself, into one channel."""
        return self.groups is not None and 1 < self.groups == self.shape[0] and self.shape[1] == 1

    @property
    def is_whole(self):
        """Whether kernel rows lie without gaps: short ones, that would waste a part of a word."""
        if self.groups != 1 or self.transposed:
            return False
        _, depth, height, width = self.shape
        return height > 1 and 0 < width * depth <= MOST_WHOLE and width * depth % 4 != 0

    @property
    def codes(self):
        """The plain codes again: an array of `shape` and `dtype`."""
        if self.transposed:
            n_in, n_out, height, width = self.shape
            by_out = self._inner.codes.reshape(
                self.groups, n_out, height, width, n_in // self.groups
            )
            return np.ascontiguousarray(by_out.transpose(0, 4, 1, 2, 3)).reshape(self.shape)
        n_groups, n_taps, depth, n_cols = self._group_shape()
        size, padded = self._kernels.q8.packed_size(n_taps, depth, n_cols)
        panel, cell = self._kernels.q8.PANEL, self._kernels.q8.GROUP
        groups = np.empty((n_groups, n_taps, depth, n_cols), np.int8)
        cells = -(-depth // cell)
        for group in range(n_groups):
            start = group * size
            for first in range(0, padded, panel):
                width = min(panel, padded - first)
                block = self._panels[start : start + n_taps * cells * cell * width]
                plain = block.reshape(n_taps, cells, width, cell).transpose(0, 1, 3, 2)
                plain = plain.reshape(n_taps, cells * cell, width)
                valid = min(width, n_cols - first)
                groups[group, ..., first : first + valid] = plain[:, :depth, :valid]
                start += block.size
        if self.dtype == np.uint8:
            groups = groups.view(np.uint8) ^ np.uint8(0x80)
        if self.groups is None:
            return groups[0, 0]
        n_out, channels, height, width = self.shape
        kernels = groups.reshape(n_groups, height, width, channels, n_cols)
        return np.ascontiguousarray(kernels.transpose(0, 4, 3, 1, 2)).reshape(self.shape)

    def kept(self, key):
        """Return what `keep` kept for a key, or None; a key that cannot be hashed keeps nothing."""
        try:
            return self._kept.get(key)
        except TypeError:
            return None

    def keep(self, key, made):
        """Keep what depends on the weights and the key alone, and return it."""
        try:
            if len(self._kept) >= 16:           # weights serve a few layers, not many
                self._kept = {}
            self._kept[key] = made
        except TypeError:
            pass
        return made

    def product(self, a_zero, scales=None, target=(0, 0, 255, 0), table=None):
        """Return what the kernels add, multiply by and clamp to, for one left operand.

        Parameters
        ----------
        a_zero : int
            Zero point of the left operand as uint8.
        scales : (a_scale, out_scale), optional
            For output in codes; without, it is int32.
        target : (zero_point, low, high, flip)
            Of output in codes, as uint8.
        table : bytes, optional
            Of a function that comes last, by the code's byte.

        Returns
        -------
        Product
        """
        key = (a_zero, scales, target, table)
        return self.kept(key) or self.keep(key, self._product(*key))

    def _product(self, a_zero, scales, target, table):
        n_groups, n_taps, depth, n_cols = self._group_shape()
        offset = self._padded(np.int32)
        minus_zero = self._padded(np.int32)
        for group in range(n_groups):
            columns = slice(group * n_cols, (group + 1) * n_cols)
            self._kernels.q8.fold(
                self._sums[group], self._weight_zero[columns],
                None if self.bias is None else self.bias[columns],
                a_zero, n_taps * depth, offset[group], minus_zero[group],
            )
        multiplier, is_wild = None, False
        if scales is not None:
            factors = self.multipliers(*scales)
            is_wild = self.is_wild(factors)
            multiplier = self._padded(np.float32)
            multiplier[:, :n_cols] = np.broadcast_to(
                factors, (n_groups * n_cols,)
            ).reshape(n_groups, n_cols)
            multiplier = multiplier.reshape(-1)
        return Product(
            self._panels, n_cols, offset.reshape(-1),
            minus_zero.reshape(-1) if self._weight_zero.any() else None, multiplier,
            target=(*target, is_wild),
            table=None if table is None else np.frombuffer(table, np.uint8),
        )

    def _padded(self, dtype):
        """Return a zero for each column of each group, and for those that only fill up."""
        n_groups, n_taps, depth, n_cols = self._group_shape()
        _, padded = self._kernels.q8.packed_size(n_taps, depth, n_cols)
        return np.zeros((n_groups, padded), dtype)

    def is_wild(self, factors):
        """Return whether sums times their multipliers may pass what a conversion to int32 takes."""
        with np.errstate(over="ignore"):
            return bool((factors * self._reach >= 2.0**31).any())

    def dynamic_product(self, bias):
        """Return the `Product` for reals in and out, equation (22), with a float32 bias or None."""
        key = ("dynamic", None if bias is None else bias.tobytes())
        if self.kept(key):
            return self.kept(key)
        n_cols = self.shape[1]
        weight, factors, floats = (self._padded(t) for t in (np.int32, np.float32, np.float32))
        weight[0, :n_cols] = -self._sums[0]
        factors[0, :n_cols] = self.scale
        floats[0, :n_cols] = 0 if bias is None else bias
        return self.keep(key, Product(
            self._panels, n_cols, self._padded(np.int32)[0], weight[0], factors[0], floats[0]
        ))

    def depthwise(self, x_zero, scales=None):
        """Return the weights of a depthwise kernel as its loops take them, and whether it is wild.

        Returns
        -------
        arrays : tuple
            Of ``q8.depthwise``; or of ``q8.plain_depthwise``, if weights have zero points.
        is_wild : bool
        """
        key = ("depthwise", x_zero, scales)
        return self.kept(key) or self.keep(key, self._depthwise(x_zero, scales))

    def _depthwise(self, x_zero, scales):
        n = self.shape[0]
        codes = self.codes.reshape(n, -1).T
        codes = codes if self.dtype == np.int8 else (codes ^ np.uint8(0x80)).view(np.int8)
        weights = np.ascontiguousarray(codes)
        bias = np.zeros(n, np.int32) if self.bias is None else self.bias
        multiplier, is_wild = None, False
        if scales is not None:
            factors = self.multipliers(*scales)
            is_wild = self.is_wild(factors)
            multiplier = np.ascontiguousarray(np.broadcast_to(factors, (n,)))
        if self._weight_zero.any():
            return (weights, self._weight_zero, bias, multiplier), is_wild
        size, lanes = self._kernels.q8.packed_depthwise_size(n, *self.shape[2:])
        packed, offset, factor = _aligned(size), np.zeros(lanes, np.int32), np.zeros(
            lanes, np.float32
        )
        self._kernels.q8.pack_depthwise(
            weights.reshape(*self.shape[2:], n), bias, multiplier, x_zero, packed, offset, factor
        )
        return (packed, offset, None if multiplier is None else factor), is_wild

    def multipliers(self, a_scale, out_scale):
        """Return the multipliers of equation (9): 0-d, or one per output channel."""
        with np.errstate(over="ignore", under="ignore"):
            multiplier = (np.float32(a_scale) * self.scale) / np.float32(out_scale)
        return _validate.multipliers(
            np.asarray(multiplier, np.float32),
            ("input scale", a_scale), ("weight scale", self.scale), ("output scale", out_scale),
        )

    def bind(self, a, out, **settings):
        """Check a product or a convolution with these weights once, and return it ready to run.

        Parameters
        ----------
        a : (M, K) array, or (B, H, W, C) images
        out : array
        **settings
            As for `gemm_nn_q8` or, channels last, for `conv2d_q8`.

        Returns
        -------
        BoundCall

        Examples
        --------
        >>> packed = pack_q8(np.array([[3], [4]], np.int8), b_scale=0.5)
        >>> a, out = np.array([[2, 1]], np.uint8), np.zeros((1, 1), np.uint8)
        >>> call = packed.bind(a, out, a_scale=1.0, out_scale=1.0)
        >>> call()
        array([[5]], dtype=uint8)
        """
        if self.groups is None:
            from qcy.primitive.gemm import gemm_nn_q8

            return gemm_nn_q8.bind(a, self, out=out, **settings)
        from qcy.primitive.conv import conv2d_q8

        return conv2d_q8.bind(a, self, out=out, layout="NHWC", **settings)

    def __reduce__(self):
        return PackedWeights, (
            self.codes, self.zero_point, self.bias, self.scale, self.groups, self.transposed,
        )

    def __repr__(self):
        groups = "" if self.groups is None else f", groups={self.groups}"
        groups += ", transposed=True" if self.transposed else ""
        return f"PackedWeights(shape={self.shape}, dtype={self.dtype}{groups})"


PLAIN.add(PackedWeights)


def _aligned(size, alignment=64):
    """Return int8 memory that starts on a cache line."""
    raw = np.zeros(size + alignment, np.int8)
    start = -raw.ctypes.data % alignment
    return raw[start : start + size]


def _check_sums(magnitudes, bias, place="column"):
    """Check equation (11): no sum can leave int32; return how far each can reach."""
    reach = 255 * magnitudes
    if bias is not None:
        reach = reach + np.abs(bias.astype(np.int64))
    if (reach > MAX_SUM).any():
        column = int(np.argmax(reach > MAX_SUM))
        raise ValueError(
            f"the sum of output {place} {column} can reach {reach[column]}, it must not exceed "
            f"{MAX_SUM}: 255 * sum |b - b_zero_point| + |bias|"
        )
    return reach.astype(np.float64)

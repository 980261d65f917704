"""Layers that move numbers and change none, in float and in 8 bits."""

import numpy as np

from qcy import _validate
from qcy.nn.layers.base import Layer, QuantizedLayer
from qcy.primitive.windows import from_nhwc, to_nhwc


class _Moving(Layer):
    """A layer whose twin does to codes what it does to numbers, equation (14)."""

    KEEPS_PARAMS = True

    def quantized(self, in_params, out_params=None):
        """Return the twin; its output keeps the input's parameters."""
        return _TWINS[type(self)](in_params, out_params or in_params, **self.settings())

    def _forward(self, x):
        return self.move(x)


class _MovingQuantized(QuantizedLayer):
    """The twin of a layer that moves numbers: it moves codes."""

    KEEPS_PARAMS = True
    _FLOAT = None

    def __init__(self, in_params, out_params, **settings):
        super().__init__(in_params, out_params)
        if self.in_params[0] != out_params:
            raise ValueError(
                f"out_params must be the input's, {self.in_params[0]}, got {out_params}"
            )
        self._moving = self._FLOAT(**settings)
        self.__dict__.update(self._moving.settings())

    def forward_codes(self, x, out=None):
        """Compute the layer on plain arrays of codes."""
        moved = self._moving.move(x)
        if out is None:
            return moved
        out[...] = moved
        return out


class Flatten(_Moving):
    """All axes but the first into one, channels first whatever the layout.

    Parameters
    ----------
    layout : {"NCHW", "NHWC"}, default "NCHW"
        Of images that come in.

    Examples
    --------
    >>> Flatten()(np.zeros((2, 3, 4, 4))).shape
    (2, 48)
    """

    SETTINGS = ("layout",)

    def __init__(self, *, layout="NCHW"):
        self.layout = _validate.choice("layout", layout, _validate.LAYOUTS)

    def move(self, x):
        """Return `x` flattened."""
        if x.ndim == 4 and self.layout == "NHWC":
            x = from_nhwc(x, "NCHW")
        return x.reshape(len(x), int(np.prod(x.shape[1:])))


class Reshape(_Moving):
    """Another shape for everything but the batch.

    Parameters
    ----------
    shape : int or sequence of int
        Without the batch; one may be -1. Images count as (C, H, W) whatever the layout.
    layout : {"NCHW", "NHWC"}, default "NCHW"
        Of images, in and out.

    Examples
    --------
    >>> Reshape((4, 3))(np.zeros((2, 12))).shape
    (2, 4, 3)
    """

    SETTINGS = ("shape", "layout")

    def __init__(self, shape, *, layout="NCHW"):
        shape = shape if np.iterable(shape) else (shape,)
        self.shape = tuple(_validate.integer("shape", size, -1) for size in shape)
        if self.shape.count(-1) > 1:
            raise ValueError(f"shape may have one -1, got {self.shape}")
        self.layout = _validate.choice("layout", layout, _validate.LAYOUTS)

    def move(self, x):
        """Return `x` in the other shape."""
        if x.ndim == 4 and self.layout == "NHWC":
            x = from_nhwc(x, "NCHW")
        if -1 in self.shape:
            known = -int(np.prod(self.shape))
            size = int(np.prod(x.shape[1:]))
            if known <= 0 or size % known:
                raise ValueError(f"x of shape {x.shape} does not fit shape {self.shape}")
            shape = tuple(size // known if s == -1 else s for s in self.shape)
        else:
            shape = self.shape
        if int(np.prod(shape)) != int(np.prod(x.shape[1:])):
            raise ValueError(f"x of shape {x.shape} does not fit shape {self.shape}")
        x = x.reshape(len(x), *shape)
        return to_nhwc(x, "NCHW") if x.ndim == 4 and self.layout == "NHWC" else x


class Identity(_Moving):
    """What comes in.

    Examples
    --------
    >>> Identity()([1.0])
    array([1.], dtype=float32)
    """

    IS_POINTWISE = True

    def move(self, x):
        """Return `x`."""
        return x


class Dropout(_Moving):
    """Nothing at inference: what comes in.

    Parameters
    ----------
    rate : float, default 0.5
        Share that training dropped; kept for the record.

    Examples
    --------
    >>> Dropout(0.1)([1.0])
    array([1.], dtype=float32)
    """

    SETTINGS = ("rate",)
    IS_POINTWISE = True

    def __init__(self, rate=0.5):
        self.rate = _validate.real("rate", rate)
        if not 0 <= self.rate < 1:
            raise ValueError(f"rate must be in [0, 1), got {rate}")

    def move(self, x):
        """Return `x`."""
        return x


class FlattenQuantized(_MovingQuantized):
    """8-bit `Flatten`."""

    SETTINGS = ("in_params", "out_params", *Flatten.SETTINGS)
    _FLOAT = Flatten


class ReshapeQuantized(_MovingQuantized):
    """8-bit `Reshape`."""

    SETTINGS = ("in_params", "out_params", *Reshape.SETTINGS)
    _FLOAT = Reshape


class IdentityQuantized(_MovingQuantized):
    """8-bit `Identity`."""

    IS_POINTWISE = True
    _FLOAT = Identity


class DropoutQuantized(_MovingQuantized):
    """8-bit `Dropout`."""

    SETTINGS = ("in_params", "out_params", *Dropout.SETTINGS)
    IS_POINTWISE = True
    _FLOAT = Dropout


_TWINS = {
    Flatten: FlattenQuantized, Reshape: ReshapeQuantized, Identity: IdentityQuantized,
    Dropout: DropoutQuantized,
}

"""Where the windows of a convolution or a pooling lie over an image."""

from dataclasses import dataclass

import numpy as np

from qcy import _validate
from qcy._step import Place
from qcy.primitive.move import permute_q8


@dataclass(frozen=True)
class Window:
    """Kernel size, stride, padding and dilation, checked.

    Parameters
    ----------
    kernel, stride, dilation : (int, int)
        Height and width.
    padding : (int, int, int, int)
        Cells outside the image: top, left, bottom, right.
    """

    kernel: tuple
    stride: tuple = (1, 1)
    padding: tuple = (0, 0, 0, 0)
    dilation: tuple = (1, 1)

    @classmethod
    def of(cls, kernel_size, stride=1, padding=0, dilation=1):
        """Return a window from what users write: numbers, pairs, four sides."""
        return cls(
            _validate.pair("kernel_size", kernel_size, 1),
            _validate.pair("stride", stride, 1),
            _validate.padding("padding", padding),
            _validate.pair("dilation", dilation, 1),
        )

    def out_size(self, height, width):
        """Return the output's (height, width).

        Raises
        ------
        ValueError
            If the kernel, dilated, is larger than the padded image.
        """
        sizes = []
        for axis, size in enumerate((height, width)):
            padded = size + self.padding[axis] + self.padding[axis + 2]
            reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1
            if reach > padded:
                raise ValueError(
                    f"the image must hold the kernel: {height}x{width} with padding "
                    f"{self.padding} is smaller than kernel {self.kernel}, dilation {self.dilation}"
                )
            sizes.append((padded - reach) // self.stride[axis] + 1)
        return tuple(sizes)

    def always_meets(self, height, width):
        """Return whether every window has a cell inside the image; padding is less than it."""
        for axis, size in enumerate((height, width)):
            # Only one that is dilated may step over the image.
            if self.dilation[axis] > 1 or size == 0:
                starts = np.arange(self.out_size(height, width)[axis]) * self.stride[axis]
                cells = np.arange(self.kernel[axis]) * self.dilation[axis] - self.padding[axis]
                cells = starts[:, None] + cells
                if not ((cells >= 0) & (cells < size)).any(axis=1).all():
                    return False
        return True

    def sizes(self, height, width, channels):
        """Return what a kernel needs to know, in the order of ``window_t``."""
        return (
            height, width, channels, *self.out_size(height, width), *self.kernel, *self.stride,
            *self.dilation, *self.padding[:2],
        )


def to_nhwc(x, layout):
    """Return images channels last, C-ordered; no copy if they are."""
    if type(x) is Place:
        return _reorder(x, (0, 2, 3, 1), 1) if layout == "NCHW" else x
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if layout == "NCHW" else x


def from_nhwc(x, layout, out=None):
    """Return channels-last images in `layout`, written to `out` if given."""
    if type(x) is Place:
        return _reorder(x, (0, 3, 1, 2), 3) if layout == "NCHW" else x
    result = x.transpose(0, 3, 1, 2) if layout == "NCHW" else x
    if out is None:
        return np.ascontiguousarray(result)
    if out is not x:
        out[...] = result
    return out


def bring_back(direct, layout, out):
    """Return how a channels-last result gets into `out` when it is there; None if it is `out`."""
    return None if layout == "NHWC" else lambda n_threads: from_nhwc(direct, layout, out)


def _reorder(x, axes, channel_axis):
    """Return the place of images with their axes in another order."""
    channels = x.shape[channel_axis]
    if 1 in (channels, x.size // max(1, len(x) * channels)):        # nothing moves
        return x.reshape(*(x.shape[axis] for axis in axes))
    return permute_q8(x, axes)


def layout_shape(layout, n, height, width, channels):
    """Return the shape of a batch of images in `layout`."""
    return (n, channels, height, width) if layout == "NCHW" else (n, height, width, channels)


def split_shape(shape, layout):
    """Return (n, height, width, channels) of a batch of images in `layout`."""
    n, *rest = shape
    return (n, *rest[1:], rest[0]) if layout == "NCHW" else (n, *rest)

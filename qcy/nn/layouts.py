"""Where images are channels last inside an 8-bit model: layouts follow the layers.

Kernels want images channels last; axes count channels first. A value is as the layer that made it
left it, and is brought into the other order where a layer wants that. Layers that work element by
element take either.
"""

from qcy.primitive.windows import from_nhwc, to_nhwc


def arrange(layer, arrays, are_last, outside):
    """Return arrays in the order that a layer wants, and whether that is channels last.

    Parameters
    ----------
    layer : Layer
    arrays : sequence of arrays or places
    are_last : sequence of bool
        Whether each is of images channels last.
    outside : {"NCHW", "NHWC"}
        The model's layout.
    """
    order = layer.order
    wanted = any(are_last) if order == "any" else (
        (outside if order == "outside" else order) == "NHWC"
    )
    if order == "any" and wanted:       # what has fewer axes counts them as outside
        are_last = [
            outside == "NHWC" if x.ndim < 4 else is_last
            for x, is_last in zip(arrays, are_last, strict=True)
        ]
        arrays = [_with_four_axes(x) for x in arrays]
    return [
        x if x.ndim != 4 or is_last == wanted
        else (to_nhwc(x, "NCHW") if wanted else from_nhwc(x, "NCHW"))
        for x, is_last in zip(arrays, are_last, strict=True)
    ], wanted


def enters_last(model, name, ndim):
    """Whether an input is best brought into channels last at once: all that take it want that."""
    takers = model.consumers(name)
    return ndim == 4 and bool(takers) and all(node.layer.order == "NHWC" for node in takers)


def _with_four_axes(x):
    """Return what is to meet an image element by element with as many axes."""
    return x.reshape((1,) * (4 - x.ndim) + x.shape) if 1 <= x.ndim < 4 and x.size > 1 else x

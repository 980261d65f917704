"""Folders of images as samples: found, read by Pillow and brought into the form of an input."""

from itertools import chain

import numpy as np

from qcy.nn import layers
from qcy.nn.graph import TensorType

#: Endings of files that are taken for images.
ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


def in_folder(folder, model, *, size=None, mean=None, std=None):
    """Return the images in a folder; folders in it are classes.

    Parameters
    ----------
    folder : Path
    model : Graph
    size, mean, std
        As for `qcy.dataset.open_data`.

    Returns
    -------
    n : int
        How many there are.
    take : callable
        Reads those with some numbers, and returns a tuple of one array.
    labels : array or None
    """
    files, labels = _image_files(folder)
    form = _Form(model, folder, size, mean, std)
    return len(files), lambda places: (form.batch([files[i] for i in places]),), labels


def _image_files(folder):
    """Return the paths of images in order, and the numbers of their classes or None."""
    inside = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    classes = [path for path in inside if path.is_dir()]
    if all(path.name.isdecimal() for path in classes):
        classes.sort(key=lambda path: int(path.name))
    files = [path for path in inside if path.suffix.lower() in ENDINGS]
    labels = None
    if classes:
        if files:
            raise ValueError(
                f"{folder} must hold images, or a folder for each class; it has {files[0].name} "
                f"and {classes[0].name}"
            )
        found = [sorted(p for p in c.iterdir() if p.suffix.lower() in ENDINGS) for c in classes]
        labels = np.repeat(np.arange(len(classes)), [len(part) for part in found])
        files = list(chain(*found))
    if not files:
        raise ValueError(f"{folder} must hold images ({' '.join(ENDINGS)}), it has none")
    return files, labels


class _Form:
    """What images are to be for a model: size, channels and their place, mean and deviation."""

    def __init__(self, model, folder, size, mean, std):
        if len(model.inputs) > 1:
            raise ValueError(f"{folder} has images alone, the model has inputs {model.inputs}")
        name = model.inputs[0]
        kind = image_type(model, name)
        shape = kind.shape if kind is not None and kind.shape is not None else ()
        if len(shape) != 4 or not {1, 3}.intersection((shape[1], shape[3])):
            raise ValueError(
                f"a folder of images is for an input of images, (N, C, H, W) or (N, H, W, C) with "
                f"1 or 3 channels; input {name!r} is {kind or 'of a form that no layer tells'}"
            )
        self.is_first = shape[1] in (1, 3)
        self.channels, sides = (shape[1], shape[2:]) if self.is_first else (shape[3], shape[1:3])
        size = size or sides
        if not all(isinstance(side, int) for side in size):
            raise ValueError(f"--size of images must be given: input {name!r} is {kind}")
        self.size, self.dtype = size, kind.dtype
        self.mean, self.std = self._numbers("--mean", mean), self._numbers("--std", std)
        if self.std is not None and not (self.std > 0).all():
            raise ValueError(f"--std must be positive, got {self.std.tolist()}")

    def _numbers(self, name, numbers):
        if numbers is None:
            return None
        if self.dtype.kind != "f":
            raise ValueError(f"{name} is for images in float32, the model takes {self.dtype}")
        if len(numbers) not in (1, self.channels):
            raise ValueError(f"{name} must have {self.channels} numbers, got {list(numbers)}")
        return np.asarray(numbers, np.float32)

    def batch(self, paths):
        """Return images as one array."""
        x = np.stack([self.image(path) for path in paths])
        if self.dtype.kind == "f":
            x = x.astype(np.float32) / np.float32(255)
        x = x if self.mean is None else x - self.mean
        x = x if self.std is None else x / self.std
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2) if self.is_first else x)

    def image(self, path):
        """Return one image as (H, W, C) bytes."""
        try:
            from PIL import Image
        except ImportError as error:
            raise ImportError(
                "reading images needs the Pillow package: pip install 'qcy[images]'"
            ) from error
        try:
            with Image.open(path) as image:
                image = image.convert("L" if self.channels == 1 else "RGB")
                image = image.resize(self.size[::-1], Image.Resampling.BILINEAR)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(f"{path} must be an image that can be read: {error}") from error
        return np.asarray(image).reshape(*self.size, self.channels)


def image_type(model, name):
    """Return what an input of images must be, from its type or the first convolution, or None."""
    if name in model.input_types:
        return model.input_types[name]
    for node in model.consumers(name):
        if isinstance(node.layer, (layers.Conv2D, layers.Conv2DQuantized)):
            channels = node.layer.weight.shape[1] * node.layer.groups
            layout = getattr(model, "layout", node.layer.layout)
            sizes = ("height", "width")
            shape = (channels, *sizes) if layout == "NCHW" else (*sizes, channels)
            return TensorType("float32", ("batch", *shape))
    return None

"""Files of arrays, as NumPy writes them: what is no such file, or was cut short, is said so."""

import contextlib
import zlib

import numpy as np


@contextlib.contextmanager
def whole_file(message):
    """Turn what NumPy and zipfile say to files of another kind, or cut short, into a ValueError.

    `message` makes of their error what it says.
    """
    import zipfile              # it brings in every kind of compression

    try:
        yield
    except (
        AttributeError, EOFError, LookupError, NotImplementedError, TypeError, ValueError,
        zipfile.BadZipFile, zlib.error,
    ) as error:
        raise ValueError(message(error)) from error


def read_npz(path):
    """Return the arrays in a ``.npz`` file by name."""
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)

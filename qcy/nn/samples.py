"""Samples of a model's inputs: as a tuple of arrays, and in batches that the model takes."""

from collections.abc import Mapping

import numpy as np


def fixed_batch(model):
    """Return how many samples each run of a model must have, or None if any number will do."""
    kind = model.input_types.get(model.inputs[0])
    if kind is None or not kind.shape or not isinstance(kind.shape[0], int):
        return None
    return max(1, kind.shape[0])


def arrays_of(model, data):
    """Return samples as one array for each input of a model.

    Parameters
    ----------
    model : Graph
    data : array, tuple of arrays, or mapping of str to array
        An array is for a model with one input.

    Returns
    -------
    tuple of ndarray

    Raises
    ------
    TypeError, ValueError
        If inputs are missing, arrays hold different numbers of samples, or none.
    """
    if isinstance(data, Mapping):
        missing = [name for name in model.inputs if name not in data]
        if missing:
            raise ValueError(f"data must have input {missing[0]!r}, got {sorted(data)}")
        arrays = tuple(np.asarray(data[name]) for name in model.inputs)
    elif isinstance(data, tuple) and (
        len(model.inputs) > 1 or (len(data) == 1 and isinstance(data[0], np.ndarray))
    ):
        arrays = tuple(np.asarray(x) for x in model.bind_inputs(data).values())
    else:
        arrays = tuple(np.asarray(x) for x in model.bind_inputs((data,)).values())
    for array in arrays:
        if array.ndim == 0 or not len(array):
            raise ValueError(f"data must hold at least one sample, got shape {array.shape}")
    lengths = [len(array) for array in arrays]
    if len(set(lengths)) > 1:
        found = ", ".join(f"{name!r} {n}" for name, n in zip(model.inputs, lengths, strict=True))
        raise ValueError(f"data must hold as many samples of each input, got {found}")
    return arrays


def whole(model, n):
    """Return how many of n samples fill the batches that a model takes.

    Raises
    ------
    ValueError
        If they do not fill one.
    """
    size = fixed_batch(model) or 1
    if n < size:
        raise ValueError(f"data must hold at least {size} samples, one run's; got {n}")
    return n - n % size


def batches_of(model, arrays, size):
    """Yield batches of samples, as tuples of arrays; those that do not fill one are left out.

    Parameters
    ----------
    model : Graph
    arrays : tuple of array
    size : int
        Samples in a batch, if the model leaves it open.
    """
    n, size = whole(model, len(arrays[0])), fixed_batch(model) or size
    for start in range(0, n, size):
        yield tuple(array[start : start + size] for array in arrays)


class Passing:
    """Batches on their way, of which the inputs of one run are kept.

    Parameters
    ----------
    model : Graph
    batches : iterable of tuple of arrays
    first : tuple of array, optional
        The inputs of that run. Default: the first sample, or as many as a run must have; None until
        one came by.
    """

    def __init__(self, model, batches, first=None):
        self._n, self._batches = fixed_batch(model) or 1, batches
        self.first = first

    def __iter__(self):
        for batch in self._batches:
            if self.first is None:
                self.first = tuple(array[: self._n] for array in batch)
            yield batch

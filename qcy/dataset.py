"""Samples from files for the command line: arrays, folders of images, and what a script makes."""

import contextlib
import importlib.util
import sys
from pathlib import Path

import numpy as np

from qcy import _images
from qcy._arrays import read_npz, whole_file
from qcy.nn.samples import arrays_of, fixed_batch, whole

#: Names that labels may have in a .npz file.
LABELS = ("labels", "label", "y")
_END = object()
KINDS = "a .npz or .npy file, a folder of images, or script.py:function"


def open_data(
    source, model, *, labels=None, samples=None, seed=0, size=None, mean=None, std=None
):
    """Return the samples in a file, in a folder of images, or of a function in a script.

    Parameters
    ----------
    source : str
        A ``.npz`` file of arrays by the names of inputs, a ``.npy`` file, a folder of images, or
        ``script.py:function``, which is run and returns an array, a dict of arrays, or an iterable
        of batches.
    model : Graph
        Which the samples are for.
    labels : str, optional
        A ``.npy`` file, or the name of an array of `source`. Default: what `source` has.
    samples : int, optional
        To take at most: a random choice, in order; of batches from a script the first.
    seed : int, default 0
        Of that choice.
    size : (int, int), optional
        Height and width of images, where the model leaves them open.
    mean, std : sequence of float, optional
        Taken off images, and what they are divided by then, for each channel.

    Returns
    -------
    Samples or Stream

    Raises
    ------
    ImportError, OSError, TypeError, ValueError
        If there are none, or they do not fit the model; the message says which.
    """
    options = {"labels": labels, "samples": samples, "seed": seed}
    images = {"size": size, "mean": mean, "std": std}
    script, colon, function = source.rpartition(":")
    path = Path(source)
    is_folder = path.is_dir()
    given = [f"--{name}" for name, value in images.items() if value is not None]
    if given and not is_folder:
        raise ValueError(f"{given[0]} is for a folder of images, got {source}")
    if colon and script.endswith(".py"):
        return _scripted(script, function, model, options)
    if is_folder:
        _check_no_name(source, labels)
        return Samples(model, source, *_images.in_folder(path, model, **images), **options)
    if not path.exists():
        raise FileNotFoundError(f"{source} is not there; data must be {KINDS}")
    if path.suffix not in (".npz", ".npy"):
        raise ValueError(f"data must be {KINDS}, got {source}")
    arrays = read_arrays(path)
    if not isinstance(arrays, dict):
        _check_no_name(source, labels)
        return Samples(model, source, *_from_array(arrays, model, source), **options)
    return Samples(model, source, *_by_name(arrays, model, source, labels), **options)


def read_arrays(path):
    """Return the array in a .npy file, not in memory as yet, or a dict of those in a .npz file.

    Raises
    ------
    OSError, ValueError
        If there are none.
    """
    with whole_file(lambda error: f"{path} must be a whole file of arrays of numbers: {error}"):
        if Path(path).suffix != ".npy":
            return read_npz(path)
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise TypeError("it is a .npz file")
        return array


class Samples:
    """Samples that can be taken in any order, and labels beside them.

    Parameters
    ----------
    model : Graph
    source : str
        For messages.
    n : int
        How many there are.
    take : callable
        Returns those with some numbers, as a tuple of arrays.
    own_labels : array or None
    labels, samples, seed
        As for `open_data`.
    """

    def __init__(self, model, source, n, take, own_labels, *, labels=None, samples=None, seed=0):
        self.model, self.source, self._take = model, source, take
        self._labels = labels if _is_file(labels) else own_labels
        self._n = n
        self.chosen = np.arange(n)
        if samples is not None and samples < n:
            self.chosen = np.sort(np.random.default_rng(seed).choice(n, samples, replace=False))
        with _named(source):
            self.chosen = self.chosen[: whole(model, len(self.chosen))]

    @property
    def labels(self):
        """Integers, one for each sample that is taken; None if there are none."""
        labels = _checked_labels(self.source, self._labels, self._n)
        return None if labels is None else labels[self.chosen]

    def batches(self, size):
        """Return an iterable of batches, tuples of arrays, of this size if the model allows."""
        return _Batches(self, fixed_batch(self.model) or size)


class _Batches:
    """Batches of samples; iterated anew each time."""

    def __init__(self, samples, size):
        self.samples, self.size = samples, size

    def __len__(self):
        return -(-len(self.samples.chosen) // self.size)

    def __iter__(self):
        chosen = self.samples.chosen
        for start in range(0, len(chosen), self.size):
            places = chosen[start : start + self.size]
            yield check(
                self.samples.model, self.samples.source, self.samples._take(places), places
            )


class Stream:
    """Batches that come once, as a script makes them."""

    def __init__(self, model, source, batches, *, labels=None, samples=None, seed=0):
        self.model, self.source = model, source
        self._labels = labels
        self._batches, self._samples = batches, samples

    @property
    def labels(self):
        """Integers, one for each sample; None if there are none."""
        labels = _checked_labels(self.source, self._labels)
        return None if labels is None else labels[: self._samples]

    def batches(self, size):
        """Yield the batches as they come, as tuples of arrays."""
        n = 0
        for batch in self._batches:
            with _named(f"{self.source}, batch from sample {n}"):
                arrays = arrays_of(self.model, batch)
            left = None if self._samples is None else self._samples - n
            arrays = tuple(array[:left] for array in arrays)
            yield check(self.model, self.source, arrays, range(n, n + len(arrays[0])))
            n += len(arrays[0])
            if n == self._samples:
                break
        if not n:
            raise ValueError(f"{self.source} must make at least one batch, got none")


def check(model, source, arrays, places):
    """Return one batch as the model takes it, or say what is wrong with it.

    Parameters
    ----------
    model : Graph
    source : str
        For messages.
    arrays : tuple of array
    places : sequence of int
        Numbers of the samples, for messages.
    """
    taken = []
    for name, array in zip(model.inputs, arrays, strict=True):
        with _named(source):
            x = model.take(name, array)
        if x.dtype.kind == "f" and not np.isfinite(x).all():
            first = int(np.argmin(np.isfinite(x).reshape(len(x), -1).all(axis=1)))
            raise ValueError(
                f"{source}: input {name!r} must be finite, sample {places[first]} holds NaN or "
                "infinity"
            )
        taken.append(x)
    return tuple(taken)


@contextlib.contextmanager
def _named(source):
    """Let errors say whose they are."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise type(error)(f"{source}: {error}") from error


def _is_file(labels):
    """Whether labels are in a file of their own."""
    return labels is not None and labels.endswith(".npy")


def _check_no_name(source, labels):
    """Check that no name of labels is given where arrays have no names."""
    if labels is not None and not _is_file(labels):
        raise ValueError(f"labels must be a .npy file, got {labels}: {source} has no names")


def _checked_labels(source, labels, n=None):
    """Return labels, or those in a file, if there is an integer for each of n samples."""
    if labels is None:
        return None
    if isinstance(labels, str):
        source, labels = labels, read_arrays(labels)
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu":
        raise TypeError(f"labels must be integers, got {labels.dtype} in {source}")
    if labels.ndim != 1 or n not in (None, len(labels)):
        wanted = "one for each sample" if n is None else f"one for each of {n} samples"
        raise ValueError(f"labels must be {wanted}, got shape {labels.shape} in {source}")
    return labels


# --------------------------------------------------------------------------------------- arrays


def _from_array(array, model, source):
    if len(model.inputs) > 1:
        raise ValueError(
            f"{source} is one array, the model has inputs {', '.join(map(repr, model.inputs))}: "
            "data must be a .npz file with those names"
        )
    return _from_arrays((array,), model, source, None)


def _by_name(arrays, model, source, label_name):
    """Return samples by the names of inputs, and labels if there are any."""
    if label_name is None or _is_file(label_name):
        label_name = next((n for n in LABELS if n in arrays and n not in model.inputs), None)
    elif label_name not in arrays:
        raise ValueError(
            f"labels must be a .npy file, or an array of {source}, which has "
            f"{', '.join(map(repr, arrays))}; got {label_name}"
        )
    labels = arrays.get(label_name)
    others = [name for name in arrays if name != label_name]
    if len(model.inputs) == 1 and model.inputs[0] not in arrays and len(others) == 1:
        found = (arrays[others[0]],)
    else:
        missing = [name for name in model.inputs if name not in arrays]
        if missing:
            raise ValueError(
                f"{source} must have an array for input {missing[0]!r}, it has "
                f"{', '.join(map(repr, arrays)) or 'none'}"
            )
        found = tuple(arrays[name] for name in model.inputs)
    return _from_arrays(found, model, source, labels)


def _from_arrays(arrays, model, source, labels):
    with _named(source):
        arrays_of(model, dict(zip(model.inputs, arrays, strict=True)))
    return len(arrays[0]), lambda places: tuple(array[places] for array in arrays), labels


# -------------------------------------------------------------------------------------- scripts


def _scripted(script, name, model, options):
    """Return what a function in a script makes."""
    source = f"{script}:{name}"
    if not Path(script).is_file():
        raise FileNotFoundError(f"{script} is not there; data must be {KINDS}")
    with _users(source):
        spec = importlib.util.spec_from_file_location("qcy_data", script)
        module = importlib.util.module_from_spec(spec)
        sys.path.insert(0, str(Path(script).resolve().parent))
        spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if not callable(function):
        raise ValueError(f"{script} must have a function {name!r}, got {function!r}")
    with _users(source):
        made = function()
    if isinstance(made, dict):
        made = {key: np.asarray(value) for key, value in made.items()}
        return Samples(model, source, *_by_name(made, model, source, options["labels"]), **options)
    _check_no_name(source, options["labels"])
    if hasattr(made, "__array__"):
        return Samples(model, source, *_from_array(np.asarray(made), model, source), **options)
    if isinstance(made, (str, bytes)) or not hasattr(made, "__iter__"):
        raise TypeError(
            f"{source} must return an array, a dict of arrays, or an iterable of batches, got "
            f"{type(made).__name__}"
        )
    return Stream(model, source, _users_batches(source, made), **options)


@contextlib.contextmanager
def _users(source):
    """Run code of the user's: what it prints is not a result, and its errors are its own."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except Exception as error:
        raise ValueError(f"{source}{_line(error)}: {type(error).__name__}: {error}") from error


def _line(error):
    """Return where in code of the user's an error was raised."""
    line, traceback = "", error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_globals.get("__name__") == "qcy_data":
            line = f", line {traceback.tb_lineno}"
        traceback = traceback.tb_next
    return line


def _users_batches(source, made):
    """Yield batches that code of the user's makes."""
    with _users(source):
        batches = iter(made)
    while True:
        with _users(source):
            batch = next(batches, _END)
        if batch is _END:
            return
        yield batch

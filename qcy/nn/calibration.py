"""Calibration: data through a float model, observers beside it, parameters out."""

import copy
import hashlib

import numpy as np

from qcy import _validate
from qcy.nn.layers import Constant, Operator
from qcy.nn.model import Model
from qcy.nn.observer import MinMaxObserver
from qcy.tensor.quantization import DEFAULT_SCHEME, check_scheme


class Calibrator:
    """Watch every tensor of a float model, or just batches of data, and choose parameters.

    Nothing is kept but the observers' state: memory does not grow with the number of batches.

    Parameters
    ----------
    model : Model, optional
        None: only the batches themselves are observed, under the name "input".
    observer : callable, default MinMaxObserver
        Called once per tensor, without arguments but `axis` for `PER_CHANNEL`: an observer class,
        or a `functools.partial` of one.
    scheme : QuantizationScheme, default ``ASYMMETRIC | PER_TENSOR``
        `PER_CHANNEL` gives one scale per channel of axis 1.
    dtype : {"uint8", "int8"}, default "uint8"

    Examples
    --------
    >>> calibrator = Calibrator()
    >>> calibrator.observe(np.array([[0.0, 1.0], [2.55, 0.5]]))
    >>> calibrator.params()
    {'input': QuantizationParams(scale=0.01, zero_point=0, dtype=uint8)}

    Attributes
    ----------
    observers : dict of str to Observer
        Of every tensor of float32; integers and booleans are no codes.
    observer_of : dict of str to callable
        What observes a tensor, where that is not `observer`.
    """

    def __init__(self, model=None, *, observer=MinMaxObserver, scheme=DEFAULT_SCHEME,
                 dtype="uint8"):
        if model is not None and not isinstance(model, Model):
            raise TypeError(f"model must be a Model or None, got {model!r}")
        if not callable(observer):
            raise TypeError(f"observer must be a class or a function, got {observer!r}")
        scheme = check_scheme("scheme", scheme)
        self.axis = 1 if scheme.is_per_channel else None
        self.model, self.observer, self.scheme = model, observer, scheme
        self.dtype = _validate.q8_dtype("dtype", dtype)
        self.observers = {}
        self.observer_of = {}
        self.power = {}                 # of each tensor: (sum of squares, how many numbers)
        self.unbounded = set()          # tensors that held an infinity or a NaN
        self.n_batches = 0
        self.n_samples = 0
        self._digest = 0

    def observe(self, batch):
        """Run one batch through the model and observe every tensor.

        Parameters
        ----------
        batch : array, Tensor, or a tuple of them for a model with several inputs

        Raises
        ------
        TypeError, ValueError
            If the batch does not fit the model or holds a NaN or an infinity; the message says
            which batch it was, and nothing of it counts.
        """
        inputs = batch if isinstance(batch, tuple) else (batch,)
        seen = []
        try:
            names = ("input",) if self.model is None else self.model.inputs
            if len(inputs) != len(names):
                raise TypeError(f"the model takes {len(names)} input(s), got {len(inputs)}")
            arrays = [
                _validate.real_array("batch", x) if self.model is None else self.model.take(name, x)
                for name, x in zip(names, inputs, strict=True)
            ]
            for array in arrays:
                if not np.isfinite(array).all():
                    raise ValueError("data must be finite, it holds NaN or infinity")
            is_empty = not all(array.size for array in arrays)
            # What leaves float32 on the way is refused by name, so no warning need tell of it.
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                for name, array in () if is_empty else self._tensors(names, arrays):
                    if array.dtype == np.float32:       # what codes can stand for
                        power, n = self.power.get(name, (0.0, 0))
                        power = power + float(np.vdot(array, array)), n + array.size
                        seen.append((name, self._observed(name, array), power))
        except (TypeError, ValueError) as error:
            raise type(error)(f"calibration batch {self.n_batches}: {error}") from error
        for name, observer, power in seen:
            self.observers[name], self.power[name] = observer, power
        digest = hashlib.sha256()
        for array in arrays:
            digest.update(f"{array.shape}".encode())
            digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
        self._digest = (self._digest + int.from_bytes(digest.digest(), "big")) % 2**256
        self.n_batches += 1
        if not is_empty:
            self.n_samples += len(arrays[0]) if arrays[0].ndim else 1

    def _tensors(self, names, arrays):
        """Yield the name and the values of each tensor."""
        yield from zip(names, arrays, strict=True)
        if self.model is not None:
            for name, array in self.model.trace(*arrays):
                if np.isfinite(array).all():
                    yield name, array
                elif isinstance(self.model.maker(name).layer, (Constant, Operator)):
                    self.unbounded.add(name)        # as masks are: never codes
                else:
                    raise ValueError(
                        f"the model's tensor {name!r} must be finite, it holds NaN or infinity "
                        "though the data does not"
                    )

    def _observed(self, name, array):
        """Return a new state of one observer: the old one stays if a later tensor is refused."""
        if name in self.observers:
            observer = copy.deepcopy(self.observers[name])
        else:
            make = self.observer_of.get(name, self.observer)
            observer = make() if self.axis is None else make(axis=self.axis)
        try:
            observer.observe(array)
        except (TypeError, ValueError) as error:
            raise type(error)(f"tensor {name!r}: {error}") from error
        return observer

    def merge(self, other):
        """Return a calibrator that has seen what both have; exact, in any order.

        Raises
        ------
        TypeError, ValueError
            If the two differ in settings or in their models, or their observers cannot be merged.
        """
        if not isinstance(other, Calibrator):
            raise TypeError(f"other must be a Calibrator, got {type(other).__name__}")
        mine, its = ((c.scheme, c.dtype, c.axis) for c in (self, other))
        if mine != its:
            raise ValueError(f"calibrators must have the same settings, got {mine} and {its}")
        if not _same_model(self.model, other.model):
            raise ValueError(
                "calibrators must be of one model: the same layers with the same weights, got "
                f"{self.model!r} and {other.model!r}"
            )
        result = Calibrator(
            self.model, observer=self.observer, scheme=self.scheme, dtype=self.dtype
        )
        for name in dict.fromkeys((*self.observers, *other.observers)):
            pair = [c.observers[name] for c in (self, other) if name in c.observers]
            result.observers[name] = pair[0] if len(pair) == 1 else pair[0].merge(pair[1])
            powers = [c.power[name] for c in (self, other) if name in c.power]
            result.power[name] = tuple(map(sum, zip(*powers, strict=True)))
        result.unbounded = self.unbounded | other.unbounded
        result.n_batches = self.n_batches + other.n_batches
        result.n_samples = self.n_samples + other.n_samples
        result._digest = (self._digest + other._digest) % 2**256
        return result

    @property
    def data_hash(self):
        """The sum of the batches' SHA-256, as hexadecimal digits: their order does not matter."""
        return f"{self._digest:064x}"

    def params(self):
        """Return the parameters of every tensor, by name.

        Returns
        -------
        dict of str to QuantizationParams

        Raises
        ------
        ValueError
            If no data was observed.
        """
        self.check_seen()
        return {name: self.param(name) for name in self.observers}

    def param(self, name):
        """Return the parameters of one tensor."""
        self.check_seen()
        return self.observers[name].params(dtype=self.dtype, scheme=self.scheme)

    def crest(self, name):
        """Return how far a tensor's largest number is from its root mean square, as their ratio.

        The wider, the less of 8 bits is left for what is usual.
        """
        observer, (power, count) = self.observers[name], self.power[name]
        largest = max(abs(float(observer.low.min())), abs(float(observer.high.max())))
        return largest / (power / count) ** 0.5 if power else 1.0

    def check_seen(self):
        """Check that there was data."""
        if not self.n_samples:
            which = f"all {self.n_batches} batches were empty" if self.n_batches else (
                "no batch was observed"
            )
            raise ValueError(f"calibration needs data, {which}")


def _same_model(a, b):
    """Return whether two models compute the same: equal graphs of equal layers, or none at all."""
    if a is b or a is None or b is None:
        return a is b
    return (a.inputs, a.outputs, len(a.nodes)) == (b.inputs, b.outputs, len(b.nodes)) and all(
        (m.name, m.inputs, type(m.layer)) == (n.name, n.inputs, type(n.layer))
        and m.layer.settings() == n.layer.settings()
        and _same_arrays(m.layer.arrays(), n.layer.arrays())
        for m, n in zip(a.nodes, b.nodes, strict=True)
    )


def _same_arrays(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)

"""How long each layer of a model takes."""

import statistics
import time
from dataclasses import asdict, dataclass
from itertools import pairwise

from qcy import _validate
from qcy._table import table
from qcy._threads import effective_n_threads, threads
from qcy._timing import seconds
from qcy.nn import layers

#: Names of what a run does before its first layer and after its last: of no layer.
INPUTS, OUTPUTS = "(inputs)", "(outputs)"
CONVERSION = "conversion"
_DENSE = (
    layers.Dense, layers.DenseQuantized, layers.DenseDynamic, layers.DenseWeightOnly,
)
_CONV = (layers.Conv2D, layers.Conv2DQuantized, layers.Conv2DWeightOnly)


@dataclass(frozen=True)
class LayerTime:
    """How long one layer takes.

    Attributes
    ----------
    name : str
        Of the layer; ``"(inputs)"`` and ``"(outputs)"`` for what lies before the first and after
        the last: reals to codes and back, images to the layout inside and back.
    kind : str
        Of the layer, or of the operator that it is; or ``"conversion"``.
    covers : tuple of str
        The float layers that it does the work of.
    us : float
        Median microseconds.
    share : float
        Of the sum of all.
    macs : int
        Products of a number and a weight that are summed; 0 for layers that are no product.
    n_bytes : int
        Of what the layer reads, weights included, and of what it writes.
    """

    name: str
    kind: str
    covers: tuple
    us: float
    share: float
    macs: int
    n_bytes: int

    @property
    def gmacs_per_s(self):
        """Thousand million products per second; None where there are none, or no time."""
        return 1e-3 * self.macs / self.us if self.macs and self.us else None

    @property
    def gbytes_per_s(self):
        """Thousand million bytes per second; None where there are none, or no time."""
        return 1e-3 * self.n_bytes / self.us if self.n_bytes and self.us else None


@dataclass(frozen=True)
class Profile:
    """What `QuantizedModel.profile` found; ``str()`` is a table.

    Attributes
    ----------
    layers : tuple of LayerTime
        In the order in which they run.
    us : float
        Median microseconds of a whole run, without a look at the clock in between.
    is_program : bool
        Whether the model ran as a program; else layer by layer.
    n_threads : int
        That a run may use.
    repeat : int
        Runs that were measured.
    """

    layers: tuple
    us: float
    is_program: bool
    n_threads: int
    repeat: int

    def to_dict(self):
        """Return the profile as plain values, as JSON has them."""
        return {
            "us": self.us, "is_program": self.is_program, "n_threads": self.n_threads,
            "repeat": self.repeat,
            "layers": [
                asdict(row) | {"covers": list(row.covers), "gmacs_per_s": row.gmacs_per_s}
                for row in self.layers
            ],
        }

    def __str__(self):
        rows = [("layer", "kind", "us", "share", "GMAC/s", "GB/s")]
        rows += [
            (row.name, row.kind, f"{row.us:.1f}", f"{row.share:.1%}", _rate(row.gmacs_per_s),
             _rate(row.gbytes_per_s))
            for row in self.layers
        ]
        total = sum(row.us for row in self.layers)
        rows.append(("sum", "", f"{total:.1f}", f"{1:.1%}" if total else "", "", ""))
        how = "as a program" if self.is_program else "layer by layer"
        many = "thread" if self.n_threads == 1 else "threads"
        return (
            f"{self.us:.1f} us a run {how}, {self.n_threads} {many}, median of {self.repeat}\n\n"
            f"{table(rows, 2)}"
        )


def _rate(value):
    return "" if value is None else f"{value:.1f}"


def profile(self, *inputs, n_threads=None, repeat=30):
    """Measure how long each layer takes.

    A quantized model that is a program runs as one: the same steps in the same memory, with a look
    at the clock after those of each layer, whose cost is taken off. Else it runs layer by layer,
    and a layer's time has what Python and its checks cost in it. Whole runs are measured in turn
    with those.

    Parameters
    ----------
    *inputs : QuantizedTensor, Tensor or array
        As a call takes them.
    n_threads : int, optional
        Threads to use at most; NumPy's, which layers in float use, are not limited by it. Default:
        see `qcy.threads`.
    repeat : int, default 30
        Runs to measure.

    Returns
    -------
    Profile
        Frozen; ``str()`` is a table.

    Raises
    ------
    TypeError, ValueError
        If the inputs do not fit, or a number is not positive. Then nothing has been measured.

    Examples
    --------
    >>> model = Sequential(Dense(np.eye(3)), ReLU(), Dense(np.ones((3, 5))))
    >>> quantized = quantize_model(model, np.ones((8, 3)), progress=False)
    >>> found = quantized.profile(np.ones((2, 3)), repeat=5)
    >>> [(row.name, row.macs) for row in found.layers]
    [('(inputs)', 0), ('dense_1', 18), ('dense_2', 30), ('(outputs)', 0)]
    >>> found.layers[1].covers
    ('dense_1', 'relu_1')
    >>> round(sum(row.share for row in found.layers), 6)
    1.0
    """
    repeat = _validate.integer("repeat", repeat, 1)
    n_threads = effective_n_threads(n_threads)
    with threads(n_threads):
        work = _work(self, inputs)      # which says what is wrong with the inputs
        timed, whole, program = self._timed_runs(inputs)
        timed()
        whole()
        parts, wholes = [], []
        for _ in range(repeat):
            parts.append(timed())
            wholes.append(seconds(whole))
    columns = [1e-3 * statistics.median(column) for column in zip(*parts, strict=True)]
    total = sum(columns)
    return Profile(
        layers=tuple(
            LayerTime(*head, us, us / total if total else 0.0, *sizes)
            for (head, sizes), us in zip(work, columns, strict=True)
        ),
        us=1e6 * statistics.median(wholes), is_program=program is not None,
        n_threads=n_threads, repeat=repeat,
    )


def by_layers(model, inputs):
    """Return a run that gives the nanoseconds of each of its parts, and one that does not look."""
    def timed():
        stamps = [time.perf_counter_ns()]
        run = model._RUN(model, inputs)
        stamps.append(time.perf_counter_ns())
        for _ in run.nodes():
            stamps.append(time.perf_counter_ns())
        for name in model.outputs:
            run.outside(name, type(inputs[0]))
        stamps.append(time.perf_counter_ns())
        return [after - before for before, after in pairwise(stamps)]

    return timed, lambda: model(*inputs)


def _work(model, inputs):
    """Run the model; return (name, kind, covers) and (macs, bytes) of each part of a run."""
    run = model._RUN(model, inputs)
    rows = [((INPUTS, CONVERSION, ()), (0, 0))]
    for node in run.nodes():
        read = [run.values[name] for name in node.inputs]
        made = [run.values[name] for name in node.outputs]
        n_bytes = sum(array.nbytes for array in (*read, *made, *node.layer.arrays().values()))
        rows.append((
            (node.name, getattr(node.layer, "op", type(node.layer).__name__), node.covers),
            (_macs(node.layer, read, made[0]), n_bytes),
        ))
    return [*rows, ((OUTPUTS, CONVERSION, ()), (0, 0))]


def _macs(layer, inputs, y):
    """Return how many products are summed to turn the inputs into `y`."""
    if isinstance(layer, _DENSE):
        return y.size * layer.weight.shape[0]
    if isinstance(layer, _CONV):
        return y.size * layer.weight[0].size
    if isinstance(layer, (layers.ConvTranspose2D, layers.ConvTranspose2DQuantized)):
        return inputs[0].size * layer.weight[0].size
    if isinstance(layer, (layers.MatMul, layers.MatMulQuantized)) and inputs[0].ndim:
        return y.size * inputs[0].shape[-1]
    if isinstance(layer, layers.Recurrent):
        return inputs[0].shape[0] * inputs[0].shape[1] * (layer.w.size + layer.r.size)
    if isinstance(layer, (layers.Attention, layers.AttentionQuantized)):
        return (inputs[0].size + y.size) * inputs[1].shape[-2]      # scores, and what they weigh
    return 0

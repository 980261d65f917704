"""Is this model faster in 8 bits here? A float model and its 8-bit model, layer by layer."""

from dataclasses import asdict, dataclass

import qcy
from qcy._table import table
from qcy._timing import medians
from qcy.bench import about, measured, said
from qcy.nn import layers
from qcy.nn.compare import times_more


@dataclass(frozen=True)
class PairRow:
    """How long a layer takes in 8 bits, and the float layers that it does the work of.

    Attributes
    ----------
    name, kind : str
    bits : int
        8, or 32 for a layer kept in float.
    macs : int
        Products that are summed.
    float_us, quantized_us : float
        Median microseconds.
    """

    name: str
    kind: str
    bits: int
    macs: int
    float_us: float
    quantized_us: float


@dataclass(frozen=True)
class Pair:
    """What `measure_pair` found; ``str()`` is a table.

    Attributes
    ----------
    n_threads : int
    shapes : tuple of tuple of int
        Of the inputs.
    float_us, quantized_us : float
        Median microseconds of whole runs, in turn; in float they are qcy's own layers, by NumPy.
    rows : tuple of PairRow
        What lies before the first and after the last layer is a row of no bits.
    """

    n_threads: int
    shapes: tuple
    float_us: float
    quantized_us: float
    rows: tuple

    @property
    def speedup(self):
        """How many times faster the 8-bit model is."""
        return self.float_us / self.quantized_us

    def to_dict(self):
        """Return the result as plain values, as JSON has them."""
        return {
            "info": about(), "n_threads": self.n_threads,
            "shapes": [list(shape) for shape in self.shapes], "float_us": self.float_us,
            "quantized_us": self.quantized_us, "speedup": self.speedup,
            "layers": [asdict(row) for row in self.rows],
        }

    def __str__(self):
        rows = [("layer", "kind", "bits", "MMAC", "float us", "8-bit us", "times")]
        rows += [
            (row.name, row.kind, row.bits or "", f"{1e-6 * row.macs:.2f}" if row.macs else "",
             f"{row.float_us:.1f}", f"{row.quantized_us:.1f}",
             f"{row.float_us / row.quantized_us:.2f}" if row.float_us and row.quantized_us else "")
            for row in self.rows
        ]
        many = "thread" if self.n_threads == 1 else "threads"
        times, how = times_more(self.speedup, "faster", "slower")
        return (
            f"qcy {qcy.__version__}, kernels for {about()['variant']}, {self.n_threads} {many}\n"
            f"inputs of {said(self.shapes)}: float {self.float_us:,.1f} us (by NumPy), 8-bit "
            f"{self.quantized_us:,.1f} us a run, {times}x {how}\n\n{table(rows, 2)}"
        )


def measure_pair(model, quantized, inputs, n_threads=1, repeat=30):
    """Measure a float model and its 8-bit model on the same inputs, in turn.

    Parameters
    ----------
    model : Model
    quantized : QuantizedModel
    inputs : tuple of array
    n_threads : int, default 1
    repeat : int, default 30

    Returns
    -------
    Pair

    Raises
    ------
    ValueError
        If the inputs do not fit.
    """
    ours, theirs = (measured(m, inputs, n_threads, repeat) for m in (quantized, model))
    with qcy.threads(n_threads):
        wholes = medians([lambda: model(*inputs), lambda: quantized(*inputs)], repeat)
    times = {row.name: row.us for row in theirs.profile.layers}
    bits = {
        node.name: 8 if isinstance(node.layer, layers.QuantizedLayer) else 32
        for node in quantized.nodes
    }
    return Pair(n_threads, ours.shapes, 1e6 * wholes[0], 1e6 * wholes[1], tuple(
        PairRow(
            row.name, row.kind, bits.get(row.name, 0), row.macs,
            sum(times.get(name, 0.0) for name in row.covers or (row.name,)), row.us,
        ) for row in ours.profile.layers
    ))

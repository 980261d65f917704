"""What a model is made of, what of it would go to 8 bits and why not the rest, and whether it pays.

Whether it pays is a prediction: an 8-bit model is made, of the samples that are given or else of
random numbers, and run beside the float model, on this machine.
"""

from collections import Counter
from dataclasses import asdict, dataclass

import numpy as np

import qcy
from qcy._table import table
from qcy._threads import effective_n_threads
from qcy._timing import medians
from qcy.bench import measured, random_inputs, said
from qcy.bench_cases import product
from qcy.bench_pair import measure_pair
from qcy.nn import QuantizedModel
from qcy.nn.compare import times_more
from qcy.nn.fusion import fuse
from qcy.nn.quantize import quantize_model
from qcy.nn.samples import Passing
from qcy.nn.selection import choose

REPEAT = 5
#: As in the middle of a network for images.
PRODUCT = product(196, 1152, 256)


@dataclass(frozen=True)
class LayerInfo:
    """What is known of one layer.

    Attributes
    ----------
    name, kind : str
    covers : tuple of str
        The layers of the file that it does the work of.
    shape : tuple of int or None
        Of the (first) output, with the batch; None, as all numbers that depend on it, if the
        shapes of the inputs are not known.
    n_params, n_bytes : int
        Numbers in its arrays, and their bytes in the model as it is.
    macs : int or None
        Products that are summed.
    bits : int
        8, or 32 for a layer that stays in float.
    why : str
        Why it does.
    float_us, quantized_us : float or None
        Microseconds in the float model and in the 8-bit model.
    """

    name: str
    kind: str
    covers: tuple
    shape: tuple | None
    n_params: int
    n_bytes: int
    macs: int | None
    bits: int
    why: str
    float_us: float | None
    quantized_us: float | None


@dataclass(frozen=True)
class Inspection:
    """What `inspect` found; ``str()`` is a text.

    Attributes
    ----------
    is_quantized : bool
        Whether the model is in 8 bits already.
    inputs, outputs : tuple of str
        Names, and types if the model tells.
    layers : tuple of LayerInfo
    n_conversions : int or None
        How often tensors become codes or numbers in a run of the 8-bit model, if there is one.
    shapes : tuple of tuple of int, or None
        Of the inputs of the runs that were measured.
    measured_on : str
        What these inputs were; or why there was no run.
    n_threads : int
        That a run could use.
    float_us, quantized_us : float or None
        Median microseconds of whole runs; in float they are qcy's own layers, by NumPy.
    products_us : float or None
        What the products alone would take in float32 at the rate of NumPy's matrix product here: an
        estimate of what a good float runtime needs at least.
    """

    is_quantized: bool
    inputs: tuple
    outputs: tuple
    layers: tuple
    n_conversions: int | None
    shapes: tuple | None
    measured_on: str
    n_threads: int
    float_us: float | None
    quantized_us: float | None
    products_us: float | None

    @property
    def macs(self):
        """Products that are summed in a run, if that is known."""
        return None if self.shapes is None else sum(layer.macs for layer in self.layers)

    @property
    def macs_in_8_bits(self):
        """Share of the products that are summed in 8 bits, if that is known."""
        if not self.macs:
            return None
        return sum(layer.macs for layer in self.layers if layer.bits == 8) / self.macs

    @property
    def speedup(self):
        """How many times faster the 8-bit model is, if both were run."""
        return self.float_us / self.quantized_us if self.float_us and self.quantized_us else None

    @property
    def operators(self):
        """How many layers there are of each kind, the most frequent first."""
        return dict(Counter(layer.kind for layer in self.layers).most_common())

    def to_dict(self):
        """Return the result as plain values, as JSON has them."""
        totals = ("macs", "macs_in_8_bits", "speedup", "operators")
        found = {name: value for name, value in asdict(self).items() if name != "layers"}
        return found | {name: getattr(self, name) for name in totals} | {
            "n_params": sum(layer.n_params for layer in self.layers),
            "n_bytes": sum(layer.n_bytes for layer in self.layers),
            "layers": [asdict(layer) for layer in self.layers],
        }

    def __str__(self):
        n_8_bit = sum(layer.bits == 8 for layer in self.layers)
        kind, go = ("8-bit", "are in") if self.is_quantized else ("float", "would go to")
        lines = [
            f"{kind} model, {len(self.layers)} layers; {n_8_bit} {go} 8 bits",
            f"inputs       {', '.join(self.inputs)}",
            f"outputs      {', '.join(self.outputs)}",
            "operators    " + ", ".join(f"{op} {n}" for op, n in self.operators.items()),
            f"weights      {sum(layer.n_params for layer in self.layers):,} numbers, "
            f"{sum(layer.n_bytes for layer in self.layers):,} bytes",
        ]
        if self.macs is not None:
            share = f", {self.macs_in_8_bits:.1%} of them in 8 bits" if self.macs else ""
            lines.append(f"products     {self.macs:,} a run{share}")
        if self.n_conversions is not None:
            lines.append(f"conversions  {self.n_conversions} a run, float to codes or back")
        return "\n".join([*lines, "", self._table(), "", self._prediction()])

    def _table(self):
        rows = [("layer", "kind", "output", "bits", "why in float", "params", "MMAC", "float us",
                 "8-bit us")]
        rows += [
            (r.name, r.kind, "?" if r.shape is None else "x".join(map(str, r.shape)), r.bits, r.why,
             f"{r.n_params:,}", f"{1e-6 * r.macs:.2f}" if r.macs else "", _us(r.float_us),
             _us(r.quantized_us))
            for r in self.layers
        ]
        return table(rows, 5)

    def _prediction(self):
        if self.shapes is None:
            return f"Whether 8 bits are faster is not known: {self.measured_on}"
        many = "thread" if self.n_threads == 1 else "threads"
        how = f"on {self.measured_on} of {said(self.shapes)}, {self.n_threads} {many}"
        if self.speedup is None:
            return f"Measured {how}: 8-bit {_us(self.quantized_us)} us a run."
        times, direction = times_more(self.speedup, "faster", "slower")
        return (
            f"Prediction: 8 bits are {times}x {direction} here than qcy's float layers, which are "
            f"NumPy's.\nMeasured {how}: float {_us(self.float_us)} us, 8-bit "
            f"{_us(self.quantized_us)} us a run.\nAn estimate for another float runtime: at least "
            f"about {_us(self.products_us)} us, which the products take at the rate of NumPy's "
            "matrix product."
        )


def _us(value):
    return "" if value is None else f"{value:,.1f}"


def inspect(model, batches=None, shapes=(), n_threads=None):
    """Look into a model.

    Parameters
    ----------
    model : Model or QuantizedModel
    batches : iterable of tuple of arrays, optional
        Samples, from which the ranges come that decide about some layers. Default: random numbers,
        if the shapes of the inputs are known.
    shapes : sequence of tuple of int, optional
        Of each input, with the batch.
    n_threads : int, optional
        Default: see `qcy.threads`.

    Returns
    -------
    Inspection

    Raises
    ------
    TypeError, ValueError
        If samples or shapes that are given do not fit.
    """
    n_threads = effective_n_threads(n_threads)
    is_given = batches is not None or bool(shapes)
    try:
        if batches is None:
            inputs, source = random_inputs(model, shapes, guess=False), "random inputs"
            batches = Passing(model, [inputs], first=inputs)
        else:
            batches, source = Passing(model, batches), "the first sample"
        with np.errstate(all="ignore"):         # of random numbers anything may come
            return _run(model, batches, source, n_threads)
    except (TypeError, ValueError) as error:
        if is_given:
            raise
        quantized = model if isinstance(model, QuantizedModel) else None
        reason = f"{error} (--shape or --data tell more)"
        return _inspection(model, quantized, {}, None, reason, n_threads)


def _run(model, batches, source, n_threads):
    """Look into a model that can be run."""
    if isinstance(model, QuantizedModel):
        next(iter(batches))
        found = measured(model, batches.first, n_threads, REPEAT).profile
        times = {row.name: (row.macs, None, row.us) for row in found.layers}
        quantized, wholes = model, (None, found.us)
    else:
        quantized = quantize_model(model, batches, progress=False)
        pair = measure_pair(model, quantized, batches.first, n_threads, REPEAT)
        times = {row.name: (row.macs, row.float_us, row.quantized_us) for row in pair.rows}
        wholes = pair.float_us, pair.quantized_us
    return _inspection(model, quantized, times, batches.first, source, n_threads, wholes)


def _products_us(macs, n_threads):
    """Return what products would take in float32 at the rate of NumPy's matrix product here."""
    numpy = PRODUCT.make(n_threads)[1]
    return 1e6 * 2 * macs * medians([numpy], REPEAT)[0] / PRODUCT.ops


def _inspection(model, quantized, times, inputs, source, n_threads, wholes=(None, None)):
    """Put together what is known.

    Parameters
    ----------
    model : Graph
        As it is.
    quantized : QuantizedModel or None
        What becomes of it.
    times : dict of str to (macs, float_us, quantized_us)
        By layer.
    inputs : tuple of array, or None
        What was run.
    source, n_threads, wholes
        For the result.
    """
    shown = model if isinstance(model, QuantizedModel) else fuse(model)
    if quantized is None:
        why = {name: c.why for name, c in choose(shown).items() if not c.is_8_bit}
    else:
        told = quantized.manifest.get("float", {})
        why = {name: told.get(name, "") for name in quantized.float_nodes}
    shapes = {}
    if inputs is not None:
        with qcy.threads(n_threads):
            shapes = {name: array.shape for name, array in shown.trace(*inputs)}
    rows = []
    for node in shown.nodes:
        arrays = node.layer.arrays().values()
        name = shown._shown(node, node.outputs[0])
        macs, float_us, quantized_us = times.get(node.name, (None, None, None))
        rows.append(LayerInfo(
            node.name, kind_of(node.layer), node.covers, shapes.get(name),
            sum(a.size for a in arrays), sum(a.nbytes for a in arrays), macs,
            32 if node.name in why else 8, why.get(node.name, ""), float_us, quantized_us,
        ))
    return Inspection(
        isinstance(model, QuantizedModel), tuple(_typed(model, name) for name in model.inputs),
        model.output_names, tuple(rows), None if quantized is None else quantized.n_conversions,
        None if inputs is None else tuple(x.shape for x in inputs), source, n_threads, *wholes,
        _products_us(sum(row.macs for row in rows), n_threads) if wholes[0] else None,
    )


def kind_of(layer):
    """Return what a layer is, be it in float or in 8 bits."""
    return getattr(layer, "op", type(layer).__name__.removesuffix("Quantized"))


def _typed(model, name):
    kind = model.input_types.get(name)
    return name if kind is None else f"{name} {kind}"

"""What quantization cost and gained: the float and the 8-bit model side by side."""

from dataclasses import asdict, dataclass
from itertools import chain

import numpy as np

from qcy import _validate
from qcy._table import table
from qcy._timing import medians
from qcy.nn.layers import QuantizedLayer
from qcy.nn.model import Model
from qcy.nn.profile import Profile
from qcy.nn.quantized_model import QuantizedModel
from qcy.nn.samples import arrays_of, batches_of, fixed_batch, whole

BATCH = 64
#: With more, a table of every answer against every other serves nobody, and fills the memory.
MAX_CLASSES = 1000


@dataclass(frozen=True)
class LayerReport:
    """How one layer's output differs from the float model's.

    Attributes
    ----------
    name, kind : str
    covers : tuple of str
        The float layers that it does the work of.
    shape : tuple of int
        Of the (first) output, without the batch.
    bits : int
        8, or 32 for a layer kept in float.
    scale : float or None
        None, as all that tells of codes, where the output is never codes.
    zero_point : int or None
    dtype : str or None
        Of the codes: "uint8" or "int8".
    qmin, qmax : int or None
        The smallest and the largest code.
    sqnr_db : float
        Signal to quantization noise, 10 log10 of the ratio of powers; infinite if equal.
    cosine : float
        Similarity of the outputs as vectors.
    max_error : float
        Largest absolute difference.
    why : str
        Why the layer is kept in float, if that is known.
    """

    name: str
    kind: str
    covers: tuple
    shape: tuple
    bits: int
    scale: float | None
    zero_point: int | None
    dtype: str | None
    qmin: int | None
    qmax: int | None
    sqnr_db: float
    cosine: float
    max_error: float
    why: str = ""


@dataclass(frozen=True)
class Report:
    """What `compare_quantized_model` found.

    Attributes
    ----------
    n_samples : int
    float_accuracy, quantized_accuracy : float or None
        Share of samples whose answer is the label; None without labels. The answer is where the
        first output is largest, or that output itself if it is one whole number.
    agreement : float
        Share of samples for which both models' answers are the same.
    float_bytes, quantized_bytes : int
        Sizes of the saved models.
    latency : dict
        By batch size, the median seconds of a run of both models, run in turn.
    layers : tuple of LayerReport
        Those whose output is float32.
    confusion : tuple of tuple of int
        Rows: the float model's answer; columns: the 8-bit model's. Empty if an answer is beyond
        `MAX_CLASSES`, as it is where outputs are images.
    profile : Profile or None
        Time of each layer of the 8-bit model on a batch of the first size; None without sizes.
    """

    n_samples: int
    float_accuracy: float | None
    quantized_accuracy: float | None
    agreement: float
    float_bytes: int
    quantized_bytes: int
    latency: dict
    layers: tuple
    confusion: tuple
    profile: Profile | None = None

    def to_dict(self):
        """Return the report as plain values, as JSON has them."""
        return {
            "n_samples": self.n_samples,
            "float": {"accuracy": self.float_accuracy, "bytes": self.float_bytes},
            "quantized": {"accuracy": self.quantized_accuracy, "bytes": self.quantized_bytes},
            "agreement": self.agreement,
            "bytes": {
                "float": self.float_bytes, "quantized": self.quantized_bytes,
                "ratio": self.float_bytes / self.quantized_bytes,
            },
            "latency": self.latency,
            "layers": [
                asdict(layer) | {"shape": list(layer.shape), "covers": list(layer.covers)} | {
                    name: _finite(getattr(layer, name))
                    for name in ("sqnr_db", "cosine", "max_error")
                }
                for layer in self.layers
            ],
            "confusion": [list(row) for row in self.confusion],
            "profile": self.profile and self.profile.to_dict(),
        }

    def __str__(self):
        lines = []
        if self.float_accuracy is not None:
            lines.append(
                f"accuracy   float {self.float_accuracy:.2%}   8-bit {self.quantized_accuracy:.2%}"
                f"   difference {100 * (self.quantized_accuracy - self.float_accuracy):+.2f} points"
            )
        lines.append(f"agreement  {self.agreement:.2%} of {self.n_samples} samples")
        size, how_small = times_more(self.float_bytes / self.quantized_bytes, "smaller", "larger")
        lines.append(
            f"bytes      float {self.float_bytes:,}   8-bit {self.quantized_bytes:,}   "
            f"{size}x {how_small}"
        )
        for batch, times in self.latency.items():
            speed, how_fast = times_more(times["speedup"], "faster", "slower")
            lines.append(
                f"latency    batch {batch}: float {1e3 * times['float']:.3f} ms   "
                f"8-bit {1e3 * times['quantized']:.3f} ms   {speed}x {how_fast}"
            )
        rows = [("layer", "kind", "output", "bits", "scale", "zero point", "SQNR dB", "cosine",
                 "max error")]
        rows += [
            (r.name, r.kind, "x".join(map(str, r.shape)), r.bits,
             *(("", "") if r.scale is None else (f"{r.scale:.6g}", r.zero_point)),
             f"{r.sqnr_db:.1f}", f"{r.cosine:.6f}", f"{r.max_error:.4g}")
            for r in self.layers
        ]
        if any(r.why for r in self.layers):
            rows = [(*row, why) for row, why in
                    zip(rows, ["why in float", *(r.why for r in self.layers)], strict=True)]
        times = [] if self.profile is None else ["", f"8-bit model: {self.profile}"]
        return "\n".join([*lines, "", table(rows), *times])

    def to_html(self, path, histograms=None, class_names=None, about=None):
        """Write the report as one self-contained HTML page.

        Parameters
        ----------
        path : str or path-like
        histograms : mapping of str to Histogram, optional
            Of each layer's reals, drawn with the range that its codes cover. A (Histogram,
            QuantizationParams) pair says which range; without, it is the layer's own.
        class_names : sequence of str, optional
            Default: the numbers of the classes.
        about : mapping, optional
            What made the report, for a table at the foot of the page.
        """
        from qcy.nn import report

        report.write(self, path, histograms, class_names, about)

    def _repr_html_(self):
        from qcy.nn import report

        return report.body(self)


def times_more(ratio, more, less):
    """Return how a ratio is said: as a number of at least 1, and the word for its direction."""
    return (f"{ratio:.2f}", more) if ratio >= 1 else (f"{1 / ratio:.2f}", less)


def compare_quantized_model(
    quantized, model, data, labels=None, *, batch_sizes=(1, 64), repeats=30
):
    """Compare an 8-bit model with the float model it came from.

    Parameters
    ----------
    quantized : QuantizedModel
    model : Model
    data : array, tuple or mapping of arrays, or iterator of batches
        (N, ...) samples, N at least 1. For a model with several inputs a tuple of arrays, or arrays
        by the names of inputs. An iterator yields such batches, which are seen one at a time.
    labels : (N,) array of int, optional
        Classes; the models' answer is their largest output, of several the first.
    batch_sizes : sequence of int, default (1, 64)
        For which latency is measured, with the first samples, repeated as needed; empty: none. For
        a model that takes a fixed number of samples it is that number.
    repeats : int, default 30
        Runs of each model per batch size, in turn.

    Returns
    -------
    Report
        Frozen; ``str()`` is a table. Where a model takes a fixed number of samples, those that do
        not fill a batch are left out.

    Raises
    ------
    TypeError, ValueError
        If there is no data, it does not fit, labels are not one int per sample, or a number of runs
        or of samples is not positive. Then nothing has been run, but for what comes of an iterator.
    """
    for name, given, kind in (("quantized", quantized, QuantizedModel), ("model", model, Model)):
        if not isinstance(given, kind):
            raise TypeError(f"{name} must be a {kind.__name__}, got {type(given).__name__}")
    if model.outputs[0] in model.inputs:
        raise ValueError(f"the model must have a layer that makes its output {model.outputs[0]!r}")
    if quantized.inputs != model.inputs:
        raise ValueError(f"quantized must take the model's {model.inputs}, got {quantized.inputs}")
    first, batches, n_samples = _batches(model, data)
    if labels is not None:
        labels = np.asarray(labels)
        if n_samples is not None:
            labels = _check_labels(labels, n_samples)[: whole(model, n_samples)]
    repeats = _validate.integer("repeats", repeats, 1)
    if isinstance(batch_sizes, (str, bytes)) or not np.iterable(batch_sizes):
        raise TypeError(f"batch_sizes must be a sequence of int, got {batch_sizes!r}")
    batch_sizes = [_validate.integer("batch_sizes", size, 1) for size in batch_sizes]
    if fixed_batch(model) and batch_sizes:
        batch_sizes = [fixed_batch(model)]
    answers, moments = _run_both(quantized, model, batches)
    if labels is not None:
        labels = _check_labels(labels, len(answers[0]))
    n_classes = 1 + int(max(a.max() for a in answers))
    has_confusion = n_classes <= MAX_CLASSES and min(a.min() for a in answers) >= 0
    confusion = np.zeros((n_classes, n_classes) if has_confusion else (0, 0), np.int64)
    if has_confusion:
        np.add.at(confusion, tuple(answers), 1)
    float_bytes, quantized_bytes = len(model.to_bytes()), len(quantized.to_bytes())
    return Report(
        n_samples=len(answers[0]),
        float_accuracy=None if labels is None else float(np.mean(answers[0] == labels)),
        quantized_accuracy=None if labels is None else float(np.mean(answers[1] == labels)),
        agreement=float(np.mean(answers[0] == answers[1])),
        float_bytes=float_bytes, quantized_bytes=quantized_bytes,
        latency={
            str(size): _latency(quantized, model, first, size, repeats) for size in batch_sizes
        },
        layers=tuple(
            _layer_report(quantized, node, moments[name]) for node in quantized.nodes
            if (name := _shown(quantized, node)) in moments
        ),
        confusion=tuple(tuple(int(n) for n in row) for row in confusion),
        profile=quantized.profile(*_batch(first, batch_sizes[0]), repeat=repeats)
        if batch_sizes else None,
    )


def _batches(model, data):
    """Return first samples, all batches as tuples of arrays, and how many samples if known."""
    if not hasattr(data, "__next__"):
        arrays = arrays_of(model, data)
        return arrays, batches_of(model, arrays, BATCH), len(arrays[0])
    batches = (arrays_of(model, batch) for batch in data)
    first = next(batches, None)
    if first is None:
        raise ValueError("data must hold at least one batch, got none")
    return first, chain([first], batches), None


def _check_labels(labels, n_samples):
    """Return labels, if there is an integer for each sample."""
    if labels.shape != (n_samples,):
        raise ValueError(f"labels must have shape {(n_samples,)}, got {labels.shape}")
    if labels.dtype.kind not in "iu":
        raise TypeError(f"labels must be integers, got {labels.dtype}")
    return labels


def _run_both(quantized, model, batches):
    """Return both models' answers, and the moments of each layer's outputs and differences."""
    answers = [[], []]
    moments = {}
    output = model.outputs[0]
    wanted = {quantized._shown(n, name) for n in quantized.nodes for name in n.outputs} | {output}
    for batch in batches:
        n = len(batch[0])
        waiting, reals = {}, model.trace(*batch)
        for name, real in quantized.trace(*batch):
            while name not in waiting:      # the float model, no further than it must be
                made, value = next(reals, (None, None))
                if made is None:
                    raise ValueError(
                        f"model has no layer {name!r}: the 8-bit model was not made from it"
                    )
                if made in wanted:
                    waiting[made] = value
                if made == output:
                    answers[0].append(_answer(value, n))
            theirs = waiting.pop(name)
            if theirs.dtype == real.dtype == np.float32 and theirs.shape == real.shape:
                moments.setdefault(name, _Moments()).add(theirs, real)
            if name == output:
                answers[1].append(_answer(real, n))
    return [np.concatenate(part) for part in answers], moments


def _answer(outputs, n):
    """Return the answer to each of n samples: where the output is largest."""
    if not outputs.size:                    # nothing was found in any
        return np.zeros(n, np.int64)
    if outputs.size % n:
        raise ValueError(
            f"the model's first output must have an answer for each of {n} samples, got shape "
            f"{outputs.shape}"
        )
    if outputs.size == n and outputs.dtype.kind in "iu":        # the number of a class
        return outputs.reshape(n).astype(np.int64)
    return outputs.reshape(n, -1).argmax(axis=1)


class _Moments:
    """Sums over all samples, from which SQNR and cosine come."""

    def __init__(self):
        self.signal = self.other = self.cross = self.noise = self.largest = 0.0
        self.shape = ()

    def add(self, real, quantized):
        """Add one batch of a layer's outputs in float and in 8 bits.

        Places where the float model has an infinity, as masks have, do not count.
        """
        is_number = np.isfinite(real)
        a, b = (x[is_number].astype(np.float64) for x in (real, quantized))
        with np.errstate(invalid="ignore"):
            self.signal += a @ a
            self.other += b @ b
            self.cross += a @ b
            difference = a - b
            self.noise += difference @ difference
        self.largest = max(self.largest, float(np.abs(difference).max(initial=0.0)))
        self.shape = real.shape[1:]


def _shown(quantized, node):
    """Return what the first output of a layer is called in traces of both models."""
    return quantized._shown(node, node.outputs[0])


def _layer_report(quantized, node, moments):
    params = quantized.params.get(node.outputs[0])
    if moments.noise == 0:
        sqnr = float("inf")
    elif moments.signal == 0:
        sqnr = float("-inf")
    else:
        sqnr = 10 * float(np.log10(moments.signal / moments.noise))
    norm = (moments.signal * moments.other) ** 0.5
    codes = dict.fromkeys(("scale", "zero_point", "dtype", "qmin", "qmax"))
    if params is not None:
        codes = {
            "scale": float(params.scale), "zero_point": params.zero_point,
            "dtype": params.dtype.name, "qmin": params.qmin, "qmax": params.qmax,
        }
    return LayerReport(
        name=node.name, kind=getattr(node.layer, "op", type(node.layer).__name__),
        covers=node.covers, shape=tuple(moments.shape),
        bits=8 if isinstance(node.layer, QuantizedLayer) else 32, **codes, sqnr_db=sqnr,
        cosine=float(moments.cross / norm) if norm else 1.0, max_error=moments.largest,
        why=quantized.manifest.get("float", {}).get(node.name, ""),
    )


def _latency(quantized, model, samples, size, repeats):
    """Return median seconds of both models on one batch, run in turn."""
    batch = _batch(samples, size)
    times = medians([lambda: model(*batch), lambda: quantized(*batch)], repeats)
    return {"float": times[0], "quantized": times[1], "speedup": times[0] / times[1]}


def _batch(samples, size):
    """Return the first samples, repeated as needed."""
    return tuple(np.resize(array[:size], (size, *array.shape[1:])) for array in samples)


def _finite(value):
    return value if np.isfinite(value) else None

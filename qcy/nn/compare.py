"""What quantization cost and gained: the float and the 8-bit model side by side."""

from dataclasses import asdict, dataclass

import numpy as np

from qcy import _validate
from qcy._table import table
from qcy._timing import medians
from qcy.nn.layers import QuantizedLayer
from qcy.nn.model import Model
from qcy.nn.profile import Profile
from qcy.nn.quantized_model import QuantizedModel

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
        Of the output, without the batch.
    bits : int
        8, or 32 for a layer kept in float.
    scale : float
    zero_point : int
    dtype : str
        Of the codes: "uint8" or "int8".
    qmin, qmax : int
        The smallest and the largest code.
    sqnr_db : float
        Signal to quantization noise, 10 log10 of the ratio of powers; infinite if equal.
    cosine : float
        Similarity of the outputs as vectors.
    max_error : float
        Largest absolute difference.
    """

    name: str
    kind: str
    covers: tuple
    shape: tuple
    bits: int
    scale: float
    zero_point: int
    dtype: str
    qmin: int
    qmax: int
    sqnr_db: float
    cosine: float
    max_error: float


@dataclass(frozen=True)
class Report:
    """What `compare_quantized_model` found.

    Attributes
    ----------
    n_samples : int
    float_accuracy, quantized_accuracy : float or None
        Share of samples whose largest output is the label; None without labels.
    agreement : float
        Share of samples for which both models' largest outputs are the same.
    float_bytes, quantized_bytes : int
        Sizes of the saved models.
    latency : dict
        By batch size, the median seconds of a run of both models, run in turn.
    layers : tuple of LayerReport
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
                asdict(layer) | {"sqnr_db": _finite(layer.sqnr_db), "shape": list(layer.shape),
                                 "covers": list(layer.covers)}
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
            (r.name, r.kind, "x".join(map(str, r.shape)), r.bits, f"{r.scale:.6g}", r.zero_point,
             f"{r.sqnr_db:.1f}", f"{r.cosine:.6f}", f"{r.max_error:.4g}")
            for r in self.layers
        ]
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
    data : (N, ...) array
        Samples, N at least 1.
    labels : (N,) array of int, optional
        Classes; the models' answer is their largest output.
    batch_sizes : sequence of int, default (1, 64)
        For which latency is measured, with the first samples, repeated as needed; empty: none.
    repeats : int, default 30
        Runs of each model per batch size, in turn.

    Returns
    -------
    Report
        Frozen; ``str()`` is a table.

    Raises
    ------
    TypeError, ValueError
        If there is no data, it does not fit, labels are not one int per sample, or a number of runs
        or of samples is not positive. Then nothing has been run.
    """
    for name, given, kind in (("quantized", quantized, QuantizedModel), ("model", model, Model)):
        if not isinstance(given, kind):
            raise TypeError(f"{name} must be a {kind.__name__}, got {type(given).__name__}")
    if model.outputs[0] in model.inputs:
        raise ValueError(f"the model must have a layer that makes its output {model.outputs[0]!r}")
    data = np.asarray(data)
    if data.ndim == 0 or not len(data):
        raise ValueError(f"data must hold at least one sample, got shape {data.shape}")
    if labels is not None:
        labels = np.asarray(labels)
        if labels.shape != (len(data),):
            raise ValueError(f"labels must have shape {(len(data),)}, got {labels.shape}")
        if labels.dtype.kind not in "iu":
            raise TypeError(f"labels must be integers, got {labels.dtype}")
    repeats = _validate.integer("repeats", repeats, 1)
    if isinstance(batch_sizes, (str, bytes)) or not np.iterable(batch_sizes):
        raise TypeError(f"batch_sizes must be a sequence of int, got {batch_sizes!r}")
    batch_sizes = [_validate.integer("batch_sizes", size, 1) for size in batch_sizes]
    answers, moments = _run_both(quantized, model, data)
    n_classes = 1 + int(max(a.max() for a in answers))
    n_classes = n_classes if n_classes <= MAX_CLASSES else 0
    confusion = np.zeros((n_classes, n_classes), np.int64)
    if n_classes:
        np.add.at(confusion, tuple(answers), 1)
    float_bytes, quantized_bytes = len(model.to_bytes()), len(quantized.to_bytes())
    return Report(
        n_samples=len(data),
        float_accuracy=None if labels is None else float(np.mean(answers[0] == labels)),
        quantized_accuracy=None if labels is None else float(np.mean(answers[1] == labels)),
        agreement=float(np.mean(answers[0] == answers[1])),
        float_bytes=float_bytes, quantized_bytes=quantized_bytes,
        latency={
            str(size): _latency(quantized, model, data, size, repeats) for size in batch_sizes
        },
        layers=tuple(
            _layer_report(quantized, node, moments[node.covers[-1]]) for node in quantized.nodes
        ),
        confusion=tuple(tuple(int(n) for n in row) for row in confusion),
        profile=quantized.profile(_batch(data, batch_sizes[0]), repeat=repeats)
        if batch_sizes else None,
    )


def _run_both(quantized, model, data):
    """Return both models' answers, and the moments of each layer's outputs and differences."""
    answers = [[], []]
    moments = {}
    output = model.outputs[0]
    for start in range(0, len(data), BATCH):
        batch = data[start : start + BATCH]
        theirs = quantized.trace(batch)
        waiting = {}
        for name, real in model.trace(batch):
            waiting[name] = real
            if name == output:
                answers[0].append(_answer(real))
        for name, real in theirs:
            if name not in waiting:
                raise ValueError(
                    f"model has no layer {name!r}: the 8-bit model was not made from it"
                )
            moments.setdefault(name, _Moments()).add(waiting[name], real)
            if name == output:
                answers[1].append(_answer(real))
    return [np.concatenate(part) for part in answers], moments


def _answer(outputs):
    return outputs.reshape(len(outputs), -1).argmax(axis=1)


class _Moments:
    """Sums over all samples, from which SQNR and cosine come."""

    def __init__(self):
        self.signal = self.other = self.cross = self.noise = self.largest = 0.0
        self.shape = ()

    def add(self, real, quantized):
        """Add one batch of a layer's outputs in float and in 8 bits."""
        a = real.reshape(-1).astype(np.float64)
        b = quantized.reshape(-1).astype(np.float64)
        self.signal += a @ a
        self.other += b @ b
        self.cross += a @ b
        difference = a - b
        self.noise += difference @ difference
        self.largest = max(self.largest, float(np.abs(difference).max(initial=0.0)))
        self.shape = real.shape[1:]


def _layer_report(quantized, node, moments):
    params = quantized.params[node.name]
    if moments.noise == 0:
        sqnr = float("inf")
    elif moments.signal == 0:
        sqnr = float("-inf")
    else:
        sqnr = 10 * float(np.log10(moments.signal / moments.noise))
    norm = (moments.signal * moments.other) ** 0.5
    return LayerReport(
        name=node.name, kind=type(node.layer).__name__, covers=node.covers,
        shape=tuple(moments.shape),
        bits=8 if isinstance(node.layer, QuantizedLayer) else 32,
        scale=float(params.scale), zero_point=params.zero_point, dtype=params.dtype.name,
        qmin=params.qmin, qmax=params.qmax, sqnr_db=sqnr,
        cosine=float(moments.cross / norm) if norm else 1.0, max_error=moments.largest,
    )


def _latency(quantized, model, data, size, repeats):
    """Return median seconds of both models on one batch, run in turn."""
    batch = _batch(data, size)
    times = medians([lambda: model(batch), lambda: quantized(batch)], repeats)
    return {"float": times[0], "quantized": times[1], "speedup": times[0] / times[1]}


def _batch(data, size):
    """Return the first samples, repeated as needed."""
    return np.resize(data, (size, *data.shape[1:]))


def _finite(value):
    return value if np.isfinite(value) else None

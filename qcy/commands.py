"""What the command line does with models in files: quantize, compare, run, inspect, bench."""

import json
import time
import zipfile
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

import numpy as np

import qcy
from qcy import bench, dataset
from qcy._table import table
from qcy.bench_pair import measure_pair
from qcy.inspection import inspect, kind_of
from qcy.nn import (
    EntropyObserver, MinMaxObserver, MovingAverageObserver, MSEObserver, PercentileObserver,
    QuantizedModel, compare_quantized_model, quantize_model,
)
from qcy.nn.compare import times_more
from qcy.nn.layers import QuantizedLayer
from qcy.nn.progress import track
from qcy.nn.samples import Passing, arrays_of, batches_of, fixed_batch

OBSERVERS = {
    "minmax": MinMaxObserver, "moving-average": MovingAverageObserver,
    "percentile": PercentileObserver, "entropy": EntropyObserver, "mse": MSEObserver,
}


def show(options, found, text):
    """Print a result: one JSON object, or text."""
    print(json.dumps(found) if options.json else text)


def open_data(options, model):
    """Return the samples that the options name."""
    return dataset.open_data(
        options.data, model, labels=getattr(options, "labels", None), samples=options.samples,
        seed=options.seed, size=options.size, mean=options.mean, std=options.std,
    )


def _threads(options):
    """Return the limit of threads that the options say."""
    return nullcontext() if options.threads is None else qcy.threads(options.threads)


def check_output(path):
    """Check that a file can be written, before there is one to write."""
    if path.is_dir():
        raise IsADirectoryError(f"the output must be a file, {path} is a folder")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder of the output {path} is not there")


def load(path, *, wants_float=False, wants_8_bit=False):
    """Return the model in a file, of one kind if that is wanted."""
    model = bench.load(path)
    is_8_bit = isinstance(model, QuantizedModel)
    if (wants_float and is_8_bit) or (wants_8_bit and not is_8_bit):
        raise ValueError(
            f"the model must be {'float' if wants_float else '8-bit'}, {path} is "
            f"{'8-bit' if is_8_bit else 'float'}"
        )
    return model


# ------------------------------------------------------------------------------------- quantize


def quantize(options):
    """Turn a float model in a file into an 8-bit one in another."""
    check_output(options.output)
    model = load(options.model, wants_float=True)
    settings = {"mode": options.mode, "skip": options.skip}
    settings["weight_scheme"] = _scheme(options.weight_scheme)
    data = None
    if options.mode == "static":
        data = track(open_data(options, model).batches(options.batch), "calibrating")
        settings |= {
            "observer": OBSERVERS[options.observer], "dtype": options.dtype, "progress": False,
        }
    quantized = quantize_model(model, data, **settings)
    is_onnx = options.output.suffix == ".onnx"
    quantized.save(options.output, **({"format": options.format or "onnx"} if is_onnx else {}))
    found = {
        "output": str(options.output), "mode": options.mode, "layers": _layers(quantized),
        "bytes": {
            "float": len(model.to_bytes()), "quantized": options.output.stat().st_size,
        },
    }
    if data is not None:
        found["n_samples"] = quantized.manifest["n_samples"]
    show(options, found, _told(found))


def _scheme(name):
    """Return the scheme that an option names."""
    kinds = qcy.QuantizationScheme
    symmetry = kinds.ASYMMETRIC if name.startswith("asymmetric") else kinds.SYMMETRIC
    return symmetry | (kinds.PER_CHANNEL if name.endswith("channel") else kinds.PER_TENSOR)


def _layers(model):
    """Return what became of each layer, as plain values."""
    why = getattr(model, "manifest", {}).get("float", {})
    return [
        {
            "name": node.name, "kind": kind_of(node.layer), "covers": list(node.covers),
            "bits": _bits(node.layer), "why": why.get(node.name, ""),
        }
        for node in model.nodes
    ]


def _bits(layer):
    """Return what a layer is in: "8", "float", or "8-bit weights" if only those are."""
    if isinstance(layer, QuantizedLayer):
        return "8"
    has_codes = any(array.dtype == np.int8 for array in layer.arrays().values())
    return "8-bit weights" if has_codes else "float"


def _told(found):
    """Return what became of a model, as text."""
    sizes = found["bytes"]
    ratio, how = times_more(sizes["float"] / sizes["quantized"], "smaller", "larger")
    rows = [("layer", "kind", "bits", "does the work of", "why in float")]
    rows += [
        (x["name"], x["kind"], x["bits"],
         ", ".join(name for name in x["covers"] if name != x["name"]), x["why"])
        for x in found["layers"]
    ]
    in_8_bits, in_float = (
        _counted([x for x in found["layers"] if (x["bits"] == "float") == is_float])
        for is_float in (False, True)
    )
    head = "to 8 bits" if found["mode"] == "static" else "8-bit weights"
    return (
        f"{head:14} {in_8_bits}\n{'stays float':14} {in_float}\n"
        f"{'bytes':14} float {sizes['float']:,}   8-bit {sizes['quantized']:,}   {ratio}x {how}\n"
        f"{'written to':14} {found['output']}\n\n{table(rows)}"
    )


def _counted(layers):
    kinds = ", ".join(f"{kind} {n}" for kind, n in Counter(x["kind"] for x in layers).most_common())
    return f"{len(layers)} {'layer' if len(layers) == 1 else 'layers'}{kinds and f': {kinds}'}"


# -------------------------------------------------------------------------------------- compare


def compare(options):
    """Compare an 8-bit model with the float model it came from, on data."""
    if options.output is not None:
        check_output(options.output)
    model = load(options.float, wants_float=True)
    quantized = load(options.quantized, wants_8_bit=True)
    data = open_data(options, model)
    batches = track(data.batches(options.batch), "comparing")
    with _threads(options):
        report = compare_quantized_model(
            quantized, model, iter(batches), data.labels, batch_sizes=options.batch_sizes,
            repeats=options.repeats,
        )
    found = report.to_dict()
    text = str(report)
    if options.output is not None:
        about = bench.about() | {"float model": options.float, "8-bit model": options.quantized}
        report.to_html(options.output, about=about)
        found["report"] = str(options.output)
        text += f"\n\nThe whole report, with pictures: {options.output}"
    show(options, found, text)


# ------------------------------------------------------------------------------------------ run


def run(options):
    """Run a model on arrays in files, and write what it makes to another."""
    check_output(options.output)
    model = load(options.model)
    if len(model.outputs) > 1 and options.output.suffix != ".npz":
        raise ValueError(
            f"the output must be a .npz file, got {options.output}: the model has outputs "
            f"{', '.join(map(repr, model.output_names))}"
        )
    inputs = _inputs(options.input, model)
    start = time.perf_counter()
    with _threads(options):
        results = _results(model, inputs)
    seconds = time.perf_counter() - start
    outputs = dict(zip(model.output_names, results, strict=True))
    _write(options.output, outputs)
    found = {
        "output": str(options.output), "seconds": seconds,
        "outputs": {n: {"dtype": y.dtype.name, "shape": list(y.shape)} for n, y in outputs.items()},
    }
    told = "\n".join(f"{name}  {y.dtype}{list(y.shape)}" for name, y in outputs.items())
    show(options, found, f"{told}\nwritten to {options.output} after {1e3 * seconds:.1f} ms")


def _inputs(given, model):
    """Return the inputs of a run, from ``path`` or ``name=path`` each."""
    listed = ", ".join(map(repr, model.inputs))
    arrays = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not equals or (name not in model.inputs and Path(text).exists()):
            name, path = None, text
        elif name not in model.inputs:
            raise ValueError(f"--input must be for one of {listed}, got {text}")
        found = dataset.read_arrays(path)
        if isinstance(found, dict) and name is None:
            is_only = len(found) == len(model.inputs) == 1
            arrays |= {model.inputs[0]: next(iter(found.values()))} if is_only else found
        elif isinstance(found, dict):
            raise ValueError(f"--input with a name must be a .npy file, got {text}")
        elif name is None and len(model.inputs) > 1:
            raise ValueError(f"--input must be name={path}, with a name of {listed}")
        else:
            arrays[name or model.inputs[0]] = found
    missing = [name for name in model.inputs if name not in arrays]
    if missing:
        raise ValueError(f"--input must give {missing[0]!r}, got {sorted(arrays)}")
    return tuple(arrays[name] for name in model.inputs)


def _results(model, inputs):
    """Run a model, as often as it must be for so many samples; return a tuple of its outputs."""
    size = fixed_batch(model)
    if size is None or inputs[0].shape[:1] == (size,):
        results = model(*inputs)
        return results if isinstance(results, tuple) else (results,)
    arrays = arrays_of(model, inputs if len(inputs) > 1 else inputs[0])
    if len(arrays[0]) % size:
        raise ValueError(
            f"inputs must hold a multiple of {size} samples, those of a run; got {len(arrays[0])}"
        )
    parts = [_results(model, batch) for batch in batches_of(model, arrays, size)]
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def _write(path, outputs):
    """Write arrays to a .npz file, or the only one to a .npy file."""
    with open(path, "wb") as file:
        if path.suffix != ".npz":
            np.save(file, *outputs.values(), allow_pickle=False)
            return
        with zipfile.ZipFile(file, "w") as archive:     # savez has names that are not free
            for name, array in outputs.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as part:
                    np.lib.format.write_array(part, array, allow_pickle=False)


# ------------------------------------------------------------------------------ inspect and bench


def show_inspection(options):
    """Show what a model is made of, and what would become of it."""
    model = load(options.model)
    batches = None
    if options.data is not None:
        batches = track(open_data(options, model).batches(options.batch), "calibrating")
    found = inspect(model, batches, options.shape, options.threads)
    show(options, {"model": options.model} | found.to_dict(), f"{options.model}: {found}")


def measure_model(options, n_threads):
    """Return how fast a model is; of a float and an 8-bit one, how fast both are."""
    model = load(options.path)
    is_8_bit = isinstance(model, QuantizedModel)
    if options.float is not None and not is_8_bit:
        raise ValueError(f"--float is for an 8-bit model, {options.path} is float")
    if options.data is not None and is_8_bit and options.float is None:
        raise ValueError(f"--data is for a float model, or with --float; {options.path} is 8-bit")
    if options.float is None and options.data is None:
        return bench.measure_model(model, options.shape, n_threads)
    other = load(options.float, wants_float=True) if is_8_bit else model
    if options.data is None:
        return measure_pair(other, model, bench.random_inputs(other, options.shape), n_threads)
    batches = open_data(options, other).batches(options.batch)
    batches = Passing(other, batches if is_8_bit else track(batches, "calibrating"))
    if is_8_bit:
        next(iter(batches))
    else:
        model = quantize_model(other, batches, progress=False)
    inputs = bench.random_inputs(other, options.shape) if options.shape else batches.first
    return measure_pair(other, model, inputs, n_threads)

"""Post-training quantization: a float model and data in, an 8-bit model out."""

import platform

import numpy as np

from qcy import _validate, _version
from qcy.nn.calibration import Calibrator
from qcy.nn.configs import MODES, Configs, name_of, scheme_name, without_data
from qcy.nn.fusion import folded, fuse
from qcy.nn.layers import (
    Add, AvgPool2D, Conv2D, ConvTranspose2D, Dense, GlobalAvgPool2D, Sub,
)
from qcy.nn.layers.weights import WEIGHT_SCHEME
from qcy.nn.graph import Node
from qcy.nn.model import Model
from qcy.nn.observer import MinMaxObserver
from qcy.nn.progress import track
from qcy.nn.quantized_model import QuantizedModel
from qcy.nn.samples import fixed_batch
from qcy.nn.selection import choose, codes_in
from qcy.tensor.quantization import (
    DEFAULT_SCHEME, QuantizationParams, check_scheme,
)

#: Layers whose multiplier is the ratio of an input's scale to the output's, and the least that the
#: ratio may be: pooling divides it by the number of cells, at most 2**23, since sums fit int32.
_LEAST_RATIO = {
    Add: 2.0**-126, Sub: 2.0**-126, AvgPool2D: 2.0**-103, GlobalAvgPool2D: 2.0**-103,
}
_LARGEST_RATIO = 2.0**126


def quantize_model(
    model, data=None, *, mode="static", scheme=DEFAULT_SCHEME, observer=MinMaxObserver, skip=(),
    progress=True, weight_scheme=WEIGHT_SCHEME, dtype="uint8", overrides=None,
):
    """Turn a float model into an 8-bit one.

    Folds batch norms, fuses ReLU and ReLU6, runs the data through the float model to see the range
    of every tensor, and quantizes weights to int8 and biases to int32. Products with constant
    weights go to 8 bits, and what lies between two of them; `QuantizedModel.summary` says what does
    not, and why.

    With ``mode="dynamic"`` no data is needed: only layers with weight matrices change, to forms
    that quantize what comes row by row: `DenseDynamic`. That is for models whose ranges cannot be
    known beforehand. With ``mode="weight_only"`` weights become int8, and all is computed in
    float32 by what they stand for: a smaller file, no faster. In both `skip`, `overrides` and
    `weight_scheme`, a symmetric one, are all there is to choose.

    Parameters
    ----------
    model : Model
    data : iterable of arrays, or an array
        Batches of calibration inputs (a tuple per batch for a model with several inputs), seen one
        at a time; a single array is cut into batches of 32, or of what the model takes. Some
        hundred samples are enough. For ``mode="static"`` alone.
    mode : {"static", "dynamic", "weight_only"}, default "static"
    scheme : QuantizationScheme, default ``ASYMMETRIC | PER_TENSOR``
        Of activations, which are always per tensor.
    observer : callable, default MinMaxObserver
        How ranges are chosen: an observer class, or a `functools.partial` of one.
    skip : collection of str
        Names of layers to keep in float, with conversions around them.
    progress : bool, default True
        Whether to show a bar (with tqdm), or plain lines, on standard error.
    weight_scheme : QuantizationScheme, default ``SYMMETRIC | PER_CHANNEL``
        Of weights.
    dtype : {"uint8", "int8"}, default "uint8"
        Of activations.
    overrides : mapping of str to LayerConfig, optional
        By regular expression, which a layer's whole name matches; the last that matches counts.

    Returns
    -------
    QuantizedModel
        With another mode than "static" a `Model`.

    Raises
    ------
    TypeError, ValueError
        If there is no data, or a batch does not fit or holds a NaN (the message says which), a name
        in `skip` is unknown, schemes contradict themselves, or indices are no input of the model.

    Examples
    --------
    >>> model = Sequential(Dense([[1.0, -1.0]], bias=[0.0, 0.5]), ReLU())
    >>> data = np.linspace(-1, 1, 64).reshape(-1, 1)
    >>> quantize_model(model, data, progress=False)(np.array([[0.5]])).round(2)
    array([[0.5, 0. ]], dtype=float32)
    """
    if not isinstance(model, Model):
        raise TypeError(f"model must be a Model, got {type(model).__name__}")
    scheme = check_scheme("scheme", scheme)
    weight_scheme = check_scheme("weight_scheme", weight_scheme)
    if scheme.is_per_channel:
        raise ValueError(f"scheme means activations, which are per tensor; got {scheme}")
    configs = Configs(model, skip, overrides)
    _validate.choice("mode", mode, MODES)
    if mode != "static":
        if data is not None:
            raise ValueError(
                f'data is for mode="static": with mode={mode!r} nothing is calibrated'
            )
        return without_data(model, mode, configs, weight_scheme)
    layout = _layout(model)
    fused = fuse(model, keep=configs.in_float)
    calibrator = Calibrator(fused, observer=observer, scheme=scheme, dtype=dtype)
    calibrator.observer_of = configs.observers(fused)
    for batch in track(_batches(model, data), "calibrating", progress):
        is_first = not calibrator.n_samples
        calibrator.observe(batch)
        if is_first and calibrator.n_samples:
            _check_folds(model, fused, batch)
    return convert(
        fused, calibrator, configs=configs, weight_scheme=weight_scheme, layout=layout
    )


def convert(fused, calibrator, *, configs=None, weight_scheme=WEIGHT_SCHEME, layout="NCHW"):
    """Return the 8-bit model of a fused float model whose tensors a calibrator has seen.

    Parameters
    ----------
    fused : Model
    calibrator : Calibrator
    configs : Configs, optional
        What was asked for by name.
    weight_scheme : QuantizationScheme
    layout : {"NCHW", "NHWC"}
        Of images outside.
    """
    calibrator.check_seen()
    configs = configs or Configs(fused)
    choices = choose(fused, calibrator, configs.in_float, configs.forced)
    is_8_bit = {name: choice.is_8_bit for name, choice in choices.items()}
    params = _choose_params(fused, calibrator, is_8_bit)
    nodes = []
    for node in fused.nodes:
        layer = node.layer.with_layout("NHWC")
        if is_8_bit[node.name]:
            _check_indices(node, fused, is_8_bit)
            made = params[node.outputs[0]]
            in_params = tuple(params[name] for name in codes_in(node))
            if node.layer.TAKES_REALS:          # which are no codes: parameters without meaning
                in_params = tuple(params.get(name, made) for name in node.inputs)
            scheme = configs.of(node).weight_scheme or weight_scheme
            layer = _twin(node.name, layer, in_params, made, scheme)
        else:
            layer = configs.apart(node, layer, weight_scheme)
        nodes.append(Node(node.name, layer, node.inputs, node.covers))
    manifest = {
        "data_sha256": calibrator.data_hash, "n_samples": calibrator.n_samples,
        "observer": name_of(calibrator.observer), "scheme": scheme_name(calibrator.scheme),
        "weight_scheme": scheme_name(weight_scheme), "skip": sorted(configs.skip),
        "float": {name: choice.why for name, choice in choices.items() if not choice.is_8_bit},
        "versions": {
            "qcy": _version.VERSION, "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }
    if configs.overrides:
        manifest["overrides"] = {key: config.plain() for key, config in configs.overrides.items()}
    return QuantizedModel(
        nodes, fused.outputs, fused.inputs, params=params, layout=layout, manifest=manifest,
        input_types=fused.input_types, output_names=fused.output_names,
    )


def _choose_params(fused, calibrator, is_8_bit):
    """Return the parameters of every tensor that can be codes.

    Such that layers without weights have multipliers: where an input's step is too small beside
    the output's, equations (15) and (16), the input's is raised: it never moved an output code.
    Where it is too large, the output's is: it was noise. (Layers with weights have weight scales
    to raise.)
    """
    seen = calibrator.observers
    made_by = {name: name for name in fused.inputs if name in seen}     # whose parameters it has
    own = {name: calibrator.param(name) for name in made_by}
    fixed, direct = set(), []
    for node in fused.nodes:
        for name in node.outputs:
            if name not in seen:
                continue
            made_by[name] = name
            if is_8_bit[node.name] and node.layer.KEEPS_PARAMS and node.inputs[0] in made_by:
                made_by[name] = made_by[node.inputs[0]]
                continue
            own[name] = node.layer.fixed_params(calibrator.dtype) if is_8_bit[node.name] else None
            if own[name] is None:
                own[name] = calibrator.param(name)
            else:
                fixed.add(name)
        if type(node.layer) in _LEAST_RATIO and is_8_bit[node.name]:
            direct.append(node)
    for node in reversed(direct):
        least = _LEAST_RATIO[type(node.layer)] * float(own[node.name].scale)
        for name in {made_by[name] for name in node.inputs} - fixed:
            own[name] = _raised(own[name], least)
    for node in direct:
        largest = max(float(own[made_by[name]].scale) for name in node.inputs)
        own[node.name] = _raised(own[node.name], largest / _LARGEST_RATIO)
    return {name: own[maker] for name, maker in made_by.items()}


def _raised(params, least):
    """Return parameters whose scale is at least `least`."""
    if params.scale >= least:
        return params
    # One part in 2**20 more, since the new scale is rounded to float32 too.
    return QuantizationParams(
        least * (1 + 2.0**-20), params.zero_point, params.dtype, narrow_range=params.narrow_range
    )


def _check_folds(model, fused, batch):
    """Check that each batch norm folded into a dense layer acts on its features.

    It does in (N, features). In more dimensions a dense layer's features are the last axis, and a
    batch norm's channels are axis 1: no fusion can know, the data tells.
    """
    norms = folded(model, fused)
    if not norms:
        return
    for name, array in fused.trace(*(batch if isinstance(batch, tuple) else (batch,))):
        if name in norms and array.ndim != 2:
            raise ValueError(
                f"layer {norms[name]!r} normalizes axis 1 of shape {array.shape}, not the "
                f"features of dense layer {name!r}: put it in skip"
            )


def _check_indices(node, fused, is_8_bit):
    """Check that indices do not come out of codes, which would have rounded them."""
    for name in node.inputs if node.layer.TAKES_REALS else ():
        maker = fused.maker(name)
        if maker is not None and is_8_bit[maker.name]:
            raise ValueError(
                f"layer {node.name!r} takes indices, which must be an input of the model: {name!r} "
                "is the output of a layer, and would be quantized"
            )


def _twin(name, layer, in_params, out_params, weight_scheme):
    """Return the 8-bit twin of a layer, or say which layer has none."""
    single = in_params[0] if layer.N_INPUTS == 1 else in_params
    try:
        if type(layer) in (Dense, Conv2D, ConvTranspose2D):
            return layer.quantized(single, out_params, weight_scheme)
        return layer.quantized(single, out_params)
    except (TypeError, ValueError) as error:
        raise type(error)(f"layer {name!r}: {error}") from error


def _batches(model, data):
    """Return an iterable of batches."""
    if isinstance(data, np.ndarray) or hasattr(data, "__array__"):
        array = np.asarray(data)
        if array.ndim == 0:
            raise ValueError("data must have an axis of samples, got a number")
        step = fixed_batch(model) or 32
        return [array[i : i + step] for i in range(0, len(array), step)]
    if isinstance(data, (str, bytes)) or not hasattr(data, "__iter__"):
        hint = '; only mode="dynamic" needs no data' if data is None else ""
        raise TypeError(f"data must be an array or an iterable of arrays, got {data!r}{hint}")
    return data


def _layout(model):
    """Return the layout of a model's images: that of its layers, which must agree."""
    layouts = {node.layer.layout for node in model.nodes if hasattr(node.layer, "layout")}
    if len(layouts) > 1:
        raise ValueError(f"layers must have one layout, got {sorted(layouts)}")
    return layouts.pop() if layouts else "NCHW"

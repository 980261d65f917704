"""Every name that qcy promises exists, has a docstring, and takes the arguments it promises."""

import ast
import inspect
import re
import types

import numpy as np
import pytest

import qcy
from qcy import nn, primitive

GEMM = "bias=None, out_dtype='uint8', rounding='nearest_even', out=None, n_threads=None"
WINDOW = "stride=1, padding=0, dilation=1"
CONV = (
    "x, w, *, x_scale, w_scale, out_scale, x_zero_point=0, w_zero_point=0, out_zero_point=0, "
    f"{WINDOW}, groups=1, layout='NCHW', {GEMM}"
)

#: What must be callable, and how. ``...`` is any default; a lone letter any name.
SIGNATURES = {
    "Tensor": "data, dtype=None",
    "FloatTensor": "data",
    "QuantizationParams": "scale, zero_point, dtype='uint8', axis=None",
    "QuantizationParams.from_range": "low, high, dtype='uint8', scheme=..., axis=None",
    "quantize": "x, params=None, *, scheme=..., dtype='uint8', axis=None, out=None",
    "QuantizedTensor": "codes, params",
    "QuantizedTensor.requantize": "self, scale, zero_point",
    "QuantizedTensor.add": "self, o, out_params=None",
    "QuantizedTensor.mul": "self, o, out_params=None",
    "QuantizedTensor.scale_by": "self, s",
    "QuantizedTensor.matmul": "self, o, bias=None, out_params=None",
    "QuantizedTensor.conv2d": f"self, kernel, bias=None, {WINDOW}, groups=1, out_params=None",
    "primitive.gemm_nn_q8": (
        "a, b, *, a_scale, b_scale, out_scale, a_zero_point=0, b_zero_point=0, out_zero_point=0, "
        + GEMM
    ),
    "primitive.gemm_nn_q8_accum": (
        "a, b, *, a_zero_point=0, b_zero_point=0, bias=None, out=None, n_threads=None"
    ),
    "primitive.gemm_batched_q8": (
        "a, b, *, a_scale, b_scale, out_scale, a_zero_point=0, b_zero_point=0, out_zero_point=0, "
        + GEMM
    ),
    "primitive.copy_q8": "x, out, n=None, *, stride_in=1, stride_out=1",
    "primitive.conv2d_q8": CONV,
    "primitive.conv2d_q8_accum": (
        f"x, w, *, x_zero_point=0, w_zero_point=0, bias=None, {WINDOW}, groups=1, layout='NCHW', "
        "out=None, n_threads=None"
    ),
    "primitive.conv_transpose2d_q8": f"{CONV}, output_padding=0",
    "primitive.im2col_q8": "x, kernel_size, *, zero_point, stride, padding, dilation, layout",
    "primitive.col2im_q8": (
        "columns, shape, kernel_size, *, zero_point, stride, padding, dilation, layout"
    ),
    "primitive.quantize_q8": (
        "x, scale, zero_point=0, *, axis=None, dtype='uint8', out=None, n_threads=None"
    ),
    "primitive.dequantize_q8": "codes, scale, zero_point=0, *, axis=None, out=None, n_threads=None",
    "primitive.requantize_q8": (
        "acc, multiplier, *, zero_point=0, dtype='uint8', bias=None, rounding=..., out=None, "
        "n_threads=None"
    ),
    "primitive.lookup_q8": "codes, table, *, out=None",
    "primitive.pack_q8": "b, *, b_zero_point=0, bias=None, b_scale=None",
    "primitive.pack_conv_q8": "w, *, w_zero_point=0, bias=None, w_scale=None, groups=1",
    "nn.Model.predict": "self, x, batch_size=...",
    "nn.Model.summary": "self",
    "nn.Model.save": "self, path",
    "nn.QuantizedModel.save": "self, path",
    "nn.QuantizedModel.summary": "self",
    "nn.Calibrator": "model, *, observer=..., scheme=...",
    "nn.Calibrator.observe": "self, batch",
    "nn.Calibrator.merge": "self, other",
    "nn.Calibrator.params": "self",
    "nn.quantize_model": (
        "model, data, *, scheme=..., observer=..., skip=(), progress=True, weight_scheme=..."
    ),
    "nn.compare_quantized_model": "quantized, model, data, labels=None",
    "info": "",
    "threads": "n",
    "load": "path",
}
#: Taken with any number of inputs, and a context by name.
FORWARDS = (
    "nn.Layer.forward", "nn.QuantizedLayer.forward", "nn.QuantizedLayer.quantized_forward",
    "nn.AdaptiveLayer.forward", "nn.Model.forward", "nn.Model.trace", "nn.QuantizedModel.forward",
    "nn.QuantizedModel.trace",
)

MEMBERS = {
    "Tensor": (
        "shape size ndim dtype data clone reshape at set_at scale transpose sum min max min_max "
        "astype fill __getitem__ __add__ __sub__ __mul__ __matmul__ __eq__"
    ),
    "QuantizationParams": "qmin qmax from_range",
    "QuantizationScheme": "SYMMETRIC ASYMMETRIC PER_CHANNEL PER_TENSOR",
    "QuantizedTensor": (
        "codes params scale zero_point axis validate get_params dequantize requantize add mul "
        "scale_by matmul conv2d relu sigmoid tanh max_pool2d avg_pool2d reshape transpose "
        "__add__ __mul__ __matmul__"
    ),
    "primitive": (
        "copy_q8 gemm_nn_q8 gemm_nn_q8_accum gemm_batched_q8 conv2d_q8 conv2d_q8_accum "
        "conv_transpose2d_q8 im2col_q8 col2im_q8 quantize_q8 dequantize_q8 requantize_q8 lookup_q8 "
        "pack_q8 pack_conv_q8 PackedWeights"
    ),
    "nn": (
        "Layer QuantizedLayer Dense Conv2D ConvTranspose2D BatchNorm ReLU ReLU6 Sigmoid Tanh "
        "Softmax MaxPool2D AvgPool2D GlobalAvgPool2D Flatten Reshape Add Concat Dropout Identity "
        "DenseQuantized Conv2DQuantized ConvTranspose2DQuantized BatchNormQuantized ReLUQuantized "
        "ReLU6Quantized SigmoidQuantized TanhQuantized SoftmaxQuantized MaxPool2DQuantized "
        "AvgPool2DQuantized GlobalAvgPool2DQuantized FlattenQuantized ReshapeQuantized "
        "AddQuantized ConcatQuantized DropoutQuantized IdentityQuantized AdaptiveLayer Model "
        "Sequential QuantizedModel MinMaxObserver MovingAverageObserver PercentileObserver "
        "EntropyObserver MSEObserver Calibrator quantize_model compare_quantized_model Context "
        "Cancelled"
    ),
    "nn.compare.Report": "to_html to_dict _repr_html_ __str__",
}
NAMES = [f"{owner}.{name}" for owner, names in MEMBERS.items() for name in names.split()]
NAMES += [
    "Tensor", "FloatTensor", "QuantizationParams", "QuantizationScheme", "quantize",
    "QuantizedTensor", "primitive", "nn", "info", "threads", "load", "__version__",
]


def find(name):
    """Return what a dotted name under qcy means."""
    found = qcy
    for part in name.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_name_exists(name):
    find(name)


def test_params_have_their_fields():
    params = qcy.QuantizationParams(1.0)
    for name in ("scale", "zero_point", "dtype", "axis", "qmin", "qmax"):
        getattr(params, name)


def public():
    """Yield (name, object) of everything that users meet."""
    for module, prefix in ((qcy, ""), (primitive, "primitive."), (nn, "nn.")):
        for name in module.__all__:
            found = getattr(module, name)
            if name == "__version__":
                continue
            yield prefix + name, found
            if isinstance(found, type):
                for member, value in vars(found).items():
                    kinds = (types.FunctionType, property, classmethod, staticmethod)
                    if not member.startswith("_") and (
                        isinstance(value, kinds) or type(value).__name__.startswith("cython")
                        or inspect.ismethoddescriptor(value)
                        or inspect.isgetsetdescriptor(value)
                    ):
                        yield f"{prefix}{name}.{member}", value


@pytest.mark.parametrize(("name", "found"), [pytest.param(*p, id=p[0]) for p in public()])
def test_everything_public_has_a_docstring(name, found):
    text = inspect.getdoc(found)
    # Methods that fill in a base class's are told there.
    if text is None and "." in name:
        owner, member = name.rsplit(".", 1)
        text = next(
            (inspect.getdoc(base.__dict__[member]) for base in find(owner).__mro__[1:]
             if member in base.__dict__), None,
        )
        if text is None and inspect.isgetsetdescriptor(found):      # has no place for one
            attributes = inspect.getdoc(find(owner))
            listed = re.search(rf"^{member} : .*\n((    .*\n?)+)", attributes, re.M)
            text = listed and inspect.cleandoc(listed[1])
    assert text, f"{name} has no docstring"
    # Compiled functions begin with their signature.
    text = re.sub(r"^[\w.]+\([^\n]*\)( ->[^\n]*)?\n+", "", text)
    first = text.split("\n\n")[0]
    assert first.rstrip().endswith((".", ":", "?")), f"{name}: {first!r} is no sentence"


@pytest.mark.parametrize("module", [qcy, primitive, nn], ids=lambda m: m.__name__)
def test_all_is_sorted_whole_and_true(module):
    names = module.__all__
    assert len(set(names)) == len(names)
    for name in names:
        assert getattr(module, name) is not None
    assert set(names) <= set(dir(module)) | {"nn"}


def parameters(text):
    """Return the parameters of a signature that is written as text."""
    arguments = ast.parse(f"def f({text}): ...").body[0].args
    positional = [a.arg for a in arguments.args]
    defaults = dict(zip(positional[::-1], arguments.defaults[::-1], strict=False))
    keyword = [a.arg for a in arguments.kwonlyargs]
    defaults |= {n: d for n, d in zip(keyword, arguments.kw_defaults, strict=True) if d}
    return positional, keyword, {name: ast.literal_eval(d) for name, d in defaults.items()}


def test_tensor_takes_data_and_dtype():
    # A compiled class has no signature to look at.
    for tensor in (qcy.Tensor([1.0]), qcy.Tensor([1.0], None), qcy.Tensor(data=[1], dtype="int8")):
        assert tensor.shape == (1,)
    assert qcy.Tensor([1], "int8").dtype == np.int8


@pytest.mark.parametrize("name", SIGNATURES)
def test_signature(name):
    positional, keyword, defaults = parameters(SIGNATURES[name])
    found = inspect.signature(find(name)).parameters
    by_place = [p for p in found.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    assert len(by_place) >= len(positional)
    for wanted, given in zip(positional, by_place, strict=False):
        assert len(wanted) == 1 or wanted == given.name
    for extra in by_place[len(positional):]:
        assert extra.default is not extra.empty
    for wanted in keyword:
        assert found[wanted].kind == found[wanted].KEYWORD_ONLY, f"{wanted} is not keyword-only"
    for wanted, default in defaults.items():
        given = found[wanted].default
        assert given is not inspect.Parameter.empty, f"{wanted} has no default"
        same = default is ... or given == default or (
            isinstance(given, np.dtype) and given == np.dtype(default)
        )
        assert same, f"{wanted}={given!r}, not {default!r}"
    known = {*positional, *keyword}
    for other in found.values():
        if other.name not in known and other.kind == other.KEYWORD_ONLY:
            assert other.default is not other.empty, f"{other.name} must have a default"


@pytest.mark.parametrize("name", FORWARDS)
def test_forwards_take_inputs_and_a_context(name):
    found = inspect.signature(find(name)).parameters
    assert found["ctx"].default is None
    assert found["ctx"].kind == inspect.Parameter.KEYWORD_ONLY
    assert found["inputs"].kind == inspect.Parameter.VAR_POSITIONAL


@pytest.mark.parametrize("name", [n for n in primitive.__all__ if n != "PackedWeights"])
def test_docstrings_of_primitives_name_every_argument(name):
    function = getattr(primitive, name)
    text = inspect.getdoc(function)
    for argument in inspect.signature(function).parameters:
        assert argument in text, f"{name} does not tell of {argument}"


def test_default_scheme_is_asymmetric_per_tensor():
    default = inspect.signature(qcy.quantize).parameters["scheme"].default
    scheme = qcy.QuantizationScheme
    assert default == scheme.ASYMMETRIC | scheme.PER_TENSOR
    for function in (nn.quantize_model, nn.Calibrator):
        assert inspect.signature(function).parameters["scheme"].default == default


def test_info_tells_what_the_issue_asks():
    found = qcy.info()
    assert set(found) >= {"version", "variant", "variants", "threads", "openmp", "compiler"}
    assert found["variant"] in found["variants"]
    assert found["version"] == qcy.__version__


def test_nothing_else_is_there_by_accident():
    assert not hasattr(qcy, "nonsense")
    with pytest.raises(AttributeError, match="module 'qcy' has no attribute 'nonsense'"):
        qcy.nonsense  # noqa: B018

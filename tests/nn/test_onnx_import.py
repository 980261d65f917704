"""ONNX files in: the same numbers as onnxruntime, and nothing in a file trusted."""


import numpy as np
import onnxruntime
import pytest
from numpy.testing import assert_array_equal
from onnx import helper, numpy_helper
from onnx_models import drawn as normal
from onnx_models import written as model

from qcy import nn
from qcy.nn.onnx import load

def both(proto, *inputs):
    """Return what qcy's model and onnxruntime make of inputs."""
    loaded = load(proto)
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    given = dict(zip((i.name for i in session.get_inputs()), inputs, strict=True))
    results = loaded(*inputs)
    return loaded, results if isinstance(results, tuple) else (results,), session.run(None, given)


def check(proto, *inputs):
    """Check a model against onnxruntime, and return it."""
    loaded, results, expected = both(proto, *inputs)
    for y, wanted in zip(results, expected, strict=True):
        assert y.dtype == wanted.dtype
        assert y.shape == wanted.shape
        if y.dtype.kind == "f" and y.size:
            within = 1e-4 * np.abs(wanted) + 1e-5 * np.abs(wanted).max()
            assert (np.abs(y - wanted) <= within).all()
        else:
            assert_array_equal(y, wanted)
    return loaded


def kinds(loaded):
    """Return the kinds of layers: operators by their names."""
    return [getattr(node.layer, "op", type(node.layer).__name__) for node in loaded.nodes]


# ------------------------------------------------------------------------------- what is simplified


def test_weights_in_constant_nodes():
    w = helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(normal(3, 4), "w"))
    proto = model("g (float[N, 3] x) => (float[N, 4] y) { y = MatMul(x, w) }")
    proto.graph.node.insert(0, w)
    assert kinds(check(proto, normal(5, 3))) == ["Dense"]


def test_shapes_that_a_graph_computes_disappear():
    proto = model(
        """g (float[N, 2, 6] x) => (float[N, 3, M] y) {
            s = Shape(x)  n = Gather(s, zero)  m = Unsqueeze(n, axis)
            t = Concat <axis = 0> (m, rest)  y = Reshape(x, t)
        }""",
        zero=np.int64(0), axis=np.int64([0]), rest=np.int64([3, -1]),
    )
    assert kinds(check(proto, normal(4, 2, 6))) == ["Reshape"]


def test_pads_that_a_graph_computes_disappear():
    proto = model(
        """g (float[1, 1, 4, 5] x) => (float[1, 1, H, W] y) {
            s = Shape(x)  h = Slice(s, two, four)  odd = Mod(h, h2)
            z = Concat <axis = 0> (o, odd, o, odd)  y = Pad(x, z)
        }""",
        two=np.int64([2]), four=np.int64([4]), h2=np.int64([2, 2]), o=np.int64([0, 0]),
    )
    assert kinds(check(proto, normal(1, 1, 4, 5))) == ["Pad"]


def test_what_does_nothing_goes():
    proto = model(
        """g (float[N, 3] x) => (float[N, 3] y) {
            a = Identity(x)  b = Dropout(a)  c = Cast <to = 1> (b)  y = Relu(c)
        }"""
    )
    assert kinds(check(proto, normal(2, 3))) == ["ReLU"]


def test_constants_are_computed():
    proto = model(
        """g (float[N, 4] x) => (float[N, 2] y) {
            t = Transpose <perm = [1, 0]> (w)  u = Mul(t, two)  y = MatMul(x, u)
        }""", w=normal(2, 4), two=np.float32(2),
    )
    assert kinds(check(proto, normal(3, 4))) == ["Dense"]


def test_outputs_may_be_inputs_constants_and_the_same_twice():
    proto = model(
        """g (float[N, 2] x) => (float[N, 2] a, float[2] b, float[N, 2] c, float[N, 2] d) {
            a = Identity(x)  b = Identity(w)  c = Relu(x)  d = Identity(c)
        }""", w=normal(2),
    )
    loaded = check(proto, normal(3, 2))
    assert loaded.output_names == ("a", "b", "c", "d")


@pytest.mark.parametrize(
    ("text", "constants", "expected"),
    [
        ("m = ReduceMean <axes = [-1]> (x)  d = Sub(x, m)  q = Pow(d, two)  "
         "v = ReduceMean <axes = [-1]> (q)  e = Add(v, eps)  r = Sqrt(e)  n = Div(d, r)  "
         "g = Mul(n, gamma)  y = Add(g, beta)", ("two", "eps", "gamma", "beta"), ["LayerNorm"]),
        ("m = ReduceMean <axes = [-1]> (x)  d = Sub(x, m)  d2 = Sub(x, m)  q = Mul(d2, d2)  "
         "v = ReduceMean <axes = [-1]> (q)  e = Add(eps, v)  r = Sqrt(e)  i = Reciprocal(r)  "
         "n = Mul(d, i)  y = Mul(gamma, n)", ("eps", "gamma"), ["LayerNorm"]),
        ("a = Div(x, root)  b = Erf(a)  c = Add(b, one)  d = Mul(x, c)  y = Mul(d, half)",
         ("root", "one", "half"), ["GELU"]),
        ("h = Mul(x, half)  a = Div(x, root)  b = Erf(a)  c = Add(b, one)  y = Mul(h, c)",
         ("root", "one", "half"), ["GELU"]),
        ("p = Pow(x, three)  q = Mul(p, k)  s = Add(x, q)  t = Mul(s, k2)  u = Tanh(t)  "
         "v = Add(u, one)  w = Mul(x, v)  y = Mul(w, half)", ("three", "k", "k2", "one", "half"),
         ["Gelu"]),
        ("a = Add(x, three)  c = Clip(a, zero, six)  d = Div(c, six)  y = Mul(x, d)",
         ("three", "zero", "six"), ["HardSwish"]),
        ("a = Add(x, three)  c = Clip(a, zero, six)  d = Mul(x, c)  y = Div(d, six)",
         ("three", "zero", "six"), ["HardSwish"]),
        ("a = HardSigmoid <alpha = 0.16666667, beta = 0.5> (x)  y = Mul(x, a)", (), ["HardSwish"]),
        ("a = Sigmoid(x)  y = Mul(a, x)", (), ["Swish"]),
        ("a = Softplus(x)  b = Tanh(a)  y = Mul(x, b)", (), ["Mish"]),
    ],
)
def test_functions_in_pieces_are_put_together(text, constants, expected):
    numbers = {
        "two": 2, "eps": 1e-5, "root": 2**0.5, "one": 1, "half": 0.5, "three": 3, "k": 0.044715,
        "k2": (2 / np.pi) ** 0.5, "zero": 0, "six": 6,
    }
    given = {name: np.float32(numbers[name]) if name in numbers else normal(6)
             for name in constants}
    proto = model(f"g (float[N, 5, 6] x) => (float[N, 5, 6] y) {{ {text} }}", **given)
    assert kinds(check(proto, 3 * normal(2, 5, 6))) == expected


def test_pieces_that_others_need_stay():
    proto = model(
        """g (float[N, 6] x) => (float[N, 6] y, float[N, 6] b) {
            a = Div(x, root)  b = Erf(a)  c = Add(b, one)  d = Mul(x, c)  y = Mul(d, half)
        }""", root=np.float32(2**0.5), one=np.float32(1), half=np.float32(0.5),
    )
    assert "Erf" in kinds(check(proto, normal(2, 6)))


def test_squeeze_and_excite():
    proto = model(
        """g (float[N, 8, H, W] x) => (float[N, 8, H, W] y) {
            m = GlobalAveragePool(x)  a = Conv(m, w)  b = Relu(a)  c = Conv(b, v)
            s = HardSigmoid(c)  y = Mul(x, s)
        }""", w=normal(2, 8, 1, 1), v=normal(8, 2, 1, 1),
    )
    loaded = check(proto, normal(2, 8, 5, 6))
    assert kinds(loaded) == ["GlobalAvgPool2D", "Conv2D", "ReLU", "Conv2D", "HardSigmoid", "Mul"]


def test_attention():
    proto = model(
        """g (float[N, 2, 7, 4] q, float[N, 2, 9, 4] k, float[N, 2, 9, 5] v)
        => (float[N, 2, 7, 5] y) {
            t = Transpose <perm = [0, 1, 3, 2]> (k)  s = MatMul(q, t)  u = Mul(s, scale)
            p = Softmax(u)  y = MatMul(p, v)
        }""", scale=np.float32(0.5),
    )
    loaded = check(proto, normal(3, 2, 7, 4), normal(3, 2, 9, 4), normal(3, 2, 9, 5))
    assert kinds(loaded) == ["Attention"]


def test_sequences_stay_images_between_convolutions():
    proto = model(
        """g (float[N, 3, L] x) => (float[N, 4, M] y) {
            a = Conv <pads = [1, 2], dilations = [2]> (x, w)  b = Relu(a)
            y = Conv <strides = [2], group = 2> (b, v)
        }""", w=normal(6, 3, 3), v=normal(4, 3, 2),
    )
    assert kinds(check(proto, normal(2, 3, 11))) == [
        "Unsqueeze", "Conv2D", "ReLU", "Conv2D", "Squeeze"
    ]


# ------------------------------------------------------------------------------------- older files


@pytest.mark.parametrize("opset", [7, 8, 9, 10, 11, 12, 13, 17, 21, 23])
def test_operator_sets(opset):
    axes = "<axes = [1]> (x)" if opset < 13 else "(x, one)"
    tail = "<axes = [1]> (r)" if opset < 13 else "(r, one)"
    proto = model(
        f"""g (float[N, 1, 4] x) => (float[N, 1, 4] y) {{
            s = Squeeze {axes}  w = Softmax(s)  r = Relu(w)  y = Unsqueeze {tail}
        }}""", opset, **({} if opset < 13 else {"one": np.int64([1])}),
    )
    check(proto, normal(3, 1, 4))


def test_attributes_that_became_inputs():
    check(model(
        """g (float[N, 4] x) => (float[N, 2] y, float[N, 4] c, float[N, 6] p) {
            y = Slice <axes = [1], starts = [1], ends = [3]> (x)
            c = Clip <min = -0.5, max = 0.5> (x)  p = Pad <pads = [0, 1, 0, 1], value = 2.0> (x)
        }""", 9), normal(3, 4))
    check(model(
        """g (float[2, 1, 3, 4] x) => (float[2, 1, 6, 8] y) {
            y = Upsample <mode = "nearest"> (x, scales)
        }""", 9, scales=np.float32([1, 1, 2, 2])), normal(2, 1, 3, 4))


def test_images_and_sequences_of_any_size():
    proto = model(
        """g (float[N, 3, H, W] x) => (float[N, 2, H2, W2] y) {
            a = Conv <pads = [1, 1, 1, 1]> (x, w)  b = Relu(a)
            y = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (b)
        }""", w=normal(2, 3, 3, 3),
    )
    for shape in ((1, 3, 6, 7), (2, 3, 11, 4)):
        check(proto, normal(*shape))


def test_padding_that_depends_on_the_size():
    proto = model(
        """g (float[N, 1, H, W] x) => (float[N, 2, H2, W2] y) {
            y = Conv <auto_pad = "SAME_UPPER", strides = [2, 2]> (x, w)
        }""", w=normal(2, 1, 3, 3),
    )
    for size in (6, 7):
        assert kinds(check(proto, normal(1, 1, size, size))) == ["Conv"]
    fixed = model(
        """g (float[N, 1, 6, 7] x) => (float[N, 2, 3, 4] y) {
            y = Conv <auto_pad = "SAME_LOWER", strides = [2, 2]> (x, w)
        }""", w=normal(2, 1, 3, 3),
    )
    assert kinds(check(fixed, normal(1, 1, 6, 7))) == ["Conv2D"]


def test_integers_and_booleans():
    proto = model(
        """g (int64[N] i, bool[N] b) => (float[N, 4] y, int64[N] j, bool[N] c) {
            y = Gather(w, i)  j = Add(i, one)  c = Not(b)
        }""", w=normal(5, 4), one=np.int64(1),
    )
    loaded = check(proto, np.array([0, 4, 2]), np.array([True, False, True]))
    assert [str(kind) for kind in loaded.input_types.values()] == ["int64[N]", "bool[N]"]


def test_recurrent_layers_in_8_bits():
    proto = model(
        """g (float[T, N, 3] x, float[1, N, 4] h, float[1, N, 4] c)
        => (float[T, 1, N, 4] y, float[1, N, 4] d) {
            y, e, d = LSTM <hidden_size = 4> (x, w, r, b, , h, c)
        }""", w=normal(1, 16, 3), r=normal(1, 16, 4), b=normal(1, 32),
    )
    x = normal(6, 2, 3), normal(1, 2, 4), normal(1, 2, 4)
    loaded = check(proto, *x)
    dynamic = nn.quantize_model(loaded, mode="dynamic")
    assert kinds(dynamic) == ["LSTM"]
    assert isinstance(dynamic.nodes[0].layer, nn.RecurrentDynamic)
    for a, b in zip(loaded(*x), dynamic(*x), strict=True):
        assert np.abs(a - b).max() < 0.03
    saved = nn.storage.from_bytes(dynamic.to_bytes())
    for a, b in zip(dynamic(*x), saved(*x), strict=True):
        assert_array_equal(a, b)

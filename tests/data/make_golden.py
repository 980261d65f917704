"""Write a pair of golden files: a saved 8-bit model, and the codes it must always give.

Together the models have every kind of 8-bit layer. Files are made once and then kept: a later qcy
that gives other codes for them has broken the files of its users. With new kinds of layers, and
with a new format or arithmetic number (storage.FORMAT, storage.ARITHMETIC), comes a new pair beside
the old; `MAKERS` says what is in each:

    python tests/data/make_golden.py golden_v2
"""

import sys
from pathlib import Path

import numpy as np

import qcy
from qcy import nn

FOLDER = Path(__file__).parent
SEED = 20260101


def random(rng, *shape):
    return (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def make_model(rng):
    """Return a float model from which every kind of 8-bit layer comes."""
    norm = nn.BatchNorm(
        rng.uniform(0.5, 1.5, 8), rng.normal(size=8), rng.normal(size=8), rng.uniform(0.5, 2, 8)
    )
    return nn.Model([
        ("conv", nn.Conv2D(random(rng, 8, 3, 3, 3), random(rng, 8), padding=(1, 1, 0, 2)), "image"),
        ("bn_folded", norm, "conv"),
        ("relu_fused", nn.ReLU(), "bn_folded"),
        ("depthwise", nn.Conv2D(random(rng, 8, 1, 3, 3), groups=8, padding=1), "relu_fused"),
        ("grouped", nn.Conv2D(
            random(rng, 8, 2, 2, 2), random(rng, 8), groups=4, dilation=2, padding=1,
        ), "depthwise"),
        ("residual", nn.Add(), ("grouped", "relu_fused")),
        ("relu6_fused", nn.ReLU6(), "residual"),
        ("bn", norm, "relu6_fused"),
        ("max", nn.MaxPool2D(3, 2, 1), "bn"),
        ("relu", nn.ReLU(), "max"),
        ("up", nn.ConvTranspose2D(
            random(rng, 8, 2, 3, 3), random(rng, 4), stride=2, padding=1, output_padding=1,
            groups=2,
        ), "relu"),
        ("relu6", nn.ReLU6(), "max"),
        ("avg", nn.AvgPool2D(3, 1, 1, count_include_pad=True), "relu6"),
        ("mean", nn.AvgPool2D(2, 2, (1, 0, 0, 1)), "up"),
        ("both", nn.Concat(), ("avg", "mean")),
        ("sigmoid", nn.Sigmoid(), "both"),
        ("global", nn.GlobalAvgPool2D(), "sigmoid"),
        ("shape", nn.Reshape((2, -1)), "global"),
        ("flat", nn.Flatten(), "shape"),
        ("dense", nn.Dense(random(rng, 12, 6), random(rng, 6), activation="relu6"), "flat"),
        ("wide", nn.Dense(random(rng, 150, 70), random(rng, 70)), "vector"),
        ("other", nn.Dense(random(rng, 70, 6)), "wide"),
        ("sum", nn.Add(), ("dense", "other")),
        ("tanh", nn.Tanh(), "sum"),
        ("softmax", nn.Softmax(), "sum"),
        ("same", nn.Identity(), "up"),
        ("drop", nn.Dropout(), "tanh"),
    ], outputs=("softmax", "same", "drop", "both"), inputs=("image", "vector"))


def make_quantized(rng):
    """Return an 8-bit model, and a batch for it."""
    model = make_model(rng)
    data = [
        (rng.normal(size=(4, 3, 9, 8)).astype(np.float32),
         rng.normal(size=(4, 150)).astype(np.float32))
        for _ in range(8)
    ]
    quantized = nn.quantize_model(model, data, progress=False)
    # Weights with zero points, in some layers: no scheme gives both kinds.
    asymmetric = nn.quantize_model(
        model, data, progress=False, weight_scheme=qcy.QuantizationScheme.ASYMMETRIC
    )
    nodes = [
        (asymmetric if node.name in ("depthwise", "up", "wide") else quantized).node(node.name)
        for node in quantized.nodes
    ]
    quantized = nn.QuantizedModel(
        nodes, quantized.outputs, quantized.inputs, params=quantized.params,
        layout=quantized.layout, manifest=quantized.manifest,
    )
    return quantized, [2 * part[:2] for part in data[0]]     # twice as far: some codes saturate


def make_block(rng):
    """Return an 8-bit block of a transformer, and a batch for it."""
    def dense(n_in, n_out):
        return nn.Dense(rng.normal(size=(n_in, n_out)) / n_in**0.5, 0.1 * rng.normal(size=n_out))

    def norm(n, **options):
        return nn.LayerNorm(rng.uniform(0.5, 1.5, n), 0.3 * rng.normal(size=n), **options)

    model = nn.Model([
        ("embed", nn.Embedding(rng.normal(size=(19, 24))), "tokens"),
        ("sum", nn.Add(), ("vectors", "embed")),
        ("norm", norm(24), "sum"),
        ("q", dense(24, 24), "norm"),
        ("k", dense(24, 24), "norm"),
        ("v", dense(24, 36), "norm"),
        ("attend", nn.Attention(3), ("q", "k", "v")),
        ("sharp", nn.Attention(2, score_scale=2.0), ("q", "k", "v")),
        ("mix", dense(36, 24), "attend"),
        ("mix_sharp", dense(36, 24), "sharp"),
        ("residual", nn.Add(), ("sum", "mix")),
        ("norm2", norm(24, epsilon=0.1), "residual"),
        ("wide", dense(24, 50), "norm2"),
        ("gelu", nn.GELU(), "wide"),
        ("narrow", dense(50, 24), "gelu"),
        ("gelu2", nn.GELU(), "sum"),
    ], outputs=("narrow", "mix_sharp", "gelu2"), inputs=("vectors", "tokens"))
    data = [
        (rng.normal(size=(4, 9, 24)).astype(np.float32),
         rng.integers(0, 19, (4, 9)).astype(np.float32))
        for _ in range(8)
    ]
    quantized = nn.quantize_model(model, data, progress=False, dtype="int8")
    vectors, tokens = data[0]
    return quantized, [2 * vectors[:2], tokens[:2]]      # twice as far: some codes saturate


def make_gate(rng):
    """Return an 8-bit model of a gate and a shift, and a batch for it."""
    def dense(n_in, n_out):
        return nn.Dense(rng.normal(size=(n_in, n_out)) / n_in**0.5, 0.1 * rng.normal(size=n_out))

    model = nn.Model([
        ("wide", dense(9, 12), "input"),
        ("gate", dense(9, 12), "input"),
        ("product", nn.Mul(activation="relu6"), ("wide", "gate")),
        ("one_gate", dense(9, 1), "input"),
        ("again", nn.Mul(), ("product", "one_gate")),
        ("slope", nn.PReLU(rng.uniform(-0.5, 1.5, 12)), "again"),
        ("most", nn.Maximum(), ("slope", "wide")),
        ("shift", nn.Constant(rng.normal(size=12).astype(np.float32)), ()),
        ("difference", nn.Sub(), ("most", "shift")),
        ("part", nn.Operator("Slice", constants={1: [2], 2: [11], 3: [1], 4: [2]}), "difference"),
        ("halves", nn.Operator("Mul", constants={1: np.float32(0.5)}), "part"),
        ("pad", nn.Operator(
            "Pad", constants={1: [0, 1, 0, 2], 2: np.float32(0.25)}, absent=[3]
        ), "halves"),
        ("rows", nn.Operator("Reshape", constants={1: [0, 2, 4]}), "pad"),
        ("columns", nn.Operator("Transpose", {"perm": (0, 2, 1)}), "rows"),
        ("scores", nn.MatMul(), ("rows", "columns")),
        ("mean", nn.Mean([1]), "scores"),
        ("narrow", dense(2, 4), "mean"),
    ])
    data = rng.normal(size=(64, 9)).astype(np.float32)
    quantized = nn.quantize_model(
        model, data, progress=False, overrides={"scores": nn.LayerConfig("static")}
    )
    return quantized, [2 * data[:3]]


MAKERS = {"golden_v1": make_quantized, "golden_v2": make_block, "golden_v3": make_gate}


def codes_of(model, *inputs):
    """Return the codes of every layer by name, channels first."""
    return {
        f"codes_{node.name}": qcy.quantize(reals, model.params[node.name]).codes.data
        for node, (_, reals) in zip(model.nodes, model.trace(*inputs), strict=True)
    }


def main(stem):
    """Write ``stem.qcy`` and ``stem.npz``, unless they are there."""
    if Path(f"{stem}.qcy").exists():
        sys.exit(f"{stem}.qcy is kept as it is; name a new pair")
    model, inputs = MAKERS[Path(stem).name](np.random.default_rng(SEED))
    Path(f"{stem}.qcy").write_bytes(model.to_bytes())
    given = dict(zip(model.inputs, inputs, strict=True))
    np.savez_compressed(f"{stem}.npz", **given, **codes_of(model, *inputs))
    print(model.summary())


if __name__ == "__main__":
    main(FOLDER / sys.argv[1])

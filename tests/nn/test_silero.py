"""Silero VAD, a detector of speech that many use: convolutions of sequences, and an LSTM.

Its ONNX file comes with the package silero-vad, which is not imported: that would need PyTorch.

    pip install --no-deps 'silero-vad>=6,<7'
"""

import importlib.util
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import qcy
from qcy import nn

SPEC = importlib.util.find_spec("silero_vad")
if SPEC is None:
    pytest.skip(
        "silero-vad is not installed: pip install --no-deps 'silero-vad>=6,<7'",
        allow_module_level=True,
    )
PATH = Path(SPEC.origin).parent / "data" / "silero_vad_16k_sequence.onnx"


def frames(n=200, seed=0):
    """Return frames of a voice-like sound in noise, as the model takes them: 64 samples overlap."""
    time = np.arange(n * 512) / 16000
    voice = sum(np.sin(2 * np.pi * 180 * k * time) / k for k in range(1, 12))
    sound = 0.2 * voice * (np.sin(2 * np.pi * 0.7 * time) > 0) * (1 + np.sin(2 * np.pi * 4 * time))
    sound += 0.01 * np.random.default_rng(seed).normal(size=time.size)
    padded = np.pad(sound, (64, 0)).astype(np.float32)
    return np.stack([padded[i * 512 : i * 512 + 576] for i in range(n)])


def inputs():
    return frames(), np.zeros((1, 1, 128), np.float32), np.zeros((1, 1, 128), np.float32)


@pytest.fixture(scope="module")
def expected():
    session = onnxruntime.InferenceSession(PATH, providers=["CPUExecutionProvider"])
    return session.run(None, dict(zip(("input", "h", "c"), inputs(), strict=True)))


def test_in_float_it_equals_onnxruntime(expected):
    model = qcy.load(PATH)
    assert model.output_names == ("speech_probs", "hn", "cn")
    for y, wanted in zip(model(*inputs()), expected, strict=True):
        assert y.shape == wanted.shape
        assert (np.abs(y - wanted) <= 1e-4 * np.abs(wanted) + 1e-5 * np.abs(wanted).max()).all()


def test_with_8_bit_weights_its_probabilities_stay(expected):
    # This sound keeps the model in doubt, where probabilities move most: onnxruntime's dynamic
    # quantization is off by 0.6 on it. Where it is sure, qcy is off by less than a hundredth.
    quantized = nn.quantize_model(qcy.load(PATH), mode="dynamic")
    probabilities, *_ = quantized(*inputs())
    assert np.ptp(expected[0]) > 0.5            # there is something to tell apart
    error = np.abs(probabilities - expected[0])
    assert error.max() < 3e-2
    assert np.median(error) < 2e-3
    assert len(quantized.to_bytes()) < 0.7 * PATH.stat().st_size

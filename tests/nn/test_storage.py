"""Models in files: nothing is lost, damage is told, old files give the codes they always gave."""

import copy
import json
import os
import random
import re
import struct
import zlib
from pathlib import Path

import models
import numpy as np
import pytest
from numpy.testing import assert_array_equal

import qcy
from qcy import QuantizationParams, nn
from qcy.nn import storage

DATA = Path(__file__).parent.parent / "data"
FIXED = struct.Struct("<8sHHI")     # magic, format number, arithmetic number, length of the header


def small():
    """Return a small 8-bit model with several kinds of layers and settings."""
    rng = np.random.default_rng(0)
    model = nn.Sequential(
        nn.Conv2D(rng.normal(size=(2, 1, 2, 2)), rng.normal(size=2), padding=(1, 0, 0, 1)),
        nn.MaxPool2D(2), nn.Sigmoid(), nn.Flatten(), nn.Dense(rng.normal(size=(8, 2))),
        nn.Softmax(),
    )
    return nn.quantize_model(model, rng.normal(size=(4, 1, 4, 4)), progress=False)


def split(data):
    """Return the header of a file as a dict, and the bytes of its arrays."""
    length = FIXED.unpack_from(data)[3]
    header = json.loads(zlib.decompress(data[FIXED.size : FIXED.size + length]))
    return header, data[FIXED.size + length : -4]


def joined(header, arrays, format_number=storage.FORMAT, arithmetic=storage.ARITHMETIC):
    """Return a file with a valid checksum, whatever the header says."""
    packed = zlib.compress(json.dumps(header).encode())
    body = FIXED.pack(storage.MAGIC, format_number, arithmetic, len(packed)) + packed + arrays
    return body + struct.pack("<I", zlib.crc32(body))


# ------------------------------------------------------------------------------------ round trips


@pytest.mark.parametrize("name", models.ZOO)
@pytest.mark.parametrize("kind", ["float", "quantized", "partly float"])
def test_round_trip(name, kind, tmp_path):
    model, quantized = models.quantized(name)
    if kind == "partly float":
        quantized = models.quantized(name, skip=[node.name for node in model.nodes[::2]])[1]
    run = model if kind == "float" else quantized
    path = tmp_path / "model.qcy"
    run.save(path)
    assert os.listdir(tmp_path) == ["model.qcy"]
    again = qcy.load(path)
    assert type(again) is (nn.Model if kind == "float" else nn.QuantizedModel)
    assert (again.inputs, again.outputs) == (run.inputs, run.outputs)
    assert again.summary() == run.summary()
    assert path.read_bytes() == run.to_bytes() == again.to_bytes()
    for a, b in zip(again.nodes, run.nodes, strict=True):
        assert (a.name, a.inputs, a.covers) == (b.name, b.inputs, b.covers)
        assert type(a.layer) is type(b.layer)
        assert a.layer.settings() == b.layer.settings()
        assert a.layer.arrays().keys() == b.layer.arrays().keys()
        for key, array in b.layer.arrays().items():
            assert_array_equal(a.layer.arrays()[key], array, strict=True)
            assert a.layer.arrays()[key].flags.aligned
    if kind != "float":
        assert again.params == run.params
        assert (again.layout, again.manifest) == (run.layout, run.manifest)
    x = models.as_tuple(models.batches(models.build(name)[1], 1)[0])
    for a, b in zip(models.as_tuple(again(*x)), models.as_tuple(run(*x)), strict=True):
        assert_array_equal(a, b)


def test_paths_of_all_kinds(tmp_path):
    model = small()
    for path in (tmp_path / "a.qcy", str(tmp_path / "b.qcy")):
        model.save(path)
        assert qcy.load(path).summary() == model.summary()
        assert qcy.load(str(path)).summary() == model.summary()


def test_file_says_what_it_is():
    data = small().to_bytes()
    magic, format_number, arithmetic, _ = FIXED.unpack_from(data)
    assert magic == b"\x89QCY\r\n\x1a\n"
    assert (format_number, arithmetic) == (storage.FORMAT, storage.ARITHMETIC)
    header = split(data)[0]
    assert header["versions"]["qcy"] == qcy.__version__
    assert len(header["manifest"]["data_sha256"]) == 64
    assert b"pickle" not in data
    assert not re.search(rb"/(tmp|home|root|work)/", zlib.decompress(data[FIXED.size : -4]))


def test_arrays_are_little_endian_and_as_large_as_they_must_be():
    model = nn.Sequential(nn.Dense(np.full((2, 3), 1.5), [0, 1, 2]))
    arrays = split(model.to_bytes())[1]
    assert arrays == np.full(6, 1.5, "<f4").tobytes() + np.arange(3, dtype="<f4").tobytes()


def test_layers_that_files_do_not_know_are_refused_when_saving(tmp_path):
    class ReLU(nn.ReLU):
        pass

    with pytest.raises(TypeError, match="layer 'relu_1' is of a kind that files do not know"):
        nn.Sequential(ReLU()).save(tmp_path / "model.qcy")
    assert os.listdir(tmp_path) == []


# ----------------------------------------------------------------------------------- atomic writes


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_write_leaves_no_trace(tmp_path, monkeypatch, step, error):
    path = tmp_path / "model.qcy"
    path.write_bytes(b"precious")

    def fail(*_):
        raise error("now")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(error, match="now"):
        small().save(path)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["model.qcy"]
    assert path.read_bytes() == b"precious"


def test_saving_replaces_a_file_and_respects_the_umask(tmp_path):
    path = tmp_path / "model.qcy"
    path.write_bytes(b"old")
    previous = os.umask(0o027)
    try:
        small().save(path)
    finally:
        os.umask(previous)
    assert path.stat().st_mode & 0o777 == 0o640
    qcy.load(path)


def test_errors_of_the_file_system_are_os_errors(tmp_path):
    model = small()
    with pytest.raises(FileNotFoundError):
        qcy.load(tmp_path / "missing.qcy")
    with pytest.raises(OSError, match="directory"):
        qcy.load(tmp_path)
    with pytest.raises(FileNotFoundError):
        model.save(tmp_path / "missing" / "model.qcy")
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        model.save(tmp_path / "file" / "model.qcy")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        model.save(tmp_path / "folder")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may do all")
def test_permission_is_an_os_error(tmp_path):
    path = tmp_path / "model.qcy"
    small().save(path)
    path.chmod(0)
    with pytest.raises(PermissionError):
        qcy.load(path)
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError):
        small().save(tmp_path / "other.qcy")
    tmp_path.chmod(0o700)


# ------------------------------------------------------------------------------------------ damage


@pytest.mark.parametrize("kind", ["float", "quantized"])
def test_a_file_that_was_cut_is_refused(tmp_path, kind):
    data = (models.build("residual")[0] if kind == "float" else small()).to_bytes()
    path = tmp_path / "model.qcy"
    for length in [*range(0, len(data), 97), *range(20), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"model\.qcy is (not a qcy model|damaged|cut short)"):
            qcy.load(path)
    for longer in (data + b"\0", data + data):
        with pytest.raises(ValueError, match="checksum"):
            storage.from_bytes(longer)


@pytest.mark.parametrize("kind", ["float", "quantized"])
def test_flipped_bits_are_found(kind):
    data = (models.build("softmax")[0] if kind == "float" else small()).to_bytes()
    choose = random.Random(0)
    places = [(i, bit) for i in range(FIXED.size) for bit in range(8)]
    places += [(choose.randrange(len(data)), choose.randrange(8)) for _ in range(400)]
    for place, bit in places:
        damaged = bytearray(data)
        damaged[place] ^= 1 << bit
        with pytest.raises(ValueError, match=r"damaged|not a qcy model|newer|cut short"):
            storage.from_bytes(bytes(damaged))


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "weights.npz"
    np.savez(path, a=np.ones(3))
    with pytest.raises(ValueError, match=r"weights\.npz is not a qcy model"):
        qcy.load(path)
    with pytest.raises(ValueError, match="not a qcy model"):
        storage.from_bytes(b"")


@pytest.mark.parametrize("which", ["format", "arithmetic"])
def test_newer_numbers_are_refused_by_name(which):
    header, arrays = split(small().to_bytes())
    numbers = {"format": (storage.FORMAT + 1, storage.ARITHMETIC),
               "arithmetic": (storage.FORMAT, storage.ARITHMETIC + 1)}[which]
    with pytest.raises(ValueError, match=f"{which} number 2, .* knows up to 1: a newer qcy"):
        storage.from_bytes(joined(header, arrays, *numbers))
    assert storage.from_bytes(joined(header, arrays)).summary() == small().summary()


def places_in(value, path=()):
    """Yield the path of every part of a header."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in items:
        yield (*path, key)
        if isinstance(part, (dict, list)):
            yield from places_in(part, (*path, key))


@pytest.mark.parametrize("kind", ["float", "quantized"])
def test_a_nonsense_header_is_a_value_error(kind):
    # The checksum is right: as of a file that another program wrote.
    data = (models.build("residual")[0] if kind == "float" else small()).to_bytes()
    header, arrays = split(data)
    refused = 0
    for path in places_in(header):
        if path[0] in ("manifest", "versions"):     # told, never used
            continue
        for wrong in (KeyError, None, "", "x", -1, 10**30, 1.5, [], {}, [None], {"x": 1}):
            changed = copy.deepcopy(header)
            owner = changed
            for key in path[:-1]:
                owner = owner[key]
            if wrong is KeyError:
                del owner[path[-1]]
            else:
                owner[path[-1]] = wrong
            try:
                storage.from_bytes(joined(changed, arrays))
            except ValueError:
                refused += 1
    assert refused > 500
    for wrong in (None, [], 3, "x"):
        with pytest.raises(ValueError, match="damaged"):
            storage.from_bytes(joined(wrong, arrays))
    for wrong in (arrays[:-1], arrays + b"\0", b""):
        with pytest.raises(ValueError, match="is damaged"):
            storage.from_bytes(joined(header, wrong))


@pytest.mark.parametrize("layer", ["AdaptiveLayer", "Graph", "LSTM", "__all__", "np"])
def test_unknown_layers_are_named(layer):
    header, arrays = split(small().to_bytes())
    header["nodes"][0]["layer"] = layer
    with pytest.raises(ValueError, match=f"unknown layer.*{layer}"):
        storage.from_bytes(joined(header, arrays))


# ------------------------------------------------------------------------------------------ golden


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_golden_file_gives_the_codes_it_always_gave(version, kernels):
    model = qcy.load(DATA / f"golden_{version}.qcy")
    with np.load(DATA / f"golden_{version}.npz") as file:
        golden = dict(file)
    inputs = [golden[name] for name in model.inputs]
    codes = {
        node.name: qcy.quantize(reals, model.params[node.name]).codes.data
        for node, (_, reals) in zip(model.nodes, model.trace(*inputs), strict=True)
    }
    assert {f"codes_{name}" for name in codes} == {name for name in golden if "codes_" in name}
    for name, found in codes.items():       # in the order of the layers: the first is the culprit
        assert_array_equal(found, golden[f"codes_{name}"], err_msg=name, strict=True)
    for name, y in zip(model.outputs, model(*models.as_codes(model, inputs)), strict=True):
        assert_array_equal(y.codes.data, golden[f"codes_{name}"], strict=True)


def test_golden_files_have_every_kind_of_8_bit_layer():
    model, *others = (qcy.load(DATA / f"golden_{version}.qcy") for version in ("v1", "v2", "v3"))
    kinds = {type(node.layer).__name__ for m in (model, *others) for node in m.nodes}
    assert kinds == {name for name in nn.layers.__all__ if name.endswith("Quantized")}
    zeros = [node.layer.weight_zero_point for node in model.nodes
             if "weight_zero_point" in node.layer.ARRAYS]
    assert any(zero.any() for zero in zeros)
    assert not all(zero.any() for zero in zeros)
    assert sum(path.stat().st_size for path in DATA.glob("golden_v*")) < 65_000
    assert model.params["image"] != QuantizationParams(1)

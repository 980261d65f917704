"""Models in files: one file, no pickle inside, written whole or not at all.

Layout: the magic bytes, the format number, the arithmetic number, the length of the header (all
little-endian), the header (JSON, deflated), the arrays one after another, and a CRC-32 of all that
comes before it. The format number counts changes of this layout; the arithmetic number counts
changes of what codes a model computes. A file with a newer number is refused.
"""

import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np

from qcy import _version
from qcy.nn import layers
from qcy.nn.graph import Node, TensorType
from qcy.nn.model import Model
from qcy.nn.quantized_model import QuantizedModel
from qcy.tensor.quantization import QuantizationParams

MAGIC = b"\x89QCY\r\n\x1a\n"
FORMAT = 1
ARITHMETIC = 1
_FIXED = struct.Struct("<8sHHI")
_SUM = struct.Struct("<I")


def to_bytes(model):
    """Return a model as the bytes of a file."""
    arrays = []
    nodes = []
    for node in model.nodes:
        kind = type(node.layer)
        if getattr(layers, kind.__name__, None) is not kind:
            raise TypeError(f"layer {node.name!r} is of a kind that files do not know: {kind!r}")
        entry = {
            "name": node.name, "layer": kind.__name__, "inputs": node.inputs,
            "settings": {k: _plain(v) for k, v in node.layer.settings().items()},
            "arrays": {},
        }
        if node.covers != (node.name,):
            entry["covers"] = node.covers
        for name, array in node.layer.arrays().items():
            entry["arrays"][name] = [array.dtype.name, list(array.shape)]
            arrays.append(array.astype(array.dtype.newbyteorder("<"), order="C").tobytes())
        nodes.append(entry)
    header = {
        "kind": "quantized" if isinstance(model, QuantizedModel) else "float",
        "versions": {"qcy": _version.VERSION},
        "inputs": model.inputs, "outputs": model.outputs, "nodes": nodes,
    }
    if model.output_names != model.outputs:
        header["output_names"] = model.output_names
    if model.input_types:
        header["input_types"] = {
            name: [kind.dtype.name, kind.shape] for name, kind in model.input_types.items()
        }
    if isinstance(model, QuantizedModel):
        header |= {
            "params": {name: _plain(p) for name, p in model.params.items()},
            "layout": model.layout, "manifest": model.manifest,
        }
        if model.coded_outputs:
            header["coded_outputs"] = model.coded_outputs
    packed = zlib.compress(json.dumps(header, separators=(",", ":")).encode(), 9)
    body = _FIXED.pack(MAGIC, FORMAT, ARITHMETIC, len(packed)) + packed + b"".join(arrays)
    return body + _SUM.pack(zlib.crc32(body))


def save(model, path):
    """Write a model to `path`, whole or not at all."""
    write_whole(path, to_bytes(model))


def write_whole(path, data):
    """Write bytes to `path`: to a new file beside it first, which then takes its place."""
    path = Path(path)
    temporary = path.parent / f".{os.urandom(16).hex()}.qcy"
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def load(path):
    """Read a model that `save` wrote.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    Model or QuantizedModel

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is not a model, was damaged or cut short, or is of a newer format or arithmetic.
    """
    return from_bytes(Path(path).read_bytes(), os.fspath(path))


def from_bytes(data, name="the data"):
    """Return the model in the bytes of a file; see `load`."""
    if data[:8] != MAGIC:
        raise ValueError(f"{name} is not a qcy model: it does not start as one")
    if len(data) < _FIXED.size + _SUM.size:
        raise ValueError(f"{name} is cut short: {len(data)} bytes")
    _, format_number, arithmetic, length = _FIXED.unpack_from(data)
    for kind, number, known in (
        ("format", format_number, FORMAT), ("arithmetic", arithmetic, ARITHMETIC),
    ):
        if number > known:
            raise ValueError(
                f"{name} has {kind} number {number}, this qcy {_version.VERSION} knows up to "
                f"{known}: a newer qcy wrote it"
            )
    data = memoryview(data)         # so that no slice is a copy
    if _SUM.unpack_from(data, len(data) - _SUM.size)[0] != zlib.crc32(data[: -_SUM.size]):
        raise ValueError(f"{name} is damaged or cut short: its checksum does not match")
    try:
        header = json.loads(zlib.decompress(data[_FIXED.size : _FIXED.size + length]))
        return _from_header(header, data[_FIXED.size + length : -_SUM.size])
    except (
        ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError,
        zlib.error,
    ) as error:
        raise ValueError(f"{name} is damaged, or not of this qcy: {error!r}") from error


def _from_header(header, blob):
    offset = 0
    nodes = []
    for entry in header["nodes"]:
        kind = getattr(layers, entry["layer"], None)
        if entry["layer"] not in layers.__all__ or not issubclass(kind, layers.Layer):
            raise ValueError(f"unknown layer {entry['layer']!r}: a newer qcy may have written it")
        arrays = dict.fromkeys(kind.ARRAYS)
        for array, (dtype, shape) in entry["arrays"].items():
            stored = np.dtype(dtype).newbyteorder("<")
            n_bytes = stored.itemsize * int(np.prod(shape))
            part = np.frombuffer(blob[offset : offset + n_bytes], stored)
            # Copied, since they are not aligned here: sums of the BLAS would differ in a last bit.
            # But codes are read where they lie: layers pack them, or keep a copy.
            arrays[array] = (part if stored.itemsize == 1 else part.astype(dtype)).reshape(shape)
            offset += n_bytes
        settings = {k: _unplain(v) for k, v in entry["settings"].items()}
        nodes.append(Node(
            entry["name"], kind(**arrays, **settings), entry["inputs"], entry.get("covers", ())
        ))
    if offset != len(blob):
        raise ValueError(f"the arrays should take {offset} bytes, there are {len(blob)}")
    types = {
        "output_names": header.get("output_names"),
        "input_types": {
            name: TensorType(*kind) for name, kind in header.get("input_types", {}).items()
        },
    }
    if header["kind"] == "float":
        return Model(nodes, header["outputs"], header["inputs"], **types)
    return QuantizedModel(
        nodes, header["outputs"], header["inputs"],
        params={name: _unplain(p) for name, p in header["params"].items()},
        layout=header["layout"], manifest=header["manifest"],
        coded_outputs=header.get("coded_outputs", ()), **types,
    )


def _plain(value):
    """Return a setting as JSON has it."""
    if isinstance(value, QuantizationParams):
        return {
            "scale": float(value.scale), "zero_point": value.zero_point,
            "dtype": value.dtype.name, "narrow_range": value.narrow_range,
        }
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return value


def _unplain(value):
    """Return a setting from what JSON has."""
    if isinstance(value, dict):
        return QuantizationParams(**value)
    if isinstance(value, list):
        return tuple(_unplain(v) for v in value)
    return value

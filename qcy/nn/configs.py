"""What a user asks for by name: layers to leave alone, and settings of single layers."""

import re
from dataclasses import dataclass
from functools import partial

from qcy import _validate
from qcy.nn.fusion import folded, fuse
from qcy.nn.graph import Node
from qcy.nn.layers import Conv2D, Dense
from qcy.nn.layers.weight_only import weight_only
from qcy.tensor.quantization import QuantizationScheme, check_scheme

MODES = ("static", "dynamic", "weight_only")


@dataclass(frozen=True)
class LayerConfig:
    """How one layer is to be quantized, where that is not as all others are.

    Parameters
    ----------
    mode : {None, "static", "dynamic", "weight_only", "float"}
        None: as `quantize_model` decides. "static" goes to 8 bits wherever the layer can; "float"
        stays as it is, as in `skip`; the others are for layers with weight matrices.
    observer : callable, optional
        Of the layer's output.
    weight_scheme : QuantizationScheme, optional
        Of the layer's weights.
    """

    mode: str | None = None
    observer: object = None
    weight_scheme: QuantizationScheme | None = None

    def __post_init__(self):
        _validate.choice("mode", self.mode, (None, *MODES, "float"))
        if self.observer is not None and not callable(self.observer):
            raise TypeError(f"observer must be a class or a function, got {self.observer!r}")
        if self.weight_scheme is not None:
            check_scheme("weight_scheme", self.weight_scheme)

    def plain(self):
        """Return the settings as plain values, those that are not None."""
        found = {"mode": self.mode}
        if self.observer is not None:
            found["observer"] = name_of(self.observer)
        if self.weight_scheme is not None:
            found["weight_scheme"] = scheme_name(self.weight_scheme)
        return {name: value for name, value in found.items() if value is not None}


def name_of(observer):
    """Return an observer's name and settings, for the manifest."""
    inner, settings = observer, {}
    if isinstance(observer, partial):
        inner, settings = observer.func, observer.keywords
    name = getattr(inner, "__name__", repr(type(inner)))
    return f"{name}({', '.join(f'{k}={v!r}' for k, v in sorted(settings.items()))})"


def scheme_name(scheme):
    """Return a scheme as every Python version spells it."""
    return "|".join(part.name for part in QuantizationScheme if part in scheme)


_DEFAULT = LayerConfig()


class Configs:
    """Settings by layer, checked against a model.

    Attributes
    ----------
    skip : set of str
        Names of layers that `skip` says.
    in_float, forced : set of str
        Names of layers that stay in float, and are not fused with others; and of those that go to 8
        bits wherever they can.
    """

    def __init__(self, model, skip=(), overrides=None):
        # A layer is known by its own name, and by those of what it does the work of.
        names = {name: node.name for node in model.nodes for name in (*node.covers, node.name)}
        self.skip = {skip} if isinstance(skip, str) else set(skip)
        unknown = self.skip - set(names)
        if unknown:
            raise ValueError(f"skip must name layers of the model, got {sorted(unknown)}")
        self.skip = {names[name] for name in self.skip}
        self.overrides = dict(overrides or {})
        self._by_name = {}
        for pattern, config in self.overrides.items():
            self._match(pattern, config, names)
        modes = {name: config.mode for name, config in self._by_name.items()}
        self.in_float = self.skip | {n for n, mode in modes.items() if mode not in (None, "static")}
        self.forced = {n for n, mode in modes.items() if mode == "static"} - self.skip

    def _match(self, pattern, config, names):
        if not isinstance(config, LayerConfig):
            raise TypeError(f"overrides must hold LayerConfigs, got {config!r}")
        try:
            found = {names[name] for name in names if re.fullmatch(pattern, name)}
        except (re.error, TypeError) as error:
            raise ValueError(
                f"overrides must be by regular expression, got {pattern!r}: {error}"
            ) from error
        if not found:
            raise ValueError(f"overrides must match layers of the model, got {pattern!r}")
        self._by_name.update(dict.fromkeys(found, config))

    def of(self, node):
        """Return the settings of a node: of the last layer that it does the work of."""
        return next(
            (self._by_name[name] for name in reversed(node.covers) if name in self._by_name),
            _DEFAULT,
        )

    def observers(self, fused):
        """Return what observes a tensor where that was asked for."""
        return {
            name: self.of(node).observer for node in fused.nodes for name in node.outputs
            if self.of(node).observer is not None
        }

    def apart(self, node, layer, weight_scheme):
        """Return a layer that is not static as its own mode says."""
        mode = self.of(node).mode
        if mode in ("dynamic", "weight_only") and not self.skip.intersection(node.covers):
            return changed(node.name, layer, mode, self.of(node).weight_scheme or weight_scheme)
        return layer


def changed(name, layer, mode, weight_scheme):
    """Return a layer with int8 weights, for reals in and out; or the same, if it has none."""
    try:
        if mode == "dynamic" and hasattr(layer, "dynamic"):
            return layer.dynamic(weight_scheme)
        if mode == "weight_only" and type(layer) in (Dense, Conv2D):
            return weight_only(layer, weight_scheme)
    except ValueError as error:
        raise ValueError(f"layer {name!r}: {error}") from error
    return layer


def without_data(model, mode, configs, weight_scheme):
    """Return a fused float model whose layers have 8-bit weights, where that is worth it."""
    # A batch norm after a dense layer stays: only data would tell which axis it acts on.
    keep = configs.in_float | set(folded(model, fuse(model, keep=configs.in_float)).values())
    fused = fuse(model, keep=keep)
    nodes = []
    for node in fused.nodes:
        config = configs.of(node)
        layer = node.layer
        if config.mode != "float" and not configs.skip.intersection(node.covers):
            wanted = mode if config.mode in (None, "static") else config.mode
            layer = changed(node.name, layer, wanted, config.weight_scheme or weight_scheme)
        nodes.append(Node(node.name, layer, node.inputs, node.covers))
    return fused.like(nodes)

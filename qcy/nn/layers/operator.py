"""Operators of ONNX as layers, and constants: what no other layer is."""

import math

import numpy as np

from qcy import _validate, primitive
from qcy._step import Place
from qcy.nn.layers.activations import TableQuantized
from qcy.nn.context import split_context
from qcy.nn.layers.base import (
    Layer, QuantizedLayer, check_params, codes_in, frozen, to_codes,
)
from qcy.tensor.generic import Tensor
from qcy.tensor.quantized import QuantizedTensor
from qcy.tensor.tables import table


#: Functions of two inputs that are functions of one where the other is a number.
BINARY = ("Add", "Div", "Max", "Min", "Mul", "Pow", "Sub")


class Constant(Layer):
    """An array that no input changes.

    Parameters
    ----------
    value : array of numbers or bool
        Of any dtype, which stays.

    Examples
    --------
    >>> model = Model([("two", Constant(2.0), ()), ("twice", Operator("Mul"), ("input", "two"))])
    >>> model(np.float32([1.0, 3.0]))
    array([2., 6.], dtype=float32)
    """

    SETTINGS = ()
    ARRAYS = ("value",)
    N_INPUTS = 0

    def __init__(self, value):
        value = _plain_array(value)
        if value.dtype.kind not in "fiub":
            raise TypeError(f"value must hold numbers or bool, got {value.dtype}")
        self.value = frozen(value)

    def _check_count(self, inputs):
        if inputs:
            raise TypeError(f"Constant takes no input, got {len(inputs)}")

    def _forward(self):
        return self.value

    def quantized(self, in_params, out_params):
        """Return a `ConstantQuantized`."""
        check_params("out_params", out_params)
        return ConstantQuantized(to_codes(self.value, out_params), out_params)


class ConstantQuantized(QuantizedLayer):
    """8-bit `Constant`.

    Parameters
    ----------
    codes : array of the output's dtype
    out_params : QuantizationParams
    """

    SETTINGS = ("out_params",)
    ARRAYS = ("codes",)
    N_INPUTS = 0

    def __init__(self, codes, out_params):
        check_params("out_params", out_params)
        self.in_params, self.out_params = (), out_params
        self.codes = frozen(_validate.q8_array("codes", codes))
        if self.codes.dtype != out_params.dtype:
            raise TypeError(f"codes must be {out_params.dtype}, got {self.codes.dtype}")

    def forward_codes(self, out=None):
        """Return the codes."""
        return self.codes


class Operator(Layer):
    """A function of arrays under the name that ONNX gives it; see `qcy.nn.operators`.

    Parameters
    ----------
    op : str
        Name of the operator.
    attributes : mapping, or tuple of (name, value), optional
        As in ONNX; what is left out has ONNX's default.
    constants : mapping of int to array, optional
        Inputs of the operator that are always the same and small, by their place; it takes only
        the others.
    absent : sequence of int, default ()
        Places of inputs that are left out.
    n_outputs : int, default 1

    Raises
    ------
    ValueError
        If there is no such operator.

    Examples
    --------
    >>> Operator("Concat", {"axis": 0})([1.0], [2.0])
    array([1., 2.], dtype=float32)
    >>> Operator("Tile", constants={1: [2]})([1.0, 2.0])
    array([1., 2., 1., 2.], dtype=float32)
    """

    SETTINGS = ("op", "attributes", "constants", "absent", "n_outputs")
    N_INPUTS = None

    def __init__(self, op, attributes=(), *, constants=(), absent=(), n_outputs=1):
        from qcy.nn.operators import OPERATORS      # imported when they are first needed

        if op not in OPERATORS:
            raise ValueError(f"op must be an operator that qcy knows, got {op!r}")
        self.op, self.definition = op, OPERATORS[op]
        pairs = attributes.items() if hasattr(attributes, "items") else attributes
        self.attributes = tuple(sorted((str(name), _plain(value)) for name, value in pairs))
        self.constants, self._fixed = _constants(constants)
        self.absent = tuple(sorted(_validate.integer("absent", i, 0) for i in absent))
        self.n_outputs = _validate.integer("n_outputs", n_outputs, 1)
        self.IS_POINTWISE, self.KEEPS_PARAMS = self._is_pointwise(), self._keeps_params()
        # Of every call:
        self._places = sorted((*self._fixed, *self.absent))
        self._options = dict(self.attributes)
        if self.definition.counts_outputs:
            self._options["n_outputs"] = self.n_outputs

    @property
    def numbers(self):
        """The constant inputs, by their place."""
        return dict(self._fixed)

    def _is_pointwise(self):
        """Whether each output element comes from those of the inputs in its place."""
        is_table = self.definition.kind == "table" or (
            self.op in BINARY and len(self._fixed) == 1
        )
        return is_table and all(x.size == 1 for x in self._fixed.values())

    def _keeps_params(self):
        """Whether the operator moves numbers, or gives some between them: codes do as well."""
        if self.op == "Resize":
            return self.attribute("mode", "nearest") in ("nearest", "linear") and (
                self.attribute("coordinate_transformation_mode") != "tf_crop_and_resize"
            )
        return self.definition.kind == "moves"

    def attribute(self, name, default=None):
        """Return an attribute's value, or a default if it is left out."""
        return dict(self.attributes).get(name, default)

    def forward(self, *inputs, ctx=None):
        """Compute the operator.

        Parameters
        ----------
        *inputs : Tensor or array
            Of the dtypes that the operator takes; Python numbers are float32 and int64.
        ctx : Context, optional

        Returns
        -------
        Tensor or ndarray, or a tuple of them
        """
        if ctx is not None:
            ctx.check()
        result = self._forward(*(_plain_array(x) for x in inputs))
        results = result if isinstance(result, tuple) else (result,)
        if inputs and isinstance(inputs[0], Tensor):
            results = tuple(Tensor(y) for y in results)
        return results if self.n_outputs > 1 else results[0]

    __call__ = forward

    def _forward(self, *inputs):
        results = self.compute(*inputs)
        return results if self.n_outputs > 1 else results[0]

    def compute(self, *arrays, dtype=None):
        """Return a tuple of what the operator makes of plain arrays.

        Constants of float32 are of `dtype`, if one is given.
        """
        given = list(arrays)
        for i in self._places:
            constant = self._fixed.get(i)
            is_real = constant is not None and constant.dtype == np.float32
            given.insert(i, constant.astype(dtype) if dtype and is_real else constant)
        results = self.definition.function(*given, **self._options)
        results = results if isinstance(results, tuple) else (results,)
        return tuple(np.asarray(y) for y in results[: self.n_outputs])

    def in_codes(self, params):
        """Return this padding for codes: what it fills up with is one, not a number."""
        if self.attribute("mode", "constant") != "constant":
            return self
        if 1 not in self._fixed or (2 not in self._fixed and 2 not in self.absent):
            raise TypeError("Pad needs constants for a form in 8 bits; keep it in float")
        value = np.float32(self._fixed.get(2, 0)).reshape(())
        changed = {**self._fixed, 2: to_codes(value, params)}
        absent = [i for i in self.absent if i != 2]
        return Operator(self.op, self.attributes, constants=changed, absent=absent)

    def quantized(self, in_params, out_params):
        """Return a `TableQuantized` of a function of one input, or an `OperatorQuantized`.

        Raises
        ------
        TypeError
            If the operator has no form in 8 bits.
        ValueError
            If a table's function is not a number everywhere.
        """
        several = isinstance(in_params, (tuple, list))
        in_params = in_params[0] if several else in_params
        if self.KEEPS_PARAMS:
            return OperatorQuantized(in_params, out_params or in_params, **self.settings())
        if not self.IS_POINTWISE:
            return super().quantized(in_params, out_params)
        for name, params in (("in_params", in_params), ("out_params", out_params)):
            check_params(name, params)
        return TableQuantized(table(self._at, in_params, out_params), in_params, out_params)

    def _at(self, real):
        """Return the function's value at one number."""
        with np.errstate(all="ignore"):
            value = float(self.compute(np.array(real), dtype=np.float64)[0].reshape(()))
        if math.isnan(value):
            raise ValueError(f"{self.op} is not a number at {real:g}, a code of its input")
        return value

    def __repr__(self):
        told = [
            repr(self.op), *(f"{name}={value!r}" for name, value in self.attributes),
            *(f"input {i}={array.tolist()}" for i, array in self._fixed.items()),
        ]
        return f"Operator({', '.join(told)})"


class OperatorQuantized(QuantizedLayer):
    """An `Operator` that moves numbers: it moves codes, equation (14).

    Parameters
    ----------
    in_params, out_params : QuantizationParams
        The same; further inputs are numbers.
    op, attributes, constants, absent, n_outputs
        As for `Operator`. What the operator fills up with is a number too.
    """

    SETTINGS = ("in_params", "out_params", *Operator.SETTINGS)
    KEEPS_PARAMS = True
    N_INPUTS = None

    def __init__(self, in_params, out_params, op, attributes=(), **settings):
        super().__init__(in_params, out_params)
        if self.in_params[0] != out_params:
            raise ValueError(
                f"out_params must be the input's, {self.in_params[0]}, got {out_params}"
            )
        plain = Operator(op, attributes, **settings)
        if not plain.KEEPS_PARAMS:
            raise ValueError(f"op must be one that moves numbers, got {op!r}")
        self.__dict__.update(plain.settings())
        self._moving = plain.in_codes(out_params) if op == "Pad" else plain

    def quantized_forward(self, *inputs, ctx=None):
        """Compute the layer on codes; inputs after the first are arrays of numbers."""
        inputs, ctx = split_context(inputs, ctx)
        if ctx is not None:
            ctx.check()
        first, *numbers = inputs
        if any(isinstance(x, QuantizedTensor) for x in numbers):
            raise TypeError(f"{self.op} takes 1 input(s) of codes, got {len(inputs)}")
        if not isinstance(first, QuantizedTensor):
            raise TypeError(f"quantized_forward takes QuantizedTensors, got {type(first).__name__}")
        results = self.forward_codes(
            codes_in(first, self.in_params[0]), *(np.asarray(x) for x in numbers)
        )
        results = results if isinstance(results, tuple) else (results,)
        results = tuple(QuantizedTensor(codes, self.out_params) for codes in results)
        return results if self.n_outputs > 1 else results[0]

    def _check_count(self, inputs):
        if not inputs:
            raise TypeError(f"{self.op} takes at least 1 input, got 0")

    def forward_codes(self, *inputs, out=None):
        """Compute the layer on a plain array of codes, and numbers."""
        if type(inputs[0]) is Place:
            return self._record(*inputs)
        results = tuple(
            np.ascontiguousarray(y).reshape(y.shape) for y in self._moving.compute(*inputs)
        )
        return results if self.n_outputs > 1 else results[0]


    def _record(self, codes):
        """Return the places of what the operator makes of a place."""
        if self.op == "Resize" and self._moving.attribute("mode", "nearest") != "nearest":
            raise TypeError("Resize makes numbers between those of its input")
        # The operator moves the places of codes as it would move codes; -1 is what fills up.
        index = np.arange(codes.size, dtype=np.int64).reshape(codes.shape)
        fill = 0
        moving = self._moving
        if 2 in moving._fixed and self.op == "Pad":
            fill = int(moving._fixed[2])
            moving = moving.replace(constants={**moving._fixed, 2: np.int64(-1)})
        places = []
        for y in moving.compute(index):
            first = int(y.flat[0]) if y.size else 0
            if y.size == codes.size and first == 0 and (np.diff(y.reshape(-1)) == 1).all():
                places.append(codes.reshape(y.shape))
            elif np.may_share_memory(y, index) and sum(n > 1 for n in y.shape) <= 4:   # a view
                steps = [n // index.itemsize for n in y.strides]
                places.append(primitive.strided_q8(codes, y.shape, steps, first))
            else:
                places.append(primitive.gather_q8(codes, y, fill=fill))
        return tuple(places) if self.n_outputs > 1 else places[0]


def _constants(given):
    """Return constant inputs as plain values, and as read-only arrays by their place."""
    if hasattr(given, "items"):
        arrays = {_validate.integer("constants", i, 0): x for i, x in given.items()}
    else:
        arrays = {i: np.array(x, dtype).reshape(shape) for i, dtype, shape, x in given}
    fixed = {i: Constant(array).value for i, array in sorted(arrays.items())}
    plain = tuple((i, x.dtype.name, x.shape, tuple(x.ravel().tolist())) for i, x in fixed.items())
    return plain, fixed


def _plain(value):
    """Return an attribute's value as numbers, text and tuples."""
    if isinstance(value, np.ndarray):
        return tuple(value.tolist()) if value.ndim else value.item()
    if isinstance(value, (tuple, list)):
        return tuple(_plain(item) for item in value)
    return value


def _plain_array(x):
    """Return an input as an array; Python's numbers are float32."""
    array = np.asarray(x)
    is_plain = array.dtype == np.float64 and not hasattr(x, "dtype")
    return array.astype(np.float32) if is_plain else array

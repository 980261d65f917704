"""qcy as a backend of the onnx package: for its tests, and for tools that take any backend."""

import numpy as np
import onnx
from onnx.backend.base import Backend, BackendRep, namedtupledict

from qcy.nn.onnx.convert import load


class Prepared(BackendRep):
    """A model that is ready to run.

    Parameters
    ----------
    model : Model or QuantizedModel
        As `qcy.nn.onnx.load` returns it.
    """

    def __init__(self, model):
        self.model = model
        self._outputs = namedtupledict("Outputs", model.output_names)

    def run(self, inputs, **kwargs):
        """Run the model.

        Parameters
        ----------
        inputs : sequence of arrays, dict of str to array, or an array
            In the model's order, or by name.
        **kwargs
            Nothing that qcy knows of.

        Returns
        -------
        tuple of ndarray
            Of the types that ONNX says, by place or by the outputs' names.

        Raises
        ------
        TypeError, ValueError
            If inputs are missing, or are not what the model takes.
        """
        if isinstance(inputs, np.ndarray):
            inputs = [inputs]
        if isinstance(inputs, dict):
            for name in self.model.inputs:
                if name not in inputs:
                    raise ValueError(f"inputs must have {name!r}, got {sorted(inputs)}")
            inputs = [inputs[name] for name in self.model.inputs]
        results = self.model(*inputs)
        return self._outputs(*(results if isinstance(results, tuple) else (results,)))


class QcyBackend(Backend):
    """What the onnx package calls to run models by qcy.

    Examples
    --------
    >>> import onnx
    >>> from qcy.nn.onnx.backend import QcyBackend
    >>> node = onnx.helper.make_node("Relu", ["x"], ["y"])
    >>> QcyBackend.run_node(node, [np.float32([-1, 2])])[0]
    array([0., 2.], dtype=float32)
    """

    @classmethod
    def supports_device(cls, device):
        """Whether qcy runs on a device: on ``"CPU"`` alone."""
        return device.partition(":")[0] == "CPU"

    @classmethod
    def is_compatible(cls, model, device="CPU", **kwargs):
        """Whether qcy can load a model."""
        try:
            cls.prepare(model, device)
        except ValueError:
            return False
        return True

    @classmethod
    def prepare(cls, model, device="CPU", **kwargs):
        """Return a model as one that is ready to run.

        Parameters
        ----------
        model : onnx.ModelProto
        device : str, default "CPU"
        **kwargs
            Nothing that qcy knows of.

        Raises
        ------
        ValueError
            If the device is another, or it is no model that qcy can run: see `qcy.nn.onnx.load`.
        """
        if not cls.supports_device(device):
            raise ValueError(f"device must be 'CPU', got {device!r}")
        return Prepared(load(model))

    @classmethod
    def run_node(cls, node, inputs, device="CPU", outputs_info=None, *, opset_version=None):
        """Run one operator.

        Parameters
        ----------
        node : onnx.NodeProto
        inputs : sequence of arrays
            Of those inputs of the node that are not left out.
        device : str, default "CPU"
        outputs_info : sequence of (dtype, shape), optional
            Not needed.
        opset_version : int, optional
            Default: the newest one of the onnx package.

        Returns
        -------
        tuple of ndarray
        """
        names = [name for name in node.input if name]
        given = [
            onnx.helper.make_tensor_value_info(
                name, onnx.helper.np_dtype_to_tensor_dtype(np.asarray(x).dtype), np.shape(x)
            )
            for name, x in zip(names, inputs, strict=True)
        ]
        made = [onnx.ValueInfoProto(name=name) for name in node.output if name]
        opset = opset_version or onnx.defs.onnx_opset_version()
        model = onnx.helper.make_model(
            onnx.helper.make_graph([node], node.op_type, given, made),
            opset_imports=[onnx.helper.make_opsetid("", opset)],
        )
        return cls.prepare(model, device).run(inputs)


prepare = QcyBackend.prepare
run_model = QcyBackend.run_model
run_node = QcyBackend.run_node
supports_device = QcyBackend.supports_device
is_compatible = QcyBackend.is_compatible

"""Is int8 faster here? How fast this machine's kernels, and whole models, are."""

import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import qcy
from qcy._info import peak
from qcy._table import table
from qcy._timing import medians
from qcy.bench_cases import CASES
from qcy.nn import QuantizedModel, TensorType, layers
from qcy.nn.profile import Profile

#: What pins the threads of NumPy's BLAS, if it is set before NumPy is imported.
BLAS_THREADS = (
    "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
    "OMP_NUM_THREADS",
)
ROUNDS, QUICK_ROUNDS = 15, 5
#: Seconds that one measurement lasts at least.
SHORTEST, QUICK_SHORTEST = 1e-3, 2e-4
#: Side of the images that a model is measured on if nobody says.
IMAGE = 224


def is_pinned(n_threads):
    """Whether NumPy's threads are those that are asked for."""
    return all(os.environ.get(name) == str(n_threads) for name in BLAS_THREADS)


def again(arguments, n_threads):
    """Run the command line again, in a process whose NumPy has so many threads; return its status.

    They are set before NumPy is imported, and here it is.
    """
    program = (
        f"import sys; sys.path.insert(0, {str(Path(qcy.__file__).parents[1])!r}); "
        "from qcy.cli import main; sys.exit(main())"
    )
    environment = os.environ | dict.fromkeys(BLAS_THREADS, str(n_threads))
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], env=environment, check=False
    ).returncode


# -------------------------------------------------------------------------------------- kernels


@dataclass(frozen=True)
class Row:
    """How fast one call is.

    Attributes
    ----------
    family, name : str
    us : float
        Median microseconds.
    gops : float
        Thousand million operations per second: two for each product that is summed, one for each
        element of an elementwise function.
    of_peak : float or None
        Share of the machine's peak; None for what sums no products. Products with padding count,
        and kernels may leave them out, so a convolution of small images can pass 1.
    numpy_us : float
        The same in float32 with NumPy: for a convolution, the product alone of windows that were
        gathered before; for quantize and dequantize, the same conversion.
    times_numpy : float
        How many times faster than that.
    """

    family: str
    name: str
    us: float
    gops: float
    of_peak: float | None
    numpy_us: float
    times_numpy: float


@dataclass(frozen=True)
class Bench:
    """What `measure` found; ``str()`` is a table.

    Attributes
    ----------
    n_threads : int
    peak_gops : float
        What sums that never leave the registers reached, measured in turn with the rows.
    rows : tuple of Row
    """

    n_threads: int
    peak_gops: float
    rows: tuple

    def to_dict(self):
        """Return the result as plain values, as JSON has them."""
        return {
            "info": about(), "n_threads": self.n_threads, "peak_gops": self.peak_gops,
            "rows": [asdict(row) for row in self.rows],
        }

    def __str__(self):
        many = "thread" if self.n_threads == 1 else "threads"
        rows = [("", "shape", "us", "GOPS", "of peak", "times NumPy float32")]
        for row in self.rows:
            share = "" if row.of_peak is None else f"{row.of_peak:.0%}"
            rows.append((
                row.family, row.name, f"{row.us:.1f}", f"{row.gops:.1f}", share,
                f"{row.times_numpy:.2f}",
            ))
        return (
            f"qcy {qcy.__version__}, kernels for {about()['variant']}, {self.n_threads} {many}; "
            f"NumPy {np.__version__}\n"
            f"Peak of 8-bit products, measured: {self.peak_gops:.0f} GOPS.\n\n{table(rows, 2)}"
        )


def about():
    """Return what is measured."""
    return qcy.info() | {"numpy": np.__version__}


def measure(n_threads=1, quick=False, cases=CASES):
    """Measure calls that are bound, beside the same in NumPy and the machine's peak, in turn.

    Parameters
    ----------
    n_threads : int, default 1
        NumPy's must have been pinned to as many.
    quick : bool, default False
        Fewer rounds, and without what takes long.
    cases : sequence of Case

    Returns
    -------
    Bench
    """
    limit, limit_ops = peak(n_threads)
    rounds, shortest = (QUICK_ROUNDS, QUICK_SHORTEST) if quick else (ROUNDS, SHORTEST)
    found = []
    for case in cases:
        if not (quick and case.is_long):
            call, numpy = case.make(n_threads)
            found.append((case, *medians((call, numpy, limit), rounds, shortest)))
    # The best of the medians: at that moment nothing else was in the way.
    peak_gops = 1e-9 * limit_ops / min(times[-1] for times in found)
    rows = []
    for case, ours, theirs, _ in found:
        gops = 1e-9 * case.ops / ours
        rows.append(Row(
            case.family, case.name, 1e6 * ours, gops,
            gops / peak_gops if case.is_product else None, 1e6 * theirs, theirs / ours,
        ))
    return Bench(n_threads, peak_gops, tuple(rows))


# --------------------------------------------------------------------------------------- models


def load(path):
    """Return the model in a file.

    Raises
    ------
    OSError, ValueError
        If there is none.
    """
    if Path(path).is_dir():
        raise IsADirectoryError(f"{path} is a folder, not a model")
    return qcy.load(path)


@dataclass(frozen=True)
class ModelBench:
    """What `measure_model` found; ``str()`` is a table.

    Attributes
    ----------
    bits : int
        8, or 32 for a float model.
    shapes : tuple of tuple of int
        Of the inputs.
    arena_bytes : int or None
        Of all results between layers, if it runs as a program.
    profile : Profile
    """

    bits: int
    shapes: tuple
    arena_bytes: int | None
    profile: Profile

    def to_dict(self):
        """Return the result as plain values, as JSON has them."""
        return {
            "info": about(), "bits": self.bits, "shapes": [list(shape) for shape in self.shapes],
            "arena_bytes": self.arena_bytes, "profile": self.profile.to_dict(),
        }

    def __str__(self):
        kind = "8-bit model" if self.bits == 8 else "float model"
        arena = "" if self.arena_bytes is None else f", results in {self.arena_bytes:,} bytes"
        return (
            f"qcy {qcy.__version__}, kernels for {about()['variant']}\n"
            f"{kind}, inputs of {said(self.shapes)}{arena}\n{self.profile}"
        )


def measure_model(model, shapes=(), n_threads=1, repeat=30):
    """Measure a model on random inputs.

    Parameters
    ----------
    model : Model or QuantizedModel
    shapes : sequence of tuple of int
        Of each input, with the batch. Default: what the model or its first layers tell, one sample,
        images of 224x224.
    n_threads : int, default 1
    repeat : int, default 30

    Returns
    -------
    ModelBench

    Raises
    ------
    ValueError
        If shapes do not fit, or none are given and the layers do not tell.
    """
    return measured(model, random_inputs(model, shapes), n_threads, repeat)


def random_inputs(model, shapes=(), guess=True):
    """Return inputs for a model: random numbers, and zeros where it takes indices or flags.

    Parameters
    ----------
    model : Model or QuantizedModel
    shapes : sequence of tuple of int
        Of each input, with the batch. Default: what the model or its first layers tell, one sample.
    guess : bool, default True
        Whether images are of 224x224 where neither tells.

    Returns
    -------
    tuple of ndarray

    Raises
    ------
    ValueError
        If shapes must be given.
    """
    shapes = tuple(shapes) or tuple(_shape_of(model, name, guess) for name in model.inputs)
    rng = np.random.default_rng(0)
    types = [model.input_types.get(name, TensorType("float32")) for name in model.inputs]
    types += [TensorType("float32")] * (len(shapes) - len(types))       # too many: a run says so
    return tuple(
        rng.standard_normal(shape, np.float32).astype(kind.dtype) if kind.dtype.kind == "f"
        else np.zeros(shape, kind.dtype)
        for shape, kind in zip(shapes, types, strict=False)
    )


def measured(model, inputs, n_threads, repeat):
    """Measure a model on some inputs."""
    shapes = tuple(x.shape for x in inputs)
    try:
        profile = model.profile(*inputs, n_threads=n_threads, repeat=repeat)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"the model does not take inputs of {said(shapes)}: {error}"
        ) from error
    arena = model.memory_plan(*shapes)["arena_bytes"] if profile.is_program else None
    bits = 8 if isinstance(model, QuantizedModel) else 32
    return ModelBench(bits, shapes, arena, profile)


def said(shapes):
    return " and ".join("x".join(map(str, shape)) for shape in shapes)


def _shape_of(model, name, guess):
    """Return the shape of one sample of an input: of its type, or of the first layer's."""
    kind = model.input_types.get(name)
    if kind is not None and kind.shape is not None:
        sizes = [size if isinstance(size, int) else None for size in kind.shape]
        if sizes and sizes[0] is None:
            sizes[0] = 1
        if None not in sizes:
            return tuple(sizes)
    for node in model.consumers(name):
        layer = node.layer
        if isinstance(layer, (layers.Dense, layers.DenseQuantized)):
            return (1, layer.weight.shape[0])
        if guess and isinstance(layer, (layers.Conv2D, layers.Conv2DQuantized)):
            channels = layer.weight.shape[1] * layer.groups
            layout = getattr(model, "layout", layer.layout)
            return (1, channels, IMAGE, IMAGE) if layout == "NCHW" else (1, IMAGE, IMAGE, channels)
    raise ValueError(f"the shape of input {name!r} must be given: no layer tells it")

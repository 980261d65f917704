"""The command line: ``qcy quantize``, ``compare``, ``run``, ``inspect``, ``bench`` and others."""

import argparse
import json
import os
import sys
from pathlib import Path

import qcy

#: If set, errors are shown as Python shows them: for whoever looks for a bug in qcy.
TRACEBACK = "QCY_TRACEBACK"
#: Errors whose message says it all.
TOLD = (ImportError, OSError, TypeError, ValueError)


def main(arguments=None):
    """Run the command line; return the exit status.

    Parameters
    ----------
    arguments : sequence of str, optional
        Default: those of the process.

    Returns
    -------
    int
        0; 1 if something is wrong with what is given, which one line on standard error tells; 130
        if it was interrupted. (Wrong usage ends the process with 2.)
    """
    parser = make_parser()
    options = parser.parse_args(arguments)
    check_usage(parser, options)
    try:
        status = run(options, sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
        return status or 0
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:     # nobody reads any more, as after `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get(TRACEBACK):
            raise
        text = " ".join(str(error).split())
        print(f"qcy: {text}" if isinstance(error, TOLD) and text else
              f"qcy: {type(error).__name__}: {text}", file=sys.stderr)
        return 1


def run(options, arguments):
    """Do what the options say; return the exit status, None for 0."""
    options.json = getattr(options, "json", False)
    if options.command == "info":
        return show_info(options.json)
    if options.command in (None, "demo"):
        from qcy import demo

        return demo.run(getattr(options, "output", Path()), options.json)
    from qcy import bench, commands

    wants_pinned = options.command in ("bench", "inspect")
    n_threads = getattr(options, "threads", None) or (1 if wants_pinned else None)
    options.threads = n_threads
    if n_threads is not None and options.command != "run" and not bench.is_pinned(n_threads):
        return bench.again(arguments, n_threads)
    if options.command == "bench":
        found = (
            commands.measure_model(options, n_threads) if options.what == "model"
            else bench.measure(n_threads, options.quick)
        )
        return commands.show(options, found.to_dict(), found)
    return {
        "quantize": commands.quantize, "compare": commands.compare, "run": commands.run,
        "inspect": commands.show_inspection,
    }[options.command](options)


def show_info(as_json):
    """Print `qcy.info`."""
    found = qcy.info()
    if as_json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        text = ", ".join(value) if isinstance(value, list) else value
        print(f"{name:10}{text}")


# -------------------------------------------------------------------------------------- options


def make_parser():
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="qcy", description="Neural networks in 8 bits on any CPU.",
        epilog="Without a command, runs the demo.",
    )
    parser.add_argument("--version", action="version", version=f"qcy {qcy.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command")
    demo = commands.add_parser(
        "demo", help="turn a real network into 8 bits and measure what that did",
        description="Quantize a convolutional network trained on Fashion-MNIST, run it in float "
        "and in 8 bits on 2,000 labelled test images, and report accuracy, agreement, latency, "
        "bytes and the error of every layer.",
    )
    for command in (parser, demo):
        command.add_argument(
            "--output", type=Path, default=argparse.SUPPRESS, metavar="DIR",
            help="folder for report.html (default: this folder)",
        )
    made = [
        parser, demo, add_quantize(commands), add_compare(commands), add_run(commands),
        add_inspect(commands), *add_bench(commands),
        commands.add_parser("info", help="show what qcy was built with and uses on this machine"),
    ]
    for command in made:
        command.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS,
            help="print one JSON object instead of text",
        )
    return parser


def add_data(command, **options):
    """Add the options that say what samples to use."""
    data = command.add_argument_group("samples")
    data.add_argument("--data", metavar="SOURCE", **{
        "help": "a .npz file of arrays by the names of inputs, a .npy file, a folder of images (or "
        "of one folder for each class), or script.py:function, which returns arrays or batches",
    } | options)
    data.add_argument(
        "--samples", type=positive, metavar="N", help="take so many samples, by chance",
    )
    data.add_argument(
        "--seed", type=natural, default=0, metavar="N", help="of that choice (default: 0)",
    )
    data.add_argument(
        "--batch", type=positive, default=32, metavar="N",
        help="samples at a time, if the model leaves it open (default: 32)",
    )
    data.add_argument(
        "--size", type=size, metavar="H,W", help="size of images, if the model leaves it open",
    )
    data.add_argument(
        "--mean", type=numbers, metavar="R,G,B", help="taken off images, which are from 0 to 1",
    )
    data.add_argument(
        "--std", type=numbers, metavar="R,G,B", help="what images are divided by then",
    )


def add_quantize(commands):
    """Add the command that makes 8-bit models."""
    command = commands.add_parser(
        "quantize", help="turn a float model in a file into an 8-bit one",
        description="Turn a float model, .onnx or .qcy, into an 8-bit one, and tell which layers "
        "went to 8 bits and why the others did not.",
    )
    command.add_argument("model", metavar="MODEL", help="a float model, .onnx or .qcy")
    command.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE",
        help="the 8-bit model; as ONNX if the name ends in .onnx",
    )
    add_data(command)
    command.add_argument(
        "--mode", choices=("static", "dynamic", "weight_only"), default="static",
        help="static: all in 8 bits, by ranges seen in the data; dynamic: dense layers, without "
        "data; weight_only: smaller, not faster (default: static)",
    )
    command.add_argument(
        "--skip", nargs="+", action="extend", default=[], metavar="NAME",
        help="layers to keep in float",
    )
    command.add_argument(
        "--observer", choices=("minmax", "moving-average", "percentile", "entropy", "mse"),
        default="minmax", help="how ranges are chosen (default: minmax)",
    )
    command.add_argument(
        "--weight-scheme", default="per-channel",
        choices=("per-channel", "per-tensor", "asymmetric-per-channel", "asymmetric-per-tensor"),
        help="of weights; symmetric if it does not say otherwise (default: per-channel)",
    )
    command.add_argument(
        "--dtype", choices=("uint8", "int8"), default="uint8",
        help="of activations (default: uint8)",
    )
    command.add_argument(
        "--format", choices=("qdq", "qoperator"), help="of an ONNX file (default: qdq)",
    )
    return command


def add_compare(commands):
    """Add the command that compares two models."""
    command = commands.add_parser(
        "compare", help="compare an 8-bit model with the float model it came from",
        description="Run both models on samples, and report accuracy, agreement, bytes, latency, "
        "and the error and the time of every layer.",
    )
    command.add_argument("float", metavar="FLOAT", help="the float model, .onnx or .qcy")
    command.add_argument("quantized", metavar="QUANTIZED", help="its 8-bit model")
    add_data(command, required=True)
    command.add_argument(
        "--labels", metavar="NAME|FILE",
        help="classes of the samples: an array in the .npz file of the data, or a .npy file "
        "(default: the array labels, label or y, or the folders of images)",
    )
    command.add_argument(
        "--output", type=Path, metavar="FILE", help="write the report as one HTML page, too",
    )
    command.add_argument(
        "--batch-sizes", type=shape, default=(1,), metavar="1,64",
        help="for which latency is measured (default: 1)",
    )
    command.add_argument(
        "--repeats", type=positive, default=10, metavar="N",
        help="runs that are measured (default: 10)",
    )
    add_threads(command, "as many as qcy and NumPy take")
    return command


def add_run(commands):
    """Add the command that runs a model."""
    command = commands.add_parser(
        "run", help="run a model on arrays in files",
        description="Run a model, float or 8-bit, on arrays in files.",
    )
    command.add_argument("model", metavar="MODEL", help=".onnx or .qcy")
    command.add_argument(
        "--input", action="append", required=True, metavar="[NAME=]FILE",
        help="a .npy file, once for each input, or one .npz file of arrays by the names of inputs",
    )
    command.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE",
        help="a .npy file, or a .npz file of arrays by the names of outputs",
    )
    add_threads(command, "as many as qcy takes")
    return command


def add_inspect(commands):
    """Add the command that looks into a model."""
    command = commands.add_parser(
        "inspect", help="show what a model is made of, and what 8 bits would do for it",
        description="Show a model's layers, shapes and bytes, which of them would go to 8 bits and "
        "why others would not, and predict whether that is faster on this machine: by an 8-bit "
        "model made of the samples, or of random numbers where there are none.",
    )
    command.add_argument("model", metavar="MODEL", help=".onnx or .qcy")
    add_shape(command, "what the model tells")
    add_data(command)
    add_threads(command, 1)
    return command


def add_bench(commands):
    """Add the command that measures kernels, and models."""
    command = commands.add_parser(
        "bench", help="measure the kernels on this machine, or a model",
        description="Is int8 faster here? Measure matrix products, convolutions and elementwise "
        "functions beside the same in NumPy's float32, and the share of the machine's peak that "
        "they reach.",
    )
    command.add_argument(
        "--quick", action="store_true", help="fewer rounds, and without what takes long",
    )
    model = command.add_subparsers(dest="what", metavar="model").add_parser(
        "model", help="measure a model in a file, layer by layer",
        description="Measure a model in a file, float or 8-bit: what a run takes, and each layer. "
        "With samples, a float model is measured beside the 8-bit model that they make of it; with "
        "--float, an 8-bit model beside its float one.",
    )
    model.add_argument("path", metavar="PATH", help=".onnx or .qcy")
    add_shape(model, "what the model or its first layer tells, and images of 224x224")
    model.add_argument("--float", metavar="FILE", help="the float model of an 8-bit one")
    add_data(model)
    for part in (command, model):
        add_threads(part, 1)
    return command, model


def add_shape(command, default):
    """Add the option that says the shapes of inputs."""
    command.add_argument(
        "--shape", type=shape, action="append", default=[], metavar="1,3,224,224",
        help=f"of the input, with the batch; once for each input (default: {default})",
    )


def add_threads(command, default):
    """Add the option that limits threads."""
    command.add_argument(
        "--threads", type=positive, default=argparse.SUPPRESS, metavar="N",
        help=f"threads of qcy, and of NumPy (default: {default})",
    )


def check_usage(parser, options):
    """End the process with 2 if options contradict each other."""
    if options.command != "quantize":
        return
    if options.mode == "static" and options.data is None:
        parser.error("quantize needs --data for --mode static")
    if options.mode != "static" and options.data is not None:
        parser.error(f"quantize needs no --data for --mode {options.mode}")
    if options.format and options.output.suffix != ".onnx":
        parser.error(f"--format is for an output that ends in .onnx, got {options.output}")


def shape(text):
    """Return the shape that an argument says."""
    sizes = tuple(int(size) for size in text.split(","))
    if min(sizes) < 1:
        raise ValueError("sizes are at least 1")
    return sizes


def size(text):
    """Return the height and the width that an argument says."""
    sizes = shape(text)
    if len(sizes) != 2:
        raise ValueError("a height and a width")
    return sizes


def numbers(text):
    """Return the numbers that an argument says."""
    return tuple(float(number) for number in text.split(","))


def positive(text):
    """Return the positive number that an argument says."""
    return _integer(text, 1)


def natural(text):
    """Return the number, 0 or more, that an argument says."""
    return _integer(text, 0)


def _integer(text, least):
    number = int(text)
    if number < least:
        raise ValueError(f"at least {least}")
    return number

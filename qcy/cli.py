"""The command line: ``qcy demo``, ``qcy bench`` and ``qcy info``."""

import argparse
import json
import sys
from pathlib import Path

import qcy


def main(arguments=None):
    """Run the command line; return the exit status.

    Parameters
    ----------
    arguments : sequence of str, optional
        Default: those of the process.
    """
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
    info = commands.add_parser(
        "info", help="show what qcy was built with and uses on this machine",
    )
    bench = commands.add_parser(
        "bench", help="measure the kernels on this machine, or a model",
        description="Is int8 faster here? Measure matrix products, convolutions and elementwise "
        "functions beside the same in NumPy's float32, and the share of the machine's peak that "
        "they reach.",
    )
    bench.add_argument(
        "--quick", action="store_true", help="fewer rounds, and without what takes long",
    )
    model = bench.add_subparsers(dest="what", metavar="model").add_parser(
        "model", help="measure a model in a file, layer by layer",
        description="Measure a model in a file, float or 8-bit, on random inputs: what a run "
        "takes, and each layer.",
    )
    model.add_argument("path", metavar="PATH", help="a file that model.save wrote")
    model.add_argument(
        "--shape", type=shape, action="append", default=[], metavar="1,3,224,224",
        help="of the input, with the batch; once for each input (default: what the first layer "
        "tells, and images of 224x224)",
    )
    for command in (bench, model):
        command.add_argument(
            "--threads", type=positive, default=argparse.SUPPRESS, metavar="N",
            help="threads of qcy, and of NumPy (default: 1)",
        )
    for command in (parser, demo):
        command.add_argument(
            "--output", type=Path, default=argparse.SUPPRESS, metavar="DIR",
            help="folder for report.html (default: this folder)",
        )
    for command in (parser, demo, bench, model, info):
        command.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS,
            help="print one JSON object instead of text",
        )
    options = parser.parse_args(arguments)
    as_json = getattr(options, "json", False)
    try:
        if options.command == "info":
            show_info(as_json)
        elif options.command == "bench":
            return run_bench(options, as_json, sys.argv[1:] if arguments is None else arguments)
        else:
            from qcy import demo as demo_command

            demo_command.run(getattr(options, "output", Path()), as_json)
    except OSError as error:
        print(f"qcy: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def show_info(as_json):
    """Print `qcy.info`."""
    found = qcy.info()
    if as_json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        text = ", ".join(value) if isinstance(value, list) else value
        print(f"{name:10}{text}")


def run_bench(options, as_json, arguments):
    """Measure what was asked for, print it, and return the exit status."""
    from qcy import bench

    n_threads = getattr(options, "threads", 1)
    try:
        model = bench.load(options.path) if options.what == "model" else None
        if not bench.is_pinned(n_threads):
            return bench.again(arguments, n_threads)
        found = (
            bench.measure(n_threads, options.quick) if model is None
            else bench.measure_model(model, options.shape, n_threads)
        )
        print(json.dumps(found.to_dict()) if as_json else found)
    except ValueError as error:
        print(f"qcy: {error}", file=sys.stderr)
        return 1
    return 0


def shape(text):
    """Return the shape that an argument says."""
    sizes = tuple(int(size) for size in text.split(","))
    if min(sizes) < 1:
        raise ValueError("sizes are at least 1")
    return sizes


def positive(text):
    """Return the positive number that an argument says."""
    number = int(text)
    if number < 1:
        raise ValueError("at least 1")
    return number

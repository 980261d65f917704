"""The command line: ``qcy demo`` and ``qcy info``."""

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
    for command in (parser, demo):
        command.add_argument(
            "--output", type=Path, default=argparse.SUPPRESS, metavar="DIR",
            help="folder for report.html (default: this folder)",
        )
    for command in (parser, demo, info):
        command.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS,
            help="print one JSON object instead of text",
        )
    options = parser.parse_args(arguments)
    as_json = getattr(options, "json", False)
    try:
        if options.command == "info":
            show_info(as_json)
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

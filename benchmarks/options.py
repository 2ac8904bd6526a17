"""The options that several benchmarks have, and the cases that they name."""

import argparse
from pathlib import Path

from cases import DTYPES, Case

PEERS = {"eager": ("eager",), "compile": ("compile",), "both": ("eager", "compile"), "none": ()}
"""PyTorch's modes, by what `--peer` names."""


def positive(text: str) -> int:
    """A number of things, of which there is one at least, from the command line."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def parser(doc: str | None) -> argparse.ArgumentParser:
    """With the options that every benchmark has; the first line of `doc` says what it is."""
    out = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    out.add_argument("--width", type=float, default=1.0, help="factor on the channels")
    out.add_argument("--batch", type=positive, default=8, help="images")
    out.add_argument("--size", type=positive, default=224, help="pixels a side, without margin")
    words = "measurements of each side, in turn"
    out.add_argument("--rounds", type=positive, default=5, help=words)
    out.add_argument("--json", type=Path, help="file for the results")
    return out


def whole_networks(doc: str | None) -> argparse.ArgumentParser:
    """With what a benchmark of whole networks has besides."""
    out = parser(doc)
    out.add_argument(
        "--task",
        choices=("classification", "segmentation"),
        default="",
        help="by default what the network is for",
    )
    out.add_argument("--dtype", choices=DTYPES, default="float32", help="tf32 on GPUs")
    out.add_argument("--peer", choices=PEERS, default="both", help="PyTorch's modes")
    return out


def case(network: str, arguments: argparse.Namespace) -> Case:
    """A network as the command line of `whole_networks` has it. Raises: UserError for what can't
    be."""
    names = ("width", "task", "batch", "size", "dtype")
    found = Case(network, **{name: getattr(arguments, name) for name in names})
    _ = found.model, found.segments
    return found

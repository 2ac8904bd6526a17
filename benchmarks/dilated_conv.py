"""Dilated convolutions, forward and both gradients, beside PyTorch's conv2d.

    python benchmarks/dilated_conv.py [--network NAME ...] [--dilation N ...] [--size PIXELS]
        [--batch N] [--width W] [--dtype NAME ...] [--convolution METHOD ...]
        [--peer conv2d|none] [--rounds N] [--seconds S] [--json FILE]

The distinct layers of networks at the sizes that their maps have, read from the stage tables (an
empty `--network` leaves them out), and 3x3 convolutions of 512 channels, times the width, of every
dilation at an eighth of the image. Ours once by every method of `convolution.dilated_conv`; methods
that choose the same program are measured once. PyTorch computes channels last, by cuDNN in
benchmark mode or by oneDNN. Both convolve the same numbers, and their results are compared.

A time is that of one layer; sides compute in turn, in processes of their own, and a ratio is that
of one round. The share is that of the first method in the measured ceiling, the faster library's
product of large matrices, counted as the definition has it.
"""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any, get_args

import measure
import options
from cases import DTYPES, Case, with_inputs
from rich.table import Table
from workers import Worker

from drn_jax.models.convolution import Method, choose
from drn_jax.models.stages import Conv, blocks, strided

DERIVATIVES = {"forward": "forward", "input": "by input", "kernel": "by kernel"}
CHANNELS = 512
"""Of the layers of `--dilation`."""


@dataclass(frozen=True)
class Layer:
    """A convolution of a map; in words with s2 for a stride of 2, d4 for a dilation of 4."""

    height: int
    width: int
    inputs: int
    outputs: int
    kernel: int
    stride: int
    dilation: int
    padding: int

    def __str__(self) -> str:
        steps = f" s{self.stride}" if self.stride > 1 else ""
        steps += f" d{self.dilation}" if self.dilation > 1 else ""
        cells = f"{self.height}x{self.width}"
        return f"{cells}, {self.inputs} to {self.outputs}, {self.kernel}x{self.kernel}{steps}"

    def flops(self, batch: int) -> int:
        """Of each pass."""
        sizes = (self.inputs, self.outputs, self.kernel, self.stride, self.dilation)
        conv = Conv("", *sizes, pad=self.padding)
        cells = strided(self.height, conv) * strided(self.width, conv)
        return 2 * batch * cells * self.kernel**2 * self.inputs * self.outputs


def layer(conv: Conv, height: int, width: int) -> Layer:
    sizes = (height, width, conv.inputs, conv.outputs)
    return Layer(*sizes, conv.kernel, conv.stride, conv.dilation, conv.padding)


def layers(case: Case) -> Iterator[Layer]:
    """Every convolution of a network, but a classifier's of one cell."""
    height = width = case.side
    for stage, inputs in with_inputs(case.model.table):
        if stage.kind == "max_pool":
            height, width = strided(height, stage), strided(width, stage)
        if stage.name == "head" and not case.segments:
            return
        for block in blocks(stage, inputs):
            if isinstance(block.shortcut, Conv):
                yield layer(block.shortcut, height, width)
            for conv in block.path:
                yield layer(conv, height, width)
                height, width = strided(height, conv), strided(width, conv)


def chosen(arguments: argparse.Namespace) -> dict[Layer, dict[str, int]]:
    """Distinct layers, and how often each network has them."""
    found: dict[Layer, dict[str, int]] = {}
    for name in arguments.network:
        for one in layers(Case(name, arguments.width, size=arguments.size)):
            counts = found.setdefault(one, {})
            counts[name] = counts.get(name, 0) + 1
    side, channels = max(1, arguments.size // 8), max(1, round(CHANNELS * arguments.width))
    for dilation in arguments.dilation:
        one = Layer(side, side, channels, channels, 3, 1, dilation, dilation)
        found.setdefault(one, {})
    return found


def measured(
    one: Layer,
    derivative: str,
    dtype: str,
    workers: dict[str, Worker],
    methods: dict[str, str],
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    """One layer's pass by every side. `methods`: the program of each method."""
    job = {"derivative": derivative, "dtype": dtype, "batch": arguments.batch, "shape": asdict(one)}
    # The first method of every program stands for the others.
    first = {program: method for method, program in reversed(methods.items())}
    sides = {method: workers[method] for method in methods if method in first.values()}
    facts = {
        method: worker.prepare("convolution", **job, method=method)
        for method, worker in sides.items()
    }
    if "peer" in workers:
        sides["peer"] = workers["peer"]
        facts["peer"] = workers["peer"].prepare("convolution", **job)
        for name in facts:
            what = f"{one}, {DERIVATIVES[derivative]}, {dtype}, {name}"
            measure.check_same(what, facts[name]["value"], facts["peer"]["value"], dtype)
    seconds = measure.in_turn(sides, arguments.rounds, arguments.seconds)
    for method, program in methods.items():
        seconds[method] = seconds[first[program]]
    return {
        "layer": asdict(one),
        "derivative": derivative,
        "dtype": dtype,
        "flops": one.flops(arguments.batch),
        "programs": methods,
        "seconds": {name: measure.spread(values) for name, values in seconds.items()},
        "times_as_fast": {
            method: measure.times_as_fast(seconds[method], seconds["peer"])
            for method in methods
            if "peer" in seconds
        },
    }


def totals(results: Sequence[dict[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """Of every network, dtype and pass: the seconds of all layers, each as often as it occurs."""
    found = []
    for name in names:
        own = [result for result in results if name in result["networks"]]
        for dtype in dict.fromkeys(result["dtype"] for result in own):
            for derivative in DERIVATIVES:
                rows = [r for r in own if (r["dtype"], r["derivative"]) == (dtype, derivative)]
                if rows:
                    found.append(_total(name, rows))
    return found


def _total(name: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    seconds = {}
    for side in rows[0]["seconds"]:
        rounds = zip(*(row["seconds"][side]["rounds"] for row in rows), strict=True)
        counts = [row["networks"][name] for row in rows]
        seconds[side] = [sum(c * s for c, s in zip(counts, r, strict=True)) for r in rounds]
    peer = seconds.get("peer")
    return {
        "network": name,
        "dtype": rows[0]["dtype"],
        "derivative": rows[0]["derivative"],
        "flops": sum(row["flops"] * row["networks"][name] for row in rows),
        "seconds": {side: measure.spread(values) for side, values in seconds.items()},
        "times_as_fast": {
            side: measure.times_as_fast(values, peer)
            for side, values in seconds.items()
            if peer and side != "peer"
        },
    }


def table(
    title: str, results: Sequence[dict[str, Any]], methods: Sequence[str], top: float
) -> Table:
    """`top`: FLOP/s of the ceiling."""
    what = "network" if "network" in results[0] else "layer"
    title = f"{title}: median (least-most)"
    out = Table(what, "pass", title=title, caption=measure.SHARE)
    with_peer = "peer" in results[0]["seconds"]
    for method in methods:
        out.add_column(f"{method}, ms", justify="right")
        if with_peer:
            out.add_column("times as fast as conv2d", justify="right")
    out.add_column("share", justify="right")
    for result in results:
        what = result["network"] if "network" in result else str(Layer(**result["layer"]))
        programs, cells, seen = result.get("programs", {}), [], set()
        for method in methods:
            program = programs.get(method, method)
            if program in seen:
                cells += ["the same"] + [""] * with_peer
                continue
            seen.add(program)
            milliseconds = measure.number(1e3 * result["seconds"][method]["median"])
            cells.append(milliseconds if program == method else f"{program} {milliseconds}")
            if with_peer:
                cells.append(measure.shown(result["times_as_fast"][method]))
        share = result["flops"] / result["seconds"][methods[0]]["median"] / top
        out.add_row(what, DERIVATIVES[result["derivative"]], *cells, f"{share:.0%}")
    return out


def parser() -> argparse.ArgumentParser:
    parser = options.parser(__doc__)
    parser.add_argument(
        "--network",
        nargs="*",
        default=["drn_c_26", "drn_d_105", "dilation8"],
        help="names of models.MODELS, or dilation8",
    )
    parser.add_argument("--dilation", nargs="*", type=int, default=[1, 2, 4, 8, 16])
    parser.add_argument(
        "--dtype", nargs="+", choices=DTYPES, default=list(DTYPES), help="tf32 on GPUs"
    )
    parser.add_argument(
        "--convolution",
        nargs="+",
        choices=get_args(Method),
        default=["auto", "native"],
        help="how ours convolves; several are compared",
    )
    parser.add_argument("--peer", choices=("conv2d", "none"), default="conv2d", help="PyTorch's")
    parser.add_argument("--seconds", type=float, default=0.2, help="of a turn; one call at least")
    return parser


def main() -> None:
    arguments = parser().parse_args()
    found = chosen(arguments)
    report = measure.Report(arguments)
    with_peer = report.has_peer(arguments.peer)
    ceilings = measure.ceilings(arguments.dtype, with_peer)
    report.found["ceilings"] = ceilings
    report.found["results"] = results = []
    with ExitStack() as stack:
        workers = {name: stack.enter_context(measure.ours()) for name in arguments.convolution}
        if with_peer:
            workers["peer"] = stack.enter_context(measure.peer())
        for dtype in ceilings["product"]:
            for one, networks in found.items():
                methods = {
                    method: program(one, method, dtype, ceilings["platform"], arguments.batch)
                    for method in arguments.convolution
                }
                for derivative in DERIVATIVES:
                    if derivative == "input" and one.inputs == 3:
                        continue  # Nobody needs the gradient by the image.
                    result = measured(one, derivative, dtype, workers, methods, arguments)
                    results.append({**result, "networks": networks})
    report.found["totals"] = totals(results, arguments.network)
    tables = [measure.ceiling_table(ceilings)]
    for dtype in ceilings["product"]:
        for title, rows in (("layers", results), ("all layers", report.found["totals"])):
            rows = [row for row in rows if row["dtype"] == dtype]
            if rows:
                top = measure.ceiling(ceilings, dtype)
                heading = f"{title} in {dtype}, batches of {arguments.batch}"
                tables.append(table(heading, rows, arguments.convolution, top))
    report.end(*tables)


def program(one: Layer, method: Method, dtype: str, backend: str, batch: int) -> str:
    """What a method takes for a layer."""
    return choose(
        method,
        backend,
        (batch, one.height, one.width, one.inputs),
        (one.kernel, one.kernel, one.inputs, one.outputs),
        "bfloat16" if dtype == "bfloat16" else "float32",
        stride=one.stride,
        dilation=one.dilation,
        padding=one.padding,
    )


if __name__ == "__main__":
    measure.run(main)

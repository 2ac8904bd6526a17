"""What train_step.py and inference.py share: networks of ours beside the same in PyTorch."""

import argparse
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import Any, Literal, get_args

import measure
import options
from cases import Case
from rich.table import Table
from workers import Worker

from drn_jax.errors import UserError
from drn_jax.models.convolution import Method
from drn_jax.training import peak

Kind = Literal["train", "inference"]


def parsed(doc: str | None) -> argparse.Namespace:
    """The command line of either program."""
    parser = options.whole_networks(doc)
    parser.add_argument(
        "--network", nargs="+", default=["drn_c_26"], help="names of models.MODELS, or dilation8"
    )
    parser.add_argument(
        "--convolution",
        nargs="+",
        choices=get_args(Method),
        default=["auto"],
        help="how ours convolves; several are compared",
    )
    parser.add_argument("--seconds", type=float, default=1.0, help="of a turn; one call at least")
    return parser.parse_args()


def compare(kind: Kind, arguments: argparse.Namespace) -> None:
    """Measure, print, and write if asked for."""
    cases = [options.case(name, arguments) for name in arguments.network]
    report = measure.Report(arguments)
    modes = options.PEERS[arguments.peer] if report.has_peer(arguments.peer) else ()
    ceilings = measure.ceilings([arguments.dtype], bool(modes))
    report.found["ceilings"] = ceilings
    top = measure.ceiling(ceilings, arguments.dtype)
    report.found["results"] = results = []
    for case in cases:
        results.append(one(kind, case, arguments, modes, top))
        ours = next(iter(results[-1]["sides"].values()))["images_per_second"]
        report.say(f"{case.network}: {measure.shown(ours)} images/s of ours")
    report.end(measure.ceiling_table(ceilings), table(kind, results, modes))


def one(
    kind: Kind, case: Case, arguments: argparse.Namespace, modes: tuple[str, ...], top: float
) -> dict[str, Any]:
    """Every side of one network; `top`: FLOP/s of the ceiling."""
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        sides: dict[str, dict[str, Any]] = {}
        for method in arguments.convolution:
            name = "ours" if len(arguments.convolution) == 1 else f"ours, {method}"
            workers[name] = stack.enter_context(measure.ours(kind == "train"))
            sides[name] = workers[name].prepare(kind, **asdict(replace(case, convolution=method)))
        for mode in modes:
            workers[mode] = stack.enter_context(measure.peer())
            told, compiled = case.for_peer(), mode == "compile"
            sides[mode] = workers[mode].prepare(kind, told=told, compiled=compiled)
        if len({side["parameters"] for side in sides.values()}) > 1:
            raise UserError(f"{case.network}: the sides differ in parameters")
        seconds = measure.in_turn(workers, arguments.rounds, arguments.seconds)
        peaks = {name: worker.peak_gb() for name, worker in workers.items()}
    flops = case.batch * peak.training_flops(case.costs)
    if kind == "inference":
        flops //= 3
    described = {key: value for key, value in asdict(case).items() if key != "convolution"}
    found: dict[str, Any] = {**described, "task": case.goal.name, "flops": flops, "sides": {}}
    for name, side in sides.items():
        taken = measure.spread(seconds[name])
        if name == "compile":
            side["compile_seconds"] = max(0.0, side["first_call_seconds"] - taken["median"])
        found["sides"][name] = {
            **side,
            "seconds": taken,
            "images_per_second": measure.spread(case.batch / s for s in seconds[name]),
            "share_of_ceiling": flops / taken["median"] / top,
            "peak_gb": peaks[name],
            "start_gb": workers[name].hello["start_gb"],
        }
    found["times_as_fast"] = {
        name: {mode: measure.times_as_fast(seconds[name], seconds[mode]) for mode in modes}
        for name in sides
        if name not in modes
    }
    return found


def table(kind: Kind, results: list[dict[str, Any]], modes: tuple[str, ...]) -> Table:
    first = results[0]
    what = "training steps" if kind == "train" else "inference"
    size = f"batches of {first['batch']}, {first['size']}x{first['size']}, {first['dtype']}"
    title = f"{what}, {size}, width {first['width']:g}: median (least-most)"
    out = Table("network", "side", title=title, caption=measure.SHARE)
    for head in ("images/s", *(f"times as fast as {mode}" for mode in modes), "share", "peak GB"):
        out.add_column(head, justify="right")
    for head in ("compile s", "first s"):
        out.add_column(head, justify="right")
    for found in results:
        words = iter((f"{found['network']}, {found['task']}",))
        for name, side in found["sides"].items():
            times = found["times_as_fast"].get(name, {})
            out.add_row(
                next(words, ""),
                name,
                measure.shown(side["images_per_second"]),
                *(measure.shown(times.get(mode)) for mode in modes),
                f"{side['share_of_ceiling']:.1%}",
                f"{side['peak_gb']:.2f}",
                _seconds(side),
                f"{side['first_call_seconds']:.1f}",
            )
        out.add_section()
    return out


def _seconds(side: Mapping[str, Any]) -> str:
    return f"{side['compile_seconds']:.1f}" if "compile_seconds" in side else ""

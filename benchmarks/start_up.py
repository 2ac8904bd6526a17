"""Start-up: seconds to import and to the first training step, beside PyTorch.

    python benchmarks/start_up.py [--network NAME] [--width W] [--batch N] [--size PIXELS]
        [--task segmentation] [--dtype NAME] [--peer eager|compile|both|none] [--rounds N]
        [--json FILE]

Every number is that of a fresh process, from its start: until a library is imported, or until
the first step of training has its loss, with the network's making, its random weights and its
compilation. "kept": with the programs that the run before has left in a folder
(`runtime.keep_compiled`; for torch.compile its own cache), "cold": with that folder empty. Sides
start in turn, round by round; a ratio is that of one round.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import measure
import options
from cases import Case
from rich.table import Table
from workers import Worker

from drn_jax.errors import UserError

TRAIN = Path(__file__).parents[1] / "train.py"

BESIDE = {
    "import drn_jax.models": ("import torch",),
    "ours, cold": ("eager", "compile, cold"),
    "ours, kept": ("eager", "compile, kept"),
}
"""What each of ours is compared with."""


def command(*arguments: str) -> float:
    """Seconds of a Python process. Raises: UserError if it fails."""
    start = time.perf_counter()
    ended = subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
    if ended.returncode:
        raise UserError(f"python {' '.join(arguments)} ended with status {ended.returncode}")
    return time.perf_counter() - start


def our_step(case: Case, folder: str) -> float:
    """Seconds to the first step; compiled programs are kept in the folder."""
    start = time.perf_counter()
    with Worker("ours.py", folder, environment=measure.OURS_ENVIRONMENT) as worker:
        worker.prepare("train", **asdict(case))
        return time.perf_counter() - start


def their_step(case: Case, compiled: bool, folder: str) -> float:
    """Likewise of PyTorch."""
    told = case.for_peer()
    start = time.perf_counter()
    with Worker("peers.py", environment={"TORCHINDUCTOR_CACHE_DIR": folder}) as worker:
        worker.prepare("train", told=told, compiled=compiled)
        return time.perf_counter() - start


def one_round(case: Case, modes: tuple[str, ...]) -> dict[str, float]:
    """Seconds of everything, each once; a peer's after ours."""
    with tempfile.TemporaryDirectory(prefix="drn_jax_start_") as root:
        ours, theirs = (os.path.join(root, name) for name in ("ours", "theirs"))
        turns: dict[str, Callable[[], float]] = {
            "import drn_jax.models": partial(command, "-c", "import drn_jax.models"),
            "train.py --help": partial(command, str(TRAIN), "--help"),
            "ours, cold": partial(our_step, case, ours),
            "ours, kept": partial(our_step, case, ours),
        }
        if modes:
            turns["import torch"] = partial(command, "-c", "import torch")
        if "eager" in modes:
            turns["eager"] = partial(their_step, case, False, theirs)
        if "compile" in modes:
            turns["compile, cold"] = partial(their_step, case, True, theirs)
            turns["compile, kept"] = partial(their_step, case, True, theirs)
        return {name: turn() for name, turn in turns.items()}


def table(results: dict[str, Any], title: str) -> Table:
    out = Table("from the start of a process", title=title)
    out.add_column("seconds", justify="right")
    out.add_column("times as fast as", justify="right")
    for name, found in results.items():
        beside = found["times_as_fast"].items()
        words = "\n".join(f"{other}: {measure.shown(times)}" for other, times in beside)
        out.add_row(name, measure.shown(found["seconds"]), words)
    return out


def main() -> None:
    parser = options.whole_networks(__doc__)
    parser.add_argument("--network", default="drn_c_26", help="of models.MODELS, or dilation8")
    arguments = parser.parse_args()
    case = options.case(arguments.network, arguments)
    report = measure.Report(arguments)
    modes = options.PEERS[arguments.peer] if report.has_peer(arguments.peer) else ()
    rounds = [one_round(case, modes) for _ in range(arguments.rounds)]
    seconds = {name: [found[name] for found in rounds] for name in rounds[0]}
    results = {
        name: {
            "seconds": measure.spread(values),
            "times_as_fast": {
                other: measure.times_as_fast(values, seconds[other])
                for other in BESIDE.get(name, ())
                if other in seconds
            },
        }
        for name, values in seconds.items()
    }
    report.found["results"] = results
    size = f"{case.batch} images of {case.size}x{case.size}, {case.dtype}, width {case.width:g}"
    report.end(table(results, f"{case.network}, {size}: median (least-most)"))


if __name__ == "__main__":
    measure.run(main)

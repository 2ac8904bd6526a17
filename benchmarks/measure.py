"""What the benchmarks share: measuring in turn, ceilings, and what is told beside the numbers."""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from workers import Worker

from drn_jax.errors import UserError

INSTALL = "PyTorch is not installed, so ours is measured alone: pip install -e '.[torch]'"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch")
VARIABLES = (
    "GLIBC_TUNABLES",  # Decides on huge pages.
    "XLA_FLAGS",
    "JAX_PLATFORMS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "LD_PRELOAD",
    "CUDA_VISIBLE_DEVICES",
)
"""Of the environment, told where they are set."""

PRODUCT = {"cpu": 2048}
"""Rows and columns of the matrices whose product is the ceiling; elsewhere `LARGE_PRODUCT`."""
LARGE_PRODUCT = 8192
COPY = {"cpu": 2**26}
"""Numbers that are copied; elsewhere `LARGE_COPY`."""
LARGE_COPY = 2**28

OURS_ENVIRONMENT = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
"""Else the first process to come would take three quarters of a GPU."""
PEER_ENVIRONMENT = {"TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1", "PYTHONWARNINGS": "ignore"}
"""Else compilation would be timed once a machine; PyTorch warns that it keeps nothing."""


def peer_installed() -> bool:
    """Whether there is a PyTorch."""
    return importlib.util.find_spec("torch") is not None


def ours(trains: bool = False) -> Worker:
    """A process for drn_jax; `trains`: with its memory set up as train.py does."""
    how = ("off", "train") if trains else ("off",)
    return Worker("ours.py", *how, environment=OURS_ENVIRONMENT)


def peer() -> Worker:
    """A process for PyTorch."""
    return Worker("peers.py", environment=PEER_ENVIRONMENT)


# Numbers


def in_turn(workers: Mapping[str, Worker], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Seconds a call of what every worker has ready, one number a round.

    In each round every worker has its turn of about `seconds`, at least one call, while the others
    wait. A call of each goes before.
    """
    calls = {name: max(1, round(seconds / w.seconds())) for name, w in workers.items()}
    found: dict[str, list[float]] = {name: [] for name in workers}
    for _ in range(rounds):
        for name, worker in workers.items():
            found[name].append(worker.seconds(calls[name]))
    return found


def spread(values: Iterable[float]) -> dict[str, Any]:
    """The median and the extremes, with all values."""
    rounds = list(values)
    return {
        "median": statistics.median(rounds),
        "least": min(rounds),
        "most": max(rounds),
        "rounds": rounds,
    }


def times_as_fast(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """How many times as fast as the other we are, by the seconds of each round: above 1, faster."""
    return spread(b / a for a, b in zip(ours, theirs, strict=True))


def shown(found: Mapping[str, Any] | None) -> str:
    """A spread in words: median (least-most)."""
    if not found:
        return ""
    middle, low, high = (number(found[key]) for key in ("median", "least", "most"))
    return f"{middle} ({low}-{high})"


def number(value: float) -> str:
    """Three digits or more, never with an exponent."""
    return f"{value:.0f}" if value >= 99.95 else f"{value:#.3g}"


def check_same(what: str, ours: list[float], theirs: list[float], dtype: str) -> None:
    """Raise UserError unless two libraries' results agree as far as the dtype lets them: unless the
    largest difference is small against the largest number."""
    tolerance = {"float32": 1e-3, "tf32": 5e-3, "bfloat16": 3e-2}[dtype]
    apart = np.abs(np.subtract(ours, theirs)).max()
    if not apart <= tolerance * np.abs(theirs).max():
        raise UserError(f"{what}: not the same result, {apart:g} apart")


# Ceilings


def ceilings(dtypes: Sequence[str], with_peer: bool, rounds: int = 3) -> dict[str, Any]:
    """FLOP/s of a large matrix product and bytes/s of a large copy by either library, in turn, and
    the device: {"device", "platform", "product": {dtype: {side: spread}}, "copy": likewise}.

    `tf32` is left out on CPUs. A copy's bytes are those read and those written.

    Raises: UserError where nothing else is left, or the libraries compute on different devices.
    """
    with ExitStack() as stack:
        workers = {"ours": stack.enter_context(ours())}
        if with_peer:
            workers["peer"] = stack.enter_context(peer())
        hello = workers["ours"].hello
        on = hello["platform"]
        if with_peer and workers["peer"].hello["platform"] != on:
            other = workers["peer"].hello["platform"]
            raise UserError(f"JAX computes on {on}, PyTorch on {other}: nothing to compare")
        side, numbers = PRODUCT.get(on, LARGE_PRODUCT), COPY.get(on, LARGE_COPY)
        found: dict[str, Any] = {
            "device": hello["device"],
            "platform": on,
            "product_side": side,
            "copy_numbers": numbers,
            "product": {},
            "copy": {},
        }
        dtypes = [dtype for dtype in dtypes if dtype != "tf32" or on != "cpu"]
        if not dtypes:
            raise UserError("--dtype tf32: CPUs have none")
        for dtype in dtypes:
            kinds = [("product", {"side": side}, 2 * side**3)]
            if dtype != "tf32":
                size = 2 if dtype == "bfloat16" else 4
                kinds.append(("copy", {"count": numbers}, 2 * size * numbers))
            for kind, job, amount in kinds:
                for worker in workers.values():
                    worker.prepare(kind, dtype=dtype, **job)
                seconds = in_turn(workers, rounds, 0.3)
                found[kind][dtype] = {
                    name: spread(amount / s for s in values) for name, values in seconds.items()
                }
    return found


def ceiling(found: Mapping[str, Any], dtype: str) -> float:
    """FLOP/s of the fastest product of a dtype, whoever computed it."""
    return max(side["most"] for side in found["product"][dtype].values())


SHARE = (
    "share: of the largest product's speed, by the definition's operations; Winograd's are fewer, "
    "and oneDNN convolves faster than it multiplies, so that it may be more than 100 %"
)
"""What the tables' last column is."""


def ceiling_table(found: Mapping[str, Any]) -> Table:
    side, numbers = found["product_side"], found["copy_numbers"]
    out = Table("measured ceiling", title=f"ceilings on {found['device']}")
    names = list(next(iter(found["product"].values())))
    for name in names:
        out.add_column(name, justify="right")
    for kind, unit, size in (("product", "GFLOP/s", f"{side}x{side}"), ("copy", "GB/s", numbers)):
        for dtype, sides in found[kind].items():
            cells = (shown(_scaled(sides[name], 1e-9)) for name in names)
            out.add_row(f"{kind} of {size}, {dtype}, {unit}", *cells)
    return out


def _scaled(found: Mapping[str, Any], factor: float) -> dict[str, Any]:
    return spread(value * factor for value in found["rounds"])


# What is told beside


def surroundings() -> dict[str, Any]:
    """Versions, processor, and the variables that matter."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "absent"
    return {
        "versions": versions,
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def processor() -> str:
    """The model of the CPU."""
    return next(iter(_cpuinfo("model name")), platform.processor())


def clocks() -> dict[str, Any]:
    """Of this moment: MHz of the cores, load average of a minute, and what a GPU's driver says."""
    megahertz = [float(value) for value in _cpuinfo("cpu MHz")]
    found: dict[str, Any] = {"load": os.getloadavg()[0]}
    if megahertz:
        found["cpu_mhz"] = {"least": min(megahertz), "most": max(megahertz)}
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=clocks.sm,clocks.mem", "--format=csv,noheader"]
        told = subprocess.run(query, capture_output=True, text=True, check=False)
        found["gpu"] = told.stdout.strip().splitlines()
    return found


def processor_seconds() -> dict[str, float]:
    """Since the start of the machine, of all cores: `busy`, and `stolen` by other machines on the
    same host; since that of this process `own`, with ended workers. Empty where /proc is not."""
    file = Path("/proc/stat")
    if not file.exists():
        return {}
    user, nice, system, _, _, irq, softirq, stolen, *_ = map(
        int, file.read_text().splitlines()[0].split()[1:]
    )
    tick = os.sysconf("SC_CLK_TCK")
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "busy": (user + nice + system + irq + softirq) / tick,
        "stolen": stolen / tick,
        "own": sum(usage.ru_utime + usage.ru_stime for usage in used),
    }


def _cpuinfo(field: str) -> list[str]:
    """A value for every core; none where the system has no such file or field."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    return [line.split(":", 1)[1].strip() for line in lines if line.startswith(field)]


class Report:
    """What a run finds, printed as tables and as JSON."""

    def __init__(self, arguments: argparse.Namespace):
        """Begins the run's record: its options, surroundings and clocks."""
        self.console = Console()
        self._file: Path | None = arguments.json
        self._start = time.perf_counter(), processor_seconds()
        options = {key: value for key, value in vars(arguments).items() if key != "json"}
        self.found: dict[str, Any] = {"options": options, **surroundings(), "clocks": [clocks()]}
        told = [f"{name} {version}" for name, version in self.found["versions"].items()]
        self.say(f"{', '.join(told)}; {self.found['processor']}, {self.found['cores']} cores")

    def say(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def has_peer(self, wanted: str) -> bool:
        """Whether PyTorch takes part: unless "none" is wanted, or, which is said, it is absent."""
        if wanted != "none" and not peer_installed():
            self.say(INSTALL)
        return wanted != "none" and peer_installed()

    def end(self, *tables: Table) -> None:
        """Print everything, and write it if that was asked for; all workers must have ended. The
        file has the numbers of every round, too."""
        self.found["clocks"].append(clocks())
        for table in tables:
            self.console.print(table)
        before, after = (_clock_words(moment) for moment in self.found["clocks"])
        self.say(f"before: {before}; after: {after}")
        for name, value in self.found["environment"].items():
            self.say(f"{name}={value}")
        self._disturbed()
        print(json.dumps(_brief(self.found)))
        if self._file:
            self._file.write_text(json.dumps(self.found, indent=1) + "\n")

    def _disturbed(self) -> None:
        """Say how many cores somebody else kept busy meanwhile. A thread that waits for a core
        stops all that wait for it, and the two libraries' threads wait differently."""
        (start, first), last = self._start, processor_seconds()
        if not first:
            return
        passed = time.perf_counter() - start
        spent = {key: (last[key] - first[key]) / passed for key in first}
        others = max(0.0, spent["busy"] - spent["own"])
        self.found["others_cores"] = {"processes": others, "machines": spent["stolen"]}
        total = others + spent["stolen"]
        warning = "; too much for these numbers to be trusted" if total > 0.1 else ""
        self.say(f"others kept {total:.2f} cores busy meanwhile{warning}")


def _brief(found: Any) -> Any:
    """The same in four digits, with the number of rounds for their values."""
    if isinstance(found, Mapping):
        rounds = found.get("rounds")
        kept = found if not isinstance(rounds, list) else {**found, "rounds": len(rounds)}
        return {key: _brief(value) for key, value in kept.items()}
    if isinstance(found, list | tuple):
        return [_brief(value) for value in found]
    return float(f"{found:.4g}") if isinstance(found, float) else found


def _clock_words(moment: Mapping[str, Any]) -> str:
    words = [f"load {moment['load']:.1f}"]
    if "cpu_mhz" in moment:
        least, most = (moment["cpu_mhz"][key] for key in ("least", "most"))
        words.insert(0, f"CPU at {least:.0f} to {most:.0f} MHz")
    words += [f"GPU at {line}" for line in moment.get("gpu", [])]
    return ", ".join(words)


def run(main: Callable[[], None]) -> None:
    """A program's `main`: what went wrong in a worker, or was asked for wrongly, in one line."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)

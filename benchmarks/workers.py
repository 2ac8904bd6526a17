"""Processes that a benchmark measures in, one for each library: lines of JSON over pipes.

A process of its own keeps a library's threads and peak memory apart from the other's. `Worker` is
the end that asks, `serve` the end that answers; nothing here imports either library.
"""

import gc
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np

from drn_jax.errors import UserError


class Work(NamedTuple):
    """Something to be timed, ready to run."""

    call: Callable[[], Any]
    """Starts it once; what it returns may still be under way."""
    value: Callable[[Any], Any] | None = None
    """Of a result, what two libraries are compared by; numbers, or a list of them."""
    facts: Mapping[str, Any] = {}
    """What else is to be told; `compile_seconds` counts as a part of the first call."""


class Worker:
    """A script that runs `serve`, in a process of its own."""

    def __init__(self, script: str, *arguments: str, environment: Mapping[str, str] | None = None):
        """Start `script`, a file of this folder, with more variables in its environment, and wait
        for its imports.

        Raises: UserError, as all methods, if the process fails or ends.
        """
        self.script = script
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name(script)), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        self.hello = self._answer()
        """`device`, `platform`, and `start_gb`: the memory behind the imports."""

    def prepare(self, kind: str, **job: Any) -> dict[str, Any]:
        """Make something ready and run it once, in place of what was ready before: its facts, its
        `value`, `first_call_seconds` with compilation."""
        return self._ask({"prepare": kind, "job": job})

    def seconds(self, calls: int = 1) -> float:
        """Of one call, the mean of so many in a row."""
        return self._ask({"calls": calls})["seconds"]

    def peak_gb(self) -> float:
        """The most memory so far in 1e9 bytes: of the device where it keeps count, else of the
        process."""
        return self._ask({"peak": True})["peak_gb"]

    def close(self) -> None:
        """End the process."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.close()
            self._process.wait(10)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
        stdin = self._process.stdin
        assert stdin
        try:
            print(json.dumps(message), file=stdin, flush=True)
        except BrokenPipeError:
            raise UserError(self._end()) from None
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        stdout = self._process.stdout
        assert stdout
        line = stdout.readline()
        if not line:
            raise UserError(self._end())
        answer = json.loads(line)
        if "error" in answer:
            raise UserError(f"{self.script}: {answer['error']}")
        return answer

    def _end(self) -> str:
        return f"{self.script} ended with status {self._process.wait()}"


def serve(
    makers: Mapping[str, Callable[..., Work]],
    wait: Callable[[Any], Any],
    device: Callable[[], tuple[str, str]],
    device_peak: Callable[[], int | None],
) -> None:
    """Answer a `Worker` until it closes.

    Args:
      makers: what can be prepared, as functions of the job.
      wait: returns what it is given once that is computed.
      device: its name and platform.
      device_peak: the most memory that the device has held, bytes; None where it keeps no count.
    """
    # What libraries print must not mix with the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    work: Work | None = None

    def answer(message: Mapping[str, Any]) -> dict[str, Any]:
        nonlocal work
        if "prepare" in message:
            work = None
            gc.collect()
            work = makers[message["prepare"]](**message["job"])
            start = time.perf_counter()
            result = wait(work.call())
            first = time.perf_counter() - start + work.facts.get("compile_seconds", 0.0)
            value = {"value": work.value(result)} if work.value else {}
            return {**work.facts, **value, "first_call_seconds": first}
        if "calls" in message:
            assert work
            result, start = None, time.perf_counter()
            for _ in range(message["calls"]):
                result = work.call()
            wait(result)
            return {"seconds": (time.perf_counter() - start) / message["calls"]}
        held = device_peak()
        return {"peak_gb": (_process_peak() if held is None else held) / 1e9}

    def tell(what: Mapping[str, Any]) -> None:
        print(json.dumps(what), file=answers, flush=True)

    name, platform = device()
    tell({"device": name, "platform": platform, "start_gb": _process_peak() / 1e9})
    for line in sys.stdin:
        try:
            tell(answer(json.loads(line)))
        except Exception as error:  # Whatever it is, the other end says it.
            told = (str(error).strip().splitlines() or [""])[0]
            tell({"error": f"{type(error).__name__}: {told}"})


def _process_peak() -> int:
    """Bytes. What `getrusage` says includes the parent's memory at the time of the fork (Linux)."""
    status = Path("/proc/self/status")
    if status.exists():
        [line] = [x for x in status.read_text().splitlines() if x.startswith("VmHWM")]
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def noise(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Float32 of N(0, 1), the same in every process; repeats itself after a million numbers."""
    numbers = np.random.default_rng(seed).standard_normal(1_000_003, np.float32)
    return np.resize(numbers, shape)


def spread_over(count: int) -> np.ndarray:
    """Places of 256 numbers out of `count`, drawn anew for no process."""
    return np.random.default_rng(3).integers(0, count, 256)


def integers(shape: tuple[int, ...], below: int, dtype: Any, seed: int) -> np.ndarray:
    """From 0 to `below` - 1, the same in every process."""
    return np.random.default_rng(seed).integers(0, below, shape, dtype)

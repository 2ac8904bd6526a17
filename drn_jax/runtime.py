"""The machine under a program: how many processes work together, what becomes of freed memory, and
where compiled programs are kept. JAX's own runtime does the work (`jax.distributed`); here lie its
flags and its errors."""

import atexit
import contextlib
import ctypes
import os
import re
import sys
import threading
import time
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import jax
from absl import flags
from jax._src.distributed import global_state

from drn_jax import cli, places
from drn_jax.errors import UserError
from drn_jax.report import console

_TAKEN = ("MALLOC_ARENA_MAX", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_")
"""Variables by which a user sets the allocator up."""

_MALLOC = {
    "trim_threshold": (-1, -1),
    "top_pad": (-2, 1 << 26),
    "mmap_max": (-4, 0),
    "arena_max": (-8, 1),
}
"""Parameters of glibc's mallopt(3), by number (malloc.h), and what `keep_memory` sets them to."""

CACHE_VARIABLE = "JAX_COMPILATION_CACHE_DIR"

_PATIENCE = 10
"""Seconds that a process that ends for an error waits for the others to hear of it."""


def define_flags() -> None:
    """The flags of `start`."""
    flags.DEFINE_boolean(
        "distributed",
        False,
        "one process of several, found through Slurm, Kubernetes, a TPU's metadata or Open MPI "
        "(docs/hosts.md); where none of them tells, give --coordinator",
    )
    flags.DEFINE_string("coordinator", "", "HOST:PORT of process 0; instead of --distributed")
    flags.DEFINE_integer("processes", 0, "with --coordinator: how many processes there are")
    flags.DEFINE_integer("process", -1, "with --coordinator: which of them this is, from 0")
    flags.DEFINE_string(
        "compiled",
        "",
        f"folder that keeps compiled programs for later runs; by default ${CACHE_VARIABLE} or "
        "~/.cache/drn_jax; 'off' keeps none",
    )


def start() -> None:
    """Join the other processes, if there are any, and open the cache of compiled programs. To be
    called before anything else of JAX.

    Raises: UserError if the others can't be found.
    """
    given = flags.FLAGS
    keep_compiled(given.compiled)
    if given.distributed or given.coordinator:
        _join(given.coordinator, given.processes, given.process)
    elif given["processes"].present or given["process"].present:
        raise UserError("--processes and --process are of use only with --coordinator=HOST:PORT")
    if jax.process_index() > 0:
        console.silence()


def keep_memory() -> bool:
    """Where JAX computes on CPUs alone, let the C library keep the memory that a program frees:
    whether it will.

    XLA takes the memory for intermediate values anew at every call of a program. Handed back to the
    system in between, each of its pages is fetched and zeroed again, for a fifth of a training
    step's time (benchmarks/NOTES.md). A process so never shrinks below what it needed most, and
    where small blocks come to lie between large ones it may need twice as much: meant for training,
    whose steps are all alike.

    To be called before JAX's threads begin, which would keep to heaps of their own. Does nothing
    where the library is not glibc, or where $MALLOC_ARENA_MAX, $MALLOC_MMAP_MAX_ or
    $MALLOC_TRIM_THRESHOLD_ is set, to any value.
    """
    if not _on_cpus_alone() or any(name in os.environ for name in _TAKEN):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return all(mallopt(name, value) == 1 for name, value in _MALLOC.values())


def _on_cpus_alone() -> bool:
    """Whether JAX will find no accelerator. To ask it would begin its threads."""
    settings: Any = jax.config
    if settings.jax_platforms:
        return settings.jax_platforms == "cpu"
    return not (entry_points(group="jax_plugins") or find_spec("libtpu"))


def _join(coordinator: str, processes: int, process: int) -> None:
    address = re.fullmatch(r".+:(\d+)", coordinator)
    if coordinator and not (address and 0 < int(address[1]) < 65536):
        raise UserError(f"--coordinator={coordinator} must be HOST:PORT, the port below 65536")
    if coordinator and (processes < 1 or not 0 <= process < processes):
        raise UserError(
            f"--coordinator={coordinator} needs --processes, 1 or more, and --process, from 0 to "
            f"one less; given are {processes} and {process}"
        )
    try:
        if coordinator:
            jax.distributed.initialize(coordinator, processes, process)
        else:
            jax.distributed.initialize()
    except (ValueError, RuntimeError) as error:
        told = " ".join(str(error).split())
        raise UserError(
            f"--distributed: the other processes were not found ({told}); where neither Slurm, "
            "Kubernetes, a TPU nor Open MPI tells, give --coordinator, --processes and --process"
        ) from error
    if jax.process_count() > 1:
        _fail_together()


def _fail_together() -> None:
    """From here on an error of one process ends all, each with one line and status 1. Left alone,
    the others would wait for it where they next meet, and it for them at its exit, for minutes."""
    client: Any = global_state.client
    key, me = "drn_jax/failed", jax.process_index()
    ended, leaving = threading.Event(), threading.Lock()

    def leave() -> NoReturn:
        sys.stdout.flush()
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # Some may be gone.
            client.wait_at_barrier(key, _PATIENCE * 1000)
        if me == 0:  # It serves the others: without it they would abort.
            time.sleep(0.5)
        os._exit(1)

    def tell(text: str) -> None:
        leaving.acquire()  # For good: one of the two threads has the last word.
        print(text, file=sys.stderr, flush=True)
        last = text.strip().splitlines()[-1].removeprefix("error: ")
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # Another was first.
            client.key_value_set(key, f"process {me} failed: {last}")
        leave()

    def listen() -> None:
        while not ended.wait(1):
            try:
                told = client.key_value_try_get(key)
            except jax.errors.JaxRuntimeError:  # Nobody failed.
                continue
            if leaving.acquire(blocking=False):
                print(f"error: {told}", file=sys.stderr, flush=True)
                leave()
            return

    listener = threading.Thread(target=listen, daemon=True)

    def stop() -> None:
        ended.set()
        listener.join()

    listener.start()
    atexit.register(stop)  # Runs before JAX's own end.
    cli.on_failure.append(tell)


def keep_compiled(folder: str = "") -> None:
    """Keep compiled programs in a folder for later runs; "": in the default one, "off": nowhere.

    Raises: UserError for a folder that can't be made.
    """
    if folder == "off":
        jax.config.update("jax_enable_compilation_cache", False)
        return
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    place = folder or os.environ.get(CACHE_VARIABLE) or str(Path(home) / "drn_jax")
    if not places.is_remote(place):
        place = os.path.abspath(os.path.expanduser(place))
        try:
            os.makedirs(place, exist_ok=True)
        except OSError as error:
            if folder:
                raise UserError(f"--compiled={folder}: can't be made ({error.strerror})") from error
            jax.config.update("jax_enable_compilation_cache", False)  # Of use, but not needed.
    jax.config.update("jax_compilation_cache_dir", place)


def compiled_place() -> str:
    """Where compiled programs are kept, in words."""
    settings: Any = jax.config
    if not settings.jax_enable_compilation_cache:
        return "no compiled programs are kept"
    return f"compiled programs are kept in {settings.jax_compilation_cache_dir}"

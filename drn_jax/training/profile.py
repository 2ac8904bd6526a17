"""A trace of a few steps: what host and devices did, microsecond by microsecond."""

import os
from collections.abc import Callable

import jax

AFTER, STEPS = 5, 10
"""Steps of this start before the trace, so that compiling is not in it; and steps within."""


class Trace:
    """Traces some steps into `folder`, and says which; without a folder none.

    TensorBoard's profile plugin shows it, and https://ui.perfetto.dev the file
    perfetto_trace.json.gz below.
    """

    def __init__(
        self, folder: str | os.PathLike[str] | None, start_step: int, say: Callable[[str], None]
    ) -> None:
        self._folder, self._say = folder, say
        self._first = start_step + AFTER
        self._now = start_step
        self._running = self._done = False

    def __enter__(self) -> "Trace":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        if self._folder is not None and not self._done:
            self._say(f"no step was traced: a trace begins {AFTER} steps after a start")

    def after(self, step: int, pausing: bool) -> bool:
        """To be called after every step, `pausing` if what follows is no step, which ends a trace.
        Whether time was spent here."""
        self._now = step
        if self._folder is None:
            return False
        if self._running and (pausing or step == self._first + STEPS):
            return self._stop()
        if pausing or step < self._first or self._running or self._done:
            return False
        self._first = step
        jax.profiler.start_trace(self._folder, create_perfetto_trace=True)
        self._running = True
        return True

    def _stop(self) -> bool:
        if self._running:
            jax.profiler.stop_trace()
            self._running, self._done = False, True
            self._say(f"trace of steps {self._first + 1} to {self._now} in {self._folder}")
        return self._done

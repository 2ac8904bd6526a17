"""A trace of a few steps: what host and devices did, microsecond by microsecond."""

import os

import jax

AFTER, STEPS = 5, 10
"""Steps of this start before the trace, so that compiling is not in it; and steps within."""


class Trace:
    """Traces some steps into `folder`; none without one.

    TensorBoard's profile plugin shows it, and https://ui.perfetto.dev the file
    perfetto_trace.json.gz below.
    """

    def __init__(self, folder: str | os.PathLike[str] | None, start_step: int) -> None:
        self._folder = folder
        self._first, self._last = start_step + AFTER, start_step + AFTER + STEPS
        self._running = False

    def __enter__(self) -> "Trace":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    @property
    def steps(self) -> str:
        """Which steps are traced, in words."""
        return f"steps {self._first + 1} to {self._last}"

    def after(self, step: int) -> bool:
        """To be called after every step, its metrics fetched late; true when the trace is done."""
        if self._folder is None:
            return False
        if step == self._first:
            jax.profiler.start_trace(self._folder, create_perfetto_trace=True)
            self._running = True
        return self._stop() if step == self._last else False

    def _stop(self) -> bool:
        was_running, self._running = self._running, False
        if was_running:
            jax.profiler.stop_trace()
        return was_running

"""Ctrl-C, SIGTERM and preemption notices as a request to stop after the step in hand, so that it
can be saved."""

import os
import signal
from types import FrameType

import jax
from jax.experimental.multihost_utils import reached_preemption_sync_point


class Interrupt:
    """While entered, the first SIGINT or SIGTERM is only noted; the second acts as usual.

    Of several processes all must stop at the same step. Which one, they agree on through JAX's own
    preemption service, which listens to SIGTERM; a SIGINT is passed to it.
    """

    _asked = 0
    """How often any was asked: JAX counts on through the stages of a run."""

    def __init__(self) -> None:
        self._received: signal.Signals | None = None
        self._together = jax.process_count() > 1
        self._stopping = False

    def __enter__(self) -> "Interrupt":
        ours = (signal.SIGINT,) if self._together else (signal.SIGINT, signal.SIGTERM)
        self._before = {s: signal.signal(s, self._note) for s in ours}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    @property
    def exit_code(self) -> int:
        """The shell's convention: 128 plus the signal's number. 130 for Ctrl-C, 143 for SIGTERM and
        for a process that stopped because another was told to."""
        return 128 + int(self._received or signal.SIGTERM)

    def asked(self) -> bool:
        """Whether to stop now. All processes must ask equally often, at the same places."""
        if not self._together:
            self._stopping = self._received is not None
        elif not self._stopping:
            Interrupt._asked += 1
            self._stopping = reached_preemption_sync_point(Interrupt._asked)
        return self._stopping

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._received = signal.Signals(number)
        self._restore()
        if self._together:
            os.kill(os.getpid(), signal.SIGTERM)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

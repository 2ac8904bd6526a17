"""Ctrl-C and SIGTERM as a request to stop after the step in hand, so that it can be saved."""

import signal
from types import FrameType


class Interrupt:
    """While entered, the first SIGINT or SIGTERM only sets `signal`; the second acts as usual."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __enter__(self) -> "Interrupt":
        self._before = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    @property
    def exit_code(self) -> int:
        """The shell's convention: 128 plus the signal's number (130 for Ctrl-C)."""
        return 128 + int(self.signal or 0)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

"""How the loader goes about its work, as a configuration says it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Reading:
    """By whom examples are read and augmented, and how far ahead. No batch depends on it."""

    threads: int = 0
    """In each process; 0: one a core, 16 at most, divided among the workers."""
    workers: int = 0
    """Processes besides the program's own, where Python holds the threads up; 0: none."""
    prefetch: int = 4
    """Batches read ahead, at most, over all processes, but for an example or two that each worker
    holds; so this bounds the memory of the input side."""

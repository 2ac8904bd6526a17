"""Every example of a source looked at once, by threads."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from drn_jax.data.dataset import Source
from drn_jax.errors import UserError

AT_A_TIME = 256
"""Examples handed to the threads together, which bounds what is in memory."""

Found = TypeVar("Found")


def each(source: Source, look: Callable[[int], Found]) -> Iterator[Found | UserError]:
    """What `look` finds in every example, by its index, in order; a UserError that it raises is a
    finding, too, and names the example."""

    def attempt(index: int) -> Found | UserError:
        try:
            return look(index)
        except UserError as error:
            text, where = str(error), source.where(index)
            return error if where in text else UserError(f"{where}: {text}")

    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for first in range(0, len(source), AT_A_TIME):
            yield from pool.map(attempt, range(first, min(first + AT_A_TIME, len(source))))
    finally:
        pool.shutdown(cancel_futures=True)  # Whoever stops it should not wait for the others.

"""Batches as a function of (seed, step), by grain.

The step is the whole position: a run that resumes at step s sees what it would have seen. Batches
do not depend on the number of threads, and the union over hosts is the one-host batch.
"""

import os
from collections.abc import Callable, Iterator, Sequence

import grain
import numpy as np

from drn_jax.data.dataset import Example, Source

Augment = Callable[[Example, np.random.Generator], Example]
Transform = Callable[[Example], Example]

PREFETCH = 4
"""Batches read ahead, at most; so this bounds the memory of the input side."""


def training_batches(
    source: Source,
    keys: Sequence[str],
    *,
    batch_size: int,
    seed: int,
    augment: Augment,
    start_step: int = 0,
    host: int = 0,
    hosts: int = 1,
) -> Iterator[dict[str, np.ndarray]]:
    """Endless batches of this host's share, batch_size / hosts examples each.

    Every epoch visits each example once, in an order of its own; epochs run into one another, so
    that a batch may hold the end of one and the start of the next.

    Args:
      keys: what of an example goes into the batch ("image", "label", ...), stacked on axis 0.
      augment: makes examples of equal size; draws only from the generator that it is given.
      start_step: batches to skip, at no cost.
    """

    def prepare(example: Example, rng: np.random.Generator) -> Example:
        example = augment(example, rng)
        return {key: example[key] for key in keys}

    examples = grain.MapDataset.source(source).seed(seed).shuffle().repeat(None)
    # Sharded after the augmentation: a seed belongs to a position, not to a host.
    mine = examples.random_map(prepare)[host::hosts]
    batches = mine.batch(batch_size // hosts, drop_remainder=True)[start_step:]
    return iter(batches.to_iter_dataset(_read_options()))


def evaluation_batches(
    source: Source,
    keys: Sequence[str],
    *,
    batch_size: int,
    transform: Transform,
    sizes: Sequence[tuple[int, int]] | None = None,
    host: int = 0,
    hosts: int = 1,
) -> Iterator[dict[str, np.ndarray]]:
    """Every example exactly once, in batches of `batch_size` over all hosts.

    A batch is filled up with copies; `valid`, bool [N], is False for those. `sizes` gives each
    image's (height, width) after `transform` where they differ: only equals share a batch.
    """
    plan = _plan(len(source), batch_size, sizes)
    share = batch_size // hosts
    mine = plan[:, host * share : (host + 1) * share].reshape(-1)

    def load(position: int) -> Example:
        index = int(mine[position])
        valid = index >= 0
        if not valid:  # The first of the batch is always a real one.
            index = int(plan[position // share, 0])
        example = transform(source[index])
        return {key: example[key] for key in keys} | {"valid": np.array(valid)}

    examples = grain.MapDataset.range(len(mine)).map(load)
    return iter(examples.batch(share).to_iter_dataset(_read_options()))


def _plan(count: int, batch_size: int, sizes: Sequence[tuple[int, int]] | None) -> np.ndarray:
    """Example numbers int64 [batches, batch_size], -1 where a batch is filled up."""
    groups: dict[tuple[int, int] | None, list[int]] = {}
    for index in range(count):
        groups.setdefault(sizes[index] if sizes else None, []).append(index)
    rows = []
    for members in groups.values():
        for first in range(0, len(members), batch_size):
            row = members[first : first + batch_size]
            rows.append(row + [-1] * (batch_size - len(row)))
    return np.array(rows, np.int64)


def _read_options() -> grain.ReadOptions:
    threads = min(os.cpu_count() or 1, 16)
    return grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(PREFETCH, threads))

"""Batches as a function of (seed, step), by grain.

The step is the whole position: a run that resumes at step s sees what it would have seen. Batches
do not depend on the number of threads or worker processes, and the hosts' shares one behind the
other are the one-host batch.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grain
import numpy as np
from absl import flags

from drn_jax.data.dataset import Example, Source
from drn_jax.data.reading import Reading
from drn_jax.errors import UserError

Augment = Callable[[Example, np.random.Generator], Example]
Transform = Callable[[Example], Example]


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
    reading: Reading = Reading(),
) -> Iterator[dict[str, np.ndarray]]:
    """Endless batches of this host's share, batch_size / hosts examples each.

    Every epoch visits each example once, in an order of its own; epochs run into one another, so
    that a batch may hold the end of one and the start of the next.

    Args:
      keys: what of an example goes into the batch ("image", "label", ...), stacked on axis 0.
      augment: makes examples of equal size; draws only from the generator that it is given.
      start_step: batches to skip, at no cost.

    Raises: UserError if the hosts do not divide the batch.
    """
    share = _share(batch_size, hosts)

    def prepare(example: Example, rng: np.random.Generator) -> Example:
        example = augment(example, rng)
        return {key: example[key] for key in keys}

    shuffled = grain.MapDataset.source(source).seed(seed).shuffle().repeat(None)
    examples: Any = shuffled.random_map(prepare)

    def load(index: int) -> Example:
        # Shared out after the augmentation: a seed belongs to a position, not to a host.
        step, place = divmod(index, share)
        return examples[step * batch_size + host * share + place]

    mine = grain.MapDataset.range(len(examples) // hosts).map(load)
    return _batches(mine[start_step * share :], share, reading)


def evaluation_batches(
    source: Source,
    keys: Sequence[str],
    *,
    batch_size: int,
    transform: Transform,
    sizes: Sequence[tuple[int, int]] | None = None,
    host: int = 0,
    hosts: int = 1,
    reading: Reading = Reading(),
) -> Iterator[dict[str, np.ndarray]]:
    """Every example exactly once, in batches of `batch_size` over all hosts.

    A batch is filled up with copies; `valid`, bool [N], is False for those. `sizes` gives each
    image's (height, width) after `transform` where they differ: only equals share a batch.

    Raises: UserError if the hosts do not divide the batch.
    """
    share = _share(batch_size, hosts)
    plan = _plan(len(source), batch_size, sizes)
    mine = plan[:, host * share : (host + 1) * share].reshape(-1)

    def load(position: int) -> Example:
        index = int(mine[position])
        valid = index >= 0
        if not valid:  # The first of the batch is always a real one.
            index = int(plan[position // share, 0])
        example = transform(source[index])
        return {key: example[key] for key in keys} | {"valid": np.array(valid)}

    return _batches(grain.MapDataset.range(len(mine)).map(load), share, reading)


def _share(batch_size: int, hosts: int) -> int:
    """The examples of a batch that each host makes."""
    if batch_size % hosts:
        raise UserError(f"a batch of {batch_size} can't be split over {hosts} hosts")
    return batch_size // hosts


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


def _batches(examples: Any, size: int, reading: Reading) -> Iterator[dict[str, np.ndarray]]:
    """Batches of a grain.MapDataset, read ahead example by example."""
    processes = max(1, reading.workers)
    threads = reading.threads or max(1, min(os.cpu_count() or 1, 16) // processes)
    ahead = max(1, reading.prefetch * size // processes)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(ahead, threads))
    read = examples.to_iter_dataset(options)
    if reading.workers:
        if not flags.FLAGS.is_parsed():  # Grain reads its own, also where no program parsed any.
            flags.FLAGS.mark_as_parsed()
        read = read.mp_prefetch(grain.MultiprocessingOptions(num_workers=reading.workers))
    return iter(read.batch(size, drop_remainder=True))

"""The maps of a trained front end, computed once over its data set and kept on disk: the fixed
input of a context module (Yu & Koltun 2016, section 4)."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.experimental import multihost_utils

from drn_jax import places
from drn_jax.data import loader, map_records
from drn_jax.data.dataset import Dataset, Example, Source
from drn_jax.errors import UserError
from drn_jax.report import console
from drn_jax.training import memory
from drn_jax.training.steps import Prepare, Variables

_FORMAT = 1
"""Of the records; older ones are computed anew."""


@dataclass(frozen=True)
class FrontEnd:
    """A trained front end."""

    model: nn.Module
    variables: Variables
    prepare: Prepare
    """From a batch of whole images to the network's input."""
    described: Mapping[str, Any]
    """All that its maps depend on besides the weights and the images; JSON."""


def cached(
    front: FrontEnd,
    dataset: Dataset,
    folder: str | os.PathLike[str],
    dtype: str,
    batch_size: int,
) -> Dataset:
    """The data set with `map` instead of `image`, from a folder below `folder` or else computed.

    The name of that folder is a digest of the weights and of `described`, so that maps are never
    taken for those of another front end. Images that changed under the same names are not noticed.
    Of several processes the first computes them for all, into a folder that all must see.

    Args:
      dtype: "float16" or "float32", of the maps on disk.
      batch_size: images at a time.

    Raises: UserError for maps that do not fit the dtype.
    """
    key = {
        "format": _FORMAT,
        "dtype": dtype,
        "front_end": front.described,
        "dataset": [dataset.name, len(dataset.train), len(dataset.validation)],
        "weights": _digest(front.variables),
    }
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    place = places.join(folder, name)
    try:
        if jax.process_index() == 0 and not map_records.is_complete(place):
            _compute(front, dataset, place, key, dtype, batch_size)
    finally:
        if jax.process_count() > 1:  # The others wait, even if it has failed.
            multihost_utils.sync_global_devices(f"maps {name}")
    if not map_records.is_complete(place):
        raise UserError(
            f"{place}: process 0 has not computed these maps, or into another folder; see what it "
            "says, or train the front end in a folder that all processes share"
        )
    train, validation = map_records.sources(place)
    return replace(dataset, train=train, validation=validation)


def _compute(
    front: FrontEnd,
    dataset: Dataset,
    place: str,
    key: Mapping[str, Any],
    dtype: str,
    batch_size: int,
) -> None:
    console.say(f"the front end's maps of {dataset.name}, computed once into {place}")
    start = time.monotonic()
    forward = partial(jax.jit(partial(_class_map, front)), front.variables)
    splits = {
        "train": (dataset.train, dataset.train_sizes()),
        "validation": (dataset.validation, dataset.validation_sizes()),
    }
    maps = {
        split: console.progress(
            _maps(forward, source, sizes, dtype, batch_size), len(source), f"{split} maps"
        )
        for split, (source, sizes) in splits.items()
    }
    size = map_records.write(place, maps, key)
    console.say(
        f"{len(dataset.train) + len(dataset.validation):,} maps in {dtype}, {size / 1e6:.1f} MB, "
        f"in {time.monotonic() - start:.0f} s; {memory.peak()}"
    )


def _class_map(front: FrontEnd, variables: Variables, batch: Mapping[str, Any]) -> jax.Array:
    outputs: Any = front.model.apply(variables, front.prepare(batch), train=False)
    return outputs[1]["logits_2d"]


@dataclass(frozen=True)
class _Numbered:
    """A source whose examples know their `index`."""

    source: Source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Example:
        return {**self.source[index], "index": np.array(index)}

    def where(self, index: int) -> str:
        return self.source.where(index)


def _maps(
    forward: Callable[[Mapping[str, Any]], jax.Array],
    source: Source,
    sizes: tuple[tuple[int, int], ...] | None,
    dtype: str,
    batch_size: int,
) -> Iterator[Example]:
    """An example a record: `map`, `mask`, `index`."""
    batches = loader.evaluation_batches(
        _Numbered(source),
        ("image", "mask", "index"),
        batch_size=batch_size,
        transform=lambda example: example,
        sizes=sizes,
    )
    for batch in batches:
        maps = np.asarray(forward({"image": batch["image"]}))
        if not (abs(maps) <= np.finfo(dtype).max).all():
            raise UserError(
                f"the front end's scores reach {abs(maps).max():.3g}, beyond {dtype}: "
                + ("use --config.data.dtype=float32" if dtype == "float16" else "it has diverged")
            )
        for i in np.flatnonzero(batch["valid"]):
            yield {
                "map": maps[i].astype(dtype),
                "mask": batch["mask"][i],
                "index": batch["index"][i],
            }


def _digest(variables: Variables) -> str:
    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(dict(variables)):
        found.update(jax.tree_util.keystr(path).encode())
        found.update(np.ascontiguousarray(leaf).tobytes())
    return found.hexdigest()

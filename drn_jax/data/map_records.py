"""Class maps on disk, each with the mask of its image: what a context module trains on.

A folder, on a disk or in a bucket of gs://, with `train.array_record`, `validation.array_record`
and `maps.json`, complete or not there at all. A record is a compressed .npz of `map` [h, w, C] and
`mask` uint8 [H, W].
"""

import io
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter

from drn_jax import places
from drn_jax.data.dataset import Example
from drn_jax.data.records import require_readable
from drn_jax.errors import UserError

_INDEX = "maps.json"


class MapSource:
    """Examples with `map` float [h, w, C] and `mask` uint8 [H, W]."""

    def __init__(self, path: str, order: Sequence[int]) -> None:
        """`order`: which example each record holds."""
        self._path = path
        self._records = ArrayRecordDataSource(self._path)
        self._place = np.argsort(order)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Example:
        """The example; UserError if the record is damaged."""
        try:
            file = io.BytesIO(self._records[int(self._place[index])])
            with np.load(file, allow_pickle=False) as arrays:
                return {"map": arrays["map"], "mask": arrays["mask"]}
        except Exception as error:
            remedy = "delete the folder, and the next run computes it anew"
            if places.is_remote(self._path):
                remedy = f"check the network and your credentials, or {remedy}"
            raise UserError(f"{self.where(index)} is damaged; {remedy}") from error

    def where(self, index: int) -> str:
        """What errors call the example."""
        return f"{self._path}: record {index}"


def write(
    folder: str | os.PathLike[str],
    splits: Mapping[str, Iterable[Example]],
    facts: Mapping[str, Any],
) -> int:
    """Write the examples of every split, and `facts` (JSON) about them; whole or not at all.

    An example holds `map`, `mask`, and `index`, its number in the split; any order will do.

    Returns: how many bytes that takes.
    """
    folder = os.fspath(folder)
    if places.is_remote(folder):
        require_readable(folder)
        with TemporaryDirectory(prefix="maps") as draft:  # array_record writes to disks only.
            size = _write(Path(draft), splits, facts)
            for split in splits:
                places.upload(_records(draft, split), _records(folder, split))
            # The last: where it is, all is.
            places.upload(places.join(draft, _INDEX), places.join(folder, _INDEX))
        return size
    draft = Path(f"{folder}.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        size = _write(draft, splits, facts)
        os.replace(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return size


def is_complete(folder: str | os.PathLike[str]) -> bool:
    """Whether the maps are there."""
    return places.is_file(places.join(folder, _INDEX))


def sources(folder: str | os.PathLike[str]) -> tuple[MapSource, MapSource]:
    """Training and validation examples."""
    require_readable(os.fspath(folder))
    order = json.loads(places.read(places.join(folder, _INDEX)))["order"]
    train, validation = (
        MapSource(_records(folder, split), order[split]) for split in ("train", "validation")
    )
    return train, validation


def _write(folder: Path, splits: Mapping[str, Iterable[Example]], facts: Mapping[str, Any]) -> int:
    """Write into a folder on a disk. Returns: how many bytes that takes."""
    order: dict[str, list[int]] = {}
    for split, examples in splits.items():
        order[split] = []
        writer = ArrayRecordWriter(_records(folder, split), "group_size:1")
        try:
            for example in examples:
                file = io.BytesIO()
                np.savez_compressed(file, map=example["map"], mask=example["mask"])
                writer.write(file.getvalue())
                order[split].append(int(example["index"]))
        finally:
            writer.close()
    (folder / _INDEX).write_text(json.dumps({**facts, "order": order}))
    return sum(file.stat().st_size for file in folder.iterdir())


def _records(folder: str | os.PathLike[str], split: str) -> str:
    return places.join(folder, f"{split}.array_record")

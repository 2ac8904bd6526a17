"""Class maps on disk, each with the mask of its image: what a context module trains on.

A folder with `train.array_record`, `validation.array_record` and `maps.json`, complete or not there
at all. A record is a compressed .npz of `map` [h, w, C] and `mask` uint8 [H, W].
"""

import io
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter

from drn_jax.data.dataset import Example
from drn_jax.errors import UserError

_INDEX = "maps.json"


class MapSource:
    """Examples with `map` float [h, w, C] and `mask` uint8 [H, W]."""

    def __init__(self, path: str | os.PathLike[str], order: Sequence[int]) -> None:
        """`order`: which example each record holds."""
        self._path = os.fspath(path)
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
            raise UserError(
                f"{self.where(index)} is damaged; delete the folder, and the next run "
                "computes it anew"
            ) from error

    def where(self, index: int) -> str:
        """What errors call the example."""
        return f"{self._path}: record {index}"


def write(folder: Path, splits: Mapping[str, Iterable[Example]], facts: Mapping[str, Any]) -> None:
    """Write the examples of every split, and `facts` (JSON) about them; whole or not at all.

    An example holds `map`, `mask`, and `index`, its number in the split; any order will do.
    """
    draft = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    order: dict[str, list[int]] = {}
    try:
        for split, examples in splits.items():
            order[split] = []
            writer = ArrayRecordWriter(str(draft / f"{split}.array_record"), "group_size:1")
            try:
                for example in examples:
                    file = io.BytesIO()
                    np.savez_compressed(file, map=example["map"], mask=example["mask"])
                    writer.write(file.getvalue())
                    order[split].append(int(example["index"]))
            finally:
                writer.close()
        (draft / _INDEX).write_text(json.dumps({**facts, "order": order}))
        os.replace(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def is_complete(folder: Path) -> bool:
    """Whether the maps are there."""
    return (folder / _INDEX).is_file()


def size(folder: Path) -> int:
    """Bytes on disk."""
    return sum(file.stat().st_size for file in folder.iterdir())


def sources(folder: Path) -> tuple[MapSource, MapSource]:
    """Training and validation examples."""
    order = json.loads((folder / _INDEX).read_text())["order"]
    train, validation = (
        MapSource(folder / f"{split}.array_record", order[split])
        for split in ("train", "validation")
    )
    return train, validation

"""Prepared sets: TFDS's array_record files, as `prepare` writes them, or TFDS itself.

A set lies in DATA_DIR/NAME/VERSION, where TFDS finds it (`tfds.data_source(NAME,
data_dir=DATA_DIR)`): a record has `image` (the file as it was distributed), `name`, and what the
set has of `label`, `boxes` (float32 [n, 4], pixel edges) and `mask` (a PNG of class ids, 255
ignored). `drn_jax.json` beside the records says what no TFDS file does.
"""

import json
import os
from collections.abc import Callable
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from drn_jax import places
from drn_jax.data import image
from drn_jax.data.dataset import IMAGENET_MEAN, IMAGENET_STD, Dataset, Example, Sizes
from drn_jax.errors import UserError

VERSION = "1.0.0"
"""Of the records' layout; TFDS wants one as the folder's name."""

FACTS = "drn_jax.json"
UNFINISHED = ".unfinished"


def find(directory: str, *names: str) -> Path | str | None:
    """The folder of a prepared set: `directory` itself, or below it the newest version of the first
    of the sets `names` that is there; None if there is none. In a bucket it is named by a str.
    UserError if it may not be looked into."""
    if _is_prepared(directory):
        return _folder(directory)
    try:
        for name in names:
            versions = filter(_is_prepared, _versions(places.join(directory, name)))
            if newest := max(versions, key=_rank, default=None):
                return _folder(newest)
    except PermissionError as error:
        raise UserError(
            f"{directory}: cannot be read ({error.strerror}); check its permissions"
        ) from error
    return None


def interrupted(directory: str, name: str) -> Path | None:
    """The folder of a preparation that has not been finished, if there is one."""
    if places.is_remote(directory):
        return None  # `prepare` writes to disks.
    draft = unfinished(directory, name)
    return draft if os.path.exists(draft) else None


def unfinished(data_dir: str | os.PathLike[str], name: str) -> Path:
    """Where a set lies while it is being prepared."""
    return Path(data_dir) / name / f"{VERSION}{UNFINISHED}"


def require_readable(folder: str) -> None:
    """Raise UserError for a bucket that array_record's own reader can't read."""
    if places.is_remote(folder) and not folder.startswith("gs://"):
        raise UserError(
            f"{folder}: array_record reads its files from a disk or from gs:// only; copy the "
            "folder to one of these, or name the set as it is distributed"
        )


def load(folder: Path | str, name: str, task: str) -> Dataset:
    """The prepared set `name`; or one that TFDS prepared elsewhere as array_record, with `image`
    and `label` (ImageNet's, for instance), which is given ImageNet's statistics.

    Raises: UserError for a damaged set, one of another file format, or one without labels for the
      task.
    """
    import tensorflow_datasets as tfds  # A second.

    folder = os.fspath(folder)
    require_readable(folder)
    builder = _opened(folder)
    needed = "label" if task == "classification" else "mask"
    if needed not in builder.info.features or "image" not in builder.info.features:
        raise UserError(
            f"{folder}: its records have {', '.join(sorted(builder.info.features))}, but {task} "
            f"needs image and {needed}"
        )
    if places.exists(places.join(folder, FACTS)):
        facts = _facts(folder)
        if builder.name != name:
            raise UserError(f"{folder}: holds {builder.name}, not {name}; name another folder")
    else:
        facts = _foreign(builder, folder)
    pictures = [name for name in ("image", "mask") if name in builder.info.features]
    raw: Any = {name: tfds.decode.SkipDecoding() for name in pictures}
    splits = {
        split: Records(
            builder.as_data_source(split, decoders=raw), places.join(folder, split), _example
        )
        for split in facts["splits"]
    }
    sizes = {split: _sizes(found["sizes"]) for split, found in facts["splits"].items()}
    return Dataset(
        name=facts["name"],
        classes=tuple(facts["classes"]),
        train=splits["train"],
        validation=splits["validation"],
        test=splits.get("test"),
        mean=_triple(facts["mean"]),
        std=_triple(facts["std"]),
        colors=tuple(map(_triple, facts["colors"])) if facts["colors"] else None,
        train_sizes=partial(_given, sizes["train"]),
        validation_sizes=partial(_given, sizes["validation"]),
    )


class Records:
    """The records of a split of a TFDS builder as a `dataset.Source`."""

    def __init__(self, records: Any, name: str, decode: Callable[[Any, str], Example]) -> None:
        """`decode` makes an example of a record, and receives what errors call the record."""
        self._records, self._name, self._decode = records, name, decode

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Example:
        if index >= len(self):
            raise IndexError(index)  # That iteration ends, as it does for every sequence.
        try:
            record = self._records[index]
        except (OSError, RuntimeError, ValueError) as error:  # array_record's checksums
            reason = " ".join(str(error).split())[:200]
            remedy = "delete the prepared set and prepare it anew"
            if places.is_remote(self._name):
                remedy = f"check the network and your credentials, or {remedy}"
            raise UserError(f"{self.where(index)}: cannot be read ({reason}); {remedy}") from error
        return self._decode(record, self.where(index))

    def where(self, index: int) -> str:
        """What errors call the record."""
        return f"{self._name}, record {index}"


def _folder(path: str) -> Path | str:
    return path if places.is_remote(path) else Path(path)


def _versions(folder: str) -> list[str]:
    """The folders in that of a set, if there is one."""
    try:
        names = places.entries(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [places.join(folder, name) for name in names if fnmatch(name, "*.*.*")]


def _is_prepared(folder: str) -> bool:
    """Whether TFDS, or `prepare`, has finished this folder, and it may be looked into."""
    return not places.name(folder).endswith(UNFINISHED) and all(
        places.is_file(places.join(folder, name)) for name in ("dataset_info.json", "features.json")
    )


def _rank(folder: str) -> tuple[bool, list[int]]:
    """Ours before others' (TFDS has a `kitti` of another task), then the newer."""
    version = [int(part) if part.isdigit() else -1 for part in places.name(folder).split(".")]
    return places.exists(places.join(folder, FACTS)), version


def _opened(folder: str) -> Any:
    """The read-only builder of a prepared set; UserError unless all its files are there."""
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(folder)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{folder}: not a set that TFDS can read ({reason}); prepare it anew"
        ) from error
    found = builder.info.file_format
    if found is None or found.value != "array_record":
        raise UserError(
            f"{folder}: its file format is {found and found.value}, only array_record can be read "
            "without TensorFlow; prepare it with file_format='array_record'"
        )
    shards = [path for split in builder.info.splits.values() for path in split.filepaths]
    there = places.entries(folder)
    for path in shards:
        if path.name not in there:
            raise UserError(f"{path}: missing; delete {folder} and prepare the set anew")
    _allow_open(len(shards), folder)
    return builder


def _allow_open(shards: int, folder: str) -> None:
    """Raise the soft limit of open files where it is too low: every shard stays open."""
    try:
        import resource
    except ImportError:  # Not on Windows, which has no such limit.
        return
    unlimited = resource.RLIM_INFINITY
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * shards + 256  # Others' files, logs and pipes besides.
    if soft == unlimited or soft >= needed:
        return
    raised = needed if hard == unlimited else min(needed, hard)
    if raised < shards + 64:
        raise UserError(
            f"{folder}: has {shards} shards, but a process may open no more than {hard} files "
            "here; raise that limit"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))


def _facts(folder: str) -> dict[str, Any]:
    """What `prepare` wrote beside the records; UserError if it is damaged."""
    path = places.join(folder, FACTS)
    try:
        facts = json.loads(places.read(path))
        if not {"name", "classes", "colors", "mean", "std", "splits"} <= facts.keys():
            raise ValueError("a field is missing")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); delete {folder} and prepare the set anew"
        ) from error
    return facts


def _foreign(builder: Any, folder: str) -> dict[str, Any]:
    """What `drn_jax.json` would say of a set that TFDS prepared."""
    splits = [split for split in ("train", "validation") if split in builder.info.splits]
    if "label" not in builder.info.features:
        raise UserError(f"{folder}: prepared by others, and not for classification")
    if len(splits) < 2:
        raise UserError(
            f"{folder}: has the splits {', '.join(builder.info.splits)}, but train and validation "
            "are needed"
        )
    return {
        "name": builder.name,
        "classes": builder.info.features["label"].names,
        "colors": None,
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "splits": {split: {"sizes": None} for split in splits},
    }


def _example(record: Any, where: str) -> Example:
    """A record as an example, decoded."""
    name = record.get("name", record.get("file_name", b""))
    where = f"{where} ({name.decode()})" if name else where
    example: Example = {"image": image.decode_rgb(record["image"], where)}
    if "label" in record:
        example["label"] = np.array(record["label"], np.int32)
    if "boxes" in record:
        example["boxes"] = np.asarray(record["boxes"], np.float32).reshape(-1, 4)
    if "mask" in record:
        example["mask"] = image.decode_mask(record["mask"], where)
    return example


def _sizes(listed: list[list[int]] | None) -> Sizes | None:
    return None if listed is None else tuple((height, width) for height, width in listed)


def _given(sizes: Sizes | None) -> Sizes | None:
    return sizes


def _triple(values: list[Any]) -> Any:
    first, second, third = values
    return first, second, third

"""Preparing a set: from what was read in place to records (`records`), whole or not at all.

While it is being written it lies in DATA_DIR/NAME/VERSION.unfinished: a shard that is there is
finished, so that the same command goes on with the next. A shard is written anew if a file of its
examples is younger, or if its first or last example has become another.
"""

import hashlib
import io
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from drn_jax import places
from drn_jax.data.dataset import Dataset
from drn_jax.data.records import FACTS, VERSION, unfinished
from drn_jax.data.sources import Readable, Record, png
from drn_jax.errors import UserError

SHARD_BYTES = 512 << 20
"""About how large a shard becomes. Each keeps its file open while it is read: ImageNet some 300."""

_PLAN = "plan.json"

Progress = Callable[[Iterable[None], int, str], Iterable[None]]
"""Shows how far an iteration is: (items, how many, title)."""


def prepare(
    name: str,
    dataset: Dataset,
    splits: Mapping[str, Readable],
    data_dir: str | os.PathLike[str],
    *,
    about: str = "",
    progress: Progress = lambda items, total, title: items,
    say: Callable[[str], None] = lambda text: None,
) -> Path:
    """Write a set that was read in place; goes on where an earlier call was interrupted.

    Args:
      name: of the set, and of the folder below `data_dir`.
      splits: the sources of `dataset`, by split.
      say: receives what the user may want to know.

    Returns: the folder of the prepared set.

    Raises: UserError for an example that can't be read, and where nothing can be written; what is
      written so far stays.
    """
    require_disk(data_dir)
    folder = Path(data_dir) / name / VERSION
    if os.path.exists(folder):
        say(f"{folder} is there already: delete it to prepare {name} anew")
        return folder
    try:
        _write_set(name, dataset, splits, folder, unfinished(data_dir, name), about, progress, say)
    except OSError as error:
        if os.path.exists(folder):  # As the other leaves it, nothing of ours is missing.
            say(f"{folder} was prepared by another command meanwhile")
            return folder
        where = error.filename or folder
        raise UserError(
            f"{where}: cannot be written ({error.strerror or error}); free space or give another "
            "--data_dir, and run the same command again"
        ) from error
    return folder


def require_disk(data_dir: str | os.PathLike[str]) -> None:
    """Raise UserError for a place in a bucket."""
    if places.is_remote(data_dir):
        raise UserError(
            f"--data_dir={data_dir}: array_record writes to disks only; prepare the set in a "
            "folder on one, then copy that folder into the bucket"
        )


def _write_set(
    name: str,
    dataset: Dataset,
    splits: Mapping[str, Readable],
    folder: Path,
    draft: Path,
    about: str,
    progress: Progress,
    say: Callable[[str], None],
) -> None:
    """Write a set into the draft, and make it the folder."""
    shards = {split: _shards(source) for split, source in splits.items()}
    features = _features(dataset, next(iter(splits.values())))
    plan = {
        "version": VERSION,
        "classes": dataset.classes,
        "features": sorted(features),
        "splits": {
            split: [[len(indices) for indices in shards[split]], _digest(source.names)]
            for split, source in splits.items()
        },
    }
    _start(draft, json.loads(json.dumps(plan)), say)
    for split, source in splits.items():
        pieces = [
            (_shard_path(draft, name, split, k, len(shards[split])), indices)
            for k, indices in enumerate(shards[split])
        ]
        there = [piece for piece in pieces if piece[0].exists()]
        kept = [piece for piece in there if _still_holds(*piece, source, features)]
        if there:
            say(f"{split}: {len(kept)} of {len(pieces)} shards are there already")
        if len(kept) < len(there):
            say(f"{split}: {len(there) - len(kept)} shards are of other files: written anew")
        left = [piece for piece in pieces if piece not in kept]
        count = sum(len(indices) for _, indices in left)
        for _ in progress(_write(left, source, features), count, f"{name}: {split}"):
            pass
    _finish(draft, name, dataset, splits, shards, features, about)
    os.replace(draft, folder)
    (folder / _PLAN).unlink()


def _shards(source: Readable) -> list[range]:
    """Which examples each shard holds; by the mean size of a few, so always the same."""
    count = len(source)
    few = np.unique(np.linspace(0, count - 1, 8).astype(int))
    mean = sum(len(source.record(int(i)).image) for i in few) / len(few)
    each = max(1, min(count, int(SHARD_BYTES / max(mean, 1))))
    return [range(first, min(first + each, count)) for first in range(0, count, each)]


def _digest(names: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def _start(draft: Path, plan: Any, say: Callable[[str], None]) -> None:
    """Make the draft, or find it as an interrupted call of the same plan has left it."""
    path = draft / _PLAN
    if draft.exists() and _plan(path) != plan:
        say(f"{draft} holds shards of other files: written anew")
        shutil.rmtree(draft)
    draft.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        new = draft / f"{_PLAN}.{os.getpid()}"
        new.write_text(json.dumps(plan))
        os.replace(new, path)


def _plan(path: Path) -> Any:
    """What an interrupted call has meant to write; None if that can't be told."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None


def _shard_path(draft: Path, name: str, split: str, number: int, count: int) -> Path:
    return draft / f"{name}-{split}.array_record-{number:05d}-of-{count:05d}"


def _still_holds(path: Path, indices: range, source: Readable, features: Any) -> bool:
    """Whether a shard is what would be written now, as far as that can be told without reading all
    of it."""
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    try:
        with ArrayRecordDataSource(str(path)) as stored:
            if len(stored) != len(indices):
                return False
            written = path.stat().st_mtime
            files = {file for index in indices for file in source.files_of(index)}
            if max(map(_changed, files), default=0.0) > written:
                return False
            ends = (0, len(indices) - 1)
            return all(stored[i] == _encoded(source.record(indices[i]), features) for i in ends)
    except (OSError, RuntimeError, ValueError):  # array_record's: the shard is damaged.
        return False


def _changed(file: str) -> float:
    """When a file, or the archive that it lies in, was last written or put in place."""
    if places.is_remote(file):
        return 0.0  # A bucket's files are replaced, not changed; its clock is another.
    path = Path(file)
    while not os.path.exists(path) and path != path.parent:
        path = path.parent
    found = path.stat()
    return max(found.st_mtime, found.st_ctime)


def _features(dataset: Dataset, source: Readable) -> Any:
    import tensorflow_datasets as tfds

    first = source.record(0)
    features: dict[str, Any] = {
        "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
        "name": tfds.features.Text(),
    }
    if first.label is not None:
        # Several classes may share a name (ImageNet has two cranes), which TFDS does not allow.
        features["label"] = tfds.features.ClassLabel(num_classes=len(dataset.classes))
    if first.boxes is not None:
        features["boxes"] = tfds.features.Tensor(shape=(None, 4), dtype=np.float32)
    if first.mask is not None:
        features["mask"] = tfds.features.Image(shape=(None, None, 1), encoding_format="png")
    return tfds.features.FeaturesDict(features)


def _write(left: list[tuple[Path, range]], source: Readable, features: Any) -> Iterator[None]:
    """Write shards, each whole or not at all; yields once an example."""
    from array_record.python.array_record_module import ArrayRecordWriter

    def encoded(index: int) -> bytes:
        return _encoded(source.record(index), features)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for path, indices in left:
            new = path.with_name(f"{path.name}.{os.getpid()}.tmp")
            begun = time.time()
            try:
                with _written(ArrayRecordWriter(str(new), "group_size:1,uncompressed")) as write:
                    for data in pool.map(encoded, indices):
                        write(data)
                        yield
            except BaseException:
                pool.shutdown(cancel_futures=True)
                new.unlink(missing_ok=True)  # A full disk should not stay so.
                raise
            os.utime(new, (begun, begun))  # A file that changes from here on is younger.
            os.replace(new, path)


@contextmanager
def _written(writer: Any) -> Iterator[Callable[[bytes], None]]:
    """What writes a record; closes the writer. Raises: OSError where it raises RuntimeError."""

    def attempt(act: Callable[..., None], *arguments: bytes) -> None:
        try:
            act(*arguments)
        except RuntimeError as error:
            raise OSError(" ".join(str(error).split())[:200]) from error

    try:
        yield lambda data: attempt(writer.write, data)
    except BaseException:
        with suppress(OSError):  # The first error is the one to tell.
            attempt(writer.close)
        raise
    attempt(writer.close)


def _encoded(record: Record, features: Any) -> bytes:
    return features.serialize_example(features.encode_example(_fields(record)))


def _fields(record: Record) -> dict[str, Any]:
    fields: dict[str, Any] = {"image": io.BytesIO(record.image), "name": record.name}
    if record.label is not None:
        fields["label"] = record.label
    if record.boxes is not None:
        fields["boxes"] = record.boxes
    if record.mask is not None:
        fields["mask"] = io.BytesIO(png(record.mask))
    return fields


def _finish(
    draft: Path,
    name: str,
    dataset: Dataset,
    splits: Mapping[str, Readable],
    shards: Mapping[str, list[range]],
    features: Any,
    about: str,
) -> None:
    """Write the files about the shards, and drop what is not part of the set."""
    import tensorflow_datasets as tfds

    for path in draft.glob("*.tmp"):
        path.unlink()
    infos = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=[len(indices) for indices in pieces],
            num_bytes=sum(file.stat().st_size for file in draft.glob(f"{name}-{split}.*")),
            filename_template=tfds.core.ShardedFileTemplate(
                dataset_name=name,
                data_dir=tfds.core.Path(draft),
                split=split,
                filetype_suffix="array_record",
            ),
        )
        for split, pieces in shards.items()
    ]
    facts = {
        "name": dataset.name,
        "classes": dataset.classes,
        "colors": dataset.colors,
        "mean": dataset.mean,
        "std": dataset.std,
        # A size is only ever asked for where a batch holds whole images: with masks.
        "splits": {
            split: {"sizes": source.sizes() if "mask" in features else None}
            for split, source in splits.items()
        },
    }
    (draft / FACTS).write_text(json.dumps(facts))
    tfds.folder_dataset.write_metadata(
        data_dir=draft,
        features=features,
        split_infos=infos,
        version=VERSION,
        check_data=False,
        description=about,
    )

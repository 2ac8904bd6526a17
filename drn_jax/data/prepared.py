"""Sets prepared for training: TFDS's array_record files, written whole or not at all.

A prepared set lies in DATA_DIR/NAME/VERSION, where TFDS finds it (`tfds.data_source(NAME,
data_dir=DATA_DIR)`): a record has `image` (the file as it was distributed), `name`, and what the
set has of `label`, `boxes` (float32 [n, 4], pixel edges) and `mask` (a PNG of class ids, 255
ignored). `drn_jax.json` beside the records says what no TFDS file does.

While it is being written it lies in DATA_DIR/NAME/VERSION.unfinished: a shard that is there is
finished, so that the same command goes on with the next.
"""

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from drn_jax.data import image
from drn_jax.data.dataset import IMAGENET_MEAN, IMAGENET_STD, Dataset, Example, Sizes
from drn_jax.data.sources import Readable, Record, png
from drn_jax.errors import UserError

VERSION = "1.0.0"
"""Of the records' layout; TFDS wants one as the folder's name."""

SHARD_BYTES = 128 << 20
"""About how large a shard becomes."""

_FACTS = "drn_jax.json"
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

    Raises: UserError for an example that can't be read; what is written so far stays.
    """
    folder = Path(data_dir) / name / VERSION
    if folder.exists():
        say(f"{folder} is there already: delete it to prepare {name} anew")
        return folder
    draft = folder.with_name(f"{VERSION}.unfinished")
    shards = {split: _shards(source) for split, source in splits.items()}
    plan = {
        "version": VERSION,
        "classes": dataset.classes,
        "splits": {
            split: [len(source), len(shards[split]), _digest(source.names)]
            for split, source in splits.items()
        },
    }
    _start(draft, json.loads(json.dumps(plan)), say)
    features = _features(dataset, next(iter(splits.values())))
    for split, source in splits.items():
        pieces = [
            (_shard_path(draft, name, split, k, len(shards[split])), indices)
            for k, indices in enumerate(shards[split])
        ]
        there = sum(path.exists() for path, _ in pieces)
        if there:
            say(f"{split}: {there} of {len(pieces)} shards are there already")
        left = [(path, indices) for path, indices in pieces if not path.exists()]
        count = sum(len(indices) for _, indices in left)
        for _ in progress(_write(left, source, features), count, f"{name}: {split}"):
            pass
    _finish(draft, name, dataset, splits, shards, features, about)
    os.replace(draft, folder)
    return folder


def find(directory: str, *names: str) -> Path | None:
    """The folder of a prepared set: `directory` itself, or below it the newest version of the first
    of the sets `names` that is there; None if there is none."""
    if _is_prepared(Path(directory)):
        return Path(directory)
    for name in names:
        versions = filter(_is_prepared, (Path(directory) / name).glob("*.*.*"))
        if newest := max(versions, key=_version, default=None):
            return newest
    return None


def interrupted(directory: str, name: str) -> Path | None:
    """The folder of a preparation that has not been finished, if there is one."""
    draft = Path(directory) / name / f"{VERSION}.unfinished"
    return draft if draft.exists() else None


def load(folder: Path, name: str, task: str) -> Dataset:
    """The prepared set `name`; or one that TFDS prepared elsewhere as array_record, with `image`
    and `label` (ImageNet's, for instance), which is given ImageNet's statistics.

    Raises: UserError for a damaged set, one of another file format, or one without labels for the
      task.
    """
    import tensorflow_datasets as tfds  # A second.

    builder = _opened(folder)
    needed = "label" if task == "classification" else "mask"
    if needed not in builder.info.features or "image" not in builder.info.features:
        raise UserError(
            f"{folder}: its records have {', '.join(sorted(builder.info.features))}, but {task} "
            f"needs image and {needed}"
        )
    path = folder / _FACTS
    if path.exists():
        facts = json.loads(path.read_text())
        if builder.name != name:
            raise UserError(f"{folder}: holds {builder.name}, not {name}; name another folder")
    else:
        facts = _foreign(builder, folder)
    pictures = [name for name in ("image", "mask") if name in builder.info.features]
    raw: Any = {name: tfds.decode.SkipDecoding() for name in pictures}
    splits = {
        split: Records(builder.as_data_source(split, decoders=raw), str(folder / split), _example)
        for split in facts["splits"]
    }
    sizes = {split: _sizes(found["sizes"]) for split, found in facts["splits"].items()}
    return Dataset(
        name=builder.name,
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
        return self._decode(self._records[index], self.where(index))

    def where(self, index: int) -> str:
        """What errors call the record."""
        return f"{self._name}, record {index}"


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
    if draft.exists() and (not path.exists() or json.loads(path.read_text()) != plan):
        say(f"{draft} holds shards of other files: written anew")
        shutil.rmtree(draft)
    draft.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        new = draft / f"{_PLAN}.{os.getpid()}"
        new.write_text(json.dumps(plan))
        os.replace(new, path)


def _shard_path(draft: Path, name: str, split: str, number: int, count: int) -> Path:
    return draft / f"{name}-{split}.array_record-{number:05d}-of-{count:05d}"


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
        return features.serialize_example(features.encode_example(_fields(source.record(index))))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for path, indices in left:
            new = path.with_name(f"{path.name}.{os.getpid()}.tmp")
            writer = ArrayRecordWriter(str(new), "group_size:1,uncompressed")
            try:
                for data in pool.map(encoded, indices):
                    writer.write(data)
                    yield
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
            finally:
                writer.close()
            os.replace(new, path)


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
    (draft / _FACTS).write_text(json.dumps(facts))
    tfds.folder_dataset.write_metadata(
        data_dir=draft,
        features=features,
        split_infos=infos,
        version=VERSION,
        check_data=False,
        description=about,
    )
    (draft / _PLAN).unlink()


def _is_prepared(folder: Path) -> bool:
    """Whether TFDS, or `prepare`, has finished this folder."""
    return (folder / "dataset_info.json").is_file() and (folder / "features.json").is_file()


def _version(folder: Path) -> list[int]:
    return [int(part) if part.isdigit() else -1 for part in folder.name.split(".")]


def _opened(folder: Path) -> Any:
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
    for split in builder.info.splits.values():
        for path in split.filepaths:
            if not os.path.exists(path):
                raise UserError(f"{path}: missing; delete {folder} and prepare the set anew")
    return builder


def _foreign(builder: Any, folder: Path) -> dict[str, Any]:
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

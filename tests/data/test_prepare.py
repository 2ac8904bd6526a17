"""A prepared set holds what the source holds, is whole or not there, goes on when interrupted."""

import io
import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from drn_jax.data import prepare as writing
from drn_jax.data import records
from drn_jax.data.dataset import Dataset
from drn_jax.data.files import FolderFiles
from drn_jax.data.masks import ClassIds, MappedIds, MaskFiles
from drn_jax.data.sources import FileSource
from drn_jax.errors import UserError

ROOT = Path(__file__).parents[2]
CLASSES = ("road", "sky", "car")


def write(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


@pytest.fixture
def streets(tmp_path):
    """Seven training and three validation images, of two sizes, as JPEG, with masks as PNG."""
    rng = np.random.default_rng(0)
    sources = {}
    for split, count in (("train", 7), ("validation", 3)):
        names, masks = [], []
        for i in range(count):
            shape = (12, 16) if i % 2 else (9, 11)
            names.append(f"{split}/{i}.jpg")
            masks.append(f"{split}/{i}.png")
            write(tmp_path / "raw" / names[-1], rng.integers(0, 256, (*shape, 3), dtype=np.uint8))
            mask = rng.integers(0, 3, shape).astype(np.uint8)
            mask[0] = 255
            write(tmp_path / "raw" / masks[-1], mask)
        files = FolderFiles(str(tmp_path / "raw"))
        sources[split] = FileSource(
            files, tuple(names), masks=MaskFiles(files, tuple(masks), ClassIds(3))
        )
    return described(sources)


@pytest.fixture
def photographs(tmp_path):
    """Five training images with labels and boxes, and a validation image."""
    rng = np.random.default_rng(1)
    sources = {}
    for split, count in (("train", 5), ("validation", 1)):
        names = tuple(f"{split}/{i}.jpg" for i in range(count))
        for name in names:
            write(tmp_path / "raw" / name, rng.integers(0, 256, (8, 9, 3), dtype=np.uint8))
        boxes = tuple(np.full((i % 3, 4), i, np.float32) for i in range(count))
        labels = np.arange(count, dtype=np.int32) % 3
        sources[split] = FileSource(FolderFiles(str(tmp_path / "raw")), names, labels, boxes)
    return described(sources)


def described(sources):
    return Dataset(
        "made",
        CLASSES,
        sources["train"],
        sources["validation"],
        (0.1, 0.2, 0.3),
        (0.4, 0.5, 0.6),
        ((1, 2, 3), (4, 5, 6), (7, 8, 9)),
        validation_sizes=sources["validation"].sizes,
        train_sizes=sources["train"].sizes,
    )


def prepare(dataset, place, **options):
    return writing.prepare("made", dataset, dataset.splits, place, **options)


def assert_same_examples(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert set(one) == set(other)
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])
            assert one[key].dtype == other[key].dtype


@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_a_prepared_set_holds_what_the_source_holds_in_its_order(task, request, tmp_path):
    dataset = request.getfixturevalue("streets" if task == "segmentation" else "photographs")
    folder = prepare(dataset, tmp_path / "data")
    assert folder == tmp_path / "data" / "made" / records.VERSION
    found = records.load(folder, "made", task)
    for split, source in dataset.splits.items():
        assert_same_examples(list(found.splits[split]), list(source))
    for field in ("classes", "mean", "std", "colors"):
        assert getattr(found, field) == getattr(dataset, field)
    if task == "segmentation":
        assert found.validation_sizes() == ((9, 11), (12, 16), (9, 11))
        assert found.train_sizes() == dataset.train_sizes()


def test_the_files_of_the_images_are_stored_as_they_are(streets, tmp_path):
    folder = prepare(streets, tmp_path)
    raw = {"image": tfds.decode.SkipDecoding(), "mask": tfds.decode.SkipDecoding()}
    records = tfds.builder_from_directory(folder).as_data_source("train", decoders=raw)
    for record, name in zip(records, streets.train.names, strict=True):
        assert record["name"].decode() == name
        assert record["image"] == streets.train.files.read(name)


def test_tfds_finds_a_prepared_set_by_its_name(streets, tmp_path):
    prepare(streets, tmp_path)
    assert len(tfds.data_source("made", data_dir=tmp_path, split="validation")) == 3


def test_shards_split_the_examples_without_loss(streets, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "SHARD_BYTES", 1500)
    folder = prepare(streets, tmp_path)
    assert len(list(folder.glob("made-train.*"))) > 2
    assert_same_examples(
        list(records.load(folder, "made", "segmentation").train), list(streets.train)
    )


def test_a_prepared_source_survives_pickling_and_threads(streets, tmp_path):
    source = records.load(prepare(streets, tmp_path), "made", "segmentation").train
    expected = list(source)
    assert_same_examples(list(pickle.loads(pickle.dumps(source))), expected)
    found = [None] * 7
    threads = [
        threading.Thread(target=lambda i=i: found.__setitem__(i, source[i])) for i in range(7)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_same_examples(found, expected)


class Stopping:
    """A source that is interrupted at its n-th record."""

    def __init__(self, source, at):
        self.source, self.left = source, at
        self.names, self.where, self.sizes = source.names, source.where, source.sizes

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        return self.source[index]

    def record(self, index):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return self.source.record(index)


@pytest.mark.parametrize("at", range(8, 15))
def test_an_interrupted_preparation_never_looks_finished_and_goes_on(
    streets, tmp_path, monkeypatch, at
):
    monkeypatch.setattr(writing, "SHARD_BYTES", 1500)
    whole = prepare(streets, tmp_path / "whole")
    stopping = replace(streets, train=Stopping(streets.train, at))
    with pytest.raises(KeyboardInterrupt):
        prepare(stopping, tmp_path / "data")
    assert records.find(str(tmp_path / "data"), "made") is None
    draft = records.interrupted(str(tmp_path / "data"), "made")
    done = {path: path.stat().st_mtime_ns for path in draft.glob("made-*-of-0000?")}
    folder = prepare(streets, tmp_path / "data")
    for path, written in done.items():
        assert (folder / path.name).stat().st_mtime_ns == written
    assert {path.name for path in folder.iterdir()} == {path.name for path in whole.iterdir()}
    assert_same_examples(
        list(records.load(folder, "made", "segmentation").train), list(streets.train)
    )


KILLED = """
import os, pickle, signal, sys
from dataclasses import replace
from drn_jax.data import prepare
sys.path.insert(0, sys.argv[3])
from kill import Killing
dataset = pickle.load(open(sys.argv[1], "rb"))
prepare.SHARD_BYTES = 1500
dataset = replace(dataset, train=Killing(dataset.train))
prepare.prepare("made", dataset, dataset.splits, sys.argv[2])
"""


def test_a_preparation_that_is_killed_never_looks_finished_and_goes_on(
    streets, tmp_path, monkeypatch
):
    monkeypatch.setattr(writing, "SHARD_BYTES", 1500)
    (tmp_path / "kill.py").write_text(
        textwrap.dedent("""
        import os, signal

        class Killing:
            def __init__(self, source):
                self.source, self.left = source, 13
                self.names, self.where, self.sizes = source.names, source.where, source.sizes

            def __len__(self):
                return len(self.source)

            def record(self, index):
                self.left -= 1
                if not self.left:
                    os.kill(os.getpid(), signal.SIGKILL)
                return self.source.record(index)
        """)
    )
    (tmp_path / "set.pickle").write_bytes(pickle.dumps(streets))
    place = tmp_path / "data"
    arguments = [tmp_path / "set.pickle", place, tmp_path]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    assert records.find(str(place), "made") is None
    draft = records.interrupted(str(place), "made")
    assert list(draft.glob("*.tmp"))
    folder = prepare(streets, place)
    assert not list(folder.glob("*.tmp"))
    assert_same_examples(
        list(records.load(folder, "made", "segmentation").train), list(streets.train)
    )


def interrupted(streets, place, at=14):
    """Leaves a preparation that was stopped at a record, with shards that are finished."""
    with pytest.raises(KeyboardInterrupt):
        prepare(replace(streets, train=Stopping(streets.train, at)), place)
    assert list(records.interrupted(str(place), "made").glob("made-train.*-of-0000?"))


def assert_as_in_place(dataset, folder):
    found = records.load(folder, "made", "segmentation")
    for split, source in dataset.splits.items():
        assert_same_examples(list(found.splits[split]), list(source))


def other_names(streets, tmp_path):
    names = tuple(reversed(streets.train.names))
    masks = replace(streets.train.masks, names=tuple(reversed(streets.train.masks.names)))
    return replace(streets, train=replace(streets.train, names=names, masks=masks))


def other_order_of_classes(streets, tmp_path):
    decode = MappedIds(((0, 2), (1, 0), (2, 1)))
    masks = replace(streets.train.masks, decode=decode)
    return replace(streets, train=replace(streets.train, masks=masks))


def one_mask_replaced(streets, tmp_path):
    path = tmp_path / "raw/train/1.png"
    Image.fromarray(np.ones_like(np.array(Image.open(path)))).save(path)
    return streets


def larger_images(streets, tmp_path):
    for i in range(7):
        write(tmp_path / f"raw/train/{i}.jpg", np.zeros((120, 160, 3), np.uint8))
        write(tmp_path / f"raw/train/{i}.png", np.zeros((120, 160), np.uint8))
    return streets


def labels_besides(streets, tmp_path):
    labels = np.zeros(7, np.int32)
    return replace(
        streets,
        train=replace(streets.train, labels=labels),
        validation=replace(streets.validation, labels=labels[:3]),
    )


@pytest.mark.parametrize(
    "change",
    [other_names, other_order_of_classes, one_mask_replaced, larger_images, labels_besides],
    ids=lambda change: change.__name__,
)
def test_what_changed_between_two_calls_is_not_mixed(streets, tmp_path, monkeypatch, change):
    monkeypatch.setattr(writing, "SHARD_BYTES", 1500)
    interrupted(streets, tmp_path / "data")
    changed, said = change(streets, tmp_path), []
    folder = prepare(changed, tmp_path / "data", say=said.append)
    assert any("written anew" in line for line in said)
    assert_as_in_place(changed, folder)


def test_a_file_that_changes_while_its_shard_is_written_counts_as_changed(
    streets, tmp_path, monkeypatch
):
    mask = tmp_path / "raw/train/1.png"

    class Replacing(Stopping):
        def record(self, index):
            found = super().record(index)
            if self.left == 1:  # Its shard, of which it is not an end, is about to be finished.
                Image.fromarray(np.ones_like(np.array(Image.open(mask)))).save(mask)
            return found

    monkeypatch.setattr(writing, "SHARD_BYTES", 4000)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)  # One record after the other.
    sizes = [len(shard) for shard in writing._shards(streets.train)]
    assert sizes[0] > 2
    at = 8 + sizes[0]  # Records read to plan the shards, and those of the first.
    with pytest.raises(KeyboardInterrupt):
        prepare(replace(streets, train=Replacing(streets.train, at + 1)), tmp_path / "data")
    assert_as_in_place(streets, prepare(streets, tmp_path / "data"))


def test_a_damaged_shard_is_written_anew(streets, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "SHARD_BYTES", 1500)
    interrupted(streets, tmp_path / "data")
    draft = records.interrupted(str(tmp_path / "data"), "made")
    shard = min(draft.glob("made-train.*-of-0000?"))
    shard.write_bytes(shard.read_bytes()[:-100])
    assert_as_in_place(streets, prepare(streets, tmp_path / "data"))


def test_a_draft_with_everything_but_its_name_is_not_taken_for_the_set(
    streets, tmp_path, monkeypatch
):
    replaced = os.replace

    def stop(source, target):
        if str(target).endswith(records.VERSION):
            raise KeyboardInterrupt
        replaced(source, target)

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare(streets, tmp_path)
    monkeypatch.undo()
    assert records.find(str(tmp_path), "made") is None
    assert records.find(str(records.interrupted(str(tmp_path), "made")), "made") is None
    said = []
    assert_as_in_place(streets, prepare(streets, tmp_path, say=said.append))
    assert "train: 1 of 1 shards are there already" in said


def test_ours_is_found_before_a_newer_one_of_others(streets, tmp_path):
    folder = prepare(streets, tmp_path)
    shutil.copytree(folder, folder.with_name("3.3.0"))
    (folder.with_name("3.3.0") / records.FACTS).unlink()
    assert records.find(str(tmp_path), "made") == folder


def test_the_limit_of_open_files_is_raised_to_hold_every_shard(streets, tmp_path, monkeypatch):
    limits = [(100, 300)]
    monkeypatch.setattr(resource, "getrlimit", lambda which: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda which, new: limits.append(new))
    monkeypatch.setattr(writing, "SHARD_BYTES", 1)
    folder = prepare(streets, tmp_path)
    records.load(folder, "made", "segmentation")
    assert limits[-1] == (256 + 2 * 10, 300)
    limits.append((50, 60))
    with pytest.raises(UserError, match="has 10 shards, but a process may open no more than 60"):
        records.load(folder, "made", "segmentation")


def test_a_prepared_set_is_not_written_again(streets, tmp_path):
    folder = prepare(streets, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    said = []
    assert prepare(streets, tmp_path, say=said.append) == folder
    assert "delete it" in said[0]
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_damaged_plan_is_not_gone_on_with(streets, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        prepare(replace(streets, train=Stopping(streets.train, 9)), tmp_path)
    (records.unfinished(tmp_path, "made") / "plan.json").write_text("{")
    said = []
    folder = prepare(streets, tmp_path, say=said.append)
    assert any("written anew" in line for line in said)
    assert len(records.load(folder, "made", "segmentation").train) == 7


def test_a_place_that_cannot_be_written_is_named(streets, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file.* cannot be written \(Not a directory\)"):
        prepare(streets, tmp_path / "file")


@pytest.mark.parametrize("method", ["write", "close"])
def test_a_full_disk_is_said_and_nothing_broken_is_left(streets, tmp_path, monkeypatch, method):
    from array_record.python import array_record_module

    def full(self, *arguments):
        raise RuntimeError("write() failed: No space left on device;\nwriting")

    real = array_record_module.ArrayRecordWriter
    made = type("Full", (real,), {method: full})
    monkeypatch.setattr(array_record_module, "ArrayRecordWriter", made)
    with pytest.raises(UserError, match=r"cannot be written \(.*No space left.*the same command"):
        prepare(streets, tmp_path)
    draft = records.unfinished(tmp_path, "made")
    assert [path.name for path in draft.iterdir()] == ["plan.json"]
    monkeypatch.undo()
    assert len(records.load(prepare(streets, tmp_path), "made", "segmentation").train) == 7


class Overtaken(Stopping):
    """A source whose set another command has prepared when its n-th record is read."""

    def __init__(self, source, at, overtake):
        super().__init__(source, at)
        self.overtake = overtake

    def record(self, index):
        self.left -= 1
        if self.left == 0:
            self.overtake()
        return self.source.record(index)


def test_a_set_that_another_command_prepares_meanwhile_is_taken(streets, tmp_path):
    said = []
    train = Overtaken(streets.train, 11, lambda: prepare(streets, tmp_path))
    folder = prepare(replace(streets, train=train), tmp_path, say=said.append)
    assert said == [f"{folder} was prepared by another command meanwhile"]
    assert_same_examples(
        list(records.load(folder, "made", "segmentation").train), list(streets.train)
    )


def test_progress_counts_every_example_once(streets, tmp_path):
    counts = []

    def progress(items, total, title):
        items = list(items)
        counts.append((title, total, len(items)))
        return items

    prepare(streets, tmp_path, progress=progress)
    assert counts == [("made: train", 7, 7), ("made: validation", 3, 3)]


def test_a_mask_that_cannot_be_read_stops_the_preparation_by_name(streets, tmp_path):
    (tmp_path / "raw/train/3.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"3\.png: not an image"):
        prepare(streets, tmp_path / "data")
    assert records.find(str(tmp_path / "data"), "made") is None


def test_the_newest_version_is_found_below_the_directory_or_in_it(streets, tmp_path):
    folder = prepare(streets, tmp_path)
    newer = folder.with_name("1.10.0")
    shutil.copytree(folder, newer)
    shutil.copytree(folder, folder.with_name("1.9.0"))
    assert records.find(str(tmp_path), "other", "made") == newer
    assert records.find(str(folder), "made") == folder
    assert records.find(str(tmp_path), "other") is None


def test_a_set_of_another_name_or_task_is_refused(streets, tmp_path):
    folder = prepare(streets, tmp_path)
    with pytest.raises(UserError, match="holds made, not camvid"):
        records.load(folder, "camvid", "segmentation")
    with pytest.raises(UserError, match="classification needs image and label"):
        records.load(folder, "made", "classification")


def test_a_missing_shard_is_named(streets, tmp_path):
    folder = prepare(streets, tmp_path)
    (shard,) = folder.glob("made-train.*")
    shard.unlink()
    with pytest.raises(UserError, match=rf"{shard.name}: missing; delete"):
        records.load(folder, "made", "segmentation")


def test_a_damaged_shard_is_named_by_record_and_the_others_are_read(streets, tmp_path):
    folder = prepare(streets, tmp_path)
    (shard,) = folder.glob("made-train.*")
    image = (tmp_path / "raw/train/6.jpg").read_bytes()
    whole = shard.read_bytes()
    assert whole.count(image[-60:]) == 1
    shard.write_bytes(whole.replace(image[-60:], bytes(60)))
    found = records.load(folder, "made", "segmentation")
    with pytest.raises(UserError, match=r"train, record 6: cannot be read .* prepare it anew"):
        found.train[6]
    assert_same_examples([found.train[0]], [streets.train[0]])


def test_damaged_facts_are_named(streets, tmp_path):
    folder = prepare(streets, tmp_path)
    (folder / records.FACTS).write_text('{"classes": [')
    with pytest.raises(UserError, match=rf"{records.FACTS}: cannot be read .*; delete"):
        records.load(folder, "made", "segmentation")


def test_a_folder_that_may_not_be_looked_into_is_named(tmp_path, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(UserError, match=r"cannot be read \(Permission denied\)"):
        records.find(str(tmp_path), "made")


def test_a_damaged_image_in_a_record_is_named(tmp_path, streets):
    (tmp_path / "raw/train/2.jpg").write_bytes((tmp_path / "raw/train/2.jpg").read_bytes()[:-60])
    source = records.load(prepare(streets, tmp_path), "made", "segmentation").train
    with pytest.raises(UserError, match=r"record 2 \(train/2\.jpg\): the image is damaged"):
        source[2]


class Imagenet2012(tfds.core.GeneratorBasedBuilder):
    """As TFDS's own builder of that name describes its records."""

    VERSION = tfds.core.Version("5.1.0")

    def _info(self):
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(encoding_format="jpeg"),
                "label": tfds.features.ClassLabel(names=["n01440764", "n01443537"]),
                "file_name": tfds.features.Text(),
            }
        )
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(4), "validation": self._generate_examples(2)}

    def _generate_examples(self, count):
        for i in range(count):
            data = io.BytesIO()
            mode = "CMYK" if i == 1 else "RGB"
            Image.new("RGB", (6, 5), (40 * i, 90, 30)).convert(mode).save(data, "jpeg")
            data.seek(0)
            name = f"n01440764_{i}.JPEG"
            yield name, {"image": data, "label": i % 2, "file_name": name}


def test_imagenet_as_tfds_prepares_it_is_read_as_it_is(tmp_path):
    tfds.disable_progress_bar()
    Imagenet2012(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    folder = records.find(str(tmp_path), "imagenet", "imagenet2012")
    found = records.load(folder, "imagenet", "classification")
    assert found.classes == ("n01440764", "n01443537")
    assert (len(found.train), len(found.validation)) == (4, 2)
    for example in found.train:
        assert example["image"].shape == (5, 6, 3)
        level = int(example["image"][0, 0, 0])
        assert int(example["label"]) == round(level / 40) % 2
    with pytest.raises(UserError, match="segmentation needs image and mask"):
        records.load(folder, "imagenet", "segmentation")


def test_records_in_another_file_format_are_refused(streets, tmp_path):
    folder = prepare(streets, tmp_path)
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps(info | {"fileFormat": "tfrecord"}))
    with pytest.raises(UserError, match="tfrecord, only array_record"):
        records.load(folder, "made", "segmentation")


def test_a_folder_without_metadata_is_not_taken_for_a_prepared_set(streets, tmp_path):
    folder = prepare(streets, tmp_path)
    os.remove(folder / "dataset_info.json")
    assert records.find(str(tmp_path), "made") is None

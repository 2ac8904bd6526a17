"""A data set in a bucket is what it is on a disk, and is read by few requests."""

import io
import json
import pickle
import sys
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor

import fsspec
import numpy as np
import pytest
from fsspec.registry import _registry
from PIL import Image

from drn_jax import data, places
from drn_jax.data import __main__ as command
from drn_jax.data import loader, map_records, prepare, records
from drn_jax.data.files import folder_files
from drn_jax.data.findings import Findings
from drn_jax.data.tars import streamed
from drn_jax.data.zips import zip_files
from drn_jax.errors import UserError

SHAPE = (20, 24)


def png(*seed: int, classes: int = 0) -> bytes:
    """An image; or with classes, a mask."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, classes or 256, SHAPE if classes else (*SHAPE, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def write(root, files):
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def tar(files, mode="w"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def folder_set(root):
    """A folder a class, with one that is hidden."""
    for split, count in (("train", 3), ("val", 2)):
        for c, name in enumerate(("n01440764", "n01443537")):
            write(
                root / split / name, {f"deep {i}/{i}.png": png(c, i, count) for i in range(count)}
            )
    write(root, {"train/.cache/x/0.png": b""})
    return "imagenet", "classification"


def list_set(root):
    for split, count in (("train", 4), ("val", 2)):
        for kind, classes in (("images", 0), ("labels", 3)):
            names = [f"{kind}/{split}{i}.png" for i in range(count)]
            write(root, {name: png(i, count, classes=classes) for i, name in enumerate(names)})
            lines = [f"./{name}\n" for name in names]
            write(root, {f"{split}_{kind}.txt": "".join(lines).encode()})
    info = {"mean": [0.5] * 3, "std": [0.2] * 3, "classes": ["a", "b", "c"]}
    write(root, {"info.json": json.dumps(info).encode()})
    return "list_folder", "segmentation"


def zip_set(root):
    """Of a stored and a deflated .zip, and one local header longer than its likely length."""
    root.mkdir()
    for kind, ending, classes in (
        ("leftImg8bit", "leftImg8bit", 0),
        ("gtFine", "gtFine_labelIds", 34),
    ):
        method = zipfile.ZIP_DEFLATED if classes else zipfile.ZIP_STORED
        with zipfile.ZipFile(root / f"{kind}_trainvaltest.zip", "w", method) as archive:
            for split, city in (("train", "ulm"), ("val", "bonn")):
                for i in range(3):
                    info = zipfile.ZipInfo(f"{kind}/{split}/{city}/{city}_{i}_{ending}.png")
                    info.extra = b"\xfe\xca\x00\x08" + bytes(2048) if i == 1 else b""
                    info.compress_type = method
                    archive.writestr(info, png(i, classes=classes))
    return "cityscapes", "segmentation"


def tar_set(root):
    top = "VOCdevkit/VOC2012/"
    files = {}
    for split, ids in (("train", "abcd"), ("val", "ef")):
        files[f"{top}ImageSets/Segmentation/{split}.txt"] = "\n".join(ids).encode()
        for i, id_ in enumerate(ids):
            files[f"{top}JPEGImages/{id_}.jpg"] = png(i, len(ids))
            files[f"{top}SegmentationClass/{id_}.png"] = png(i, len(ids), classes=21)
    write(root, {"VOCtrainval_11-May-2012.tar": tar(files)})
    return "pascal_voc", "segmentation"


KINDS = {"folder": folder_set, "lists": list_set, "zip": zip_set, "tar": tar_set}


@pytest.fixture(params=list(KINDS))
def made(request, bucket):
    """(name, task, folder on the disk), which is gs://fake/set, too."""
    return *KINDS[request.param](bucket / "set"), str(bucket / "set")


def assert_same(found, expected):
    assert (found.name, found.classes, found.mean) == (
        expected.name,
        expected.classes,
        expected.mean,
    )
    assert found.train_sizes() == expected.train_sizes()
    for split, source in expected.splits.items():
        assert len(found.splits[split]) == len(source) > 0
        for one, other in zip(found.splits[split], source, strict=True):
            assert set(one) == set(other)
            for key in one:
                np.testing.assert_array_equal(one[key], other[key])


def error_of(function, *args, **options) -> str:
    with pytest.raises(UserError) as caught:
        function(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_examples_are_those_of_the_same_files_on_a_disk(made):
    name, task, folder = made
    expected = data.load(name, folder, task)
    for address in ("gs://fake/set", "gs://fake/set/"):
        found = data.load(name, address, task)
        assert_same(found, expected)
        assert found.train.where(0).startswith("gs://fake/set")
    assert_same(pickle.loads(pickle.dumps(found)), expected)


def test_batches_are_the_same(made):
    name, task, folder = made
    keys = ("image", "label" if task == "classification" else "mask")

    def epoch(directory):
        source = data.load(name, directory, task).validation
        return list(
            loader.evaluation_batches(source, keys, batch_size=2, transform=lambda example: example)
        )

    for one, other in zip(epoch("gs://fake/set"), epoch(folder), strict=True):
        for key in keys:
            np.testing.assert_array_equal(one[key], other[key])


@pytest.mark.parametrize("kind", ["zip", "tar", "folder"])
def test_an_example_is_one_request_for_each_of_its_files(kind, bucket, monkeypatch):
    name, task = KINDS[kind](bucket / "set")
    source = data.load(name, "gs://fake/set", task).train
    asked = []
    cat = _registry["gs"].cat_file

    def counted(self, path, start=None, end=None):
        asked.append(None if end is None else end - start)
        return cat(self, path, start=start, end=end)

    monkeypatch.setattr(_registry["gs"], "cat_file", counted)
    for refused in ("open", "info", "ls"):
        monkeypatch.setattr(_registry["gs"], refused, None)
    source[0]
    assert len(asked) == (1 if task == "classification" else 2)
    assert all(count is None or count < 3000 for count in asked)


def test_compressed_archives_are_streamed(bucket):
    files = {"a.txt": b"a" * 5000, "b/c.txt": b"c"}
    for ending in ("gz", "bz2", "xz"):
        write(bucket, {f"x.tar.{ending}": tar(files, f"w:{ending}")})
        assert dict(streamed(f"gs://fake/x.tar.{ending}", lambda name: True)) == files


def test_what_is_opened_reads_and_seeks_as_a_file_does(bucket, monkeypatch):
    monkeypatch.setattr(places, "AHEAD", 100)
    content = np.random.default_rng(0).bytes(1000)
    write(bucket, {"x": content})
    with places.opened("gs://fake/x") as file:
        assert file.seek(-10, 2) == 990
        assert file.read() == content[-10:]
        assert (file.seek(500), file.read(300)) == (500, content[500:800])
        assert (file.seek(-50, 1), file.read(3)) == (750, content[750:753])
        assert file.seek(2000) == 2000
        assert file.read(1) == b""


def test_a_folder_knows_what_it_holds_after_one_look(bucket, monkeypatch):
    write(bucket, {"a/b/1.png": b"1", "a/b/.2.png": b"2", "a/c.txt": b"", ".d/3.png": b"3"})
    files = folder_files("gs://fake")
    assert files.under("") == ["a/b/1.png", "a/c.txt"]
    assert files.under("a/b") == ["a/b/1.png"]
    assert files.under("gone") == []
    assert "a/b/1.png" in files
    monkeypatch.setattr(places, "entries", None)
    assert "a/b/4.png" not in files
    assert "./a/../a/b/1.png" in files


def test_what_is_missing_or_damaged_is_one_line(bucket):
    write(bucket, {"bad.zip": b"PK", "x.txt": b""})
    said = error_of(data.load, "imagenet", "gs://fake/gone", "classification")
    assert said == "gs://fake/gone: no such folder; check the path"
    said = error_of(data.load, "imagenet", "gs://fake/x.txt", "classification")
    assert said.startswith("gs://fake/x.txt: is a file; ")
    assert error_of(zip_files, "gs://fake/bad.zip").startswith("gs://fake/bad.zip: not a readable")
    assert error_of(zip_files, "gs://fake/no.zip").startswith("gs://fake/no.zip: no such file")
    files = folder_files("gs://fake")
    assert error_of(files.read, "no.png").startswith("gs://fake/no.png: no such file")
    list_set(bucket / "set")
    (bucket / "set/labels/train1.png").unlink()
    findings = Findings()
    data.read("list_folder", "gs://fake/set", "segmentation", findings)
    (fault,) = findings.faults
    assert fault.startswith("gs://fake/set/labels/train1.png: listed in gs://fake/set/train_lab")


class Forbidden(Exception):
    """What no program expects."""


def test_a_bucket_that_cannot_be_reached_is_one_line(made, monkeypatch):
    name, task, _ = made
    found = data.load(name, "gs://fake/set", task)

    def refuse(*args, **options):
        raise Forbidden("401:\n  anonymous caller")

    for verb in ("info", "ls", "cat_file"):
        monkeypatch.setattr(_registry["gs"], verb, refuse)
    for act in (lambda: data.load(name, "gs://fake/set", task), lambda: found.train[0]):
        said = error_of(act)
        assert said.startswith("gs://fake/set")
        assert "cannot be reached (401: anonymous caller); check the address" in said


def test_a_package_that_is_missing_is_named(monkeypatch):
    def missing(scheme, **options):
        raise ImportError("Please install gcsfs to access Google Storage")

    places._file_system.cache_clear()
    monkeypatch.setattr(fsspec, "filesystem", missing)
    said = error_of(data.load, "imagenet", "gs://fake/set", "classification")
    assert "a package is missing (Please install gcsfs" in said
    assert said.endswith("gs:// needs `pip install gcsfs`, s3:// s3fs, az:// adlfs")


def test_the_commands_take_a_bucket(bucket, tmp_path, monkeypatch, capsys):
    list_set(bucket / "set")

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["data", *map(str, args)])
        with pytest.raises(SystemExit) as stopped:
            command.main()
        printed = capsys.readouterr()
        assert printed.err.count("\n") == bool(printed.err)
        return stopped.value.code, printed.err

    assert run("check", "list_folder", "--dir=gs://fake/set") == (0, "")
    out = tmp_path / "sheet.png"
    assert run("show", "list_folder", "--dir=gs://fake/set", "--out", out) == (0, "")
    assert out.exists()
    args = "prepare", "list_folder", "--source=gs://fake/set"
    assert run(*args, "--data_dir", tmp_path / "prepared") == (0, "")
    prepared = data.load("list_folder", str(tmp_path / "prepared"), "segmentation")
    assert_same(prepared, data.load("list_folder", "gs://fake/set", "segmentation"))
    status, said = run(*args, "--data_dir=gs://fake/prepared")
    assert status == 1
    assert said.startswith("error: --data_dir=gs://fake/prepared: array_record writes to disks")
    status, said = run("check", "digit_scenes", "--dir=gs://fake/digits")
    assert status == 1
    assert "digit_scenes is made on each machine" in said


@pytest.mark.parametrize("kind", ["folder", "lists"])
def test_a_prepared_set_is_read_in_place(kind, record_bucket, tmp_path):
    name, task = KINDS[kind](tmp_path / "set")
    expected = data.load(name, str(tmp_path / "set"), task)
    prepare.prepare(name, expected, expected.splits, record_bucket / "prepared")
    for address in ("gs://fake/prepared", f"gs://fake/prepared/{name}/{records.VERSION}"):
        found = data.load(name, address, task)
        assert_same(found, expected)
    assert_same(pickle.loads(pickle.dumps(found)), expected)
    assert found.train.where(0).startswith(f"gs://fake/prepared/{name}/{records.VERSION}/train, ")
    with ThreadPoolExecutor(4) as pool:
        examples = list(pool.map(found.train.__getitem__, [0, 1, 2] * 8))
    for i, example in enumerate(examples):
        np.testing.assert_array_equal(example["image"], expected.train[i % 3]["image"])
    said = error_of(data.load, name, "s3://fake/prepared", task)
    assert "array_record reads its files from a disk or from gs:// only" in said
    next(record_bucket.rglob("*-train.*")).unlink()
    assert ": missing; delete gs://fake/prepared" in error_of(
        data.load, name, "gs://fake/prepared", task
    )


def test_maps_are_written_and_read_there(record_bucket):
    def numbered(count):
        for i in range(count):
            rng = np.random.default_rng(i)
            mask = rng.integers(0, 9, (8, 12), np.uint8)
            yield {"map": rng.normal(size=(2, 3, 4)), "mask": mask, "index": np.array(i)}

    assert not map_records.is_complete("gs://fake/run/maps/x")
    splits = {"train": numbered(5), "validation": numbered(2)}
    size = map_records.write("gs://fake/run/maps/x", splits, {"format": 1})
    assert size == sum(file.stat().st_size for file in (record_bucket / "run/maps/x").iterdir())
    assert map_records.is_complete("gs://fake/run/maps/x")
    for source, count in zip(map_records.sources("gs://fake/run/maps/x"), (5, 2), strict=True):
        assert len(source) == count
        for i, expected in enumerate(numbered(count)):
            np.testing.assert_array_equal(source[i]["map"], expected["map"])
            np.testing.assert_array_equal(source[i]["mask"], expected["mask"])
    said = error_of(map_records.write, "s3://fake/run/maps/x", splits, {})
    assert said.startswith("s3://fake/run/maps/x: array_record reads its files from")

"""`python -m drn_jax.data`: list, prepare, check, show, as their user sees them."""

import io
import json
import re
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drn_jax import data
from drn_jax.data import __main__ as command
from drn_jax.data import prepare
from drn_jax.data.sources import FileSource
from drn_jax.errors import UserError

SHARED = Path(__file__).parents[3] / "shared"


@pytest.fixture
def run(monkeypatch, capsys):
    """`run(*args)`: exit status, output and error lines of the command."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["data", *map(str, args)])
        with pytest.raises(SystemExit) as stopped:
            command.main()
        printed = capsys.readouterr()
        return stopped.value.code, printed.out, printed.err

    return run


def picture(rng, shape=(24, 32)):
    return rng.integers(0, 256, (*shape, 3), dtype=np.uint8)


@pytest.fixture
def lists(tmp_path):
    """A folder in the lists of fyu/drn: 14 training and 4 validation images."""
    rng = np.random.default_rng(0)
    top = tmp_path / "lists"
    for split, count in (("train", 14), ("val", 4)):
        (top / "images" / split).mkdir(parents=True)
        (top / "labels" / split).mkdir(parents=True)
        names = [f"{split}{i:02d}" for i in range(count)]
        for name in names:
            Image.fromarray(picture(rng)).save(top / f"images/{split}/{name}.jpg")
            mask = rng.integers(0, 4, (24, 32)).astype(np.uint8)
            mask[mask == 3] = 255
            Image.fromarray(mask).save(top / f"labels/{split}/{name}.png")
        for kind, suffix in (("images", "jpg"), ("labels", "png")):
            lines = [f"{kind}/{split}/{name}.{suffix}\n" for name in names]
            (top / f"{split}_{kind}.txt").write_text("".join(lines))
    info = {"mean": [0.5] * 3, "std": [0.25] * 3, "classes": ["road", "sky", "car"]}
    (top / "info.json").write_text(json.dumps(info))
    return top


def ten_faults_in_lists(top):
    """Spoils a folder of lists in ten ways; for each, what must be said."""
    images = (top / "train_images.txt").read_text().split()
    labels = (top / "train_labels.txt").read_text().split()
    mask = np.array(Image.open(top / labels[3]))
    (top / images[0]).unlink()
    (top / labels[1]).unlink()
    (top / images[2]).write_bytes((top / images[2]).read_bytes()[:-400])
    mask[0, 0] = 77
    Image.fromarray(mask).save(top / labels[3])
    (top / labels[4]).write_bytes(b"no image")
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(top / labels[5])
    Image.fromarray(np.zeros((*mask.shape, 3), np.uint8)).save(top / labels[6])
    (top / images[7]).write_bytes(b"")
    validation = (top / "val_images.txt").read_text().split()
    images[8] = images[9]
    labels[8] = labels[9]
    val_labels = (top / "val_labels.txt").read_text().split()
    validation[0], val_labels[0] = images[10], labels[10]
    (top / "train_images.txt").write_text("\n".join(images))
    (top / "train_labels.txt").write_text("\n".join(labels))
    (top / "val_images.txt").write_text("\n".join(validation))
    (top / "val_labels.txt").write_text("\n".join(val_labels))
    return (
        rf"{images[0]}.*missing",
        rf"{labels[1]}.*missing",
        rf"{images[2]}: the image is damaged",
        rf"{labels[3]}: value 77 at row 0, column 0",
        rf"{labels[4]}: not an image",
        rf"{labels[5]}.* 5x5",
        rf"{labels[6]}: .*colour image",
        rf"{images[7]}: not an image",
        rf"train_images\.txt: line 10: {images[9]} is listed before",
        rf"train_images\.txt: line 11: {images[10]} is listed before, in .*val_images",
    )


def write_tiny(path, classes=("n01", "n02"), count=8):
    """A .zip in Tiny-ImageNet's layout."""
    rng = np.random.default_rng(1)
    with zipfile.ZipFile(path, "w") as archive:

        def image(name):
            stored = io.BytesIO()
            Image.fromarray(picture(rng, (64, 64))).save(stored, "jpeg")
            archive.writestr(f"tiny/{name}", stored.getvalue())

        archive.writestr("tiny/wnids.txt", "\n".join(classes))
        archive.writestr("tiny/words.txt", "\n".join(f"{w}\tname of {w}, other" for w in classes))
        for wnid in classes:
            names = [f"{wnid}_{i}.JPEG" for i in range(count)]
            for name in names:
                image(f"train/{wnid}/images/{name}")
            lines = "".join(f"{name}\t0\t1\t60\t61\n" for name in names)
            archive.writestr(f"tiny/train/{wnid}/{wnid}_boxes.txt", lines)
        names = [f"val_{i}.JPEG" for i in range(4)]
        for name in names:
            image(f"val/images/{name}")
        lines = "".join(f"{n}\t{classes[i % 2]}\t0\t0\t63\t63\n" for i, n in enumerate(names))
        archive.writestr("tiny/val/val_annotations.txt", lines)


def ten_faults_in_zip(source, target):
    """A copy of a Tiny-ImageNet .zip, spoiled in ten ways; for each, what must be said."""
    with zipfile.ZipFile(source) as archive:
        files = {e.filename: archive.read(e) for e in archive.infolist() if not e.is_dir()}
    top = next(name for name in files if name.endswith("wnids.txt")).removesuffix("wnids.txt")
    first, second = sorted(files[f"{top}wnids.txt"].decode().split())[:2]
    boxes = f"{top}train/{first}/{first}_boxes.txt"
    rows = files[boxes].decode().splitlines()
    names = [row.split()[0] for row in rows]
    images = [f"{top}train/{first}/images/{name}" for name in names]
    other = f"{top}train/{second}/{second}_boxes.txt"
    others = files[other].decode().splitlines()
    validation = files[f"{top}val/val_annotations.txt"].decode().splitlines()
    del files[images[0]]
    files[images[1]] = files[images[1]][:-300]
    files[images[2]] = b"<html>404 not found</html>"
    files[images[3]] = b""
    rows[4] = f"{names[4]} 0 0 63"
    rows[5] = f"{names[5]} 0 0 80 63"
    rows[6] = f"{names[6]} 40 0 20 63"
    rows.append(rows[7])
    validation[0] = re.sub(r"n\d+", "n99999999", validation[0], count=1)
    files[boxes] = "\n".join(rows).encode()
    files[other] = "\n".join(others).encode()
    files[f"{top}val/val_annotations.txt"] = "\n".join(validation).encode()
    damaged = f"{top}train/{second}/images/{others[0].split()[0]}"
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    with zipfile.ZipFile(target) as archive:
        place = archive.getinfo(damaged).header_offset + 200
    with target.open("r+b") as file:  # A bit that toppled: only the checksum knows.
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))
    return (
        rf"{names[0]}.*missing",
        rf"{names[1]}: the image is damaged",
        rf"{names[2]}: not an image",
        rf"{names[3]}: not an image",
        rf"{first}_boxes\.txt.*line 5",
        rf"{names[5]}.*80",
        rf"{names[6]}.*40",
        rf"{names[7]}.*(twice|already|again)",
        r"n99999999",
        rf"{Path(damaged).name}: damaged \(checksum",
    )


def assert_all_found(output, status, said):
    faults = [line for line in output.splitlines() if line.startswith("fault: ")]
    assert status == 1
    for pattern in said:
        assert any(re.search(pattern, fault) for fault in faults), (pattern, faults)
    assert len(faults) == len(said), faults
    assert f"check failed: {len(said)} faults" in output


def test_check_passes_a_sound_set_and_counts_what_it_holds(run, lists):
    status, out, err = run("check", "list_folder", "--dir", lists)
    assert (status, err) == (0, "")
    assert "check passed: 0 faults, 0 warnings" in out
    assert re.search(r"train\W+14\W+24 x 32", out)
    masks = [np.array(Image.open(path)) for path in (lists / "labels/train").iterdir()]
    road = sum(int((mask == 0).sum()) for mask in masks)
    labelled = sum(int((mask != 255).sum()) for mask in masks)
    assert f"{road:,} ({road / labelled:.2%})" in out


def test_check_finds_ten_faults_of_different_kinds_in_lists(run, lists):
    said = ten_faults_in_lists(lists)
    status, out, err = run("check", "list_folder", "--dir", lists)
    assert err == ""
    assert_all_found(out, status, said)


def test_check_finds_ten_faults_of_different_kinds_in_a_zip(run, tmp_path):
    write_tiny(tmp_path / "tiny.zip")
    status, out, _ = run("check", "tiny_imagenet", "--dir", tmp_path / "tiny.zip")
    assert (status, "check passed" in out) == (0, True)
    said = ten_faults_in_zip(tmp_path / "tiny.zip", tmp_path / "spoiled.zip")
    status, out, err = run("check", "tiny_imagenet", "--dir", tmp_path / "spoiled.zip")
    assert err == ""
    assert_all_found(out, status, said)


@pytest.mark.skipif(not (SHARED / "camvid").exists(), reason="CamVid is not here")
def test_check_finds_ten_faults_in_a_copy_of_camvid(run, tmp_path):
    shutil.copytree(SHARED / "camvid", tmp_path / "camvid")
    said = ten_faults_in_lists(tmp_path / "camvid")
    status, out, _ = run("check", "camvid", "--dir", tmp_path / "camvid")
    assert_all_found(out, status, said)


@pytest.mark.skipif(not (SHARED / "tiny-imagenet-50.zip").exists(), reason="the .zip is not here")
def test_check_finds_ten_faults_in_a_copy_of_tiny_imagenet(run, tmp_path):
    copy = tmp_path / "copy.zip"
    said = ten_faults_in_zip(SHARED / "tiny-imagenet-50.zip", copy)
    status, out, _ = run("check", "tiny_imagenet", "--dir", copy)
    assert_all_found(out, status, said)


def test_training_is_refused_with_the_first_fault_and_the_command_that_lists_all(lists):
    (lists / "images/train/train03.jpg").unlink()
    (lists / "labels/val/val01.png").unlink()
    with pytest.raises(UserError) as caught:
        data.load("list_folder", str(lists), "segmentation")
    assert "val01.png" in str(caught.value)
    assert f"`python -m drn_jax.data check list_folder --dir {lists}` lists them" in str(
        caught.value
    )


def test_a_set_is_prepared_once_checked_and_loaded_by_its_name(run, lists, tmp_path):
    place = tmp_path / "prepared"
    status, out, err = run("prepare", "list_folder", "--source", lists, "--data_dir", place)
    assert (status, err) == (0, "")
    assert "14 for train, 4 for validation" in out
    assert f"--config.data.name=list_folder --config.data.dir={place}" in out
    found = data.load("list_folder", str(place), "segmentation")
    raw = data.load("list_folder", str(lists), "segmentation")
    for split in ("train", "validation"):
        pairs = zip(found.splits[split], raw.splits[split], strict=True)
        for one, other in pairs:
            for key in ("image", "mask"):
                np.testing.assert_array_equal(one[key], other[key])
    status, out, _ = run("check", "list_folder", "--dir", place)
    assert (status, "check passed: 0 faults, 0 warnings" in out) == (0, True)
    status, out, _ = run("prepare", "list_folder", "--source", lists, "--data_dir", place)
    assert (status, "is there already" in out) == (0, True)


def test_a_set_that_is_there_is_not_described_by_what_was_not_written(run, lists, tmp_path):
    arguments = ("prepare", "list_folder", "--source", lists, "--data_dir", tmp_path / "prepared")
    run(*arguments)
    for kind in ("images", "labels"):
        path = lists / f"train_{kind}.txt"
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:5]))
    status, out, _ = run(*arguments)
    assert (status, len(out.splitlines())) == (0, 1)
    assert "delete it to prepare list_folder anew" in out


def test_an_interrupted_check_ends_without_a_traceback(run, lists, monkeypatch):
    def stopping(source, index):
        raise KeyboardInterrupt

    monkeypatch.setattr(FileSource, "__getitem__", stopping)
    status, out, err = run("check", "list_folder", "--dir", lists)
    assert (status, out, err) == (130, "stopped\n", "")


def test_an_interrupted_preparation_says_how_to_go_on_and_is_not_trained_on(
    run, lists, tmp_path, monkeypatch
):
    monkeypatch.setattr(prepare, "SHARD_BYTES", 2000)
    calls = []
    record = FileSource.record

    def stopping(source, index):
        calls.append(index)
        if len(calls) == 20:
            raise KeyboardInterrupt
        return record(source, index)

    monkeypatch.setattr(FileSource, "record", stopping)
    place = tmp_path / "prepared"
    status, out, err = run("prepare", "list_folder", "--source", lists, "--data_dir", place)
    assert (status, err) == (130, "")
    assert "the same command goes on" in out
    status, _, err = run("check", "list_folder", "--dir", place)
    assert status == 1
    assert "was not finished; run the same command again" in err
    status, out, _ = run("prepare", "list_folder", "--source", lists, "--data_dir", place)
    assert status == 0
    assert re.search(r"train: \d+ of \d+ shards are there already", out)
    assert len(data.load("list_folder", str(place), "segmentation").train) == 14


def test_faults_stop_a_preparation_unless_the_user_leaves_them_out(run, lists, tmp_path):
    (lists / "images/train/train03.jpg").unlink()
    arguments = ("prepare", "list_folder", "--source", lists, "--data_dir", tmp_path / "prepared")
    status, _, err = run(*arguments)
    assert status == 1
    assert "train03.jpg" in err
    assert not (tmp_path / "prepared").exists()
    status, out, _ = run(*arguments, "--partial")
    assert status == 0
    assert "faults, left out (1)" in out
    assert len(data.load("list_folder", str(tmp_path / "prepared"), "segmentation").train) == 13


def test_a_partial_preparation_leaves_out_what_cannot_be_decoded(run, lists, tmp_path):
    raw = list(data.load("list_folder", str(lists), "segmentation").train)
    for name in ("images/train/train03.jpg", "labels/train/train05.png", "labels/val/val01.png"):
        (lists / name).write_bytes((lists / name).read_bytes()[:-80])
    place = tmp_path / "prepared"
    arguments = ("--source", lists, "--data_dir", place, "--partial")
    status, out, err = run("prepare", "list_folder", *arguments)
    assert (status, err) == (0, "")
    assert "faults, left out (3)" in out
    assert "12 for train, 3 for validation" in out
    found = data.load("list_folder", str(place), "segmentation")
    kept = [i for i in range(14) if i not in (3, 5)]
    for one, index in zip(found.train, kept, strict=True):
        np.testing.assert_array_equal(one["mask"], raw[index]["mask"])
    assert run("check", "list_folder", "--dir", place)[0] == 0


def test_a_partial_preparation_needs_something_that_is_left(run, lists, tmp_path):
    for path in (lists / "labels/val").iterdir():
        path.write_bytes(path.read_bytes()[:-80])
    arguments = ("--source", lists, "--data_dir", tmp_path / "prepared", "--partial")
    status, _, err = run("prepare", "list_folder", *arguments)
    assert (status, len(err.splitlines())) == (1, 1)
    assert "nor any other of its split" in err


def test_show_draws_images_masks_and_a_key(run, lists, tmp_path):
    out = tmp_path / "sheets" / "lists.png"
    status, printed, err = run(
        "show", "list_folder", "--dir", lists, "--out", out, "--count", "5", "--split", "validation"
    )
    assert (status, err) == (0, "")
    with Image.open(out) as sheet:
        assert printed == f"{out}: {sheet.width}x{sheet.height} pixels\n"
        assert sheet.width > 3 * 2 * 224


@pytest.mark.parametrize("name", data.DATASETS)
def test_list_says_of_every_set_what_to_download_where_to_put_it_and_the_licence(run, name):
    status, out, err = run("list", name)
    assert (status, err) == (0, "")
    assert out.startswith(f"{name}: ")
    for field in ("classes", "for", "download", "place", "licence"):
        assert re.search(rf"^  {field} +\S", out, re.MULTILINE), field
    assert out in run("list")[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("list", "camvit"), "unknown data set 'camvit': did you mean camvid"),
        (("check", "camvid"), "data set camvid: give --dir=FOLDER"),
        (("check", "camvid", "--dir=nowhere"), "nowhere"),
        (("show", "digit_scenes", "--task=counting"), "no labels for counting"),
        (("prepare", "camvid", "--data_dir=x"), "data set camvid: give --source=FOLDER"),
        (("prepare", "camvid", "--data_dir=x", "--source=nowhere"), "nowhere"),
    ],
)
def test_a_mistake_is_one_line(run, arguments, said):
    status, out, err = run(*arguments)
    assert (status, out) == (1, "")
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert said in line


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--split=trian", "did you mean train?"),
        ("--count=0", "--count=0: must be at least 1"),
        ("--out=/dev/null/x.png", "--out=/dev/null/x.png: cannot be written"),
    ],
)
def test_a_mistake_in_showing_is_one_line(run, lists, option, said):
    status, _, err = run("show", "list_folder", f"--dir={lists}", option)
    assert status == 1
    (line,) = err.splitlines()
    assert said in line

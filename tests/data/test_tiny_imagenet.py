"""Tiny-ImageNet: folder and .zip are the same set; boxes become pixel edges."""

import io
import pickle
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drn_jax.data import tiny_imagenet
from drn_jax.errors import UserError

ARCHIVE = Path(__file__).resolve().parents[3] / "shared" / "tiny-imagenet-50.zip"
WNIDS = ("n02", "n01")
WORDS = "n00\tentity\nn01\tgoldfish, Carassius auratus\nn02\tLabrador retriever\n"


def png(seed: int, grey: bool = False) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if grey else pixels).save(buffer, "PNG")
    return buffer.getvalue()


def layout() -> dict[str, bytes]:
    """Two classes of two training images and one validation image, by name."""
    files = {"wnids.txt": "\n".join(WNIDS).encode(), "words.txt": WORDS.encode()}
    for k, wnid in enumerate(WNIDS):
        rows = []
        for i in range(2):
            files[f"train/{wnid}/images/{wnid}_{i}.JPEG"] = png(10 * k + i, grey=i == 1)
            rows.append(f"{wnid}_{i}.JPEG\t{i}\t{k}\t63\t{20 + k}\n")
        files[f"train/{wnid}/{wnid}_boxes.txt"] = "".join(rows).encode()
    files["val/images/val_7.JPEG"] = png(7)
    files["val/val_annotations.txt"] = b"val_7.JPEG\tn01\t0\t0\t63\t63\n"
    return files


def write_folder(root: Path, files: dict[str, bytes]) -> str:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return str(root)


def write_zip(path: Path, files: dict[str, bytes], top: str, method: int) -> str:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(top + name, data)
    return str(path)


@pytest.fixture(params=["folder", "stored", "deflated", "topless"])
def write(request, tmp_path):
    """Write the files as a folder or one of the forms of a .zip; returns the path."""

    def write(files: dict[str, bytes]) -> str:
        if request.param == "folder":
            return write_folder(tmp_path / "tiny", files)
        method = zipfile.ZIP_DEFLATED if request.param == "deflated" else zipfile.ZIP_STORED
        top = "" if request.param == "topless" else "tiny/"
        return write_zip(tmp_path / "tiny.zip", files, top, method)

    return write


def load_error(path: str) -> str:
    with pytest.raises(UserError) as caught:
        tiny_imagenet.load(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_folder_and_zip_give_the_published_examples(write):
    data = tiny_imagenet.load(write(layout()))
    assert data.name == "tiny"
    assert data.classes == ("goldfish", "Labrador retriever")
    assert (len(data.train), len(data.validation)) == (4, 1)
    assert data.validation_sizes is None
    read = [data.train[i] for i in range(4)]
    assert [int(example["label"]) for example in read] == [0, 0, 1, 1]
    # n01 is the second of wnids.txt, so its pictures are 10 and 11; the odd ones are grey.
    for example, seed in zip(read, (10, 11, 0, 1), strict=True):
        pixels = np.asarray(Image.open(io.BytesIO(png(seed, grey=seed % 2 == 1))).convert("RGB"))
        np.testing.assert_array_equal(example["image"], pixels)
        assert example["label"].dtype == np.int32
        assert example["box"].dtype == np.float32
    np.testing.assert_array_equal(read[0]["box"], [0, 1, 64, 22])
    np.testing.assert_array_equal(read[3]["box"], [1, 0, 64, 21])


def test_box_of_the_whole_image_covers_its_edges(write):
    example = tiny_imagenet.load(write(layout())).validation[0]
    np.testing.assert_array_equal(example["box"], [0, 0, 64, 64])
    assert example["label"] == 0


def test_source_survives_pickling_and_eight_threads(write):
    source = tiny_imagenet.load(write(layout())).train
    expected = [source[i]["image"].tobytes() for i in range(4)]
    copy = pickle.loads(pickle.dumps(source))
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda i: copy[i % 4]["image"].tobytes(), range(200)))
    assert read == expected * 50


def test_changing_an_example_does_not_change_the_source(write):
    source = tiny_imagenet.load(write(layout())).train
    source[0]["box"][:] = 0
    np.testing.assert_array_equal(source[0]["box"], [0, 1, 64, 22])


@pytest.mark.parametrize(
    "name", ["wnids.txt", "words.txt", "train/n02/n02_boxes.txt", "val/val_annotations.txt"]
)
def test_missing_part_of_the_layout_is_named(write, name):
    files = layout()
    del files[name]
    path = write(files)
    message = load_error(path)
    assert path in message
    assert name in message


def test_annotated_image_that_is_missing_is_named(write):
    files = layout()
    del files["train/n02/images/n02_1.JPEG"]
    assert "train/n02/images/n02_1.JPEG: annotated but missing" in load_error(write(files))


@pytest.mark.parametrize(
    ("name", "text", "parts"),
    [
        ("train/n02/n02_boxes.txt", "n02_0.JPEG\t0\t0\t63\t63\nn02_1.JPEG\t0\t0\t63\n", ["line 2"]),
        ("train/n02/n02_boxes.txt", "n02_0.JPEG\t0\t0\t63\tx\n", ["line 1", "63\tx"]),
        ("train/n02/n02_boxes.txt", "", ["no image"]),
        ("val/val_annotations.txt", "val_7.JPEG\t0\t0\t63\t63\n", ["line 1", "name wnid x1"]),
        ("val/val_annotations.txt", "val_7.JPEG\tn09\t0\t0\t63\t63\n", ["val_7.JPEG", "n09"]),
        ("words.txt", "n01\tgoldfish\n", ["n02"]),
        ("wnids.txt", "", ["no class"]),
        ("wnids.txt", "n01\nn02\nn01\n", ["twice"]),
    ],
)
def test_malformed_lists_are_named_with_line_and_value(write, name, text, parts):
    message = load_error(write(layout() | {name: text.encode()}))
    for part in (name, *parts):
        assert part in message


def test_neither_folder_nor_zip_is_named(tmp_path):
    assert f"{tmp_path / 'gone.zip'}: no such" in load_error(str(tmp_path / "gone.zip"))
    (tmp_path / "text.zip").write_text("text")
    assert f"{tmp_path / 'text.zip'}: neither a folder" in load_error(str(tmp_path / "text.zip"))
    path = write_zip(tmp_path / "other.zip", {"readme.md": b"hi"}, "top/", zipfile.ZIP_STORED)
    assert f"{path}: holds no wnids.txt" in load_error(path)
    path = write_zip(tmp_path / "packed.zip", layout(), "tiny/", zipfile.ZIP_BZIP2)
    assert f"{path}/tiny/wnids.txt: encrypted, or compressed" in load_error(path)


def test_damaged_zip_is_found_by_its_checksum(tmp_path):
    path = Path(write_zip(tmp_path / "tiny.zip", layout(), "tiny/", zipfile.ZIP_STORED))
    source = tiny_imagenet.load(str(path)).train
    data = path.read_bytes()
    place = data.index(png(10)) + 5000
    path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    with pytest.raises(UserError, match=r"train/n01/images/n01_0\.JPEG: damaged"):
        source[0]
    source[1]


@pytest.mark.skipif(not ARCHIVE.exists(), reason="the archive is not here")
def test_the_archive_of_fifty_classes_reads():
    data = tiny_imagenet.load(str(ARCHIVE))
    assert (len(data.classes), len(data.train), len(data.validation)) == (50, 20000, 2500)
    with zipfile.ZipFile(ARCHIVE) as archive:
        for i in (0, 9999, 19999):
            name = f"{ARCHIVE.stem}/{data.train.names[i]}"
            pixels = np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB"))
            np.testing.assert_array_equal(data.train[i]["image"], pixels)
    boxes = np.concatenate([data.train.boxes, data.validation.boxes])
    assert boxes.min() == 0
    assert boxes.max() == 64
    assert (boxes[:, 2:] > boxes[:, :2]).all()

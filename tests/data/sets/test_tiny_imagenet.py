"""Tiny-ImageNet: folder and .zip are the same set; boxes become pixel edges."""

import io
import pickle
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drn_jax.data.dataset import Dataset
from drn_jax.data.files import FolderFiles
from drn_jax.data.findings import Findings
from drn_jax.data.sets import tiny_imagenet
from drn_jax.data.zips import ZipFiles
from drn_jax.errors import UserError

ARCHIVE = Path(__file__).resolve().parents[4] / "shared" / "tiny-imagenet-50.zip"
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


def read(path: str) -> Dataset:
    """The set, which has no fault."""
    findings = Findings()
    data = tiny_imagenet.read(path, findings)
    assert (findings.faults, findings.warnings) == ([], {})
    return data


def faults(path: str) -> tuple[Dataset, list[str]]:
    findings = Findings()
    data = tiny_imagenet.read(path, findings)
    assert all("\n" not in fault for fault in findings.faults)
    return data, findings.faults


def read_error(path: str) -> str:
    with pytest.raises(UserError) as caught:
        tiny_imagenet.read(path, Findings())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_training_images_are_listed_in_one_scan(write, monkeypatch):
    files = layout()
    files["train/n00/images/n00_0.JPEG"] = files["train/n01/more/n01_2.JPEG"] = png(9)
    path = write(files)
    scans = []
    for kind in (FolderFiles, ZipFiles):

        def under(self, folder, under=kind.under):
            scans.append(folder)
            return under(self, folder)

        monkeypatch.setattr(kind, "under", under)
    assert len(read(path).train) == 4
    assert sorted(scans) == ["train", "val/images"]


def test_folder_and_zip_give_the_published_examples(write):
    data = read(write(layout()))
    assert data.name == "tiny"
    assert data.classes == ("goldfish", "Labrador retriever")
    assert (len(data.train), len(data.validation)) == (4, 1)
    assert data.validation_sizes() is None
    examples = [data.train[i] for i in range(4)]
    assert [int(example["label"]) for example in examples] == [0, 0, 1, 1]
    # n01 is the second of wnids.txt, so its pictures are 10 and 11; the odd ones are grey.
    for example, seed in zip(examples, (10, 11, 0, 1), strict=True):
        pixels = np.asarray(Image.open(io.BytesIO(png(seed, grey=seed % 2 == 1))).convert("RGB"))
        np.testing.assert_array_equal(example["image"], pixels)
        assert example["label"].dtype == np.int32
        assert example["boxes"].dtype == np.float32
    np.testing.assert_array_equal(examples[0]["boxes"], [[0, 1, 64, 22]])
    np.testing.assert_array_equal(examples[3]["boxes"], [[1, 0, 64, 21]])


def test_box_of_the_whole_image_covers_its_edges(write):
    example = read(write(layout())).validation[0]
    np.testing.assert_array_equal(example["boxes"], [[0, 0, 64, 64]])
    assert example["label"] == 0


def test_source_survives_pickling_and_eight_threads(write):
    source = read(write(layout())).train
    expected = [source[i]["image"].tobytes() for i in range(4)]
    copy = pickle.loads(pickle.dumps(source))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: copy[i % 4]["image"].tobytes(), range(200)))
    assert found == expected * 50


def test_changing_an_example_does_not_change_the_source(write):
    source = read(write(layout())).train
    source[0]["boxes"][:] = 0
    np.testing.assert_array_equal(source[0]["boxes"], [[0, 1, 64, 22]])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("wnids.txt", None),
        ("wnids.txt", ""),
        ("words.txt", None),
        ("val/val_annotations.txt", None),
        ("val/val_annotations.txt", "val_8.JPEG\tn01\t0\t0\t63\t63\n"),
    ],
)
def test_without_that_part_of_the_layout_nothing_is_read(write, name, text):
    files = layout()
    del files[name]
    path = write(files if text is None else files | {name: text.encode()})
    message = read_error(path)
    assert path in message
    assert name.split("/")[0] in message


def test_a_class_without_annotations_is_a_fault_and_the_others_are_read(write):
    files = layout()
    del files["train/n02/n02_boxes.txt"]
    data, (fault,) = faults(write(files))
    assert "train/n02/n02_boxes.txt: missing" in fault
    assert [int(data.train[i]["label"]) for i in range(2)] == [0, 0]


def test_annotated_image_that_is_missing_is_a_fault_and_the_rest_is_read(write):
    files = layout()
    del files["train/n02/images/n02_1.JPEG"]
    data, (fault,) = faults(write(files))
    assert "train/n02/images/n02_1.JPEG: annotated but missing" in fault
    assert "n02_boxes.txt: line 2" in fault
    assert len(data.train) == 3


def test_images_without_annotation_are_warned_of(write):
    findings = Findings()
    extra = {"val/images/val_8.JPEG": png(8), "train/n02/images/n02_7.JPEG": png(9)}
    data = tiny_imagenet.read(write(layout() | extra), findings)
    assert findings.faults == []
    (kind,) = findings.warnings
    assert kind == "images without annotation"
    assert sorted(text[-10:] for text in findings.warnings[kind]) == ["n02_7.JPEG", "val_8.JPEG"]
    assert (len(data.train), len(data.validation)) == (4, 1)


def test_train_folders_that_are_not_listed_and_the_test_split_are_passed_over(write):
    extra = {"train/n09/images/n09_0.JPEG": png(8), "test/images/test_0.JPEG": png(9)}
    data = read(write(layout() | extra))
    assert data.test is None
    assert len(data.train) == 4


def test_an_image_annotated_twice_is_a_fault_and_read_once(write):
    name = "train/n02/n02_boxes.txt"
    files = layout()
    files[name] += b"n02_0.JPEG\t9\t9\t63\t63\n"
    data, (fault,) = faults(write(files))
    assert f"{name}: line 3: n02_0.JPEG is annotated twice" in fault
    np.testing.assert_array_equal(data.train[2]["boxes"], [[0, 0, 64, 21]])


@pytest.mark.parametrize("box", ["9 9 9 30", "9 9 30 9", "63 63 63 63"])
def test_boxes_that_start_and_end_on_one_pixel_are_kept_with_a_warning(write, box):
    findings = Findings()
    line = f"val_7.JPEG n01 {box}\n".encode()
    data = tiny_imagenet.read(write(layout() | {"val/val_annotations.txt": line}), findings)
    assert findings.faults == []
    assert "line 1: val_7.JPEG" in findings.warnings["boxes without area"][0]
    x1, y1, x2, y2 = map(int, box.split())
    np.testing.assert_array_equal(data.validation[0]["boxes"], [[x1, y1, x2 + 1, y2 + 1]])


@pytest.mark.parametrize(
    ("box", "part"),
    [
        ("30 0 9 63", "ends before it begins"),
        ("0 30 63 9", "ends before it begins"),
        ("-1 0 63 63", "leaves the image"),
        ("0 0 63 64", "leaves the image"),
    ],
)
def test_boxes_the_wrong_way_round_or_outside_are_faults(write, box, part):
    line = f"val_7.JPEG n01 {box}\nval_8.JPEG n02 0 0 63 63\n".encode()
    extra = {"val/val_annotations.txt": line, "val/images/val_8.JPEG": png(8)}
    data, (fault,) = faults(write(layout() | extra))
    assert "val/val_annotations.txt: line 1: val_7.JPEG" in fault
    assert part in fault
    assert data.validation.names == ("val/images/val_8.JPEG",)


@pytest.mark.parametrize(
    ("name", "text", "parts"),
    [
        ("train/n02/n02_boxes.txt", "n02_0.JPEG\t0\t0\t63\t63\nn02_1.JPEG\t0\t0\t63\n", ["line 2"]),
        ("train/n02/n02_boxes.txt", "n02_0.JPEG\t0\t0\t63\tx\n", ["line 1", "63\tx"]),
        ("train/n02/n02_boxes.txt", "", ["no image"]),
        ("val/val_annotations.txt", "val_7.JPEG\t0\t0\t63\t63\n", ["line 1", "name wnid x1"]),
        ("val/val_annotations.txt", "val_7.JPEG\tn09\t0\t0\t63\t63\n", ["val_7.JPEG", "n09"]),
        ("words.txt", "n01\tgoldfish\n", ["n02"]),
        ("wnids.txt", "n01\nn02\nn01\n", ["n01 twice"]),
    ],
)
def test_malformed_lines_are_faults_with_line_and_value_and_the_rest_is_read(
    write, name, text, parts
):
    more = {"val/images/val_8.JPEG": png(8)} if "val" in name else {}
    text += "val_8.JPEG n02 0 0 63 63\n" if more else ""
    data, (fault,) = faults(write(layout() | more | {name: text.encode()}))
    for part in (name, *parts):
        assert part in fault
    assert len(data.train) >= 2
    assert len(data.validation) == 1
    assert len(data.classes) == 2


@pytest.mark.parametrize(
    "below", ["tiny-imagenet-200", "tiny-imagenet-200.zip", "part.zip", "part"]
)
def test_a_folder_that_holds_the_set_will_do(tmp_path, below):
    (tmp_path / "readme.txt").write_text("not this")
    if below.endswith(".zip"):
        write_zip(tmp_path / "readme.zip", {"readme.md": b"hi"}, "top/", zipfile.ZIP_STORED)
        write_zip(tmp_path / below, layout(), "tiny/", zipfile.ZIP_STORED)
    else:
        write_folder(tmp_path / below, layout())
    assert len(read(str(tmp_path)).train) == 4


def test_several_sets_in_a_folder_are_named_unless_one_has_the_usual_name(tmp_path):
    write_folder(tmp_path / "a", layout())
    write_zip(tmp_path / "b.zip", layout(), "", zipfile.ZIP_STORED)
    message = read_error(str(tmp_path))
    assert f"{tmp_path / 'a' / 'wnids.txt'} and {tmp_path / 'b.zip'}/wnids.txt" in message
    usual = layout() | {"words.txt": b"n01\tcrane, bird\nn02\tcrane\n"}
    write_zip(tmp_path / "tiny-imagenet-200.zip", usual, "tiny-imagenet-200/", zipfile.ZIP_STORED)
    assert read(str(tmp_path)).classes == ("crane (n01)", "crane (n02)")


def test_neither_folder_nor_zip_is_named(tmp_path):
    assert f"{tmp_path / 'gone.zip'}: no such" in read_error(str(tmp_path / "gone.zip"))
    (tmp_path / "text.zip").write_text("text")
    assert f"{tmp_path / 'text.zip'}: not a readable .zip" in read_error(str(tmp_path / "text.zip"))
    path = write_zip(tmp_path / "other.zip", {"readme.md": b"hi"}, "top/", zipfile.ZIP_STORED)
    assert f"{path}: holds no wnids.txt" in read_error(path)
    path = write_zip(tmp_path / "packed.zip", layout(), "tiny/", zipfile.ZIP_BZIP2)
    assert f"{path}/tiny/wnids.txt: encrypted, or compressed" in read_error(path)
    (tmp_path / "empty").mkdir()
    assert f"{tmp_path / 'empty'}: holds neither wnids.txt nor" in read_error(
        str(tmp_path / "empty")
    )


def test_damaged_zip_is_found_by_its_checksum(tmp_path):
    path = Path(write_zip(tmp_path / "tiny.zip", layout(), "tiny/", zipfile.ZIP_STORED))
    source = read(str(path)).train
    data = path.read_bytes()
    place = data.index(png(10)) + 5000
    path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    with pytest.raises(UserError, match=r"train/n01/images/n01_0\.JPEG: damaged"):
        source[0]
    source[1]


@pytest.mark.skipif(not ARCHIVE.exists(), reason="the archive is not here")
def test_the_archive_of_fifty_classes_reads():
    findings = Findings()
    data = tiny_imagenet.read(str(ARCHIVE), findings)
    assert findings.faults == []
    assert {kind: len(found) for kind, found in findings.warnings.items()} == {
        "boxes without area": 99
    }
    assert (len(data.classes), len(data.train), len(data.validation)) == (50, 20000, 2500)
    with zipfile.ZipFile(ARCHIVE) as archive:
        for i in (0, 9999, 19999):
            name = f"{ARCHIVE.stem}/{data.train.names[i]}"
            pixels = np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB"))
            np.testing.assert_array_equal(data.train[i]["image"], pixels)
    boxes = np.concatenate([*data.train.boxes, *data.validation.boxes])
    assert boxes.min() == 0
    assert boxes.max() == 64
    assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_a_name(write):
    files = {
        name: b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n") if name.endswith(".txt") else data
        for name, data in layout().items()
    }
    assert read(write(files)).classes == read(write(layout())).classes

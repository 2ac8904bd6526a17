"""fyu/drn's list layout: what is read, and that every way to get it wrong is one clear line."""

import json
import os
import pickle
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drn_jax.data import image
from drn_jax.data.dataset import Dataset
from drn_jax.data.findings import Findings
from drn_jax.data.labels.space import Class, Label, LabelSpace
from drn_jax.data.sets import list_folder
from drn_jax.errors import UserError

NAMES = ("road", "sky", "car")
INFO = {"mean": [0.4, 0.5, 0.6], "std": [0.1, 0.2, 0.3]}
STREETS = LabelSpace(
    "streets",
    "made up",
    classes=(Class("Road", (128, 64, 128)), Class("Sky", (0, 0, 9)), Class("Car", (0, 0, 142))),
    labels=(Label("road", None, 7, "Road"), Label("sky", None, 8, "Sky")),
    aliases={"automobile": "Car"},
)
CAMVID = Path(__file__).resolve().parents[4] / "shared" / "camvid"
CAMVID_NAMES = (
    "sky building pole road pavement tree sign fence car pedestrian bicyclist".split()  # noqa: SIM905
)


def picture(seed: int, height: int = 6, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def ids(seed: int, height: int = 6, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).choice(
        np.array([0, 1, 2, 255], np.uint8), size=(height, width)
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three training pairs and two validation pairs of 6x8."""
    root = tmp_path / "tiny-streets"
    for split, count in (("train", 3), ("val", 2)):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        names = [f"{i}.png" for i in range(count)]
        for i, name in enumerate(names):
            Image.fromarray(picture(i)).save(root / "images" / split / name)
            Image.fromarray(ids(i)).save(root / "labels" / split / name)
        for kind in ("images", "labels"):
            lines = [f"{kind}/{split}/{name}\n" for name in names]
            (root / f"{split}_{kind}.txt").write_text("".join(lines))
    (root / "info.json").write_text(json.dumps(INFO))
    return root


def error_of(function, *args) -> str:
    with pytest.raises(UserError) as caught:
        function(*args)
    message = str(caught.value)
    assert "\n" not in message
    return message


def read(folder: Path, classes=NAMES) -> Dataset:
    """The set, which has no fault."""
    findings = Findings()
    data = list_folder.read(str(folder), findings, classes)
    assert (findings.faults, findings.warnings) == ([], {})
    return data


def faults(folder: Path) -> tuple[Dataset, list[str]]:
    findings = Findings()
    data = list_folder.read(str(folder), findings, NAMES)
    assert all("\n" not in fault for fault in findings.faults)
    return data, findings.faults


def read_error(folder: Path, classes=NAMES) -> str:
    return error_of(list_folder.read, str(folder), Findings(), classes)


def write_lists(root: Path, split: str, images: list[str], labels: list[str]) -> Path:
    """Files of 6x8 by these names in `images` and `labels`, and the lists of them."""
    for kind, names in (("images", images), ("labels", labels)):
        for name in names:
            path = root / kind / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(1) if kind == "images" else ids(1)).save(path)
        lines = "".join(f"{kind}/{name}\n" for name in names)
        (root / f"{split}_{kind}.txt").write_text(lines)
    return root


def test_examples_are_the_listed_pairs_in_order(folder):
    data = read(folder)
    assert (len(data.train), len(data.validation)) == (3, 2)
    for source in (data.train, data.validation):
        for i in range(len(source)):
            example = source[i]
            assert set(example) == {"image", "mask"}
            np.testing.assert_array_equal(example["image"], picture(i))
            np.testing.assert_array_equal(example["mask"], ids(i))


def test_info_json_gives_statistics_names_and_colors(folder):
    data = read(folder)
    assert data.name == "tiny-streets"
    assert (data.mean, data.std) == ((0.4, 0.5, 0.6), (0.1, 0.2, 0.3))
    assert (data.classes, data.colors) == (NAMES, None)
    colors = [[0, 0, 0], [255, 0, 0], [1, 2, 3]]
    (folder / "info.json").write_text(json.dumps(INFO | {"classes": NAMES, "colors": colors}))
    data = read(folder, 3)
    assert data.classes == NAMES
    assert data.colors == ((0, 0, 0), (255, 0, 0), (1, 2, 3))


def test_a_number_of_classes_without_names_numbers_them(folder):
    assert read(folder, 3).classes == ("class 0", "class 1", "class 2")


def test_without_the_callers_word_info_json_must_name_the_classes(folder):
    assert f"{folder / 'info.json'}: field classes is missing" in read_error(folder, None)
    (folder / "info.json").write_text(json.dumps(INFO | {"classes": NAMES}))
    assert read(folder, None).classes == NAMES


def test_validation_sizes_are_given_only_where_they_differ(folder):
    assert read(folder).validation_sizes() is None
    Image.fromarray(picture(1, 5, 9)).save(folder / "images/val/1.png")
    Image.fromarray(ids(1, 5, 9)).save(folder / "labels/val/1.png")
    assert read(folder).validation_sizes() == ((6, 8), (5, 9))


def test_blank_lines_and_carriage_returns_are_passed_over(folder):
    path = folder / "train_images.txt"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    assert len(read(folder).train) == 3


def test_sources_survive_pickling(folder):
    source = read(folder).train
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source))[1]["mask"], source[1]["mask"])


def test_missing_folder_is_named(tmp_path):
    assert f"{tmp_path / 'gone'}: no such folder" in read_error(tmp_path / "gone")


@pytest.mark.parametrize("name", ["train_images.txt", "val_labels.txt", "info.json"])
def test_missing_part_of_the_layout_is_named(folder, name):
    (folder / name).unlink()
    assert f"{folder / name}: missing" in read_error(folder)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"mean": [0.4,\n 0.5 0.6]}', "line 2"),
        ("[1]", "JSON object"),
        ("[" * 100_000, "malformed JSON"),
        (f'{{"mean": {"1" * 5000}}}', "malformed JSON"),
        (json.dumps(INFO | {"mean": [10**400, 0.1, 0.1]}), "mean must be three numbers"),
        (json.dumps(INFO | {"std": [0.1, 0.1, 10**400]}), "std must be three numbers"),
        ('{"mean": [0.1, 0.1, NaN]}', "nan"),
        (json.dumps(INFO | {"colors": [[0, 0, 10**400]] * 3}), "color 0"),
        (json.dumps({"mean": [0.1, 0.2, 0.3]}), "field std is missing"),
        (json.dumps(INFO | {"mean": [102.9, 111.3, 116.5]}), "102.9"),
        (json.dumps(INFO | {"mean": [0.1, 0.2]}), "[0.1, 0.2]"),
        (json.dumps(INFO | {"std": [0.1, 0.0, 0.1]}), "[0.1, 0.0, 0.1]"),
        (json.dumps(INFO | {"std": "wide"}), "wide"),
        (json.dumps(INFO | {"classes": ["a", "b"]}), "names 2 classes, but 3"),
        (json.dumps(INFO | {"classes": ["road", "car", "sky"]}), "class 1 is 'car', but 'sky'"),
        (json.dumps(INFO | {"classes": ["road", "sky", "road"]}), "'road' 2 times"),
        (json.dumps(INFO | {"colors": [[0, 0, 0]]}), "3 [r, g, b]"),
        (json.dumps(INFO | {"colors": [[0, 0, 0], [0, 0, 256], [1, 1, 1]]}), "color 1"),
    ],
)
def test_bad_info_json_is_named_with_what_is_wrong(folder, text, expected):
    (folder / "info.json").write_text(text)
    message = read_error(folder)
    assert str(folder / "info.json") in message
    assert expected in message


def test_info_json_in_another_encoding_is_named(folder):
    (folder / "info.json").write_bytes(b"\xff\xfe{\x00}\x00")
    assert f"{folder / 'info.json'}: not a text file in UTF-8" in read_error(folder)


def test_lists_of_unequal_length_are_paired_by_name(folder):
    write_lists(folder, "train", [f"{i}.png" for i in range(5)], [f"{i}_L.png" for i in (0, 2, 4)])
    data, found = faults(folder)
    for part in ("train_images.txt", "lists 5", "train_labels.txt", " 3:"):
        assert part in found[0]
    assert [fault.partition(": line ")[2].partition(";")[0] for fault in found[1:]] == [
        "2: images/1.png has no label of its name",
        "4: images/3.png has no label of its name",
    ]
    assert data.train.names == ("images/0.png", "images/2.png", "images/4.png")
    assert data.train.masks.names == ("labels/0_L.png", "labels/2_L.png", "labels/4_L.png")


def test_lists_of_unequal_length_and_unlike_names_are_paired_by_line(folder):
    write_lists(folder, "train", ["a.png", "b.png", "c.png"], ["x.png", "y.png"])
    data, found = faults(folder)
    assert len(found) == 1
    assert data.train.names == ("images/a.png", "images/b.png")
    assert data.train.masks.names == ("labels/x.png", "labels/y.png")


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("{}.png", "{}.png"),
        ("{}.jpg", "{}_L.png"),
        ("a/{}_leftImg8bit.png", "b/{}_gtFine_labelIds.png"),
    ],
)
def test_a_label_of_another_image_is_a_fault_where_the_other_names_belong_together(
    folder, image, label
):
    order = [*range(18), 19, 18]
    write_lists(
        folder,
        "train",
        [image.format(f"s_{i:02}") for i in range(20)],
        [label.format(f"s_{i:02}") for i in order],
    )
    data, found = faults(folder)
    assert len(found) == 2
    image, label = image.format("s_18"), label.format("s_19")
    assert f"train_images.txt: line 19 pairs images/{image} with labels/{label}" in found[0]
    assert "line 20 pairs" in found[1]
    assert len(data.train) == 18


LETTERS = "abcdefghijklmnopqrstu"


@pytest.mark.parametrize(
    ("image", "label"),
    [
        (lambda i: f"img_{i:03}.png", lambda i: f"lbl_{LETTERS[i]}.png"),
        (lambda i: f"{i}.png", lambda i: f"{LETTERS[-1 - i]}.png"),
        (lambda i: f"img_{i:03}.png", lambda i: f"lbl_{i:03}.png"),
        # The same numbers, but of other frames: half of the names occur in both.
        (lambda i: f"{i}.png", lambda i: f"{i + 10}.png"),
    ],
)
def test_names_that_contradict_nothing_are_paired_by_line(folder, image, label):
    names = [image(i) for i in range(20)], [label(i) for i in range(20)]
    write_lists(folder, "train", *names)
    source = read(folder).train
    assert source.names == tuple(f"images/{name}" for name in names[0])
    assert source.masks.names == tuple(f"labels/{name}" for name in names[1])


RULES = pytest.mark.parametrize(
    ("image", "label"), [("{}.png", "{}_L.png"), ("img_{}.png", "{}.png")]
)


@RULES
@pytest.mark.parametrize("shift", [1, 7])
def test_labels_that_all_are_of_other_images_are_faults(folder, image, label, shift):
    write_lists(
        folder,
        "train",
        [image.format(f"{i:02}") for i in range(20)],
        [label.format(f"{(i + shift) % 20:02}") for i in range(20)],
    )
    findings = Findings()
    message = error_of(list_folder.read, str(folder), findings, NAMES)
    assert len(findings.faults) == 20
    last = f"{folder / 'train_images.txt'}: line 20 pairs images/{image.format(19)} with "
    assert last + f"labels/{label.format(f'{shift - 1:02}')} in" in findings.faults[19]
    assert "train_images.txt: no example is left of it; the first of 20 faults: " in message
    assert message.endswith(findings.faults[0])


@RULES
def test_labels_shifted_against_their_images_are_faults(folder, image, label):
    """As of a list that lacks its first line and has another at its end."""
    write_lists(
        folder,
        "train",
        [image.format(f"{i:02}") for i in range(20)],
        [label.format(f"{i:02}") for i in range(1, 21)],
    )
    assert "the first of 20 faults" in read_error(folder)


def test_of_lists_sorted_in_two_ways_the_lines_that_agree_are_read(folder):
    numbers = range(9, 29)
    write_lists(
        folder,
        "train",
        [f"{i}.png" for i in numbers[:11]] + [f"{i}.png" for i in numbers[:10:-1]],
        [f"{i}.png" for i in numbers],
    )
    data, found = faults(folder)
    assert data.train.names == (*(f"images/{i}.png" for i in numbers[:11]), "images/24.png")
    places = [fault.partition("line ")[2].partition(" ")[0] for fault in found]
    assert places == [str(i) for i in (*range(12, 16), *range(17, 21))]
    assert "nearly all names belong to those of other lines" in found[0]


def test_a_label_listed_twice_is_a_fault_and_read_once(folder):
    (folder / "train_labels.txt").write_text("labels/train/0.png\n" * 3)
    data, found = faults(folder)
    labels = folder / "train_labels.txt"
    assert len(found) == 2
    assert f"{labels}: line 3: labels/train/0.png is listed before, in {labels}: line 1" in found[1]
    assert data.train.names == ("images/train/0.png",)


def test_an_image_as_its_own_label_is_a_fault(folder):
    path = folder / "train_labels.txt"
    path.write_text(path.read_text().replace("labels/train/1", "images/train/1"))
    data, (fault,) = faults(folder)
    assert f"{path}: line 2: images/train/1.png is listed before" in fault
    assert len(data.train) == 2


def test_an_image_listed_twice_is_a_fault_and_read_once(folder):
    for kind in ("images", "labels"):
        path = folder / f"train_{kind}.txt"
        path.write_text(path.read_text() + f"./{kind}/train/1.png\n")
    data, (fault,) = faults(folder)
    images = folder / "train_images.txt"
    assert f"{images}: line 4: ./images/train/1.png is listed before" in fault
    assert f"in {images}: line 2;" in fault
    assert len(data.train) == 3


def test_a_training_image_in_validation_is_a_fault_and_left_out_of_training(folder):
    for kind in ("images", "labels"):
        path = folder / f"val_{kind}.txt"
        path.write_text(path.read_text() + f"{kind}/train/1.png\n")
    data, (fault,) = faults(folder)
    assert f"{folder / 'train_images.txt'}: line 2: images/train/1.png" in fault
    assert f"{folder / 'val_images.txt'}: line 3;" in fault
    assert (len(data.train), len(data.validation)) == (2, 3)


@pytest.mark.parametrize("spelled", ["{}/images/val/1.png", "images/../images/val/1.png", "link"])
def test_a_validation_image_by_another_name_is_a_fault_and_left_out_of_training(folder, spelled):
    (folder / "link").symlink_to(folder / "images/val/1.png")
    name = spelled.format(folder)
    path = folder / "train_images.txt"
    path.write_text(path.read_text().replace("images/train/1.png", name))
    data, (fault,) = faults(folder)
    assert f"{path}: line 2: {name} is listed before, in {folder / 'val_images.txt'}" in fault
    assert (len(data.train), len(data.validation)) == (2, 2)


def test_every_header_is_read_once_and_by_threads(folder, monkeypatch):
    read_header, waiting = image.size, threading.Barrier(2, timeout=10)
    looked_up = []

    def size(data: bytes, where: str) -> tuple[int, int]:
        waiting.wait()
        looked_up.append(where)
        return read_header(data, where)

    monkeypatch.setattr(image, "size", size)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    write_lists(folder, "val", ["0.png", "1.png"], ["0.png", "1.png"])
    write_lists(folder, "train", ["2.png", "3.png"], ["2.png", "3.png"])
    data = read(folder)
    assert data.train_sizes() is None
    assert data.validation_sizes() is None
    assert len(looked_up) == len(set(looked_up)) == 8


def test_findings_are_in_the_order_of_the_lines(folder):
    names = [f"{i:02}.png" for i in range(20)]
    write_lists(folder, "train", names, names)
    for i in (3, 11, 17):
        (folder / f"images/{i:02}.png").write_text("text")
    (folder / "labels/05.png").unlink()
    _, found = faults(folder)
    assert [fault.partition(".png")[0][-2:] for fault in found] == ["03", "05", "11", "17"]


def test_test_lists_are_read_if_there_are_any(folder):
    assert read(folder).test is None
    write_lists(folder, "test", ["t.png"], ["t.png"])
    assert read(folder).splits["test"].names == ("images/t.png",)


def test_absolute_paths_may_be_listed(folder, tmp_path):
    elsewhere = write_lists(tmp_path / "elsewhere", "val", ["a.png"], ["a.png"])
    for kind in ("images", "labels"):
        (folder / f"val_{kind}.txt").write_text(f"{elsewhere / kind / 'a.png'}\n")
    np.testing.assert_array_equal(read(folder).validation[0]["mask"], ids(1))


def test_the_space_gives_names_and_colors_and_its_own_order(folder):
    data = read(folder, STREETS)
    assert data.classes == ("Road", "Sky", "Car")
    assert data.colors == ((128, 64, 128), (0, 0, 9), (0, 0, 142))
    np.testing.assert_array_equal(data.train[1]["mask"], ids(1))


def test_classes_in_another_order_and_under_aliases_are_mapped_to_the_space(folder):
    names = ["automobile", "ROAD", "sky"]
    (folder / "info.json").write_text(json.dumps(INFO | {"classes": names}))
    data = read(folder, STREETS)
    assert data.classes == ("Road", "Sky", "Car")
    mapped = np.full(256, 255, np.uint8)
    mapped[:3] = 2, 0, 1
    np.testing.assert_array_equal(data.train[1]["mask"], mapped[ids(1)])


def test_an_order_stands_in_for_the_names_that_info_json_lacks(folder):
    def masks() -> np.ndarray:
        findings = Findings()
        data = list_folder.read(str(folder), findings, STREETS, order=("Car", "Road", "Sky"))
        assert findings.faults == []
        return data.train[1]["mask"]

    mapped = np.full(256, 255, np.uint8)
    mapped[:3] = 2, 0, 1
    np.testing.assert_array_equal(masks(), mapped[ids(1)])
    (folder / "info.json").write_text(json.dumps(INFO | {"classes": ["road", "sky", "car"]}))
    np.testing.assert_array_equal(masks(), ids(1))


def test_classes_that_the_space_has_not_are_named(folder):
    names = ["automobile", "road", "river"]
    (folder / "info.json").write_text(json.dumps(INFO | {"classes": names}))
    assert f"{folder / 'info.json'}: class 'river' is none of streets" in read_error(
        folder, STREETS
    )


def test_empty_list_is_named(folder):
    (folder / "val_images.txt").write_text("\n")
    assert f"{folder / 'val_images.txt'}: lists no file" in read_error(folder)


@pytest.mark.parametrize("name", ["images/train/1.png", "labels/val/0.png"])
def test_listed_file_that_does_not_exist_is_a_fault_and_the_rest_is_read(folder, name):
    (folder / name).unlink()
    data, (fault,) = faults(folder)
    kind, split, file = name.split("/")
    assert str(folder / name) in fault
    assert f"{folder / f'{split}_{kind}.txt'}, line {int(file[0]) + 1}" in fault
    assert len(data.train) + len(data.validation) == 4


def test_image_and_label_of_different_size_are_a_fault_that_names_both_with_sizes(folder):
    Image.fromarray(ids(2, 8, 6)).save(folder / "labels/train/2.png")
    data, (fault,) = faults(folder)
    assert f"{folder / 'images/train/2.png'} is 6x8" in fault
    assert f"{folder / 'labels/train/2.png'} 8x6" in fault
    assert data.train.names == ("images/train/0.png", "images/train/1.png")


def test_file_that_is_no_image_is_a_fault(folder):
    (folder / "images/train/1.png").write_text("text")
    data, (fault,) = faults(folder)
    assert fault.startswith(f"{folder / 'images/train/1.png'}: not an image")
    assert len(data.train) == 2


def test_split_of_which_nothing_is_left_is_an_error(folder):
    shutil.rmtree(folder / "labels/val")
    assert f"{folder / 'val_images.txt'}: no example is left" in read_error(folder)


def test_more_classes_than_a_mask_can_hold_are_refused(folder):
    assert "256 classes" in read_error(folder, 256)
    assert "0 classes" in read_error(folder, 0)


def test_mask_value_without_a_class_names_file_value_and_place(folder):
    mask = ids(1)
    mask[4, 7] = 3
    Image.fromarray(mask).save(folder / "labels/train/1.png")
    source = read(folder).train
    assert source[0]["mask"].max() == 255
    message = error_of(source.__getitem__, 1)
    for part in (str(folder / "labels/train/1.png"), "value 3", "row 4, column 7", "0 to 2"):
        assert part in message


def test_image_damaged_after_loading_is_named_when_read(folder):
    source = read(folder).train
    path = folder / "images/train/1.png"
    path.write_bytes(path.read_bytes()[:60])
    assert f"{path}: the image is damaged" in error_of(source.__getitem__, 1)
    shutil.rmtree(folder / "images")
    assert f"{path}: no such file" in error_of(source.__getitem__, 1)


@pytest.mark.skipif(not CAMVID.exists(), reason="CamVid is not here")
def test_camvid_reads():
    data = read(CAMVID, tuple(CAMVID_NAMES))
    assert (len(data.train), len(data.validation)) == (367, 101)
    for example in (data.train[0], data.validation[100]):
        assert example["image"].shape == (*example["mask"].shape, 3)

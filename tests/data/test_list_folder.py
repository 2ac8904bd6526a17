"""fyu/drn's list layout: what is read, and that every way to get it wrong is one clear line."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drn_jax.data import list_folder
from drn_jax.errors import UserError

NAMES = ("road", "sky", "car")
INFO = {"mean": [0.4, 0.5, 0.6], "std": [0.1, 0.2, 0.3]}
CAMVID = Path(__file__).resolve().parents[3] / "shared" / "camvid"
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


def load_error(folder: Path, classes: tuple[str, ...] | int | None = NAMES) -> str:
    return error_of(list_folder.load, str(folder), classes)


def test_examples_are_the_listed_pairs_in_order(folder):
    data = list_folder.load(str(folder), NAMES)
    assert (len(data.train), len(data.validation)) == (3, 2)
    for source in (data.train, data.validation):
        for i in range(len(source)):
            example = source[i]
            assert set(example) == {"image", "mask"}
            np.testing.assert_array_equal(example["image"], picture(i))
            np.testing.assert_array_equal(example["mask"], ids(i))


def test_info_json_gives_statistics_names_and_colors(folder):
    data = list_folder.load(str(folder), NAMES)
    assert data.name == "tiny-streets"
    assert (data.mean, data.std) == ((0.4, 0.5, 0.6), (0.1, 0.2, 0.3))
    assert (data.classes, data.colors) == (NAMES, None)
    colors = [[0, 0, 0], [255, 0, 0], [1, 2, 3]]
    (folder / "info.json").write_text(json.dumps(INFO | {"classes": NAMES, "colors": colors}))
    data = list_folder.load(str(folder), 3)
    assert data.classes == NAMES
    assert data.colors == ((0, 0, 0), (255, 0, 0), (1, 2, 3))


def test_a_number_of_classes_without_names_numbers_them(folder):
    assert list_folder.load(str(folder), 3).classes == ("class 0", "class 1", "class 2")


def test_without_the_callers_word_info_json_must_name_the_classes(folder):
    assert f"{folder / 'info.json'}: field classes is missing" in load_error(folder, None)
    (folder / "info.json").write_text(json.dumps(INFO | {"classes": NAMES}))
    assert list_folder.load(str(folder)).classes == NAMES


def test_validation_sizes_are_given_only_where_they_differ(folder):
    assert list_folder.load(str(folder), NAMES).validation_sizes is None
    Image.fromarray(picture(1, 5, 9)).save(folder / "images/val/1.png")
    Image.fromarray(ids(1, 5, 9)).save(folder / "labels/val/1.png")
    assert list_folder.load(str(folder), NAMES).validation_sizes == ((6, 8), (5, 9))


def test_blank_lines_and_carriage_returns_are_passed_over(folder):
    path = folder / "train_images.txt"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    assert len(list_folder.load(str(folder), NAMES).train) == 3


def test_sources_survive_pickling(folder):
    source = list_folder.load(str(folder), NAMES).train
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source))[1]["mask"], source[1]["mask"])


def test_missing_folder_is_named(tmp_path):
    assert f"{tmp_path / 'gone'}: no such folder" in load_error(tmp_path / "gone")


@pytest.mark.parametrize("name", ["train_images.txt", "val_labels.txt", "info.json"])
def test_missing_part_of_the_layout_is_named(folder, name):
    (folder / name).unlink()
    assert f"{folder / name}: missing" in load_error(folder)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"mean": [0.4,\n 0.5 0.6]}', "line 2"),
        ("[1]", "JSON object"),
        (json.dumps({"mean": [0.1, 0.2, 0.3]}), "field std is missing"),
        (json.dumps(INFO | {"mean": [102.9, 111.3, 116.5]}), "102.9"),
        (json.dumps(INFO | {"mean": [0.1, 0.2]}), "[0.1, 0.2]"),
        (json.dumps(INFO | {"std": [0.1, 0.0, 0.1]}), "[0.1, 0.0, 0.1]"),
        (json.dumps(INFO | {"std": "wide"}), "wide"),
        (json.dumps(INFO | {"classes": ["a", "b"]}), "names 2 classes, but 3"),
        (json.dumps(INFO | {"classes": ["road", "car", "sky"]}), "class 1 is 'car', but 'sky'"),
        (json.dumps(INFO | {"colors": [[0, 0, 0]]}), "3 [r, g, b]"),
        (json.dumps(INFO | {"colors": [[0, 0, 0], [0, 0, 256], [1, 1, 1]]}), "color 1"),
    ],
)
def test_bad_info_json_is_named_with_what_is_wrong(folder, text, expected):
    (folder / "info.json").write_text(text)
    message = load_error(folder)
    assert str(folder / "info.json") in message
    assert expected in message


def test_info_json_in_another_encoding_is_named(folder):
    (folder / "info.json").write_bytes(b"\xff\xfe{\x00}\x00")
    assert f"{folder / 'info.json'}: not a text file in UTF-8" in load_error(folder)


def test_lists_of_unequal_length_name_both_counts(folder):
    (folder / "train_labels.txt").write_text("labels/train/0.png\n")
    message = load_error(folder)
    for part in ("train_images.txt", "lists 3", "train_labels.txt", " 1:"):
        assert part in message


def test_empty_list_is_named(folder):
    (folder / "val_images.txt").write_text("\n")
    assert f"{folder / 'val_images.txt'}: lists no file" in load_error(folder)


@pytest.mark.parametrize("name", ["images/train/1.png", "labels/val/0.png"])
def test_listed_file_that_does_not_exist_is_named_with_its_list(folder, name):
    (folder / name).unlink()
    message = load_error(folder)
    kind, split, _ = name.split("/")
    assert str(folder / name) in message
    assert str(folder / f"{split}_{kind}.txt") in message


def test_image_and_label_of_different_size_name_both_with_sizes(folder):
    Image.fromarray(ids(2, 8, 6)).save(folder / "labels/train/2.png")
    message = load_error(folder)
    assert f"{folder / 'images/train/2.png'} is 6x8" in message
    assert f"{folder / 'labels/train/2.png'} 8x6" in message


def test_file_that_is_no_image_is_named(folder):
    (folder / "images/train/1.png").write_text("text")
    assert f"{folder / 'images/train/1.png'}: not an image" in load_error(folder)


def test_more_classes_than_a_mask_can_hold_are_refused(folder):
    assert "256 classes" in load_error(folder, 256)
    assert "0 classes" in load_error(folder, 0)


def test_mask_value_without_a_class_names_file_value_and_place(folder):
    mask = ids(1)
    mask[4, 7] = 3
    Image.fromarray(mask).save(folder / "labels/train/1.png")
    source = list_folder.load(str(folder), NAMES).train
    assert source[0]["mask"].max() == 255
    message = error_of(source.__getitem__, 1)
    for part in (str(folder / "labels/train/1.png"), "value 3", "row 4, column 7", "0 to 2"):
        assert part in message


def test_image_damaged_after_loading_is_named_when_read(folder):
    source = list_folder.load(str(folder), NAMES).train
    path = folder / "images/train/1.png"
    path.write_bytes(path.read_bytes()[:60])
    assert f"{path}: the image is damaged" in error_of(source.__getitem__, 1)
    shutil.rmtree(folder / "images")
    assert f"{path}: no such file" in error_of(source.__getitem__, 1)


@pytest.mark.skipif(not CAMVID.exists(), reason="CamVid is not here")
def test_camvid_reads():
    data = list_folder.load(str(CAMVID), tuple(CAMVID_NAMES))
    assert (len(data.train), len(data.validation)) == (367, 101)
    for example in (data.train[0], data.validation[100]):
        assert example["image"].shape == (*example["mask"].shape, 3)

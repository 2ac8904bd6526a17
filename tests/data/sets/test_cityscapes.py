"""Cityscapes from its archives, its folders and fyu/drn's lists."""

import io
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drn_jax.data.findings import Findings
from drn_jax.data.labels.cityscapes import CITYSCAPES
from drn_jax.data.sets import cityscapes
from drn_jax.errors import UserError

FRAMES = {
    "train": ("aachen/aachen_000000_000019", "bremen/bremen_000000_000019"),
    "val": ("frankfurt/frankfurt_000000_000294",),
    "test": ("berlin/berlin_000000_000019",),
}


def png(array: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(array).save(data, "PNG")
    return data.getvalue()


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (4, 8, 3), dtype=np.uint8)


def label_ids(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 34, (4, 8), dtype=np.uint8)


def layout() -> dict[str, dict[str, bytes]]:
    """The files of both archives, by the archive's name without its end."""
    images = {"README": b"Cityscapes", "license.txt": b"terms"}
    masks = dict(images)
    for split, frames in FRAMES.items():
        for seed, frame in enumerate(frames):
            images[f"leftImg8bit/{split}/{frame}_leftImg8bit.png"] = png(picture(seed))
            top = f"gtFine/{split}/{frame}_gtFine_"
            masks[f"{top}labelIds.png"] = png(label_ids(seed))
            masks[f"{top}instanceIds.png"] = png(label_ids(seed).astype(np.uint16) * 1000)
            masks[f"{top}color.png"] = png(picture(seed))
            masks[f"{top}polygons.json"] = b"{}"
    return {"leftImg8bit": images, "gtFine": masks}


def write_zips(root: Path, files: dict[str, dict[str, bytes]]) -> str:
    root.mkdir(exist_ok=True)
    for name, members in files.items():
        path = root / f"{name}_trainvaltest.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, data in members.items():
                archive.writestr(member, data)
    return str(root)


def write_folders(root: Path, files: dict[str, dict[str, bytes]]) -> str:
    for members in files.values():
        for member, data in members.items():
            (root / member).parent.mkdir(parents=True, exist_ok=True)
            (root / member).write_bytes(data)
    return str(root)


FORMS = pytest.mark.parametrize("write", [write_zips, write_folders])


def error_of(directory: str) -> str:
    with pytest.raises(UserError) as caught:
        cityscapes.read(directory, Findings())
    assert "\n" not in str(caught.value)
    return str(caught.value)


@FORMS
def test_archives_and_folders_give_the_examples_in_train_ids(tmp_path, write):
    findings = Findings()
    data = cityscapes.read(write(tmp_path / "cs", layout()), findings)
    assert (findings.faults, findings.warnings) == ([], {})
    assert (len(data.train), len(data.validation), data.test) == (2, 1, None)
    train_id = np.full(256, 255, np.uint8)
    for there, here in CITYSCAPES.ids():
        train_id[there] = here
    for source in (data.train, data.validation):
        for seed in range(len(source)):
            example = source[seed]
            np.testing.assert_array_equal(example["image"], picture(seed))
            np.testing.assert_array_equal(example["mask"], train_id[label_ids(seed)])


def test_archives_and_folders_may_be_mixed(tmp_path):
    files = layout()
    write_zips(tmp_path, {"gtFine": files["gtFine"]})
    data = cityscapes.read(
        write_folders(tmp_path, {"leftImg8bit": files["leftImg8bit"]}), Findings()
    )
    assert data.train[1]["mask"].shape == (4, 8)


def test_an_archive_may_be_extracted_into_a_folder_of_its_name(tmp_path):
    files = layout()
    for name, members in files.items():
        write_folders(tmp_path / f"{name}_trainvaltest", {name: members})
    assert len(cityscapes.read(str(tmp_path), Findings()).train) == 2


def test_an_archive_goes_before_a_half_extracted_folder(tmp_path):
    files = layout()
    (tmp_path / "leftImg8bit" / "train").mkdir(parents=True)
    assert len(cityscapes.read(write_zips(tmp_path, files), Findings()).train) == 2


def test_archives_may_be_named_in_capitals(tmp_path):
    write_zips(tmp_path, layout())
    for path in tmp_path.glob("*.zip"):
        path.rename(path.with_suffix(".ZIP"))
    assert len(cityscapes.read(str(tmp_path), Findings()).train) == 2


def test_statistics_classes_and_sizes_are_the_published_ones(tmp_path):
    data = cityscapes.read(write_zips(tmp_path, layout()), Findings())
    assert data.mean == (0.290101, 0.328081, 0.286964)
    assert data.std == (0.182954, 0.186566, 0.184475)
    assert (data.classes, data.colors) == (CITYSCAPES.names, CITYSCAPES.colors)
    assert data.validation_sizes() is None


@FORMS
def test_an_image_without_mask_and_a_mask_without_image_are_named(tmp_path, write):
    files = layout()
    del files["gtFine"]["gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png"]
    files["gtFine"]["gtFine/val/lindau/lindau_000000_000019_gtFine_labelIds.png"] = png(
        label_ids(0)
    )
    findings = Findings()
    data = cityscapes.read(write(tmp_path / "cs", files), findings)
    assert (len(data.train), len(data.validation)) == (1, 1)
    np.testing.assert_array_equal(data.train[0]["image"], picture(1))
    without_mask, without_image = findings.faults
    assert "aachen_000000_000019_leftImg8bit.png: has no mask" in without_mask
    assert "lindau_000000_000019_gtFine_labelIds.png: has no image" in without_image


def test_an_image_in_both_splits_is_named_and_leaves_the_training_images(tmp_path):
    files = layout()
    frame = "frankfurt/frankfurt_000000_000294"
    files["leftImg8bit"][f"leftImg8bit/train/{frame}_leftImg8bit.png"] = png(picture(5))
    files["gtFine"][f"gtFine/train/{frame}_gtFine_labelIds.png"] = png(label_ids(5))
    findings = Findings()
    data = cityscapes.read(write_zips(tmp_path, files), findings)
    assert (len(data.train), len(data.validation)) == (2, 1)
    (fault,) = findings.faults
    assert f"train/{frame}_leftImg8bit.png: is in val too" in fault


def test_a_value_that_is_no_label_id_is_an_error_when_read(tmp_path):
    files = layout()
    wrong = label_ids(0)
    wrong[2, 3] = 34
    name = "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png"
    files["gtFine"][name] = png(wrong)
    data = cityscapes.read(write_zips(tmp_path, files), Findings())
    with pytest.raises(UserError, match=r"labelIds\.png: value 34 at row 2, column 3"):
        data.train[0]


def test_missing_archives_are_named_with_what_is_looked_for(tmp_path):
    assert "no such folder" in error_of(str(tmp_path / "gone"))
    assert "holds neither leftImg8bit_trainvaltest.zip nor leftImg8bit/" in error_of(str(tmp_path))
    write_zips(tmp_path, {"leftImg8bit": layout()["leftImg8bit"]})
    assert "holds neither gtFine_trainvaltest.zip nor gtFine/" in error_of(str(tmp_path))


def test_a_split_without_an_example_is_an_error_with_counts(tmp_path):
    files = layout()
    del files["gtFine"]["gtFine/val/frankfurt/frankfurt_000000_000294_gtFine_labelIds.png"]
    message = error_of(write_zips(tmp_path, files))
    assert "no val image" in message
    assert "1 images, 0 masks" in message


@FORMS
def test_sources_survive_pickling(tmp_path, write):
    source = cityscapes.read(write(tmp_path / "cs", layout()), Findings()).train
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(again[1]["mask"], source[1]["mask"])


def test_the_lists_of_fyu_drn_go_first_and_hold_train_ids(tmp_path):
    write_zips(tmp_path, layout())
    Image.fromarray(picture(0)).save(tmp_path / "image.png")
    Image.fromarray(picture(1)).save(tmp_path / "other.png")
    mask = np.array([[0, 18, 255, 7] * 2] * 4, np.uint8)
    for split, name in (("train", "image.png"), ("val", "other.png")):
        (tmp_path / f"{split}_images.txt").write_text(f"{name}\n")
        (tmp_path / f"{split}_labels.txt").write_text(f"mask_{name}\n")
        Image.fromarray(mask).save(tmp_path / f"mask_{name}")
    info = {"mean": [0.1, 0.2, 0.3], "std": [0.1, 0.1, 0.1]}
    (tmp_path / "info.json").write_text(json.dumps(info))
    data = cityscapes.read(str(tmp_path), Findings())
    np.testing.assert_array_equal(data.train[0]["mask"], mask)
    assert (data.mean, data.colors) == ((0.1, 0.2, 0.3), CITYSCAPES.colors)


def test_archives_packed_anew_with_a_folder_on_top_are_read(tmp_path):
    files = {
        name: {f"{name}_trainvaltest/{member}": data for member, data in members.items()}
        | {f"__MACOSX/{name}_trainvaltest/{name}/._a.png": b"junk"}
        for name, members in layout().items()
    }
    findings = Findings()
    found = cityscapes.read(write_zips(tmp_path / "packed", files), findings).train
    expected = cityscapes.read(write_zips(tmp_path / "official", layout()), findings).train
    assert findings.faults == []
    assert len(found) == len(expected)
    for key in ("image", "mask"):
        np.testing.assert_array_equal(found[0][key], expected[0][key])

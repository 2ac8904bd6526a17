"""One folder a class: label ids as PyTorch gives them, and clear errors."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drn_jax.data.dataset import Dataset
from drn_jax.data.findings import Findings
from drn_jax.data.sets import class_folder
from drn_jax.errors import UserError


def save(path: Path, grey: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 3), (grey, grey, grey)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Each image's grey value is ten times its label id, plus its place in the class."""
    for label, name in enumerate(("ant", "bee", "cat")):
        save(tmp_path / "train" / name / "b.PNG", 10 * label + 1)
        save(tmp_path / "train" / name / "a.png", 10 * label)
    save(tmp_path / "val" / "cat" / "x.bmp", 20)
    save(tmp_path / "val" / "ant" / "y.png", 0)
    return tmp_path


def read(folder: Path) -> Dataset:
    """The set, which has no fault."""
    findings = Findings()
    data = class_folder.read(str(folder), findings)
    assert (findings.faults, findings.warnings) == ([], {})
    return data


def read_error(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        class_folder.read(str(folder), Findings())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_sorted_train_folders_are_the_labels_of_both_splits(folder):
    data = read(folder)
    assert data.classes == ("ant", "bee", "cat")
    assert data.validation_sizes() is None
    train = [data.train[i] for i in range(len(data.train))]
    assert [int(example["image"][0, 0, 0]) for example in train] == [0, 1, 10, 11, 20, 21]
    for source in (data.train, data.validation):
        for i in range(len(source)):
            example = source[i]
            assert example["image"].shape == (3, 4, 3)
            assert example["label"].dtype == np.int32
            assert example["label"].shape == ()
            assert example["label"] == example["image"][0, 0, 0] // 10
    assert [int(data.validation[i]["label"]) for i in range(2)] == [0, 2]


def test_images_in_subfolders_count_and_other_files_do_not(folder):
    save(folder / "train/bee/deep/er/c.png", 12)
    save(folder / "train/bee/.cache/d.png", 99)
    save(folder / "train/.hidden/d.png", 99)
    (folder / "train/bee/notes.txt").write_text("no image")
    (folder / "train/list.txt").write_text("no class")
    data = read(folder)
    assert data.classes == ("ant", "bee", "cat")
    assert len(data.train) == 7
    assert sum(int(data.train[i]["label"]) == 1 for i in range(7)) == 3


@pytest.mark.parametrize("split", ["train", "val"])
def test_missing_split_is_named(folder, split):
    (folder / split).rename(folder / "elsewhere")
    assert f"{folder / split}: no such folder" in read_error(folder)


def test_split_without_classes_is_named(folder):
    (folder / "val").rename(folder / "elsewhere")
    (folder / "val").mkdir()
    assert f"{folder / 'val'}: has no class" in read_error(folder)


def test_split_without_an_image_is_named(folder):
    for path in (folder / "val").rglob("*.*"):
        path.unlink()
    assert f"{folder / 'val'}: holds no image" in read_error(folder)


def test_validation_class_unknown_to_training_is_a_fault_and_left_out(folder):
    save(folder / "val" / "dog" / "x.png", 0)
    findings = Findings()
    data = class_folder.read(str(folder), findings)
    (fault,) = findings.faults
    assert fault.startswith(f"{folder / 'val' / 'dog'}: ")
    assert "no class dog" in fault
    assert data.validation.names == ("val/ant/y.png", "val/cat/x.bmp")


@pytest.mark.parametrize(("name", "classes"), [("train/bit", 4), ("val/bee", 3)])
def test_empty_class_is_a_fault_and_keeps_its_label(folder, name, classes):
    (folder / name).mkdir()
    findings = Findings()
    data = class_folder.read(str(folder), findings)
    (fault,) = findings.faults
    assert fault.startswith(f"{folder / name}: holds no image")
    assert len(data.classes) == classes
    assert data.classes[int(data.validation[1]["label"])] == "cat"


def test_damaged_image_is_named_when_read(folder):
    path = folder / "train/ant/a.png"
    path.write_text("text")
    source = read(folder).train
    with pytest.raises(UserError, match="not an image") as caught:
        source[0]
    assert str(path) in str(caught.value)

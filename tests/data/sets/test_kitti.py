"""KITTI: the images of Ros et al., and the semantic benchmark."""

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drn_jax.data.dataset import Source
from drn_jax.data.findings import Findings
from drn_jax.data.labels.cityscapes import CITYSCAPES
from drn_jax.data.labels.kitti import KITTI
from drn_jax.data.sets import kitti
from drn_jax.data.sources import Readable
from drn_jax.errors import UserError

SPLITS = {"Training_00": (("000000", "000005"), (4, 9)), "Validation_07": (("000000",), (5, 8))}
"""Names and (height, width) of the images, by folder."""

# Sky, building, ..., cyclist, void: their ids 0 to 11 as the classes that networks learn.
ROS_CLASSES = (
    *("sky", "building", "road", "sidewalk", "fence", "tree"),
    *("pole", "car", "sign", "pedestrian", "bicyclist"),
)


def png(array: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(array).save(data, "PNG")
    return data.getvalue()


def picture(seed: int, shape: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def ids(seed: int, shape: tuple[int, int], count: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, count, shape, dtype=np.uint8)


def painted(mask: np.ndarray) -> np.ndarray:
    return np.array([label.color for label in KITTI.labels], np.uint8)[mask]


def ros(kinds: tuple[str, ...] = ("GT", "GT_ind")) -> dict[str, bytes]:
    """The layout of Ros et al. by name."""
    files = {}
    for split, (names, shape) in SPLITS.items():
        for seed, name in enumerate(names):
            files[f"{split}/RGB/{name}.png"] = png(picture(seed, shape))
            mask = ids(seed, shape)
            for kind, pixels in (("GT", painted(mask)), ("GT_ind", mask)):
                if kind in kinds:
                    files[f"{split}/{kind}/{name}.png"] = png(pixels)
    return files


def semantics(count: int = 10) -> dict[str, bytes]:
    """The layout of data_semantics.zip by name; images differ in size."""
    files = {"testing/image_2/000000_10.png": png(picture(0, (4, 9)))}
    for i in range(count):
        shape = (4 + i % 2, 9)
        files[f"training/image_2/{i:06}_10.png"] = png(picture(i, shape))
        files[f"training/semantic/{i:06}_10.png"] = png(ids(i, shape, 34))
        files[f"training/semantic_rgb/{i:06}_10.png"] = png(picture(i, shape))
        files[f"training/instance/{i:06}_10.png"] = png(ids(i, shape).astype(np.uint16) << 8)
    return files


def write(root: Path, files: dict[str, bytes], form: str) -> str:
    """The files as a folder, a folder in it, a .zip in it with or without a top, or the .zip."""
    if form.startswith("folder"):
        top = root / "top" if form == "folder with a top" else root
        for name, data in files.items():
            (top / name).parent.mkdir(parents=True, exist_ok=True)
            (top / name).write_bytes(data)
        return str(root)
    path = root / "any name.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(f"top/deep/{name}" if form == "zip with a top" else name, data)
    with zipfile.ZipFile(root / "another.zip", "w") as archive:
        archive.writestr("readme.txt", b"of another set")
    return str(path) if form == "zip itself" else str(root)


FORMS = pytest.mark.parametrize(
    "form", ["folder", "folder with a top", "zip", "zip with a top", "zip itself"]
)


def error_of(read, directory: str) -> str:
    with pytest.raises(UserError) as caught:
        read(directory, Findings())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def names_of(source: Source) -> list[str]:
    assert isinstance(source, Readable)
    return [name.split("/")[-1] for name in source.names]


@FORMS
@pytest.mark.parametrize("kinds", [("GT",), ("GT_ind",), ("GT", "GT_ind")], ids="-".join)
def test_ros_masks_of_ids_and_painted_ones_give_the_same_classes(tmp_path, form, kinds):
    findings = Findings()
    data = kitti.read(write(tmp_path, ros(kinds), form), findings)
    assert (findings.faults, findings.warnings) == ([], {})
    assert (len(data.train), len(data.validation), data.test) == (2, 1, None)
    table = np.array([*(data.classes.index(name) for name in ROS_CLASSES), 255], np.uint8)
    for source, (_, shape) in zip((data.train, data.validation), SPLITS.values(), strict=True):
        for seed in range(len(source)):
            example = source[seed]
            np.testing.assert_array_equal(example["image"], picture(seed, shape))
            np.testing.assert_array_equal(example["mask"], table[ids(seed, shape)])


def test_ros_masks_of_ids_go_before_painted_ones(tmp_path):
    files = ros()
    files["Training_00/GT/000000.png"] = b"no image"
    data = kitti.read(write(tmp_path, files, "folder"), Findings())
    assert data.train[0]["mask"].shape == (4, 9)


def test_ros_statistics_and_classes_are_the_papers(tmp_path):
    data = kitti.read(write(tmp_path, ros(), "zip"), Findings())
    # fyu/dilation: BGR mean (96.194, 95.551, 91.347).
    np.testing.assert_allclose(np.multiply(data.mean, 255)[::-1], (96.194, 95.551, 91.347))
    names = "building tree sky car sign road pedestrian fence pole sidewalk bicyclist"
    assert " ".join(data.classes) == names


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_ros_images_and_masks_without_each_other_are_named(tmp_path, form):
    files = ros(("GT_ind",))
    del files["Training_00/GT_ind/000005.png"]
    del files["Training_00/RGB/000000.png"]
    files["Training_00/RGB/000010.png"] = png(picture(7, (4, 9)))
    files["Training_00/GT_ind/000010.png"] = png(ids(7, (4, 9)))
    findings = Findings()
    data = kitti.read(write(tmp_path, files, form), findings)
    assert (len(data.train), len(data.validation)) == (1, 1)
    without_mask, without_image = findings.faults
    assert "Training_00/RGB/000005.png: has no mask" in without_mask
    assert "Training_00/GT_ind/000000.png: has no image" in without_image


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_ros_images_of_one_name_are_each_read_or_named(tmp_path, form):
    files = ros()
    files["Training_00/RGB/copy/000005.png"] = png(picture(7, (4, 9)))
    files["Validation_07/RGB/000000.PNG"] = png(picture(8, (5, 8)))
    findings = Findings()
    data = kitti.read(write(tmp_path, files, form), findings)
    twice, without_mask = findings.faults
    # In capitals first.
    assert "Validation_07/RGB/000000.png: is Validation_07/RGB/000000.PNG again; keep one" in twice
    assert "Training_00/RGB/copy/000005.png: has no mask" in without_mask
    assert (len(data.train), len(data.validation)) == (2, 1)
    np.testing.assert_array_equal(data.train[1]["image"], picture(1, (4, 9)))


def test_ros_images_in_folders_of_their_own_belong_to_the_masks_in_those(tmp_path):
    files = ros(("GT_ind",))
    files["Training_00/RGB/more/000005.png"] = png(picture(7, (4, 9)))
    files["Training_00/GT_ind/more/000005.png"] = png(ids(7, (4, 9)))
    findings = Findings()
    data = kitti.read(write(tmp_path, files, "folder"), findings)
    assert findings.faults == []
    assert names_of(data.train) == ["000000.png", "000005.png", "000005.png"]
    np.testing.assert_array_equal(data.train[2]["image"], picture(7, (4, 9)))


def test_ros_training_image_that_is_one_of_validation_is_named_and_left_out(tmp_path):
    files = ros()
    # Each drive counts anew: names alone say nothing, and 000000.png of either is another.
    files["Validation_07/RGB/000005.png"] = files["Training_00/RGB/000005.png"]
    files["Validation_07/GT_ind/000005.png"] = files["Training_00/GT_ind/000005.png"]
    findings = Findings()
    data = kitti.read(write(tmp_path, files, "zip"), findings)
    assert (names_of(data.train), len(data.validation)) == (["000000.png"], 2)
    (fault,) = findings.faults
    assert "Training_00/RGB/000005.png: is Validation_07/RGB/000005.png again" in fault


def test_semantics_images_of_one_name_are_named(tmp_path):
    files = semantics()
    files["training/image_2/copy/000004_10.png"] = png(picture(7, (4, 9)))
    findings = Findings()
    data = kitti.read_semantics(write(tmp_path, files, "folder"), findings)
    (fault,) = findings.faults
    assert "training/image_2/copy/000004_10.png: has no mask" in fault
    assert (len(data.train), len(data.validation)) == (8, 2)
    np.testing.assert_array_equal(data.validation[0]["image"], picture(4, (4, 9)))


def test_ros_a_colour_or_id_that_is_none_is_an_error_when_read(tmp_path):
    files = ros(("GT",))
    wrong = painted(ids(0, (4, 9)))
    wrong[1, 2] = (1, 2, 3)
    files["Training_00/GT/000000.png"] = png(wrong)
    data = kitti.read(write(tmp_path, files, "folder"), Findings())
    with pytest.raises(UserError, match=r"000000\.png: colour \(1, 2, 3\) at row 1, column 2"):
        data.train[0]


def test_ros_without_masks_is_an_error_with_counts(tmp_path):
    message = error_of(kitti.read, write(tmp_path, ros(()), "folder"))
    assert "no Training_00 image" in message
    assert "2 images, 0 masks" in message


@FORMS
def test_semantics_gives_train_ids_and_every_fifth_image_to_validation(tmp_path, form):
    findings = Findings()
    data = kitti.read_semantics(write(tmp_path, semantics(), form), findings)
    assert (findings.faults, findings.warnings) == ([], {})
    assert names_of(data.validation) == ["000004_10.png", "000009_10.png"]
    assert (len(data.train), len(data.validation), data.test) == (8, 2, None)
    table = np.full(256, 255, np.uint8)
    for there, here in CITYSCAPES.ids():
        table[there] = here
    example = data.validation[1]
    np.testing.assert_array_equal(example["image"], picture(9, (5, 9)))
    np.testing.assert_array_equal(example["mask"], table[ids(9, (5, 9), 34)])
    assert (data.classes, data.colors) == (CITYSCAPES.names, CITYSCAPES.colors)


def test_the_200_images_of_the_benchmark_split_into_160_and_40(tmp_path):
    files = dict.fromkeys(semantics(200), b"")
    data = kitti.read_semantics(write(tmp_path, files, "zip"), Findings())
    assert (len(data.train), len(data.validation)) == (160, 40)


def test_a_missing_image_moves_no_other_to_another_split(tmp_path):
    files = semantics()
    del files["training/semantic/000002_10.png"]
    findings = Findings()
    data = kitti.read_semantics(write(tmp_path, files, "zip"), findings)
    assert names_of(data.validation) == ["000004_10.png", "000009_10.png"]
    (fault,) = findings.faults
    assert "image_2/000002_10.png: has no mask" in fault


def test_images_of_kittis_other_sets_are_passed_over(tmp_path):
    files = semantics()
    files["training/image_2/000003_11.png"] = png(picture(0, (4, 9)))
    files["training/image_2/um_000003_10.png"] = png(picture(0, (4, 9)))
    findings = Findings()
    data = kitti.read_semantics(write(tmp_path, files, "folder"), findings)
    assert (len(data.train), findings.faults) == (8, [])


def test_sizes_are_told_where_they_differ(tmp_path):
    (tmp_path / "ros").mkdir()
    data = kitti.read_semantics(write(tmp_path, semantics(), "zip"), Findings())
    assert data.validation_sizes() == ((4, 9), (5, 9))
    # Of 0, 1, 2, 3, 5, 6, 7, 8.
    assert data.train_sizes() == ((4, 9), (5, 9)) * 2 + ((5, 9), (4, 9)) * 2
    assert kitti.read(write(tmp_path / "ros", ros(), "zip"), Findings()).train_sizes() is None


@pytest.mark.parametrize(
    ("read", "folder"),
    [(kitti.read, "Training_00/RGB"), (kitti.read_semantics, "training/semantic")],
)
def test_missing_files_are_named_with_what_is_looked_for(tmp_path, read, folder):
    assert "no such folder or .zip" in error_of(read, str(tmp_path / "gone"))
    message = error_of(read, str(tmp_path))
    assert f"{tmp_path}: neither has the folder {folder} nor holds" in message


def test_sources_survive_pickling(tmp_path):
    source = kitti.read(write(tmp_path, ros(), "zip with a top"), Findings()).train
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(again[1]["mask"], source[1]["mask"])

"""MS-COCO as PASCAL VOC's classes, alone and joined with VOC, in tiny archives of its layout."""

import io
import json
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from PIL import Image

from drn_jax.data.findings import Findings
from drn_jax.data.labels.coco import COCO
from drn_jax.data.sets import coco
from drn_jax.data.sources import Readable
from drn_jax.errors import UserError

HEIGHT, WIDTH = 8, 12
IDS = {label.name: label.id for label in COCO.labels}
CLASSES = {name: i for i, name in enumerate(COCO.names)}


def name_of(id_: int, split: str) -> str:
    return f"COCO_{split}_{id_:012d}.jpg" if "2014" in split else f"{id_:012d}.jpg"


def jpeg(id_: int, height: int = HEIGHT) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (WIDTH, height), (id_, id_, id_)).save(data, "JPEG", quality=95)
    return data.getvalue()


def rectangle(x1: int, y1: int, x2: int, y2: int) -> list[float]:
    """The polygon of rows y1 to y2 - 1 and columns x1 to x2 - 1."""
    return [x1, y1, x2, y1, x2, y2, x1, y2]


def annotation(image: int, category: str, segmentation: Any, crowd: int = 0) -> dict[str, Any]:
    return {
        "segmentation": segmentation,
        "area": 1.5,
        "iscrowd": crowd,
        "image_id": image,
        "bbox": [1.0, 1.0, 2.0, 2.0],
        "category_id": IDS[category],
    }


def train() -> list[dict[str, Any]]:
    crowd = [28, *[4] * 7, 40]  # The lower half of columns 3 to 6.
    return [
        # Two parts, one of which a smaller object hides, though that comes first.
        annotation(9, "couch", [rectangle(1, 2, 4, 5)]),
        annotation(9, "person", [rectangle(0, 0, 6, 6), rectangle(8, 1, 10, 7)]),
        annotation(9, "tie", [rectangle(8, 1, 9, 2)]),
        annotation(5, "airplane", [rectangle(3, 3, 7, 7)]),
        annotation(5, "person", {"counts": crowd, "size": [HEIGHT, WIDTH]}, crowd=1),
        annotation(5, "tie", {"counts": [0, 96], "size": [HEIGHT, WIDTH]}, crowd=1),
        # Nothing of VOC's.
        annotation(7, "pizza", [rectangle(0, 0, 6, 6)]),
    ]


def masks() -> dict[int, np.ndarray]:
    """Of the images 5 and 9."""
    five, nine = np.zeros((2, HEIGHT, WIDTH), np.uint8)
    five[4:, 3:7] = 255
    five[3:7, 3:7] = CLASSES["aeroplane"]
    nine[0:6, 0:6] = nine[1:7, 8:10] = CLASSES["person"]
    nine[2:5, 1:4] = CLASSES["sofa"]
    return {5: five, 9: nine}


def validation() -> list[dict[str, Any]]:
    # Compressed: 24 pixels off, 8 on, 64 off.
    return [annotation(21, "dog", {"counts": "h08P2", "size": [HEIGHT, WIDTH]})]


def instances(split: str, ids: tuple[int, ...], annotations: list) -> dict[str, Any]:
    return {
        "info": {"year": int(split[-4:])},
        "images": [
            {
                "license": 1,
                "file_name": name_of(i, split),
                "height": HEIGHT,
                "width": WIDTH,
                "id": i,
            }
            for i in ids
        ],
        "licenses": [],
        "annotations": [{**note, "id": 100 + k} for k, note in enumerate(annotations)],
        "categories": [
            {"supercategory": label.category, "id": label.id, "name": label.name}
            for label in COCO.labels
        ],
    }


def layout(year: int = 2014) -> dict[str, Any]:
    """The parts of the set by archive or folder; annotations not yet as text."""
    return {
        f"train{year}": {name_of(i, f"train{year}"): jpeg(i) for i in (5, 7, 8, 9)},
        f"val{year}": {name_of(i, f"val{year}"): jpeg(i) for i in (21, 22)},
        "annotations": {
            f"instances_train{year}.json": instances(f"train{year}", (9, 8, 7, 5), train()),
            f"instances_val{year}.json": instances(f"val{year}", (21, 22), validation()),
        },
    }


def write(root: Path, parts: dict[str, Any], archived: bool = False, year: int = 2014) -> Path:
    for folder, files in parts.items():
        contents = {
            name: data if isinstance(data, bytes) else json.dumps(data).encode()
            for name, data in files.items()
        }
        if archived:
            stem = f"annotations_trainval{year}" if folder == "annotations" else folder
            method = zipfile.ZIP_DEFLATED if folder == "annotations" else zipfile.ZIP_STORED
            with zipfile.ZipFile(root / f"{stem}.zip", "w", method) as archive:
                archive.mkdir(folder)
                for name, data in contents.items():
                    archive.writestr(f"{folder}/{name}", data)
        else:
            (root / folder).mkdir(parents=True, exist_ok=True)
            for name, data in contents.items():
                (root / folder / name).write_bytes(data)
    return root


def read(directory: Path, **options):
    """The set, which must be without findings."""
    findings = Findings()
    data = coco.read(str(directory), findings, **options)
    assert findings.faults == []
    assert findings.warnings == {}
    return data


def fault_of(directory: Path):
    """The one fault, a line, and the set that is read nevertheless."""
    findings = Findings()
    data = coco.read(str(directory), findings)
    (fault,) = findings.faults
    assert "\n" not in fault
    return fault, data


def error_of(function, *args) -> str:
    with pytest.raises(UserError) as caught:
        function(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def check(source, ids: tuple[int, ...], split: str) -> None:
    """The source has the examples `ids` of the layout's train, in that order."""
    assert source.names == tuple(name_of(i, split) for i in ids)
    for k, i in enumerate(ids):
        example = source[k]
        assert abs(int(example["image"][0, 0, 0]) - i) <= 1
        assert example["mask"].dtype == np.uint8
        np.testing.assert_array_equal(example["mask"], masks()[i])


@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.parametrize("year", [2014, 2017])
def test_both_years_are_read_from_archives_and_folders(tmp_path, year, archived):
    data = read(write(tmp_path, layout(year), archived, year))
    check(data.train, (5, 9), f"train{year}")
    assert isinstance(data.validation, Readable)
    assert data.validation.names == (name_of(21, f"val{year}"),)
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[:, 3] = CLASSES["dog"]
    np.testing.assert_array_equal(data.validation[0]["mask"], expected)
    assert data.classes == COCO.names
    assert data.colors == COCO.colors
    assert data.train_sizes() is None
    assert isinstance(data.train, Readable)


@pytest.mark.parametrize("archived", [False, True])
def test_images_may_lie_in_a_folder_of_their_own(tmp_path, archived):
    parts = layout(2017)
    write(tmp_path, {"annotations": parts.pop("annotations")})
    (tmp_path / "images").mkdir()
    write(tmp_path / "images", parts, archived, 2017)
    check(read(tmp_path).train, (5, 9), "train2017")


def test_of_two_years_the_papers_is_read_unless_the_other_is_asked_for(tmp_path):
    write(tmp_path, layout(2014))
    write(tmp_path, layout(2017))
    check(read(tmp_path).train, (5, 9), "train2014")
    check(read(tmp_path, year=2017).train, (5, 9), "train2017")
    assert "2015" in error_of(coco.read, str(tmp_path), Findings(), 2015)


def test_a_source_survives_pickling_and_needs_neither_annotations_nor_pycocotools(
    tmp_path, monkeypatch
):
    data = read(write(tmp_path, layout(), archived=True))
    (tmp_path / "annotations_trainval2014.zip").unlink()
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    check(pickle.loads(pickle.dumps(data.train)), (5, 9), "train2014")


def test_a_source_is_pickled_in_a_piece_not_object_by_object(tmp_path):
    """What it takes grows by the objects' run lengths, classes and starts: a few bytes each."""

    def pickled(objects: int) -> int:
        parts = layout()
        notes = [annotation(9, "cat", [rectangle(2, 3, 5, 6)])] * objects
        parts["annotations"]["instances_train2014.json"] = instances("train2014", (9,), notes)
        return len(pickle.dumps(read(write(tmp_path, parts)).train))

    each = (pickled(2010) - pickled(10)) / 2000
    assert each <= 20


def test_an_image_of_another_size_than_its_annotation_says_is_named(tmp_path):
    parts = layout()
    name = name_of(9, "train2014")
    parts["train2014"][name] = jpeg(9, height=10)
    message = error_of(read(write(tmp_path, parts)).train.__getitem__, 1)
    assert name in message
    assert "instances_train2014.json: image 9" in message
    assert "10x12" in message


def test_a_missing_image_is_named_and_the_rest_is_read(tmp_path):
    write(tmp_path, layout())
    path = tmp_path / "train2014" / name_of(9, "train2014")
    path.unlink()
    # Without an object of VOC's it is not needed.
    (tmp_path / "train2014" / name_of(7, "train2014")).unlink()
    fault, data = fault_of(tmp_path)
    assert str(path) in fault
    check(data.train, (5,), "train2014")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"image_id": 77}, "annotation 107 is of image 77"),
        ({"image_id": None}, "annotation 107 names no image"),
        ({"category_id": 12}, "annotation 107 is of category 12"),
        ({"category_id": [1]}, "annotation 107 is of category [1]"),
        ({"segmentation": None}, "annotation 107 (image 9)"),
        ({"segmentation": [[1, 2, 3, "4", 5, 6]]}, "annotation 107 (image 9)"),
        ({"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "annotation 107 (image 9)"),
        ({"segmentation": [[1, 2, 3, 4, 1e7, 6]]}, "annotation 107 (image 9)"),
        ({"segmentation": {"size": [8, 12], "counts": [97]}}, "annotation 107 (image 9)"),
        ({"segmentation": {"size": [8, 12], "counts": [2**70]}}, "annotation 107 (image 9)"),
        ({"segmentation": {"size": [8, 12], "counts": "P1"}}, "annotation 107 (image 9)"),
    ],
)
def test_a_malformed_annotation_is_named_and_passed_over(tmp_path, change, named):
    parts = layout()
    bad = {**annotation(9, "cat", [rectangle(0, 0, 2, 2)]), **change}
    parts["annotations"]["instances_train2014.json"] = instances(
        "train2014", (9, 8, 7, 5), [*train(), bad]
    )
    fault, data = fault_of(write(tmp_path, parts))
    assert fault.startswith(str(tmp_path / "annotations/instances_train2014.json"))
    assert named in fault
    check(data.train, (5, 9), "train2014")


def test_an_annotation_without_segmentation_is_named(tmp_path):
    parts = layout()
    content = parts["annotations"]["instances_train2014.json"]
    content["annotations"].append({"id": 107, "image_id": 9, "category_id": 1})
    fault, data = fault_of(write(tmp_path, parts))
    assert "107" in fault
    check(data.train, (5, 9), "train2014")


@pytest.mark.parametrize(
    "segmentation",
    [
        [],
        # Annotation 918 of instances_train2017.json is like this.
        [[6.65, 3.33, 6.65, 3.33, 7.68, 3.33, 7.68, 3.33]],
        [rectangle(13, 1, 15, 3)],
        {"size": [8, 12], "counts": [96]},
    ],
)
def test_an_object_without_area_in_its_image_is_a_warning(tmp_path, segmentation):
    parts = layout()
    # Image 8 has no other object: it is left out.
    notes = [*train(), annotation(8, "cat", segmentation), annotation(9, "cat", segmentation)]
    parts["annotations"]["instances_train2014.json"] = instances("train2014", (9, 8, 7, 5), notes)
    findings = Findings()
    data = coco.read(str(write(tmp_path, parts)), findings)
    assert findings.faults == []
    ((kind, texts),) = findings.warnings.items()
    assert kind == "objects without area in their image"
    assert [text.split(": ")[1] for text in texts] == [
        "annotation 107 (image 8) has none",
        "annotation 108 (image 9) has none",
    ]
    check(data.train, (5, 9), "train2014")


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ({"file_name": "x.jpg", "height": 8, "width": 12, "id": 9}, "lists image 9 again"),
        ({"file_name": "x.jpg", "height": 8, "id": 10}, "10"),
        ({"file_name": "x.jpg", "height": 0, "width": 12, "id": 10}, "10"),
        ({"file_name": "x.jpg", "height": 8, "width": 12, "id": 21}, "image 21 is also"),
        ("image", "image"),
    ],
)
def test_a_malformed_or_repeated_image_is_named(tmp_path, extra, named):
    parts = layout()
    content = parts["annotations"]["instances_train2014.json"]
    content["images"].append(extra)
    content["annotations"].append(annotation(9, "tie", []))
    fault, data = fault_of(write(tmp_path, parts))
    assert named in fault
    check(data.train, (5, 9), "train2014")


def test_an_image_of_both_splits_is_left_to_validation(tmp_path):
    parts = layout()
    notes = [*train(), annotation(21, "cat", [rectangle(0, 0, 2, 2)])]
    parts["annotations"]["instances_train2014.json"] = instances(
        "train2014", (9, 8, 7, 5, 21), notes
    )
    parts["train2014"][name_of(21, "train2014")] = jpeg(21)
    fault, data = fault_of(write(tmp_path, parts))
    assert "image 21 is also one of validation" in fault
    check(data.train, (5, 9), "train2014")
    assert len(data.validation) == 1


def test_categories_of_other_ids_than_cocos_are_named(tmp_path):
    parts = layout()
    content = parts["annotations"]["instances_val2014.json"]
    content["categories"][0] = {"id": 1, "name": "dog"}
    fault, _ = fault_of(write(tmp_path, parts))
    assert "instances_val2014.json" in fault
    assert "'dog'" in fault


@pytest.mark.parametrize(
    "text", ["{", "[]", "null", '{"images": [], "annotations": []}', "[" * 9999]
)
def test_annotations_that_are_none_are_refused_in_a_line(tmp_path, text):
    write(tmp_path, layout())
    path = tmp_path / "annotations/instances_train2014.json"
    path.write_text(text)
    assert error_of(coco.read, str(tmp_path), Findings()).startswith(str(path))


def test_what_is_not_there_is_said_in_a_line(tmp_path, monkeypatch):
    def message() -> str:
        return error_of(coco.read, str(tmp_path / "coco"), Findings())

    assert str(tmp_path / "coco") in message()
    (tmp_path / "coco").mkdir()
    assert "val2014.zip" in message()
    assert "val2017.zip" in message()
    (tmp_path / "coco/val2017").mkdir()
    assert "annotations_trainval2017.zip" in message()
    (tmp_path / "coco/val2017").rmdir()
    parts = layout()
    notes = parts.pop("annotations")
    write(tmp_path / "coco", parts)
    assert "annotations_trainval2014.zip" in message()
    notes["instances_val2014.json"]["annotations"] = []
    write(tmp_path / "coco", {"annotations": notes})
    assert "no image" in message()
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    assert "pip install" in message()


VOC = {"2007_000001": 41, "2008_000003": 43, "2007_000002": 42}
"""Grey values: VOC's train, SBD's train, VOC's val; the masks are all of class 1, 3 and 2."""


def write_voc(root: Path) -> None:
    lists = root / "VOCdevkit/VOC2012/ImageSets/Segmentation"
    dataset = root / "benchmark_RELEASE/dataset"
    for folder in (lists, dataset / "cls"):
        folder.mkdir(parents=True)
    for folder in ("JPEGImages", "SegmentationClass"):
        (root / "VOCdevkit/VOC2012" / folder).mkdir()
    (lists / "train.txt").write_text("2007_000001\n")
    (lists / "val.txt").write_text("2007_000002\n")
    (dataset / "train.txt").write_text("2008_000003\n")
    (dataset / "val.txt").write_text("2007_000002\n")
    for id_, grey in VOC.items():
        mask = np.full((10, WIDTH), int(id_[-1]), np.uint8)
        (root / f"VOCdevkit/VOC2012/JPEGImages/{id_}.jpg").write_bytes(jpeg(grey, height=10))
        if id_.startswith("2007"):
            Image.fromarray(mask).save(root / f"VOCdevkit/VOC2012/SegmentationClass/{id_}.png")
        else:
            scipy.io.savemat(dataset / f"cls/{id_}.mat", {"GTcls": {"Segmentation": mask}})


def test_joined_with_voc_all_of_coco_is_training_and_vocs_val_is_validation(tmp_path):
    write_voc(write(tmp_path, layout(), archived=True))
    findings = Findings()
    data = coco.read_with_voc(str(tmp_path), findings, counts=None)
    assert findings.faults == []
    source = data.train
    assert isinstance(source, Readable)
    assert len(source) == 5
    assert source.names == (
        name_of(5, "train2014"),
        name_of(9, "train2014"),
        name_of(21, "val2014"),
        "JPEGImages/2007_000001.jpg",
        "JPEGImages/2008_000003.jpg",
    )
    source = pickle.loads(pickle.dumps(source))
    greys = [int(source[i]["image"][0, 0, 0]) for i in range(5)]
    np.testing.assert_allclose(greys, [5, 9, 21, 41, 43], atol=1)
    values = [int(source[i]["mask"].max()) for i in range(5)]
    assert values == [255, CLASSES["sofa"], CLASSES["dog"], 1, 3]
    for i in range(5):
        record = source.record(i)
        assert record.name == source.names[i]
        assert source.where(i).endswith(record.name)
        assert record.mask is not None
        np.testing.assert_array_equal(record.mask, source[i]["mask"])
    assert data.train_sizes() == (*[(HEIGHT, WIDTH)] * 3, *[(10, WIDTH)] * 2)
    assert isinstance(data.validation, Readable)
    assert data.validation.names == ("JPEGImages/2007_000002.jpg",)
    for index in (-1, 5):
        with pytest.raises(IndexError):
            source[index]


def test_joined_with_voc_the_official_counts_are_asserted(tmp_path):
    write_voc(write(tmp_path, layout()))
    findings = Findings()
    coco.read_with_voc(str(tmp_path), findings)
    (fault,) = findings.faults
    assert "expected 10582" in fault

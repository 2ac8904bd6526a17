"""Sets by name: as distributed or prepared, for a task, with boxes or without."""

import numpy as np
import pytest
from PIL import Image

from drn_jax import data
from drn_jax.data import prepare
from drn_jax.data.findings import Findings
from drn_jax.errors import UserError


@pytest.fixture
def imagenet(tmp_path):
    """Two classes in folders, with an XML file of boxes for each image."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("n01440764", "n01443537"):
            folder = tmp_path / split / name
            boxes = tmp_path / "Annotations/CLS-LOC" / split
            boxes = boxes / name if split == "train" else boxes
            folder.mkdir(parents=True)
            boxes.mkdir(parents=True, exist_ok=True)
            stem = f"{name}_1"
            picture = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
            Image.fromarray(picture).save(folder / f"{stem}.JPEG")
            (boxes / f"{stem}.xml").write_text(
                "<annotation><size><width>30</width><height>20</height></size><object>"
                f"<name>{name}</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax>"
                "<ymax>8</ymax></bndbox></object></annotation>"
            )
    return tmp_path


def test_boxes_come_only_for_those_who_ask(imagenet):
    without = data.load("imagenet", str(imagenet), "classification")
    assert set(without.train[0]) == {"image", "label"}
    boxes = data.load("imagenet", str(imagenet), "classification", boxes=True).train[0]["boxes"]
    np.testing.assert_array_equal(boxes, [[1, 2, 10, 9]])


def test_a_damaged_annotation_does_not_stop_those_who_need_no_boxes(imagenet):
    for path in imagenet.rglob("*.xml"):
        path.write_text("<annotation><size>")
    found = data.load("imagenet", str(imagenet), "classification")
    assert [int(example["label"]) for example in found.train] == [0, 1]
    with_boxes = data.read("imagenet", str(imagenet), "classification", Findings())
    with pytest.raises(UserError, match=r"\.xml"):
        with_boxes.train[0]


def test_a_set_has_the_same_name_as_distributed_and_prepared(imagenet, tmp_path_factory):
    found = data.read("imagenet", str(imagenet), "classification", Findings())
    place = tmp_path_factory.mktemp("prepared")
    prepare.prepare("imagenet", found, found.splits, place)
    assert data.load("imagenet", str(place), "classification").name == found.name


@pytest.mark.parametrize(
    ("name", "directory", "task", "said"),
    [
        ("imagnet", "x", "classification", "unknown data set config.data.name='imagnet': did you"),
        ("imagenet", "x", "segmentation", "data set imagenet has no labels for segmentation"),
        ("imagenet", "", "classification", "data set imagenet: give --config.data.dir=FOLDER"),
    ],
)
def test_what_cannot_be_loaded_is_one_line(name, directory, task, said):
    with pytest.raises(UserError) as caught:
        data.load(name, directory, task)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)

"""Checking finds what is wrong, counts what is there, and agrees with NumPy about statistics."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from drn_jax.data import check
from drn_jax.data.dataset import Dataset
from drn_jax.data.files import FolderFiles
from drn_jax.data.findings import Findings
from drn_jax.data.sources import FileSource
from drn_jax.errors import UserError


class Source:
    """Examples from a list; an exception in it is raised."""

    def __init__(self, examples):
        self.examples = examples

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index):
        example = self.examples[index]
        if isinstance(example, Exception):
            raise example
        return example

    def where(self, index):
        return f"place/{index}.png"


def scene(seed, **changes):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    mask = rng.integers(0, 3, (6, 8)).astype(np.uint8)
    mask[0, 0] = 255
    return {"image": image, "mask": mask} | changes


def photograph(seed, label=0, boxes=((1, 2, 3, 4),)):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    image = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return {"image": image, "label": np.array(label, np.int32), "boxes": boxes}


def dataset(train, validation, **changes):
    made = Dataset(
        "made", ("a", "b", "c"), Source(train), Source(validation), (0.5,) * 3, (0.3,) * 3
    )
    return replace(made, **changes)


def found_in(examples, task="segmentation"):
    findings = Findings()
    check.check(dataset(examples, [scene(1000)]), task, findings)
    return findings


def test_a_sound_set_has_no_findings():
    findings = found_in([scene(i) for i in range(20)])
    assert (findings.faults, findings.warnings) == ([], {})


def test_statistics_are_those_of_all_pixels():
    train = [scene(i) for i in range(5)]
    tallies = check.check(dataset(train, [scene(9)]), "segmentation", Findings())
    pixels = np.stack([example["image"] for example in train]) / 255
    np.testing.assert_allclose(tallies["train"].mean, pixels.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(tallies["train"].std, pixels.std((0, 1, 2)), rtol=1e-10)


def test_pixels_are_counted_by_class_and_ignored_ones_apart():
    train = [scene(i) for i in range(5)]
    tally = check.check(dataset(train, [scene(9)]), "segmentation", Findings())["train"]
    masks = np.stack([example["mask"] for example in train])
    assert tally.labels.tolist() == [(masks == c).sum() for c in range(3)]
    assert tally.ignored == (masks == 255).sum()
    assert tally.sizes == {(6, 8): 5}


def test_images_and_boxes_are_counted():
    train = [photograph(0, 2), photograph(1, 0, ()), photograph(2, 2, ((0, 0, 8, 6), (1, 1, 2, 2)))]
    findings = Findings()
    tally = check.check(dataset(train, [photograph(5)]), "classification", findings)["train"]
    assert (tally.images, tally.boxes, tally.labels.tolist()) == (3, 3, [1, 0, 2])
    assert findings.faults == []


@pytest.mark.parametrize(
    ("faulty", "said"),
    [
        (UserError("mask.png: not an image"), "place/1.png: mask.png: not an image"),
        (scene(3, mask=np.full((6, 8), 7, np.uint8)), "its mask holds 7, but there are 3 classes"),
        (photograph(3, 3), "its label is 3, but there are 3 classes"),
        (photograph(3, -1), "its label is -1"),
        (photograph(3, 0, ((0, 0, 9, 2),)), "a box reaches beyond the image of 6x8"),
        (photograph(3, 0, ((-1, 0, 4, 2),)), "a box reaches beyond the image of 6x8"),
        (photograph(3, 0, ((0, 0, np.nan, 2),)), "a box reaches beyond"),
        (photograph(3, 0, ((4, 0, 3, 2),)), "a box ends before it starts"),
    ],
)
def test_what_is_faulty_is_named_and_the_rest_is_counted(faulty, said):
    masks = isinstance(faulty, Exception) or "mask" in faulty
    sound = [(scene if masks else photograph)(i) for i in (0, 5, 9)]
    findings = Findings()
    made = dataset([sound[0], faulty, sound[1]], sound[2:])
    tallies = check.check(made, "segmentation" if masks else "classification", findings)
    (fault,) = findings.faults
    assert said in fault
    assert "place/1.png" in fault
    assert tallies["train"].images == 2


@pytest.mark.parametrize(
    ("kind", "example"),
    [
        ("images of one colour", scene(3, image=np.full((6, 8, 3), 9, np.uint8))),
        ("masks without any class", scene(3, mask=np.full((6, 8), 255, np.uint8))),
        ("boxes without area", photograph(3, 0, ((2, 2, 2, 5),))),
        ("images that train has twice", scene(0)),
        ("images that two splits have", scene(1000)),
    ],
)
def test_what_is_odd_is_a_warning_with_its_place(kind, example):
    if "mask" in example:
        findings = found_in([*(scene(i) for i in range(3)), example])
    else:
        findings = Findings()
        made = dataset([photograph(0), photograph(1), example], [photograph(1000)])
        check.check(made, "classification", findings)
    assert findings.faults == []
    (where,) = findings.warnings[kind]
    assert where.startswith("place/")


def test_classes_that_never_occur_are_named():
    train = [scene(0, mask=np.zeros((6, 8), np.uint8))]
    findings = Findings()
    check.check(dataset(train, [scene(1)]), "segmentation", findings)
    assert findings.warnings["classes without an example in train"] == ["b", "c"]
    assert "classes without an example in validation" not in findings.warnings


def stated(**fields):
    """The warnings of a set whose training images have mean 0.5 and deviation 0.1, but state
    otherwise."""
    image = np.full((6, 8, 3), 127, np.uint8)
    image[::2] += 26
    image[1::2] -= 25
    findings = Findings()
    made = dataset([scene(0, image=image)], [scene(9)], mean=(0.5,) * 3, std=(0.1,) * 3)
    check.check(replace(made, **fields), "segmentation", findings)
    return findings.warnings.get("statistics unlike the stated ones", [])


@pytest.mark.parametrize(
    ("field", "near", "off"),
    [
        ("mean", (0.5, 0.5, 0.525), (0.5, 0.5, 0.535)),
        ("mean", (0.475, 0.5, 0.5), (0.465, 0.5, 0.5)),
        ("std", (0.1, 0.145, 0.1), (0.1, 0.155, 0.1)),
        ("std", (0.07, 0.1, 0.1), (0.065, 0.1, 0.1)),
    ],
)
def test_a_stated_statistic_that_is_off_by_more_than_a_little_is_a_warning(field, near, off):
    assert stated() == stated(**{field: near}) == []
    (text,) = stated(**{field: off})
    assert text.startswith(f"the {field} is stated as {check.triple(off)} and measured as 0.")


def test_a_set_of_one_grey_level_has_no_deviation():
    image = np.full((6, 8, 3), 13, np.uint8)
    findings = Findings()
    made = dataset([scene(0, image=image)], [scene(9)])
    tally = check.check(made, "segmentation", findings)["train"]
    np.testing.assert_allclose(tally.std, 0, atol=1e-12)
    said = findings.warnings["statistics unlike the stated ones"]
    assert any("the std is stated" in text for text in said)


def test_images_that_differ_in_one_pixel_or_in_shape_alone_are_not_the_same():
    last = scene(0)["image"].copy()
    last[-1, -1, -1] ^= 1
    turned = scene(0)["image"].reshape(8, 6, 3)
    examples = [scene(0), scene(0, image=last)]
    examples.append({"image": turned, "mask": scene(0)["mask"].reshape(8, 6)})
    assert not any(kind.startswith("images") for kind in found_in(examples).warnings)


def test_what_a_source_remarks_of_an_example_is_a_warning(tmp_path):
    for i in range(3):
        Image.fromarray(scene(i)["image"]).save(tmp_path / f"{i}.png")

    def remarks(index):
        return (("odd things", f"number {index}"),) if index != 1 else ()

    names, labels = tuple(f"{i}.png" for i in range(3)), np.zeros(3, np.int32)
    source = FileSource(FolderFiles(str(tmp_path)), names, labels, remarks=remarks)
    findings = Findings()
    made = dataset([photograph(5)], [photograph(6)])
    check.check(replace(made, train=source), "classification", findings)
    assert findings.warnings["odd things"] == ["number 0", "number 2"]


def test_findings_raise_the_first_fault_and_say_how_many_more():
    findings = Findings()
    findings.raise_first("look")
    findings.warn("odd things", "here")
    findings.raise_first("look")
    findings.fault("first")
    with pytest.raises(UserError, match=r"^first$"):
        findings.raise_first("look")
    findings.fault("second")
    with pytest.raises(UserError, match=r"^first; 1 more .*`look`"):
        findings.raise_first("look")

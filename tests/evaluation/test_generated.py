"""Generated images find their label maps and are scored as the protocol says, whatever the network.

The network of these tests answers with the image's red channel.
"""

import math
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix

from drn_jax.data.files import FolderFiles
from drn_jax.data.labels.cityscapes import CITYSCAPES
from drn_jax.errors import UserError
from drn_jax.evaluation import generated
from drn_jax.evaluation.generated import Protocol

CLASSES = 3


def red(image):
    """As a network of three classes, whatever it sees: dark, middle, light."""
    return (image[..., 0] // 86).astype(np.int32)


def pairs(count=3, size=(8, 12), label_size=(16, 24), seed=0):
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        label = rng.choice([0, 1, 2, 255], label_size, p=[0.5, 0.3, 0.1, 0.1]).astype(np.uint8)
        made.append((image, label))
    return made


def pil(array, size, way):
    return np.array(Image.fromarray(array).resize(size[::-1], way))


@pytest.mark.parametrize("resize", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize(
    ("seen", "scored", "at", "counted"),
    [
        ("label", "label", (16, 24), (16, 24)),
        ("image", "label", (8, 12), (16, 24)),
        ("image", "seen", (8, 12), (8, 12)),
        ((5, 7), "seen", (5, 7), (5, 7)),
        ((21, 9), "label", (21, 9), (16, 24)),
    ],
)
def test_scores_are_those_of_images_resized_by_pil(resize, seen, scored, at, counted):
    """And of labels and predictions resized by its nearest neighbour."""
    found = generated.score(pairs(), red, CLASSES, Protocol(seen, resize, scored))
    expected = np.zeros((CLASSES, CLASSES), int)
    for image, label in pairs():
        shown = pil(image, at, Image.Resampling[resize.upper()])
        answer = pil(red(shown).astype(np.uint8), counted, Image.Resampling.NEAREST)
        truth = pil(label, counted, Image.Resampling.NEAREST)
        kept = truth != 255
        expected += confusion_matrix(truth[kept], answer[kept], labels=range(CLASSES))
    np.testing.assert_array_equal(found["confusion"], expected)
    assert found["images"] == 3
    assert found["sizes"] == {((8, 12), at, counted): 3}
    hits = np.diag(expected)
    iou = hits / (expected.sum(0) + expected.sum(1) - hits)
    assert found["scores"]["miou"] == pytest.approx(iou.mean())
    assert found["scores"]["pixel_accuracy"] == pytest.approx(hits.sum() / expected.sum())


def test_an_image_without_an_answer_is_named():
    """By its place, or as it is called."""
    images = pairs()

    def mask_of(image):
        if np.array_equal(image, images[1][0]):
            raise UserError("the network's answer is not a number")
        return red(image)

    for where, said in (({}, "image 1"), ({"where": "abc".__getitem__}, "b")):
        with pytest.raises(UserError) as caught:
            generated.score(images, mask_of, CLASSES, Protocol("image", scored="seen"), **where)
        assert str(caught.value) == f"{said}: the network's answer is not a number"


def test_the_default_sees_and_scores_at_the_size_of_the_label_map():
    assert Protocol().as_json() == {"seen": "label", "resize": "bicubic", "scored": "label"}
    assert Protocol((256, 512)).as_json()["seen"] == "256x512"


def test_images_of_their_labels_score_1():
    label = np.repeat(np.repeat(pairs(1)[0][1], 2, 0), 2, 1)
    image = np.repeat(np.where(label == 255, 0, label * 100)[..., None], 3, 2).astype(np.uint8)
    found = generated.score([(image, label)], red, CLASSES)
    assert list(found["scores"].values()) == pytest.approx([1.0] * 4)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (16, 7), (34, 40), (31, 20), (64, 33)])
def test_nearest_takes_the_pixel_under_the_middle_as_pil_does(size):
    """Where that is an edge between two (31 rows of 16), PIL's rounding decides, here the later."""
    mask = np.random.default_rng(0).integers(0, 256, (16, 20), dtype=np.uint8)
    found = generated.nearest(mask, size)
    for y, x in np.ndindex(*size):
        middle = Fraction(2 * y + 1, 2 * size[0]), Fraction(2 * x + 1, 2 * size[1])
        assert found[y, x] == mask[math.floor(middle[0] * 16), math.floor(middle[1] * 20)]
    if size[0] != 31:
        np.testing.assert_array_equal(found, pil(mask, size, Image.Resampling.NEAREST))


def write(folder, names, value=0):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4), value, np.uint8)).save(path)
    return FolderFiles(str(folder))


def match(tmp_path, images, labels, kind="labelIds", **options):
    found = write(tmp_path / "images", images), write(tmp_path / "labels", labels)
    return generated.match(*found, kind, **options).pairs


def error_of(*args, **options):
    with pytest.raises(UserError) as caught:
        match(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


FRAME = "aachen_000000_000019"


@pytest.mark.parametrize(
    "image",
    [
        f"{FRAME}.png",
        f"{FRAME}.JPG",
        f"deep/er/{FRAME}_leftImg8bit.png",
        f"{FRAME}_gtFine_labelIds_synthesized_image.jpg",
        f"{FRAME}_leftImg8bit_fake_B.png",
    ],
)
def test_files_of_one_name_belong_together(tmp_path, image):
    label = f"aachen/{FRAME}_gtFine_labelIds.png"
    assert match(tmp_path, [image], [label]) == [(image, label)]


def test_other_pictures_of_a_result_are_passed_over(tmp_path):
    """pix2pix puts what it was given beside what it made, Cityscapes all kinds of label maps."""
    kinds = ("labelIds", "labelTrainIds", "color", "instanceIds")
    labels = [f"{n}/{n}_gtFine_{kind}.png" for n in "ab" for kind in kinds]
    images = [f"{n}_{kind}.png" for n in "ab" for kind in ("real_A", "fake_B", "real_B")]
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a_gtFine_polygons.json").write_text("{}")
    for kind, end in (("labelIds", "labelIds"), ("trainIds", "labelTrainIds"), ("colors", "color")):
        found = match(tmp_path, images, labels, kind)
        assert found == [(f"{n}_fake_B.png", f"{n}/{n}_gtFine_{end}.png") for n in "ab"]


def test_named_endings_choose_the_files(tmp_path):
    images, labels = ["a_B.png", "a_A.png", "b_B.png"], ["a.png", "b.png", "a.bmp"]
    assert "images/a_A.png" in error_of(tmp_path, images, ["a.png", "b.png"], "ids")
    found = match(tmp_path, images, labels, "ids", endings=("_B.png", ".png"))
    assert found == [("a_B.png", "a.png"), ("b_B.png", "b.png")]


def test_files_without_partner_are_named_and_counted(tmp_path):
    images, labels = ["a.png", "b.png", "c.png", "d.png"], ["a.png", "e.png", "f.png"]
    said = error_of(tmp_path, images, labels, "ids")
    assert "3 images of 4 have no label map, 2 label maps of 3 no image" in said
    assert "images/b.png" in said
    assert said.index("d.png, ...") < said.index("--partial")
    assert match(tmp_path, images, labels, "ids", partial=True) == [("a.png", "a.png")]


def test_no_pair_at_all_is_an_error_even_of_a_part(tmp_path):
    for partial in (False, True):
        said = error_of(tmp_path, ["a.png"], ["b.png"], "ids", partial=partial)
        assert "1 images of 1 have no label map" in said
    empty = FolderFiles(str(tmp_path / "labels" / "none"))
    with pytest.raises(UserError, match="holds no pictures"):
        generated.match(empty, empty, "ids")


def test_two_files_of_one_name_are_an_error(tmp_path):
    said = error_of(tmp_path, ["a.png", "a.jpg", "x/a.png"], ["a.png"], "ids")
    assert "are of one name (and 1 more)" in said
    assert f"{tmp_path}/images/a.jpg" in said


def test_label_maps_of_every_kind_become_class_ids(tmp_path):
    names = {label.trained: label for label in CITYSCAPES.labels if label.trained}
    ids = np.arange(20, dtype=np.uint8).reshape(4, 5)
    own = np.array([*(names[n].id for n in CITYSCAPES.names), 4], np.uint8).reshape(4, 5)
    painted = [*(names[n].color for n in CITYSCAPES.names), (0, 0, 0)]
    ids[-1, -1] = 255
    written = {
        "trainIds": ids,
        "ids": ids,
        "labelIds": own,
        "colors": np.array(painted, np.uint8).reshape(4, 5, 3),
    }
    files = write(tmp_path / "images", ["a.png"]), FolderFiles(str(tmp_path))
    for kind, array in written.items():
        Image.fromarray(array).save(tmp_path / f"{kind}.png")
        decode = generated.decoder(kind, 19)
        ((image, label),) = generated.read_pairs(*files, [("a.png", f"{kind}.png")], decode)
        assert image.shape == (4, 4, 3)
        np.testing.assert_array_equal(label, ids)


@pytest.mark.parametrize("broken", ["images", "labels"])
def test_a_file_that_is_no_image_is_named(tmp_path, broken):
    files = [write(tmp_path / kind, ["a.png"]) for kind in ("images", "labels")]
    (tmp_path / broken / "a.png").write_bytes(b"nothing")
    with pytest.raises(UserError, match=rf"{broken}/a\.png: not an image"):
        list(generated.read_pairs(*files, [("a.png", "a.png")], generated.decoder("ids", 3)))

"""A set is scored as image by image in NumPy, from pixels of the original to the curves."""

import dataclasses
import io
import json
from dataclasses import dataclass

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from drn_jax.config import parse
from drn_jax.data.dataset import Dataset, evenly
from drn_jax.data.files import folder_files
from drn_jax.data.sources import FileSource
from drn_jax.errors import UserError
from drn_jax.evaluation import boxed
from drn_jax.evaluation.crops import Crops
from drn_jax.evaluation.localisation import Localisation
from drn_jax.evaluation.localise import DELTAS, SCORE_THRESHOLDS, evaluate, report, tune
from drn_jax.experiment import Experiment
from drn_jax.models.inputs import Preprocess
from drn_jax.tasks import Classification
from drn_jax.training import sharding

STRIDE = 4
MIXED = np.random.default_rng(7).normal(0, 4, (3, 7))
"""From colours to the logits of seven classes."""


class Planted(nn.Module):
    """A network whose class map is the image itself, every fourth pixel of it."""

    weights: tuple
    broken: bool = False

    @nn.compact
    def __call__(self, images, train=False):
        maps = images[:, ::STRIDE, ::STRIDE] @ jnp.asarray(self.weights, jnp.float32)
        if self.broken:
            maps = maps * jnp.nan
        return maps.mean((1, 2)), {"logits_2d": maps}


class OneCell(nn.Module):
    """A network that leaves one cell, as VGG-16 does."""

    @nn.compact
    def __call__(self, images, train=False):
        maps = images.mean((1, 2), keepdims=True)
        return maps[:, 0, 0], {"logits_2d": maps}


@dataclass(frozen=True)
class Listed:
    """Examples in memory."""

    examples: tuple

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index):
        return dict(self.examples[index])

    def where(self, index):
        return f"example {index}"


def experiment(model, classes, train, validation, **settings):
    config = {
        "name": "tiny",
        "task": "classification",
        "model": {"name": "drn_d_22"},
        "data": {"name": "imagenet", "dir": "", "crop": 16, "resize": 18},
        "batch_size": 8,
        "epochs": 1,
        "optimizer": {"learning_rate": 0.1},
        "schedule": {"kind": "poly"},
    }
    plain = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    names = tuple(map(str, range(classes)))
    dataset = Dataset("scenes", names, train, validation, *plain, **settings)
    return Experiment(
        config=parse(config),
        dataset=dataset,
        task=Classification(classes),
        model=model,
        augment=lambda example, rng: example,
        preprocess=Preprocess(*plain),
        stride=STRIDE,
        crop=(16, 16),
        input_shape=(16, 16, 3),
        keys=("image", "label"),
        pictures=validation,
    )


@pytest.fixture(scope="module")
def mesh():
    return sharding.make_mesh()


# An oracle of another make: one image after the other, loops over cells, double precision


def resized_slowly(image, shorter):
    height, width = image.shape[:2]
    if height <= width:
        size = int(shorter * width / height), shorter
    else:
        size = shorter, int(shorter * height / width)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


def softmax_slowly(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def iou_slowly(a, b):
    wide = min(a[2], b[2]) - max(a[0], b[0])
    tall = min(a[3], b[3]) - max(a[1], b[1])
    if wide <= 0 or tall <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return wide * tall / (sum(areas) - wide * tall)


def box_of_cells(cells):
    if not cells:
        return None
    ys, xs = zip(*cells, strict=True)
    return min(xs), min(ys), max(xs) + 1, max(ys) + 1


def image_slowly(example, crops, protocol, thresholds, weights):
    """Hits of one image: top-1, top-5, localised top-1, top-5 and GT-known [T], MaxBoxAcc's."""
    image = example["image"]
    resized = resized_slowly(image, crops.resize)
    height, width = resized.shape[:2]
    side = crops.crop
    top, left = round((height - side) / 2), round((width - side) / 2)

    def mapped(pixels):
        return pixels[::STRIDE, ::STRIDE] / 255 @ weights

    if crops.count == 1:
        logits = mapped(resized[top : top + side, left : left + side]).mean((0, 1))
    else:
        p = []
        for view in (resized, resized[:, ::-1]):
            corners = [(0, 0), (0, width - side), (height - side, 0), (height - side, width - side)]
            for y, x in [*corners, (top, left)]:
                p.append(softmax_slowly(mapped(view[y : y + side, x : x + side]).mean((0, 1))))
        logits = np.log(np.mean(p, 0))
    if protocol.image == "whole":
        top, left, shown = 0, 0, resized
    else:
        shown = resized[top : top + side, left : left + side]
    maps = mapped(shown)
    f = softmax_slowly(maps) if protocol.map == "softmax" else maps
    h, w, _ = f.shape
    label = int(example["label"])

    def overlap(box):
        if box is None:
            everything = (0, 0, image.shape[1], image.shape[0])
            return max(iou_slowly(everything, true) for true in example["boxes"].tolist())
        x1, y1, x2, y2 = (STRIDE * edge for edge in box)
        x2, y2 = min(x2, shown.shape[1]), min(y2, shown.shape[0])
        x, y = image.shape[1] / width, image.shape[0] / height
        found = (x * (left + x1), y * (top + y1), x * (left + x2), y * (top + y2))
        return max(iou_slowly(found, true) for true in example["boxes"].tolist())

    def overlap_of(c, t):
        cells = [
            (y, x)
            for y in range(h)
            for x in range(w)
            if f[y, x, c] == f[y, x].max() and f[y, x, c] > t
        ]
        return overlap(box_of_cells(cells))

    predicted = np.argsort(-logits)[:5].tolist()
    hits = {"top1": predicted[0] == label, "top5": label in predicted}
    known = np.array([overlap_of(label, t) > protocol.iou for t in thresholds])
    hits["top1_localised"] = hits["top1"] & known
    hits["top5_localised"] = np.array(
        [any(c == label and overlap_of(c, t) > protocol.iou for c in predicted) for t in thresholds]
    )
    hits["known"] = known
    own = maps[..., label]
    own = (own - own.min()) / (own.max() - own.min())
    overlaps = []
    for t in SCORE_THRESHOLDS.astype(np.float64):
        cells = [(y, x) for y in range(h) for x in range(w) if own[y, x] > t]
        overlaps.append(overlap(box_of_cells(cells)))
    hits["boxes"] = np.array(overlaps)[None] >= np.array(DELTAS)[:, None]
    return hits


def mixed_scenes(count, seed):
    """Blurred random colours in images of various sizes, with one to five boxes each, of which one
    is large."""
    rng = np.random.default_rng(seed)
    examples = []
    for _ in range(count):
        height, width = rng.choice([21, 30], 2)
        colors = Image.fromarray(rng.integers(0, 256, (3, 3, 3), dtype=np.uint8))
        image = np.asarray(colors.resize((width, height), Image.Resampling.BILINEAR))
        several = np.sort(rng.uniform(0, 1, (rng.integers(1, 6), 2, 2)), 1)
        several[0] = rng.uniform((0, 0.6), (0.4, 1), (2, 2)).T
        boxes = (several * (width, height)).reshape(-1, 4).astype(np.float32)
        likely = int((image.mean((0, 1)) @ MIXED).argmax())
        label = likely if rng.random() < 0.6 else rng.integers(7)
        examples.append({"image": image, "label": np.array(label, np.int32), "boxes": boxes})
    return Listed(tuple(examples))


def mixed_run(source):
    return experiment(Planted(tuple(map(tuple, MIXED.tolist()))), 7, source, source)


def compare(found, source, crops, protocol, thresholds):
    slow = [image_slowly(e, crops, protocol, thresholds, MIXED) for e in source.examples]
    mean = {name: np.mean([hits[name] for hits in slow], 0) for name in slow[0]}
    assert found.count == len(source)
    assert (found.top1, found.top5) == (mean["top1"], mean["top5"])
    np.testing.assert_allclose(found.top1_error, 1 - mean["top1_localised"], atol=1e-9)
    np.testing.assert_allclose(found.top5_error, 1 - mean["top5_localised"], atol=1e-9)
    np.testing.assert_allclose(found.gt_known, mean["known"], atol=1e-9)
    np.testing.assert_allclose(found.box_accuracy, mean["boxes"], atol=1e-9)
    # Else this would tell nothing.
    assert len(set(found.gt_known.tolist())) >= 3
    assert found.top1_error.min() < found.top1_error.max() < 1
    assert len(set(found.box_accuracy.ravel().tolist())) > 20


CROP = Crops(resize=19, crop=18)
TEN = Crops(resize=19, crop=16, count=10)
PROTOCOLS = {
    "one crop": (CROP, Localisation()),
    "ten crops, another overlap": (dataclasses.replace(CROP, count=10), Localisation(iou=0.3)),
    "logits": (CROP, Localisation(map="logits")),
    "whole images": (CROP, Localisation(image="whole", iou=0.2)),
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_set_is_scored_as_image_by_image(mesh, name):
    crops, protocol = PROTOCOLS[name]
    source = mixed_scenes(45, 0)
    if protocol.map == "softmax":
        thresholds = np.array([-np.inf, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    else:
        thresholds = np.array([-np.inf, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    found = evaluate(mixed_run(source), {}, mesh, crops, protocol, source, thresholds)
    np.testing.assert_array_equal(found.thresholds, thresholds.astype(np.float32))
    compare(found, source, crops, protocol, thresholds)


def test_the_true_boxes_of_files_are_counted_without_reading_the_images(mesh, tmp_path):
    """And a part of them is scored as the part."""
    source = mixed_scenes(12, 1)
    for i, example in enumerate(source.examples):
        file = io.BytesIO()
        Image.fromarray(example["image"]).save(file, "PNG")
        (tmp_path / f"{i}.png").write_bytes(file.getvalue())
    boxes = [example["boxes"] for example in source.examples]
    files = FileSource(
        folder_files(str(tmp_path)),
        tuple(f"{i}.png" for i in range(12)),
        np.array([example["label"] for example in source.examples]),
        tuple(boxes),
    )
    part = evenly(files, 5)
    taken = [source.examples[i] for i in part.indices]
    for i in range(12):
        if i not in part.indices:
            boxes[i] = boxes[i][:0]
            (tmp_path / f"{i}.png").write_bytes(b"no image")
    part = dataclasses.replace(part, whole=dataclasses.replace(files, boxes=tuple(boxes)))
    thresholds = np.array([-np.inf, 0.5, 0.9])
    run = mixed_run(source)
    found, expected = (
        evaluate(run, {}, mesh, CROP, Localisation(), images, thresholds).as_json()
        for images in (part, Listed(tuple(taken)))
    )
    assert found == expected
    assert (found["count"], found["left_out"]) == (5, 0)
    # All others have no box: their images, which are none, are never opened.
    whole = evaluate(run, {}, mesh, CROP, Localisation(), part.whole, thresholds).as_json()
    assert whole == expected | {"left_out": 7}


def test_images_without_boxes_are_left_out(mesh):
    source = mixed_scenes(6, 2)
    none = np.zeros((0, 4), np.float32)
    unboxed = tuple(
        {**e, "boxes": none} if i % 2 else {k: v for k, v in e.items() if k != "boxes"}
        for i, e in enumerate(mixed_scenes(4, 3).examples)
    )
    run = mixed_run(source)
    thresholds = np.array([-np.inf, 0.5, 0.9])
    expected = evaluate(run, {}, mesh, CROP, Localisation(), source, thresholds)
    mixed = Listed((*unboxed[:2], *source.examples[:4], unboxed[2], *source.examples[4:]))
    found = evaluate(run, {}, mesh, CROP, Localisation(), mixed, thresholds)
    assert (found.count, found.left_out) == (6, 3)
    assert found.as_json() == {**expected.as_json(), "left_out": 3}
    with pytest.raises(UserError, match="data set scenes: 4 images and not one box") as caught:
        evaluate(run, {}, mesh, CROP, Localisation(), Listed(unboxed), thresholds)
    assert "\n" not in str(caught.value)


# Maps planted in the images


def planted_scene(rng, top, left, tall, wide):
    """Black, 64x96, with a rectangle of one colour at these cells of the centre crop of 32 from the
    image at half its size; other true boxes lie beside it."""
    label = rng.integers(3)
    image = np.zeros((64, 96, 3), np.uint8)
    cell = 2 * STRIDE
    y, x = cell * top, 16 + cell * left
    image[y : y + cell * tall, x : x + cell * wide, label] = 255
    box = [x, y, x + cell * wide, y + cell * tall]
    others = [[0, 0, 3, 3], [90, 60, 96, 64]]
    boxes = np.array([others[0], box, others[1]], np.float32)
    return {"image": image, "label": np.array(label, np.int32), "boxes": boxes}


def planted_scenes(count, seed, largest=4):
    rng = np.random.default_rng(seed)
    return Listed(
        tuple(
            planted_scene(rng, *rng.integers(0, 4, 2), *rng.integers(2, largest + 1, 2))
            for _ in range(count)
        )
    )


COLOURS = tuple(map(tuple, (50 * np.eye(3)).tolist()))
SMALL = Crops(resize=32, crop=32)


def test_a_planted_map_is_found_exactly(mesh):
    source = planted_scenes(20, 0)
    run = experiment(Planted(COLOURS), 3, source, source)
    found = report(run, {}, mesh, SMALL, Localisation(iou=0.999)).as_json()
    # Black ties all classes, so that without a threshold the box is the whole crop.
    assert found["unthresholded"] == {
        "threshold": None,
        "top1_error": 1,
        "top5_error": 1,
        "gt_known": 0,
    }
    for which in ("chosen", "oracle"):
        scores = found[which]
        assert (scores["top1_error"], scores["top5_error"], scores["gt_known"]) == (0, 0, 1)
        assert 1 / 3 < scores["threshold"] < 1
    assert found["max_box_acc"] == {"0.3": 1, "0.5": 1, "0.7": 1, "mean": 1}


def test_an_overlap_of_exactly_one_half_is_too_little_but_enough_for_max_box_acc(mesh):
    scene = planted_scene(np.random.default_rng(0), 1, 1, 2, 2)
    box = scene["boxes"][1]
    box[0] -= box[2] - box[0]  # To the left: resized, the cells on the right are a little lit.
    scene["boxes"] = box[None]
    source = Listed((scene,))
    run = experiment(Planted(COLOURS), 3, source, source)
    found = evaluate(run, {}, mesh, SMALL, Localisation(), source, np.array([0.9999]))
    assert (found.top1_error[0], found.top5_error[0], found.gt_known[0]) == (1, 1, 0)
    assert found.max_box_acc.tolist() == [1, 1, 0]
    found = evaluate(run, {}, mesh, SMALL, Localisation(iou=0.49), source, np.array([0.9999]))
    assert (found.top1_error[0], found.top5_error[0], found.gt_known[0]) == (0, 0, 1)


def test_a_wrong_class_is_a_wrong_box(mesh):
    source = planted_scenes(20, 1)
    wrong = Listed(
        tuple({**e, "label": (e["label"] + 1 + i % 2) % 3} for i, e in enumerate(source.examples))
    )
    run = experiment(Planted(COLOURS), 3, source, wrong)
    found = report(run, {}, mesh, SMALL, Localisation()).as_json()
    assert found["chosen"]["top1_error"] == 1
    assert found["curves"]["classification_top1"] == 0
    # Of three classes five are all; but the map of a wrong one is nowhere above the others.
    assert found["curves"]["classification_top5"] == 1
    assert found["chosen"]["top5_error"] > 0.5


def test_a_broken_network_is_never_right(mesh):
    source = planted_scenes(8, 2)
    run = experiment(Planted(COLOURS, broken=True), 3, source, source)
    thresholds = np.array([-np.inf, 0.5])
    for protocol in (Localisation(iou=0.0), Localisation("logits", iou=0.0)):
        found = evaluate(run, {}, mesh, SMALL, protocol, source, thresholds)
        assert (found.top1, found.top5) == (0, 0)
        assert found.top5_error.tolist() == [1, 1]
    report(run, {}, mesh, SMALL, Localisation("logits"))  # Also where no response is a number.


def test_the_threshold_is_chosen_on_held_out_images_alone(mesh):
    """On the tuning images the bright part of an object is boxed alone, on the others all of it."""

    def half_bright(whole_boxed, seed):
        scenes = []
        for example in planted_scenes(10, seed, largest=2).examples:
            image, box = example["image"].copy(), example["boxes"][1].copy()
            _, y1, x2, y2 = box.astype(int)
            end = x2 + 2 * STRIDE  # A darker column of cells beside.
            image[y1:y2, x2:end, example["label"]] = 60
            box[2] = end if whole_boxed else x2
            scenes.append({**example, "image": image, "boxes": box[None]})
        return Listed(tuple(scenes))

    tuning, scored = half_bright(False, 3), half_bright(True, 4)
    pale = tuple(map(tuple, (10 * np.eye(3)).tolist()))
    run = experiment(Planted(pale), 3, scored, scored, held_out=tuning)
    # Resized, a cell's first pixel has an eighth from the pixel before it.
    dark = 10 * (7 * 60 + 255) / 8 / 255
    dark = np.exp(dark) / (np.exp(dark) + 2)
    protocol = Localisation(iou=0.9)
    found = report(run, {}, mesh, SMALL, protocol)
    threshold, curves = tune(run, {}, mesh, SMALL, protocol, tuning)
    as_json = found.as_json()
    assert curves.as_json() == as_json["tuning"]
    assert as_json["chosen"]["threshold"] == threshold
    assert as_json["oracle"]["threshold"] < dark - 0.01 < dark < threshold + 0.01
    assert (as_json["chosen"]["top1_error"], as_json["oracle"]["top1_error"]) == (1, 0)
    # The given one is taken, also where it is none of those that are tried.
    given = report(run, {}, mesh, SMALL, dataclasses.replace(protocol, threshold=0.8123)).as_json()
    assert given["chosen"]["threshold"] == pytest.approx(0.8123)
    assert given["chosen"]["top1_error"] == 0


def greatest_response(source):
    """Of all logits in the centre crops."""
    found = []
    for example in source.examples:
        resized = resized_slowly(example["image"], CROP.resize)
        top, left = (round((n - CROP.crop) / 2) for n in resized.shape[:2])
        shown = resized[top : top + CROP.crop, left : left + CROP.crop]
        found.append((shown[::STRIDE, ::STRIDE] / 255 @ MIXED).max())
    return max(found)


def test_the_report_is_json_of_shares(mesh):
    source = mixed_scenes(20, 5)
    found = report(mixed_run(source), {}, mesh, CROP, Localisation("logits")).as_json()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    curves = found["curves"]
    thresholds = curves["thresholds"]
    assert thresholds[0] is None
    assert thresholds[1:] == sorted(thresholds[1:])
    # Also the copies that fill up a batch have responses, which count for nothing.
    assert abs(thresholds[-2] - greatest_response(source)) < 1e-4
    errors = curves["top1_error"]
    assert len(thresholds) == len(errors) == len(curves["top5_error"]) == len(curves["gt_known"])
    assert found["oracle"]["top1_error"] == min(errors) <= found["chosen"]["top1_error"]
    assert found["unthresholded"]["top1_error"] == errors[0]
    whole = [
        max(iou_slowly((0, 0, *example["image"].shape[1::-1]), box) for box in example["boxes"])
        for example in source.examples
    ]
    assert found["whole_image"]["gt_known"] == pytest.approx(np.mean(np.array(whole) > 0.5))
    best = [max(curves["box_accuracy"][str(delta)]) for delta in DELTAS]
    assert [found["max_box_acc"][str(delta)] for delta in DELTAS] == best
    assert found["max_box_acc"]["mean"] == pytest.approx(np.mean(best))
    shares = (*errors, *curves["top5_error"], *curves["gt_known"], *best)
    assert all(0 <= share <= 1 for share in shares)


def test_a_map_that_does_not_cover_the_image_is_refused(mesh):
    source = planted_scenes(2, 6)
    run = experiment(OneCell(), 3, source, source)
    with pytest.raises(UserError, match="its 1x1 cells of 4 pixels do not cover an image of 32x32"):
        evaluate(run, {}, mesh, SMALL, Localisation(), source, np.array([0.5]))


@pytest.mark.parametrize(
    ("crops", "image"),
    [(CROP, "crop"), (TEN, "crop"), (CROP, "whole")],
    ids=["one crop", "ten", "whole"],
)
def test_single_images_are_judged_as_the_report_counts_them(mesh, crops, image):
    source = mixed_scenes(20, 5)
    run, protocol = mixed_run(source), Localisation(threshold=0.36, iou=0.2, image=image)
    counted = report(run, {}, mesh, crops, protocol).as_json()["chosen"]
    each = list(boxed.of_images(run, {}, crops, protocol, counted["threshold"], range(20)))
    assert len(each) == 20
    right = [one.predicted == one.label and one.overlap > protocol.iou for one in each]
    assert 1 - np.mean(right) == pytest.approx(counted["top1_error"])
    assert 0 < np.mean(right) < 1
    for one, example in zip(each, source.examples, strict=True):
        assert one.overlap == pytest.approx(
            max(iou_slowly(one.box, true) for true in example["boxes"]), abs=1e-5
        )
        resized = resized_slowly(example["image"], crops.resize)
        side = (crops.crop, crops.crop)
        assert one.crop.shape[:2] == (resized.shape[:2] if image == "whole" else side)
        assert one.map.max() <= 1

"""The official script of Cityscapes reads our predictions, and finds our scores."""

import math

import numpy as np
import pytest
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling
from PIL import Image

from drn_jax.data.dataset import evenly
from drn_jax.data.findings import Findings
from drn_jax.data.labels.cityscapes import CITYSCAPES
from drn_jax.data.sets import cityscapes as dataset
from drn_jax.errors import UserError
from drn_jax.evaluation import cityscapes, scores

official = evalPixelLevelSemanticLabeling
SIZE = (12, 24)
FRAMES = (
    "frankfurt/frankfurt_000000_000294",
    "frankfurt/frankfurt_000001_000294",
    "bad-honnef/bad-honnef_000000_000294",
)


@pytest.fixture
def tree(tmp_path):
    """A set in Cityscapes' layout, whose masks hold every labelId but sky's."""
    rng = np.random.default_rng(0)
    for split, frames in (("train", ("aachen/aachen_000000_000019",)), ("val", FRAMES)):
        for frame in frames:
            for kind in ("leftImg8bit", "gtFine"):
                (tmp_path / kind / split / frame).parent.mkdir(parents=True, exist_ok=True)
            image = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
            Image.fromarray(image).save(tmp_path / f"leftImg8bit/{split}/{frame}_leftImg8bit.png")
            labels = rng.integers(0, 34, SIZE, dtype=np.uint8)
            labels[labels == 23] = 4
            Image.fromarray(labels).save(tmp_path / f"gtFine/{split}/{frame}_gtFine_labelIds.png")
    return tmp_path


def official_scores(tree, predictions):
    """What the published script makes of a folder of predictions."""
    args = official.CArgs()
    vars(args).update(vars(official.args))
    args.predictionPath, args.predictionWalk = str(predictions), None
    args.evalInstLevelScore = False  # Would need masks of instances.
    args.JSONOutput, args.quiet = False, True
    truths = sorted(map(str, tree.glob("gtFine/val/*/*_gtFine_labelIds.png")))
    found = [official.getPrediction(args, truth) for truth in truths]
    return official.evaluateImgLists(found, truths, args)


def predicted(mask, rng):
    """Right for half of the pixels, never sky; any class where truth is ignored."""
    other = rng.choice([c for c in range(19) if c != 10], mask.shape)
    return np.where((rng.uniform(size=mask.shape) < 0.5) & (mask != 255), mask, other)


def test_the_official_script_reads_the_export_and_agrees_to_the_last_digit(tree, tmp_path):
    source = dataset.read(str(tree), Findings()).validation
    rng = np.random.default_rng(1)
    matrix = np.zeros((19, 19), np.int64)
    names = cityscapes.image_names(source)
    for index, name in enumerate(names):
        truth = source[index]["mask"]
        mask = predicted(truth, rng).astype(np.uint8)
        cityscapes.write(str(tmp_path / "out"), name, mask, SIZE)
        matrix += scores.confusion(truth, mask, 19)
    expected = official_scores(tree, tmp_path / "out")
    classes = dict(zip(CITYSCAPES.names, scores.per_class(matrix)["iou"].tolist(), strict=True))
    categories = scores.category_iou(matrix, CITYSCAPES)
    for ours, theirs in ((classes, "classScores"), (categories, "categoryScores")):
        assert math.isnan(ours["sky"])  # Nowhere: left out of both means.
        scored = {k: v for k, v in expected[theirs].items() if not math.isnan(v)}
        ours = {k: v for k, v in ours.items() if not math.isnan(v)}
        assert ours == pytest.approx(scored, abs=1e-9)
    summary = scores.summary(matrix)
    assert summary["miou"] == pytest.approx(expected["averageScoreClasses"], abs=1e-9)
    mean = np.nanmean(list(categories.values()))
    assert mean == pytest.approx(expected["averageScoreCategories"], abs=1e-9)


def test_an_exported_mask_is_8_bit_grey_in_label_ids(tmp_path):
    mask = np.arange(20, dtype=np.uint8).reshape(4, 5)
    mask[-1, -1] = 255
    path = cityscapes.write(
        str(tmp_path), f"leftImg8bit/val/{FRAMES[2]}_leftImg8bit.png", mask, (4, 5)
    )
    assert path == str(tmp_path / f"{FRAMES[2]}_predLabelIds.png")
    with Image.open(path) as written:
        assert written.mode == "L"
        found = np.array(written)
    own = {label.trained: label.id for label in CITYSCAPES.labels if label.trained}
    expected = [own[name] for name in CITYSCAPES.names]
    np.testing.assert_array_equal(found.ravel(), [*expected, 0])
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == [path.rpartition("/")[2]]


def test_images_are_found_by_what_any_source_calls_them(tree):
    source = dataset.read(str(tree), Findings()).validation
    for some in (source, evenly(source, 3)):
        names = cityscapes.image_names(some)
        paths = [cityscapes.path_of("out", name) for name in names]
        assert paths == [f"out/{frame}_predLabelIds.png" for frame in sorted(FRAMES)]


@pytest.mark.parametrize(
    "name", ["val/0001.png", "aachen_000000_leftImg8bit.png", "validation, record 3", "a_b_1_2.png"]
)
def test_a_name_of_another_form_is_refused(tmp_path, name):
    with pytest.raises(UserError, match="is called CITY_SEQUENCE_FRAME_leftImg8bit"):
        cityscapes.write(str(tmp_path), name, np.zeros(SIZE, np.uint8), SIZE)


def test_masks_of_another_size_and_other_classes_are_refused(tmp_path):
    name = f"{FRAMES[0]}_leftImg8bit.png"
    with pytest.raises(UserError, match="is 12x24 pixels, not 1024x2048"):
        cityscapes.write(str(tmp_path), name, np.zeros(SIZE, np.uint8))
    cityscapes.require_classes(CITYSCAPES.names)
    with pytest.raises(UserError, match="the network's 19 classes"):
        cityscapes.require_classes(CITYSCAPES.names[::-1])


def test_two_images_of_one_frame_are_refused():
    class Twice:
        def __len__(self):
            return 2

        def __getitem__(self, index):
            raise NotImplementedError

        def where(self, index):
            return f"part{index}/{FRAMES[0]}_leftImg8bit.png"

    with pytest.raises(UserError, match=r"part1/.* is the same frame as part0/"):
        cityscapes.image_names(Twice())

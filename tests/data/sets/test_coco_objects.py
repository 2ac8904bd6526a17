"""COCO's polygons and run lengths become masks as pycocotools makes them, and nothing unsafe
reaches it."""

import sys
from array import array

import numpy as np
import pytest
from pycocotools import mask as reference

from drn_jax.data.sets.coco_objects import ObjectMasks, compressed, pycocotools_mask, run_lengths
from drn_jax.errors import UserError


def polygon(*points: float) -> array:
    return array("d", points)


def rectangle(x1: float, y1: float, x2: float, y2: float) -> array:
    return polygon(x1, y1, x2, y1, x2, y2, x1, y2)


def painted(segmentation, height: int, width: int) -> np.ndarray:
    runs = compressed(segmentation, height, width)
    return ObjectMasks(
        "instances.json",
        image_ids=np.array([7]),
        sizes=np.array([[height, width]], np.int32),
        objects=np.array([0, 1]),
        classes=np.array([1], np.uint8),
        starts=np.array([0, len(runs)]),
        runs=runs,
    )[0]


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # pycocotools, in `decode`.
def test_run_lengths_are_those_of_the_mask():
    """Long runs and short, of masks that begin on or off, and of one value throughout."""
    rng = np.random.default_rng(0)
    masks = [np.full((3, 5), value, np.uint8) for value in (0, 1)]
    for scale in (1, 1, 40):
        for density in (0.01, 0.3, 0.9):
            blocks = (rng.random((11, 17)) < density).astype(np.uint8)
            masks.append(blocks.repeat(scale, 0).repeat(scale, 1))
    for mask in masks:
        encoded = reference.encode(np.asfortranarray(mask))
        np.testing.assert_array_equal(reference.decode(encoded), mask)
        runs = encoded["counts"]
        assert isinstance(runs, bytes)
        lengths = run_lengths(runs)
        expected = np.repeat(np.arange(len(lengths)) % 2, lengths)
        np.testing.assert_array_equal(expected, mask.ravel(order="F"))
        segmentation = {"size": list(mask.shape), "counts": runs.decode()}
        np.testing.assert_array_equal(painted(segmentation, *mask.shape), mask)
        segmentation["counts"] = array("q", lengths.tolist())
        np.testing.assert_array_equal(painted(segmentation, *mask.shape), mask)


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
def test_polygons_are_rasterised_as_pycocotools_does():
    rng = np.random.default_rng(1)
    for _ in range(20):
        points = np.round(rng.uniform(-5, 45, 2 * int(rng.integers(3, 9))), 2).tolist()
        (encoded,) = reference.frPyObjects([points], 30, 40)
        expected = reference.decode(encoded)
        np.testing.assert_array_equal(painted([array("d", points)], 30, 40), expected)


def test_the_polygons_of_an_object_add_up():
    expected = np.zeros((6, 9), np.uint8)
    expected[1:5, 1:4] = 1
    expected[2:4, 6:8] = 1
    # The third lies within the first: COCO has no polygons that cut holes.
    polygons = [rectangle(1, 1, 4, 5), rectangle(6, 2, 8, 4), rectangle(2, 2, 3, 3)]
    np.testing.assert_array_equal(painted(polygons, 6, 9), expected)


def test_what_reaches_beyond_the_image_is_cut_off():
    expected = np.zeros((6, 9), np.uint8)
    expected[4:, 7:] = 1
    np.testing.assert_array_equal(painted([rectangle(7, 4, 12, 8)], 6, 9), expected)


def test_a_polygon_may_lie_out_of_the_image_by_its_longer_side():
    expected = np.zeros((6, 9), np.uint8)
    expected[2:, 3:] = 1
    np.testing.assert_array_equal(painted([rectangle(3, 2, 18, 18)], 6, 9), expected)


@pytest.mark.parametrize(
    "segmentation",
    [
        [],
        [polygon()],
        [polygon(1, 1, 5, 5)],
        # pycocotools takes it for a box where it comes first.
        [polygon(1, 1, 5, 5), polygon(2, 2)],
        [polygon(1, 1, 1, 1, 1, 1)],
        [rectangle(12, 1, 14, 3)],
    ],
)
def test_what_covers_no_pixel_is_empty(segmentation):
    assert not painted(segmentation, 6, 9).any()


@pytest.mark.parametrize(
    "segmentation",
    [
        None,
        "polygons",
        [[1, "x"]],
        [polygon(1, 1, 5, 5, 1, 5, 3)],
        [polygon(1, 1, float("nan"), 5, 1, 5)],
        [polygon(1, 1, 1e9, 5, 1, 5)],
        [polygon(1, 1, 18.5, 5, 1, 5)],
        [polygon(1, 1, 5, -18.5, 1, 5)],
        [polygon(1, 1, float("-inf"), 5, 1, 5)],
        {"counts": array("q", [54])},
        {"size": [6, 9], "counts": None},
        {"size": [6, 9], "counts": array("q", [])},
        {"size": [6, 9], "counts": array("q", [53])},
        {"size": [6, 9], "counts": array("q", [10, 45])},
        {"size": [6, 9], "counts": array("q", [60, -6])},
        {"size": [9, 6], "counts": array("q", [54])},
        {"size": ["6", "9"], "counts": array("q", [54])},
        {"size": [6, 9], "counts": ""},
        {"size": [6, 9], "counts": "0" * 54},
        {"size": [6, 9], "counts": "e"},
        {"size": [6, 9], "counts": "e" * 20 + "0"},
        {"size": [6, 9], "counts": "\x01"},
        {"size": [6, 9], "counts": "\u00e9"},
    ],
)
def test_what_could_break_pycocotools_is_refused(segmentation):
    with pytest.raises(ValueError):  # noqa: PT011
        compressed(segmentation, 6, 9)


def test_without_pycocotools_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[coco\]'"):
        pycocotools_mask()

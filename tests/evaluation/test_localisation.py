"""Boxes are the paper's: every equation against loops over cells and over all boxes there are."""

from itertools import combinations_with_replacement

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drn_jax.errors import UserError
from drn_jax.evaluation import localisation
from drn_jax.evaluation.crops import Crops, Geometry, cropped
from drn_jax.evaluation.localisation import Localisation

HEIGHT, WIDTH, CLASSES = 3, 4, 3
THRESHOLDS = (-np.inf, -0.5, 0.0, 0.25, 0.5, 0.75, 1.0)


@pytest.fixture(scope="module")
def maps():
    """float32 [2000, 3, 4, 3] of few values, so that ties, empty masks and saturation occur."""
    rng = np.random.default_rng(0)
    maps = rng.integers(0, 5, (2000, HEIGHT, WIDTH, CLASSES)) / 4
    saturated = rng.integers(0, 2, (2000, HEIGHT, WIDTH, CLASSES))
    return np.where(rng.random((2000, 1, 1, 1)) < 0.3, saturated, maps).astype(np.float32)


@pytest.fixture(scope="module")
def classes():
    """int32 [2000, 2], not always different."""
    return np.random.default_rng(1).integers(0, CLASSES, (2000, 2), np.int32)


def dominant_slowly(f, c):
    """Where c is in g(w, h)."""
    height, width, count = f.shape
    found = np.zeros((height, width), bool)
    for y in range(height):
        for x in range(width):
            found[y, x] = all(f[y, x, c] >= f[y, x, other] for other in range(count))
    return found


ALL_BOXES = [
    (w1, h1, w2, h2)
    for h1, h2 in combinations_with_replacement(range(HEIGHT), 2)
    for w1, w2 in combinations_with_replacement(range(WIDTH), 2)
]
COVERED = np.array(
    [
        [[h1 <= h <= h2 and w1 <= w <= w2 for w in range(WIDTH)] for h in range(HEIGHT)]
        for w1, h1, w2, h2 in ALL_BOXES
    ]
)


def smallest_cover(mask):
    """b_i: of all boxes there are, that of the fewest cells among those that hold the mask."""
    if not mask.any():
        return -np.inf, -np.inf, np.inf, np.inf
    covers = (COVERED | ~mask).all((1, 2))
    areas = np.where(covers, COVERED.sum((1, 2)), np.inf)
    assert (areas == areas.min()).sum() == 1
    w1, h1, w2, h2 = ALL_BOXES[int(areas.argmin())]
    return w1, h1, w2 + 1, h2 + 1


def test_a_class_dominates_where_none_is_above_it(maps, classes):
    found = np.asarray(localisation.dominant(jnp.asarray(maps), jnp.asarray(classes)))
    ties = 0
    for f, of_map, masks in zip(maps, classes, found, strict=True):
        for c, mask in zip(of_map, masks, strict=True):
            np.testing.assert_array_equal(mask, dominant_slowly(f, c))
        ties += (masks[0] & masks[1]).any() and of_map[0] != of_map[1]
    assert ties > 500


def test_more_axes_before_are_more_maps(maps, classes):
    one = localisation.dominant(jnp.asarray(maps[:6]), jnp.asarray(classes[:6]))
    many = localisation.dominant(
        jnp.asarray(maps[:6].reshape(2, 3, *maps.shape[1:])),
        jnp.asarray(classes[:6].reshape(2, 3, -1)),
    )
    assert many.shape == (2, 3, 2, HEIGHT, WIDTH)
    np.testing.assert_array_equal(many.reshape(one.shape), one)


def test_where_a_response_is_not_a_number_no_class_dominates(maps, classes):
    broken = maps[:50].copy()
    broken[:, 1, 2, 0] = np.nan
    found = localisation.dominant(jnp.asarray(broken), jnp.asarray(classes[:50]))
    sound = localisation.dominant(jnp.asarray(maps[:50]), jnp.asarray(classes[:50]))
    assert not found[:, :, 1, 2].any()
    np.testing.assert_array_equal(found[:, :, 0], sound[:, :, 0])


def test_the_box_is_the_smallest_of_all_that_cover_the_mask(maps, classes):
    run = jax.jit(localisation.boxes)
    found = np.asarray(run(jnp.asarray(maps), jnp.asarray(classes), jnp.asarray(THRESHOLDS)))
    assert found.dtype == np.float32
    assert found.shape == (2000, 2, len(THRESHOLDS), 4)
    empty = 0
    for f, of_map, of_image in zip(maps, classes, found, strict=True):
        for c, of_class in zip(of_map, of_image, strict=True):
            inside = dominant_slowly(f, c)
            for t, box in zip(THRESHOLDS, of_class, strict=True):
                mask = inside & (f[..., c] > t)
                empty += not mask.any()
                assert tuple(box) == smallest_cover(mask)
    assert empty > 1000


def test_two_far_cells_are_in_one_box():
    f = np.zeros((1, 6, 7, 2), np.float32)
    f[0, 1, 2, 1] = f[0, 4, 5, 1] = 1
    box = localisation.boxes(jnp.asarray(f), jnp.array([[1]]), jnp.array([0.0]))
    assert box[0, 0, 0].tolist() == [2, 1, 6, 5]


def test_the_box_of_a_broken_map_has_no_bounds():
    f = jnp.full((1, 3, 5, 2), jnp.nan)
    thresholds = jnp.array([-jnp.inf, 0.5])
    for boxes in (localisation.boxes, localisation.score_boxes):
        found = boxes(f, jnp.array([[0]]), thresholds)
        assert found[0, 0].tolist() == [[-np.inf, -np.inf, np.inf, np.inf]] * 2


def test_boxes_of_scores_ask_nothing_of_other_classes(maps, classes):
    thresholds = np.array([0.0, 0.25, 0.4, 0.99, 1.0], np.float32)
    few, of_few = 7 * maps[:400] - 3, classes[:400]
    found = localisation.score_boxes(jnp.asarray(few), jnp.asarray(of_few), jnp.asarray(thresholds))
    for f, of_map, of_image in zip(few, of_few, np.asarray(found), strict=True):
        for c, of_class in zip(of_map, of_image, strict=True):
            own = f[..., c]
            spread = own.max() - own.min()
            scaled = (own - own.min()) / spread if spread else 0 * own
            for t, box in zip(thresholds, of_class, strict=True):
                assert tuple(box) == smallest_cover(scaled > t)


def iou_slowly(a, b):
    """By counting quarter pixels."""
    covered = []
    for x1, y1, x2, y2 in (a, b):
        grid = np.zeros((40, 40), bool)
        grid[int(4 * y1) : int(4 * y2), int(4 * x1) : int(4 * x2)] = True
        covered.append(grid)
    union = (covered[0] | covered[1]).sum()
    sound = covered[0].any() and covered[1].any()
    return (covered[0] & covered[1]).sum() / union if sound else 0.0


def random_boxes(rng, count):
    """Corners on quarter pixels within 10x10; some have no area, some are the wrong way round."""
    return (rng.integers(0, 41, (count, 4)) / 4).astype(np.float32)


def test_iou_is_that_of_counted_cells():
    rng = np.random.default_rng(2)
    a, b = random_boxes(rng, 2000), random_boxes(rng, 2000)
    b[:200, 2] = b[:200, 0]
    a[200:600, :2], a[200:600, 2:] = np.sort(a[200:600].reshape(-1, 2, 2), 1).transpose(1, 0, 2)
    b[200:600] = a[200:600] + rng.choice([0, 0.25, -0.25], (400, 4)).astype(np.float32)
    b = b.clip(0, 10)
    found = np.asarray(localisation.iou(jnp.asarray(a), jnp.asarray(b)))
    slow = [iou_slowly(*pair) for pair in zip(a, b, strict=True)]
    np.testing.assert_allclose(found, slow, rtol=1e-6)
    assert (found > 0.5).sum() > 100
    assert (found == 0).sum() > 200


def test_the_best_of_several_true_boxes_counts_and_none_that_fills_up():
    rng = np.random.default_rng(3)
    found = random_boxes(rng, 5 * 3 * 2).reshape(5, 3, 2, 4)
    truth = random_boxes(rng, 5 * 4).reshape(5, 4, 4)
    valid = rng.random((5, 4)) < 0.6
    valid[0] = False
    truth[1, 2], valid[1, 2] = (0, 0, 10, 10), False
    best = np.asarray(
        localisation.best_iou(jnp.asarray(found), jnp.asarray(truth), jnp.asarray(valid))
    )
    assert best.shape == (5, 3, 2)
    for n in range(5):
        for place in np.ndindex(3, 2):
            slow = [
                iou_slowly(found[(n, *place)], box)
                for box, there in zip(truth[n], valid[n], strict=True)
                if there
            ]
            np.testing.assert_allclose(best[(n, *place)], max(slow, default=0), rtol=1e-6)


def test_a_tie_at_one_half_is_exact():
    half = localisation.iou(jnp.array([[0.0, 0, 224, 112]]), jnp.array([[0.0, 0, 224, 224]]))
    assert half.tolist() == [0.5]


@pytest.mark.parametrize("size", [(30, 45), (50, 21), (24, 24)])
@pytest.mark.parametrize("count", [1, 10])
def test_cells_lie_on_the_pixels_that_they_are_made_of(size, count):
    """Each crop shows, pixel by pixel, where in the image it was taken: so its cells must map
    there, enlarged image, mirrored crop and odd margin or not."""
    height, width = size
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows, columns, 0 * rows], -1).astype(np.uint8)
    crops = Crops(resize=2 * min(size), crop=18, count=count)
    resized, views, places = cropped(image, crops)
    stride = 4
    cells = np.array([[[0, 0, 1, 1], [1, 2, 3, 4], [4, 4, 5, 5], [0, 0, 5, 5]]], np.float32)
    found = localisation.to_pixels(jnp.asarray(cells.repeat(count, 0)), stride, Geometry(*places))
    assert resized.shape[:2] == (2 * height, 2 * width)
    for view, boxes in zip(views, np.asarray(found), strict=True):
        for (cx1, cy1, cx2, cy2), box in zip(cells[0].astype(int), boxes, strict=True):
            part = view[stride * cy1 : stride * cy2, stride * cx1 : stride * cx2]
            x1, y1, x2, y2 = box
            # Interpolated coordinates tell a pixel's middle, to a quarter and half a rounding.
            for (low, high), channel in (((y1, y2), 0), ((x1, x2), 1)):
                values = part[..., channel].astype(float)
                assert abs(values.min() + 0.5 - low) <= 1
                assert abs(values.max() + 0.5 - high) <= 1
            assert abs((x2 - x1) - part.shape[1] / 2) < 1e-4
            assert abs((y2 - y1) - part.shape[0] / 2) < 1e-4


def test_pixels_map_back_onto_the_crop():
    """The inverse, written the other way round: image, enlarged, mirrored, cropped."""
    rng = np.random.default_rng(4)
    for _ in range(200):
        original = rng.integers(20, 60, 2)
        resized = rng.integers(20, 60, 2)
        size = rng.integers(5, 20, 2)
        offset = [rng.integers(0, r - s + 1) for r, s in zip(resized, size, strict=True)]
        mirrored = bool(rng.integers(2))
        pairs = (np.array([pair], np.float32) for pair in (size, resized, original))
        place = Geometry(np.array([offset], np.float32), np.array([mirrored]), *pairs)
        cells = np.array([[[0, 1, 2, 3]]], np.float32)
        (((x1, y1, x2, y2),),) = np.asarray(localisation.to_pixels(jnp.asarray(cells), 4, place))
        (y1, y2), (x1, x2) = (
            np.array(ends) * r / o
            for ends, r, o in zip(((y1, y2), (x1, x2)), resized, original, strict=True)
        )
        if mirrored:
            x1, x2 = resized[1] - x2, resized[1] - x1
        back = np.array([x1 - offset[1], y1 - offset[0], x2 - offset[1], y2 - offset[0]])
        height, width = size
        expected = [0, min(4, height), min(8, width), min(12, height)]
        np.testing.assert_allclose(back, expected, atol=1e-4)


def test_thresholds_of_probabilities_reach_every_saturated_map():
    found = localisation.probability_thresholds()
    assert found.dtype == np.float32
    assert found[0] == -np.inf
    assert (np.diff(found[1:]) > 0).all()
    assert set(np.linspace(0, 1, 101, dtype=np.float32)) <= set(found)
    # Some threshold separates 1 - 1e-6 from what rounds to 1, and one 1/1000 from less.
    assert ((found > 1 - 1e-6) & (found < 1)).any()
    assert ((found > 1e-5) & (found < 1e-3)).sum() > 2
    assert found[-1] == 1


def test_thresholds_of_logits_are_values_that_occur():
    values = np.random.default_rng(5).normal(3, 2, 5000).astype(np.float32)
    found = localisation.quantile_thresholds(values)
    assert found[0] == -np.inf
    assert (found[1], found[-2]) == (values.min(), values.max())
    assert found[-1] == np.finfo(np.float32).max
    shares = [(values > t).mean() for t in found[1:]]
    assert np.abs(np.diff(shares)).max() < 0.0105
    assert localisation.rising([2, -np.inf, 1], 2, [0.5]).tolist() == [-np.inf, 0.5, 1, 2]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"map": "sigmoid"}, "map = 'sigmoid' must be softmax or logits"),
        ({"image": "centre"}, "image = 'centre' must be crop or whole"),
        ({"iou": 1.0}, "iou = 1.0 must be at least 0 and below 1"),
        ({"threshold": float("nan")}, "threshold = nan must be a number"),
    ],
)
def test_settings_that_cannot_be_are_told(settings, says):
    with pytest.raises(UserError, match=says.replace("(", "[(]")):
        Localisation(**settings).check()


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_box_without_bounds_is_the_whole_image_and_not_the_crop(mirrored):
    def pair(*values):
        return np.array([values], np.float32)

    geometry = Geometry(pair(5, 7), np.array([mirrored]), pair(16, 16), pair(30, 40), pair(60, 100))
    cells = jnp.array([[[-jnp.inf, -jnp.inf, jnp.inf, jnp.inf], [0.0, 0.0, 2.0, 2.0]]])
    found = np.asarray(localisation.to_pixels(cells, 8, geometry))[0]
    assert found[0].tolist() == [0, 0, 100, 60]
    x1, x2 = (40 - 23, 40 - 7) if mirrored else (7, 23)
    np.testing.assert_allclose(found[1], [2.5 * x1, 10, 2.5 * x2, 42], rtol=1e-6)

"""The boundary F-score equals what its definition gives, pixel by pixel."""

import itertools
import math

import numpy as np
import pytest

from drn_jax.data.dataset import IGNORED
from drn_jax.evaluation.boundary import BoundaryF

CLASSES = 4


def masks(seed, shape=(14, 17)):
    """Blocks of classes 0 to 2, shifted and disturbed in the prediction; some truth is ignored."""
    rng = np.random.default_rng(seed)
    truth = np.kron(rng.integers(0, 3, (5, 6)), np.ones((3, 3), int))[: shape[0], : shape[1]]
    prediction = np.roll(truth, rng.integers(-2, 3, 2), (0, 1))
    prediction = np.where(rng.uniform(size=shape) < 0.03, rng.integers(0, 3, shape), prediction)
    truth[rng.uniform(size=shape) < 0.05] = IGNORED
    truth[:4, :4] = IGNORED
    return truth.astype(np.uint8), prediction.astype(np.uint8)


def slow_outline(mask, ignored, c):
    """Pixels of class c that count and have a counting neighbour of another class."""
    found = []
    for y, x in np.ndindex(*mask.shape):
        if mask[y, x] != c or ignored[y, x]:
            continue
        for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            inside = 0 <= v < mask.shape[0] and 0 <= u < mask.shape[1]
            if inside and not ignored[v, u] and mask[v, u] != c:
                found.append((y, x))
                break
    return found


def slow_near(points, others, tolerance):
    return sum(any(math.dist(p, q) <= tolerance for q in others) for p in points)


def slow_counts(truth, prediction, c, theta):
    tolerance = theta * math.sqrt(truth.shape[0] ** 2 + truth.shape[1] ** 2)
    ignored = truth == IGNORED
    true, predicted = (slow_outline(mask, ignored, c) for mask in (truth, prediction))
    return (
        len(predicted),
        slow_near(predicted, true, tolerance),
        len(true),
        slow_near(true, predicted, tolerance),
    )


def slow_f(predicted, predicted_near, true, true_near):
    if not predicted + true:
        return math.nan
    if not predicted_near:
        return 0.0
    precision, recall = predicted_near / predicted, true_near / true
    return 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize("theta", [0.0, 0.05, 0.1])
def test_sums_and_scores_equal_those_of_brute_force_distances(theta):
    score = BoundaryF(CLASSES, theta)
    pairs = [masks(seed) for seed in range(4)]
    pairs[0][0][pairs[0][0] == 2] = 1  # Class 2 is missing in one truth,
    for mask in pairs[1]:
        mask[mask == 2] = 0  # and in both masks of another image.
    counted = [score.sums(*pair) for pair in pairs]
    total = {name: sum(s[name] for s in counted) for name in counted[0]}
    each, pooled = np.full((2, CLASSES), np.nan)
    for c in range(CLASSES):
        counts = [slow_counts(*pair, c, theta) for pair in pairs]
        for s, expected in zip(counted, counts, strict=True):
            names = ("predicted", "predicted_near", "true", "true_near")
            assert tuple(s[name][c] for name in names) == expected
        fs = [f for f in (slow_f(*n) for n in counts) if not math.isnan(f)]
        assert total["images"][c] == len(fs)
        if fs:
            each[c] = np.mean(fs)
            pooled[c] = slow_f(*np.sum(counts, 0).tolist())
    assert total["images"].tolist() == [4, 4, 3, 0]
    np.testing.assert_allclose(score.per_class(total), each, rtol=1e-12)
    np.testing.assert_allclose(score.per_class_pooled(total), pooled, rtol=1e-12)
    expected = {"boundary_f": np.nanmean(each), "boundary_f_pooled": np.nanmean(pooled)}
    assert score.scores(total) == pytest.approx(expected)


def test_the_right_answer_scores_1_and_edges_of_image_and_ignored_are_no_boundary():
    truth, _ = masks(0)
    score = BoundaryF(CLASSES)
    assert score.scores(score.sums(truth, truth)) == {"boundary_f": 1.0, "boundary_f_pooled": 1.0}
    truth = np.zeros((6, 6), np.uint8)
    truth[2:4] = IGNORED
    counted = score.sums(truth, truth)
    assert not counted["images"].any()
    assert set(score.scores(counted).values()) == {0.0}


def test_what_is_predicted_in_ignored_pixels_is_no_matter():
    truth, prediction = masks(3)
    score = BoundaryF(CLASSES)
    other = np.where(truth == IGNORED, 200, prediction)
    for a, b in itertools.pairwise([score.sums(truth, p) for p in (prediction, other)]):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


@pytest.mark.parametrize(("shift", "expected"), [(2, 1.0), (3, 0.0)])
def test_tolerance_is_a_share_of_the_diagonal(shift, expected):
    """50 pixels diagonally, 0.04 of which are 2."""
    truth = np.zeros((30, 40), np.uint8)
    truth[:, 20:] = 1
    prediction = np.roll(truth, shift, 1)
    prediction[:, :shift] = 0
    score = BoundaryF(2, 0.04)
    np.testing.assert_array_equal(score.per_class(score.sums(truth, prediction)), expected)

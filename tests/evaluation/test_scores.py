"""Scores of a confusion matrix are those of the pixels that it counts."""

import math

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    confusion_matrix,
    jaccard_score,
    precision_score,
    recall_score,
)

from drn_jax.data.dataset import IGNORED
from drn_jax.data.labels.cityscapes import CITYSCAPES
from drn_jax.evaluation import scores
from drn_jax.tasks import Segmentation

CLASSES = 6


def masks(seed=0, shape=(23, 31)):
    """Truth and prediction of classes 0 to 4 (of 6), half of it right, a tenth ignored; class 3 is
    never predicted, class 4 never true."""
    rng = np.random.default_rng(seed)
    truth = rng.choice([0, 1, 2, 3], shape).astype(np.uint8)
    prediction = np.where(rng.uniform(size=shape) < 0.5, truth, rng.choice([0, 1, 4], shape))
    prediction[prediction == 3] = 0
    truth[rng.uniform(size=shape) < 0.1] = IGNORED
    return truth, prediction.astype(np.uint8)


def test_confusion_equals_that_of_scikit_learn_and_leaves_out_what_is_ignored():
    truth, prediction = masks()
    counts = truth != IGNORED
    expected = confusion_matrix(truth[counts], prediction[counts], labels=range(CLASSES))
    prediction[~counts] = 77  # What is predicted there is no matter.
    matrix = scores.confusion(truth, prediction, CLASSES)
    assert matrix.dtype == np.int64
    np.testing.assert_array_equal(matrix, expected)


def test_confusion_of_an_image_that_is_ignored_is_empty():
    truth = np.full((3, 4), IGNORED, np.uint8)
    np.testing.assert_array_equal(scores.confusion(truth, truth, 2), np.zeros((2, 2)))


@pytest.mark.parametrize(
    ("truth", "prediction", "says"),
    [
        ([[0, 2]], [[0, 0]], "truth: 0 to 2"),
        ([[0, 1]], [[0, 255]], "prediction: 0 to 255"),
        ([[0, 1]], [[0, -1]], "prediction: -1 to 0"),
        ([[0, 1]], [[0], [1]], "truth is"),
    ],
)
def test_what_is_no_class_is_refused(truth, prediction, says):
    with pytest.raises(ValueError, match=says):
        scores.confusion(np.array(truth), np.array(prediction), 2)


def test_summary_and_classes_equal_those_of_scikit_learn():
    truth, prediction = masks()
    matrix = scores.confusion(truth, prediction, CLASSES)
    counts = truth != IGNORED
    truth, prediction = truth[counts], prediction[counts]
    found = scores.per_class(matrix)
    for name, score, absent in (
        ("iou", jaccard_score, {5}),
        ("recall", recall_score, {4, 5}),
        ("precision", precision_score, {3, 5}),
    ):
        expected = score(truth, prediction, labels=range(CLASSES), average=None, zero_division=0)
        expected = [math.nan if c in absent else x for c, x in enumerate(expected)]
        np.testing.assert_allclose(found[name], expected, rtol=1e-12)
    weighted = jaccard_score(truth, prediction, average="weighted", zero_division=0)
    with pytest.warns(UserWarning, match="y_pred contains classes"):
        balanced = balanced_accuracy_score(truth, prediction)
    assert scores.summary(matrix) == pytest.approx(
        {
            "miou": np.nanmean(found["iou"]),
            "pixel_accuracy": accuracy_score(truth, prediction),
            "class_accuracy": balanced,
            "frequency_weighted_iou": weighted,
        },
        rel=1e-12,
    )


def test_summary_has_the_scores_of_training():
    matrix = scores.confusion(*masks(), CLASSES)
    task = Segmentation(CLASSES).scores(
        {"loss": np.zeros(()), "count": matrix.sum(), "confusion": matrix}
    )
    found = scores.summary(matrix)
    for name in ("miou", "pixel_accuracy"):
        assert found[name] == task[name]


def test_summary_of_nothing_is_0():
    assert set(scores.summary(np.zeros((3, 3), np.int64)).values()) == {0.0}


def test_category_iou_is_that_of_masks_of_categories():
    rng = np.random.default_rng(1)
    truth, prediction = rng.integers(0, 19, (2, 40, 50)).astype(np.uint8)
    truth[prediction == 10] = IGNORED  # Sky is nowhere ...
    truth[truth == 10] = IGNORED
    found = scores.category_iou(scores.confusion(truth, prediction, 19), CITYSCAPES)
    category = {c.name: c.category for c in CITYSCAPES.labels if c.trained}
    assert list(found) == list(CITYSCAPES.categories())
    for name in found:
        ids = [i for i, c in enumerate(CITYSCAPES.names) if category[c] == name]
        there = np.isin(truth, ids)
        here = np.isin(prediction, ids) & (truth != IGNORED)
        if name == "sky":  # ... so it has no score.
            assert math.isnan(found[name])
        else:
            assert found[name] == pytest.approx((there & here).sum() / (there | here).sum())


def test_a_class_of_no_group_is_refused():
    with pytest.raises(ValueError, match=r"classes of no group: \[2\]"):
        scores.folded(np.ones((3, 3), np.int64), np.array([0, 1, 255]), 2)

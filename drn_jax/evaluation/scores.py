"""Scores of a segmentation from its confusion matrix: integers [truth, prediction], in pixels.

A class (or category) that occurs neither in truth nor in prediction has no score, NaN, and is in no
mean: so do cityscapesScripts.
"""

from collections.abc import Mapping

import numpy as np

from drn_jax.data.dataset import IGNORED
from drn_jax.data.labels.space import LabelSpace
from drn_jax.tasks.segmentation import class_iou


def confusion(truth: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    """Pixel counts int64 [truth, prediction] of one image, on the host; they add up over images.

    Args:
      truth: integers [H, W], class ids, 255 = ignored.
      prediction: integers [H, W], class ids; its ignored pixels may hold anything.

    Raises:
      ValueError: as `counting`.
    """
    counts = counting(truth, prediction, classes)
    there, here = truth[counts].astype(np.int64), prediction[counts].astype(np.int64)
    pairs = np.bincount(there * classes + here, minlength=classes * classes)
    return pairs.astype(np.int64).reshape(classes, classes)


def counting(truth: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    """Bool [H, W]: the pixels that truth does not ignore.

    Raises:
      ValueError: the two differ in size, or a pixel that counts holds no class in one of them.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"truth is {truth.shape}, prediction {prediction.shape}")
    counts = truth != IGNORED
    for name, mask in (("truth", truth), ("prediction", prediction)):
        ids = mask[counts]
        if ids.size and not 0 <= ids.min() <= ids.max() < classes:
            raise ValueError(f"{name}: {ids.min()} to {ids.max()} are not all of {classes} classes")
    return counts


def recall(matrix: np.ndarray) -> np.ndarray:
    """Share of each class's pixels that is found, float64 [classes]; papers call it the class's
    accuracy. NaN for a class that truth has not."""
    return _share(np.diag(matrix), matrix.sum(1))


def precision(matrix: np.ndarray) -> np.ndarray:
    """Share of the pixels predicted as each class that is right, float64 [classes]; NaN for a class
    that is never predicted."""
    return _share(np.diag(matrix), matrix.sum(0))


def summary(matrix: np.ndarray) -> dict[str, float]:
    """`miou`, `pixel_accuracy`, `class_accuracy` and `frequency_weighted_iou` in [0, 1], as Long et
    al. 2015 (FCN, section 5) define them; all 0 for an empty matrix.

    `class_accuracy` is the mean recall; the last is the mean IoU weighted by the pixels that each
    class has in truth.
    """
    pixels = int(matrix.sum())
    if not pixels:
        names = ("miou", "pixel_accuracy", "class_accuracy", "frequency_weighted_iou")
        return dict.fromkeys(names, 0.0)
    iou = class_iou(matrix)
    return {
        "miou": float(np.nanmean(iou)),
        "pixel_accuracy": int(np.trace(matrix)) / pixels,
        "class_accuracy": float(np.nanmean(recall(matrix))),
        "frequency_weighted_iou": float((np.nan_to_num(iou) * (matrix.sum(1) / pixels)).sum()),
    }


def per_class(matrix: np.ndarray) -> dict[str, np.ndarray]:
    """`iou`, `recall` and `precision`, float64 [classes] each."""
    return {"iou": class_iou(matrix), "recall": recall(matrix), "precision": precision(matrix)}


def folded(matrix: np.ndarray, groups: np.ndarray, count: int) -> np.ndarray:
    """The confusion matrix [count, count] of groups of classes.

    `groups`: the group of every class, by class id (`LabelSpace.category_ids`).
    """
    group = groups[: len(matrix)].astype(np.intp)
    if group.max(initial=0) >= count:
        raise ValueError(f"classes of no group: {np.flatnonzero(group >= count).tolist()}")
    found = np.zeros((count, count), np.int64)
    np.add.at(found, (group[:, None], group[None, :]), matrix)
    return found


def category_iou(matrix: np.ndarray, space: LabelSpace) -> Mapping[str, float]:
    """IoU of every category by its name, as cityscapesScripts count it: a pixel is right where its
    predicted class is any class of the true one's category; pixels of ignored labels do not count,
    whatever their category. NaN for one that occurs nowhere."""
    names = space.categories()
    iou = class_iou(folded(matrix, space.category_ids(), len(names)))
    return dict(zip(names, iou.tolist(), strict=True))


def _share(hits: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Quotients, float64; NaN where there is nothing to share."""
    return np.divide(hits, of, out=np.full(len(hits), np.nan), where=of > 0)

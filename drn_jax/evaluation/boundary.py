"""The boundary F-score: how well the outlines of a segmentation lie on the true ones.

After Csurka et al. 2013 (What is a good evaluation measure for semantic segmentation?) and Perazzi
et al. 2016 (DAVIS), for each class of each image:
  boundary   the pixels of the class with another class on one of their four sides. The image's
             edge is no boundary; neither is the edge of what is ignored: ignored pixels, of truth
             and prediction alike, count as if the image ended there.
  precision  the share of the predicted boundary's pixels whose distance to the nearest pixel of the
             true boundary is at most the tolerance; recall, the same with both exchanged
  F          2 * precision * recall / (precision + recall); 0 if only one of the two boundaries is
             there. If neither is, the image says nothing of the class.
Distances are Euclidean, between the middles of pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from drn_jax.data.dataset import IGNORED
from drn_jax.evaluation.scores import counting

Sums = dict[str, np.ndarray]


@dataclass(frozen=True)
class BoundaryF:
    """Boundary F-scores by class: sums of images, which add up over images and hosts, and scores
    from their totals."""

    classes: int
    theta: float = 0.0075
    """The tolerance: a share of the image's diagonal (17.2 pixels of 1024x2048). Csurka et al. have
    0.0075, DAVIS 0.008."""

    def sums(self, truth: np.ndarray, prediction: np.ndarray) -> Sums:
        """Of one image; `truth` and `prediction` are integers [H, W], truth's 255 is ignored.

        Returns:
          arrays [classes]: `f` float64, summed over `images` int64 (here 0 or 1), those that say
          something of the class; `predicted`, `predicted_near`, `true` and `true_near`, int64: how
          many boundary pixels there are, and how many of them lie within the tolerance.

        Raises:
          ValueError: as `scores.counting`.
        """
        ignored = ~counting(truth, prediction, self.classes)
        tolerance = self.theta * float(np.hypot(*truth.shape))
        counts = np.zeros((4, self.classes), np.int64)
        there = _outline(truth)
        here = _outline(np.where(ignored, IGNORED, prediction))
        for c in range(self.classes):
            true, predicted = there & (truth == c), here & (prediction == c)
            counts[:, c] = (*_near(predicted, true, tolerance), *_near(true, predicted, tolerance))
        predicted, predicted_near, true, true_near = counts
        return {
            "f": _f(predicted, predicted_near, true, true_near),
            "images": (predicted + true > 0).astype(np.int64),
            "predicted": predicted,
            "predicted_near": predicted_near,
            "true": true,
            "true_near": true_near,
        }

    def per_class(self, sums: Mapping[str, np.ndarray]) -> np.ndarray:
        """Float64 [classes]: the mean of F over the images that say something of the class; NaN if
        none does."""
        none = np.full(self.classes, np.nan)
        return np.divide(sums["f"], sums["images"], out=none, where=sums["images"] > 0)

    def per_class_pooled(self, sums: Mapping[str, np.ndarray]) -> np.ndarray:
        """Float64 [classes]: F of the boundary pixels of all images together, so that images count
        by the length of their boundaries; NaN as before."""
        counts = (sums[name] for name in ("predicted", "predicted_near", "true", "true_near"))
        return np.where(sums["images"] > 0, _f(*counts), np.nan)

    def scores(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """`boundary_f` and `boundary_f_pooled`: the means of both over the classes that have one;
        0 if none has."""
        if not sums["images"].any():
            return {"boundary_f": 0.0, "boundary_f_pooled": 0.0}
        return {
            "boundary_f": float(np.nanmean(self.per_class(sums))),
            "boundary_f_pooled": float(np.nanmean(self.per_class_pooled(sums))),
        }


def _outline(mask: np.ndarray) -> np.ndarray:
    """Bool [H, W]: the pixels with another class on one of their four sides."""
    found = np.zeros(mask.shape, bool)
    counts = mask != IGNORED
    for before, after in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        differ = (mask[before] != mask[after]) & counts[before] & counts[after]
        found[before] |= differ
        found[after] |= differ
    return found


def _near(points: np.ndarray, others: np.ndarray, tolerance: float) -> tuple[int, int]:
    """How many points there are, bool [H, W], and how many have one of the others within the
    tolerance."""
    count = int(points.sum())
    if not count or not others.any():
        return count, 0
    # All distances asked for lie in the box of both, often a small part of the image.
    rows, columns = (np.flatnonzero((points | others).any(axis)) for axis in (1, 0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    distance = ndimage.distance_transform_edt(~others[box])
    return count, int((np.asarray(distance)[points[box]] <= tolerance).sum())


def _f(
    predicted: np.ndarray, predicted_near: np.ndarray, true: np.ndarray, true_near: np.ndarray
) -> np.ndarray:
    """F of counts [classes], float64; 0 where a boundary is missing or none is near."""
    precision = predicted_near / np.maximum(predicted, 1)
    recall = true_near / np.maximum(true, 1)
    total = precision + recall
    return np.divide(2 * precision * recall, total, out=np.zeros(len(total)), where=total > 0)

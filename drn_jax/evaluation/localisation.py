"""Weakly supervised localisation: class maps to boxes, boxes to hits (DRN paper, section 5.2).

f(c, w, h) are the response maps of the network without its pooling: `logits_2d`, or their softmax
over classes. In the paper's words

    g(w, h) = {c : f(c, w, h) >= f(c', w, h) for all c'}
    B_i = {boxes that cover all (w, h) with c_i in g(w, h) and f(c_i, w, h) > t}
    b_i = the smallest box in B_i

Boxes are (x1, y1, x2, y2) in edges: cell k covers [k, k + 1). So an area counts cells, and b_i is
unique also where the paper's (w2 - w1)(h2 - h1) is 0 for all boxes of one column. B_i asks for no
connected component: b_i spans all such cells. Of an empty mask every box is a cover; the paper says
nothing of it, and here b_i is the whole image then, beyond the crop that the map is of.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from drn_jax.errors import UserError
from drn_jax.evaluation.crops import Geometry

Map = Literal["softmax", "logits"]
Image = Literal["crop", "whole"]


@dataclass(frozen=True)
class Localisation:
    """What the paper leaves open."""

    map: Map = "softmax"
    """What f is: probabilities over the classes at each cell, or logits."""
    threshold: float | None = None
    """t; None: chosen on held-out images."""
    iou: float = 0.5
    """A box is right if its intersection over union with a true one is above."""
    image: Image = "crop"
    """What the map is of: the centre crop, or the whole resized image. The latter is compiled for
    every size of image anew."""

    def check(self) -> None:
        """Raise UserError for what can't be."""
        if self.map not in get_args(Map):
            raise UserError(f"localisation: map = {self.map!r} must be softmax or logits")
        if self.image not in get_args(Image):
            raise UserError(f"localisation: image = {self.image!r} must be crop or whole")
        if not 0 <= self.iou < 1:
            raise UserError(f"localisation: iou = {self.iou} must be at least 0 and below 1")
        if self.threshold is not None and not self.threshold < np.inf:
            raise UserError(
                f"localisation: threshold = {self.threshold} must be a number, or -inf for none"
            )

    def responses(self, logits: jax.Array) -> jax.Array:
        """f, of class maps [..., classes]."""
        return jax.nn.softmax(logits) if self.map == "softmax" else logits


def dominant(f: jax.Array, classes: jax.Array) -> jax.Array:
    """Where classes are in g, no class above them: bool [..., K, h, w].

    Several are where they tie, and none where a response is NaN.

    Args:
      f: response maps [..., h, w, C].
      classes: int [..., K].
    """
    return _of_classes(f, classes) >= f.max(-1)[..., None, :, :]  # The maximum with NaN is NaN.


def boxes(f: jax.Array, classes: jax.Array, thresholds: jax.Array) -> jax.Array:
    """b_i of each class at each threshold t: float32 [N, K, T, 4], cells.

    Args:
      f: response maps [N, h, w, C].
      classes: int [N, K].
      thresholds: [T]; -inf is none.
    """
    values = jnp.where(dominant(f, classes), _of_classes(f, classes), -jnp.inf)
    return tight(values, thresholds)


def score_boxes(f: jax.Array, classes: jax.Array, thresholds: jax.Array) -> jax.Array:
    """The boxes of MaxBoxAcc (Choe et al. 2020), which ask nothing of other classes: tight around
    the cells where f_c, scaled to [0, 1] over the map, is above a threshold; as `boxes`.

    Here, too, of all such cells: Choe et al. take connected components of the upsampled map.
    """
    own = _of_classes(f, classes)
    least, most = own.min((-2, -1), keepdims=True), own.max((-2, -1), keepdims=True)
    spread = most - least
    scaled = (own - least) / jnp.where(spread > 0, spread, 1)
    return tight(scaled, thresholds)


def tight(values: jax.Array, thresholds: jax.Array) -> jax.Array:
    """The smallest box around all cells above each threshold: [..., h, w] and [T] ->
    float32 [..., T, 4], cells. NaN is above nothing. Where no cell is, the box has no bounds:
    (-inf, -inf, inf, inf), which `to_pixels` cuts to the image."""
    values = jnp.where(jnp.isnan(values), -jnp.inf, values)
    # A column is in the box if its greatest value is above: no mask of a threshold is ever made.
    x1, x2 = _extent(values.max(-2), thresholds)
    y1, y2 = _extent(values.max(-1), thresholds)
    return jnp.stack([x1, y1, x2, y2], -1)


def _extent(profile: jax.Array, thresholds: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The first place of [..., n] above each threshold, and the place after the last: float32
    [..., T]; infinite where there is none."""
    line = profile[..., None, :]
    above = line > thresholds.reshape(*(1,) * (line.ndim - 2), -1, 1)
    count = profile.shape[-1]
    some = above.any(-1)
    # Of equals argmax takes the first.
    first, last = above.argmax(-1), count - above[..., ::-1].argmax(-1)
    return jnp.where(some, first, -jnp.inf), jnp.where(some, last, jnp.inf)


def _of_classes(f: jax.Array, classes: jax.Array) -> jax.Array:
    """[..., h, w, C] and int [..., K] -> [..., K, h, w]."""
    own = jnp.take_along_axis(f, classes[..., None, None, :], -1)
    return jnp.moveaxis(own, -1, -3)


def to_pixels(cells: jax.Array, stride: int, geometry: Geometry) -> jax.Array:
    """Boxes [N, ..., 4] in cells of a crop's map -> in pixels of the original image.

    Cell k covers the crop's pixels from stride*k to stride*(k + 1), as far as the crop goes. A box
    without bounds becomes the whole image.
    """
    height, width = jnp.asarray(geometry.size).T
    edges = jnp.stack([width, height, width, height], -1)
    edges = edges.reshape(len(cells), *(1,) * (cells.ndim - 2), 4)
    inside = jnp.where(jnp.isinf(cells), cells, jnp.minimum(stride * cells, edges))
    tall, wide = jnp.asarray(geometry.original).T
    image = jnp.stack([wide, tall, wide, tall], -1).reshape(edges.shape)
    return jnp.clip(geometry.to_image(inside), 0, image)


def iou(a: jax.Array, b: jax.Array) -> jax.Array:
    """Intersection over union of boxes [..., 4]: float32 [...], 0 where one has no area."""
    sides = jnp.minimum(a[..., 2:], b[..., 2:]) - jnp.maximum(a[..., :2], b[..., :2])
    common = jnp.maximum(sides, 0).prod(-1)
    areas = [jnp.maximum(box[..., 2:] - box[..., :2], 0).prod(-1) for box in (a, b)]
    union = areas[0] + areas[1] - common
    return jnp.where(union > 0, common / jnp.where(union > 0, union, 1), 0)


def best_iou(found: jax.Array, truth: jax.Array, valid: jax.Array) -> jax.Array:
    """With whichever of the image's true boxes it is greatest (ILSVRC's rule for several):
    [N, ...].

    Args:
      found: boxes [N, ..., 4].
      truth: boxes [N, B, 4].
      valid: bool [N, B], which of those there are.
    """
    between = (1,) * (found.ndim - 2)
    truth = truth.reshape(len(truth), *between, *truth.shape[1:])
    overlaps = iou(found[..., None, :], truth)
    return jnp.where(valid.reshape(len(valid), *between, -1), overlaps, 0).max(-1)


def probability_thresholds() -> np.ndarray:
    """Thresholds t of probabilities, float32 [T], rising: none, 0 to 1 in 100 steps, and ever finer
    steps towards 0 and 1, where the maps of a well-trained network lie. At 1 no cell is left."""
    fine = 10.0 ** np.linspace(-2, -7, 21)
    return rising([-np.inf], np.linspace(0, 1, 101), fine, 1 - fine)


def quantile_thresholds(values: np.ndarray) -> np.ndarray:
    """Thresholds t of logits, float32 [T], rising: none, 100 quantiles of the values, finer among
    the greatest, and the greatest number. At the last no cell is left."""
    fine = 1 - 10.0 ** np.linspace(-2, -4, 9)
    shares = np.concatenate([np.linspace(0, 1, 101), fine])
    above_all = [np.finfo(np.float32).max]
    return rising([-np.inf], np.quantile(values.astype(np.float64), shares), above_all)


def rising(*thresholds: ArrayLike) -> np.ndarray:
    """All thresholds, sorted, each once: float32 [T]."""
    return np.unique(np.concatenate([np.asarray(t, np.float32).ravel() for t in thresholds]))

"""Semantic segmentation: the dense class map upsampled to the image, and its confusion matrix."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from drn_jax.data.dataset import IGNORED
from drn_jax.tasks.classification import cross_entropy
from drn_jax.tasks.upsampling import Alignment, Border, sampled, upsample

Arrays = Mapping[str, jax.Array]


@dataclass(frozen=True)
class Grid:
    """How the cells of a class map lie on the pixels of the image."""

    alignment: Alignment = "centre"
    """Where a cell lies, see `upsampling`: in the middle of its pixels, or at their first."""
    border: Border = "clamp"
    """Beyond the class map when it is upsampled: its edge again, or 0 as in fyu/drn."""
    interpolate: Literal["logits", "probabilities"] = "logits"
    """What is upsampled: scores before the softmax (fyu/drn), or behind it (fyu/dilation)."""
    loss_at: Literal["pixels", "cells"] = "pixels"
    """Where the loss is taken: at every pixel of the upsampled map (fyu/drn, Dilation10), or at
    every cell, with the label under it (the other nets of fyu/dilation)."""


PUBLISHED_DILATION = Grid("corner", "clamp", "probabilities", "cells")
"""fyu/dilation's grid, but for Cityscapes, whose net upsamples by itself."""


@dataclass(frozen=True)
class Segmentation:
    """One class a pixel: `batch["mask"]` uint8 [N, H, W], 255 ignored.

    `output_stride` is that of `features["logits_2d"]`. A network that upsamples by itself gives
    `features["pixel_logits"]`; then of the grid only `loss_at` counts.
    """

    num_classes: int
    output_stride: int = 8
    grid: Grid = Grid()
    name: ClassVar[str] = "segmentation"
    primary: ClassVar[str] = "miou"

    def pixel_scores(self, features: Arrays, height: int, width: int) -> jax.Array:
        """Unnormalised log-probabilities of every pixel, float32 [N, height, width, classes].

        Cells beyond the image's lower and right edge, where its size is no multiple of the stride,
        are cut off.
        """
        grid = self.grid
        if "pixel_logits" in features:
            full = features["pixel_logits"]
        elif grid.interpolate == "logits":
            full = upsample(features["logits_2d"], self.output_stride, grid.border, grid.alignment)
        else:
            p = jax.nn.softmax(features["logits_2d"])
            p = upsample(p, self.output_stride, grid.border, grid.alignment)
            full = jnp.log(jnp.maximum(p, jnp.finfo(p.dtype).tiny))
        return full[:, :height, :width, :]

    def loss(
        self, logits: jax.Array, features: Arrays, batch: Arrays
    ) -> tuple[jax.Array, jax.Array]:
        """Mean cross-entropy in nats over the batch's counting pixels, or cells, and how many they
        are."""
        del logits
        if self.grid.loss_at == "cells":
            total, count = self._cell_loss(features, batch)
        else:
            scores = self.pixel_scores(features, *batch["mask"].shape[1:])
            total, count = _loss(scores, batch["mask"], _counting(batch))
        return total / jnp.maximum(count, 1), count

    def sums(self, logits: jax.Array, features: Arrays, batch: Arrays) -> dict[str, jax.Array]:
        """`loss` (float32) over `count` pixels or cells, and `confusion` int32 [truth, prediction],
        always in pixels."""
        del logits
        scores = self.pixel_scores(features, *batch["mask"].shape[1:])
        counting = _counting(batch)
        if self.grid.loss_at == "cells":
            total, count = self._cell_loss(features, batch)
        else:
            total, count = _loss(scores, batch["mask"], counting)
        truth = jnp.where(counting, batch["mask"].astype(jnp.int32), -1)
        broken = jnp.isnan(scores).any(-1)  # Never right: argmax would say class 0.
        prediction = jnp.where(broken, (truth + 1) % self.num_classes, scores.argmax(-1))
        matrix = confusion(truth, prediction, self.num_classes)
        return {"loss": total, "count": count, "confusion": matrix}

    def predict(
        self, logits: jax.Array, features: Arrays, size: tuple[int, int]
    ) -> dict[str, jax.Array]:
        """`mask` int32 [N, H, W]: the likeliest class of every pixel of images of `size`; with a
        context module also `front_end_mask`, the same before it."""
        del logits
        found = {"mask": self.pixel_scores(features, *size).argmax(-1)}
        if "front_end" in features:
            before = {"logits_2d": features["front_end"]}
            found["front_end_mask"] = self.pixel_scores(before, *size).argmax(-1)
        return found

    def scores(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """`loss`, `miou` and `pixel_accuracy` in [0, 1].

        The mean runs over the classes that occur in truth or prediction.
        """
        matrix = sums["confusion"]
        pixels = max(int(matrix.sum()), 1)
        return {
            "loss": float(sums["loss"]) / max(int(sums["count"]), 1),
            "miou": float(np.nanmean(class_iou(matrix))) if matrix.any() else 0.0,
            "pixel_accuracy": int(np.trace(matrix)) / pixels,
        }

    def _cell_loss(self, features: Arrays, batch: Arrays) -> tuple[jax.Array, jax.Array]:
        scores = features["logits_2d"]
        cells = scores.shape[1], scores.shape[2]

        def under(mask: jax.Array) -> jax.Array:
            return sampled(mask, cells, self.output_stride, self.grid.alignment)

        return _loss(scores, under(batch["mask"]), under(_counting(batch)))


def _loss(scores: jax.Array, mask: jax.Array, counts: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy summed over what counts, and how many those are."""
    label = jnp.where(counts, mask.astype(jnp.int32), 0)
    losses = jnp.where(counts, cross_entropy(scores, label), 0.0)
    return losses.sum(), counts.sum(dtype=jnp.int32)


def confusion(truth: jax.Array, prediction: jax.Array, classes: int) -> jax.Array:
    """Pixel counts int32 [truth, prediction]; a truth outside [0, classes) is left out.

    `truth` and `prediction` are int [N, H, W]. A product of one-hot maps partitions over devices
    where a scatter would gather the whole map. Each row of pixels is counted in float32, exact up
    to 2^24, and the rows are added as integers.
    """
    rows = jnp.einsum(
        "nhwt,nhwp->nhtp",
        jax.nn.one_hot(truth, classes, dtype=jnp.float32),
        jax.nn.one_hot(prediction, classes, dtype=jnp.float32),
    )
    return rows.astype(jnp.int32).sum((0, 1))


def class_iou(matrix: np.ndarray) -> np.ndarray:
    """Intersection over union of every class, float64 [classes]; NaN for a class that occurs
    neither in truth nor in prediction. `matrix`: integer [truth, prediction]."""
    hits = np.diag(matrix).astype(np.float64)
    union = matrix.sum(0) + matrix.sum(1) - np.diag(matrix)
    return np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)


def _counting(batch: Arrays) -> jax.Array:
    """Bool [N, H, W]: the pixels that are not ignored, of examples that are valid."""
    labelled = batch["mask"] != IGNORED
    if "valid" not in batch:
        return labelled
    return labelled & batch["valid"][:, None, None]

"""Semantic segmentation: the dense class map upsampled to the image, and its confusion matrix."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from drn_jax.data.dataset import IGNORED
from drn_jax.tasks.classification import cross_entropy
from drn_jax.tasks.upsampling import Border, upsample

Arrays = Mapping[str, jax.Array]


@dataclass(frozen=True)
class Segmentation:
    """One class a pixel: `batch["mask"]` uint8 [N, H, W], 255 ignored.

    `output_stride` is that of `features["logits_2d"]`; `border` see `upsampling.upsample`.
    """

    num_classes: int
    output_stride: int = 8
    border: Border = "clamp"
    name: ClassVar[str] = "segmentation"
    primary: ClassVar[str] = "miou"

    def pixel_logits(self, features: Arrays, height: int, width: int) -> jax.Array:
        """Logits of every pixel, float32 [N, height, width, classes].

        Upsampling before the softmax, as fyu/drn does. Cells beyond the image's lower and right
        edge, where its size is no multiple of the stride, are cut off.
        """
        full = upsample(features["logits_2d"], self.output_stride, self.border)
        return full[:, :height, :width, :]

    def loss(self, logits: jax.Array, features: Arrays, batch: Arrays) -> jax.Array:
        """Mean cross-entropy in nats over all counting pixels of the batch."""
        del logits
        total, count = self._loss(self.pixel_logits(features, *batch["mask"].shape[1:]), batch)
        return total / jnp.maximum(count, 1)

    def sums(self, logits: jax.Array, features: Arrays, batch: Arrays) -> dict[str, jax.Array]:
        """`loss` (float32), and `confusion` int32 [truth, prediction], in pixels."""
        del logits
        pixels = self.pixel_logits(features, *batch["mask"].shape[1:])
        total, _ = self._loss(pixels, batch)
        truth = jnp.where(_counting(batch), batch["mask"].astype(jnp.int32), -1)
        broken = jnp.isnan(pixels).any(-1)  # Never right: argmax would say class 0.
        prediction = jnp.where(broken, (truth + 1) % self.num_classes, pixels.argmax(-1))
        return {"loss": total, "confusion": confusion(truth, prediction, self.num_classes)}

    def predict(
        self, logits: jax.Array, features: Arrays, size: tuple[int, int]
    ) -> dict[str, jax.Array]:
        """`mask` int32 [N, H, W]: the likeliest class of every pixel of images of `size`."""
        del logits
        return {"mask": self.pixel_logits(features, *size).argmax(-1)}

    def scores(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """`loss`, `miou` and `pixel_accuracy` in [0, 1].

        The mean runs over the classes that occur in truth or prediction.
        """
        matrix = sums["confusion"]
        count = max(int(matrix.sum()), 1)
        return {
            "loss": float(sums["loss"]) / count,
            "miou": float(np.nanmean(class_iou(matrix))) if matrix.any() else 0.0,
            "pixel_accuracy": int(np.trace(matrix)) / count,
        }

    def _loss(self, pixels: jax.Array, batch: Arrays) -> tuple[jax.Array, jax.Array]:
        counts = _counting(batch)
        label = jnp.where(counts, batch["mask"].astype(jnp.int32), 0)
        losses = jnp.where(counts, cross_entropy(pixels, label), 0.0)
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

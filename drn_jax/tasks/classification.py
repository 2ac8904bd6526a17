"""Image classification: cross-entropy, top-1 and top-5."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

Arrays = Mapping[str, jax.Array]
Predictions = dict[str, jax.Array]


@dataclass(frozen=True)
class Classification:
    """One label an image: `batch["label"]` int32 [N]."""

    num_classes: int
    name: ClassVar[str] = "classification"
    primary: ClassVar[str] = "top1"

    def loss(
        self, logits: jax.Array, features: Arrays, batch: Arrays
    ) -> tuple[jax.Array, jax.Array]:
        """Mean cross-entropy in nats over the valid examples, and how many they are; `logits`
        [N, classes]."""
        sums = self.sums(logits, features, batch)
        return sums["loss"] / jnp.maximum(sums["count"], 1), sums["count"]

    def sums(self, logits: jax.Array, features: Arrays, batch: Arrays) -> dict[str, jax.Array]:
        """Loss (float32) and counts (int32), the latter a class each: `class_*` [classes]."""
        del features
        label = batch["label"]
        valid = batch.get("valid", jnp.ones(label.shape, bool))
        losses = cross_entropy(logits, label)
        rank = _rank(logits, label)
        of_class = jax.nn.one_hot(label, self.num_classes, dtype=jnp.int32) * valid[:, None]
        top1 = (rank < 1)[:, None]
        return {
            "loss": jnp.where(valid, losses, 0.0).sum(),
            "count": valid.sum(dtype=jnp.int32),
            "top5": (valid & (rank < 5)).sum(dtype=jnp.int32),
            "class_count": of_class.sum(0),
            "class_top1": (of_class * top1).sum(0),
        }

    def predict(self, logits: jax.Array, features: Arrays, size: tuple[int, int]) -> Predictions:
        """`probability` [N, classes], and `class_map` [N, h, w, classes]: the same at every cell
        of the class map."""
        del size
        return {
            "probability": jax.nn.softmax(logits),
            "class_map": jax.nn.softmax(features["logits_2d"]),
        }

    def scores(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """`loss`, and `top1` and `top5` accuracy in [0, 1]."""
        count = max(int(sums["count"]), 1)
        return {
            "loss": float(sums["loss"]) / count,
            "top1": int(sums["class_top1"].sum()) / count,
            "top5": int(sums["top5"]) / count,
        }


def cross_entropy(logits: jax.Array, label: jax.Array) -> jax.Array:
    """-log softmax(logits)[label] in nats; `logits` [..., classes], `label` int [...]."""
    log_p = jax.nn.log_softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))
    return -jnp.take_along_axis(log_p, label[..., None], -1)[..., 0]


def _rank(logits: jax.Array, label: jax.Array) -> jax.Array:
    """How many classes come before the label when sorted by logit, ties by class number.

    A NaN comes before everything, and before a NaN of the label's own all classes and more, so that
    a broken network is never right.
    """
    own = jnp.take_along_axis(logits, label[:, None], 1)
    index = jnp.arange(logits.shape[1])[None, :]
    before = ~(logits <= own) | ((logits == own) & (index < label[:, None]))
    return jnp.where(jnp.isnan(own[:, 0]), jnp.iinfo(jnp.int32).max, before.sum(1))

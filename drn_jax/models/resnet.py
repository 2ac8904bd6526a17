"""The residual network that a stage table describes, fully convolutional up to its last pooling."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from drn_jax.models import stages as tables
from drn_jax.models.layers import BatchNorm, DilatedConv, at_least_float32, max_pool


class ResidualBlock(nn.Module):
    """One `stages.Block`: convolutions, batch norm, ReLU, and the shortcut before the last ReLU."""

    block: tables.Block
    conv: Callable[..., DilatedConv]
    norm: Callable[..., BatchNorm]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        def conv_norm(spec: tables.Conv, y: jax.Array) -> jax.Array:
            y = self.conv(
                spec.outputs,
                kernel=spec.kernel,
                stride=spec.stride,
                dilation=spec.dilation,
                padding=spec.padding,
                name=spec.name,
            )(y)
            return self.norm(name=spec.norm)(y, train)

        *inner, last = self.block.path
        y = x
        for spec in inner:
            y = nn.relu(conv_norm(spec, y))
        y = conv_norm(last, y)
        if isinstance(self.block.shortcut, tables.Conv):
            y = y + conv_norm(self.block.shortcut, x)
        elif self.block.shortcut == "identity":
            y = y + x
        return nn.relu(y)


class Level(nn.Module):
    """One row of the table: its blocks in a chain, or the 3x3 max-pooling of a ResNet's stem."""

    stage: tables.Stage
    conv: Callable[..., DilatedConv]
    norm: Callable[..., BatchNorm]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        stage = self.stage
        if stage.kind == "max_pool":
            return max_pool(x, stage.kernel, stage.stride)
        for block in tables.blocks(stage, x.shape[-1]):
            x = ResidualBlock(block, self.conv, self.norm, name=block.name)(x, train)
        return x


class ResidualNetwork(nn.Module):
    """A classifier built from a stage table; the same parameters give the dense class map.

    Attributes:
      stages: the table, widths already scaled.
      num_classes: outputs of the 1x1 classifier.
      running_variance: see `layers.BatchNorm`.
      dtype: of the computation. Parameters and batch statistics are float32; the classifier
        computes in no less.
    """

    stages: tuple[tables.Stage, ...]
    num_classes: int = 1000
    running_variance: Literal["biased", "unbiased"] = "biased"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool = False
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Classify normalised float images [N, H, W, 3].

        `train` uses and updates the batch statistics (`mutable=["batch_stats"]`).

        Returns:
          logits: float32 [N, num_classes], the classifier on the mean over the last map.
          features: one map [N, h, w, C] by stage name, in `dtype`, and `logits_2d`, float32
            [N, ceil(H/s), ceil(W/s), num_classes] with s the output stride: the classifier at
            every cell, whose mean over the cells is `logits` (paper, section 4).
        """
        conv = partial(DilatedConv, dtype=self.dtype)
        norm = partial(BatchNorm, dtype=self.dtype, running_variance=self.running_variance)
        features = {}
        x = images
        for stage in self.stages:
            x = Level(stage, conv, norm, name=stage.name)(x, train)
            features[stage.name] = x
        exact = at_least_float32(self.dtype)
        head = DilatedConv(self.num_classes, kernel=1, use_bias=True, dtype=exact, name="head")
        pooled = x.mean((1, 2), keepdims=True, dtype=exact)
        features["logits_2d"] = head(x)
        return head(pooled)[:, 0, 0, :], features

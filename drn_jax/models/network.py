"""The network that a stage table describes, fully convolutional up to its last pooling."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from drn_jax.errors import UserError
from drn_jax.models import stages as tables
from drn_jax.models.layers import (
    BatchNorm,
    DilatedConv,
    Norm,
    at_least_float32,
    fan_in_normal,
    fan_out_normal,
    max_pool,
)

Remat = Literal["none", "level", "block"]


def layer(spec: tables.Conv, conv: Callable[..., DilatedConv]) -> DilatedConv:
    """One convolution of a table; `conv` knows the rest of `DilatedConv`'s fields."""
    return conv(
        spec.outputs,
        kernel=spec.kernel,
        stride=spec.stride,
        dilation=spec.dilation,
        padding=spec.padding,
        use_bias=spec.bias,
        name=spec.name,
    )


class ResidualBlock(nn.Module):
    """One `stages.Block`: convolutions, batch norm, ReLU, and the shortcut before the last ReLU."""

    block: tables.Block
    conv: Callable[..., DilatedConv]
    norm: Callable[..., BatchNorm]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        def conv_norm(spec: tables.Conv, y: jax.Array) -> jax.Array:
            return self.norm(name=spec.norm)(layer(spec, self.conv)(y), train)

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
    """One row of residual blocks or of convolutions with batch norm, in a chain; `remat`: the
    backward pass recomputes each block from its input."""

    stage: tables.Stage
    conv: Callable[..., DilatedConv]
    norm: Callable[..., BatchNorm]
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        residual_block = _recomputed(ResidualBlock) if self.remat else ResidualBlock
        for block in tables.blocks(self.stage, x.shape[-1]):
            x = residual_block(block, self.conv, self.norm, name=block.name)(x, train)
        return x


def _recomputed(module: type[nn.Module]) -> Any:
    """The module, whose backward pass keeps only `x` of `(self, x, train)` and computes the rest
    again. Parameters keep their names."""
    return nn.remat(module, static_argnums=(2,))


def plain_conv(
    stage: tables.Stage, inputs: int, dtype: Any, kernel_init: Callable[..., jax.Array]
) -> DilatedConv:
    """The convolution of a "plain" row; its parameters bear the row's name."""
    [conv] = next(tables.blocks(stage, inputs)).path
    return layer(conv, partial(DilatedConv, dtype=dtype, kernel_init=kernel_init))


def activate(stage: tables.Stage, x: jax.Array, train: bool) -> jax.Array:
    """What follows the convolution of a "plain" row: ReLU, and in training dropout, which draws
    from the random stream `dropout`."""
    x = nn.relu(x) if stage.relu else x
    if not stage.dropout:
        return x
    return nn.Dropout(stage.dropout, name=f"{stage.name}_dropout")(x, deterministic=not train)


class Network(nn.Module):
    """A classifier built from a stage table; the same parameters give the dense class map.

    Attributes:
      stages: the table, widths already scaled.
      num_classes: outputs of the 1x1 classifier.
      running_variance, norm: see `layers.BatchNorm`.
      remat: what the backward pass recomputes instead of keeping it: nothing, the inside of every
        level, or of every residual block. It changes memory and time, no result. (For CPUs XLA
        may merge the second computation with the first, and save less or nothing.)
      dtype: of the computation. Parameters and batch statistics are float32; the classifier
        computes in no less.
      head_init: draws the classifier's kernel.
    """

    stages: tuple[tables.Stage, ...]
    num_classes: int = 1000
    running_variance: Literal["biased", "unbiased"] = "biased"
    norm: Norm = Norm()
    remat: Remat = "none"
    dtype: Any = jnp.float32
    head_init: Callable[..., jax.Array] = fan_out_normal

    @property
    def table(self) -> tuple[tables.Stage, ...]:
        """All rows, the classifier's last."""
        return (*self.stages, tables.classifier(self.num_classes))

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool = False
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Classify float images [N, H, W, 3], prepared as `inputs.Preprocess` does.

        `train` uses and updates the batch statistics (`mutable=["batch_stats"]`), and drops out
        where the table says so (`rngs={"dropout": key}`).

        Returns:
          logits: float32 [N, num_classes], the classifier on the mean over the last map.
          features: one map [N, h, w, C] by stage name, in `dtype`, and `logits_2d`, float32
            [N, h, w, num_classes]: the classifier at every cell, whose mean over the cells is
            `logits` (DRN paper, section 4). With s the output stride and p the table's
            `surroundings`, h = ceil((H - 2p)/s), and w likewise.
        Raises: UserError for images too small to leave a cell.
        """
        _check_size(self.stages, images)
        conv = partial(DilatedConv, dtype=self.dtype)
        norm = partial(
            BatchNorm, dtype=self.dtype, running_variance=self.running_variance, norm=self.norm
        )
        level = _recomputed(Level) if self.remat == "level" else Level
        by_block = self.remat == "block"
        features = {}
        x = images
        for stage in self.stages:
            if stage.kind == "max_pool":
                padding = tables.pool_padding(stage)
                x = max_pool(x, stage.kernel, stage.stride, padding, ceil=stage.ceil)
            elif stage.kind == "plain":
                x = plain_conv(stage, x.shape[-1], self.dtype, fan_in_normal)(x)
                x = activate(stage, x, train)
            else:
                x = level(stage, conv, norm, by_block, name=stage.name)(x, train)
            features[stage.name] = x
        exact = at_least_float32(self.dtype)
        head = plain_conv(self.table[-1], x.shape[-1], exact, self.head_init)
        pooled = x.mean((1, 2), keepdims=True, dtype=exact)
        features["logits_2d"] = head(x)
        return head(pooled)[:, 0, 0, :], features


def _check_size(stages: tuple[tables.Stage, ...], images: jax.Array) -> None:
    height, width = images.shape[1:3]
    if tables.cells(stages, min(height, width)) == 0:
        raise UserError(
            f"images of {height}x{width} are too small for this network: it needs at least "
            f"{tables.least_size(stages)} pixels a side, its margin (models.preprocess) included"
        )

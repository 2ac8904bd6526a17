"""The network that a stage table describes, fully convolutional up to its last pooling."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from drn_jax.errors import UserError
from drn_jax.models import stages as tables
from drn_jax.models.convolution import Method
from drn_jax.models.layers import (
    BatchNorm,
    DilatedConv,
    Extent,
    Norm,
    at_least_float32,
    check_extent,
    cut,
    fan_in_normal,
    fan_out_normal,
    max_pool,
    mean_over,
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


def convolved(
    spec: tables.Conv, conv: DilatedConv, x: jax.Array, extent: Extent
) -> tuple[jax.Array, Extent]:
    """The map behind the convolution that `spec` describes, and its extent."""
    if spec.kernel > 1:
        x = cut(x, extent)
    return conv(x), behind(extent, (spec,))


def behind(extent: Extent, layers: Iterable[tables.Conv | tables.Stage]) -> Extent:
    """The extent behind convolutions and poolings, one behind another."""
    for layer in layers:
        extent = None if extent is None else tables.strided(extent, layer) * (extent > 0)
    return extent


class ResidualBlock(nn.Module):
    """One `stages.Block`: convolutions, batch norm, ReLU, and the shortcut before the last ReLU."""

    block: tables.Block
    conv: Callable[..., DilatedConv]
    norm: Callable[..., BatchNorm]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, extent: Extent = None) -> jax.Array:
        def conv_norm(spec: tables.Conv, y: jax.Array, extent: Extent) -> tuple[jax.Array, Extent]:
            y, extent = convolved(spec, layer(spec, self.conv), y, extent)
            return self.norm(name=spec.norm)(y, train), extent

        *inner, last = self.block.path
        y, behind = x, extent
        for spec in inner:
            y, behind = conv_norm(spec, y, behind)
            y = nn.relu(y)
        y, _ = conv_norm(last, y, behind)
        if isinstance(self.block.shortcut, tables.Conv):
            y = y + conv_norm(self.block.shortcut, x, extent)[0]
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
    def __call__(self, x: jax.Array, train: bool, extent: Extent = None) -> jax.Array:
        residual_block = _recomputed(ResidualBlock) if self.remat else ResidualBlock
        for block in tables.blocks(self.stage, x.shape[-1]):
            x = residual_block(block, self.conv, self.norm, name=block.name)(x, train, extent)
            extent = behind(extent, block.path)
        return x


def _recomputed(module: type[nn.Module]) -> Any:
    """The module, whose backward pass keeps only `x` of `(self, x, train, extent)` and computes the
    rest again. Parameters keep their names."""
    return nn.remat(module, static_argnums=(2,))


def plain_conv(
    stage: tables.Stage,
    x: jax.Array,
    extent: Extent,
    conv: Callable[..., DilatedConv],
) -> tuple[jax.Array, Extent]:
    """`x` behind the convolution of a "plain" row, whose parameters bear the row's name; and the
    extent there."""
    [spec] = next(tables.blocks(stage, x.shape[-1])).path
    return convolved(spec, layer(spec, conv), x, extent)


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
      convolution: by which programs, see `convolution.choose`.
      dtype: of the computation. Parameters and batch statistics are float32; the classifier
        computes in no less.
      head_init: draws the classifier's kernel.
    """

    stages: tuple[tables.Stage, ...]
    num_classes: int = 1000
    running_variance: Literal["biased", "unbiased"] = "biased"
    norm: Norm = Norm()
    remat: Remat = "none"
    convolution: Method = "auto"
    dtype: Any = jnp.float32
    head_init: Callable[..., jax.Array] = fan_out_normal

    @property
    def table(self) -> tuple[tables.Stage, ...]:
        """All rows, the classifier's last."""
        return (*self.stages, tables.classifier(self.num_classes))

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool = False, valid: Extent = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Classify float images [N, H, W, 3], prepared as `inputs.Preprocess` does.

        `train` uses and updates the batch statistics (`mutable=["batch_stats"]`), and drops out
        where the table says so (`rngs={"dropout": key}`).

        `valid`, int32 [N, 2], in inference only: the rows and columns of each input, counted from
        the upper left, that are image (its margin included), of which a cell must be left; the rest
        is filler. Logits are those of the image alone, and so are the cells of every map within the
        image's own extent there (`behind`); what lies beyond means nothing.

        Returns:
          logits: float32 [N, num_classes], the classifier on the mean over the last map.
          features: one map [N, h, w, C] by stage name, in `dtype`, and `logits_2d`, float32
            [N, h, w, num_classes]: the classifier at every cell, whose mean over the cells is
            `logits` (DRN paper, section 3). With s the output stride and p the table's
            `surroundings`, h = ceil((H - 2p)/s), and w likewise.
        Raises: UserError for images too small to leave a cell; ValueError for `valid` in training.
        """
        check_size(self.stages, *images.shape[1:3])
        check_extent(valid, train)
        conv = partial(DilatedConv, dtype=self.dtype, method=self.convolution)
        norm = partial(
            BatchNorm, dtype=self.dtype, running_variance=self.running_variance, norm=self.norm
        )
        level = _recomputed(Level) if self.remat == "level" else Level
        by_block = self.remat == "block"
        features = {}
        x = images
        for stage in self.stages:
            if stage.kind == "max_pool":
                padding, x = tables.pool_padding(stage), cut(x, valid)
                x = max_pool(x, stage.kernel, stage.stride, padding, ceil=stage.ceil)
            elif stage.kind == "plain":
                x, _ = plain_conv(stage, x, valid, partial(conv, kernel_init=fan_in_normal))
                x = activate(stage, x, train)
            else:
                x = level(stage, conv, norm, by_block, name=stage.name)(x, train, valid)
            valid = behind(valid, tables.layers(stage))
            features[stage.name] = x
        exact = at_least_float32(self.dtype)
        [spec] = next(tables.blocks(self.table[-1], x.shape[-1])).path
        head = layer(spec, partial(conv, dtype=exact, kernel_init=self.head_init))
        pooled = mean_over(x, valid, exact)
        features["logits_2d"] = head(x)
        return head(pooled)[:, 0, 0, :], features


def check_size(stages: tuple[tables.Stage, ...], height: int, width: int) -> None:
    """Raise UserError for an input too small to leave a cell."""
    if tables.cells(stages, min(height, width)) == 0:
        raise UserError(
            f"images of {height}x{width} are too small for this network: it needs at least "
            f"{tables.least_size(stages)} pixels a side, its margin (models.preprocess) included"
        )

"""The two layers that every network here is made of: dilated convolution and batch norm; and what
both are spared in maps that are partly filler (`Extent`)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from drn_jax.errors import UserError, nearest
from drn_jax.models.convolution import Method, dilated_conv

Statistics = Literal["global", "group", "frozen"]

Extent = jax.Array | None
"""Of every example of a map [N, H, W, C] its own rows and columns, counted from the upper left,
int32 [N, 2]; what lies beyond is filler. None: all of the map is its own.

How extents change from layer to layer is `stages.strided`, as for whole maps. A convolution whose
kernel is 1 keeps every cell to itself; all others, and poolings, must find beyond the extent what
they find beyond the edge of a map: `cut` goes before them."""

fan_out_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
"""N(0, sqrt(2 / (k * k * outputs))): how fyu/drn draws every convolution, the classifier too."""

fan_in_normal = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
"""N(0, sqrt(2 / (k * k * inputs))) (He et al. 2015): keeps the size of activations where no batch
norm does."""


def cut(x: jax.Array, extent: Extent) -> jax.Array:
    """[N, H, W, C] with 0 beyond the extent: what a convolution's padding would be.

    For a pooling the padding is -inf, and 0 as good behind a ReLU: a window of the extent, also
    one that hangs over its edge, holds a cell of it, and that is no less than 0.
    """
    if extent is None:
        return x
    for axis in (1, 2):
        places = lax.broadcasted_iota(jnp.int32, (x.shape[0], x.shape[axis]), 1)
        inside = jnp.expand_dims(places < extent[:, axis - 1, None], (3 - axis, 3))
        x = jnp.where(inside, x, jnp.zeros((), x.dtype))
    return x


def mean_over(x: jax.Array, extent: Extent, dtype: Any) -> jax.Array:
    """The mean of [N, H, W, C] over the cells of the extent, [N, 1, 1, C] in `dtype`."""
    if extent is None:
        return x.mean((1, 2), keepdims=True, dtype=dtype)
    count = extent.prod(1).astype(dtype)[:, None, None, None]
    return cut(x, extent).sum((1, 2), keepdims=True, dtype=dtype) / count


def check_extent(valid: Extent, train: bool) -> None:
    """Raise ValueError for filler in training: batch norm would count it."""
    if train and valid is not None:
        raise ValueError("`valid` is for inference: a training batch has no filler")


def max_pool(
    x: jax.Array, kernel: int, stride: int, padding: int, *, ceil: bool = False
) -> jax.Array:
    """The greatest of every kernel x kernel window of [N, H, W, C], `padding` pixels around it.

    `ceil` adds a last window that hangs over the lower or right edge (Caffe), for windows without
    gaps or `padding`; else what fills no window is left out (PyTorch).
    """

    def sides(size: int) -> tuple[int, int]:
        over = (kernel - size - 2 * padding) % stride if ceil else 0
        return padding, padding + over

    window, strides = (1, kernel, kernel, 1), (1, stride, stride, 1)
    pads = ((0, 0), sides(x.shape[1]), sides(x.shape[2]), (0, 0))
    return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, pads)


class DilatedConv(nn.Module):
    """`dilated_conv` with parameters: `kernel` [K, K, C, features] and `bias` [features] float32.

    Computes in `dtype`, which is also the dtype of the result, by `method`.
    """

    features: int
    kernel: int = 3
    stride: int = 1
    dilation: int = 1
    padding: int = 0
    use_bias: bool = False
    dtype: Any = jnp.float32
    kernel_init: Callable[..., jax.Array] = fan_out_normal
    method: Method = "auto"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        y = dilated_conv(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            stride=self.stride,
            dilation=self.dilation,
            padding=self.padding,
            method=self.method,
        )
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            y = y + bias.astype(self.dtype)[None, None, None, :]
        return y


def at_least_float32(dtype: Any) -> Any:
    """The dtype for what must not be computed in less: statistics and classifiers."""
    return jnp.promote_types(dtype, jnp.float32)


@dataclass(frozen=True)
class Norm:
    """By which statistics batch norm normalises in training."""

    statistics: Statistics = "global"
    """Those of the whole batch, on all devices; of every group of it (what one replica sees); or
    "frozen": the running averages, which then stay as they are. Scale and bias always learn."""
    group: int = 0
    """Consecutive examples of a batch, or of a part of one (`accumulate`), that make a group; no
    result depends on the number of devices."""

    def check(self) -> None:
        """Raise UserError for settings that contradict each other."""
        if self.statistics not in get_args(Statistics):
            offer = nearest(str(self.statistics), get_args(Statistics))
            raise UserError(f"config.model.norm.statistics = {self.statistics!r}: {offer}")
        if (self.statistics == "group") != (self.group > 0) or self.group < 0:
            raise UserError(
                f"config.model.norm.group = {self.group} with config.model.norm.statistics = "
                f"{self.statistics}: a group of 1 or more examples goes with group, 0 with the rest"
            )

    def check_batch(self, size: int) -> None:
        """Raise UserError unless a batch, or a part of one, is a whole number of groups."""
        if self.statistics == "group" and size % self.group:
            raise UserError(
                f"config.model.norm.group = {self.group} does not divide the {size} examples of a "
                "batch, or of a part of one"
            )


class BatchNorm(nn.Module):
    """Batch norm over N, H and W with float32 statistics and parameters, whatever the `dtype`
    (float64 computes in float64 and stores in float32).

    The batch is the whole one, unless `norm` says otherwise: under `jit` with a sharded batch the
    means are taken across all devices. The variance is the mean of squared differences; the faster
    E[x^2] - E[x]^2 loses everything for channels whose mean is large against their spread.

    `momentum` is the share that the running averages keep at each step (PyTorch's 0.1 is 0.9).
    `running_variance` "unbiased" feeds them the n/(n-1) estimate, as PyTorch does; "biased" is
    the variance that normalised the batch, as in Flax. Of several groups they take the mean.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    running_variance: Literal["biased", "unbiased"] = "biased"
    dtype: Any = jnp.float32
    norm: Norm = Norm()

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Normalise [N, H, W, C]; `train` takes the batch's statistics and updates `batch_stats`
        (collections `mean` and `var`, both [C]), except where they are frozen.

        Raises: UserError where the batch is no whole number of groups.
        """
        channels = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, channels, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, channels, jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)
        x32 = x.astype(at_least_float32(self.dtype))
        if train and self.norm.statistics != "frozen":
            self.norm.check_batch(x.shape[0])
            group = self.norm.group if self.norm.statistics == "group" else x.shape[0]
            mean = _mean(x32, group)
            var = _mean(jnp.square(x32 - mean), group)
            if not self.is_initializing():
                count = group * x.shape[1] * x.shape[2]
                spread = var
                if self.running_variance == "unbiased":
                    spread = var * (count / max(count - 1, 1))
                keep = self.momentum
                for running, batch in ((running_mean, mean), (running_var, spread)):
                    average = keep * running.value + (1 - keep) * batch.mean((0, 1, 2))
                    running.value = average.astype(jnp.float32)
        else:
            mean = running_mean.value[None, None, None, :]
            var = running_var.value[None, None, None, :]
        factor = scale[None, None, None, :] * lax.rsqrt(var + self.epsilon)
        # Centred before it is scaled: x * factor + (bias - mean * factor) cancels where the mean is
        # large against the deviation.
        y = (x32 - mean) * factor
        return (y + bias[None, None, None, :]).astype(self.dtype)


def _mean(x: jax.Array, group: int) -> jax.Array:
    """The mean of [N, H, W, C] over N, H and W, [1, 1, 1, C]; of several groups, for every example
    that of its group, [N, 1, 1, C]."""
    if group == x.shape[0]:
        return x.mean((0, 1, 2), keepdims=True)
    # A group may lie across devices. What is regrouped are the means of examples, never the maps.
    examples = x.mean((1, 2), keepdims=True)
    each = (-1, group, *examples.shape[1:])
    groups = examples.reshape(each).mean(1, keepdims=True)
    return groups.repeat(group, 1).reshape(examples.shape)

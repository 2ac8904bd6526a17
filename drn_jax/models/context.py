"""The context module (Yu & Koltun 2016, section 3): C channels in, C channels out, and a receptive
field that grows exponentially at full resolution.

Dilations 1, 1, 2, 4, 8, ... of 3x3 convolutions, one undilated 3x3, one 1x1 (Table 1). It goes
behind the class map of any network. Randomly drawn it trains badly or not at all (docs/context.md);
`identity_init` lets it begin as relu(x).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from drn_jax.errors import UserError, nearest
from drn_jax.models import stages as tables
from drn_jax.models.convolution import Method
from drn_jax.models.layers import (
    DilatedConv,
    Extent,
    at_least_float32,
    check_extent,
    fan_in_normal,
    mean_over,
)
from drn_jax.models.network import activate, plain_conv
from drn_jax.models.stages import Stage

Initialiser = Callable[..., jax.Array]

Size = Literal["basic", "large"]
Padding = Literal["layer", "once", "mirror", "none"]
Init = Literal["identity", "filler", "he"]


@dataclass(frozen=True)
class Context:
    """Which context module."""

    layers: int = 8
    """Depth of the series, 4 or more: 7, 8 and 10 are published. (In a configuration 0: none.)"""
    size: Size = "basic"
    """C channels in every layer, or 2C, 2C, 4C, 8C, 16C, 32C, 32C, C."""
    padding: Padding = "layer"
    """Zeros around the map of every layer; or zeros around the module's input once, so many (33 for
    8 layers) that the output has its size; or as many mirrored cells; or none: the map brings
    them."""
    init: Init = "identity"
    """As the paper: Eq. 4 for basic, Eq. 5 for large; as the published code, whose noise falls on
    basic too; or random (He et al. 2015)."""
    epsilon: float = 0.01
    """Deviation of the noise, in units of the weight on the diagonal."""


def rows(channels: int, context: Context) -> tuple[Stage, ...]:
    """The table of a module for maps of `channels`, under the published layer names.

    Raises: UserError for what no module has.
    """
    if context.layers < 4:
        raise UserError(f"a context module of {context.layers} layers: 4 is the least, 8 the usual")
    if context.epsilon < 0:
        raise UserError(f"context epsilon {context.epsilon}: a deviation is 0 or more")
    for field, known in (("size", Size), ("padding", Padding), ("init", Init)):
        value = getattr(context, field)
        if value not in get_args(known):
            raise UserError(f"context {field} {value!r}: {nearest(str(value), get_args(known))}")
    dilations = (1, *(2**i for i in range(context.layers - 3)))
    names = ("conv1_1", "conv1_2", *(f"conv{i}_1" for i in range(2, context.layers - 2)))
    factors = [2 * d if context.size == "large" else 1 for d in dilations]
    margin = 1 + sum(dilations)
    padding = None if context.padding == "layer" else 0
    first = margin if context.padding == "once" else padding
    dilated = [
        Stage(
            f"ctx_{name}",
            "plain",
            factor * channels,
            dilation=dilation,
            padding=first if name == "conv1_1" else padding,
        )
        for name, dilation, factor in zip(names, dilations, factors, strict=True)
    ]
    return (
        *dilated,
        Stage("ctx_fc1", "plain", factors[-1] * channels, padding=padding),
        Stage("ctx_final", "plain", channels, kernel=1, relu=False),
    )


def identity_init(groups: int | None = None, epsilon: float = 0.0) -> Initialiser:
    """A Flax initialiser `(key, shape, dtype) -> kernel` that passes the map on: Eq. 4 and Eq. 5.

    With inputs a of c_i and outputs b of c_{i+1} channels, each in `groups` (C) equal groups:
      kernel[t, a, b] = C / c_{i+1}  at the centre t = 0 where floor(aC/c_i) = floor(bC/c_{i+1})
                        eps          elsewhere, drawn from N(0, epsilon^2)
    Without `groups` every channel is a group of its own (Eq. 4). The published IdentityFiller is
    the same with epsilon > 0 for the Basic module too.

    Raises: UserError (when called) for an even kernel, and where `groups` does not divide both
      channel counts.
    """

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        height, width, inputs, outputs = shape
        count = outputs if groups is None else groups
        if count < 1 or inputs % count or outputs % count:
            raise UserError(
                f"identity initialisation: {inputs} input and {outputs} output channels are not "
                f"both multiples of {count} groups"
            )
        if height % 2 == 0 or width % 2 == 0:
            raise UserError(f"identity initialisation: a {height}x{width} kernel has no centre")
        same = (jnp.arange(inputs) * count // inputs)[:, None] == (
            jnp.arange(outputs) * count // outputs
        )[None, :]
        noise = jnp.zeros(shape, dtype)
        if epsilon:
            noise = epsilon * jax.random.normal(key, shape, dtype)
        centre = jnp.where(
            same, jnp.asarray(count / outputs, dtype), noise[height // 2, width // 2]
        )
        return noise.at[height // 2, width // 2].set(centre)

    return init


def kernel_init(context: Context, channels: int, stage: Stage) -> Initialiser:
    """How one layer of the module is drawn."""
    if context.init == "he":
        return fan_in_normal
    exact = context.init == "identity" and context.size == "basic"
    sigma = 0.0 if exact else context.epsilon * channels / stage.channels
    return identity_init(channels, sigma)


def mirrored(x: jax.Array, margin: int, extent: Extent) -> tuple[jax.Array, Extent]:
    """Maps [N, h, w, C] with `margin` mirrored cells on each side of their extents, without
    repeating the edge, and the extents so widened; a side must be wider than `margin`."""
    if extent is None:
        sides = (margin, margin)
        return jnp.pad(x, ((0, 0), sides, sides, (0, 0)), "reflect"), None
    for axis in (1, 2):
        last = jnp.maximum(extent[:, axis - 1, None] - 1, 0)
        shape = (x.shape[0], x.shape[axis] + 2 * margin)
        place = jnp.abs(lax.broadcasted_iota(jnp.int32, shape, 1) - margin)
        place = jnp.clip(jnp.where(place > last, 2 * last - place, place), 0, last)
        x = jnp.take_along_axis(x, jnp.expand_dims(place, (3 - axis, 3)), axis)
    return x, extent + 2 * margin


class ContextModule(nn.Module):
    """The module as a network of its own, for maps of `channels`.

    Attributes:
      channels: C, as many as there are classes.
      dtype: of the computation; parameters are float32, and the last layer computes in no less.
      convolution: by which programs, see `convolution.choose`.
    """

    channels: int
    context: Context = Context()
    dtype: Any = jnp.float32
    convolution: Method = "auto"

    @property
    def table(self) -> tuple[Stage, ...]:
        """Its rows."""
        return rows(self.channels, self.context)

    @nn.compact
    def __call__(
        self, maps: jax.Array, train: bool = False, valid: Extent = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Refine float maps [N, h, w, C] (scores, no probabilities).

        `valid`, int32 [N, 2], in inference only: the rows and columns of each map that are its own;
        the rest is filler. See `network.Network`.

        Returns:
          logits: float32 [N, C], the mean over the refined map.
          features: one map by row name, in `dtype`; `front_end`, the input; and, float32,
            `context`, the refined map, also as `logits_2d`: [N, h, w, C], less the module's margin
            on each side for padding "none".
        Raises: UserError for maps of other channels, or too small; ValueError for `valid` in
          training.
        """
        stages = self.table
        if maps.shape[-1] != self.channels:
            raise UserError(
                f"the context module is for maps of {self.channels} channels, one a class, and got "
                f"{maps.shape[-1]}"
            )
        self.check_size(*maps.shape[1:3])
        check_extent(valid, train)
        features = {"front_end": maps}
        x = maps
        if self.context.padding == "mirror":
            margin = tables.surroundings(stages)
            x, valid = mirrored(x, margin, valid)
        for stage in stages:
            last = stage is stages[-1]
            dtype = at_least_float32(self.dtype) if last else self.dtype
            init = kernel_init(self.context, self.channels, stage)
            conv = partial(DilatedConv, dtype=dtype, kernel_init=init, method=self.convolution)
            x, valid = plain_conv(stage, x, valid, conv)
            x = activate(stage, x, train)
            features[stage.name] = x
        features["context"] = features["logits_2d"] = x
        return mean_over(x, valid, x.dtype)[:, 0, 0, :], features

    def check_size(self, height: int, width: int) -> None:
        """Raise UserError for maps that are too small."""
        stages = self.table
        least = tables.least_size(stages)
        if self.context.padding == "mirror":
            least = tables.surroundings(stages) + 1
        if min(height, width) < least:
            raise UserError(
                f"a feature map of {height}x{width} is too small for this context module, which "
                f"needs at least {least}x{least} with padding {self.context.padding!r}"
            )

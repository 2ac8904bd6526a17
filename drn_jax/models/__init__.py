"""The networks by name: `create(name)` gives a Linen module, `MODELS` is the table of names.

    model = models.create("drn_c_26", num_classes=10, width=0.5)
    images = models.preprocess("drn_c_26", photographs)  # RGB uint8 [N, H, W, 3]
    variables = model.init(key, images)
    logits, features = model.apply(variables, images, train=False)

`features["logits_2d"]` is the dense class map. With `context=Context(...)` a context module refines
it; the nets of Yu & Koltun (`dilation.PUBLISHED`) come with theirs.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from drn_jax.errors import UserError, nearest
from drn_jax.models import drn, stages, vgg
from drn_jax.models.context import Context, ContextModule
from drn_jax.models.context import rows as context_rows
from drn_jax.models.convolution import Method
from drn_jax.models.dilation import PUBLISHED, ContextNetwork
from drn_jax.models.inputs import IMAGENET_MEAN, IMAGENET_STD, Channels, Preprocess, Space
from drn_jax.models.layers import Norm
from drn_jax.models.network import Network, Remat
from drn_jax.models.stages import Stage, scale_width

OfImages = Network | ContextNetwork
AnyNetwork = OfImages | ContextModule


def _no_front_end() -> tuple[Stage, ...]:
    """The front end of a context module alone."""
    return ()


MODELS: Mapping[str, Callable[..., tuple[Stage, ...]]] = {
    "resnet_18": partial(drn.resnet, "basic", (2, 2, 2, 2)),
    "resnet_34": partial(drn.resnet, "basic", (3, 4, 6, 3)),
    "resnet_50": partial(drn.resnet, "bottleneck", (3, 4, 6, 3)),
    "resnet_101": partial(drn.resnet, "bottleneck", (3, 4, 23, 3)),
    "resnet_152": partial(drn.resnet, "bottleneck", (3, 8, 36, 3)),
    "drn_a_18": partial(drn.drn_a, "basic", (2, 2, 2, 2)),
    "drn_a_34": partial(drn.drn_a, "basic", (3, 4, 6, 3)),
    "drn_a_50": partial(drn.drn_a, "bottleneck", (3, 4, 6, 3)),
    "drn_b_26": partial(drn.drn_b, "basic", (1, 1, 2, 2, 2, 2, 1, 1)),
    "drn_c_26": partial(drn.drn_c, "basic", (1, 1, 2, 2, 2, 2, 1, 1)),
    "drn_c_42": partial(drn.drn_c, "basic", (1, 1, 3, 4, 6, 3, 1, 1)),
    "drn_c_58": partial(drn.drn_c, "bottleneck", (1, 1, 3, 4, 6, 3, 1, 1)),
    "drn_d_22": partial(drn.drn_d, "basic", (1, 1, 2, 2, 2, 2, 1, 1)),
    "drn_d_24": partial(drn.drn_d, "basic", (1, 1, 2, 2, 2, 2, 2, 2)),
    "drn_d_38": partial(drn.drn_d, "basic", (1, 1, 3, 4, 6, 3, 1, 1)),
    "drn_d_40": partial(drn.drn_d, "basic", (1, 1, 3, 4, 6, 3, 2, 2)),
    "drn_d_54": partial(drn.drn_d, "bottleneck", (1, 1, 3, 4, 6, 3, 1, 1)),
    "drn_d_56": partial(drn.drn_d, "bottleneck", (1, 1, 3, 4, 6, 3, 2, 2)),
    "drn_d_105": partial(drn.drn_d, "bottleneck", (1, 1, 3, 4, 23, 3, 1, 1)),
    "drn_d_107": partial(drn.drn_d, "bottleneck", (1, 1, 3, 4, 23, 3, 2, 2)),
    "vgg_16": vgg.vgg_16,
    "vgg_16_front_end": vgg.front_end,
    "context": _no_front_end,
    **{name: vgg.front_end if net.front_end else _no_front_end for name, net in PUBLISHED.items()},
}
"""The stage table of every network, as a function of the options that its family has; of a
published dilated net that of its front end."""

_FIELDS = ("running_variance", "norm", "remat")
"""Options that every residual network has: fields of the module."""

CLASSES = {
    "vgg_16_front_end": 21,
    "context": 21,
    **{name: net.classes for name, net in PUBLISHED.items()},
}
"""Classes of what was published with other than ImageNet's 1000."""


def table(name: str, width: float = 1.0, **options: Any) -> tuple[Stage, ...]:
    """The stage table of a network up to its classifier, channels multiplied by `width`; empty for
    a context module alone. Raises as `create`."""
    if name not in MODELS:
        raise UserError(f"unknown model {name!r}: {nearest(name, MODELS)}")
    if not 0 < width < float("inf"):
        raise UserError(f"model width {width} must be a number above 0")
    known = inspect.signature(MODELS[name]).parameters
    for option in options:
        if option not in known:
            offer = nearest(option, (*known, *_FIELDS))
            raise UserError(f"model {name} has no option {option!r}: {offer}")
    return scale_width(MODELS[name](**options), width)


def rows_of(model: AnyNetwork) -> tuple[Stage, ...]:
    """The network's rows, in which a mirroring context module has its padding: as many zeros, which
    reach as far."""
    if isinstance(model, ContextNetwork):
        return (*model.front_end.table, *rows_of(model.context))
    if isinstance(model, ContextModule) and model.context.padding == "mirror":
        return context_rows(model.channels, replace(model.context, padding="once"))
    return model.table


def full_table(network: str | Sequence[Stage]) -> tuple[Stage, ...]:
    """All rows of the network that `create` makes of a name, classifier and context module among
    them; a table is given back. Raises: UserError for an unknown name."""
    return rows_of(create(network)) if isinstance(network, str) else tuple(network)


def create(
    name: str,
    num_classes: int | None = None,
    width: float = 1.0,
    dtype: Any = jnp.float32,
    context: Context | None = None,
    head_std: float | None = None,
    convolution: Method = "auto",
    **options: Any,
) -> AnyNetwork:
    """The network `name` with every channel count but the classes' multiplied by `width`.

    Args:
      num_classes: by default as published: ImageNet's 1000, or `CLASSES`.
      dtype: of the computation; parameters and batch statistics stay float32.
      context: a context module behind the class map; the published nets bring their own, of which
        this may change all but the number of layers.
      head_std: deviation with which the classifier is drawn; by default the published 0.001 for a
        dilated VGG, whose features come trained, else sqrt(2 / classes).
      convolution: by which programs it is computed, see `convolution.choose`.
      options: `running_variance`, `norm` and `remat` (see `network.Network`); for DRN-A also
        `output_stride` and `variant` (see `drn.drn_a`), for VGG `dropout`, `padding` and
        `fc_channels` (see `vgg`). None but the last changes a parameter's shape.

    Raises: UserError for an unknown name, option or value, offering the nearest.
    """
    fields = {key: options.pop(key) for key in _FIELDS if key in options}
    rows = table(name, width, **options)
    _check_norm_and_remat(name, rows, fields.get("norm", Norm()), fields.get("remat", "none"))
    if convolution not in get_args(Method):
        offer = nearest(str(convolution), get_args(Method))
        raise UserError(f"config.model.convolution = {convolution!r}: {offer}")
    published = PUBLISHED.get(name)
    classes = CLASSES.get(name, 1000) if num_classes is None else num_classes
    if classes < 1:
        raise UserError(f"{name}: {classes} classes; there must be 1 or more")
    if published:
        context = context or published.context
        if context.layers != published.context.layers:
            raise UserError(
                f"{name} has {published.context.layers} context layers, not {context.layers}: for "
                "others use vgg_16_front_end"
            )
    if not rows:
        context = context or Context()
    module = ContextModule(classes, context, dtype, convolution) if context else None
    if module:
        _ = module.table  # Raises for what no module has.
        if not rows:
            return module
    if head_std is None and name in CLASSES:
        head_std = vgg.FINAL_STD
    if head_std is not None:
        fields["head_init"] = _gaussian(head_std)
    fields["convolution"] = convolution
    network = Network(rows, num_classes=classes, dtype=dtype, **fields)
    if not module:
        return network
    return ContextNetwork(network, module, published.upsampling if published else 0)


def _check_norm_and_remat(name: str, rows: tuple[Stage, ...], norm: Norm, remat: str) -> None:
    """Raise UserError for what no network has, or none without residual levels."""
    norm.check()
    if remat not in get_args(Remat):
        raise UserError(f"config.model.remat = {remat!r}: {nearest(str(remat), get_args(Remat))}")
    if any(row.kind not in ("plain", "max_pool") for row in rows):
        return
    if norm != Norm():
        raise UserError(
            f"config.model.norm.statistics = {norm.statistics}: {name} has no batch norm"
        )
    if remat != "none":
        raise UserError(f"config.model.remat = {remat}: {name} has no residual levels to recompute")


@cache
def _gaussian(std: float) -> Callable[..., jax.Array]:
    """The same function for the same deviation, so that equal networks are equal."""
    return nn.initializers.normal(std)


def preprocessing(
    name: str,
    mean: Channels | None = None,
    std: Channels = IMAGENET_STD,
    space: Space | None = None,
    **options: Any,
) -> Preprocess:
    """What turns RGB uint8 images into the input of a network: its space, mean and margin.

    Args:
      mean, std: of the training images, RGB in [0, 1]; by default the published net's, else
        ImageNet's.
      space: by default the published one: "bgr" for VGG and the nets made of it, else "rgb", in
        which a VGG from random weights is better off: it has no batch norm to tame inputs near 100.
      options: as for `create`.

    Raises: UserError as `create`, for another space, and for a context module alone, which takes
      maps.
    """
    rows = table(name, **{key: value for key, value in options.items() if key not in _FIELDS})
    if space not in (None, *get_args(Space)):
        raise UserError(f"unknown space {space!r}: {nearest(str(space), get_args(Space))}")
    if not rows:
        raise UserError(f"{name} takes the class maps of a front end, not images")
    if mean is None and name in PUBLISHED:
        blue, green, red = (value / 255 for value in PUBLISHED[name].bgr_mean)
        mean = (red, green, blue)
    if space is None:
        space = "bgr" if any(row.kind == "plain" for row in rows) else "rgb"
    # VGG-16 itself takes its crop as it is, and gives one cell.
    margin = stages.surroundings(rows) if name in CLASSES else 0
    return Preprocess(mean or IMAGENET_MEAN, std, space, margin)


def preprocess(name: str, images: jax.Array, **options: Any) -> jax.Array:
    """RGB uint8 [N, H, W, 3] to the input of a network: see `preprocessing`."""
    return preprocessing(name, **options)(images)

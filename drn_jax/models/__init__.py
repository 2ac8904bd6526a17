"""The networks by name: `create(name)` gives a Linen module, `MODELS` is the table of names.

    model = create("drn_c_26", num_classes=10, width=0.5)
    variables = model.init(key, images)
    logits, features = model.apply(variables, images, train=False)

`images` are normalised floats [N, H, W, 3]; `features["logits_2d"]` is the dense class map.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp

from drn_jax.errors import UserError, nearest
from drn_jax.models import drn
from drn_jax.models.resnet import ResidualNetwork
from drn_jax.models.stages import Stage, scale_width

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
}
"""The stage table of every network, as a function of the options that its family has."""

_FIELDS = ("running_variance",)
"""Options that every network has: fields of the module."""


def table(name: str, width: float = 1.0, **options: Any) -> tuple[Stage, ...]:
    """The stage table of a network, its channels multiplied by `width`. Raises as `create`."""
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


def create(
    name: str,
    num_classes: int = 1000,
    width: float = 1.0,
    dtype: Any = jnp.float32,
    **options: Any,
) -> ResidualNetwork:
    """The network `name` with every channel count but the classifier's multiplied by `width`.

    Args:
      dtype: of the computation; parameters and batch statistics stay float32.
      options: `running_variance` (see `layers.BatchNorm`); for DRN-A also `output_stride` and
        `variant` (see `drn.drn_a`), which share their parameters.

    Raises: UserError for an unknown name, option or value, offering the nearest.
    """
    fields = {key: options.pop(key) for key in _FIELDS if key in options}
    stages = table(name, width, **options)
    return ResidualNetwork(stages, num_classes=num_classes, dtype=dtype, **fields)

"""The networks by name: `create(name)` gives a Linen module, `MODELS` is the table of names.

    model = create("drn_c_26", num_classes=10, width=0.5)
    variables = model.init(key, images)
    logits, features = model.apply(variables, images, train=False)

`images` are normalised floats [N, H, W, 3]; `features["logits_2d"]` is the dense class map.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from drn_jax.errors import UserError, nearest
from drn_jax.models import drn
from drn_jax.models.resnet import ResidualNetwork
from drn_jax.models.stages import Stage, scale_width

MODELS: Mapping[str, tuple[Stage, ...]] = {
    "drn_c_26": drn.STAGES["drn_c_26"],
    "drn_c_42": drn.STAGES["drn_c_42"],
    "drn_c_58": drn.STAGES["drn_c_58"],
    "drn_d_22": drn.STAGES["drn_d_22"],
    "drn_d_38": drn.STAGES["drn_d_38"],
    "drn_d_54": drn.STAGES["drn_d_54"],
    "drn_d_105": drn.STAGES["drn_d_105"],
}


def table(name: str, width: float = 1.0) -> tuple[Stage, ...]:
    """The stage table of a network, its channels multiplied by `width`. Raises as `create`."""
    if name not in MODELS:
        raise UserError(f"unknown model {name!r}: {nearest(name, MODELS)}")
    if not 0 < width < float("inf"):
        raise UserError(f"model width {width} must be a number above 0")
    return scale_width(MODELS[name], width)


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
      options: further fields of the module, such as `running_variance="unbiased"`.

    Raises: UserError for an unknown name, option, or width, offering the nearest.
    """
    stages = table(name, width)
    known = set(ResidualNetwork.__dataclass_fields__) - {"stages", "parent", "name"}
    for option in options:
        if option not in known:
            raise UserError(f"model {name} has no option {option!r}: {nearest(option, known)}")
    return ResidualNetwork(stages, num_classes=num_classes, dtype=dtype, **options)

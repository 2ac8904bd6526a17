"""All that a run carries from one step to the next."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax


@flax.struct.dataclass
class TrainState:
    """A pytree: `step` int32 scalar, parameters, batch statistics (none without batch norm) and
    optimiser state, float32."""

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    unused: Any = flax.struct.field(default_factory=dict)
    """What converted weights carry besides, to be written back as it came: `convert.torch`."""

    @property
    def variables(self) -> dict[str, Any]:
        """What `model.apply` takes."""
        carried = {"batch_stats": self.batch_stats, "unused": self.unused}
        return {"params": self.params, **{name: tree for name, tree in carried.items() if tree}}


def init(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    key: jax.Array,
    input_shape: tuple[int, int, int],
) -> TrainState:
    """The state before step 0, for inputs [H, W, C]. Pure: use it under jit or eval_shape."""
    variables = model.init(key, jnp.zeros((1, *input_shape), jnp.float32))
    params = variables["params"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=optimizer.init(params),
    )

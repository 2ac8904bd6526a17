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
    optimiser state, float32.

    Everything else that a step depends on is a function of the configuration and of `step`: the
    examples, how they are augmented, and what dropout draws.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    ema: Any = flax.struct.field(default_factory=dict)
    """Running averages of `params` and `batch_stats`, by these names, where they are kept:
    `steps.averaged`."""
    unused: Any = flax.struct.field(default_factory=dict)
    """What converted weights carry besides, to be written back as it came: `convert.torch`."""

    @property
    def variables(self) -> dict[str, Any]:
        """What `model.apply` takes, to be scored and kept: the averages where there are any."""
        found = {**self.trained, **self.ema, "unused": self.unused}
        return {name: tree for name, tree in found.items() if tree}

    @property
    def trained(self) -> dict[str, Any]:
        """What a step changes, and an average is kept of."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def progress(self) -> dict[str, Any]:
        """What only training needs, besides `variables`."""
        found = {"step": self.step, "opt_state": self.opt_state}
        beside = {name: tree for name, tree in self.trained.items() if tree and self.ema}
        return {**found, **beside}

    def holding(self, variables: dict[str, Any], progress: dict[str, Any]) -> "TrainState":
        """The state of which these are `variables` and `progress`; of the latter only what is
        there is taken."""
        trained = {name: variables.get(name, {}) for name in self.trained}
        ema = trained if self.ema else {}
        if self.ema and "params" not in progress:
            trained = jax.tree.map(jnp.copy, trained)  # Two arrays, for a step consumes both.
        return TrainState(
            step=progress.get("step", self.step),
            params=progress.get("params", trained["params"]),
            batch_stats=progress.get("batch_stats", trained["batch_stats"]),
            opt_state=progress.get("opt_state", self.opt_state),
            ema=ema,
            unused=variables.get("unused", {}),
        )


def init(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    key: jax.Array,
    input_shape: tuple[int, int, int],
    ema: bool = False,
) -> TrainState:
    """The state before step 0, for inputs [H, W, C]; with `ema` it keeps an average. Pure: use it
    under jit or eval_shape."""
    variables = model.init(key, jnp.zeros((1, *input_shape), jnp.float32))
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=optimizer.init(params),
        ema={"params": params, "batch_stats": batch_stats} if ema else {},
    )

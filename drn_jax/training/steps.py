"""The pure functions of training and evaluation, not yet jitted.

A batch holds `image` uint8 [N, H, W, 3] and the task's labels; images are normalised here, on the
device, by the data set's channel means and deviations.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from drn_jax.tasks import Task
from drn_jax.training.state import TrainState

Batch = Mapping[str, jax.Array]
Channels = tuple[float, float, float]
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]
Variables = Mapping[str, Any]
EvalStep = Callable[[Variables, Batch], dict[str, jax.Array]]


def normalise(images: jax.Array, mean: Channels, std: Channels) -> jax.Array:
    """uint8 [N, H, W, 3] -> float32: scaled to [0, 1], less the mean, over the deviation."""
    unit = images.astype(jnp.float32) / 255.0
    return (unit - jnp.asarray(mean)[None, None, None, :]) / jnp.asarray(std)[None, None, None, :]


def make_train_step(
    model: nn.Module,
    task: Task,
    optimizer: optax.GradientTransformation,
    mean: Channels,
    std: Channels,
) -> TrainStep:
    """`train_step(state, batch) -> (state, metrics)`: one update.

    `metrics` are float32 scalars from before the update: `loss`, and `grad_norm`, the Euclidean
    norm of the loss's gradient without weight decay.
    """

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        images = normalise(batch["image"], mean, std)

        def loss_fn(params):
            variables = {"params": params, "batch_stats": state.batch_stats}
            (logits, features), updated = model.apply(
                variables, images, train=True, mutable=["batch_stats"]
            )
            return task.loss(logits, features, batch), updated["batch_stats"]

        (loss, batch_stats), gradient = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        new_state = TrainState(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
            unused=state.unused,
        )
        return new_state, {"loss": loss, "grad_norm": optax.tree.norm(gradient)}

    return train_step


def make_eval_step(model: nn.Module, task: Task, mean: Channels, std: Channels) -> EvalStep:
    """`eval_step(variables, batch) -> sums` of the task over the batch's valid examples."""

    def eval_step(variables: Variables, batch: Batch) -> dict[str, jax.Array]:
        images = normalise(batch["image"], mean, std)
        outputs: Any = model.apply(variables, images, train=False)
        logits, features = outputs
        return task.sums(logits, features, batch)

    return eval_step


def make_predict_step(model: nn.Module, task: Task, mean: Channels, std: Channels) -> EvalStep:
    """`predict_step(variables, batch)`: the task's predictions for `batch["image"]`."""

    def predict_step(variables: Variables, batch: Batch) -> dict[str, jax.Array]:
        images = normalise(batch["image"], mean, std)
        outputs: Any = model.apply(variables, images, train=False)
        logits, features = outputs
        height, width = images.shape[1:3]
        return task.predict(logits, features, (height, width))

    return predict_step

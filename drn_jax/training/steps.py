"""The pure functions of training and evaluation, not yet jitted.

A batch holds what `prepare` makes the network's input of (`image` uint8 [N, H, W, 3], or a front
end's `map`), and the task's labels.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import optax

from drn_jax.tasks import Task
from drn_jax.training.state import TrainState

Batch = Mapping[str, jax.Array]
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]
Variables = Mapping[str, Any]
EvalStep = Callable[[Variables, Batch], dict[str, jax.Array]]
PredictStep = Callable[[Variables, Batch, tuple[int, int]], dict[str, jax.Array]]


Prepare = Callable[[Batch], jax.Array]
"""From a batch to the input of the network, on the device: `models.inputs.Preprocess`."""


def make_train_step(
    model: nn.Module,
    task: Task,
    optimizer: optax.GradientTransformation,
    prepare: Prepare,
    seed: int = 0,
) -> TrainStep:
    """`train_step(state, batch) -> (state, metrics)`: one update.

    Dropout draws from (seed, step), so that a resumed run draws what it would have drawn.

    `metrics` are float32 scalars from before the update: `loss`, and `grad_norm`, the Euclidean
    norm of the loss's gradient without weight decay.
    """

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        inputs = prepare(batch)
        key = jax.random.fold_in(jax.random.key(seed), state.step)

        def loss_fn(params):
            variables = {"params": params, "batch_stats": state.batch_stats}
            (logits, features), updated = model.apply(
                variables, inputs, train=True, mutable=["batch_stats"], rngs={"dropout": key}
            )
            return task.loss(logits, features, batch), updated.get("batch_stats", {})

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


def make_eval_step(model: nn.Module, task: Task, prepare: Prepare) -> EvalStep:
    """`eval_step(variables, batch) -> sums` of the task over the batch's valid examples."""

    def eval_step(variables: Variables, batch: Batch) -> dict[str, jax.Array]:
        outputs: Any = model.apply(variables, prepare(batch), train=False)
        logits, features = outputs
        return task.sums(logits, features, batch)

    return eval_step


def make_predict_step(model: nn.Module, task: Task, prepare: Prepare) -> PredictStep:
    """`predict_step(variables, batch, size)`: the task's predictions for images of a size, (height,
    width) in pixels, which must be known at compilation."""

    def predict_step(
        variables: Variables, batch: Batch, size: tuple[int, int]
    ) -> dict[str, jax.Array]:
        outputs: Any = model.apply(variables, prepare(batch), train=False)
        logits, features = outputs
        return task.predict(logits, features, size)

    return predict_step

"""The pure functions of training and evaluation, not yet jitted.

A batch holds what `prepare` makes the network's input of (`image` uint8 [N, H, W, 3], or a front
end's `map`), and the task's labels.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from drn_jax.errors import UserError
from drn_jax.tasks import Task
from drn_jax.training.state import TrainState

Batch = Mapping[str, jax.Array]
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]
Variables = Mapping[str, Any]
EvalStep = Callable[[Variables, Batch], dict[str, jax.Array]]
PredictStep = Callable[[Variables, Batch, tuple[int, int]], dict[str, jax.Array]]


Prepare = Callable[[Batch], jax.Array]
"""From a batch to the input of the network, on the device: `models.inputs.Preprocess`."""
Gather = Callable[[Any], Any]
"""From arrays that are split over devices to the same, whole on each."""


def make_train_step(
    model: nn.Module,
    task: Task,
    optimizer: optax.GradientTransformation,
    prepare: Prepare,
    seed: int = 0,
    accumulate: int = 1,
    ema: float = 0.0,
    gather: Gather = lambda params: params,
) -> TrainStep:
    """`train_step(state, batch) -> (state, metrics)`: one update.

    Dropout draws from (seed, step), so that a resumed run draws what it would have drawn.

    With `accumulate` k, part i of the batch is its examples i, i + k, i + 2k, ... The parts are
    computed one after the other and weighted by what their losses count, so that the gradient is
    that of the whole batch's loss. But batch norm sees a part at a time: a step equals one with
    the statistics of k groups (`layers.Norm`), and the running averages move once, by their mean.

    `ema`: see `averaged`; the state must hold an average then. `gather` brings parameters that are
    split over devices together, before they are used.

    Raises (when traced): UserError for a batch that can't be split into the parts.

    `metrics` are float32 scalars from before the update: `loss`, and `grad_norm`, the Euclidean
    norm of the loss's gradient without weight decay.
    """

    def gradient_of(state: TrainState, batch: Batch, key: jax.Array) -> "_Gradient":
        inputs = prepare(batch)

        def loss_fn(params):
            variables = {"params": gather(params), "batch_stats": state.batch_stats}
            (logits, features), updated = model.apply(
                variables, inputs, train=True, mutable=["batch_stats"], rngs={"dropout": key}
            )
            loss, count = task.loss(logits, features, batch)
            return loss, (count, updated.get("batch_stats", {}))

        found = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        (loss, (count, batch_stats)), gradient = found
        return _Gradient(loss, gradient, batch_stats, count.astype(jnp.float32))

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        if accumulate == 1:
            found = gradient_of(state, batch, key)
        else:
            found = _over_parts(
                lambda part, i: gradient_of(state, part, jax.random.fold_in(key, i)),
                batch,
                state.batch_stats,
                accumulate,
            )
        updates, opt_state = optimizer.update(found.gradient, state.opt_state, state.params)
        new_state = TrainState(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=found.batch_stats,
            opt_state=opt_state,
            ema=state.ema,
            unused=state.unused,
        )
        if ema:
            average = averaged(state.ema, new_state.trained, ema, new_state.step)
            new_state = dataclasses.replace(new_state, ema=average)
        return new_state, {"loss": found.loss, "grad_norm": optax.tree.norm(found.gradient)}

    return train_step


def averaged(average: Any, trained: Any, keep: float, step: jax.Array) -> Any:
    """The running average of parameters and batch statistics after the update that made `step`: of
    the old one remains the share min(keep, (1 + step) / (10 + step)), so that what a young run
    started from is soon forgotten (the rule of TensorFlow's ExponentialMovingAverage)."""
    share = jnp.minimum(keep, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda a, p: a + (1 - share) * (p - a), average, trained)


class _Gradient(NamedTuple):
    """What one pass over a batch gives; `weight` is what the mean `loss` runs over."""

    loss: jax.Array
    gradient: Any
    batch_stats: Any
    weight: jax.Array


def _over_parts(
    gradient_of: Callable[[Batch, jax.Array], _Gradient], batch: Batch, before: Any, parts: int
) -> _Gradient:
    """The gradient of a batch from those of its parts; `before`: the batch statistics."""

    def split(values: jax.Array) -> jax.Array:
        # Part i takes some examples of every device, so that none has to be sent.
        if values.shape[0] % parts:
            raise UserError(f"a batch of {values.shape[0]} can't be split into {parts} parts")
        shape = (values.shape[0] // parts, parts, *values.shape[1:])
        return jnp.moveaxis(values.reshape(shape), 1, 0)

    def add(sums: _Gradient, part: tuple[Batch, jax.Array]) -> tuple[_Gradient, None]:
        loss, gradient, batch_stats, weight = gradient_of(*part)
        weighted = _Gradient(
            loss * weight,
            jax.tree.map(lambda g: g * weight, gradient),
            # Summed as changes: what stays as it is does so to the bit.
            jax.tree.map(lambda s, b: (s - b) / parts, batch_stats, before),
            weight,
        )
        return jax.tree.map(jnp.add, sums, weighted), None

    split_batch = {name: split(values) for name, values in batch.items()}
    numbers = jnp.arange(parts)
    first = {name: values[0] for name, values in split_batch.items()}
    shapes = jax.eval_shape(gradient_of, first, numbers[0])
    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
    sums, _ = jax.lax.scan(add, zeros, (split_batch, numbers))
    total = jnp.maximum(sums.weight, 1)
    return _Gradient(
        sums.loss / total,
        jax.tree.map(lambda g: g / total, sums.gradient),
        jax.tree.map(jnp.add, before, sums.batch_stats),
        sums.weight,
    )


def make_eval_step(
    model: nn.Module,
    task: Task,
    prepare: Prepare,
    gather: Gather = lambda variables: variables,
) -> EvalStep:
    """`eval_step(variables, batch) -> sums` of the task over the batch's valid examples. `gather`:
    see `make_train_step`."""

    def eval_step(variables: Variables, batch: Batch) -> dict[str, jax.Array]:
        outputs: Any = model.apply(gather(variables), prepare(batch), train=False)
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

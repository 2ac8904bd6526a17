"""The compiled functions of a run: where `jit` meets the mesh, for training and for evaluation.

State and results lie on every device, batches are split by example.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from drn_jax.experiment import Experiment
from drn_jax.training import sharding, state, steps
from drn_jax.training.evaluate import Totals, evaluate


class Validate(Protocol):
    """The task's totals over the whole validation set; raises `evaluate.Stopped` on `stop()`."""

    def __call__(self, variables: steps.Variables, stop: Callable[[], bool] = ...) -> Totals: ...


def initialiser(
    run: Experiment, optimizer: optax.GradientTransformation, mesh: Mesh
) -> Callable[[jax.Array], state.TrainState]:
    """`key -> TrainState`, compiled; `jax.eval_shape` of it is the shape to restore into."""
    # Compiling dominates on CPU: optimised code for drawing numbers once costs 7 s against 1.
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    return jax.jit(
        lambda key: state.init(run.model, optimizer, key, run.input_shape),
        out_shardings=sharding.replicated(mesh),
        compiler_options={"xla_backend_optimization_level": 0} if on_cpu else None,
    )


def abstract_variables(run: Experiment) -> dict[str, Any]:
    """Shapes and dtypes of what the model's `apply` takes."""
    inputs = jax.ShapeDtypeStruct((1, *run.input_shape), np.float32)
    return jax.eval_shape(run.model.init, jax.random.key(0), inputs)


def trainer(
    run: Experiment, optimizer: optax.GradientTransformation, mesh: Mesh
) -> steps.TrainStep:
    """`steps.make_train_step`, compiled; the state passed in is consumed."""
    everywhere, by_example = sharding.replicated(mesh), sharding.by_example(mesh)
    return jax.jit(
        steps.make_train_step(run.model, run.task, optimizer, run.training_inputs, run.config.seed),
        in_shardings=(everywhere, by_example),
        out_shardings=everywhere,
        donate_argnums=0,
    )


def validator(run: Experiment, mesh: Mesh) -> Validate:
    """`evaluate` on the run's validation set, compiled once."""
    eval_step = jax.jit(
        steps.make_eval_step(run.model, run.task, run.inputs),
        in_shardings=(sharding.replicated(mesh), sharding.by_example(mesh)),
        out_shardings=sharding.replicated(mesh),
    )
    batch_size = sharding.round_up(run.config.eval_batch_size or run.config.batch_size, mesh)

    def validate(variables: steps.Variables, stop: Callable[[], bool] = lambda: False) -> Totals:
        batches = run.validation_batches(batch_size)
        to_devices = partial(sharding.to_devices, mesh=mesh)
        return evaluate(eval_step, variables, batches, to_devices, stop)

    return validate


def predictor(
    run: Experiment, variables: steps.Variables
) -> Callable[[Mapping[str, np.ndarray], tuple[int, int]], dict[str, Any]]:
    """`batch, (height, width) of its images -> predictions` of the task, each device computing the
    whole batch."""
    step = steps.make_predict_step(run.model, run.task, run.inputs)
    return partial(jax.jit(step, static_argnums=2), variables)

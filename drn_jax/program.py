"""The compiled functions of a run: where `jit` meets the mesh, for training and for evaluation.

State lies on the mesh as `sharding.of_state` says and batches as `sharding.of_batch`, results whole
on every device.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from drn_jax.experiment import Experiment
from drn_jax.models.stages import output_stride
from drn_jax.training import sharding, state, steps
from drn_jax.training.evaluate import Totals, evaluate


class Validate(Protocol):
    """The task's totals over the whole validation set; raises `evaluate.Stopped` on `stop()`."""

    def __call__(self, variables: steps.Variables, stop: Callable[[], bool] = ...) -> Totals: ...


def abstract_state(
    run: Experiment, optimizer: optax.GradientTransformation, mesh: Mesh
) -> state.TrainState:
    """Shape, dtype and place of every array of the state."""
    shapes = jax.eval_shape(partial(_init, run, optimizer), jax.random.key(0))
    return sharding.placed(shapes, sharding.of_state(mesh, shapes))


def abstract_variables(run: Experiment, mesh: Mesh) -> dict[str, Any]:
    """Shape, dtype and place of what the model's `apply` takes."""
    inputs = jax.ShapeDtypeStruct((1, *run.input_shape), np.float32)
    shapes = jax.eval_shape(run.model.init, jax.random.key(0), inputs)
    return sharding.placed(shapes, sharding.of_state(mesh, shapes))


def abstract_batch(run: Experiment, mesh: Mesh) -> dict[str, Any]:
    """Shape, dtype and place of what the train step takes."""
    return {
        name: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding.of_batch(mesh, a.shape))
        for name, a in run.batch_shapes.items()
    }


def initialiser(
    run: Experiment, optimizer: optax.GradientTransformation, mesh: Mesh
) -> Callable[[jax.Array], state.TrainState]:
    """`key -> TrainState`, compiled; every array is born where it belongs."""
    # Compiling dominates on CPU: optimised code for drawing numbers once costs 7 s against 1.
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    return jax.jit(
        partial(_init, run, optimizer),
        out_shardings=jax.tree.map(lambda a: a.sharding, abstract_state(run, optimizer, mesh)),
        compiler_options={"xla_backend_optimization_level": 0} if on_cpu else None,
    )


def _init(
    run: Experiment, optimizer: optax.GradientTransformation, key: jax.Array
) -> state.TrainState:
    return state.init(run.model, optimizer, key, run.input_shape, ema=run.config.ema > 0)


def trainer(
    run: Experiment, optimizer: optax.GradientTransformation, mesh: Mesh
) -> Callable[..., Any]:
    """`steps.make_train_step`, jitted; the state passed in is consumed, its memory used again."""
    on_gpu = mesh.devices.flat[0].platform == "gpu"
    everywhere = sharding.replicated(mesh)
    where = jax.tree.map(lambda a: a.sharding, abstract_state(run, optimizer, mesh))
    return jax.jit(
        steps.make_train_step(
            run.model,
            run.task,
            optimizer,
            run.training_inputs,
            run.config.seed,
            run.config.accumulate,
            run.config.ema,
            _gather(mesh),
        ),
        # Of `unused` the abstract state knows nothing.
        out_shardings=(where.replace(unused=everywhere), everywhere),
        donate_argnums=0,
        compiler_options={"xla_gpu_deterministic_ops": True}
        if on_gpu and run.config.deterministic
        else None,
    )


def _gather(mesh: Mesh) -> steps.Gather:
    """Parameters, split over `fsdp`, are brought together where they are used: that is what FSDP
    means. Left to choose, the partitioner computes with split kernels, and where rows are split as
    well the gradients are wrong (jax 0.10.2, on CPU devices; tests/test_mesh.py)."""
    return partial(jax.lax.with_sharding_constraint, shardings=sharding.replicated(mesh))


def eval_step(run: Experiment, mesh: Mesh) -> Callable[..., Any]:
    """`steps.make_eval_step`, jitted."""
    return jax.jit(
        steps.make_eval_step(run.model, run.task, run.inputs, _gather(mesh)),
        out_shardings=sharding.replicated(mesh),
    )


def validator(run: Experiment, mesh: Mesh) -> Validate:
    """`evaluate` on the run's validation set, compiled once for every size of image."""
    step = eval_step(run, mesh)
    batch_size = sharding.round_up(run.config.eval_batch_size or run.config.batch_size, mesh)

    def validate(variables: steps.Variables, stop: Callable[[], bool] = lambda: False) -> Totals:
        batches = run.validation_batches(batch_size, sharding.share(mesh))
        stride = output_stride(run.model.table)
        to_devices = partial(sharding.to_devices, mesh=mesh, stride=stride)
        return evaluate(step, variables, batches, to_devices, stop)

    return validate


def predictor(
    run: Experiment, variables: steps.Variables, mesh: Mesh
) -> Callable[[Mapping[str, np.ndarray], tuple[int, int]], dict[str, Any]]:
    """`batch, (height, width) of its images -> predictions` of the task, by the first device of
    this process alone. All processes must call this, not what it returns."""
    step = steps.make_predict_step(run.model, run.task, run.inputs)
    return partial(jax.jit(step, static_argnums=2), here(variables, mesh))


def here(variables: steps.Variables, mesh: Mesh) -> steps.Variables:
    """The same, whole on the first device of this process. All processes must call this."""
    whole = jax.jit(lambda tree: tree, out_shardings=sharding.replicated(mesh))(variables)
    return jax.tree.map(lambda a: a.addressable_data(0), whole)

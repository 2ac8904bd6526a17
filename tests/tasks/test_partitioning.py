"""A whole step over devices that share examples and rows of pixels exchanges halos and totals."""

import math

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from drn_jax import models
from drn_jax.analysis.collectives import of_program
from drn_jax.models.layers import Norm
from drn_jax.tasks import Classification, Segmentation
from drn_jax.tasks.segmentation import PUBLISHED_DILATION

CLASSES = 3
DENSE, AT_CELLS = Segmentation(CLASSES), Segmentation(CLASSES, grid=PUBLISHED_DILATION)


def step_of(model, task):
    """Evaluation, loss, gradient and batch statistics for an input of the network."""

    def step(variables, x, labels):
        sums = task.sums(*model.apply(variables, x), labels)

        def loss(params):
            (logits, features), updates = model.apply(
                {**variables, "params": params},
                x,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.key(0)},
            )
            mean, count = task.loss(logits, features, labels)
            return mean, (count, updates)

        return sums, jax.value_and_grad(loss, has_aux=True)(variables["params"])

    return step


@pytest.mark.parametrize(
    ("name", "task", "shape", "rows", "options"),
    [
        ("drn_d_22", DENSE, (2, 1, 4), 256, {}),
        ("drn_d_22", AT_CELLS, (1, 2, 4), 256, {"norm": Norm("group", 2), "remat": "block"}),
        ("drn_c_26", Classification(CLASSES), (1, 1, 4), 256, {"dtype": jnp.bfloat16}),
        ("drn_d_22", DENSE, (8, 1, 1), 32, {"norm": Norm("group", 2)}),
        ("vgg_16_front_end", AT_CELLS, (2, 1, 4), 512, {"fc_channels": 64, "padding": "zero"}),
        ("context", AT_CELLS, (2, 1, 4), 128, {}),
    ],
)
def test_no_map_is_gathered(name, task, shape, rows, options):
    """Of heights at which no halo reaches beyond the neighbouring devices."""
    model = models.create(name, num_classes=CLASSES, width=0.03, **options)
    axes = ("data", "fsdp", "spatial")
    devices = jax.devices()[: math.prod(shape)]
    mesh = jax.make_mesh(shape, axes, axis_types=(AxisType.Auto,) * 3, devices=devices)
    whole, examples, pixels = (
        NamedSharding(mesh, PartitionSpec(*spec)) for spec in ((), (axes[:2],), (axes[:2], axes[2]))
    )
    n, stride = 2 * shape[0] * shape[1], 8 if name == "context" else 1
    x = jax.ShapeDtypeStruct((n, rows, 32, CLASSES), jnp.float32)  # Colours, or scores.
    labels = {"valid": jax.ShapeDtypeStruct((n,), bool)}
    if isinstance(task, Classification):
        labels["label"] = jax.ShapeDtypeStruct((n,), jnp.int32)
    else:
        labels["mask"] = jax.ShapeDtypeStruct((n, rows * stride, 32 * stride), jnp.uint8)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    lie = {key: pixels if key == "mask" else examples for key in labels}
    program = jax.jit(step_of(model, task), in_shardings=(whole, pixels, lie), out_shardings=whole)
    compiled = program.lower(variables, x, labels).compile({"xla_backend_optimization_level": 0})
    exchanges = {c.kind for c in of_program(compiled.as_text())}
    assert exchanges == {"all-reduce"} | ({"collective-permute"} if shape[2] > 1 else set())

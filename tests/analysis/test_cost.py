"""The cost counted from the table is that of the network that is built from it."""

from functools import cache

import jax
import jax.numpy as jnp
import pytest

from drn_jax.analysis.cost import of_stages
from drn_jax.models import MODELS, create, table
from drn_jax.models.network import Network
from drn_jax.models.stages import Stage, scale_width

MULTIPLY_ADDS = {
    "drn_c_26": 16_993.90e6,
    "drn_c_42": 25_093.75e6,
    "drn_c_58": 32_489.94e6,
    "drn_d_22": 13_051.33e6,
    "drn_d_38": 21_151.19e6,
    "drn_d_54": 28_547.38e6,
    "drn_d_105": 43_442.43e6,
}
"""At 224 x 224, counted by osmr/imgclsmob, who adds batch norm and ReLU to the convolutions."""

RESNET = (
    Stage("stem", "conv", 8, kernel=7, stride=2),
    Stage("pool", "max_pool", 8, stride=2),
    Stage("group2", "bottleneck", 8, 2),
    Stage("group3", "bottleneck", 16, 2, stride=2),
)


@cache
def variable_shapes(stages):
    model = Network(stages)
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))


def image(height, width):
    return jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)


@pytest.mark.parametrize("stages", [*map(table, MODELS), RESNET], ids=[*MODELS, "resnet"])
def test_parameters_of_every_row_are_those_of_the_network(stages):
    params = variable_shapes(stages)["params"]
    rows = of_stages(stages, 1000, 64, 64, pooled=True)
    assert [row.name for row in rows] == [*(stage.name for stage in stages), "head"]
    for row in rows:
        leaves = jax.tree.leaves(params.get(row.name, {}))
        assert row.parameters == sum(leaf.size for leaf in leaves), row.name
    assert sum(row.parameters for row in rows) == sum(x.size for x in jax.tree.leaves(params))


@pytest.mark.parametrize("stages", [*map(table, MODELS), RESNET], ids=[*MODELS, "resnet"])
def test_sizes_of_every_row_are_those_of_its_feature_map(stages):
    _, features = jax.eval_shape(
        Network(stages).apply, variable_shapes(stages), image(45, 62)
    )
    rows = of_stages(stages, 1000, 45, 62, pooled=False)
    sizes = {row.name: (1, row.height, row.width, row.channels) for row in rows}
    sizes["logits_2d"] = sizes.pop("head")
    assert sizes == {name: feature.shape for name, feature in features.items()}


@pytest.mark.parametrize("name", MULTIPLY_ADDS)
def test_multiply_adds_are_the_published_ones_less_batch_norm(name):
    """Half a percent at most, and below: batch norm and ReLU are what is left out."""
    total = sum(row.multiply_adds for row in of_stages(table(name), 1000, 224, 224, pooled=True))
    assert 0.995 * MULTIPLY_ADDS[name] < total < MULTIPLY_ADDS[name]


def test_multiply_adds_of_a_row_are_the_products_of_its_loops():
    """A strided 3x3 and a 3x3, each with its shortcut, spelt out at 5 x 4 pixels."""
    stem, level, head = of_stages(
        (Stage("stem", "conv", 2, kernel=7), Stage("level", "basic", 4, stride=2)),
        num_classes=5,
        height=5,
        width=4,
        pooled=False,
    )
    assert stem.multiply_adds == (5 * 4) * 7 * 7 * 3 * 2
    cells = 3 * 2
    assert level.multiply_adds == cells * (3 * 3 * 2 * 4 + 3 * 3 * 4 * 4 + 2 * 4)
    assert head.multiply_adds == cells * 4 * 5


def test_pooled_classifier_is_applied_once_and_changes_nothing_else():
    *dense, dense_head = of_stages(RESNET, 10, 64, 96, pooled=False)
    *pooled, pooled_head = of_stages(RESNET, 10, 64, 96, pooled=True)
    assert dense == pooled
    assert pooled_head.multiply_adds == 64 * 10
    assert dense_head.multiply_adds == (8 * 12) * pooled_head.multiply_adds
    assert dense_head.parameters == pooled_head.parameters == 64 * 10 + 10


@pytest.mark.parametrize("name", ["drn_d_22", "drn_c_58"])
def test_multiply_adds_are_half_the_flops_of_the_compiled_program(name):
    """Within 5 %, and above: XLA leaves the taps on the padding out, though it adds batch norm.

    The image is large so that the padding is a small share; nothing runs.
    """
    stages = scale_width(table(name), 0.5)
    model = create(name, width=0.5)
    program = jax.jit(lambda variables, images: model.apply(variables, images)[0])
    compiled = program.lower(variable_shapes(stages), image(896, 832)).compile()
    half = compiled.cost_analysis()["flops"] / 2
    total = sum(row.multiply_adds for row in of_stages(stages, 1000, 896, 832, pooled=True))
    assert 0.95 * total < half < total

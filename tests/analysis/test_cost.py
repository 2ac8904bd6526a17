"""The cost counted from the table is that of the network that is built from it."""

from functools import cache

import jax
import jax.numpy as jnp
import pytest

from drn_jax.analysis.cost import of_stages
from drn_jax.models import CLASSES, MODELS, create, table
from drn_jax.models.context import Context, ContextModule
from drn_jax.models.dilation import UPSAMPLING
from drn_jax.models.network import Network
from drn_jax.models.stages import Stage, surroundings

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


class Case:
    """A network, an input of it, and the channels of that."""

    def __init__(self, name, height, width):
        self.model = Network(RESNET) if name == "resnet" else create(name)
        rows = RESNET if name == "resnet" else table(name)
        self.channels = 3 if rows else CLASSES[name]
        self.height, self.width = (size + 2 * surroundings(rows) for size in (height, width))
        shape = (1, self.height, self.width, self.channels)
        self.variables, (_, self.features) = variables_and_maps(self.model, shape)

    def cost(self, pooled):
        table = self.model.table
        return of_stages(table, self.height, self.width, pooled=pooled, inputs=self.channels)


def variables_and_maps(model, shape):
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    result, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), x)
    return variables, result


@cache
def case(name):
    return Case(name, 45, 62)


@pytest.mark.parametrize("name", [*MODELS, "resnet"])
def test_parameters_of_every_row_are_those_of_the_network(name):
    """Rows of a network with a context module lie under the name of their part. Its fixed
    upsampling is no row."""
    params = dict(case(name).variables["params"])
    params.pop(UPSAMPLING, None)
    if "front_end" in params:
        params = {**params["front_end"], **params["context"]}
    rows = case(name).cost(pooled=False)
    assert [row.name for row in rows] == [stage.name for stage in case(name).model.table]
    for row in rows:
        leaves = jax.tree.leaves(params.get(row.name, {}))
        assert row.parameters == sum(leaf.size for leaf in leaves), row.name
    assert sum(row.parameters for row in rows) == sum(x.size for x in jax.tree.leaves(params))


@pytest.mark.parametrize("name", [*MODELS, "resnet"])
def test_sizes_of_every_row_are_those_of_its_feature_map(name):
    features = dict(case(name).features)
    rows = case(name).cost(pooled=False)
    sizes = {row.name: (1, row.height, row.width, row.channels) for row in rows}
    whole = {"logits_2d", "front_end", "context", "pixel_logits"}
    if "head" in sizes:
        features["head"] = features.get("front_end", features["logits_2d"])
    assert features["logits_2d"].shape == sizes[rows[-1].name]
    assert sizes == {name: map.shape for name, map in features.items() if name not in whole}


@pytest.mark.parametrize("name", MULTIPLY_ADDS)
def test_multiply_adds_are_the_published_ones_less_batch_norm(name):
    """Half a percent at most, and below: batch norm and ReLU are what is left out."""
    total = sum(row.multiply_adds for row in of_stages(create(name).table, 224, 224, pooled=True))
    assert 0.995 * MULTIPLY_ADDS[name] < total < MULTIPLY_ADDS[name]


def test_multiply_adds_of_vgg_16_are_the_products_of_its_loops_at_224():
    convolutions = 0
    for size, pairs in (
        (224, [(3, 64), (64, 64)]),
        (112, [(64, 128), (128, 128)]),
        (56, [(128, 256), (256, 256), (256, 256)]),
        (28, [(256, 512), (512, 512), (512, 512)]),
        (14, [(512, 512)] * 3),
    ):
        convolutions += sum(size * size * 9 * a * b for a, b in pairs)
    assert convolutions == 15_346_630_656
    dense = 25_088 * 4096 + 4096 * 4096 + 4096 * 1000
    for pooled in (True, False):
        rows = of_stages(create("vgg_16").table, 224, 224, pooled=pooled)
        assert sum(row.multiply_adds for row in rows) == convolutions + dense
        assert not any(row.multiply_adds or row.parameters for row in rows if "pool" in row.name)


@pytest.mark.parametrize(("size", "weights"), [("basic", 64), ("large", 15_422)])
def test_context_module_multiplies_every_weight_at_every_cell(size, weights):
    rows = ContextModule(5, Context(size=size)).table
    cost = of_stages(rows, 20, 30, pooled=False, inputs=5)
    assert sum(row.multiply_adds for row in cost) == 20 * 30 * weights * 25


def test_context_module_without_padding_multiplies_at_the_cells_that_are_left():
    rows = ContextModule(1, Context(padding="none")).table
    cost = of_stages(rows, 67, 70, pooled=False, inputs=1)
    left = (65, 63, 59, 51, 35, 3, 1, 1)
    assert [row.height for row in cost] == [*left]
    assert [row.multiply_adds for row in cost] == [
        taps * height * (height + 3) for taps, height in zip([9] * 7 + [1], left, strict=True)
    ]


def test_multiply_adds_of_a_row_are_the_products_of_its_loops():
    """A strided 3x3 and a 3x3, each with its shortcut, spelt out at 5 x 4 pixels."""
    stem, level, head = of_stages(
        Network(
            (Stage("stem", "conv", 2, kernel=7), Stage("level", "basic", 4, stride=2)),
            num_classes=5,
        ).table,
        height=5,
        width=4,
        pooled=False,
    )
    assert stem.multiply_adds == (5 * 4) * 7 * 7 * 3 * 2
    cells = 3 * 2
    assert level.multiply_adds == cells * (3 * 3 * 2 * 4 + 3 * 3 * 4 * 4 + 2 * 4)
    assert head.multiply_adds == cells * 4 * 5


def test_pooled_classifier_is_applied_once_and_changes_nothing_else():
    rows = Network(RESNET, num_classes=10).table
    *dense, dense_head = of_stages(rows, 64, 96, pooled=False)
    *pooled, pooled_head = of_stages(rows, 64, 96, pooled=True)
    assert dense == pooled
    assert pooled_head.multiply_adds == 64 * 10
    assert dense_head.multiply_adds == (8 * 12) * pooled_head.multiply_adds
    assert dense_head.parameters == pooled_head.parameters == 64 * 10 + 10


def half_the_flops(model, height, width, returned):
    """Of the compiled program; nothing runs."""
    shape = (1, height, width, 3)
    variables, _ = variables_and_maps(model, shape)
    program = jax.jit(lambda variables, images: returned(*model.apply(variables, images)))
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    return program.lower(variables, images).compile().cost_analysis()["flops"] / 2


@pytest.mark.parametrize("name", ["drn_d_22", "drn_c_58"])
def test_multiply_adds_are_half_the_flops_of_the_compiled_program(name):
    """Within 5 %, and above: XLA leaves the taps on the padding out, though it adds batch norm.

    The image is large so that the padding is a small share.
    """
    model = create(name, width=0.5, convolution="native")
    half = half_the_flops(model, 896, 832, lambda logits, features: logits)
    total = sum(row.multiply_adds for row in of_stages(model.table, 896, 832, pooled=True))
    assert 0.95 * total < half < total


def test_multiply_adds_of_the_unpadded_front_end_are_half_the_flops_of_its_compiled_program():
    """Within 2 %, and below: no tap lies on padding, and XLA adds biases, ReLUs and poolings."""
    model = create("vgg_16_front_end", width=0.25, convolution="native")
    half = half_the_flops(model, 500, 628, lambda logits, features: features["logits_2d"])
    total = sum(row.multiply_adds for row in of_stages(model.table, 500, 628, pooled=False))
    assert total < half < 1.02 * total

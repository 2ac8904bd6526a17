"""The cost counted from the table is that of the network that is built from it."""

from functools import cache

import jax
import jax.numpy as jnp
import pytest

from drn_jax.analysis import cost, hlo
from drn_jax.models import CLASSES, MODELS, create, rows_of, table
from drn_jax.models.context import Context, ContextModule
from drn_jax.models.convolution import dilated_conv
from drn_jax.models.dilation import UPSAMPLING
from drn_jax.models.network import Network
from drn_jax.models.stages import Stage, blocks, surroundings

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
        return cost.of(table, self.height, self.width, pooled=pooled, inputs=self.channels)


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
    total = cost.total(cost.of(name, 224, 224)).multiply_adds
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
        rows = cost.of(create("vgg_16").table, 224, 224, pooled=pooled)
        assert sum(row.multiply_adds for row in rows) == convolutions + dense
        assert not any(row.multiply_adds or row.parameters for row in rows if "pool" in row.name)


@pytest.mark.parametrize(("size", "weights"), [("basic", 64), ("large", 15_422)])
def test_context_module_multiplies_every_weight_at_every_cell(size, weights):
    rows = ContextModule(5, Context(size=size)).table
    costs = cost.of(rows, 20, 30, pooled=False, inputs=5)
    assert cost.total(costs).multiply_adds == 20 * 30 * weights * 25


def test_context_module_without_padding_multiplies_at_the_cells_that_are_left():
    rows = ContextModule(1, Context(padding="none")).table
    costs = cost.of(rows, 67, 70, pooled=False, inputs=1)
    left = (65, 63, 59, 51, 35, 3, 1, 1)
    assert [row.height for row in costs] == [*left]
    assert [row.multiply_adds for row in costs] == [
        taps * height * (height + 3) for taps, height in zip([9] * 7 + [1], left, strict=True)
    ]


def test_multiply_adds_of_a_row_are_the_products_of_its_loops():
    """A strided 3x3 and a 3x3, each with its shortcut, spelt out at 5 x 4 pixels."""
    stem, level, head = cost.of(
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
    *dense, dense_head = cost.of(rows, 64, 96, pooled=False)
    *pooled, pooled_head = cost.of(rows, 64, 96, pooled=True)
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


PROGRAMS = {
    "drn_c_26": (0.25, 64, 80),
    "resnet_50": (0.25, 97, 64),
    "drn_d_54": (0.25, 72, 71),
    "drn_a_18": (0.5, 64, 64),
    "dilation8_camvid": (0.03, 40, 48),
}
"""Width, and the pixels of an image: so few that a third of the taps may lie on padding."""


class Program:
    """A network's, for one image, before it is compiled."""

    def __init__(self, name):
        width, *size = PROGRAMS[name]
        model = create(name, width=width, convolution="native")
        self.pooled = isinstance(model, Network)
        size = [pixels + 2 * surroundings(table(name)) for pixels in size]
        self.costs = cost.of(model.table, *size, pooled=self.pooled)
        variables, _ = variables_and_maps(model, (1, *size, 3))

        def answer(variables, images):
            logits, features = model.apply(variables, images)
            return logits if self.pooled else features["context"]

        images = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
        self.lowered = jax.jit(answer).lower(variables, images)


@cache
def program(name):
    return Program(name)


@pytest.mark.parametrize("name", PROGRAMS)
def test_multiply_adds_without_padded_taps_are_those_of_the_compiled_program(name):
    """XLA leaves the taps on the padding out, and counts batch norm, biases, ReLU, pooling and sums
    besides: some operations at every cell of every map, more than once where it fuses them."""
    total = cost.total(program(name).costs)
    half = program(name).lowered.compile().cost_analysis()["flops"] / 2
    numbers = total.activation_bytes / 4
    assert 0 < half - total.inner_multiply_adds < 5 * numbers
    if name != "dilation8_camvid":
        assert total.multiply_adds - total.inner_multiply_adds > 5 * numbers


@pytest.mark.parametrize("size", [1, 3, 8, 21])
def test_multiply_adds_of_a_convolution_are_those_of_its_compiled_program_to_the_last(size):
    def flops(conv):
        def apply(x, kernel):
            return dilated_conv(
                x,
                kernel,
                stride=conv.stride,
                dilation=conv.dilation,
                padding=conv.padding,
                method="native",
            )

        x = jax.ShapeDtypeStruct((1, size, size + 2, conv.inputs), jnp.float32)
        kernel = (conv.kernel, conv.kernel, conv.inputs, conv.outputs)
        lowered = jax.jit(apply).lower(x, jax.ShapeDtypeStruct(kernel, jnp.float32))
        return lowered.compile().cost_analysis()["flops"]

    for stage in (
        Stage("stem", "conv", 4, kernel=7),
        Stage("stem", "conv", 4, kernel=7, stride=2),
        Stage("level", "conv", 4, dilation=4),
        Stage("level", "conv", 4, stride=2, dilation=2),
        Stage("fc", "plain", 5, kernel=1),
    ):
        [row] = cost.of((stage,), size, size + 2)
        [block] = blocks(stage, 3)
        assert 2 * row.inner_multiply_adds == flops(block.path[0])


@pytest.mark.parametrize("name", PROGRAMS)
def test_activation_bytes_are_those_of_the_results_of_convolutions_and_poolings(name):
    instructions = hlo.instructions(program(name).lowered.as_text("hlo"))
    windows = ("convolution", "dot", "reduce-window")
    results = [line.results for line in instructions if line.opcode in windows]
    total = cost.total(program(name).costs).activation_bytes
    # The mean is a reduction, no pooling; its classifier's one cell counts.
    assert sum(array.bytes for [array] in results) == total


def test_activation_bytes_of_bfloat16_are_half_of_those_of_float32():
    single, half = (cost.of("drn_a_18", 64, 64, itemsize=size) for size in (4, 2))
    for one, other in zip(single, half, strict=True):
        assert one.activation_bytes == 2 * other.activation_bytes > 0


def test_a_name_stands_for_the_network_that_create_makes_of_it():
    for name in ("drn_c_26", "dilation8_camvid"):
        assert cost.of(name, 500, 400) == cost.of(create(name).table, 500, 400)


def test_a_context_module_by_name_takes_maps_of_its_classes():
    for name, classes in (("context", 21), ("context7_kitti", 11)):
        rows = create(name).table
        assert cost.of(name, 20, 20) == cost.of(rows, 20, 20, inputs=classes)
        assert cost.of(name, 20, 20)[0].parameters == 9 * classes**2 + classes


@pytest.mark.parametrize("padding", ["once", "mirror"])
def test_a_module_that_mirrors_costs_what_one_does_that_pads_once(padding):
    model = create("drn_d_22", 3, context=Context(padding=padding))
    rows = {row.name: row for row in cost.of(rows_of(model), 64, 80)}
    assert (rows["ctx_final"].height, rows["ctx_final"].width) == (8, 10)
    assert rows["ctx_conv1_1"].multiply_adds == 9 * 9 * (8 + 64) * (10 + 64)


def test_a_classifier_behind_which_a_context_module_lies_is_never_pooled():
    rows = create("drn_d_22", 3, context=Context()).table
    assert cost.of(rows, 64, 64, pooled=True) == cost.of(rows, 64, 64, pooled=False)


def test_multiply_adds_of_the_unpadded_front_end_are_half_the_flops_of_its_compiled_program():
    """Within 2 %, and below: no tap lies on padding, and XLA adds biases, ReLUs and poolings."""
    model = create("vgg_16_front_end", width=0.25, convolution="native")
    half = half_the_flops(model, 500, 628, lambda logits, features: features["logits_2d"])
    total = sum(row.multiply_adds for row in cost.of(model.table, 500, 628, pooled=False))
    assert total < half < 1.02 * total

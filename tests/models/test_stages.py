"""The table means what it says, and it holds the networks of the papers around these."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drn_jax.errors import UserError
from drn_jax.models import MODELS, drn, table
from drn_jax.models.convolution import dilated_conv
from drn_jax.models.layers import max_pool
from drn_jax.models.network import Network
from drn_jax.models.stages import (
    Block,
    Conv,
    Stage,
    blocks,
    cells,
    classifier,
    least_size,
    output_stride,
    pool_padding,
    row_cells,
    scale_width,
    strided,
    surroundings,
)


def test_basic_row_strides_and_projects_in_its_first_block_alone():
    row = Stage("level", "basic", 64, 2, stride=2, dilation=4)
    assert list(blocks(row, 32)) == [
        Block(
            "block1",
            (Conv("conv1", 32, 64, 3, 2, 4), Conv("conv2", 64, 64, 3, 1, 4)),
            Conv("projection", 32, 64, 1, 2, 1),
        ),
        Block(
            "block2",
            (Conv("conv1", 64, 64, 3, 1, 4), Conv("conv2", 64, 64, 3, 1, 4)),
            "identity",
        ),
    ]


def test_bottleneck_row_strides_and_dilates_in_its_3x3_convolutions():
    row = Stage("level", "bottleneck", 8, 2, stride=2, dilation=2)
    assert list(blocks(row, 32)) == [
        Block(
            "block1",
            (Conv("conv1", 32, 8, 1), Conv("conv2", 8, 8, 3, 2, 2), Conv("conv3", 8, 32, 1)),
            Conv("projection", 32, 32, 1, 2),
        ),
        Block(
            "block2",
            (Conv("conv1", 32, 8, 1), Conv("conv2", 8, 8, 3, 1, 2), Conv("conv3", 8, 32, 1)),
            "identity",
        ),
    ]


def test_convolution_row_is_a_chain_without_shortcuts():
    row = Stage("stem", "conv", 16, 2, stride=2, dilation=2, kernel=7)
    assert list(blocks(row, 3)) == [
        Block("block1", (Conv("conv1", 3, 16, 7, 2, 2),), "none"),
        Block("block2", (Conv("conv1", 16, 16, 7, 1, 2),), "none"),
    ]


@pytest.mark.parametrize(
    ("inputs", "shortcut"), [(8, "identity"), (4, Conv("projection", 4, 8, 1))]
)
def test_stride_1_projects_only_where_the_channels_change(inputs, shortcut):
    (block,) = blocks(Stage("level", "basic", 8), inputs)
    assert block.shortcut == shortcut


def test_row_without_residuals_adds_nothing_even_where_shapes_differ():
    row = Stage("level", "basic", 8, 2, stride=2, residual=False)
    assert [block.shortcut for block in blocks(row, 4)] == ["none", "none"]


def test_first_dilation_is_that_of_the_first_block_alone():
    row = Stage("group4", "basic", 8, 2, dilation=2, first_dilation=(1, 2))
    dilations = [[conv.dilation for conv in block.path] for block in blocks(row, 8)]
    assert dilations == [[1, 2], [2, 2]]
    row = replace(row, kind="bottleneck", dilation=4, first_dilation=(2, 4))
    dilations = [[conv.dilation for conv in block.path] for block in blocks(row, 8)]
    assert dilations == [[1, 2, 1], [1, 4, 1]]


def test_pooling_row_has_no_blocks():
    assert list(blocks(Stage("pool", "max_pool", 64, stride=2), 64)) == []


def test_plain_row_is_one_convolution_with_a_bias_under_the_name_of_the_row():
    row = Stage("fc6", "plain", 8, stride=2, dilation=4, kernel=7, padding=5)
    conv = Conv("fc6", 3, 8, 7, 2, 4, bias=True, pad=5)
    assert list(blocks(row, 3)) == [Block("", (conv,), "none")]
    assert conv.padding == 5
    [block] = blocks(replace(row, padding=None), 3)
    assert block.path[0].padding == 12


def test_classifier_scores_every_cell_and_lets_negative_scores_pass():
    row = classifier(21)
    assert (row.name, row.outputs, row.relu, row.dropout) == ("head", 21, False, 0.0)
    assert list(blocks(row, 64)) == [Block("", (Conv("head", 64, 21, 1, bias=True),), "none")]


def test_norms_are_named_after_their_convolutions():
    assert [Conv(n, 1, 1, 1).norm for n in ("conv1", "conv2", "projection")] == [
        "norm1",
        "norm2",
        "projection_norm",
    ]


@pytest.mark.parametrize(("kernel", "dilation", "padding"), [(1, 4, 0), (3, 4, 4), (7, 2, 6)])
def test_padding_keeps_the_size_at_stride_1(kernel, dilation, padding):
    conv = Conv("conv1", 1, 1, kernel, dilation=dilation)
    assert conv.padding == padding
    assert 2 * padding == dilation * (kernel - 1)


@pytest.mark.parametrize("output_stride", [16, 8, 4])
@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
def test_conversion_to_drn_a_keeps_the_function_at_the_cells_of_the_resnet(
    kind, output_stride, variables_of
):
    """Same parameters, more cells: the strided map is a subset of the dilated."""
    images = np.random.default_rng(0).normal(size=(1, 65, 50, 3)).astype(np.float32)
    counts = (2, 2, 2, 2)
    families = (drn.resnet(kind, counts), drn.drn_a(kind, counts, output_stride=output_stride))
    maps = []
    for stages in families:
        network = Network(scale_width(stages, 1 / 16), num_classes=3)
        variables = variables_of(network, images)
        maps.append(np.asarray(jax.jit(network.apply)(variables, images)[1]["level5"]))
    strided, dilated = maps
    step = 32 // output_stride
    assert strided.shape[1:3] == (3, 2)
    assert dilated.shape[1:3] == (-(-65 // output_stride), -(-50 // output_stride))
    error = np.abs(dilated[:, ::step, ::step] - strided).max()
    assert error <= 1e-6 * np.abs(strided).max()


def test_drn_a_of_output_stride_32_is_the_resnet():
    for name, same in (("drn_a_18", "resnet_18"), ("drn_a_50", "resnet_50")):
        assert table(name, output_stride=32) == table(same)


def test_first_dilations_of_drn_a_are_those_of_the_papers_figure_or_of_the_published_code():
    paper, code = table("drn_a_18"), table("drn_a_18", variant="published_code")
    assert [(s.dilation, s.first_dilation) for s in paper[-2:]] == [(2, (1, 2)), (4, (2, 4))]
    assert [(s.dilation, s.first_dilation) for s in code[-2:]] == [(2, (1, 1)), (4, (1, 1))]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"output_stride": 12}, "output_stride 12 is none of"),
        ({"variant": "papr"}, "no variant 'papr'"),
        ({"outputstride": 8}, "did you mean output_stride"),
    ],
)
def test_an_option_that_drn_a_has_not_is_refused(option, message):
    with pytest.raises(UserError, match=message):
        table("drn_a_18", **option)


def test_width_scales_channels_and_nothing_else():
    narrow = scale_width(table("drn_c_58"), 0.3)
    assert [s.channels for s in narrow] == [5, 5, 10, 19, 38, 77, 154, 154, 154]
    assert [replace(s, channels=0) for s in narrow] == [
        replace(s, channels=0) for s in table("drn_c_58")
    ]
    assert scale_width(table("drn_c_58"), 1.0) == table("drn_c_58")


def test_width_leaves_at_least_one_channel():
    assert {s.channels for s in scale_width(table("drn_d_22"), 1e-6)} == {1}


def test_output_stride_counts_every_row_with_its_pools():
    strides = {name: output_stride(table(name)) for name in MODELS}
    assert {stride for name, stride in strides.items() if name.startswith("resnet")} == {32}
    assert {stride for name, stride in strides.items() if name.startswith("drn")} == {8}
    assert output_stride(()) == 1


# Geometry


def windows(size, kernel, stride, dilation, padding):
    """Starts, on the map, of the windows that lie within its padded size."""
    reach = dilation * (kernel - 1)
    starts = range(-padding, size + padding, stride)
    return [start for start in starts if start + reach < size + padding]


CONVOLUTIONS = [
    (1, 1, 1, 0),
    (1, 2, 1, 0),
    (2, 2, 1, 0),
    (3, 1, 1, 1),
    (3, 1, 2, 0),
    (3, 2, 1, 1),
    (3, 2, 4, 3),
    (7, 1, 4, 0),
    (7, 3, 1, 3),
]
"""kernel, stride, dilation, padding."""


@pytest.mark.parametrize(("kernel", "stride", "dilation", "padding"), CONVOLUTIONS)
def test_cells_behind_a_convolution_are_its_windows_and_those_of_jax(
    kernel, stride, dilation, padding
):
    conv = Conv("conv1", 1, 1, kernel, stride, dilation, pad=padding)

    def run(x, weights):
        return dilated_conv(x, weights, stride=stride, dilation=dilation, padding=padding)

    for size in range(1, 40):
        expected = len(windows(size, kernel, stride, dilation, padding))
        assert strided(size, conv) == expected
        if expected:
            x = jax.ShapeDtypeStruct((1, size, size, 1), jnp.float32)
            weights = jax.ShapeDtypeStruct((kernel, kernel, 1, 1), jnp.float32)
            assert jax.eval_shape(run, x, weights).shape[1:3] == (expected, expected)


POOLINGS = [(2, 2, 0), (3, 2, 0), (3, 2, 1), (3, 3, 0), (4, 3, 0), (2, 1, 0), (5, 3, 1)]
"""kernel, stride, padding."""


@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize(("kernel", "stride", "padding"), POOLINGS)
def test_cells_behind_a_pooling_are_its_windows_and_those_of_jax(kernel, stride, padding, ceil):
    """Caffe's ceil((size + 2 padding - kernel) / stride) + 1 with `ceil`."""
    row = Stage("pool", "max_pool", 1, stride=stride, kernel=kernel, padding=padding, ceil=ceil)
    assert pool_padding(row) == padding

    def run(x):
        return max_pool(x, kernel, stride, padding, ceil=ceil)

    for size in range(1, 30):
        expected = len(windows(size, kernel, stride, 1, padding))
        if ceil:
            expected = max(0, -(-(size + 2 * padding - kernel) // stride) + 1)
        assert strided(size, row) == row_cells(row, size) == expected
        x = jax.ShapeDtypeStruct((1, size, size, 1), jnp.float32)
        assert jax.eval_shape(run, x).shape[1:3] == (expected, expected)


def test_pooling_row_pads_by_half_its_kernel_unless_told():
    row = Stage("pool", "max_pool", 1, stride=2)
    assert [pool_padding(replace(row, kernel=k)) for k in (1, 2, 3, 5)] == [0, 1, 1, 2]
    assert pool_padding(replace(row, padding=0)) == 0


MIXED = (
    Stage("conv1", "plain", 2, padding=0),
    Stage("pool1", "max_pool", 2, stride=2, kernel=2, padding=0, ceil=True),
    Stage("level2", "bottleneck", 1, 2, stride=2, dilation=2),
    Stage("conv3", "plain", 2, dilation=2, padding=1),
    Stage("pool3", "max_pool", 2, stride=2),
    Stage("stem", "conv", 2, 2, kernel=5, stride=2),
)


def test_cells_of_a_table_are_those_of_its_network():
    """At every size down to the least; below it no cell is left, and the network refuses."""
    network = Network(MIXED, num_classes=3)
    least = least_size(MIXED)

    def class_map(size):
        images = jax.ShapeDtypeStruct((1, size, size + 9, 3), jnp.float32)
        (_, features), _ = jax.eval_shape(network.init_with_output, jax.random.key(0), images)
        return features["logits_2d"].shape[1:3]

    assert class_map(least)[0] == 1
    for size in (*range(least, least + 17), 100, 101):
        assert class_map(size) == (cells(MIXED, size), cells(MIXED, size + 9))
    assert [cells(MIXED, size) for size in range(1, least)] == [0] * (least - 1)
    with pytest.raises(UserError, match=f"{least - 1}x{least + 8} are too small"):
        class_map(least - 1)


@pytest.mark.parametrize(
    ("name", "options", "least", "margin"),
    [
        ("drn_d_22", {}, 1, 0),
        ("resnet_50", {}, 1, 0),
        ("vgg_16", {}, 193, 96),
        ("vgg_16_front_end", {}, 373, 186),
        ("vgg_16_front_end", {"padding": "zero"}, 1, 0),
        ("dilation10_cityscapes", {}, 373, 186),
        ("context8_camvid", {}, 1, 0),
    ],
)
def test_least_size_and_surroundings_of_the_published_tables(name, options, least, margin):
    rows = table(name, **options)
    assert (least_size(rows), surroundings(rows)) == (least, margin)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vgg_16_front_end", {}),
        ("vgg_16_front_end", {"padding": "zero"}),
        ("vgg_16", {}),
        ("resnet_18", {}),
        ("drn_c_26", {}),
        ("drn_a_18", {"output_stride": 4}),
    ],
)
def test_surroundings_leave_a_cell_for_every_output_stride_begun_of_the_image(name, options):
    rows = table(name, **options)
    stride, margin = output_stride(rows), surroundings(rows)
    for size in range(1, 150):
        assert cells(rows, size + 2 * margin) == -(-size // stride)


def test_width_scales_the_poolings_of_vgg_with_their_maps():
    narrow = {s.name: s.channels for s in scale_width(table("vgg_16"), 1 / 64)}
    assert narrow["conv1_1"] == narrow["pool1"] == 1
    assert narrow["conv5_3"] == narrow["pool5"] == 8
    assert narrow["fc6"] == narrow["fc7"] == 64

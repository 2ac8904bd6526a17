"""The table means what it says, and it holds the networks of the papers around these."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drn_jax.models import MODELS
from drn_jax.models.resnet import ResidualNetwork
from drn_jax.models.stages import Block, Conv, Stage, blocks, output_stride, scale_width


def resnet(kind, counts):
    """He et al. 2016, with the stride of a bottleneck on its 3x3 convolution."""
    return (
        Stage("stem", "conv", 64, kernel=7, stride=2),
        Stage("pool", "max_pool", 64, stride=2),
        Stage("group2", kind, 64, counts[0]),
        Stage("group3", kind, 128, counts[1], stride=2),
        Stage("group4", kind, 256, counts[2], stride=2),
        Stage("group5", kind, 512, counts[3], stride=2),
    )


def drn_a(kind, counts):
    """The conversion of the DRN paper, Fig. 1: dilation takes the place of the last two strides."""
    *kept, group4, group5 = resnet(kind, counts)
    return (
        *kept,
        replace(group4, stride=1, dilation=2, first_dilation=(1, 2)),
        replace(group5, stride=1, dilation=4, first_dilation=(2, 4)),
    )


def drn_b_26():
    """DRN-C-26 whose levels 7 and 8 are residual (DRN paper, Fig. 5)."""
    *levels, level7, level8 = MODELS["drn_c_26"]
    return (*levels, replace(level7, residual=True), replace(level8, residual=True))


def parameter_count(stages):
    network = ResidualNetwork(stages)
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))


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


@pytest.mark.parametrize(
    ("stages", "count"),
    [
        (resnet("basic", (2, 2, 2, 2)), 11_689_512),
        (drn_a("basic", (2, 2, 2, 2)), 11_689_512),
        (resnet("basic", (3, 4, 6, 3)), 21_797_672),
        (resnet("bottleneck", (3, 4, 6, 3)), 25_557_032),
        (drn_a("bottleneck", (3, 4, 6, 3)), 25_557_032),
        (resnet("bottleneck", (3, 4, 23, 3)), 44_549_160),
        (drn_b_26(), 21_126_584),
    ],
    ids=["resnet_18", "drn_a_18", "resnet_34", "resnet_50", "drn_a_50", "resnet_101", "drn_b_26"],
)
def test_table_holds_the_other_families_with_their_published_parameter_counts(stages, count):
    assert parameter_count(stages) == count


@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
def test_conversion_to_drn_a_keeps_the_function_at_every_fourth_cell(kind, variables_of):
    """Same parameters, four times the resolution: the strided map is a subset of the dilated."""
    images = np.random.default_rng(0).normal(size=(1, 65, 50, 3)).astype(np.float32)
    maps = {}
    for name, family in (("strided", resnet), ("dilated", drn_a)):
        network = ResidualNetwork(scale_width(family(kind, (2, 2, 2, 2)), 1 / 16), num_classes=3)
        variables = variables_of(network, images)
        maps[name] = np.asarray(jax.jit(network.apply)(variables, images)[1]["group5"])
    assert maps["strided"].shape[1:3] == (3, 2)
    assert maps["dilated"].shape[1:3] == (9, 7)
    error = np.abs(maps["dilated"][:, ::4, ::4] - maps["strided"]).max()
    assert error <= 1e-6 * np.abs(maps["strided"]).max()


def test_width_scales_channels_and_nothing_else():
    narrow = scale_width(MODELS["drn_c_58"], 0.3)
    assert [s.channels for s in narrow] == [5, 5, 10, 19, 38, 77, 154, 154, 154]
    assert [replace(s, channels=0) for s in narrow] == [
        replace(s, channels=0) for s in MODELS["drn_c_58"]
    ]
    assert scale_width(MODELS["drn_c_58"], 1.0) == MODELS["drn_c_58"]


def test_width_leaves_at_least_one_channel():
    assert {s.channels for s in scale_width(MODELS["drn_d_22"], 1e-6)} == {1}


def test_output_stride_counts_every_row_with_its_pools():
    assert {output_stride(stages) for stages in MODELS.values()} == {8}
    assert output_stride(resnet("basic", (2, 2, 2, 2))) == 32
    assert output_stride(drn_a("basic", (2, 2, 2, 2))) == 8
    assert output_stride(()) == 1

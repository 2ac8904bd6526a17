"""The table means what it says, and it holds the networks of the papers around these."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from drn_jax.errors import UserError
from drn_jax.models import MODELS, drn, table
from drn_jax.models.resnet import ResidualNetwork
from drn_jax.models.stages import Block, Conv, Stage, blocks, output_stride, scale_width


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
        network = ResidualNetwork(scale_width(stages, 1 / 16), num_classes=3)
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

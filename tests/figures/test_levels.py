"""Levels: what a stage table is in the papers' terms."""

import pytest

from drn_jax import models
from drn_jax.figures import levels
from drn_jax.models import stages

RESIDUAL = [name for name in models.MODELS if name.startswith(("resnet", "drn"))]


@pytest.mark.parametrize("name", RESIDUAL)
def test_a_residual_network_has_a_level_a_row(name):
    table = models.table(name)
    found = levels.of(table, 224)
    assert [level.stage for level in found] == [stage.name for stage in table]
    for depth, (level, stage) in enumerate(zip(found, table, strict=True), 1):
        assert level.channels == stage.outputs
        assert level.blocks == stage.blocks
        assert level.dilation == stage.dilation
        assert level.stride == stage.stride
        assert level.size == stages.cells(table[:depth], 224)
        assert level.total_stride == stages.output_stride(table[:depth])
        assert level.residual == (stage.kind in ("basic", "bottleneck") and stage.residual)


def test_levels_of_as_many_channels_stand_in_one_column():
    columns = {}
    for name in ("resnet_18", "drn_a_18", "drn_b_26", "drn_c_26"):
        for level in levels.of(models.table(name), 224):
            if level.column in (3, 4, 5, 6):
                columns.setdefault(level.column, set()).add(level.channels)
    assert columns == {3: {64}, 4: {128}, 5: {256}, 6: {512}}


@pytest.mark.parametrize("name", RESIDUAL)
def test_no_two_levels_stand_in_one_place(name):
    columns = [level.column for level in levels.of(models.table(name), 224)]
    assert columns == sorted(set(columns))


def test_convolutions_of_vgg_at_one_resolution_and_dilation_are_a_level():
    found = levels.of(models.table("vgg_16_front_end"), 224 + 2 * 186)
    assert [(level.name, level.blocks, level.dilation) for level in found] == [
        ("conv1", 2, 1),
        ("max-pool", 1, 1),
        ("conv2", 2, 1),
        ("max-pool", 1, 1),
        ("conv3", 3, 1),
        ("max-pool", 1, 1),
        ("conv4", 3, 1),
        ("conv5", 3, 2),
        ("fc6", 1, 4),
        ("fc7", 1, 1),
    ]
    assert found[-1].stage == "fc7"
    assert found[-1].size == 28


def test_the_first_dilation_of_a_converted_level_is_that_of_the_level_before():
    found = {level.name: level for level in levels.of(models.table("drn_a_18"), 224)}
    assert (found["level 4"].first_dilation, found["level 4"].dilation) == (1, 2)
    assert (found["level 5"].first_dilation, found["level 5"].dilation) == (2, 4)

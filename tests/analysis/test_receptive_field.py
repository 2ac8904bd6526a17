"""Receptive fields are those computed by hand from the papers' definitions."""

import pytest

from drn_jax import models
from drn_jax.analysis import receptive_field
from drn_jax.models.context import Context


def last(name, **options):
    return receptive_field.of_stages(models.table(name, **options))[-1]


@pytest.mark.parametrize(
    ("name", "size"),
    [("resnet_18", 435), ("resnet_34", 899), ("resnet_50", 427), ("resnet_101", 971)],
)
def test_a_resnet_sees_as_far_as_computed_by_hand(name, size):
    field = last(name)
    assert (field.size, field.stride) == (size, 32)


@pytest.mark.parametrize("output_stride", [32, 16, 8, 4])
@pytest.mark.parametrize("depth", [18, 34, 50])
def test_conversion_to_drn_a_keeps_the_receptive_field(depth, output_stride):
    field = last(f"drn_a_{depth}", output_stride=output_stride)
    assert (field.size, field.stride) == (last(f"resnet_{depth}").size, output_stride)


@pytest.mark.parametrize(("name", "size"), [("drn_a_18", 355), ("drn_a_50", 411)])
def test_the_published_code_shrinks_the_receptive_field(name, size):
    assert last(name, variant="published_code").size == size


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("drn_c_26", (11, 17, 45, 101, 229, 485, 549, 581)),
        ("drn_c_42", (11, 17, 61, 181, 565, 949, 1013, 1045)),
        ("drn_d_22", (9, 11, 39, 95, 223, 479, 511, 527)),
        ("drn_d_105", (9, 11, 31, 87, 823, 1015, 1047, 1063)),
    ],
)
def test_every_level_of_a_drn_sees_as_far_as_computed_by_hand(name, sizes):
    fields = receptive_field.of_stages(models.table(name))
    assert tuple(field.size for field in fields[1:]) == sizes


def test_every_row_of_vgg_16_sees_as_far_as_computed_by_hand():
    fields = {f.name: (f.size, f.stride) for f in receptive_field.of_stages(models.table("vgg_16"))}
    assert [fields[f"pool{level}"] for level in range(1, 6)] == [
        (6, 2),
        (16, 4),
        (44, 8),
        (100, 16),
        (212, 32),
    ]
    assert fields["fc6"] == fields["fc7"] == (404, 32)


@pytest.mark.parametrize("padding", ["none", "zero"])
def test_every_row_of_the_dilated_front_end_sees_as_far_as_computed_by_hand(padding):
    rows = models.table("vgg_16_front_end", padding=padding)
    fields = {f.name: (f.size, f.stride) for f in receptive_field.of_stages(rows)}
    assert [fields[name] for name in ("pool1", "pool2", "pool3", "conv4_3", "conv5_3", "fc6")] == [
        (6, 2),
        (16, 4),
        (44, 8),
        (92, 8),
        (188, 8),
        (380, 8),
    ]
    assert fields["fc7"] == (380, 8)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("vgg_16_front_end", 380),
        ("dilation7_kitti", 652),
        ("dilation8_camvid", 908),
        ("dilation8_pascal_voc", 908),
        ("dilation10_cityscapes", 2444),
    ],
)
def test_a_published_dilated_net_sees_as_far_as_computed_by_hand(name, size):
    field = receptive_field.of_stages(models.create(name).table)[-1]
    assert (field.size, field.stride) == (size, 8)


@pytest.mark.parametrize("padding", ["layer", "once", "mirror", "none"])
@pytest.mark.parametrize("size", ["basic", "large"])
def test_a_context_module_of_any_size_and_padding_sees_as_far_as_table_1(size, padding):
    module = models.create("context", context=Context(8, size, padding))
    fields = receptive_field.of_stages(module.table)
    assert [(f.size, f.stride) for f in fields] == [(s, 1) for s in (3, 5, 9, 17, 33, 65, 67, 67)]


def test_a_context_module_widens_the_field_of_a_drn_by_66_of_its_cells():
    model = models.create("drn_c_26", context=Context())
    fields = {f.name: f for f in receptive_field.of_stages(model.table)}
    assert fields["head"].size == 581
    assert fields["ctx_final"].size == 581 + 8 * 66

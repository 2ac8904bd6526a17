"""Receptive fields are those computed by hand from the papers' definitions."""

import pytest

from drn_jax import models
from drn_jax.analysis import receptive_field


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

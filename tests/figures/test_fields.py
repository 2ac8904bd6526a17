"""Figures of receptive fields show what `receptive_field` computes."""

import numpy as np

from drn_jax.analysis import receptive_field
from drn_jax.figures import fields


def test_coverage_shows_fields_of_3_7_15_and_the_holes_of_equal_dilations(looked):
    bars, _ = looked
    figure = fields.coverage().figure
    panels = [axes for axes in figure.axes if axes.images]
    sides = [len(np.asarray(axes.images[0].get_array())) for axes in panels]
    assert sides == [3, 7, 15, 5, 9, 13]
    holes = [np.ma.count_masked(axes.images[0].get_array()) for axes in panels]
    assert holes == [0, 0, 0, 25 - 9, 81 - 25, 169 - 49]
    assert [len(axes.patches) for axes in panels] == holes
    assert len(bars(figure)) == 2
    for line in (panels[:3], panels[3:]):
        assert len({axes.images[0].norm.vmax for axes in line}) == 1
        assert line[0].images[0].norm.vmax == line[-1].images[0].get_array().max()


def test_growth_ends_at_the_receptive_field_of_every_network():
    names = ["resnet_18", "drn_a_18", "drn_c_26", "drn_d_22"]
    for name in names:
        assert fields.sizes(name)[-1] == receptive_field.of(name)[-1].size
        assert list(fields.sizes(name)) == sorted(fields.sizes(name))
    assert len(fields.sizes("resnet_18")) == 1 + 1 + 16 + 1  # stem, pool, blocks, head


def test_networks_of_equal_fields_share_a_line():
    networks, context, *_ = fields.growth(["resnet_18", "drn_a_18", "drn_c_26"]).figure.axes
    lines = {line.get_label(): line for line in networks.lines if len(line.get_xdata()) > 2}
    assert set(lines) == {"ResNet-18, DRN-A-18", "DRN-C-26"}
    assert lines["DRN-C-26"].get_ydata()[-1] == 581
    assert [*context.lines[0].get_ydata()] == [3, 5, 9, 17, 33, 65, 67, 67]
    assert "pixels" in networks.get_ylabel()
    assert "cells" in context.get_ylabel()

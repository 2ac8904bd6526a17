"""Prices: the points are the published errors at computed costs, the names are legible."""

from itertools import combinations

import pytest
from matplotlib.text import Annotation

from drn_jax.analysis import cost
from drn_jax.evaluation import published
from drn_jax.figures import charts, prices
from drn_jax.figures.prices import Point


def test_points_are_published_errors_at_computed_costs():
    points = {point.name: point for point in prices.of_published()}
    of_one_crop = [row for row in published.ALL if row.crops == 1 and row.metric == "top1"]
    assert len(points) == len(of_one_crop) == 16
    for row in of_one_crop:
        total = cost.total(cost.of(row.model, 224, 224))
        point = points[charts.title(row.model)]
        assert point.error == pytest.approx(100 * (1 - row.value))
        assert point.parameters == total.parameters / 1e6
        assert point.multiply_adds == total.multiply_adds / 1e9
    assert points["DRN-C-26"].error == 24.86
    assert points["DRN-D-105"].error == 20.6
    assert points["DRN-C-26"].parameters == pytest.approx(21.126584)


def test_lines_join_a_family_in_the_order_of_cost():
    axes = prices.draw().figure.axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    assert set(lines) == {"ResNet", "DRN-A", "DRN-B", "DRN-C", "DRN-D"}
    assert [*lines["DRN-C"].get_ydata()] == [24.86, 22.94, 21.7]
    for line in lines.values():
        assert sorted(line.get_xdata()) == [*line.get_xdata()]


def names_of(axes):
    return [text for text in axes.texts if isinstance(text, Annotation)]


def check_names(figure):
    """No name meets another name, a point, a legend or the edge."""
    figure.draw_without_rendering()
    for axes in figure.axes:
        boxes = [text.get_window_extent() for text in names_of(axes)]
        for one, other in combinations(boxes, 2):
            assert not one.overlaps(other)
        legend = axes.get_legend()
        for box in boxes:
            assert legend is None or not box.overlaps(legend.get_window_extent())
            for line in axes.lines:
                for place in axes.transData.transform(line.get_xydata()):
                    assert not box.contains(*place)
            assert figure.bbox.x0 <= box.x0
            assert box.x1 <= figure.bbox.x1


def test_no_name_meets_another_or_a_point():
    figure = prices.draw().figure
    assert [len(names_of(axes)) for axes in figure.axes] == [16, 16]
    check_names(figure)


def test_our_own_runs_have_axes_of_their_own_by_data_set():
    points = [Point("ResNet-18", 0.7, 0.01, 65.0), Point("DRN-A-18", 0.7, 0.05, 62.0)]
    figure = prices.draw_here({"digits": points, "tiny": points[:1]}).figure
    assert [axes.get_title("left") for axes in figure.axes] == ["digits", "", "tiny", ""]
    check_names(figure)
    for axes in figure.axes:
        assert len(axes.get_xticks()) >= 2

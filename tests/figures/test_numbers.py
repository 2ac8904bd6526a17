"""Gridding, effective fields and segmentations are drawn as they are given."""

import numpy as np
from matplotlib.patches import Rectangle

from drn_jax.analysis.effective_field import EffectiveField
from drn_jax.analysis.gridding import Level
from drn_jax.figures import charts, effective, gridding, segmentations
from drn_jax.figures.runs import Scene


def test_an_impulse_becomes_nine_cells_as_far_apart_as_the_dilation(looked):
    bars, _ = looked
    figure = gridding.impulse_response().figure
    maps = [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]
    assert len(bars(figure)) == 1
    middle = gridding.SIZE // 2
    for dilation, found in zip(gridding.DILATIONS, maps[1:], strict=True):
        expected = np.zeros_like(found)
        steps = [middle - dilation, middle, middle + dilation]
        expected[np.ix_(steps, steps)] = 1
        np.testing.assert_array_equal(found, expected)


def test_scores_stand_over_the_papers_levels_with_their_deviation():
    found = {
        "DRN-A-18": [Level("level4", 2, 2, 0.1, 0.02, 5), Level("level5", 4, 2, 0.4, 0.1, 5)],
        "DRN-C-26": [
            Level("level5", 2, 2, 0.2, float("nan"), 5),
            Level("level6", 4, 4, 0.3, 0.05, 5),
        ],
    }
    columns = {"DRN-A-18": {"level4": 5, "level5": 6}, "DRN-C-26": {"level5": 5, "level6": 6}}
    of_two, of_four = gridding.draw(found, columns).figure.axes
    assert "period 2" in of_two.get_title("left")
    assert "period 4" in of_four.get_title("left")
    of_a = of_two.containers[0]
    assert of_a.get_label() == "DRN-A-18"
    np.testing.assert_allclose([float(y) for y in of_a.lines[0].get_ydata()], [0.1, 0.4])
    assert [round(float(x)) for x in of_a.lines[0].get_xdata()] == [5, 6]
    spans = [[float(y) for _, y in span] for span in of_a.lines[2][0].get_segments()]
    np.testing.assert_allclose(spans, [[0.08, 0.12], [0.3, 0.5]])
    assert [float(y) for y in of_four.containers[1].lines[0].get_ydata()] == [0.3]


def test_fields_are_drawn_around_the_middle_of_the_theoretical_square(looked):
    bars, _ = looked
    share = np.zeros((64, 96))
    share[20, 50] = 0.75
    share[21, 50] = 0.25
    field = EffectiveField("level8", share, 3.0, 41.0, 435, (20.0, 50.0), 2)
    figure = effective.draw({"ResNet-18": field, "DRN-C-26": field}).figure
    assert len(bars(figure)) == 1
    panels = [axes for axes in figure.axes if axes.images]
    assert len(panels) == 2
    left, right, bottom, top = panels[0].images[0].get_extent()
    assert (left, right, bottom, top) == (-50.5, 45.5, 43.5, -20.5)
    squares = [p for p in panels[0].patches if isinstance(p, Rectangle)]
    assert [(p.get_x(), p.get_width()) for p in squares] == [(-217.5, 435), (-20.5, 41.0)]
    low, high = panels[0].get_xlim()
    assert low < -217.5
    assert high > 217.5


def test_masks_stand_beside_the_truth_with_the_classes_seen():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (8, 12, 3), np.uint8)
    truth = np.zeros((8, 12), np.uint8)
    truth[:, 6:] = 2
    truth[0] = 255
    answer = np.zeros((8, 12), np.uint8)
    colors = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    scenes = [Scene("image 3", image, truth)]
    figure = segmentations.draw(
        scenes, {"DRN-D-22": [answer]}, ("road", "sky", "car"), colors
    ).figure
    shown = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    np.testing.assert_array_equal(shown[0], image)
    np.testing.assert_array_equal(shown[1], np.broadcast_to(colors[0], image.shape))
    np.testing.assert_array_equal(shown[2][1:, 6:], np.broadcast_to(colors[2], (7, 6, 3)))
    assert figure.axes[1].get_title() == "50.0% right"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["road", "car", "not labelled"]


def test_of_rows_that_make_one_level_the_last_is_drawn():
    found = {"VGG-16": [Level(f"conv5_{i}", 2, 2, i / 10, 0.1, 5) for i in (1, 2, 3)]}
    figure = gridding.draw(found, {"VGG-16": {"conv5_3": 4}}).figure
    [axes] = figure.axes
    assert [float(y) for y in axes.containers[0].lines[0].get_ydata()] == [0.3]


def test_a_single_image_has_no_deviation_to_draw():
    found = {"DRN-C-26": [Level("level5", 2, 2, 0.1, float("nan"), 1)]}
    chart = gridding.draw(found, {"DRN-C-26": {"level5": 5}})
    assert not chart.figure.axes[0].containers[0].has_yerr
    assert "deviation" not in chart.caption


def test_lines_beyond_the_colours_differ_in_style():
    looks = charts.looks(15)
    assert len(set(looks)) == 15
    assert {style for _, style in looks[:6]} == {"-"}

"""Charts of networks say what the stage tables say."""

import pytest
from matplotlib.patches import FancyBboxPatch

from drn_jax import models
from drn_jax.errors import UserError
from drn_jax.figures import architecture, charts


@pytest.mark.parametrize("name", ["resnet_18", "drn_a_50", "drn_c_26", "vgg_16", "context"])
def test_every_level_has_a_box_with_its_lines(name, looked):
    _, texts = looked
    figure = architecture.draw([name]).figure
    boxes = [p for p in figure.axes[0].patches if isinstance(p, FancyBboxPatch)]
    found = architecture.of(name)
    assert len(boxes) == len(found)
    written = "\n".join(texts(figure))
    for level in found:
        for line in architecture.lines(level):
            assert line in written
        assert f"{level.size} x {level.size}\nstride {level.total_stride}" in written


def test_lines_tell_blocks_channels_and_dilations():
    levels = {level.name: level for level in architecture.of("drn_c_26")}
    assert architecture.lines(levels["level 6"]) == ["2 blocks, 3x3", "512 channels", "dilation 4"]
    assert architecture.lines(levels["level 7"]) == ["2 convs 3x3", "512 channels", "dilation 2"]
    assert architecture.lines(levels["stem"]) == ["1 conv 7x7", "16 channels", "dilation 1"]
    converted = {level.name: level for level in architecture.of("drn_a_50")}
    assert architecture.lines(converted["level 5"]) == [
        "3 bottlenecks",
        "2,048 channels",
        "dilation 4 (first 2)",
    ]


@pytest.mark.parametrize("name", ["drn_a_18", "drn_d_105", "vgg_16_front_end", "dilation8_camvid"])
def test_no_line_is_wider_than_its_box(name):
    figure = architecture.draw([name]).figure
    figure.draw_without_rendering()
    axes = figure.axes[0]
    boxes = [p.get_window_extent() for p in axes.patches if isinstance(p, FancyBboxPatch)]
    inside = 0
    for text in axes.texts:
        place = text.get_window_extent()
        middle = (place.x0 + place.x1) / 2, (place.y0 + place.y1) / 2
        for box in boxes:
            if box.contains(*middle):
                assert box.x0 <= place.x0
                assert place.x1 <= box.x1
                inside += 1
    assert inside >= len(boxes)


def test_a_network_for_images_is_drawn_for_224_pixels_and_its_margin():
    assert architecture.of("resnet_18")[-1].size == 7
    assert architecture.of("drn_d_22")[-1].size == 28
    assert architecture.of("vgg_16_front_end")[-1].size == 28
    assert architecture.of("context")[-1].size == architecture.MAP


def test_an_unknown_network_is_an_error_with_the_nearest():
    with pytest.raises(UserError, match="drn_c_26"):
        architecture.draw(["drn_c_27"])


def test_all_networks_can_be_drawn():
    figure = architecture.draw(list(models.MODELS)).figure
    drawn = {text.get_text() for text in figure.axes[0].texts}
    names = {charts.title(name).replace(" ", "\n") for name in models.MODELS}
    assert names <= drawn

import math
import re
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

from drn_jax.report import curves

SVG = "{http://www.w3.org/2000/svg}"


def run(steps: int = 200) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = [
        {
            "step": step,
            "epoch": step / 50,
            "train_loss": 2 + 100 / step,
            "learning_rate": 0.1 * (1 - step / steps),
            "images_per_s": 900.0,
        }
        for step in range(1, steps + 1)
    ]
    for step in range(50, steps + 1, 50):
        scores = {"val_loss": 2.5, "val_top1": step / 400, "val_localization_top5": 0.7}
        rows.append({"step": step, "epoch": step / 50, **scores})
    return rows


PANELS = curves.panels(run())


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def plotted(svg: str) -> list[int]:
    """How many points each curve has: those of the paths without a marker's or a tick's form."""
    lines = [
        element.attrib["d"]
        for element in ElementTree.fromstring(svg).iter(f"{SVG}path")
        if "stroke-width: 1.6" in element.attrib.get("style", "")
    ]
    return [len(re.findall("[ML]", line)) for line in lines]


def test_loss_shows_training_and_validation_on_the_same_axes_in_nats():
    words = texts(PANELS["loss"])
    assert {"Loss", "training", "validation", "cross-entropy (nats)"} <= set(words)
    assert any("step" in word and "4 epochs" in word for word in words)


def test_scores_are_named_for_people_and_in_percent():
    words = texts(PANELS["scores"])
    assert {"top-1", "localization top-5", "score (%)"} <= set(words)
    assert "70" in words or "60" in words
    assert curves._name("val_miou") == "mean IoU"
    assert curves._name("val_pixel_accuracy") == "pixel accuracy"


def test_there_is_a_panel_for_what_the_rows_have_and_none_for_what_they_have_not():
    assert list(PANELS) == ["loss", "scores", "learning_rate"]
    assert list(curves.panels([{"step": 1, "train_loss": 2.0}])) == ["loss"]
    assert list(curves.panels([{"step": 1, "val_miou": 0.5}])) == ["scores"]
    assert curves.svg([]) == ""
    assert all(svg.startswith("<svg ") and svg.endswith("</svg>") for svg in PANELS.values())


def test_the_time_of_a_step_is_drawn_in_two_parts_where_steps_were_timed():
    timed = [
        {**row, "step_s": 0.5, "compute_s": 0.375, "input_s": 0.125} if "train_loss" in row else row
        for row in run()
    ]
    panels = curves.panels(timed)
    assert list(panels) == [*PANELS, "time"]
    assert {key: panels[key] for key in PANELS} == PANELS
    words = texts(panels["time"])
    assert {"Time of a step", "seconds", "computing", "waiting for input"} <= set(words)
    assert "computing 0.375, waiting for input 0.125" in panels["time"]


def test_two_drawings_are_byte_identical():
    assert curves.svg(run()) == curves.svg(run()) == "\n".join(PANELS.values())


def test_the_matplotlib_settings_of_the_user_neither_matter_nor_change():
    import matplotlib

    with matplotlib.rc_context({"lines.linewidth": 9, "font.size": 30, "axes.facecolor": "red"}):
        assert curves.panels(run()) == PANELS
        assert matplotlib.rcParams["font.size"] == 30


def test_the_ids_of_the_panels_differ_so_that_they_can_share_a_page():
    ids = re.findall(r'\bid="([^"]*)"', "".join(PANELS.values()))
    assert len(set(ids)) == len(ids)


def test_every_reference_within_a_panel_is_to_an_id_of_that_panel():
    for svg in PANELS.values():
        used = re.findall(r'(?:href="#|url\(#)([^")]*)', svg)
        assert used
        assert set(used) <= set(re.findall(r'\bid="([^"]*)"', svg))


def test_ink_takes_the_colour_of_the_page_and_nothing_is_black_or_dated():
    for svg in PANELS.values():
        assert "currentColor" in svg
        assert "#000000" not in svg
        assert "<metadata" not in svg
        assert "<style" not in svg
        assert 'role="img"' in svg


def test_the_label_tells_the_last_values():
    assert "training 2.5, validation 2.5" in PANELS["loss"]


def test_a_long_curve_is_thinned_to_means_and_keeps_its_level():
    rows = [{"step": step, "train_loss": 1.0 + (step % 2)} for step in range(50_000)]
    curve = curves._curve(rows, "train_loss", "training")
    assert len(curve.steps) == curves.POINTS
    np.testing.assert_allclose(curve.values, 1.5, atol=0.01)
    assert len(curves.svg(rows)) < 60_000


def test_rows_may_come_in_any_order():
    rows = run()
    values = curves._curve(rows[::-1], "train_loss", "training").values
    assert list(values) == [row["train_loss"] for row in rows if "train_loss" in row]


def test_after_a_restart_the_later_row_of_a_step_counts():
    rows = [{"step": 1, "val_loss": 9.0}, {"step": 2, "val_loss": 8.0}, {"step": 1, "val_loss": 3}]
    assert list(curves._curve(rows, "val_loss", "validation").values) == [3, 8]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_left_out(bad):
    rows = [*run(), {"step": 201, "train_loss": bad, "val_loss": bad, "val_top1": bad}]
    assert curves.panels(rows) == PANELS
    assert curves.svg([{"step": 1, "val_top1": bad}]) == ""


def test_a_single_validation_is_seen_as_a_point():
    svg = curves.panels([{"step": 10, "epoch": 1, "val_top1": 0.5}])["scores"]
    assert plotted(svg)[0] == 1
    dots = [line for line in svg.splitlines() if "<use " in line and curves._COLORS[0] in line]
    assert len(dots) == 2  # one of them in the legend


def test_importing_the_report_imports_no_matplotlib_and_drawing_no_pyplot():
    program = (
        "import sys, drn_jax.report, drn_jax.report.curves as c, drn_jax.report.pictures\n"
        "assert 'matplotlib' not in sys.modules\n"
        "c.svg([{'step': 1, 'train_loss': 2.0}])\n"
        "assert 'matplotlib.figure' in sys.modules\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "assert 'jax' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


def test_lines_are_drawn_by_name_and_what_is_no_number_is_left_out():
    given = {"a": ([0, 0.5, 1], [3, math.nan, 5]), "b": ([-math.inf, 0.5], [1, 2])}
    found = curves.lines("errors", "Error", "threshold", "error (%)", given)
    assert found.startswith("<svg ")
    assert "Error, error (%), at threshold 1: a 5, b 2" in found
    for label in ("threshold", "error (%)", ">a<", ">b<"):
        assert label in found
    assert "nan" not in found.lower().replace("drn", "")

"""`python -m drn_jax.figures`: a page with every figure, and a file for each."""

import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from PIL import Image

from drn_jax.figures import __main__ as main
from drn_jax.figures import activations, answers, architecture, charts, program, runs
from drn_jax.figures.runs import Picture

TABLES = ["architecture", "coverage", "receptive_fields", "impulse_response", "prices"]
MAPS = ["class_maps", "levels", "stems", "gridding", "effective_fields"]
SIZE = 128
"""Pixels of an image whose maps are just large enough to tell a grid."""


@pytest.fixture
def figures(command):
    """`figures(*args)`: exit status and output of the command."""
    return partial(command, main)


@pytest.fixture
def fails(figures, tmp_path):
    """`fails(*args)`: the one line that the command ends in; nothing is written."""

    def fails(*args):
        printed = figures("--out", tmp_path / "out", *args)
        assert printed.status == 1
        assert not (tmp_path / "out").exists()
        (line,) = printed.err.splitlines()
        assert line.startswith("error: ")
        return line

    return fails


def test_without_runs_there_is_what_the_tables_give_and_the_same_again(figures, tmp_path):
    tmp_path = tmp_path / "out"
    printed = figures("--out", tmp_path)
    assert printed.status == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [*(f"{name}.svg" for name in TABLES), "index.html"]
    )
    assert [line.rpartition("/")[2] for line in printed.out.split()] == [
        *(f"{name}.svg" for name in TABLES),
        "index.html",
    ]
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    figures("--out", tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.long
def test_with_runs_the_page_has_every_figure(figures, tmp_path, classifiers, segmenter):
    asked = ("--classifiers", *classifiers, "--segmenters", segmenter, "--count", 2)
    names = [*TABLES, *MAPS, "segmentations"]
    printed = figures("--out", tmp_path, *asked, "--size", SIZE)
    assert printed.status == 0, printed.err
    assert printed.err == ""
    assert {f"{name}.svg" for name in names} < {path.name for path in tmp_path.iterdir()}
    page = (tmp_path / "index.html").read_text()
    found = re.findall(r'<section aria-labelledby="(\w+)">', page)
    assert found == [*names, "facts"]
    assert page.count("<svg ") == len(names)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert [name for name, times in Counter(ids).items() if times > 1] == []
    assert "Content-Security-Policy" in page
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    for run in (*classifiers, segmenter):
        assert run in page


@pytest.mark.parametrize(
    ("kind", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")]
)
def test_a_file_is_the_same_for_the_same_figure(kind, start):
    contents = [charts.encode(architecture.draw(["drn_d_22"]), kind) for _ in range(2)]
    assert contents[0].startswith(start)
    assert contents[0] == contents[1]


@pytest.fixture(scope="module")
def seen(classifiers):
    """The runs, two pictures, and what the runs make of them."""
    rng = np.random.default_rng(0)
    pictures = [
        Picture(name, rng.integers(0, 256, (64, 64, 3), np.uint8)) for name in ("a.png", "b.png")
    ]
    found = runs.classifiers(classifiers, "best", "")
    return found, pictures, {run.name: answers.of(run, pictures) for run in found}


def test_an_answer_is_the_networks_own(seen):
    found, pictures, given = seen
    run = found[0]
    inputs = run.trained.preprocess(pictures[1].image[None])
    outputs: Any = run.trained.model.apply(run.trained.variables, inputs)
    logits, features = outputs
    p = np.exp(logits[0]) / np.exp(logits[0]).sum()
    answer = given[run.name][1]
    assert answer.label == run.trained.classes[p.argmax()]
    assert answer.probability == pytest.approx(p.max(), rel=1e-4)
    dense = np.exp(np.asarray(features["logits_2d"][0], np.float64))
    dense /= dense.sum(-1, keepdims=True)
    np.testing.assert_allclose(answer.class_map, dense[..., p.argmax()], rtol=1e-3, atol=1e-6)
    level = np.asarray(features["level3"][0])
    best = level.mean((0, 1)).argmax()
    assert answer.strongest["level3"].channel == best
    np.testing.assert_allclose(answer.strongest["level3"].map, level[..., best], atol=1e-5)


def test_every_row_of_maps_has_one_colour_bar_and_one_scale(seen, looked):
    bars, _ = looked
    found, pictures, given = seen
    levels = {run.name: run.levels(64) for run in found}
    last = found[-1].name
    for chart, columns in (
        (activations.class_maps(pictures, given), 3),
        (activations.levels(pictures, last, levels[last], given[last]), 2 + len(levels[last])),
        (activations.stems(pictures, levels, given), 3),
    ):
        assert len(bars(chart.figure)) == len(pictures)
        panels = [axes for axes in chart.figure.axes if axes.images]
        assert len(panels) == columns * len(pictures)
        for bar in bars(chart.figure):
            assert bar.get_ylabel()
        for axes in panels:
            image = axes.images[0]
            if image.get_array().ndim == 2:
                assert (image.norm.vmin, image.norm.vmax) == (0, 1)


def test_a_class_map_is_drawn_cell_by_cell_under_class_and_probability(seen):
    _, pictures, given = seen
    figure = activations.class_maps(pictures, given).figure
    name, answer = "DRN-D-22", given["DRN-D-22"][1]
    panel = [axes for axes in figure.axes if axes.images][5]
    np.testing.assert_array_equal(panel.images[0].get_array(), answer.class_map)
    assert panel.images[0].get_interpolation() == "none"
    assert panel.get_title() == f"{answer.label}\n{answer.probability:.0%}"
    assert name in [text.get_text() for axes in figure.axes for text in axes.texts]


def test_the_stem_is_a_max_pool_or_convolutions(seen):
    found, pictures, given = seen
    levels = {run.name: run.levels(64) for run in found}
    figure = activations.stems(pictures, levels, given).figure
    panels = [axes for axes in figure.axes if axes.images][:3]
    assert [axes.get_title() for axes in panels[1:]] == ["max-pool", "level 2"]
    of_pool = given["DRN-A-18"][0].strongest["pool"].map
    np.testing.assert_allclose(panels[1].images[0].get_array(), of_pool / of_pool.max())


def test_scores_in_checkpoints_become_prices(classifiers):
    found = runs.classifiers(classifiers, "best", "")
    assert program.points_of(found) == {}
    points = program.points_of(
        [replace(run, trained=replace(run.trained, scores={"top1": 0.25})) for run in found]
    )
    assert list(points) == ["imagenet, 32 x 32"]
    assert [(point.name, point.error) for point in points["imagenet, 32 x 32"]] == [
        ("DRN-A-18", 75),
        ("DRN-D-22", 75),
    ]


def test_runs_of_one_network_are_told_apart(classifiers):
    names = [run.name for run in runs.classifiers([classifiers[0]] * 2, "best", "")]
    assert names == ["DRN-A-18, drn_a_18", "DRN-A-18, drn_a_18 (2)"]


def test_named_images_are_evenly_spread_and_cut_to_squares(tmp_path, classifiers):
    for i in range(9):
        image = np.full((20, 40, 3), i * 20, np.uint8)
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    (run, _) = runs.classifiers(classifiers, "best", "")
    found = runs.pictures([str(tmp_path)], run, 3, 32, str(tmp_path / "out"), "")
    assert [picture.name for picture in found] == ["1.png", "4.png", "7.png"]
    assert all(picture.image.shape == (32, 32, 3) for picture in found)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--networks", "drn_c_27"), "or drn_c_26"),
        (("--count", "0"), "--count=0"),
        (("--size", "8"), "--size=8"),
        (("--images", "x.png"), "--images is for --classifiers"),
        (("--classifiers", "nowhere"), "no checkpoints in nowhere"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(fails, arguments, told):
    assert told in fails(*arguments)


def test_a_run_of_the_other_task_is_sent_to_its_option(fails, classifiers, segmenter):
    assert "give it to --segmenters" in fails("--classifiers", segmenter)
    assert "give it to --classifiers" in fails("--segmenters", *classifiers)


def test_images_that_are_not_there_are_named(fails, classifiers):
    assert "nowhere.png" in fails("--classifiers", *classifiers, "--images", "nowhere.png")


def test_a_folder_that_cannot_be_written_is_one_line(figures, tmp_path, monkeypatch):
    """Nothing is computed before."""
    monkeypatch.setattr(program, "of_tables", None)
    (tmp_path / "file").write_text("")
    printed = figures("--out", tmp_path / "file")
    assert printed.status == 1
    assert re.fullmatch(r"error: .*file.* can't be written there .* --out\n", printed.err)


def test_help_waits_for_neither_jax_nor_matplotlib():
    code = (
        "import sys; from drn_jax.figures import __main__; sys.argv[1:] = ['--help']\n"
        "try: __main__.main()\n"
        "except SystemExit: print({'jax', 'matplotlib'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.endswith("set()\n")


def test_networks_are_called_as_in_the_papers():
    assert charts.title("resnet_18") == "ResNet-18"
    assert charts.title("drn_c_26") == "DRN-C-26"
    assert charts.title("vgg_16_front_end") == "VGG-16 front end"
    assert charts.title("vgg_16") == "VGG-16"

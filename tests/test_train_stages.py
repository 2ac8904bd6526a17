"""train.py in stages, as a person runs it: front end, context module on its maps, both together.

Every run is a process of its own, see conftest.py; mistakes are made in this one. That maps are
those of their images: test_experiment.py.
"""

import base64
import dataclasses
import importlib.util
import io
import json
import re
import shutil
import signal
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from absl import flags
from jax.sharding import SingleDeviceSharding
from ml_collections import config_flags
from PIL import Image

from drn_jax import cli, config, experiment
from drn_jax.errors import UserError
from drn_jax.training.checkpoint import Checkpoints
from drn_jax.training.sharding import MeshShape, make_mesh

STAGES = """
from ml_collections import ConfigDict

from drn_jax import staged

VGG = {{
    "name": "vgg_16_front_end",
    "width": 1 / 32,
    "fc_channels": 256,
    "padding": "zero",
    "space": "rgb",
    "head_std": 0.5,
}}
CONTEXT = {{"layers": 5, "size": "basic", "padding": "layer"}}
GRID = {{"alignment": "corner", "interpolate": "probabilities", "loss_at": "cells"}}
IMAGES = {{"name": "list_folder", "dir": {folder!r}, "crop": (24, 32), "grid": GRID}}


def run(task, model, data, rate, **more):
    given = {{
        "name": "tiny",
        "task": task,
        "model": model,
        "data": data,
        "batch_size": 4,
        "log_steps": 1,
        "optimizer": {{"rule": "caffe", "learning_rate": rate}},
        "schedule": {{"kind": "constant"}},
    }}
    return ConfigDict(given | more)


def get_config():
    maps = {{"front_end": "front_end", "dtype": "float32", "grid": GRID}}
    stages = {{
        "front_end": run("segmentation", VGG, IMAGES, 0.01, epochs=1),
        "context": run("context", {{"name": "context", "context": CONTEXT}}, maps, 0.01, steps=4),
        # At rate 0 the parameters stay what they start from.
        "joint": run(
            "segmentation",
            VGG | {{"context": CONTEXT}},
            IMAGES,
            0.0,
            steps=1,
            init_from="front_end",
            init_context_from="context",
        ),
    }}
    return staged.complete("tiny_stages", stages)
"""


@pytest.fixture(scope="session")
def stages(place):
    """The configuration file."""
    path = place / "stages.py"
    path.write_text(STAGES.format(folder=str(place / "streets")))
    return path


@pytest.fixture(scope="session")
def first(place, stages, run):
    """The working directory after `--until=front_end`, and what was printed."""
    workdir = place / "stages"
    output = run("train.py", f"--config={stages}", f"--workdir={workdir}", "--until=front_end")
    assert sorted(path.name for path in workdir.iterdir()) == ["front_end"]
    return workdir, output


@pytest.fixture(scope="session")
def whole(first, stages, run):
    """The working directory after the same command without `--until`, and what was printed."""
    workdir, _ = first
    before = contents(workdir)
    output = run("train.py", f"--config={stages}", f"--workdir={workdir}")
    after = contents(workdir)
    assert {path: after[path] for path in before} == before
    return workdir, output


def contents(folder):
    """Every file and when it was written."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in files}


def of_stage(output, stage):
    """The lines of one stage."""
    start = output.index(f"stage {stage}") + 1
    following = [i for i, line in enumerate(output[start:], start) if line.startswith("stage ")]
    return output[start : following[0] if following else None]


def best_line(lines):
    (line,) = [line for line in lines if line.startswith("best, of step ")]
    return line


def scores_of(line):
    """`val_*` by name."""
    return {name: float(value) for name, value in re.findall(r"(val_\w+) ([\d.]+)", line)}


def variables_of(workdir):
    """The best checkpoint's variables, whatever the network."""
    here = SingleDeviceSharding(jax.devices()[0])
    with Checkpoints(workdir, must_exist=True) as checkpoints:
        return checkpoints.all_variables(checkpoints.choose("best").step, here)


def assert_same_bits(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.mark.long
def test_until_stops_after_the_stage_that_it_names(first):
    workdir, output = first
    assert [line for line in output if line.startswith("stage ")] == ["stage front_end"]
    assert (workdir / "front_end" / "report.html").exists()
    assert not (workdir / "front_end" / "maps").exists()


@pytest.mark.long
def test_the_stages_run_in_order_each_in_its_own_folder(whole):
    workdir, output = whole
    order = ["front_end", "context", "joint"]
    assert [line.split()[1] for line in output if line.startswith("stage ")] == order
    assert sorted(path.name for path in workdir.iterdir()) == sorted(order)
    for stage, steps in (("context", 4), ("joint", 1)):
        lines = of_stage(output, stage)
        trained = [line.split()[1] for line in lines if line.startswith("step ")]
        assert trained == [f"{step}/{steps}" for step in range(1, steps + 1)]
        assert lines[-1].startswith(f"report: {workdir / stage / 'report.html'}; peak memory ")
        assert re.search(r"peak memory \d+\.\d\d GB of the process$", lines[-1])
    (finished,) = of_stage(output, "front_end")
    assert finished.startswith(f"finished before, in {workdir / 'front_end'}: val_loss ")


@pytest.mark.long
def test_a_finished_stage_tells_the_scores_that_it_ended_with(first, whole):
    (finished,) = of_stage(whole[1], "front_end")
    assert scores_of(finished) == scores_of(best_line(first[1]))


@pytest.mark.long
def test_the_maps_are_computed_once_for_stages_and_scores_alike(whole):
    workdir, output = whole
    (told,) = [line for line in output if "computed once into" in line]
    (folder,) = (workdir / "front_end" / "maps").iterdir()
    assert told == f"the front end's maps of streets, computed once into {folder}"
    (size,) = [line for line in output if line.startswith("18 maps in float32, ")]
    assert re.search(r"MB, in \d+ s; peak memory \d+\.\d\d GB of the process$", size)


@pytest.mark.long
def test_the_same_command_after_the_end_trains_and_writes_nothing(whole, stages, run):
    workdir, output = whole
    before = contents(workdir)
    again = run("train.py", f"--config={stages}", f"--workdir={workdir}")
    assert [line.split(",")[0] for line in again] == [
        *("stage front_end", "finished before"),
        *("stage context", "finished before"),
        *("stage joint", "finished before"),
    ]
    for stage in ("context", "joint"):
        (line,) = of_stage(again, stage)
        assert scores_of(line) == scores_of(best_line(of_stage(output, stage)))
    assert contents(workdir) == before


def per_pixel(price):
    """Multiply-adds; of a network whose maps have a cell for every so many pixels."""
    return price["multiply_adds"] / (price["height"] * price["width"])


@pytest.mark.long
def test_eval_scores_every_stage_as_it_was_printed_and_writes_into_its_folder(first, whole, start):
    workdir, output = whole
    before = contents(workdir)
    # One after the other they would take three times as long.
    running = {
        stage: start("eval.py", f"--workdir={workdir / stage}")
        for stage in ("front_end", "context", "joint")
    }
    prices = {}
    for stage, process in running.items():
        out, err = process.communicate()
        assert (process.returncode, err) == (0, "")
        lines = out.splitlines()
        trained = first[1] if stage == "front_end" else of_stage(output, stage)
        best = best_line(trained)
        assert lines[-1] == best[best.index("val_") :], stage
        assert lines[-2].endswith("on the 6 validation images of streets")
        assert not any("maps" in line for line in lines)
        found = json.loads((workdir / stage / "eval/validation/results.json").read_text())
        prices[stage] = found["price"]
    # A score of a module on maps is one of its front end, too; maps are of whole images.
    assert prices["context"]["parameters"] == prices["joint"]["parameters"]
    assert prices["context"]["sees"] == prices["joint"]["sees"] > prices["front_end"]["sees"]
    assert per_pixel(prices["context"]) == per_pixel(prices["joint"])
    assert per_pixel(prices["joint"]) > per_pixel(prices["front_end"])
    after = contents(workdir)
    assert {name: after[name] for name in before} == before
    assert all("/eval/validation/" in str(name) for name in after.keys() - before.keys())
    for stage in running:
        shutil.rmtree(workdir / stage / "eval")


@pytest.mark.long
def test_the_joint_network_is_made_of_both_stages_and_sees_what_they_saw(whole):
    """At rate 0 it is scored with the weights and the numbers of the stages before."""
    workdir, output = whole
    joint = variables_of(workdir / "joint")
    front_end, context = (variables_of(workdir / stage) for stage in ("front_end", "context"))
    assert set(joint) == {"params"}
    assert_same_bits(joint["params"]["front_end"], front_end["params"])
    assert_same_bits(joint["params"]["context"], context["params"])
    lines = of_stage(output, "joint")
    for field in ("front_end", "context"):
        assert any(
            re.fullmatch(rf"weights from step \d+ of {workdir / field}", line) for line in lines
        )
    # Maps that were kept on disk, and maps that were made with the module in one go.
    found, expected = (scores_of(best_line(of_stage(output, s))) for s in ("joint", "context"))
    assert found == pytest.approx(expected, abs=2e-3)


@pytest.mark.long
def test_the_context_module_was_trained(whole):
    workdir, _ = whole
    lines = (workdir / "context" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["step"] for row in rows if "train_loss" in row] == [1, 2, 3, 4]
    assert [row["step"] for row in rows if "val_miou" in row] == [3, 4]
    norms = [row["grad_norm"] for row in rows if "grad_norm" in row]
    assert all(norm > 0 for norm in norms)


def panels_of(page):
    """[(label, picture)] of each panel of a report."""
    found = []
    for figure in re.findall(r"<figure>.*?</figure>", page, re.DOTALL):
        shown = re.findall(r"base64,([\w+/=]+)\"><span>(.*?)</span>", figure)
        found.append(
            [
                (label, np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")))
                for data, label in shown
            ]
        )
    return found


@pytest.mark.long
def test_the_report_of_a_context_module_shows_the_image_and_both_masks(whole, place):
    workdir, _ = whole
    page = (workdir / "context" / "report.html").read_text()
    assert "context module of 5 layers, basic, from identity" in page
    assert f"{workdir / 'front_end'} (fixed front end)" in page
    panels = panels_of(page)
    assert len(panels) == 6
    for index, panel in enumerate(panels):
        assert [label for label, _ in panel] == ["image", "truth", "front end", "with context"]
        image = Image.open(place / "streets" / f"images/val{index}.png").convert("RGB")
        np.testing.assert_array_equal(panel[0][1], np.asarray(image))
        assert {picture.shape for _, picture in panel} == {(32, 32, 3)}
    # The report of the front end shows the same truth, and what the maps still tell.
    before = panels_of((workdir / "front_end" / "report.html").read_text())
    for panel, earlier in zip(panels, before, strict=True):
        assert [label for label, _ in earlier] == ["image", "truth", "prediction"]
        np.testing.assert_array_equal(panel[1][1], earlier[1][1])
        np.testing.assert_array_equal(panel[2][1], earlier[2][1])


@pytest.fixture(scope="session")
def train():
    """The program, as a module."""
    spec = importlib.util.spec_from_file_location("train_program", cli.CONFIGS.parent / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.long
def test_a_stage_is_finished_by_the_settings_that_it_was_trained_with(tmp_path, first, train):
    settings, workdir = of_checkpoint(first[0] / "front_end"), tmp_path / "front_end"
    assert not train.is_finished(settings, workdir)
    shutil.copytree(first[0] / "front_end", workdir, ignore=shutil.ignore_patterns("maps"))
    assert train.is_finished(settings, workdir)
    for change in ({"seed": 1}, {"epochs": 3}, {"epochs": 0, "steps": 3}):
        assert not train.is_finished(dataclasses.replace(settings, **change), workdir)
    (workdir / "report.html").unlink()
    assert not train.is_finished(settings, workdir)


@pytest.mark.long
def test_a_stage_that_was_trained_on_and_stopped_is_not_finished(
    tmp_path, first, stages, start, train
):
    shutil.copytree(first[0] / "front_end", tmp_path / "front_end")
    # Nothing moves, so that every score is the best, and longer than anyone waits.
    changed = ("epochs=1000", "optimizer.learning_rate=0", "optimizer.momentum=0")
    flags = [f"--config.stages.front_end.{change}" for change in changed]
    process = start("train.py", f"--config={stages}", f"--workdir={tmp_path}", *flags)
    while not (line := process.stdout.readline()).startswith("validation at step 9"):
        assert line, process.stderr.read()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert (process.returncode, err) == (130, "")
    assert "and saved; the same command goes on from it" in out
    settings = of_checkpoint(tmp_path / "front_end")
    assert settings.epochs == 1000
    assert not train.is_finished(settings, tmp_path / "front_end")


def of_checkpoint(workdir):
    """The configuration that was saved with the best."""
    with Checkpoints(workdir, must_exist=True) as checkpoints:
        return config.parse(checkpoints.meta(checkpoints.choose("best").step)["config"])


# Mistakes


def test_rows_that_travel_far_or_split_unevenly_are_told(place, train, capsys):
    spec = importlib.util.spec_from_file_location("streets", place / "streets.py")
    streets = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(streets)
    run = experiment.build(config.parse(streets.get_config()))

    def told(rows, *shape):
        train.show(
            dataclasses.replace(run, input_shape=(rows, 32, 3)), make_mesh(MeshShape(*shape))
        )
        return " ".join(capsys.readouterr().out.split("kept")[1].split())

    assert "rows" not in told(256, 1, 1, 8) + told(32, 8, 1, 1)
    far = told(192, 1, 1, 8)
    assert "level6: its convolutions reach 4 rows beyond the 3 that a device holds" in far
    assert "no multiple" not in far
    assert "the 200 rows of the network's input are no multiple of 64, conf" in told(200, 1, 1, 8)


@pytest.fixture
def mistake(train, monkeypatch):
    """`mistake(config, *args)`: the one line that train.py ends with."""

    def mistake(config, *args):
        command = ["train.py", *map(str, args)]
        monkeypatch.setattr(sys, "argv", command)  # Where overrides are read from.
        values = flags.FlagValues()
        config_flags.DEFINE_config_file("config", str(config), flag_values=values)
        flags.DEFINE_string("workdir", "", "", flag_values=values)
        flags.DEFINE_string("until", "", "", flag_values=values)
        monkeypatch.delitem(sys.modules, "config_config", raising=False)
        monkeypatch.setattr(train, "flags", SimpleNamespace(FLAGS=values))
        monkeypatch.setattr(train.runtime, "start", lambda: None)
        values(command)
        with pytest.raises(UserError) as caught:
            train.main()
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return mistake


FRONT_END, CONTEXT = "config.stages.front_end", "config.stages.context"
"""Fields are called as on the command line."""


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("until=frontend", "--until=frontend: no such stage; did you mean front_end "),
        (f"{FRONT_END}.batch_size=13", f"{FRONT_END}.batch_size = 13 exceeds the 12 training"),
        (f"{FRONT_END}.data.crop=(32,7)", f"{FRONT_END}.data.crop = (32, 7): vgg_16_front_end"),
        (f"{FRONT_END}.steps=3", "front_end: config.epochs = 1 and config.steps = 3: one must"),
        ("config.stages.joint.epochs=-1", "config.stages.joint: config.epochs = -1 and config."),
        (f"{FRONT_END}.init_from=DIR/x", f"{FRONT_END}.init_from: no checkpoints in DIR/x"),
        (
            f"{FRONT_END}.init_context_from=context",
            f"{FRONT_END}.init_context_from is for a network with a context module behind",
        ),
        (f"{FRONT_END}.model.name=vgg_16", "vgg_16 has no option 'padding'"),
        (f"{FRONT_END}.model.padding=same", "model.padding = 'same' is unknown"),
        ("config.dir=DIR/x", "DIR/x: no such folder"),
    ],
)
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_a_mistake_is_one_line_and_nothing_is_written(tmp_path, stages, mistake, flag, says):
    flag = flag.replace("DIR", str(tmp_path))
    batch = "--config.stages.front_end.batch_size=8"  # For eight devices.
    line = mistake(stages, f"--workdir={tmp_path / 'run'}", batch, f"--{flag}")
    assert says.replace("DIR", str(tmp_path)) in line
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_until_without_stages_is_one_line(tmp_path, place, mistake):
    line = mistake(f"{place}/streets.py", f"--workdir={tmp_path / 'run'}", "--until=front_end")
    assert line == "--until=front_end: this configuration has no stages"
    assert not (tmp_path / "run").exists()


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("batch_size=13", f"{CONTEXT}.batch_size = 13 exceeds the 12 training examples of streets"),
        ("data.front_end=DIR/x", f"{CONTEXT}.data.front_end: no checkpoints in DIR/x"),
        ("data.front_end=DIR", f"{CONTEXT}.data.front_end: no checkpoints in DIR"),
        ("data.front_end=", f"give --{CONTEXT}.data.front_end="),
        ("model.name=drn_d_22", "use the name context"),
        ("model.context.layers=3", "a context module of 3 layers: 4 is the least"),
        (
            "init_context_from=front_end",
            "init_context_from is for a network with a context module behind",
        ),
    ],
)
def test_a_mistake_in_a_later_stage_is_one_line_and_leaves_the_earlier_alone(
    tmp_path, first, stages, mistake, flag, says
):
    workdir = tmp_path / "run"
    ignored = shutil.ignore_patterns("maps")
    shutil.copytree(first[0] / "front_end", workdir / "front_end", ignore=ignored)
    before = contents(workdir)
    flag = f"--{CONTEXT}.{flag.replace('DIR', str(tmp_path))}"
    line = mistake(stages, f"--workdir={workdir}", f"--{CONTEXT}.batch_size=8", flag)
    assert says.replace("DIR", str(tmp_path)) in line
    after = contents(workdir)
    # Where the mistake showed late, maps were made: the next command finds them.
    assert {p: t for p, t in after.items() if not p.startswith("front_end/maps/")} == before
    assert sorted(path.name for path in workdir.iterdir()) == ["front_end"]

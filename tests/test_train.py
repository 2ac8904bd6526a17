"""train.py and eval.py as a person runs them: on small folders, from the command line.

The data sets and `run`: conftest.py. Runs in stages: test_train_stages.py.
"""

import json
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding
from PIL import Image

from drn_jax import models
from drn_jax.training.checkpoint import Checkpoints
from drn_jax.training.sharding import placed

STEPS = 6
"""Of a whole run: two epochs of three."""


@pytest.fixture(scope="session")
def whole(place, run):
    """The working directory and the output of a run that nothing disturbed."""
    workdir = place / "whole"
    return workdir, run("train.py", f"--config={place}/streets.py", f"--workdir={workdir}")


def rows_of(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def saved_steps(workdir):
    with Checkpoints(workdir, must_exist=True) as checkpoints:
        return [c.step for c in checkpoints.saved()]


def values_of(workdir, classes=3, which="latest"):
    """Every array of a checkpoint's variables by its name."""
    network = models.create("drn_d_22", classes, 0.05)
    images = jnp.zeros((1, 32, 32, 3))
    abstract = jax.eval_shape(network.init, jax.random.key(0), images)
    here = SingleDeviceSharding(jax.devices()[0])
    with Checkpoints(workdir, must_exist=True) as checkpoints:
        step = checkpoints.choose(which).step
        tree = checkpoints.restore_variables(step, placed(abstract, here))
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def scores_in(line):
    """The `val_*` part of a line."""
    return line[line.index("val_") :]


@pytest.mark.long
def test_a_run_leaves_metrics_checkpoints_and_a_report(whole):
    workdir, output = whole
    rows = rows_of(workdir)
    trained = [row for row in rows if "train_loss" in row]
    assert [row["step"] for row in trained] == list(range(1, STEPS + 1))
    assert [row["learning_rate"] for row in trained] == sorted(
        (row["learning_rate"] for row in trained), reverse=True
    )
    scored = [row for row in rows if "val_miou" in row]
    assert [row["step"] for row in scored] == [3, 6]
    assert all(0 <= row["val_miou"] <= 1 for row in scored)
    assert all(np.isfinite(value) for row in rows for value in row.values())

    assert saved_steps(workdir)[-1] == STEPS
    best = max(scored, key=lambda row: (row["val_miou"], row["step"]))["step"]
    with Checkpoints(workdir) as checkpoints:
        assert checkpoints.choose("best").step == best
    assert sorted(path.name for path in workdir.iterdir()) == [
        "checkpoints",
        "metrics.jsonl",
        "report.html",
        "tensorboard",
    ]
    page = (workdir / "report.html").read_text()
    assert "drn_d_22 on streets" in page
    assert f"step {best}" in page
    assert "<dt>receptive field</dt><dd>527 x 527 pixels" in page
    assert "<dt>multiply-adds</dt>" in page
    assert output[-1].startswith(f"report: {workdir / 'report.html'}; peak memory ")
    assert f"val_miou {scored[-1]['val_miou']:.4f}" in " ".join(output)


@pytest.mark.long
def test_the_same_command_after_the_end_says_so_and_how_to_start_afresh(whole, place, run):
    workdir, first = whole
    before = (workdir / "metrics.jsonl").read_bytes()
    output = run("train.py", f"--config={place}/streets.py", f"--workdir={workdir}")
    (line,) = [line for line in output if "finished run" in line]
    assert f"{workdir} holds a finished run of {STEPS} steps" in line
    assert "to start afresh delete it or give another --workdir" in line
    assert not any(line.startswith(("step ", "validation ")) for line in output)
    assert output[-2] == first[-2]  # The scores of the best checkpoint.
    assert (workdir / "metrics.jsonl").read_bytes() == before


@pytest.mark.long
def test_eval_prints_the_scores_that_training_printed(whole, run):
    workdir, output = whole
    (best,) = [line for line in output if line.startswith("best, of step ")]
    found = run("eval.py", f"--workdir={workdir}")
    assert found[-1] == scores_in(best)
    step = best.split()[3].rstrip(":")
    assert found[-2] == f"drn_d_22, step {step}, on the 6 validation images of streets"


@pytest.mark.parametrize(("when", "number"), [(1, signal.SIGINT), (3, signal.SIGTERM)])
@pytest.mark.long
def test_a_stopped_run_goes_on_to_the_bits_of_one_that_was_not_stopped(
    tmp_path, whole, place, start, run, when, number
):
    undisturbed, _ = whole
    command = ("train.py", f"--config={place}/streets.py", f"--workdir={tmp_path}")
    process = start(*command)
    while not (line := process.stdout.readline()).startswith(f"step {when}/"):
        assert line, process.stderr.read()
    process.send_signal(number)
    out, err = process.communicate()
    assert process.returncode == 128 + number, out + err
    assert err == ""
    line = out.splitlines()[-1]
    assert "and saved; the same command goes on from it" in line
    step = int(line.split()[3])
    assert line.startswith(f"stopped at step {step} ")
    assert when <= step < STEPS
    assert saved_steps(tmp_path)[-1] == step

    output = run(*command)
    assert f"going on from step {step} in {tmp_path / 'checkpoints'}" in output
    steps = [line.split()[1] for line in output if line.startswith("step ")]
    assert steps == [f"{s}/{STEPS}" for s in range(step + 1, STEPS + 1)]
    assert output[-2] == whole[1][-2]

    found, expected = values_of(tmp_path), values_of(undisturbed)
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].tobytes() == value.tobytes(), name

    def told(workdir):
        """All but what the clock and the machine say."""
        measured = {"images_per_s", "step_s", "input_s", "compute_s", "tflops_per_s", "memory_gb"}
        return [{k: v for k, v in row.items() if k not in measured} for row in rows_of(workdir)]

    assert told(tmp_path) == told(undisturbed)
    assert saved_steps(tmp_path) == saved_steps(undisturbed)


@pytest.mark.long
def test_a_segmenter_starts_from_a_classifiers_weights_but_for_its_head(tmp_path, place, run):
    classifier, segmenter = tmp_path / "classifier", tmp_path / "segmenter"
    output = run(
        "train.py",
        f"--config={place}/photographs.py",
        f"--workdir={classifier}",
        "--config.epochs=1",
    )
    assert any("val_top1" in line for line in output)
    # At rate 0 the parameters stay what they start from.
    output = run(
        "train.py",
        f"--config={place}/streets.py",
        f"--workdir={segmenter}",
        f"--config.init_from={classifier}",
        "--config.optimizer.learning_rate=0",
        "--config.epochs=1",
    )
    told = f"weights from step 3 of {classifier}; the classifier starts fresh, its classes differ"
    assert told in output
    before, after = values_of(classifier, 4, "best"), values_of(segmenter)
    parameters = {name for name in after if name.startswith("['params']")}
    head = {name for name in parameters if "['head']" in name}
    assert len(head) == 2
    for name in parameters - head:
        assert after[name].tobytes() == before[name].tobytes(), name
    assert after["['params']['head']['kernel']"].shape[-1] == 3
    assert before["['params']['head']['kernel']"].shape[-1] == 4


@pytest.mark.long
def test_a_run_that_diverges_names_step_and_rate_and_keeps_the_earlier_checkpoint(
    tmp_path, whole, place, run
):
    workdir = tmp_path / "run"
    shutil.copytree(whole[0], workdir)
    kept, expected = saved_steps(workdir), values_of(workdir)
    line = run(
        "train.py",
        f"--config={place}/streets.py",
        f"--workdir={workdir}",
        "--config.optimizer.learning_rate=1e30",
        "--config.epochs=4",
        status=1,
    )
    assert "became" in line
    step = int(line.split(" at step ")[1].split(",")[0])
    assert STEPS < step <= STEPS + 3
    rate = 1e30 * (1 - (step - 1) / (2 * STEPS)) ** 0.9
    assert f"at learning rate {rate:.4g}: lower config.optimizer.learning_rate" in line
    assert saved_steps(workdir) == kept
    for name, value in values_of(workdir).items():
        assert value.tobytes() == expected[name].tobytes(), name


def shorten_list(folder):
    path = folder / "train_labels.txt"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def remove_image(folder):
    (folder / "images" / "val3.png").unlink()


def shrink_label(folder):
    path = folder / "labels" / "train5.png"
    Image.open(path).resize((16, 32)).save(path)


def raise_label(folder):
    for i in range(12):
        path = folder / "labels" / f"train{i}.png"
        mask = np.array(Image.open(path))
        mask[7, 9] = 77
        Image.fromarray(mask).save(path)


@pytest.mark.parametrize(
    ("damage", "flags", "says"),
    [
        (shutil.rmtree, [], ["FOLDER: no such folder"]),
        (shorten_list, [], ["train_images.txt lists 12 files", "train_labels.txt 11"]),
        (remove_image, [], ["FOLDER/images/val3.png: listed in", "missing"]),
        (shrink_label, [], ["images/train5.png is 32x32 pixels", "labels/train5.png 32x16"]),
        (None, ["--config.batch_size=13"], ["config.batch_size = 13 exceeds the 12 training"]),
        (None, ["--config.data.crop=(32,7)"], ["config.data.crop = (32, 7)", "at least 8 pixels"]),
        (None, ["--config.model.name=drn_d22"], ["unknown model 'drn_d22'", "drn_d_22"]),
        (None, ["--config.data.name=listfolder"], ["config.data.name='listfolder'", "list_folder"]),
        (None, ["--config.data.name=imagenet"], ["data set imagenet has no labels for segm"]),
        (None, ["--config.epochs=0"], ["config.epochs = 0 and config.steps = 0: one must"]),
        (None, ["--config.init_from=FOLDER"], ["no checkpoints in FOLDER"]),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_bad_input_is_one_clear_line_and_leaves_nothing(tmp_path, place, run, damage, flags, says):
    folder, workdir = tmp_path / "streets", tmp_path / "run"
    shutil.copytree(place / "streets", folder)
    if damage:
        damage(folder)
    line = run(
        "train.py",
        f"--config={place}/streets.py",
        f"--config.data.dir={folder}",
        f"--workdir={workdir}",
        *(flag.replace("FOLDER", str(folder)) for flag in flags),
        status=1,
    )
    for part in says:
        assert part.replace("FOLDER", str(folder)) in line
    assert not workdir.exists()


def test_a_mask_value_that_is_no_class_is_named_with_its_file(tmp_path, place, run):
    folder = tmp_path / "streets"
    shutil.copytree(place / "streets", folder)
    raise_label(folder)
    line = run(
        "train.py",
        f"--config={place}/streets.py",
        f"--config.data.dir={folder}",
        f"--workdir={tmp_path / 'run'}",
        status=1,
    )
    assert f"{folder}/labels/train" in line
    assert "value 77 at row 7, column 9 is neither a class (0 to 2) nor 255" in line

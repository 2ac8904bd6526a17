"""eval.py's protocols as a person asks for them: what is printed, and what is written."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from drn_jax import config, models, trained
from drn_jax.training.checkpoint import Checkpoints

ROOT = Path(__file__).parent.parent
WNIDS = ("n01443537", "n01629819")
COMMON = {
    "batch_size": 2,
    "epochs": 1,
    "optimizer": {"learning_rate": 0.1},
    "schedule": {"kind": "poly"},
    "model": {"name": "drn_d_22", "width": 0.05},
}


def write_boxed(root):
    """Tiny-ImageNet of two classes: six training images each, and four for validation."""
    rng = np.random.default_rng(0)

    def save(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)

    for wnid in WNIDS:
        names = [f"{wnid}_{i}.JPEG" for i in range(6)]
        for name in names:
            save(root / "train" / wnid / "images" / name)
        rows = "".join(f"{name}\t10\t20\t50\t60\n" for name in names)
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text(rows)
    lines = []
    for i in range(4):
        save(root / "val" / "images" / f"val_{i}.JPEG")
        lines.append(f"val_{i}.JPEG\t{WNIDS[i % 2]}\t8\t8\t55\t55\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    (root / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in WNIDS))
    (root / "words.txt").write_text("".join(f"{wnid}\tfish {wnid[-1]}\n" for wnid in WNIDS))


def save_run(folder, given, classes, variables_of):
    """A checkpoint of random weights."""
    network = models.create("drn_d_22", len(classes), 0.05)
    variables = jax.tree.map(jnp.asarray, variables_of(network, (1, 64, 64, 3)))
    known = trained.described(classes, None, (0.45,) * 3, (0.27,) * 3)
    with Checkpoints(folder) as checkpoints:
        settings = dataclasses.asdict(config.parse({"name": "tiny", **COMMON, **given}))
        checkpoints.save_weights(variables, {"config": settings, **known})
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory, place, variables_of):
    """`classifier` on boxed images, and `segmenter` on streets."""
    folder = tmp_path_factory.mktemp("protocols")
    write_boxed(folder / "boxed")
    data = {"name": "tiny_imagenet", "dir": str(folder / "boxed"), "crop": 56, "resize": 64}
    data["held_out"] = 4
    given = {"task": "classification", "data": data}
    save_run(folder / "classifier", given, WNIDS, variables_of)
    data = {"name": "list_folder", "dir": str(place / "streets"), "crop": (32, 32)}
    classes = ("road", "sky", "car")
    given = {"task": "segmentation", "data": data}
    save_run(folder / "segmenter", given, classes, variables_of)
    return folder


@pytest.fixture(scope="module")
def judge(runs, place):
    """`judge(*args)`: status, standard output's lines and standard error's of eval.py."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "200",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
        "JAX_COMPILATION_CACHE_DIR": str(place / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }

    def judge(*args):
        found = subprocess.run(
            [sys.executable, ROOT / "eval.py", *map(str, args)],
            cwd=runs,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return found.returncode, found.stdout.splitlines(), found.stderr.splitlines()

    return judge


def results_of(folder, protocol):
    place = folder / "eval" / protocol
    page = (place / "report.html").read_text()
    assert 'src="http' not in page
    return json.loads((place / "results.json").read_text()), page


@pytest.mark.long
def test_boxes_are_scored_and_the_protocol_is_told_to_the_letter(runs, judge):
    code, out, err = judge("--workdir=classifier", "--localise", "--crops=10")
    assert (code, err) == (0, [])
    found, page = results_of(runs / "classifier", "localisation_10_crops")
    assert found["protocol"] | {"iou_above": 0.5} == found["protocol"]
    assert found["protocol"]["tuned_on"] == "images held out from training"
    assert found["protocol"]["tuning_images"] == 4
    assert found["data"] == {"name": "boxed", "split": "validation", "images": 4}
    details = found["details"]
    curve = details["curves"]["top1_error"]
    assert found["scores"]["localisation_top1_error"] in curve
    assert found["scores"]["oracle_top1_error"] == min(curve)
    assert details["oracle"]["top1_error"] <= details["chosen"]["top1_error"]
    assert found["checkpoint"]["sha256"] == trained.load(str(runs / "classifier")).digest
    assert found["published"] == []
    assert "MaxBoxAcc" in page
    assert any("no t" in line for line in out)
    assert out[-1].startswith("val_localisation_top1_error ")


@pytest.mark.long
def test_one_crop_of_the_whole_image_is_the_validation_of_training(runs, judge):
    code, out, err = judge("--workdir=classifier")
    assert (code, err) == (0, [])
    plain, _ = results_of(runs / "classifier", "validation")
    code, _, err = judge("--workdir=classifier", "--crops=1", "--average=logits")
    assert (code, err) == (0, [])
    one, _ = results_of(runs / "classifier", "1_crop")
    assert one["scores"] == pytest.approx(plain["scores"], rel=1e-5)
    assert out[-1] == "  ".join(
        f"val_{name} {plain['scores'][name]:.4f}" for name in ("loss", "top1", "top5")
    )


@pytest.mark.long
def test_full_resolution_at_one_scale_has_the_confusion_of_the_validation(runs, judge):
    # Overrides hold for both.
    corner = "--config.data.grid.alignment=corner"
    code, out, err = judge("--workdir=segmenter", corner)
    assert (code, err) == (0, [])
    code, out, err = judge("--workdir=segmenter", corner, "--boundary")
    assert (code, err) == (0, [])
    plain, _ = results_of(runs / "segmenter", "validation")
    full, page = results_of(runs / "segmenter", "full_resolution_boundary")
    assert full["details"]["confusion"] == plain["details"]["confusion"]
    assert full["scores"]["miou"] == plain["scores"]["miou"]
    assert full["protocol"]["alignment"] == "corner"
    assert 0 <= full["scores"]["boundary_f"] <= 1
    assert all("boundary_f" in row for row in full["per_class"])
    assert full["protocol"]["boundary_tolerance"] == 0.0075
    assert "None was published for drn_d_22 on streets" in page
    assert out[-1].startswith("val_miou ")


@pytest.mark.long
def test_a_given_threshold_needs_no_tuning_and_is_told(runs, judge):
    code, _, err = judge(
        "--workdir=classifier", "--localise", "--threshold=0.25", "--map=logits", "--map_of=whole"
    )
    assert (code, err) == (0, [])
    found, _ = results_of(runs / "classifier", "localisation_logits_whole_above_0.25")
    assert found["protocol"]["threshold"] == 0.25
    assert "tuned_on" not in found["protocol"]
    assert found["details"]["tuning"] is None
    assert found["details"]["chosen"]["threshold"] == 0.25
    for row in found["per_class"]:
        assert row["images"] == 2
    localised = sum(row["images"] * row["class_and_box_right"] for row in found["per_class"])
    assert 1 - localised / 4 == pytest.approx(found["scores"]["localisation_top1_error"])
    known = sum(row["images"] * row["box_right"] for row in found["per_class"])
    assert known / 4 == pytest.approx(found["scores"]["gt_known"])


@pytest.mark.long
def test_a_network_that_answers_no_numbers_is_not_scored(runs, judge, tmp_path):
    with Checkpoints(runs / "segmenter", must_exist=True) as saved:
        meta = saved.meta(0)
    found = trained.load(str(runs / "segmenter"))
    broken = jax.tree.map(lambda a: a * jnp.nan, found.variables)
    with Checkpoints(tmp_path / "broken") as checkpoints:
        checkpoints.save_weights(broken, meta)
    code, _, err = judge(f"--workdir={tmp_path}/broken", "--scales=1")
    assert (code, len(err)) == (1, 1)
    assert "the network's answer is not a number" in err[0]
    assert "val0" in err[0]


@pytest.mark.long
def test_scales_and_flip_have_a_folder_of_their_own(runs, judge):
    code, _, err = judge("--workdir=segmenter", "--scales=1,0.5", "--flip", "--out=mine")
    assert (code, err) == (0, [])
    found = json.loads((runs / "mine" / "results.json").read_text())
    assert found["protocol"]["name"] == "scales_1_0.5_flip"
    assert found["protocol"]["scales"] == [1.0, 0.5]
    assert found["protocol"]["combine"] == "log_probabilities"
    assert np.sum(found["details"]["confusion"]) == 6 * 32 * 32


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--workdir=classifier", "--scales=1"], "--scales is for a segmentation run"),
        (["--workdir=segmenter", "--localise"], "--localise is for a classification run"),
        (["--workdir=segmenter", "--scales=half"], "--scales=half: "),
        (["--workdir=segmenter", "--split=test"], "has no test images with labels"),
        (["--workdir=segmenter", "--export=there"], "are not Cityscapes' 19"),
        (["--workdir=classifier", "--threshold=0.5"], "--threshold is for the boxes of --localise"),
        (["--workdir=classifier", "--config.data.held_out=2"], "was trained with 4"),
    ],
)
def test_what_cannot_be_asked_is_one_line(runs, judge, flags, says):
    code, _, err = judge(*flags)
    assert (code, len(err)) == (1, 1), err
    assert err[0].startswith("error: ")
    assert says in err[0]

"""A configuration becomes a data set, a network and batches, or one clear error."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from drn_jax import config, experiment
from drn_jax.errors import UserError


def save(path, height, width, seed, mask=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    shape = (height, width) if mask else (height, width, 3)
    Image.fromarray(rng.integers(0, 3 if mask else 256, shape, dtype=np.uint8)).save(path)


@pytest.fixture
def photographs(tmp_path):
    """Two classes, five training and two validation images of 20x30 each."""
    for split, count in (("train", 5), ("val", 2)):
        for i, name in enumerate(("cat", "dog")):
            for k in range(count):
                save(tmp_path / split / name / f"{k}.png", 20, 30, 10 * i + k)
    return tmp_path


@pytest.fixture
def streets(tmp_path):
    """Six training pairs of 20x30; validation pairs of 16x24, 24x16 and 16x24."""
    sizes = {"train": [(20, 30)] * 6, "val": [(16, 24), (24, 16), (16, 24)]}
    for split, of_split in sizes.items():
        for kind in ("images", "labels"):
            names = [f"{kind}/{split}{i}.png" for i in range(len(of_split))]
            for i, (name, size) in enumerate(zip(names, of_split, strict=True)):
                save(tmp_path / name, *size, i, mask=kind == "labels")
            (tmp_path / f"{split}_{kind}.txt").write_text("\n".join(names))
    info = {"mean": [0.5] * 3, "std": [0.2] * 3, "classes": ["road", "sky", "car"]}
    (tmp_path / "info.json").write_text(json.dumps(info))
    return tmp_path


def classification(folder, **data):
    return config.parse(
        {
            "name": "tiny",
            "task": "classification",
            "model": {"name": "drn_d_22", "width": 0.05},
            "data": {"name": "imagenet", "dir": str(folder), "crop": 16, "resize": 18, **data},
            "batch_size": 4,
            "epochs": 1,
            "optimizer": {"learning_rate": 0.1},
            "schedule": {"kind": "poly"},
        }
    )


def segmentation(folder, **data):
    given = dataclasses.asdict(classification(folder))
    given |= {
        "task": "segmentation",
        "data": {"name": "list_folder", "dir": str(folder), "crop": (16, 24), **data},
    }
    return config.parse(given)


def error_of(settings):
    with pytest.raises(UserError) as caught:
        experiment.build(settings)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_classification_batches_have_the_crop_and_validation_is_not_random(photographs):
    run = experiment.build(classification(photographs))
    assert run.steps_per_epoch == 2
    assert run.keys == ("image", "label")
    assert run.model.num_classes == run.task.num_classes == 2
    batch = next(run.training_batches(0))
    assert {k: v.shape for k, v in batch.items()} == {"image": (4, 16, 16, 3), "label": (4,)}
    one, other = ([b["image"] for b in run.validation_batches(3)] for _ in range(2))
    assert [images.shape for images in one] == [(3, 16, 16, 3)] * 2
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def test_without_random_crops_and_flips_training_sees_what_validation_would(photographs):
    settings = classification(photographs, random_crop=False, flip=False)
    run = experiment.build(settings)
    prepared = {run.prepare(run.dataset.train[i])["image"].tobytes() for i in range(10)}
    seen = {
        image.tobytes()
        for _, batch in zip(range(3), run.training_batches(0), strict=False)
        for image in batch["image"]
    }
    assert seen <= prepared
    flipped = experiment.build(
        dataclasses.replace(settings, data=dataclasses.replace(settings.data, flip=True))
    )
    batch = next(flipped.training_batches(0))
    assert any(image.tobytes() not in prepared for image in batch["image"])


def test_segmentation_trains_on_crops_and_validates_on_whole_images_of_one_size_a_batch(streets):
    run = experiment.build(segmentation(streets))
    batch = next(run.training_batches(0))
    assert batch["image"].shape == (4, 16, 24, 3)
    assert batch["mask"].shape == (4, 16, 24)
    found = [(b["image"].shape, b["valid"].tolist()) for b in run.validation_batches(2)]
    assert found == [((2, 16, 24, 3), [True, True]), ((2, 24, 16, 3), [True, False])]


def test_rotation_and_scale_reach_the_augmentation(streets):
    plain, turned, scaled = (
        next(experiment.build(segmentation(streets, flip=False, **more)).training_batches(0))
        for more in ({}, {"rotate": 30}, {"scale": 2.0})
    )
    assert not (plain["mask"] == 255).any()
    assert (turned["mask"] == 255).any()
    assert (scaled["image"] != plain["image"]).any()


def test_the_border_of_the_upsampling_is_the_configured_one(streets):
    for border in ("clamp", "zero"):
        assert experiment.build(segmentation(streets, border=border)).task.border == border


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"batch_size": 11}, "config.batch_size = 11 exceeds the 10 training examples of"),
        ({"model": config.Model("drn_d_23")}, "unknown model 'drn_d_23': did you mean drn_d_"),
        ({"model": config.Model("drn_d_22", width=0.0)}, "model width 0.0 must be"),
    ],
)
def test_what_cannot_be_is_one_line(photographs, change, line):
    assert line in error_of(dataclasses.replace(classification(photographs), **change))


def test_a_bad_crop_is_named_before_the_data_is_read(tmp_path):
    nowhere = tmp_path / "nowhere"
    message = error_of(classification(nowhere, crop=7))
    assert message.startswith("config.data.crop = 7: drn_d_22 needs at least 8 pixels a side")
    assert "needs at least 8" in error_of(segmentation(nowhere, crop=(32, 4)))
    message = error_of(classification(nowhere, crop=19))
    assert "config.data.crop = 19 is larger than a validation image" in message
    assert "config.data.resize = 18" in message


def test_a_bad_data_set_is_one_line(photographs):
    assert "config.data.name='imagenett': did you mean imagenet" in error_of(
        classification(photographs, name="imagenett")
    )
    assert error_of(classification(photographs, name="camvid")) == (
        "data set camvid has no labels for classification: use it for segmentation"
    )
    assert error_of(classification("")).startswith("data set imagenet: give --config.data.dir=")
    assert "no such folder" in error_of(classification(photographs / "nowhere"))

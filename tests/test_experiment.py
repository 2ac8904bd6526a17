"""A configuration becomes a data set, a network and batches, or one clear error."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from drn_jax import config, experiment, parts
from drn_jax.data import surroundings
from drn_jax.errors import UserError
from drn_jax.models.context import Context
from drn_jax.tasks.segmentation import Grid
from drn_jax.training.checkpoint import Checkpoints


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


def write_streets(folder, train):
    """Training pairs of the sizes given; validation pairs of 16x24, 24x16 and 16x24."""
    sizes = {"train": train, "val": [(16, 24), (24, 16), (16, 24)]}
    for split, of_split in sizes.items():
        for kind in ("images", "labels"):
            names = [f"{kind}/{split}{i}.png" for i in range(len(of_split))]
            for i, (name, size) in enumerate(zip(names, of_split, strict=True)):
                save(folder / name, *size, i, mask=kind == "labels")
            (folder / f"{split}_{kind}.txt").write_text("\n".join(names))
    info = {"mean": [0.5] * 3, "std": [0.2] * 3, "classes": ["road", "sky", "car"]}
    (folder / "info.json").write_text(json.dumps(info))


@pytest.fixture
def streets(tmp_path):
    """Six training pairs of 20x30, and the validation pairs of `write_streets`."""
    write_streets(tmp_path, [(20, 30)] * 6)
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


def test_the_grid_of_the_task_is_the_configured_one(streets):
    grid = {"alignment": "corner", "border": "zero", "interpolate": "probabilities"}
    task = experiment.build(segmentation(streets, grid=grid)).task
    assert task.grid == Grid("corner", "zero", "probabilities", "pixels")
    assert task.output_stride == 8
    assert experiment.build(segmentation(streets)).task.grid == Grid()


def test_updates_are_counted_in_steps_or_in_epochs_of_whole_batches(streets):
    settings = segmentation(streets)
    for epochs, steps, total in ((3, 0, 3), (0, 7, 7)):
        run = experiment.build(dataclasses.replace(settings, epochs=epochs, steps=steps))
        assert (run.steps_per_epoch, run.total_steps) == (1, total)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"batch_size": 11}, "config.batch_size = 11 exceeds the 10 training examples of"),
        ({"model": config.Model("drn_d_23")}, "unknown model 'drn_d_23': did you mean drn_d_"),
        ({"model": config.Model("drn_d_22", width=0.0)}, "model width 0.0 must be"),
        ({"model": config.Model("context")}, "config.model.name = context takes maps: config.task"),
        ({"model": config.Model("drn_d_22", padding="zero")}, "drn_d_22 has no option 'padding'"),
        (
            {"model": config.Model("drn_d_22", context=Context(3))},
            "a context module of 3 layers: 4 is the least",
        ),
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


# Networks with a margin


VGG = config.Model("vgg_16_front_end", width=1 / 16, fc_channels=256, space="rgb")
"""As published without padding, so that an image brings 186 pixels on each side."""


def random_variables(run, seed=0):
    """By He's rule, so that maps neither vanish nor grow."""
    shape = jax.ShapeDtypeStruct((1, *run.input_shape), jnp.float32)
    shapes = jax.eval_shape(run.model.init, jax.random.key(0), shape)
    rng = np.random.default_rng(seed)

    def draw(leaf):
        scale = np.sqrt(2 / np.prod(leaf.shape[:-1])) if len(leaf.shape) > 1 else 0.1
        return jnp.asarray(rng.normal(0, scale, leaf.shape), jnp.float32)

    return jax.tree.map(draw, shapes)


def class_map(run, variables, inputs):
    return np.asarray(jax.jit(run.model.apply)(variables, inputs)[1]["logits_2d"])


def test_training_crops_bring_their_margin_and_whole_images_get_theirs(streets):
    run = experiment.build(dataclasses.replace(segmentation(streets), model=VGG))
    assert run.preprocess.margin == 186
    assert run.input_shape == (16 + 372, 24 + 372, 3)
    batch = next(run.training_batches(0))
    assert batch["image"].shape == (4, *run.input_shape)
    assert batch["mask"].shape == (4, 16, 24)
    assert jax.eval_shape(run.training_inputs, batch).shape == (4, *run.input_shape)
    batch = next(run.validation_batches(2))
    assert batch["image"].shape == (2, 16, 24, 3)
    assert jax.eval_shape(run.inputs, batch).shape == (2, 16 + 372, 24 + 372, 3)


def test_a_classifier_with_a_margin_mirrors_it_in_training_as_in_validation(photographs):
    """Its crops are resized, so that they bring no surroundings."""
    run = experiment.build(dataclasses.replace(classification(photographs), model=VGG))
    for batch in (next(run.training_batches(0)), next(run.validation_batches(4))):
        assert batch["image"].shape == (4, 16, 16, 3)
    for inputs in (run.training_inputs, run.inputs):
        assert jax.eval_shape(inputs, batch).shape == (4, *run.input_shape)


def test_a_crop_with_its_surroundings_gives_the_cells_of_the_whole_image(streets):
    run = experiment.build(dataclasses.replace(segmentation(streets), model=VGG))
    variables = random_variables(run)
    save(streets / "large.png", 32, 40, 7)
    image = np.asarray(Image.open(streets / "large.png"))
    whole = class_map(run, variables, run.inputs({"image": image[None]}))
    assert whole.shape == (1, 4, 5, 3)
    assert whole.std((0, 1, 2)).min() > 0.01  # Other cells are other numbers.
    for top, left in ((0, 0), (16, 16), (8, 8)):
        crop = surroundings.surrounded({"image": image}, top, left, 16, 24, 186)
        cells = class_map(run, variables, run.training_inputs({"image": crop["image"][None]}))
        expected = whole[:, top // 8 : top // 8 + 2, left // 8 : left // 8 + 3]
        np.testing.assert_allclose(cells, expected, rtol=1e-4, atol=1e-5)


def test_a_published_net_takes_its_own_mean_and_another_that_of_the_data(streets):
    given = segmentation(streets)
    for name, mean in (("dilation8_camvid", (105.412, 108.778, 110.703)), ("drn_d_22", None)):
        run = experiment.build(dataclasses.replace(given, model=config.Model(name, width=1 / 64)))
        expected = [0.5] * 3 if mean is None else np.array(mean) / 255
        np.testing.assert_allclose(run.preprocess.mean, expected, rtol=1e-6)


# Context modules on the maps of a front end


FRONT_END = dataclasses.replace(VGG, padding="zero")
GRID = {"alignment": "corner", "interpolate": "probabilities", "loss_at": "cells"}


def write_run(workdir, settings, seed=0):
    """A working directory with random weights of the network of a configuration."""
    run = experiment.build(settings)
    variables = random_variables(run, seed)
    with Checkpoints(workdir) as checkpoints:
        checkpoints.save_weights(variables, {"config": dataclasses.asdict(settings)})
    return run, variables


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A data set of images of different sizes, and the front end `front` on it: its folder, its
    experiment and its weights."""
    folder = tmp_path_factory.mktemp("context")
    write_streets(folder, train=[(20, 30), (32, 24), (20, 30), (32, 24), (20, 30)])
    settings = dataclasses.replace(segmentation(folder), model=FRONT_END, batch_size=2)
    return folder, *write_run(folder / "front", settings)


def context(folder, **data):
    """A configuration of a context module on the front end `front`."""
    return config.parse(
        {
            "name": "tiny",
            "task": "context",
            "model": {"name": "context", "context": {"layers": 4}},
            "data": {
                "front_end": str(folder / "front"),
                "dtype": "float32",
                "crop": (3, 4),
                "grid": GRID,
                **data,
            },
            "batch_size": 4,
            "steps": 3,
            "optimizer": {"learning_rate": 0.1},
            "schedule": {"kind": "constant"},
        }
    )


def test_a_context_module_trains_on_crops_of_maps_and_is_scored_on_whole_ones(trained):
    folder, front, _ = trained
    run = experiment.build(context(folder))
    assert run.keys == ("map", "mask")
    assert (run.stride, run.input_shape, run.crop) == (8, (3, 4, 3), (24, 32))
    assert run.task.grid == Grid(**GRID)
    assert run.task.num_classes == run.model.channels == 3
    batch = next(run.training_batches(0))
    assert {k: (v.shape, v.dtype.name) for k, v in batch.items()} == {
        "map": ((4, 3, 4, 3), "float32"),
        "mask": ((4, 24, 32), "uint8"),
    }
    np.testing.assert_array_equal(run.training_inputs(batch), batch["map"])
    found = [
        (b["map"].shape, b["mask"].shape, b["valid"].tolist()) for b in run.validation_batches(2)
    ]
    assert found == [
        ((2, 2, 3, 3), (2, 16, 24), [True, True]),
        ((2, 3, 2, 3), (2, 24, 16), [True, False]),
    ]
    assert run.dataset.validation_sizes() == front.dataset.validation_sizes()


def test_the_maps_are_those_of_the_whole_images_by_the_weights_that_were_saved(trained):
    folder, front, variables = trained
    run = experiment.build(context(folder))
    splits = ("train", "validation")
    for maps, images in ((getattr(run.dataset, s), getattr(front.dataset, s)) for s in splits):
        assert len(maps) == len(images)
        for index in (1, 2):
            image = images[index]["image"]
            expected = class_map(front, variables, front.inputs({"image": image[None]}))[0]
            np.testing.assert_allclose(maps[index]["map"], expected, rtol=1e-4, atol=1e-5)
            np.testing.assert_array_equal(maps[index]["mask"], images[index]["mask"])
    np.testing.assert_array_equal(run.pictures[1]["image"], front.dataset.validation[1]["image"])


def test_maps_lie_beside_the_front_end_and_are_not_computed_again(trained, capsys):
    folder, *_ = trained
    experiment.build(context(folder))
    maps = folder / "front" / "maps"
    before = sorted(path.stat().st_mtime_ns for path in maps.rglob("*"))
    capsys.readouterr()
    experiment.build(dataclasses.replace(context(folder), seed=5, batch_size=2))
    assert capsys.readouterr().out == ""
    assert sorted(path.stat().st_mtime_ns for path in maps.rglob("*")) == before


@pytest.mark.parametrize("crop", [(0, 0), (0, 4), (3, 0)])
def test_maps_of_different_sizes_need_a_crop(trained, crop):
    message = error_of(context(trained[0], crop=crop))
    assert message.startswith("the training images differ in size: give --config.data.crop=")
    assert "in cells of 8 pixels" in message


def test_whole_maps_of_one_size_need_no_crop(streets):
    settings = dataclasses.replace(segmentation(streets), model=FRONT_END)
    write_run(streets / "front", settings)
    run = experiment.build(context(streets, crop=(0, 0), dtype="float16"))
    assert run.input_shape == (3, 4, 3)
    batch = next(run.training_batches(0))
    assert batch["map"].shape == (4, 3, 4, 3)
    assert batch["map"].dtype == np.float16
    assert batch["mask"].shape == (4, 20, 30)
    assert run.training_inputs({"map": jnp.asarray(batch["map"])}).dtype == jnp.float32


def test_a_data_set_that_moved_is_found_by_its_new_folder(trained, tmp_path):
    folder, *_ = trained
    moved = tmp_path / folder.name
    folder.rename(moved)
    try:
        settings = context(moved)
        assert "no such folder" in error_of(settings)
        data = dataclasses.replace(settings.data, dir=str(moved))
        run = experiment.build(dataclasses.replace(settings, data=data))
    finally:
        moved.rename(folder)
    assert len(run.dataset.train) == 5


def test_a_front_end_that_is_none_is_one_line(trained, photographs, tmp_path):
    folder, *_ = trained
    message = error_of(context(tmp_path / "nowhere"))
    assert message.startswith("config.data.front_end: no checkpoints in ")
    classifier = dataclasses.replace(
        classification(photographs), model=config.Model("drn_d_22", 0.05)
    )
    with Checkpoints(photographs / "front") as checkpoints:
        weights = {"params": {"head": jnp.zeros(3)}}
        checkpoints.save_weights(weights, {"config": dataclasses.asdict(classifier)})
    message = error_of(context(photographs))
    assert message.startswith(f"config.data.front_end: {photographs}/front is no segmentation run")
    assert message.endswith("one of classification")
    (tmp_path / "module").mkdir()
    with Checkpoints(tmp_path / "module" / "front") as checkpoints:
        settings = dataclasses.asdict(context(folder))
        checkpoints.save_weights({"params": {"ctx_final": jnp.zeros(3)}}, {"config": settings})
    assert error_of(context(tmp_path / "module")).endswith("one of context")
    assert not list(tmp_path.rglob("maps"))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"batch_size": 6}, "config.batch_size = 6 exceeds the 5 training examples of"),
        ({"model": config.Model("drn_d_22", context=Context(4))}, "config.model.name = drn_d_22"),
        ({"model": config.Model("context", context=Context(3))}, "a context module of 3 layers"),
        ({"model": config.Model("contxt")}, "unknown model 'contxt': did you mean context"),
    ],
)
def test_what_no_context_run_can_be_is_one_line_before_any_map_is_made(
    trained, tmp_path, change, line
):
    folder, *_ = trained
    shutil.copytree(folder / "front" / "checkpoints", tmp_path / "front" / "checkpoints")
    assert line in error_of(dataclasses.replace(context(tmp_path), **change))
    assert not (tmp_path / "front" / "maps").exists()


def test_a_title_tells_which_module_and_which_network(trained):
    folder, *_ = trained
    module = "context module of 4 layers, basic, from identity"
    assert experiment.build(context(folder)).title == module
    model = dataclasses.replace(FRONT_END, context=Context(4))
    both = dataclasses.replace(segmentation(folder), model=model)
    title = experiment.build(both).title
    assert title == f"vgg_16_front_end, width 0.0625, with a {module}"


def test_held_out_examples_come_from_training_and_are_not_trained_on(photographs):
    whole = experiment.build(classification(photographs)).dataset
    part = experiment.build(classification(photographs, held_out=4)).dataset
    assert whole.held_out is None
    assert part.held_out is not None
    kept = [part.train.where(i) for i in range(len(part.train))]
    held = [part.held_out.where(i) for i in range(len(part.held_out))]
    assert len(held) == 4
    assert sorted(kept + held) == sorted(whole.train.where(i) for i in range(len(whole.train)))
    assert {int(part.held_out[i]["label"]) for i in range(4)} == {0, 1}
    assert len(part.validation) == len(whole.validation)


def test_held_out_must_leave_something_to_train_on(photographs):
    with pytest.raises(UserError, match=r"config.data.held_out = 10: must be at least 0 and below"):
        experiment.build(classification(photographs, held_out=10))


def test_rows_that_devices_split_are_left_to_the_native_convolution():
    """Where tiles begin at other rows than the shares do, all rows would be sent around."""
    given = {
        "name": "split",
        "task": "classification",
        "model": {"name": "drn_c_26", "width": 0.05},
        "data": {"name": "imagenet", "crop": 32, "resize": 32},
        "batch_size": 1,
        "epochs": 1,
        "optimizer": {"learning_rate": 0.1},
        "schedule": {"kind": "constant"},
    }
    whole = config.parse(given)
    split = config.parse(given | {"mesh": {"spatial": 2}})
    assert parts.network(whole.model, 2, whole.mesh).convolution == "auto"
    assert parts.network(split.model, 2, split.mesh).convolution == "native"
    rest = config.parse(given | {"mesh": {"data": 1, "spatial": -1}})
    assert parts.network(rest.model, 2, rest.mesh).convolution == "native"
    tiled = dataclasses.replace(split.model, convolution="winograd4")
    with pytest.raises(UserError, match=r"convolution = winograd4.*spatial = 2.*native"):
        parts.network(tiled, 2, split.mesh)

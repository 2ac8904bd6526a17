"""One step, on one device or eight: the same numbers, float32 state, exact sums."""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from drn_jax import program
from drn_jax.data import loader
from drn_jax.tasks import Classification, Segmentation
from drn_jax.training import optim, sharding, state, steps
from drn_jax.training.evaluate import evaluate

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
SGD = partial(optim.sgd, momentum=0.9, weight_decay=1e-4)


@pytest.fixture(scope="module")
def batch():
    """Eight images of 16x16, each class brighter than the one before."""
    rng = np.random.default_rng(0)
    label = np.arange(8, dtype=np.int32) % 3
    image = rng.integers(0, 120, (8, 16, 16, 3)) + 60 * label[:, None, None, None]
    return {"image": image.astype(np.uint8), "label": label}


def on_devices(count):
    return jax.make_mesh(
        (count,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:count]
    )


def compiled(model, optimizer, mesh):
    """`program.trainer` of a run that is no more than a model and a data set's statistics."""
    dataset = SimpleNamespace(mean=MEAN, std=STD)
    run = SimpleNamespace(model=model, task=Classification(3), dataset=dataset)
    return program.trainer(run, optimizer, mesh)


@pytest.fixture(scope="module")
def one_device(batch):
    """The train step of the tiny network on one device, compiled once for this file."""
    steps_by_model = {}

    def step(model):
        if model not in steps_by_model:
            steps_by_model[model] = compiled(model, SGD(lambda _: 0.1), on_devices(1))
        train_step, mesh = steps_by_model[model], on_devices(1)
        return lambda s, b: train_step(
            jax.device_put(s, sharding.replicated(mesh)), sharding.to_devices(b, mesh)
        )

    return step


def numpy_tree(tree):
    return jax.tree.map(np.array, tree)


def named(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def test_eight_devices_compute_the_step_of_one(model, fresh_state, one_device, batch):
    mesh = sharding.make_mesh()
    assert mesh.shape["data"] == 8
    one, eight = fresh_state(), jax.device_put(fresh_state(), sharding.replicated(mesh))
    spread = sharding.to_devices(batch, mesh)
    assert spread["image"].addressable_shards[3].data.shape == (1, 16, 16, 3)

    one, of_one = one_device(model())(one, batch)
    eight, of_eight = compiled(model(), SGD(lambda _: 0.1), mesh)(eight, spread)

    for name, expected in named(one).items():
        found = named(eight)[name]
        scale = np.abs(expected).max()
        assert np.abs(found - expected).max() <= 1e-5 * scale, name
    for name in ("loss", "grad_norm"):
        np.testing.assert_allclose(of_eight[name], of_one[name], rtol=1e-5)
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(eight))


def test_the_state_passed_in_is_consumed(model, fresh_state, one_device, batch):
    before = jax.device_put(fresh_state(), sharding.replicated(on_devices(1)))
    after, _ = one_device(model())(before, batch)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before.params))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before.opt_state))
    assert int(after.step) == 1


def test_images_are_scaled_to_one_less_the_mean_over_the_deviation():
    levels = np.arange(256, dtype=np.uint8)
    image = np.stack([levels, levels[::-1], np.roll(levels, 7)], -1).reshape(1, 16, 16, 3)
    found = steps.normalise(jnp.asarray(image), MEAN, STD)
    assert found.dtype == jnp.float32
    expected = (image.astype(np.float64) / 255 - np.array(MEAN)) / np.array(STD)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_grad_norm_is_the_norm_of_the_gradient_without_weight_decay(model, fresh_state, batch):
    # At rate 1 without momentum the update is the gradient, plus decay times the parameters.
    decay = 0.5
    step = compiled(model(), optim.sgd(lambda _: 1.0, 0.0, decay), on_devices(1))
    tx = optim.sgd(lambda _: 1.0, 0.0, decay)
    start = fresh_state()
    start = start.replace(opt_state=tx.init(start.params))
    before = numpy_tree(start.params)
    after, metrics = step(start, sharding.to_devices(batch, on_devices(1)))
    gradients = jax.tree.map(
        lambda a, b: a.astype(np.float64) - np.asarray(b) - decay * a, before, after.params
    )
    squares = [np.square(g).sum() for g in jax.tree.leaves(gradients)]
    assert float(metrics["grad_norm"]) == pytest.approx(np.sqrt(sum(squares)), rel=1e-4)
    assert float(metrics["grad_norm"]) > 0.1


def test_twenty_steps_fit_eight_images(model, fresh_state, one_device, batch):
    run, losses = fresh_state(), []
    for _ in range(20):
        run, metrics = one_device(model())(run, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0] / 3
    assert int(run.step) == 20


def test_batch_statistics_move_by_a_tenth_of_the_batchs(model, fresh_state, one_device, batch):
    start = fresh_state()
    pixels = np.asarray(steps.normalise(jnp.asarray(batch["image"]), MEAN, STD))
    kernel = start.params["stem"]["block1"]["conv1"]["kernel"]
    stem = jax.lax.conv_general_dilated(
        jnp.asarray(pixels),
        kernel,
        (2, 2),
        ((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    expected = np.asarray(stem).mean((0, 1, 2)) * 0.1
    after, _ = one_device(model())(start, batch)
    found = after.batch_stats["stem"]["block1"]["norm1"]["mean"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_bfloat16_computes_in_bfloat16_and_keeps_the_state_in_float32(model, batch):
    network = model(dtype=jnp.bfloat16)
    tx = SGD(lambda _: 0.1)
    start = jax.eval_shape(lambda key: state.init(network, tx, key, (16, 16, 3)), jax.random.key(0))
    train_step = steps.make_train_step(network, Classification(3), tx, MEAN, STD)
    after, metrics = jax.eval_shape(train_step, start, batch)
    for tree in (after.params, after.batch_stats, metrics):
        assert {leaf.dtype.name for leaf in jax.tree.leaves(tree)} == {"float32"}
    floats = [a.dtype for a in jax.tree.leaves(after.opt_state) if a.shape]
    assert floats
    assert {dtype.name for dtype in floats} == {"float32"}
    assert jax.tree.map(lambda a: (a.shape, a.dtype), after) == jax.tree.map(
        lambda a: (a.shape, a.dtype), start
    )

    images = jax.ShapeDtypeStruct((8, 16, 16, 3), jnp.float32)
    logits, features = jax.eval_shape(network.apply, start.variables, images)
    assert features["level1"].dtype == jnp.bfloat16
    assert logits.dtype == jnp.float32


class Examples:
    """Eleven random images with a label and a mask that has ignored pixels."""

    def __len__(self):
        return 11

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        return {
            "image": rng.integers(0, 256, (16, 16, 3), dtype=np.uint8),
            "label": np.array(index % 3, np.int32),
            "mask": rng.choice(np.array([0, 1, 2, 255], np.uint8), (16, 16)),
        }


@pytest.mark.parametrize(
    ("task", "label"), [(Classification(3), "label"), (Segmentation(3, 4), "mask")]
)
def test_validation_sums_do_not_depend_on_the_batch_size(model, fresh_state, task, label):
    eval_step = jax.jit(steps.make_eval_step(model(), task, MEAN, STD))
    variables, found = fresh_state(1).variables, {}
    for size in (3, 5, 8):
        batches = loader.evaluation_batches(
            Examples(), ("image", label), batch_size=size, transform=lambda example: example
        )
        found[size] = evaluate(eval_step, variables, batches, dict)
    counts = {name for name in found[3] if name != "loss"}
    for size in (5, 8):
        for name in counts:
            np.testing.assert_array_equal(found[size][name], found[3][name], err_msg=name)
        assert float(found[size]["loss"]) == pytest.approx(float(found[3]["loss"]), rel=1e-6)
    if label == "label":
        assert found[3]["class_count"].tolist() == [4, 4, 3]
    else:
        labelled = sum(int((Examples()[i]["mask"] != 255).sum()) for i in range(11))
        assert found[3]["confusion"].sum() == labelled

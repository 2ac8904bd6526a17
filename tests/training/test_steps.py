"""One step, on one device or eight: the same numbers, float32 state, exact sums."""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drn_jax import program
from drn_jax.analysis import collectives
from drn_jax.data import loader
from drn_jax.models.inputs import Preprocess
from drn_jax.models.layers import Norm
from drn_jax.models.network import Network
from drn_jax.models.stages import Stage
from drn_jax.tasks import Classification, Segmentation
from drn_jax.training import optim, sharding, state, steps
from drn_jax.training.checkpoint import Checkpoints
from drn_jax.training.evaluate import evaluate

NORMALISE = Preprocess((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
SGD = partial(optim.sgd, momentum=0.9, weight_decay=1e-4)


@pytest.fixture(scope="module")
def batch():
    """Eight images of 16x16, each class brighter than the one before."""
    rng = np.random.default_rng(0)
    label = np.arange(8, dtype=np.int32) % 3
    image = rng.integers(0, 120, (8, 16, 16, 3)) + 60 * label[:, None, None, None]
    return {"image": image.astype(np.uint8), "label": label}


def on_devices(count):
    return sharding.make_mesh(devices=jax.devices()[:count])


def prepare(batch):
    return NORMALISE(batch["image"])


def compiled(model, optimizer, mesh, **settings):
    """`program.trainer` of a run that is no more than a model, its inputs and a few settings."""
    defaults = {"seed": 0, "accumulate": 1, "ema": 0.0, "deterministic": False}
    run = SimpleNamespace(
        model=model,
        task=Classification(3),
        training_inputs=prepare,
        input_shape=(16, 16, 3),
        config=SimpleNamespace(**defaults | settings),
    )
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
    pixels = np.asarray(prepare({"image": jnp.asarray(batch["image"])}))
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
    train_step = steps.make_train_step(network, Classification(3), tx, prepare)
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
    eval_step = jax.jit(steps.make_eval_step(model(), task, prepare))
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


def test_the_network_receives_what_prepare_makes_of_the_batch(model, fresh_state, batch):
    """In training, evaluation and prediction alike."""
    variables, given = fresh_state(1).variables, {"label": batch["label"], "other": batch["image"]}

    def renamed(batch):
        return NORMALISE(batch["other"])

    network, task = model(), Classification(3)
    expected = task.predict(*network.apply(variables, prepare(batch)), (16, 16))
    predict = steps.make_predict_step(network, task, renamed)
    found = predict(variables, {"other": batch["image"]}, (16, 16))
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)
    sums = steps.make_eval_step(network, task, renamed)(variables, given)
    outputs = network.apply(variables, prepare(batch), train=False)
    np.testing.assert_array_equal(sums["loss"], task.sums(*outputs, batch)["loss"])
    train_step = steps.make_train_step(network, task, SGD(lambda _: 0.1), renamed)
    _, metrics = jax.jit(train_step)(fresh_state(1), given)
    (logits, features), _ = network.apply(
        variables, prepare(batch), train=True, mutable=["batch_stats"]
    )
    assert float(metrics["loss"]) == pytest.approx(float(task.loss(logits, features, batch)[0]))


# Dropout


DROPPING = Network(
    (
        Stage("conv1", "plain", 4, stride=4),
        Stage("fc6", "plain", 64, kernel=1, dropout=0.5),
    ),
    num_classes=3,
)
"""As VGG: plain convolutions, no batch statistics, dropout before the classifier."""


@pytest.fixture(scope="module")
def dropping():
    """`step(state, batch, seed)` of that network, and a fresh state of it."""
    tx = SGD(lambda _: 0.05)
    compiled_for = {}

    def step(current, batch, seed=0):
        if seed not in compiled_for:
            train_step = steps.make_train_step(DROPPING, Classification(3), tx, prepare, seed)
            compiled_for[seed] = jax.jit(train_step)
        return compiled_for[seed](current, batch)

    start = jax.jit(lambda key: state.init(DROPPING, tx, key, (16, 16, 3)))(jax.random.key(0))
    return step, start


def test_dropout_depends_on_the_seed_and_the_step_alone(dropping, batch):
    step, start = dropping
    loss = float(step(start, batch)[1]["loss"])
    assert float(step(start, batch)[1]["loss"]) == loss
    later = start.replace(step=start.step + 1)
    others = [step(later, batch)[1]["loss"], step(start, batch, seed=1)[1]["loss"]]
    assert len({loss, *map(float, others)}) == 3


def test_evaluation_drops_nothing_out(dropping, batch):
    _, start = dropping
    eval_step = jax.jit(steps.make_eval_step(DROPPING, Classification(3), prepare))
    whole = np.asarray(prepare(batch))
    params = jax.tree.map(np.asarray, start.params)
    stem = jax.lax.conv_general_dilated(
        jnp.asarray(whole),
        params["conv1"]["kernel"],
        (4, 4),
        ((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    hidden = np.maximum(np.asarray(stem) + params["conv1"]["bias"][None, None, None], 0)
    hidden = np.maximum(
        hidden @ params["fc6"]["kernel"][0, 0] + params["fc6"]["bias"][None, None, None], 0
    )
    logits = hidden.mean((1, 2)) @ params["head"]["kernel"][0, 0] + params["head"]["bias"][None]
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(8), batch["label"]]
    found = eval_step(start.variables, batch)
    np.testing.assert_allclose(found["loss"], losses.sum(), rtol=1e-4)


def test_dropout_is_the_same_on_eight_devices_as_on_one(dropping, batch):
    step, start = dropping
    mesh = sharding.make_mesh()
    placed = jax.device_put(jax.tree.map(jnp.copy, start), sharding.replicated(mesh))
    _, one = step(start, batch)
    trainer = compiled(DROPPING, SGD(lambda _: 0.05), mesh)
    _, eight = trainer(placed, sharding.to_devices(batch, mesh))
    for name in ("loss", "grad_norm"):
        np.testing.assert_allclose(eight[name], one[name], rtol=1e-5)


def test_a_run_with_dropout_that_was_saved_and_restored_ends_with_the_same_bits(
    dropping, batch, tmp_path
):
    step, start = dropping
    here = sharding.replicated(on_devices(1))
    current = start
    with Checkpoints(tmp_path) as checkpoints:
        for index in range(5):
            if index == 2:
                checkpoints.save(current, {})
            current, _ = step(current, batch)
        resumed = checkpoints.restore(2, sharding.placed(jax.eval_shape(lambda: start), here))
    for _ in range(3):
        resumed, _ = step(resumed, batch)
    for name, value in named(current).items():
        assert named(resumed)[name].tobytes() == value.tobytes(), name


# Accumulation


@pytest.fixture(scope="module")
def masks():
    """Eight masks of 16x16, most of them ignored in all but the first."""
    rng = np.random.default_rng(1)
    found = rng.integers(0, 3, (8, 16, 16)).astype(np.uint8)
    found[1:, 2:] = 255
    return found


def assert_close(found, expected, rtol):
    for name, value in named(expected).items():
        scale = max(np.abs(value).max(), 1e-3)
        assert np.abs(named(found)[name] - value).max() <= rtol * scale, name


@pytest.mark.parametrize("parts", [2, 4])
def test_the_parts_of_a_step_weigh_what_their_losses_count(batch, masks, parts):
    """Without batch norm and dropout a step in parts is the step; a mean of means is not."""
    network, tx = DROPPING.clone(stages=DROPPING.stages[:1]), SGD(lambda _: 0.05)
    task, labelled = Segmentation(3, 4), {"image": batch["image"], "mask": masks}
    start = jax.jit(lambda key: state.init(network, tx, key, (16, 16, 3)))(jax.random.key(0))
    whole, in_parts = (
        jax.jit(steps.make_train_step(network, task, tx, prepare, accumulate=k))(start, labelled)
        for k in (1, parts)
    )
    assert_close(in_parts, whole, 1e-5)
    ones = [
        float(
            jax.jit(steps.make_train_step(network, task, tx, prepare))(
                start, {name: values[i::parts] for name, values in labelled.items()}
            )[1]["loss"]
        )
        for i in range(parts)
    ]
    assert abs(np.mean(ones) - float(whole[1]["loss"])) > 1e-3  # So the weights matter.


@pytest.mark.parametrize("parts", [2, 4])
def test_a_step_in_parts_equals_one_with_the_statistics_of_as_many_groups(
    model, fresh_state, batch, parts
):
    """In everything: gradient, running averages, velocity."""
    # Part i holds examples i, i + parts, ...: as groups, they must lie side by side.
    order = np.arange(8).reshape(-1, parts).T.ravel()
    grouped = model(norm=Norm("group", 8 // parts))
    alone = on_devices(1)
    expected, of_groups = compiled(grouped, SGD(lambda _: 0.1), alone)(
        fresh_state(), {name: values[order] for name, values in batch.items()}
    )
    found, of_parts = compiled(model(), SGD(lambda _: 0.1), alone, accumulate=parts)(
        fresh_state(), batch
    )
    assert_close(found, expected, 1e-4)
    for name in ("loss", "grad_norm"):
        np.testing.assert_allclose(of_parts[name], of_groups[name], rtol=1e-5)
    whole, _ = compiled(model(), SGD(lambda _: 0.1), alone)(fresh_state(), batch)
    assert not np.allclose(whole.params["head"]["kernel"], found.params["head"]["kernel"], 1e-3)


def test_a_step_in_parts_sends_no_example_to_another_device(model, fresh_state):
    mesh = on_devices(4)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (16, 16, 16, 3), dtype=np.uint8)
    batch = {"image": image, "label": np.arange(16, dtype=np.int32) % 3}
    start = jax.device_put(fresh_state(), sharding.replicated(mesh))
    step = compiled(model(), SGD(lambda _: 0.1), mesh, accumulate=4)
    program = step.lower(start, sharding.to_devices(batch, mesh)).compile().as_text()
    found = collectives.of_program(program)
    assert {collective.kind for collective in found} == {"all-reduce"}
    assert {collective.times for collective in found} >= {4}


# Averages, memory


def test_an_average_of_parameters_and_statistics_follows_the_stated_rule(
    model, fresh_state, one_device, batch
):
    tx, alone = SGD(lambda _: 0.1), on_devices(1)
    start = fresh_state()
    averaging = start.replace(ema=jax.tree.map(jnp.copy, start.trained))
    step = compiled(model(), tx, alone, ema=0.3)
    plain, current = fresh_state(), averaging
    expected = numpy_tree(start.trained)
    for number in range(1, 5):
        plain, _ = one_device(model())(plain, batch)
        current, _ = step(current, batch)
        keep = min(0.3, (1 + number) / (10 + number))
        expected = jax.tree.map(
            lambda a, p, k=keep: k * a + (1 - k) * np.asarray(p), expected, plain.trained
        )
    assert_close(current.trained, plain.trained, 1e-5)
    assert_close(current.ema, expected, 1e-5)
    assert keep == pytest.approx(0.3)
    np.testing.assert_array_equal(
        current.variables["params"]["head"]["bias"], current.ema["params"]["head"]["bias"]
    )


def test_the_state_is_updated_in_place(model, fresh_state, batch):
    alone = on_devices(1)
    step = compiled(model(), SGD(lambda _: 0.1), alone)
    program = step.lower(fresh_state(), sharding.to_devices(batch, alone)).compile()
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(fresh_state()))
    assert program.memory_analysis().alias_size_in_bytes >= size


@pytest.mark.parametrize("parts", [1, 3, 7])
def test_frozen_statistics_keep_their_bits_also_in_parts_and_averages(model, fresh_state, parts):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (21, 16, 16, 3), dtype=np.uint8)
    batch = {"image": image, "label": np.arange(21, dtype=np.int32) % 3}
    start = fresh_state()
    drawn = jax.tree.map(lambda a: a + rng.random(a.shape, np.float32), start.batch_stats)
    start = start.replace(batch_stats=drawn)
    start = start.replace(ema=jax.tree.map(jnp.copy, start.trained))
    step = steps.make_train_step(
        model(norm=Norm("frozen")), Classification(3), SGD(lambda _: 0.1), prepare, 0, parts, 0.9
    )
    after, _ = jax.jit(step)(start, batch)
    for found in (after.batch_stats, after.ema["batch_stats"]):
        for name, value in named(drawn).items():
            assert named(found)[name].tobytes() == value.tobytes(), name
    assert not np.array_equal(after.params["head"]["kernel"], start.params["head"]["kernel"])

"""However the devices share the work, a run is the same run.

Training is compared from weights that some steps have settled. At its random start a narrow
network with batch norm enlarges float32's rounding about a hundredfold with every step, so that
even the order of a batch's examples on one device decides; nothing could be said from there.
"""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drn_jax import models, program
from drn_jax.models.inputs import Preprocess
from drn_jax.tasks import Classification, Segmentation
from drn_jax.training import optim, sharding
from drn_jax.training.checkpoint import Checkpoints
from drn_jax.training.sharding import MeshShape

SIDE, CLASSES, SETTLING, STEPS = 64, 3, 60, 5
MESHES = [(8, 1, 1), (4, 2, 1), (2, 1, 4), (1, 1, 8), (2, 2, 2)]
NORMALISE = Preprocess((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
QUICK = {"xla_backend_optimization_level": 0}
"""To compile, not to run."""
TASKS = {"classification": Classification(CLASSES), "segmentation": Segmentation(CLASSES, 8)}


def draw(task, index):
    """Eight images, each class brighter than the one before."""
    rng = np.random.default_rng(index)
    if task == "classification":
        labels = {"label": rng.integers(0, CLASSES, 8).astype(np.int32)}
        level = labels["label"][:, None, None]
    else:
        cells = rng.integers(0, CLASSES, (8, 8, 8), dtype=np.uint8)
        labels = {"mask": cells.repeat(SIDE // 8, 1).repeat(SIDE // 8, 2)}
        level = labels["mask"]
    noise = rng.integers(0, 100, (8, SIDE, SIDE, 3))
    return {"image": (60 * level[..., None] + noise).astype(np.uint8), **labels}


def inputs(batch):
    return NORMALISE(batch["image"])


def describe(name, task):
    """As much of a run as `program` asks for."""
    settings = {"seed": 0, "accumulate": 1, "ema": 0.0, "deterministic": False}
    return SimpleNamespace(
        # What a run chooses where rows are split.
        model=models.create(name, num_classes=CLASSES, width=0.2, convolution="native"),
        task=TASKS[task],
        training_inputs=inputs,
        inputs=inputs,
        input_shape=(SIDE, SIDE, 3),
        config=SimpleNamespace(**settings),
    )


def rate(step):
    """Of the schedule: large until the weights have settled."""
    return jnp.where(step < SETTLING, 0.01, 0.001)


SGD = optim.sgd(rate, momentum=0.9, weight_decay=1e-4)


def trainer(run, task, mesh):
    """`train(state, numbers of batches) -> (losses, state)`."""
    batch = sharding.to_devices(draw(task, 0), mesh)
    state = program.abstract_state(run, SGD, mesh)
    step = program.trainer(run, SGD, mesh).lower(state, batch).compile(QUICK)

    def train(state, numbers):
        losses = []
        for number in numbers:
            batch = sharding.to_devices(draw(task, number), mesh)
            state, metrics = step(state, batch)
            losses.append(float(metrics["loss"]))
        return losses, state

    return train


def totals(run, task, mesh, variables):
    """The task's sums over a batch that training does not see."""
    batch = sharding.to_devices(draw(task, 99), mesh)
    step = program.eval_step(run, mesh)
    return jax.device_get(step.lower(variables, batch).compile(QUICK)(variables, batch))


def near_ties(run, task, variables):
    """How many pixels, or images, of that batch have two best scores within 1e-5."""
    batch = draw(task, 99)
    logits, features = jax.jit(run.model.apply)(variables, run.training_inputs(batch))
    if task == "segmentation":
        logits = run.task.pixel_scores(features, SIDE, SIDE)
    second, best = np.moveaxis(np.sort(np.asarray(logits), axis=-1)[..., -2:], -1, 0)
    return int((best - second <= 1e-5).sum())


@pytest.fixture(scope="module", params=["drn_c_26", "drn_d_22"])
def name(request):
    return request.param


@pytest.fixture(scope="module", params=list(TASKS))
def settled(request, name, tmp_path_factory):
    """A run on one device that has settled: its checkpoint, what five more steps give there, and
    the totals of its weights."""
    task = request.param
    run = describe(name, task)
    alone = sharding.make_mesh(devices=jax.devices()[:1])
    state = program.initialiser(run, SGD, alone)(jax.random.key(0))
    train = trainer(run, task, alone)
    _, state = train(state, range(SETTLING))
    folder = tmp_path_factory.mktemp("settled")
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(state, {})
    scored = totals(run, task, alone, state.variables)
    ties = near_ties(run, task, state.variables)
    losses, state = train(state, range(SETTLING, SETTLING + STEPS))
    return SimpleNamespace(
        run=run,
        task=task,
        folder=folder,
        totals=scored,
        ties=ties,
        losses=losses,
        state=jax.device_get(state),
    )


@pytest.mark.long
@pytest.mark.parametrize("shape", MESHES, ids=str)
def test_a_mesh_trains_and_scores_like_one_device(settled, shape):
    mesh = sharding.make_mesh(MeshShape(*shape))
    run, task = settled.run, settled.task
    with Checkpoints(settled.folder, must_exist=True) as checkpoints:
        state = checkpoints.restore(SETTLING, program.abstract_state(run, SGD, mesh))

    split = {leaf.sharding.spec for leaf in jax.tree.leaves(state)}
    assert any("fsdp" in spec for spec in split) == (shape[1] > 1)
    for name, total in totals(run, task, mesh, state.variables).items():
        expected = settled.totals[name]
        if name == "loss":
            np.testing.assert_allclose(total, expected, rtol=1e-5)
        else:  # Two entries change where a pixel or an image goes elsewhere.
            assert np.abs(total - expected).sum() <= 2 * settled.ties, name

    losses, state = trainer(run, task, mesh)(state, range(SETTLING, SETTLING + STEPS))
    np.testing.assert_allclose(losses, settled.losses, rtol=0, atol=1e-5)
    found = jax.device_get(state)
    paths = jax.tree_util.tree_leaves_with_path(settled.state.trained)
    for leaf, (path, expected) in zip(jax.tree.leaves(found.trained), paths, strict=True):
        assert apart(leaf, expected) <= 1e-4, jax.tree_util.keystr(path)
    assert apart(flat(found.opt_state), flat(settled.state.opt_state)) <= 1e-3


def apart(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])

"""A checkpoint alone, without its data set, is enough to use a network."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drn_jax import config, models, trained
from drn_jax.data.dataset import Dataset
from drn_jax.errors import UserError
from drn_jax.models.context import Context
from drn_jax.training.checkpoint import Checkpoints


def settings(**changes):
    return config.parse(
        {
            "name": "tiny",
            "task": "segmentation",
            "model": {"name": "drn_d_22", "width": 0.05},
            "data": {"name": "list_folder", "dir": "no/such/folder", "crop": (64, 64)},
            "batch_size": 1,
            "epochs": 1,
            "optimizer": {"learning_rate": 0.1},
            "schedule": {"kind": "poly"},
        }
        | changes
    )


def draw(model, shape, seed=0):
    """Every array drawn, statistics too: no part of a network may go unnoticed."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: jnp.asarray(rng.uniform(0.1, 0.5, a.shape), jnp.float32), shapes)


def save(folder, given, variables, known):
    with Checkpoints(folder) as checkpoints:
        checkpoints.save_weights(variables, {"config": dataclasses.asdict(given), **known})


KNOWN = trained.described(("sky", "road", "car"), None, (0.4, 0.5, 0.6), (0.1, 0.2, 0.3))


@pytest.fixture(scope="module")
def front(tmp_path_factory):
    """A working directory of converted weights, and its variables."""
    folder = tmp_path_factory.mktemp("trained") / "front"
    variables = draw(models.create("drn_d_22", 3, 0.05), (1, 64, 64, 3))
    save(folder, settings(), variables, KNOWN)
    return folder, variables


def test_a_checkpoint_tells_what_its_set_was(front):
    folder, variables = front
    found = trained.load(str(folder))
    assert found.classes == ("sky", "road", "car")
    assert found.preprocess.mean == (0.4, 0.5, 0.6)
    assert found.preprocess.std == (0.1, 0.2, 0.3)
    assert found.colors.shape == (3, 3)
    assert found.stride == 8
    assert found.task.num_classes == 3
    jax.tree.map(np.testing.assert_array_equal, found.variables, variables)


def test_the_digest_is_of_the_numbers_and_their_names(front):
    folder, variables = front
    assert trained.load(str(folder)).digest == trained.digest(jax.device_get(variables))
    other = jax.tree.map(lambda a: a, variables)
    kernel = other["params"]["head"]["kernel"]
    other["params"]["head"]["kernel"] = kernel.at[0, 0, 0, 0].add(1e-6)
    assert trained.digest(other) != trained.digest(variables)


def test_without_that_the_set_is_asked_for(tmp_path, front):
    _, variables = front
    save(tmp_path / "old", settings(), variables, {"classes": ["sky", "road", "car"]})
    with pytest.raises(UserError, match=r"does not tell its classes.*no/such/folder"):
        trained.load(str(tmp_path / "old"))


def test_a_context_module_comes_with_its_front_end(tmp_path, front):
    folder, variables = front
    given = settings(
        task="context",
        model={"name": "context", "context": {"layers": 4}},
        data={"front_end": str(folder)},
    )
    module = models.create("context", 3, context=Context(4))
    of_module = draw(module, (1, 8, 8, 3), seed=1)
    save(tmp_path / "module", given, of_module, KNOWN)
    found = trained.load(str(tmp_path / "module"))
    image = jax.random.uniform(jax.random.key(2), (1, 32, 40, 3))
    _, features = found.model.apply(found.variables, image)
    _, before = models.create("drn_d_22", 3, 0.05).apply(variables, image)
    _, behind = module.apply(of_module, before["logits_2d"])
    np.testing.assert_allclose(
        features["logits_2d"],
        behind["logits_2d"],
        rtol=1e-5,
        atol=1e-5 * np.abs(behind["logits_2d"]).max(),
    )
    assert found.classes == ("sky", "road", "car")


def test_what_is_known_of_a_set_survives_json():
    dataset = Dataset(
        "tiny", ("a", "b"), (), (), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), colors=((1, 2, 3), (4, 5, 6))
    )
    told = json.loads(json.dumps(trained.known(dataset)))
    assert told == {
        "classes": ["a", "b"],
        "colors": [[1, 2, 3], [4, 5, 6]],
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
    }

"""eval.py finds the run and its checkpoint, or says in one line what is wrong.

That its scores are those of training: test_train.py.
"""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from drn_jax import models
from drn_jax.training.checkpoint import Checkpoints
from drn_jax.training.state import TrainState

ROOT = Path(__file__).parent.parent
CLASSES = ("cat", "dog", "eel")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """`photographs`, and `run`: checkpoints of a random network, saved at step 2 and 5."""
    place = tmp_path_factory.mktemp("eval")
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in CLASSES:
            folder = place / "photographs" / split / name
            folder.mkdir(parents=True)
            image = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(image).save(folder / "0.png")
    data = {"name": "imagenet", "dir": str(place / "photographs"), "crop": 32, "resize": 32}
    # As an older version may have saved it: the fields that have defaults are missing.
    config = {
        "name": "tiny",
        "task": "classification",
        "model": {"name": "drn_d_22", "width": 0.05},
        "data": data,
        "batch_size": 2,
        "epochs": 1,
        "optimizer": {"learning_rate": 0.1},
        "schedule": {"kind": "poly"},
    }
    network = models.create("drn_d_22", len(CLASSES), 0.05)
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    variables = jax.tree.map(
        lambda a: jnp.asarray(rng.uniform(0.1, 0.5, a.shape), jnp.float32), shapes
    )
    with Checkpoints(place / "run") as checkpoints:
        for step, top1 in ((2, 0.5), (5, 0.25)):
            state = TrainState(jnp.asarray(step), opt_state=(), **variables)
            checkpoints.save(state, {"config": config}, {"top1": top1}, "top1")
    return place


@pytest.fixture(scope="module")
def score(place):
    """`score(*args)`: status, standard output's lines and standard error's of eval.py."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
        "JAX_COMPILATION_CACHE_DIR": str(place / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }

    def score(*args):
        found = subprocess.run(
            [sys.executable, ROOT / "eval.py", *map(str, args)],
            cwd=place,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return found.returncode, found.stdout.splitlines(), found.stderr.splitlines()

    return score


@pytest.fixture(scope="module")
def best(place, score):
    """What eval.py prints without further flags."""
    code, out, err = score(f"--workdir={place}/run")
    assert (code, err) == (0, [])
    return out


def test_the_best_checkpoint_is_scored_class_by_class(best):
    assert best[-2] == "drn_d_22, step 2, on the 3 validation images of photographs"
    names = [part.split()[0] for part in best[-1].split("  ")]
    assert names == ["val_loss", "val_top1", "val_top5"]
    for name in CLASSES:
        assert any(name in line for line in best)


def test_the_checkpoint_asked_for_is_scored(place, score):
    code, out, err = score(f"--workdir={place}/run", "--checkpoint=latest")
    assert (code, err) == (0, [])
    assert out[-2] == "drn_d_22, step 5, on the 3 validation images of photographs"


def test_the_data_may_lie_elsewhere_and_batches_may_be_larger(place, score, best, tmp_path):
    moved = tmp_path / "moved"
    (place / "photographs").rename(moved)
    try:
        code, _, err = score(f"--workdir={place}/run")
        assert (code, len(err)) == (1, 1)
        assert "no such folder" in err[0]
        flags = [f"--config.data.dir={moved}", "--config.eval_batch_size=3"]
        code, out, err = score("--workdir", f"{place}/run", *flags)
    finally:
        moved.rename(place / "photographs")
    assert (code, err) == (0, [])
    (loss, *counted), (best_loss, *best_counted) = out[-1].split("  "), best[-1].split("  ")
    assert counted == best_counted
    # The loss is a float32 sum, whose last digits follow the batches.
    assert float(loss.split()[1]) == pytest.approx(float(best_loss.split()[1]), rel=1e-5)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--workdir=nowhere"], "no checkpoints in nowhere: is it the working directory"),
        ([], "no checkpoints in runs/quickstart: is it the working directory"),
        (["--workdir=run", "--checkpoint=7"], "use best, latest or one of 2, 5"),
        (["--workdir=run", "--config.model.widht=1"], "did you mean 'width'?"),
        (["--workdir=run", "--config.model.width=0.1"], "does not fit the model: - batch_stats/"),
        (["--workdir=run", "run"], "unexpected argument 'run'"),
    ],
)
def test_a_mistake_is_one_line_and_makes_no_folder(place, score, flags, says):
    before = sorted(path.name for path in place.iterdir())
    code, _, err = score(*flags)
    assert (code, len(err)) == (1, 1)
    assert err[0].startswith("error: ")
    assert says in err[0]
    assert sorted(path.name for path in place.iterdir()) == before

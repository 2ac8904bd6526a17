"""`python -m drn_jax.convert`: published weights become a working directory, and back."""

import json
import sys

import jax
import numpy as np
import pytest

from drn_jax import config
from drn_jax.convert import __main__ as command
from drn_jax.convert import torch as convert
from drn_jax.training import sharding
from drn_jax.training.checkpoint import Checkpoints

torch = pytest.importorskip("torch")


@pytest.fixture
def run(monkeypatch, capsys):
    """`run(*args)`: exit status, output and error lines of the command."""

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["convert", *map(str, args)])
        try:
            command.main()
            status = 0
        except SystemExit as stopped:
            status = stopped.code
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


@pytest.fixture(scope="module")
def weights(tmp_path_factory, golden):
    """A file of fyu/drn's DRN-D-22 for segmentation, and its state."""
    published = golden("drn_d_22_seg")
    state = {**published.state, "up.weight": convert.bilinear_kernel(19)}
    path = tmp_path_factory.mktemp("weights") / "drn_d_22_cityscapes.pth"
    convert.write(path, {key: np.ascontiguousarray(value) for key, value in state.items()})
    return path, state


def test_a_file_becomes_a_checkpoint_that_names_its_source_and_goes_back(run, weights, tmp_path):
    path, state = weights
    out = tmp_path / "out"
    status, printed, errors = run("torch", path, "--model=drn_d_22", f"--out={out}")
    assert (status, errors) == (0, "")
    with Checkpoints(out, must_exist=True) as checkpoints:
        meta = checkpoints.meta(0)
        found = checkpoints.all_variables(0, sharding.replicated(sharding.make_mesh()))
    assert meta["source"]["sha256"] in printed
    assert len(meta["source"]["sha256"]) == 64
    settings = config.parse(json.loads(json.dumps(meta["config"])))
    assert (settings.task, settings.model.name) == ("segmentation", "drn_d_22")
    assert jax.tree.all(
        jax.tree.map(np.array_equal, jax.device_get(found), convert.load("drn_d_22", state))
    )

    back = tmp_path / "back.pth"
    status, _, errors = run("dump", out, f"--out={back}")
    assert (status, errors) == (0, "")
    read = torch.load(back, weights_only=True)
    assert read.keys() == state.keys()
    assert all(np.array_equal(read[key].numpy(), state[key]) for key in state)


def test_the_wrong_model_is_one_line_and_leaves_nothing(run, weights, tmp_path):
    out = tmp_path / "out"
    status, _, errors = run("torch", weights[0], "--model=drn_d_38", f"--out={out}")
    assert status == 1
    assert errors.count("\n") == 1
    assert "does not fit drn_d_38" in errors
    assert not out.exists()


def test_a_directory_in_use_is_not_written_to(run, weights, tmp_path):
    (tmp_path / "mine").write_text("keep")
    status, _, errors = run("torch", weights[0], "--model=drn_d_22", f"--out={tmp_path}")
    assert status == 1
    assert "is not empty" in errors

"""`python -m drn_jax.convert`: published weights become a working directory, and back."""

import hashlib
import json
import sys

import jax
import numpy as np
import pytest

from drn_jax import config, models
from drn_jax.convert import __main__ as command
from drn_jax.convert import caffe
from drn_jax.convert import torch as convert
from drn_jax.models.context import ContextModule
from drn_jax.training import sharding
from drn_jax.training.checkpoint import Checkpoints

NARROW = 0.02


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


@pytest.fixture
def caffemodel(goldens):
    """A file of the context module for CamVid."""
    return goldens / "context8_camvid.caffemodel"


@pytest.fixture(scope="module")
def weights(tmp_path_factory, golden, torch):
    """A file of fyu/drn's DRN-D-22 for segmentation, and its state."""
    published = golden("drn_d_22_seg")
    state = {**published.state, "up.weight": convert.bilinear(19)}
    path = tmp_path_factory.mktemp("weights") / "drn_d_22_cityscapes.pth"
    convert.write(path, {key: np.ascontiguousarray(value) for key, value in state.items()})
    return path, state


def narrow(name):
    """Variables of a narrow network, all 0."""
    model = models.create(name, width=NARROW)
    maps = isinstance(model, ContextModule)
    image = np.zeros((1, 400, 400, model.channels if maps else 3), np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    return jax.tree.map(lambda a: np.zeros(a.shape, np.float32), shapes)


def saved(workdir):
    """Metadata and variables of converted weights."""
    with Checkpoints(workdir, must_exist=True) as checkpoints:
        found = checkpoints.all_variables(0, sharding.replicated(sharding.make_mesh()))
        return checkpoints.meta(0), jax.device_get(found)


def same(first, second):
    return jax.tree.all(jax.tree.map(np.array_equal, first, second))


def test_a_file_becomes_a_checkpoint_that_names_its_source_and_goes_back(
    run, weights, torch, tmp_path
):
    path, state = weights
    out = tmp_path / "out"
    status, printed, errors = run("torch", path, "--model=drn_d_22", f"--out={out}")
    assert (status, errors) == (0, "")
    meta, found = saved(out)
    assert meta["source"]["sha256"] in printed
    assert len(meta["source"]["sha256"]) == 64
    settings = config.parse(json.loads(json.dumps(meta["config"])))
    assert (settings.task, settings.model.name) == ("segmentation", "drn_d_22")
    assert settings.data.grid.border == "zero"
    assert same(found, convert.load("drn_d_22", state))

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


@pytest.mark.parametrize("out", ["", "mine"])
def test_a_directory_in_use_or_a_file_is_not_written_to(run, caffemodel, tmp_path, out):
    (tmp_path / "mine").write_text("keep")
    where = tmp_path / out
    status, _, errors = run("caffe", caffemodel, "--model=context8_camvid", f"--out={where}")
    assert (status, errors) == (
        1,
        f"error: --out={where} is no empty directory: name a new one\n",
    )
    assert (tmp_path / "mine").read_text() == "keep"


def test_a_caffemodel_becomes_a_checkpoint_that_names_its_source(run, caffemodel, tmp_path):
    out = tmp_path / "out"
    status, printed, errors = run("caffe", caffemodel, "--model=context8_camvid", f"--out={out}")
    assert (status, errors) == (0, "")
    meta, found = saved(out)
    digest = hashlib.sha256(caffemodel.read_bytes()).hexdigest()
    assert meta["source"] == {"file": caffemodel.name, "sha256": digest, "layout": "caffe"}
    assert f"11 classes\nfrom {caffemodel.name} (SHA-256 {digest}, names as caffe)" in printed
    settings = config.parse(json.loads(json.dumps(meta["config"])))
    assert (settings.task, settings.model.name) == ("context", "context8_camvid")
    assert same(found, caffe.load("context8_camvid", caffemodel))


@pytest.mark.parametrize(
    ("name", "task", "data", "interpolate"),
    [
        ("vgg_16", "classification", "imagenet", None),
        ("vgg_16_front_end", "segmentation", "list_folder", "probabilities"),
        ("dilation8_pascal_voc", "segmentation", "pascal_voc", "probabilities"),
        ("dilation8_camvid", "segmentation", "camvid_640", "probabilities"),
        ("dilation7_kitti", "segmentation", "kitti", "probabilities"),
        ("dilation10_cityscapes", "segmentation", "cityscapes", "logits"),
        ("context8_camvid", "context", None, "probabilities"),
    ],
)
def test_the_configuration_of_caffe_weights_is_that_of_the_published_set(
    run, monkeypatch, tmp_path, name, task, data, interpolate
):
    monkeypatch.setattr(caffe, "load", lambda name, source, width: narrow(name))
    (tmp_path / "net.caffemodel").touch()
    status, _, errors = run(
        "caffe",
        tmp_path / "net.caffemodel",
        f"--model={name}",
        f"--width={NARROW}",
        f"--out={tmp_path / 'out'}",
    )
    assert (status, errors) == (0, "")
    settings = config.parse(saved(tmp_path / "out")[0]["config"])
    assert (settings.task, settings.model.name, settings.model.width) == (task, name, NARROW)
    assert getattr(settings.data, "name", None) == data
    grid = getattr(settings.data, "grid", None)
    assert getattr(grid, "interpolate", None) == interpolate


def test_the_weights_of_another_net_are_one_line_and_leave_nothing(run, caffemodel, tmp_path):
    out = tmp_path / "out"
    status, _, errors = run("caffe", caffemodel, "--model=context7_kitti", f"--out={out}")
    assert status == 1
    assert errors.count("\n") == 1
    assert "does not fit context7_kitti: - ctx_conv5_1.bias (11,), - ctx_conv5_1.weight" in errors
    assert not out.exists()


def test_a_net_that_pytorch_does_not_have_is_refused_with_the_command_that_reads_it(
    run, caffemodel, tmp_path
):
    out = tmp_path / "out"
    status, _, errors = run("torch", caffemodel, "--model=context8_camvid", f"--out={out}")
    assert status == 1
    assert "drn_jax.convert caffe FILE --model context8_camvid" in errors
    run("caffe", caffemodel, "--model=context8_camvid", f"--out={out}")
    status, _, errors = run("dump", out, f"--out={tmp_path / 'back.pth'}")
    assert (status, errors.count("\n")) == (1, 1)
    assert "context8_camvid has no names in PyTorch" in errors
    assert not (tmp_path / "back.pth").exists()


def test_vgg_16_of_caffe_is_dumped_under_torchvisions_names(run, torch, monkeypatch, tmp_path):
    monkeypatch.setattr(caffe, "load", lambda name, source, width: narrow(name))
    (tmp_path / "net.caffemodel").touch()
    out, back = tmp_path / "out", tmp_path / "back.pth"
    file = tmp_path / "net.caffemodel"
    run("caffe", file, "--model=vgg_16", f"--width={NARROW}", f"--out={out}")
    status, printed, errors = run("dump", out, f"--out={back}")
    assert (status, errors) == (0, "")
    assert "vgg_16, step 0: 32 arrays, names as torchvision_vgg" in printed
    assert "features.28.bias" in torch.load(back, weights_only=True)

"""Two processes with four devices each, joined on this machine, run as one program: train.py and
eval.py as docs/hosts.md starts them.

The learning rate is tiny and constant: at greater ones float32 rounding, which differs with the
mesh, grows a hundredfold a step in so narrow a network.
"""

import json
import re
import shutil
import signal
import socket

import jax
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding

from drn_jax.training.checkpoint import Checkpoints

pytestmark = pytest.mark.long

STEPS = 15
"""Of the whole run; `FEW`, an epoch, of the one of two processes that nothing stops."""
FEW = 3

MESHES = {
    "data": {"data": 2, "fsdp": 2, "spatial": 2},  # Each process has examples of its own,
    "fsdp": {"data": 1, "fsdp": 2, "spatial": 4},  # and half of the parameters.
}

GLOO = r"\[Gloo\] Rank |is connected to|Expected number of connected peer ranks is :|peer ranks\."

PATIENCE = 240
"""Seconds after which a process counts as hanging."""


def mesh(name):
    return [f"--config.mesh.{axis}={size}" for axis, size in MESHES[name].items()]


@pytest.fixture(scope="session")
def config(place):
    """The flag that names a configuration of `STEPS` steps."""
    text = (place / "streets.py").read_text()
    for old, new in (
        ('"poly"', '"constant"'),
        ("0.05})\n    config.schedule", "1e-5})\n    config.schedule"),
        ("config.epochs = 2", f"config.steps = {STEPS}"),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    (place / "slow.py").write_text(text)
    return f"--config={place / 'slow.py'}"


@pytest.fixture(scope="session")
def alone(place, config, start):
    """The working directories of one process with eight devices, after `FEW` steps and at the end;
    all that it printed."""
    few, whole = place / "alone_few", place / "alone"
    printed = []
    for workdir, steps in ((few, FEW), (whole, STEPS)):
        command = (config, f"--workdir={workdir}", f"--config.steps={steps}", *mesh("data"))
        out, err = start("train.py", *command, devices=8).communicate()
        assert err == "", out
        printed += out.splitlines()
        if workdir == few:
            shutil.copytree(few, whole)
    return few, whole, printed


@pytest.fixture
def hosts(start):
    """`hosts(program, *args)`: two processes that find each other. `own` holds arguments that each
    gets for itself. None outlives the test."""
    started = []

    def hosts(program, *args, own=((), ())):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        joined = (f"--coordinator={address}", "--processes=2")
        pair = [
            start(program, *args, *own[i], *joined, f"--process={i}", devices=4) for i in (0, 1)
        ]
        started.extend(pair)
        return pair

    yield hosts
    for process in started:
        process.kill()
        process.communicate()


def ended(pair, status=0):
    """What both printed, once they ended, each with `status`: output lines and errors."""
    told = [process.communicate(timeout=PATIENCE) for process in pair]
    assert [process.returncode for process in pair] == [status] * 2, told
    outputs, errors = zip(*told, strict=True)
    return [ours(out) for out in outputs], errors


def ours(output):
    """The lines but those of Gloo, by which CPUs talk: it prints in pieces, out of many threads."""
    lines = []
    for line in output.splitlines():
        rest = re.sub(GLOO, "", line)
        lines.append(rest if rest == line else rest.lstrip(" 0123456789"))
    return [line for line in lines if line.strip(" 0123456789")]


def rows_of(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def assert_same_rows(workdir, expected):
    """But for rounding, and for what the clock and the machine say."""
    found, expected = rows_of(workdir), rows_of(expected)
    assert [row["step"] for row in found] == [row["step"] for row in expected]
    for row, wanted in zip(found, expected, strict=True):
        for name in wanted.keys() & {"train_loss", "val_loss", "learning_rate", "epoch"}:
            assert row[name] == pytest.approx(wanted[name], rel=1e-5), (row, wanted)
        for name in wanted.keys() & {"grad_norm", "val_miou", "val_pixel_accuracy"}:
            assert row[name] == pytest.approx(wanted[name], rel=1e-3), (row, wanted)


def values_of(workdir):
    """Every array of the newest checkpoint's variables by its name."""
    with Checkpoints(workdir, must_exist=True) as checkpoints:
        here = SingleDeviceSharding(jax.devices()[0])
        tree = checkpoints.all_variables(checkpoints.choose("latest").step, here)
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def assert_same_values(workdir, expected):
    found, expected = values_of(workdir), values_of(expected)
    assert set(found) == set(expected)
    for name, value in expected.items():
        error = np.linalg.norm(found[name] - value) / np.linalg.norm(value)
        assert error < 1e-4, name


def saved_steps(workdir):
    with Checkpoints(workdir, must_exist=True) as checkpoints:
        return [c.step for c in checkpoints.saved()]


def test_two_processes_train_as_one_and_the_first_alone_tells_of_it(tmp_path, alone, config, hosts):
    few, _, _ = alone
    run = (config, f"--workdir={tmp_path}", f"--config.steps={FEW}", *mesh("data"))
    outputs, errors = ended(hosts("train.py", *run, "--config.save_steps=2"))
    assert errors == ("", "")
    assert outputs[1] == []
    assert any("on 8 x cpu of 2 processes as data 2 x fsdp 2 x spatial 2" in s for s in outputs[0])
    steps = [line.split()[1] for line in outputs[0] if line.startswith("step ")]
    assert steps == [f"{step}/{FEW}" for step in range(1, FEW + 1)]
    assert_same_rows(tmp_path, few)
    assert_same_values(tmp_path, few)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoints",
        "metrics.jsonl",
        "report.html",
        "tensorboard",
    ]
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1

    (best,) = [line for line in outputs[0] if line.startswith("best, of step ")]
    outputs, errors = ended(hosts("eval.py", f"--workdir={tmp_path}"))
    assert errors == ("", "")
    assert outputs[1] == []
    assert outputs[0][-1] == best[best.index("val_") :]


@pytest.mark.parametrize(("told", "shape"), [(0, "data"), (1, "fsdp")])
def test_a_signal_to_one_stops_both_and_a_single_device_goes_on(
    tmp_path, alone, config, hosts, start, told, shape
):
    _, whole, _ = alone
    run = ("train.py", config, f"--workdir={tmp_path}")
    pair = hosts(*run, *mesh(shape))
    while "step 1/" not in (line := pair[0].stdout.readline()):
        assert line, pair[0].stderr.read()
    pair[told].send_signal(signal.SIGTERM)
    outputs, errors = ended(pair, status=143)
    assert errors[1 - told] == ""
    assert re.fullmatch(r".*SIGTERM caught.*\n", errors[told])  # Says JAX.
    assert outputs[1] == []
    step = int(re.fullmatch(r"stopped at step (\d+) and saved; .*", outputs[0][-1])[1])
    assert 1 <= step < STEPS
    assert saved_steps(tmp_path)[-1] == step
    assert not (tmp_path / "report.html").exists()

    out, err = start(*run).communicate()
    assert err == "", out
    lines = out.splitlines()
    assert f"going on from step {step} in {tmp_path / 'checkpoints'}" in lines
    steps = [line.split()[1] for line in lines if line.startswith("step ")]
    assert steps == [f"{s}/{STEPS}" for s in range(step + 1, STEPS + 1)]
    assert_same_rows(tmp_path, whole)
    assert_same_values(tmp_path, whole)


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--config.model.name=drn_d22", "unknown model 'drn_d22': did you mean drn_d_22"),
        ("--config.mesh.data=3", "config.mesh = data 3 x fsdp 1 x spatial 1 does not fit 8 dev"),
    ],
)
def test_a_mistake_ends_both_processes_with_one_line_each(tmp_path, config, hosts, flag, says):
    workdir = tmp_path / "run"
    outputs, errors = ended(hosts("train.py", config, f"--workdir={workdir}", flag), status=1)
    assert outputs == [[], []]
    for error in errors:
        (line,) = error.splitlines()
        assert line.startswith("error: ")
        assert says in line
    assert not workdir.exists()


@pytest.mark.parametrize("bad", [0, 1])
def test_a_damaged_image_of_one_host_ends_both_and_both_name_it(
    tmp_path, place, config, hosts, bad
):
    folder = tmp_path / "streets"
    shutil.copytree(place / "streets", folder)
    for i in range(12):
        path = folder / "images" / f"train{i}.png"
        path.write_bytes(path.read_bytes()[:200])  # Its head, which tells the size, stays.
    own = [(), ()]
    own[bad] = (f"--config.data.dir={folder}",)
    pair = hosts("train.py", config, f"--workdir={tmp_path / 'run'}", *mesh("data"), own=own)
    _, errors = ended(pair, status=1)
    for process, error in enumerate(errors):
        (line,) = error.splitlines()
        assert line.startswith("error: " if process == bad else f"error: process {bad} failed: ")
        assert f"{folder}/images/train" in line
        assert "damaged or truncated" in line

"""A run that is killed goes on with the same command, to the bits of one that nothing disturbed;
and nothing is compiled while it runs."""

import contextlib
import json
import random
import re
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding

from drn_jax.training.checkpoint import Checkpoints
from drn_jax.training.sharding import placed

pytestmark = pytest.mark.long

STEPS = 30
"""Three an epoch; every second is saved."""
KILLS = ["start"] * 2 + ["restore"] * 2 + ["step"] * 3 + ["write"]
"""Of each of two runs, in an order of its own; one more comes before and one after."""

MEASURED = {"images_per_s", "step_s", "input_s", "compute_s", "tflops_per_s", "memory_gb"}


@pytest.fixture(scope="session")
def config(place):
    text = (place / "streets.py").read_text()
    old = "config.epochs = 2"
    assert text.count(old) == 1
    new = [f"steps = {STEPS}", "eval_epochs = 3", "save_steps = 2", "ema = 0.99"]
    lines = "\n    ".join(f"config.{field}" for field in new)
    (place / "saving.py").write_text(text.replace(old, lines))
    return f"--config={place / 'saving.py'}"


@pytest.fixture(scope="session")
def undisturbed(place, config, start):
    """Its working directory, and all that it printed and JAX told of compiling, in order."""
    workdir = place / "undisturbed"
    process = start(
        "train.py",
        config,
        f"--workdir={workdir}",
        stderr=subprocess.STDOUT,
        JAX_LOG_COMPILES="1",
    )
    out, _ = process.communicate()
    assert process.returncode == 0, out
    return workdir, out.splitlines()


def told(workdir):
    """The rows of metrics.jsonl but for what the clock and the machine say."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in MEASURED} for row in rows]


def everything(workdir):
    """Every array of every checkpoint by step and name: parameters, averages, optimiser, step."""
    here = SingleDeviceSharding(jax.devices()[0])
    found = {}
    with Checkpoints(workdir, must_exist=True) as checkpoints:
        for saved in checkpoints.saved():
            stored = checkpoints._metadata(saved.step).metadata
            tree = checkpoints._load(saved.step, placed(dict(stored), here))
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
                found[f"{saved.step}{jax.tree_util.keystr(path)}"] = np.asarray(leaf)
    return found


def assert_same(workdir, expected):
    """To the bit."""
    assert told(workdir) == told(expected)
    found, wanted = everything(workdir), everything(expected)
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        assert found[name].tobytes() == value.tobytes(), name


def unfinished(workdir):
    """The writes of checkpoints that are under way, or were when their process was killed."""
    found = (workdir / "checkpoints").glob("*.orbax-checkpoint-tmp")
    with contextlib.suppress(FileNotFoundError):  # Finished meanwhile.
        return {(path.name, path.stat().st_ino) for path in found}
    return set()


def until(process, beginning, count=1):
    """Read what the process prints, up to the `count`-th line that begins so."""
    for line in iter(process.stdout.readline, ""):
        count -= line.startswith(beginning)
        if count == 0:
            return
    raise AssertionError(f"ended before {beginning!r}: {process.stderr.read()}")


def complaints(err):
    """What is on standard error, but for Orbax's word on a disk that is busy with other things."""
    return [s for s in err.splitlines() if "Waiting for previous save to complete took" not in s]


def kill(process, workdir, kind, draw):
    """Kill at a moment of a kind. Returns whether a write was left unfinished by it."""
    before = unfinished(workdir)
    if kind == "start":
        time.sleep(draw.uniform(0, 3))
    elif kind == "restore":
        until(process, "going on from step ")
        time.sleep(draw.uniform(0, 0.7))
    elif kind == "report":
        until(process, "best, of step ")
        time.sleep(draw.uniform(0, 0.7))
    elif kind == "write":
        until(process, "step ", 2)
        while not unfinished(workdir) - before:
            assert process.poll() is None
    elif kind == "saved":  # For all that come later there is something to restore.
        until(process, "step ", 2)
        while not list((workdir / "checkpoints").glob("[0-9]")):
            assert process.poll() is None
    else:
        until(process, "step ", draw.randint(1, 3))
        time.sleep(draw.uniform(0, 0.5))
    process.kill()
    _, err = process.communicate()
    assert process.returncode == -signal.SIGKILL, err
    assert complaints(err) == []
    return bool(unfinished(workdir) - before)


def test_a_run_killed_at_any_moment_goes_on_to_the_bits_of_one_that_was_not(
    tmp_path, undisturbed, config, start
):
    def disturbed(seed):
        """How many kills left a write unfinished, of a run that then ended well."""
        draw, workdir = random.Random(seed), tmp_path / str(seed)
        command = ("train.py", config, f"--workdir={workdir}")
        kinds = ["saved", *draw.sample(KILLS, len(KILLS)), "report"]
        left = 0
        for kind in kinds:
            with start(*command) as process:
                left += kill(process, workdir, kind, draw)
        process = start(*command)
        _, err = process.communicate()
        assert process.returncode == 0, err
        assert complaints(err) == []
        assert (workdir / "report.html").exists()
        return left

    with ThreadPoolExecutor(2) as pool:
        left = list(pool.map(disturbed, (1, 2)))
    assert all(left)
    for seed in (1, 2):
        workdir = tmp_path / str(seed)
        assert not unfinished(workdir)
        assert_same(workdir, undisturbed[0])


def test_nothing_is_compiled_but_for_the_first_step_the_first_validation_and_the_report(
    undisturbed,
):
    events = re.compile(r"Finished XLA compilation of jit\((.+)\) in|^(step 1)/|^(best), of step ")
    found = [next(filter(None, m.groups())) for m in map(events.search, undisturbed[1]) if m]
    first, report = found.index("step 1"), found.index("best")
    assert found[:first].count("train_step") == 1
    assert found[first + 1 : report] == ["eval_step"]
    assert not {"train_step", "eval_step"} & set(found[report:])

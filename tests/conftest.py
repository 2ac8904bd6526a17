"""Strict surroundings for every test: eight CPU devices, no silent broadcasting of ranks.

Warnings are errors by setup.cfg. Below: small data sets, and the programs as a person runs them.
"""

import os

os.environ["XLA_FLAGS"] = " ".join(
    (os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=8")
).strip()
os.environ["JAX_PLATFORMS"] = "cpu"

import contextlib
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import fsspec
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils.epath.backend import fsspec_backend
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.registry import _registry
from ml_collections import ConfigDict
from PIL import Image

from drn_jax import config, models, places, runtime, trained
from drn_jax.training.checkpoint import Checkpoints

jax.config.update("jax_numpy_rank_promotion", "raise")

ROOT = Path(__file__).parent.parent

CONFIG = """
from ml_collections import ConfigDict

from drn_jax.config import complete


def get_config():
    config = ConfigDict()
    config.name = "tiny"
    config.task = {task!r}
    config.model = ConfigDict({{"name": "drn_d_22", "width": 0.05}})
    config.data = ConfigDict({data!r})
    config.batch_size = 4
    config.epochs = 2
    config.log_steps = 1
    config.optimizer = ConfigDict({{"learning_rate": 0.05}})
    config.schedule = ConfigDict({{"kind": "poly"}})
    return complete(config)
"""


def pytest_collection_modifyitems(items):
    """Files that hold a long test come first, so that workers that take a file each (`--dist
    loadfile`) end at about the same time."""
    long = {item.path for item in items if item.get_closest_marker("long")}
    items.sort(key=lambda item: item.path not in long)


def picture(rng, mask):
    """Brighter where the class is higher, with noise."""
    noise = rng.integers(0, 60, (*mask.shape, 3), dtype=np.uint8)
    return Image.fromarray(mask[..., None] * np.uint8(80) + noise)


def write_streets(root):
    """12 training and 6 validation pairs of 32x32 in three classes, as lists."""
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True)
    for split, count in (("train", 12), ("val", 6)):
        for i in range(count):
            mask = rng.integers(0, 3, (4, 4), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
            picture(rng, mask).save(root / f"images/{split}{i}.png")
            Image.fromarray(mask).save(root / f"labels/{split}{i}.png")
        for kind in ("images", "labels"):
            lines = [f"{kind}/{split}{i}.png\n" for i in range(count)]
            (root / f"{split}_{kind}.txt").write_text("".join(lines))
    info = {"mean": [0.45] * 3, "std": [0.27] * 3, "classes": ["road", "sky", "car"]}
    (root / "info.json").write_text(json.dumps(info))


def write_photographs(root):
    """Four classes, three training images and one validation image of 32x32 each."""
    rng = np.random.default_rng(1)
    for split, count in (("train", 3), ("val", 1)):
        for level, name in enumerate(("cat", "dog", "eel", "fox")):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                mask = np.full((32, 32), level, np.uint8) // 2
                picture(rng, mask).save(root / split / name / f"{i}.png")


def random_variables(module, *inputs, seed=0):
    """What `module.init(key, *inputs)` would return, by shape, filled with NumPy's numbers.

    `inputs` are arrays or shapes of float32 images. Kernels keep the scale of what they convolve;
    scales and variances lie around 1, biases and means around 0, none of them exactly there.
    """
    inputs = [jnp.zeros(x) if isinstance(x, tuple) else x for x in inputs]
    shapes = jax.eval_shape(lambda key: module.init(key, *inputs), jax.random.key(0))
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        name = path[-1].key
        if name in ("scale", "var"):
            values = rng.uniform(0.5, 1.5, leaf.shape)
        elif name in ("bias", "mean"):
            values = rng.normal(0, 0.1, leaf.shape)
        else:
            values = rng.normal(0, np.sqrt(2 / np.prod(leaf.shape[:-1])), leaf.shape)
        return np.asarray(values, leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, shapes)


@pytest.fixture(scope="session")
def variables_of():
    """`random_variables`."""
    return random_variables


@pytest.fixture(scope="session")
def save_random():
    """`save_random(folder, name, task, classes, data)`: a working directory of a narrow network
    with random weights, by its path. `times`: what every parameter is multiplied by."""

    def save_random(folder, name, task, classes, data, seed=0, times=1.0):
        network = models.create(name, len(classes), 0.05)
        settings = {
            "name": "tiny",
            "task": task,
            "model": {"name": name, "width": 0.05},
            "data": data,
            "batch_size": 1,
            "epochs": 1,
            "optimizer": {"learning_rate": 0.1},
            "schedule": {"kind": "poly"},
        }
        known = trained.described(tuple(classes), None, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
        meta = {"config": config.complete(ConfigDict(settings)).to_dict(), **known}
        variables = random_variables(network, (1, 64, 64, 3), seed=seed)
        variables["params"] = jax.tree.map(lambda a: a * np.float32(times), variables["params"])
        with Checkpoints(folder) as checkpoints:
            checkpoints.save_weights(variables, meta)
        return str(folder)

    return save_random


class Printed(NamedTuple):
    """What a command did."""

    status: Any
    out: str
    err: str


@pytest.fixture
def command(monkeypatch, capsys):
    """`command(module, *args)`: exit status and output of `python -m`, in this process, without a
    cache of programs."""

    def command(module, *args):
        monkeypatch.setattr(runtime, "keep_compiled", lambda: None)
        monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, args)])
        with pytest.raises(SystemExit) as stopped:
            module.main()
        return Printed(stopped.value.code, *capsys.readouterr())

    return command


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """The folder that gs://fake serves, and s3://fake."""
    top = tmp_path / "buckets"
    (top / "fake").mkdir(parents=True)

    class Buckets(DirFileSystem):
        protocol = ("gs", "gcs", "s3")

        def __init__(self, **_):
            super().__init__(str(top), fsspec.filesystem("file", auto_mkdir=True))

    for scheme in Buckets.protocol:
        monkeypatch.setitem(_registry, scheme, Buckets)
    caches = places._file_system, fsspec_backend._get_filesystem
    for cache in caches:
        cache.cache_clear()
    yield top / "fake"
    for cache in caches:
        cache.cache_clear()


@pytest.fixture
def record_bucket(bucket, monkeypatch):
    """`bucket`, for array_record as well: its reader asks Google's server on its own."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            name = unquote(urlsplit(self.path).path).split("/fake/", 1)[1].removeprefix("o/")
            data = (bucket / name).read_bytes()
            first, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")
            start = int(first) if first else max(0, len(data) - int(last))
            end = min(len(data), int(last) + 1 if first and last else len(data))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
            self.send_header("Content-Length", str(end - start))
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(data[start:end])

        def log_message(self, format, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", address)
        yield bucket
        server.shutdown()


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """The data sets `streets` and `photographs`, and a configuration `.py` for each."""
    place = tmp_path_factory.mktemp("programs")
    write_streets(place / "streets")
    write_photographs(place / "photographs")
    data = {"name": "list_folder", "dir": str(place / "streets"), "crop": (32, 32)}
    (place / "streets.py").write_text(CONFIG.format(task="segmentation", data=data))
    data = {"name": "imagenet", "dir": str(place / "photographs"), "crop": 32, "resize": 32}
    (place / "photographs.py").write_text(CONFIG.format(task="classification", data=data))
    return place


@pytest.fixture(scope="session")
def start(place):
    """`start(program, *args)`: the process, running in an empty folder on one device; `devices`
    gives it several, and keywords more variables of the environment.

    All share a compilation cache.
    """
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "200",
        "JAX_COMPILATION_CACHE_DIR": str(place / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    (place / "here").mkdir()

    def start(program, *args, devices=1, stderr=subprocess.PIPE, **variables):
        quick = "--xla_backend_optimization_level=0"  # To compile.
        many = f" --xla_force_host_platform_device_count={devices}" if devices > 1 else ""
        return subprocess.Popen(
            [sys.executable, ROOT / program, *map(str, args)],
            cwd=place / "here",
            env=environment | {"XLA_FLAGS": quick + many} | variables,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )

    return start


@pytest.fixture(scope="session")
def run(start):
    """`run(program, *args)`: what the program printed, once it has ended with `status`."""

    def run(program, *args, status=0):
        process = start(program, *args)
        out, err = process.communicate()
        assert process.returncode == status, out + err
        if status == 0:
            assert err == ""
            return out.splitlines()
        assert "Traceback" not in out + err
        (line,) = err.splitlines()
        assert line.startswith("error: ")
        return line

    return run

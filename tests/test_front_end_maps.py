"""A front end's maps are computed once, and are those of its images, weights and settings."""

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from drn_jax import front_end_maps
from drn_jax.data.dataset import Dataset
from drn_jax.errors import UserError
from drn_jax.front_end_maps import FrontEnd

ROOT = Path(__file__).parents[1]
CLASSES = 3
STRIDE = 2


class Corners(nn.Module):
    """A front end of stride 2: a linear classifier on the upper left pixel of every cell."""

    @nn.compact
    def __call__(self, images, train):
        assert not train
        kernel = self.param("kernel", nn.initializers.normal(), (3, CLASSES))
        scores = images[:, ::STRIDE, ::STRIDE] @ kernel
        return scores.mean((1, 2)), {"logits_2d": scores}


class Images:
    """Random images of the sizes given; counts how often it is read."""

    def __init__(self, sizes, seed):
        self.sizes, self.seed, self.reads = sizes, seed, 0

    def __len__(self):
        return len(self.sizes)

    def make(self, index):
        rng = np.random.default_rng([self.seed, index])
        return {
            "image": rng.integers(0, 256, (*self.sizes[index], 3), dtype=np.uint8),
            "mask": rng.integers(0, CLASSES, self.sizes[index], dtype=np.uint8),
        }

    def __getitem__(self, index):
        self.reads += 1
        return self.make(index)


KERNEL = np.random.default_rng(0).normal(size=(3, CLASSES)).astype(np.float32)
ALIKE = [(4, 6)] * 5
DIFFERENT = [(4, 6), (6, 4), (4, 6), (5, 7), (6, 4)]


def images(sizes=ALIKE, validation=ALIKE[:3]):
    def of(sizes):
        return lambda: None if len(set(sizes)) == 1 else tuple(sizes)

    return Dataset(
        "tiny",
        ("a", "b", "c"),
        Images(sizes, 1),
        Images(validation, 2),
        (0.5,) * 3,
        (0.2,) * 3,
        train_sizes=of(sizes),
        validation_sizes=of(validation),
    )


@pytest.fixture
def front():
    """`front(kernel, **described)`: a front end; `front.traced` counts its compilations."""

    def make(kernel=KERNEL, **described):
        def prepare(batch):
            make.traced += 1
            return batch["image"].astype(jnp.float32) / 255

        variables = {"params": {"kernel": jnp.asarray(kernel)}}
        return FrontEnd(Corners(), variables, prepare, described or {"model": "corners"})

    make.traced = 0
    return make


def cached(front, dataset, folder, dtype="float16", batch_size=2):
    return front_end_maps.cached(front, dataset, folder, dtype, batch_size)


def direct(image, kernel=KERNEL):
    """The map in float64."""
    return (image[::STRIDE, ::STRIDE].astype(np.float64) / 255) @ kernel.astype(np.float64)


def folders(folder):
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("sizes", [ALIKE, DIFFERENT], ids=["alike", "different"])
@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_each_map_is_that_of_its_image_in_the_order_of_the_images(
    tmp_path, front, sizes, batch_size
):
    """Images of different sizes go through the front end in groups, and come back in order."""
    dataset = images(sizes, sizes[::-1][:3])
    maps = cached(front(), dataset, tmp_path, batch_size=batch_size)
    assert (len(maps.train), len(maps.validation)) == (5, 3)
    for source, original in ((maps.train, dataset.train), (maps.validation, dataset.validation)):
        for index in range(len(source)):
            found, given = source[index], original.make(index)
            assert set(found) == {"map", "mask"}
            np.testing.assert_array_equal(found["mask"], given["mask"])
            expected = direct(given["image"])
            assert found["map"].dtype == np.float16
            assert found["map"].shape == expected.shape
            # Half a unit in the last place of float16, and float32's rounding before it.
            np.testing.assert_allclose(found["map"], expected, rtol=2**-11 + 1e-5, atol=1e-6)
    assert maps == replace(dataset, train=maps.train, validation=maps.validation)


def test_float32_is_kept_to_its_own_rounding(tmp_path, front):
    dataset = images()
    maps = cached(front(), dataset, tmp_path, "float32")
    found = maps.train[4]["map"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, direct(dataset.train.make(4)["image"]), rtol=1e-5, atol=1e-6)
    assert (found != found.astype(np.float16)).any()


def test_maps_are_computed_once_whatever_the_batch_size(tmp_path, front, capsys):
    dataset = images()
    first = cached(front(), dataset, tmp_path)
    assert "computed once into" in capsys.readouterr().out
    (name,) = folders(tmp_path)
    assert (dataset.train.reads, front.traced) == (6, 1)  # A batch is filled up by copies.
    dataset, traced = images(), front.traced
    again = cached(front(), dataset, tmp_path, batch_size=5)
    assert folders(tmp_path) == {name}
    assert (dataset.train.reads, dataset.validation.reads, front.traced) == (0, 0, traced)
    assert capsys.readouterr().out == ""
    for index in range(5):
        np.testing.assert_array_equal(again.train[index]["map"], first.train[index]["map"])


def test_other_weights_settings_numbers_or_sets_have_maps_of_their_own(tmp_path, front):
    nudged = KERNEL.copy()
    nudged[2, 1] = np.nextafter(nudged[2, 1], np.float32(9))
    cases = [
        (front(), images(), "float16"),
        (front(nudged), images(), "float16"),
        (front(model="other"), images(), "float16"),
        (front(), images(), "float32"),
        (front(), images(validation=ALIKE[:2]), "float16"),
        (front(), replace(images(), name="other"), "float16"),
    ]
    seen = set()
    for case, (network, dataset, dtype) in enumerate(cases, start=1):
        maps = cached(network, dataset, tmp_path, dtype)
        assert dataset.train.reads > 0
        assert len(maps.validation) == len(dataset.validation)
        seen |= folders(tmp_path)
        assert len(seen) == case
    for _, dataset, dtype in cases[:1]:  # The first are still there.
        dataset.train.reads = 0
        cached(front(), dataset, tmp_path, dtype)
        assert dataset.train.reads == 0


@pytest.mark.parametrize(
    ("scale", "dtype", "says"),
    [
        (1e6, "float16", "beyond float16: use --config.data.dtype=float32"),
        (np.inf, "float32", "beyond float32: it has diverged"),
        (np.nan, "float32", "beyond float32: it has diverged"),
    ],
)
def test_scores_that_do_not_fit_are_one_line_and_leave_no_maps(tmp_path, front, scale, dtype, says):
    with pytest.raises(UserError) as caught:
        cached(front(KERNEL * np.float32(scale)), images(), tmp_path, dtype)
    message = str(caught.value)
    assert message.startswith("the front end's scores reach ")
    assert message.endswith(says)
    assert not list(tmp_path.iterdir())
    if scale == 1e6:
        cached(front(KERNEL * np.float32(scale)), images(), tmp_path, "float32")


def test_largest_float16_still_fits(tmp_path, front):
    largest = float(np.finfo(np.float16).max)
    white = images()
    white.train.make = white.validation.make = lambda index: {
        "image": np.full((4, 6, 3), 255, np.uint8),
        "mask": np.zeros((4, 6), np.uint8),
    }
    kernel = np.zeros((3, CLASSES), np.float32)
    kernel[0] = [largest, -largest, 1]
    maps = cached(front(kernel), white, tmp_path)
    assert maps.train[0]["map"][0, 0].tolist() == [largest, -largest, 1]


def test_an_error_while_reading_images_leaves_no_maps_and_can_be_mended(tmp_path, front):
    dataset = images()

    def damaged(index):
        raise UserError("2.png: damaged")

    kept, dataset.validation.make = dataset.validation.make, damaged
    with pytest.raises(UserError, match=r"2\.png: damaged"):
        cached(front(), dataset, tmp_path)
    assert not list(tmp_path.iterdir())
    dataset.validation.make = kept
    assert len(cached(front(), dataset, tmp_path).validation) == 3


def test_batch_statistics_are_part_of_the_weights(tmp_path, front):
    network = front()
    for mean in (0.0, 1.0):
        variables = {**network.variables, "batch_stats": {"mean": jnp.full(2, mean)}}
        cached(replace(network, variables=variables), images(), tmp_path)
    assert len(folders(tmp_path)) == 2


def test_maps_in_a_bucket_are_computed_once_and_the_same(record_bucket, tmp_path, front):
    dataset = images(DIFFERENT)
    expected = cached(front(), images(DIFFERENT), tmp_path / "maps")
    for reads in (True, False):
        dataset.train.reads = 0
        found = cached(front(), dataset, "gs://fake/run/maps")
        assert bool(dataset.train.reads) == reads
        for index in range(5):
            for key in ("map", "mask"):
                np.testing.assert_array_equal(found.train[index][key], expected.train[index][key])


PROCESS = """
import sys

import jax

process, address, folder, tests, scale = int(sys.argv[1]), *sys.argv[2:]
jax.distributed.initialize(address, 2, process)
sys.path.insert(0, tests)
import test_front_end_maps as tests
from drn_jax import front_end_maps

def prepare(batch):
    return batch["image"].astype("float32") / 255

variables = {"params": {"kernel": tests.KERNEL * float(scale)}}
front = front_end_maps.FrontEnd(tests.Corners(), variables, prepare, {})
dataset = tests.images()
try:
    maps = front_end_maps.cached(front, dataset, folder, "float16", 2)
    print(dataset.train.reads, *(maps.train[i]["map"].sum() for i in range(5)))
except tests.UserError as error:
    print(error)
"""


@pytest.fixture
def two_processes(tmp_path):
    """`two_processes(scale)`: the last line of each, the weights times `scale`."""

    def run(scale):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        processes = [
            subprocess.Popen(
                [
                    *(sys.executable, "-c", PROCESS),
                    *map(str, (number, address, tmp_path / "maps", ROOT / "tests", scale)),
                ],
                env=os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": ""},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in range(2)
        ]
        printed = [process.communicate(timeout=120) for process in processes]
        assert [process.returncode for process in processes] == [0, 0], printed
        return [out.splitlines()[-1] for out, _ in printed]

    return run


def test_of_two_processes_the_first_computes_for_both(two_processes):
    first, second = (line.split() for line in two_processes(1))
    assert (first[0], second[0]) == ("6", "0")  # A batch is filled up by copies.
    assert first[1:] == second[1:]
    assert len(first) == 6


def test_of_two_processes_the_second_ends_when_the_first_fails(two_processes):
    first, second = two_processes(1e6)
    assert first.startswith("the front end's scores reach ")
    assert "process 0 has not computed these maps" in second

"""Batches are a function of (seed, step), and validation sees every example exactly once."""

import itertools
import os
import threading

import numpy as np
import pytest
from PIL import Image

from drn_jax.data import loader
from drn_jax.data.color import ColorJitter
from drn_jax.data.files import FolderFiles
from drn_jax.data.masks import ClassIds, MaskFiles
from drn_jax.data.reading import Reading
from drn_jax.data.sources import FileSource
from drn_jax.data.transforms import CentreCrop, Compose, RandomFlip
from drn_jax.data.windowed import RotateScaleCrop
from drn_jax.errors import UserError

KEYS = ("image", "label", "draw")


class Source:
    """`count` examples whose `label` is their number; `sizes` gives (height, width) of each."""

    def __init__(self, count, sizes=None, broken=()):
        self.count, self.sizes, self.broken = count, sizes, broken

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index in self.broken:
            raise UserError(f"folder/{index}.png: the image is damaged")
        height, width = self.sizes[index] if self.sizes else (2, 2)
        image = np.full((height, width, 3), index % 256, np.uint8)
        return {"image": image, "label": np.array(index, np.int32), "unused": np.zeros(index)}


def augment(example, rng):
    """Adds the first number that the generator draws."""
    return example | {"draw": np.array(rng.integers(2**62))}


def training(count=10, steps=12, batch_size=4, seed=0, **options):
    batches = loader.training_batches(
        Source(count), KEYS, batch_size=batch_size, seed=seed, augment=augment, **options
    )
    return list(itertools.islice(batches, steps))


def evaluation(
    source, batch_size, transform=lambda example: example, keys=("image", "label"), **options
):
    return list(
        loader.evaluation_batches(
            source, keys, batch_size=batch_size, transform=transform, **options
        )
    )


def pairs(batch):
    """(label, draw) of each example."""
    return list(zip(batch["label"].tolist(), batch["draw"].tolist(), strict=True))


def assert_equal(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert set(one) == set(other)
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def test_batches_hold_the_keys_asked_for_stacked_and_belonging_together():
    for batch in training(steps=3):
        assert set(batch) == set(KEYS)
        assert batch["image"].shape == (4, 2, 2, 3)
        assert batch["image"].dtype == np.uint8
        np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], batch["label"])


def test_the_same_seed_gives_the_same_batches():
    assert_equal(training(seed=3), training(seed=3))


def test_resuming_at_any_step_is_skipping_the_steps_before():
    whole = training(steps=12)
    for start in (1, 2, 5, 11):
        assert_equal(training(steps=12 - start, start_step=start), whole[start:])


def test_another_seed_gives_another_order_and_other_draws():
    one, other = ([pairs(b) for b in training(seed=seed)] for seed in (0, 1))
    assert [[p[0] for p in b] for b in one] != [[p[0] for p in b] for b in other]
    draws = [{draw for batch in batches for _, draw in batch} for batches in (one, other)]
    assert len(draws[0]) == 48
    assert not draws[0] & draws[1]


def test_every_epoch_visits_each_example_once_in_an_order_of_its_own():
    labels = [label for batch in training(steps=15) for label, _ in pairs(batch)]
    epochs = [labels[first : first + 10] for first in range(0, 60, 10)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(10))] * 6
    assert len({tuple(epoch) for epoch in epochs}) == 6


@pytest.mark.parametrize("hosts", [2, 4])
def test_the_hosts_shares_one_behind_the_other_are_the_batch_of_one_host(hosts):
    whole = training(batch_size=8, steps=10)
    shares = [training(batch_size=8, steps=10, host=host, hosts=hosts) for host in range(hosts)]
    for step, batch in enumerate(whole):
        parts = [pairs(share[step]) for share in shares]
        assert {len(part) for part in parts} == {8 // hosts}
        assert list(itertools.chain(*parts)) == pairs(batch)


@pytest.mark.parametrize("start", [3, 7])
def test_a_host_resumes_like_the_others(start):
    whole = training(batch_size=8, steps=10, host=1, hosts=2)
    resumed = training(batch_size=8, steps=10 - start, host=1, hosts=2, start_step=start)
    assert_equal(resumed, whole[start:])


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """A source of eleven images and masks in files, of several sizes."""
    folder, rng = tmp_path_factory.mktemp("scenes"), np.random.default_rng(0)
    for i in range(11):
        shape = 40 + i % 3, 50 - i % 4
        picture = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
        Image.fromarray(picture).save(folder / f"{i}.jpg")
        Image.fromarray(rng.integers(0, 5, shape, dtype=np.uint8)).save(folder / f"{i}.png")
    files = FolderFiles(str(folder))
    masks = MaskFiles(files, tuple(f"{i}.png" for i in range(11)), ClassIds(5))
    return FileSource(files, tuple(f"{i}.jpg" for i in range(11)), masks=masks)


def crops(scenes, steps, **options):
    """Batches of 8 with everything that is random about them."""
    augment = Compose((RotateScaleCrop((32, 24), 2.0, 10), RandomFlip(), ColorJitter(0.4, 0.4)))
    batches = loader.training_batches(
        scenes, ("image", "mask"), batch_size=8, seed=7, augment=augment, **options
    )
    return list(itertools.islice(batches, steps))


WAYS = [Reading(threads=1), Reading(threads=4), Reading(workers=2), Reading(workers=2, threads=3)]


@pytest.mark.parametrize("reading", WAYS, ids=str)
def test_batches_are_the_same_to_the_bit_whoever_reads_them(scenes, reading):
    expected = crops(scenes, 9)
    assert_equal(crops(scenes, 9, reading=reading), expected)
    assert_equal(crops(scenes, 4, reading=reading, start_step=5), expected[5:])


@pytest.mark.parametrize(("hosts", "reading"), [(2, WAYS[1]), (4, WAYS[1]), (2, WAYS[2])], ids=str)
def test_the_hosts_crops_are_those_of_one_host_to_the_bit(scenes, hosts, reading):
    whole = crops(scenes, 6)
    shares = [
        crops(scenes, 3, host=host, hosts=hosts, start_step=3, reading=reading)
        for host in range(hosts)
    ]
    for step, batch in enumerate(whole[3:]):
        together = {key: np.concatenate([share[step][key] for share in shares]) for key in batch}
        assert_equal([together], [batch])


@pytest.mark.parametrize("reading", WAYS, ids=str)
def test_validation_is_the_same_whoever_reads_it(scenes, reading):
    expected = evaluation(scenes, 3, CentreCrop(32), keys=("image", "mask"))
    found = evaluation(scenes, 3, CentreCrop(32), keys=("image", "mask"), reading=reading)
    assert_equal(found, expected)


def test_a_damaged_file_surfaces_from_a_worker_as_one_error_that_names_it(tmp_path):
    (tmp_path / "7.png").write_bytes(b"no image")
    source = FileSource(FolderFiles(str(tmp_path)), ("7.png",))
    with pytest.raises(UserError) as caught:
        evaluation(source, 1, CentreCrop(32), keys=("image",), reading=Reading(workers=2))
    assert str(caught.value).startswith(f"{tmp_path / '7.png'}: not an image")


@pytest.mark.parametrize("cores", [1, 3, 64])
def test_the_number_of_threads_does_not_matter(monkeypatch, cores):
    expected = training(), evaluation(Source(10), 4)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert_equal(training(), expected[0])
    assert_equal(evaluation(Source(10), 4), expected[1])


@pytest.mark.parametrize("hosts", [1, 2, 4])
@pytest.mark.parametrize("share", [1, 3, 7, 100])
def test_validation_visits_each_example_once_for_any_batch_size_and_hosts(share, hosts):
    source, size = Source(10), share * hosts
    runs = [evaluation(source, size, host=host, hosts=hosts) for host in range(hosts)]
    assert {len(run) for run in runs} == {-(-10 // size)}
    seen = []
    for batch in itertools.chain(*runs):
        assert batch["valid"].dtype == bool
        assert batch["valid"].shape == batch["label"].shape == (share,)
        np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], batch["label"])
        seen += batch["label"][batch["valid"]].tolist()
    assert sorted(seen) == list(range(10))


def test_on_one_host_validation_runs_in_order_and_fills_up_with_copies_from_the_batch():
    batches = evaluation(Source(5), 3)
    assert [batch["label"].tolist() for batch in batches] == [[0, 1, 2], [3, 4, 3]]
    assert [batch["valid"].tolist() for batch in batches] == [[True] * 3, [True, True, False]]


@pytest.mark.parametrize("hosts", [1, 2])
def test_images_of_different_sizes_never_share_a_batch(hosts):
    sizes = [(2, 3), (3, 2), (2, 3), (2, 3), (4, 4), (3, 2), (2, 3)]
    source, seen = Source(7, sizes), []
    runs = [evaluation(source, 4, sizes=sizes, host=h, hosts=hosts) for h in range(hosts)]
    for batches in zip(*runs, strict=True):
        assert len({batch["image"].shape[1:] for batch in batches}) == 1
        for batch in batches:
            for label, valid in zip(batch["label"], batch["valid"], strict=True):
                assert sizes[label] == batch["image"].shape[1:3]
                seen += [int(label)] if valid else []
    assert sorted(seen) == list(range(7))


def test_validation_examples_are_transformed():
    def double(example):
        return example | {"image": np.repeat(example["image"], 2, 0)}

    (batch,) = evaluation(Source(3), 3, double)
    assert batch["image"].shape == (3, 4, 2, 3)


def test_a_damaged_file_surfaces_as_the_sources_own_error():
    batches = loader.training_batches(
        Source(10, broken=(7,)), KEYS, batch_size=5, seed=0, augment=augment
    )
    with pytest.raises(UserError) as caught:
        list(itertools.islice(batches, 2))
    assert str(caught.value) == "folder/7.png: the image is damaged"
    with pytest.raises(UserError) as caught:
        evaluation(Source(10, broken=(7,)), 3)
    assert str(caught.value) == "folder/7.png: the image is damaged"


def test_batches_before_a_damaged_file_still_come():
    batches = loader.evaluation_batches(
        Source(10, broken=(7,)), ("label",), batch_size=3, transform=lambda example: example
    )
    assert [next(batches)["label"].tolist() for _ in range(2)] == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(UserError):
        next(batches)


def test_no_more_than_the_prefetched_batches_are_read_ahead(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    read, too_many = [], threading.Event()

    class Counting(Source):
        def __getitem__(self, index):
            read.append(index)
            if len(read) > 2 * (Reading().prefetch + 2):
                too_many.set()
            return super().__getitem__(index)

    batches = loader.training_batches(
        Counting(1000), ("label",), batch_size=2, seed=0, augment=lambda example, _: example
    )
    next(batches)
    assert not too_many.wait(0.5)
    assert len(read) >= 2 * Reading().prefetch


def test_a_batch_that_the_hosts_cannot_share_is_an_error():
    with pytest.raises(UserError, match="a batch of 4 can't be split over 3 hosts"):
        training(hosts=3)
    with pytest.raises(UserError, match="a batch of 4 can't be split over 3 hosts"):
        evaluation(Source(8), 4, hosts=3)

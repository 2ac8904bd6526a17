"""Class maps on disk: what went in comes out, whole or not at all."""

import io
import json
import pickle

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from drn_jax.data import map_records
from drn_jax.errors import UserError

FACTS = {"format": 7, "front_end": {"width": 0.5}}


def example(index, dtype=np.float16):
    """A map and a mask, of a size that depends on the index."""
    rng = np.random.default_rng(index)
    height, width = 2 + index % 3, 4
    return {
        "map": rng.normal(size=(height, width, 3)).astype(dtype),
        "mask": rng.integers(0, 256, (8 * height, 8 * width - 3)).astype(np.uint8),
    }


def numbered(order, dtype=np.float16):
    return [{**example(index, dtype), "index": np.array(index)} for index in order]


def assert_same(found, expected):
    assert set(found) == set(expected)
    for key, value in expected.items():
        assert found[key].dtype == value.dtype
        np.testing.assert_array_equal(found[key], value)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("order", [range(5), (3, 0, 4, 2, 1)], ids=["in order", "mixed"])
def test_maps_come_back_bit_for_bit_by_index_whatever_the_order_of_writing(tmp_path, order, dtype):
    place = tmp_path / "deep" / "maps"
    assert not map_records.is_complete(place)
    splits = {"train": numbered(order, dtype), "validation": numbered([1, 0], dtype)}
    size = map_records.write(place, splits, FACTS)
    assert map_records.is_complete(place)
    for source, count in zip(map_records.sources(place), (5, 2), strict=True):
        assert len(source) == count
        for index in (*range(count), 0):
            assert_same(source[index], example(index, dtype))
    facts = json.loads((place / "maps.json").read_text())
    assert {key: facts[key] for key in FACTS} == FACTS
    assert size == sum(path.stat().st_size for path in place.iterdir())
    assert [path.name for path in place.parent.iterdir()] == ["maps"]


def interrupted(order):
    """Two examples, then a fault."""
    yield from numbered(order)[:2]
    raise KeyboardInterrupt


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_fault_in_the_middle_leaves_nothing_and_a_later_write_works(tmp_path, split):
    place = tmp_path / "maps"
    whole = {"train": numbered(range(4)), "validation": numbered(range(3))}
    with pytest.raises(KeyboardInterrupt):
        map_records.write(place, whole | {split: interrupted(range(3))}, FACTS)
    assert not list(tmp_path.iterdir())
    map_records.write(place, whole, FACTS)
    assert_same(map_records.sources(place)[0][3], example(3))


def test_what_a_killed_process_left_is_no_set_of_maps_and_in_nobodys_way(tmp_path):
    place, draft = tmp_path / "maps", tmp_path / "maps.tmp"
    draft.mkdir()
    (draft / "train.array_record").write_bytes(b"half")
    assert not map_records.is_complete(place)
    map_records.write(place, {"train": numbered([0]), "validation": numbered([0])}, FACTS)
    assert_same(map_records.sources(place)[1][0], example(0))
    assert not draft.exists()


class Harmful:
    """Unpickling it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        import os

        return os.mkdir, (str(self.path),)


def arrays(**given):
    file = io.BytesIO()
    np.savez_compressed(file, **given)
    return file.getvalue()


def record(kind, harm):
    """Bytes that are no record of a map."""
    good = arrays(**example(0))
    return {
        "junk": b"no archive",
        "empty": b"",
        "cut": good[: len(good) // 2],
        "turned": good[:60] + bytes([good[60] ^ 255]) + good[61:],
        "without mask": arrays(map=example(0)["map"]),
        "pickled": pickle.dumps(Harmful(harm)),
        "objects": arrays(map=np.array([Harmful(harm)], object), mask=example(0)["mask"]),
    }[kind]


@pytest.mark.parametrize(
    "kind", ["junk", "empty", "cut", "turned", "without mask", "pickled", "objects"]
)
def test_a_damaged_record_is_one_line_that_names_it_and_is_never_unpickled(tmp_path, kind):
    harm = tmp_path / "harm"
    path = tmp_path / "train.array_record"
    writer = ArrayRecordWriter(str(path), "group_size:1")
    writer.write(arrays(**example(0)))
    writer.write(record(kind, harm))
    writer.close()
    source = map_records.MapSource(path, [0, 1])
    assert_same(source[0], example(0))
    with pytest.raises(UserError) as caught:
        source[1]
    message = str(caught.value)
    assert message.startswith(f"{path}: record 1 is damaged; delete the folder")
    assert "\n" not in message
    assert not harm.exists()
    assert_same(source[0], example(0))


def test_bytes_that_changed_on_disk_are_noticed(tmp_path):
    map_records.write(
        tmp_path / "maps", {"train": numbered(range(3)), "validation": numbered([0])}, FACTS
    )
    path = tmp_path / "maps" / "train.array_record"
    content = bytearray(path.read_bytes())
    at = content.index(b"PK")  # The first archive.
    content[at + 60 : at + 90] = bytes(30)
    path.write_bytes(content)
    source, _ = map_records.sources(tmp_path / "maps")
    with pytest.raises(UserError, match="record 0 is damaged"):
        source[0]
    assert_same(source[2], example(2))

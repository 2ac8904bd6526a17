"""The source of all sets read in place: what an example holds, and what stands in its way."""

import io
import pickle
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from drn_jax.data.files import Files, FolderFiles, MemoryFiles
from drn_jax.data.masks import ClassIds, MappedIds, MaskFiles
from drn_jax.data.sources import HEADER, FileSource, Joined, Readable, png
from drn_jax.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
IDS = np.random.default_rng(1).choice(np.array([0, 1, 2, 255], np.uint8), size=(6, 8))


def encode(picture: Image.Image, form: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def memory(**contents: bytes) -> Files:
    """Files `<name>.png`, or of whatever form they are."""
    return MemoryFiles("set.tgz", {f"{name}.png": data for name, data in contents.items()})


def source_of(image: bytes, mask: bytes | None = None, **more) -> FileSource:
    files = memory(image=image, mask=b"" if mask is None else mask)
    masks = None if mask is None else MaskFiles(files, ("mask.png",), ClassIds(3))
    return FileSource(files, ("image.png",), masks=masks, **more)


def turned(pixels: np.ndarray, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(Image.fromarray(pixels), "JPEG", quality=100, exif=exif)


def error_of(function, *args) -> str:
    with pytest.raises(UserError) as caught:
        function(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_example_holds_what_is_given():
    source = source_of(png(PIXELS), png(IDS))
    assert isinstance(source, Readable)
    np.testing.assert_array_equal(source[0]["image"], PIXELS)
    np.testing.assert_array_equal(source[0]["mask"], IDS)
    assert set(source[0]) == {"image", "mask"}
    boxes = (np.array([[0, 1, 2, 3]], np.float32),)
    full = replace(source, labels=np.array([7]), boxes=boxes)
    example = full[0]
    assert (int(example["label"]), example["label"].dtype, example["label"].shape) == (
        7,
        np.int32,
        (),
    )
    np.testing.assert_array_equal(example["boxes"], boxes[0])
    assert (len(full), full.where(0)) == (1, "set.tgz/image.png")


def test_changing_an_example_does_not_change_the_source():
    source = source_of(png(PIXELS), boxes=(np.ones((1, 4), np.float32),))
    for array in source[0].values():
        array[:] = 0
    assert source[0]["boxes"].sum() == 4
    np.testing.assert_array_equal(source[0]["image"], PIXELS)


def test_a_record_is_the_file_as_it_is():
    data = turned(PIXELS, 6)
    mask = np.rot90(IDS, -1)
    record = source_of(data, png(mask), labels=np.array([2])).record(0)
    assert (record.name, record.image, record.label) == ("image.png", data, 2)
    np.testing.assert_array_equal(record.mask, mask)
    bare = source_of(data).record(0)
    assert (bare.label, bare.boxes, bare.mask) == (None, None, None)


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_sizes_are_those_of_the_upright_image(orientation):
    source = source_of(turned(PIXELS, orientation))
    assert source.image_size(0) == source[0]["image"].shape[:2]
    assert source.image_size(0) == ((8, 6) if orientation == 6 else (6, 8))


def test_a_turned_image_belongs_with_a_mask_of_its_upright_size():
    assert source_of(turned(PIXELS, 6), png(np.rot90(IDS)))[0]["mask"].shape == (8, 6)
    message = error_of(source_of(turned(PIXELS, 6), png(IDS)).__getitem__, 0)
    assert "image.png is 8x6 pixels, its mask set.tgz/mask.png 6x8" in message


def test_the_orientation_is_hinted_at_only_where_height_and_width_are_exchanged():
    hint = "one of them is turned by its EXIF orientation"
    for read in ("__getitem__", "record"):
        turned_back = source_of(turned(PIXELS, 6), png(IDS))
        assert error_of(getattr(turned_back, read), 0).endswith(f"(height x width); {hint}")
        assert hint not in error_of(getattr(source_of(png(PIXELS), png(IDS[:3])), read), 0)


def test_joined_sources_are_one_after_the_other():
    files = memory(a=png(PIXELS), b=png(PIXELS[:5]), c=png(PIXELS[:5]))
    joined = Joined((FileSource(files, ("a.png",)), FileSource(files, ("b.png", "c.png"))))
    assert isinstance(joined, Readable)
    assert (len(joined), joined.names) == (3, ("a.png", "b.png", "c.png"))
    assert joined.sizes() == ((6, 8), (5, 8), (5, 8))
    assert Joined(joined.sources[1:]).sizes() is None
    for i, name in enumerate(joined.names):
        assert joined.where(i) == f"set.tgz/{name}"
        assert joined.files_of(i) == (f"set.tgz/{name}",)
        assert joined.record(i).image == files.read(name)
        assert joined[i]["image"].shape[0] == (6, 5, 5)[i]
    for index in (-1, 3):
        with pytest.raises(IndexError):
            joined[index]


def test_sizes_are_none_where_all_are_alike():
    wide = png(PIXELS)
    files = memory(a=wide, b=wide, c=png(PIXELS[:5]))
    assert FileSource(files, ("a.png", "b.png")).sizes() is None
    assert FileSource(files, ("a.png", "c.png")).sizes() == ((6, 8), (5, 8))


def test_a_size_behind_a_long_header_is_found():
    data = encode(Image.fromarray(PIXELS), "JPEG", icc_profile=bytes(2 * HEADER))
    assert source_of(data).image_size(0) == (6, 8)


def test_an_image_of_another_size_than_its_mask_is_named_with_both():
    for read in ("__getitem__", "record"):
        for size in (None, (12, 16)):
            source = source_of(png(PIXELS), png(IDS[:3]), size=size)
            message = error_of(getattr(source, read), 0)
            assert "set.tgz/image.png is 6x8 pixels, its mask set.tgz/mask.png 3x8" in message


def test_resizing_keeps_mask_values_and_changes_what_is_stored():
    source = source_of(png(PIXELS), png(IDS), size=(12, 16))
    example = source[0]
    assert example["image"].shape == (12, 16, 3)
    np.testing.assert_array_equal(example["mask"], IDS.repeat(2, 0).repeat(2, 1))
    assert source.image_size(0) == (12, 16)
    assert source.sizes() is None
    record = source.record(0)
    stored = np.asarray(Image.open(io.BytesIO(record.image)))
    np.testing.assert_array_equal(stored, example["image"])
    np.testing.assert_array_equal(record.mask, example["mask"])


def test_shrinking_averages_images():
    board = np.indices((8, 8)).sum(0, keepdims=True) % 2 * 255
    board = board.transpose(1, 2, 0).repeat(3, 2).astype(np.uint8)
    shrunk = source_of(png(board), size=(4, 4))[0]["image"]
    assert np.abs(shrunk.astype(int) - 127).max() <= 20


def test_missing_and_damaged_files_are_named():
    data = png(PIXELS)
    for bad, part in ((data[:60], "the image is damaged"), (b"text", "not an image")):
        assert f"set.tgz/image.png: {part}" in error_of(source_of(bad).__getitem__, 0)
        assert f"set.tgz/mask.png: {part}" in error_of(source_of(data, bad).__getitem__, 0)
    gone = FileSource(memory(), ("gone.png",))
    for read in (gone.__getitem__, gone.record, gone.image_size):
        assert "set.tgz/gone.png: not in the archive" in error_of(read, 0)


def test_sources_survive_pickling(tmp_path):
    (tmp_path / "a.png").write_bytes(png(PIXELS))
    (tmp_path / "m.png").write_bytes(png(IDS))
    files = FolderFiles(str(tmp_path))
    for decode in (ClassIds(3), MappedIds(((0, 2), (1, 1), (2, 0), (255, 255)))):
        source = FileSource(files, ("a.png",), masks=MaskFiles(files, ("m.png",), decode))
        assert source.sizes() is None
        copy = pickle.loads(pickle.dumps(source))
        np.testing.assert_array_equal(copy[0]["mask"], source[0]["mask"])


# Masks.

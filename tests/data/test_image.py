"""Decoding: every colour model comes out as documented, every bad file as one clear line."""

import io

import numpy as np
import pytest
from PIL import Image

from drn_jax.data import image
from drn_jax.errors import UserError

RED, GREY = (200, 30, 40), 77


def encode(picture: Image.Image, form: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def turned(pixels: np.ndarray, orientation: int, form: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100} if form == "JPEG" else {"lossless": True} if form == "WEBP" else {}
    return encode(Image.fromarray(pixels), form, exif=exif, **options)


def error_of(function, *args) -> str:
    with pytest.raises(UserError) as caught:
        function(*args)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_rgb_png_comes_back_exactly():
    pixels = noise(5, 7, 3)
    decoded = image.decode_rgb(encode(Image.fromarray(pixels)), "x.png")
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, pixels)
    decoded[0] = 0  # writable


def test_grey_is_repeated_over_the_channels():
    pixels = noise(5, 7)
    decoded = image.decode_rgb(encode(Image.fromarray(pixels)), "x.png")
    np.testing.assert_array_equal(decoded, np.stack([pixels] * 3, axis=-1))


def test_palette_is_looked_up_with_and_without_transparency():
    picture = Image.new("P", (2, 1))
    picture.putpalette([0, 0, 0, *RED])
    picture.putpixel((1, 0), 1)
    for options in ({}, {"transparency": b"\x00\x80"}, {"transparency": 1}):
        decoded = image.decode_rgb(encode(picture, **options), "x.png")
        np.testing.assert_array_equal(decoded, [[(0, 0, 0), RED]])


def test_alpha_is_dropped_and_the_colour_under_it_stays():
    picture = Image.new("RGBA", (3, 2), (*RED, 10))
    np.testing.assert_array_equal(image.decode_rgb(encode(picture), "x.png"), [[RED] * 3] * 2)
    picture = Image.new("LA", (3, 2), (GREY, 10))
    np.testing.assert_array_equal(
        image.decode_rgb(encode(picture), "x.png"), [[[GREY] * 3] * 3] * 2
    )


def test_cmyk_jpeg_gives_three_channels_of_the_right_colour():
    decoded = image.decode_rgb(encode(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG"), "x.jpg")
    assert decoded.shape == (8, 8, 3)
    assert np.abs(decoded.astype(int) - (0, 255, 255)).max() <= 3


def test_adobe_cmyk_jpeg_is_not_inverted():
    # Adobe stores CMYK inverted and says so by a marker of its own, as the 22 of ILSVRC2012 do.
    # PIL writes that marker, so that the stored bytes are those of 255 - ink.
    data = encode(Image.new("CMYK", (8, 8), (0, 0, 0, 255)), "JPEG")
    assert b"Adobe" in data
    assert image.decode_rgb(data, "x.jpg").max() <= 3
    assert image.decode_rgb(encode(Image.new("CMYK", (8, 8)), "JPEG"), "x.jpg").min() >= 252


def test_sixteen_bit_grey_keeps_its_upper_byte():
    pixels = np.array([[0, 255, 256, 65535, 0x1234]], np.uint16)
    decoded = image.decode_rgb(encode(Image.fromarray(pixels)), "x.png")
    np.testing.assert_array_equal(decoded[0, :, 1], [0, 0, 1, 255, 0x12])


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_to_pixels_and_to_size(form, orientation):
    # Quarters in four greys, wide: JPEG keeps them apart, and every orientation moves them.
    pixels = np.kron(np.array([[0, 80], [160, 240]], np.uint8), np.ones((16, 32), np.uint8))
    pixels = np.stack([pixels] * 3, axis=-1)
    upright = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels, -1),
        7: pixels[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(pixels, 1),
    }[orientation]
    data = turned(pixels, orientation, form)
    decoded = image.decode_rgb(data, "x")
    assert decoded.shape == upright.shape
    assert np.abs(decoded.astype(int) - upright).max() <= 4
    assert image.size(data, "x") == upright.shape[:2]


def test_size_is_height_then_width_and_needs_only_the_header():
    data = encode(Image.fromarray(noise(50, 70, 3)))
    half = data[: len(data) // 2]
    assert image.size(half, "x.png") == (50, 70)
    assert "truncated" in error_of(image.decode_rgb, half, "x.png")


@pytest.mark.parametrize("mode", ["L", "P"])
def test_mask_values_come_back_as_they_are(mode):
    ids = np.array([[0, 1, 18], [255, 7, 1]], np.uint8)
    picture = Image.fromarray(ids)
    if mode == "P":
        indexed = Image.new("P", picture.size)
        indexed.putpalette(noise(768).tolist())
        indexed.putdata(ids.ravel().tolist())
        picture = indexed
    decoded = image.decode_mask(encode(picture), "x.png")
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, ids)


def test_palette_mask_of_four_bits_keeps_its_indices():
    picture = Image.new("P", (3, 1))
    picture.putpalette(noise(48).tolist())
    picture.putdata([0, 11, 3])
    data = encode(picture, bits=4)
    assert data[24] == 4
    np.testing.assert_array_equal(image.decode_mask(data, "x.png"), [[0, 11, 3]])


def test_sixteen_bit_mask_is_read_if_its_ids_fit():
    ids = np.array([[0, 10, 255]], np.uint16)
    np.testing.assert_array_equal(image.decode_mask(encode(Image.fromarray(ids)), "x"), ids)
    message = error_of(image.decode_mask, encode(Image.fromarray(ids + 26000)), "m/x.png")
    assert "m/x.png" in message
    assert "26255" in message


def test_colour_mask_is_an_error_that_names_the_file():
    message = error_of(image.decode_mask, encode(Image.new("RGB", (2, 2))), "labels/a.png")
    assert "labels/a.png" in message
    assert "RGB" in message


def test_grey_mask_of_one_bit_is_refused_as_ambiguous():
    message = error_of(image.decode_mask, encode(Image.new("1", (2, 2))), "labels/a.png")
    assert "labels/a.png" in message
    assert "ambiguous" in message


def test_damaged_bytes_are_one_line_that_names_the_file():
    for form in ("PNG", "JPEG", "WEBP"):
        data = encode(Image.fromarray(noise(64, 64, 3)), form)
        message = error_of(image.decode_rgb, data[: len(data) // 2], f"a/b.{form}")
        assert f"a/b.{form}" in message
        assert "truncated" in message
    for data in (b"", b"hello, this is text"):
        message = error_of(image.decode_rgb, data, "a/b.txt")
        assert "a/b.txt: not an image" in message
        assert "a/b.txt: not an image" in error_of(image.size, data, "a/b.txt")


def test_missing_file_is_named(tmp_path):
    message = error_of(image.read_bytes, tmp_path / "gone.png")
    assert f"{tmp_path / 'gone.png'}: no such file" in message
    assert str(tmp_path) in error_of(image.read_bytes, tmp_path)

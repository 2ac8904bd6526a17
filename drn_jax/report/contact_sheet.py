"""A sheet of a data set's examples: images with their labels, boxes, masks."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from drn_jax.report import pictures
from drn_jax.report.pictures import Pixels

Example = dict[str, np.ndarray]

SIDE = 224
"""Pixels of an image's longer side on the sheet."""
COLUMNS = 6
_GAP = 8
_TEXT = 13
_INK, _QUIET = (29, 33, 37), (93, 102, 111)


def draw(
    examples: Sequence[Example],
    names: Sequence[str],
    classes: Sequence[str],
    colors: Sequence[tuple[int, int, int]] | None,
    title: str,
) -> Pixels:
    """The examples in rows, each above its name; a mask beside its image; below all a key of the
    classes that masks show.

    Args:
      examples: of `image`, and any of `label`, `boxes`, `mask`.
      names: what to write below each.
      colors: of the classes, for masks; None: a palette.

    Returns:
      uint8 [H, W, 3].
    """
    with_masks = any("mask" in example for example in examples)
    palette = pictures.palette(len(classes), colors) if with_masks else None
    tiles = [
        _tile(example, name, classes, palette)
        for example, name in zip(examples, names, strict=True)
    ]
    columns = min(len(tiles), COLUMNS // 2 if with_masks else COLUMNS)
    rows = [tiles[i : i + columns] for i in range(0, len(tiles), columns)]
    grid = pictures.sheet(rows)
    left = max(4, max(tile.shape[1] for tile in tiles) // 32)  # As `pictures.sheet` has it.
    head = np.pad(
        _line(title, grid.shape[1] - left, _TEXT + 4, _INK),
        ((_GAP, 0), (left, 0), (0, 0)),
        constant_values=255,
    )
    parts = [head, grid]
    if palette is not None:
        shown = np.unique(np.concatenate([np.unique(e["mask"]) for e in examples if "mask" in e]))
        entries = [(classes[int(c)], palette[int(c)]) for c in shown if c < len(classes)]
        parts.append(_key(entries, grid.shape[1], left))
    width = max(part.shape[1] for part in parts)
    return np.concatenate([_widened(part, width) for part in parts])


def _tile(example: Example, name: str, classes: Sequence[str], palette: Pixels | None) -> Pixels:
    image = example["image"]
    times = SIDE / max(image.shape[:2])
    small = _scaled(image, times)
    for box in example.get("boxes", ()):
        edges = np.clip(np.rint(np.asarray(box) * times), 0, [*small.shape[1::-1]] * 2)
        small = pictures.draw_box(small, edges, (255, 255, 255), thickness=3)
        small = pictures.draw_box(small, edges, (220, 20, 60), thickness=2)
    if palette is not None and "mask" in example:
        painted = pictures.mask_overlay(image, example["mask"], palette)
        small = np.concatenate([small, _scaled(painted, times)], axis=1)
    text = [_line(name, small.shape[1], _TEXT, _QUIET)]
    if "label" in example:
        text = [_line(classes[int(example["label"])], small.shape[1], _TEXT, _INK), *text]
    return np.concatenate([small, *text])


def _scaled(image: Pixels, times: float) -> Pixels:
    """Small images by repeating pixels, large ones smoothly."""
    height, width = (max(1, round(side * times)) for side in image.shape[:2])
    way = Image.Resampling.NEAREST if times > 1 else Image.Resampling.LANCZOS
    return np.array(Image.fromarray(image).resize((width, height), way))


def _line(text: str, width: int, size: int, color: tuple[int, int, int]) -> Pixels:
    """A line of text on white, its beginning left out where it is too long."""
    font = ImageFont.load_default(size)
    if font.getlength(text) > width:
        while text and font.getlength(f"…{text}") > width:
            text = text[1:]
        text = f"…{text}"
    canvas = Image.new("RGB", (width, size + 5), "white")
    ImageDraw.Draw(canvas).text((0, 2), text, fill=color, font=font)
    return np.array(canvas)


def _key(entries: Sequence[tuple[str, Pixels]], width: int, left: int) -> Pixels:
    """Names beside their colours, in as many lines as it takes."""
    font = ImageFont.load_default(_TEXT)
    height = _TEXT + 9
    places, x, y = [], left, 0
    for name, _ in entries:
        wide = _TEXT + 6 + int(font.getlength(name)) + 2 * _GAP
        if x + wide > width and x > left:
            x, y = left, y + height
        places.append((x, y))
        x += wide
    canvas = Image.new("RGB", (width, y + height + _GAP), "white")
    draw = ImageDraw.Draw(canvas)
    for (name, color), (x, y) in zip(entries, places, strict=True):
        draw.rectangle((x, y + 2, x + _TEXT, y + 2 + _TEXT), fill=tuple(color.tolist()))
        draw.text((x + _TEXT + 6, y + 1), name, fill=_INK, font=font)
    return np.array(canvas)


def _widened(part: Pixels, width: int) -> Pixels:
    """White on the right; the title starts where the grid does."""
    return np.pad(part, ((0, 0), (0, width - part.shape[1]), (0, 0)), constant_values=255)

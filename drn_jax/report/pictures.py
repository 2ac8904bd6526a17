"""Pictures of what a network sees and says: pure functions on NumPy arrays.

An image is uint8 [H, W, 3], RGB. A mask is uint8 [H, W], class ids, 255 = ignored. A box is
(x1, y1, x2, y2) in pixel edges, so (0, 0, W, H) is the whole image. Nothing writes to its inputs.
"""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

Pixels = NDArray[np.uint8]

IGNORED = 255
"""The mask value that belongs to no class."""

HEAT_MAP = "inferno"
"""matplotlib's name of the colour map of `class_map`: lightness rises evenly with the score."""

_FIRST = (43, 123, 186)  # the colour `palette` begins with
_HEAT = 0.6  # the part of the heat map in `class_map`; the rest is the greyed image
_PAINT = 0.55  # the part of the class colour in `mask_overlay`
_HATCH = 6  # pixels between the stripes of ignored regions, of which a third are dark


def heat_colors(steps: int = 256) -> Pixels:
    """The colours of scores evenly spaced over [0, 1], before they are laid over an image.

    Returns:
      uint8 [steps, 3], RGB.
    """
    import matplotlib

    return matplotlib.colormaps[HEAT_MAP](np.linspace(0, 1, steps), bytes=True)[:, :3]


def class_map(image: Pixels, scores: ArrayLike, stride: int | None = None) -> Pixels:
    """Lays a map of scores over the greyed image as a heat map on the fixed scale 0 to 1.

    Cell k covers pixels stride * k to stride * k + stride - 1, and the score of a cell sits at the
    middle of its pixels; between middles it is bilinear, beyond the outermost it stays constant.

    Args:
      image: uint8 [H, W, 3].
      scores: float [h, w] in [0, 1].
      stride: pixels a cell. None: the smallest power of two with which the cells cover the image,
        which is a network's output stride wherever the image is larger than one cell.

    Returns:
      uint8 [H, W, 3].
    """
    height, width = _image_size(image)
    scores = np.asarray(scores, np.float32)
    if scores.ndim != 2 or not np.isfinite(scores).all():
        raise ValueError(f"scores: expected finite numbers [h, w], got {scores.shape}")
    rows, columns = scores.shape
    if stride is None:
        stride = 1
        while stride * rows < height or stride * columns < width:
            stride *= 2
    if stride * rows < height or stride * columns < width:
        raise ValueError(
            f"{rows}x{columns} cells of {stride} pixels do not cover an image of {height}x{width}"
        )
    dense = _interpolation(height, rows, stride) @ scores @ _interpolation(width, columns, stride).T
    heat = heat_colors()[np.rint(dense.clip(0, 1) * 255).astype(np.uint8)]
    return _blend(_grey(image), heat, _HEAT)


def _interpolation(pixels: int, cells: int, stride: int) -> NDArray[np.float32]:
    """Linear weights [pixels, cells] from cell middles to pixel middles; each row sums to 1."""
    place = ((np.arange(pixels) + 0.5) / stride - 0.5).clip(0, cells - 1)
    return np.maximum(0, 1 - abs(place[:, None] - np.arange(cells))).astype(np.float32)


def palette(classes: int, colors: ArrayLike | None = None) -> Pixels:
    """One colour a class: the given ones first, then each as far as it can be from all before it.

    Distance is measured in Oklab (Ottosson 2020), among colours of middle lightness and chroma, so
    that they stand out on light and on dark ground and from grey.

    Args:
      classes: how many colours.
      colors: uint8 [at most classes, 3], kept as they are.

    Returns:
      uint8 [classes, 3], RGB; the first rows are the same for every number of classes.
    """
    given = np.asarray([] if colors is None else colors, np.uint8).reshape(-1, 3)
    if len(given) > classes:
        raise ValueError(f"{len(given)} colours for {classes} classes")
    grid = np.stack(np.meshgrid(*[np.arange(0, 256, 15)] * 3, indexing="ij"), -1).reshape(-1, 3)
    lab = _oklab(grid)
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    fit = (lab[:, 0] > 0.42) & (lab[:, 0] < 0.84) & (chroma > 0.06) & (chroma < 0.165)
    grid, lab = grid[fit], lab[fit]
    if classes - len(given) > len(grid):
        raise ValueError(f"no {classes} distinct colours: at most {len(grid)}")
    chosen = [*given] or [np.array(_FIRST, np.uint8)]
    nearest = np.linalg.norm(lab[:, None] - _oklab(chosen), axis=-1).min(1)
    while len(chosen) < classes:
        best = int(nearest.argmax())
        chosen.append(grid[best].astype(np.uint8))
        nearest = np.minimum(nearest, np.linalg.norm(lab - lab[best], axis=-1))
    return np.array(chosen[:classes], np.uint8).reshape(classes, 3)


def _oklab(colors: ArrayLike) -> NDArray[np.float64]:
    """sRGB [..., 3] in 0..255 -> Oklab (lightness, green-red, blue-yellow) [..., 3]."""
    rgb = np.asarray(colors, np.float64) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_cones = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    to_lab = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    return np.cbrt(linear @ np.transpose(to_cones)) @ np.transpose(to_lab)


def paint(mask: Pixels, colors: ArrayLike) -> Pixels:
    """Paints each class in its colour; ignored pixels are hatched in light grey.

    Args:
      mask: uint8 [H, W], class ids below len(colors), or 255.
      colors: uint8 [classes, 3].

    Returns:
      uint8 [H, W, 3].
    """
    mask, colors = np.asarray(mask), np.asarray(colors, np.uint8)
    ignored = mask == IGNORED
    if mask.ndim != 2 or not np.issubdtype(mask.dtype, np.integer):
        raise ValueError(f"mask: expected class ids [H, W], got {mask.dtype} {mask.shape}")
    wrong = mask[~ignored & ((mask < 0) | (mask >= len(colors)))]
    if len(wrong):
        raise ValueError(f"mask: class {wrong[0]}, but there are colours for {len(colors)}")
    painted = colors[np.where(ignored, 0, mask)]
    painted[ignored] = np.where(_hatch(mask.shape), 176, 224)[ignored, None]
    return painted


def mask_overlay(image: Pixels, mask: Pixels, colors: ArrayLike) -> Pixels:
    """Lays the colours of a mask over the image; ignored pixels are grey, unpainted and hatched.

    Args:
      image: uint8 [H, W, 3].
      mask: uint8 [H, W], class ids below len(colors), or 255.
      colors: uint8 [classes, 3].

    Returns:
      uint8 [H, W, 3].
    """
    if _image_size(image) != np.shape(mask):
        raise ValueError(f"image {np.shape(image)} and mask {np.shape(mask)} differ in size")
    grey = _grey(image)
    ignored = np.asarray(mask) == IGNORED
    overlay = _blend(grey // 2 + image // 2, paint(mask, colors), _PAINT)
    overlay[ignored] = grey[ignored]
    overlay[ignored & _hatch(np.shape(mask))] //= 2
    return overlay


def _hatch(size: tuple[int, ...]) -> NDArray[np.bool_]:
    """Where the diagonal stripes are: [H, W]."""
    return np.add.outer(np.arange(size[0]), np.arange(size[1])) % _HATCH < _HATCH // 3


def draw_box(image: Pixels, box: ArrayLike, color: ArrayLike, thickness: int = 1) -> Pixels:
    """Draws the outline of a box with pixels that lie inside it.

    Args:
      image: uint8 [H, W, 3].
      box: float [4] = (x1, y1, x2, y2) in pixel edges, rounded to the nearest; it may reach beyond
        the image, and what does is not drawn.
      color: uint8 [3].
      thickness: pixels.

    Returns:
      uint8 [H, W, 3], a copy.
    """
    _image_size(image)
    x1, y1, x2, y2 = (int(edge) for edge in np.rint(np.asarray(box, np.float64)))
    row, column = np.ogrid[: image.shape[0], : image.shape[1]]
    depth = np.minimum(  # of a pixel inside the box, counted from its edge: 0 for the outermost
        np.minimum(row - y1, y2 - 1 - row), np.minimum(column - x1, x2 - 1 - column)
    )
    drawn = image.copy()
    drawn[(depth >= 0) & (depth < thickness)] = np.asarray(color, np.uint8)
    return drawn


def enlarge(image: Pixels, at_least: int) -> Pixels:
    """Repeats pixels a whole number of times, until the shorter side has `at_least` of them.

    Args:
      image: [H, W, 3], or a mask [H, W].
      at_least: pixels; an image that has them is returned as it is.

    Returns:
      the same dtype, [H * n, W * n, ...].
    """
    times = max(1, -(-at_least // min(image.shape[:2])))
    return image.repeat(times, 0).repeat(times, 1)


def shrink(image: Pixels, at_most: int) -> Pixels:
    """Reduces by a whole factor, until the longer side has no more than `at_most` pixels: an image
    by means, a mask by taking every n-th pixel.

    Args:
      image: uint8 [H, W, 3], or a mask [H, W].

    Returns:
      the same dtype, [ceil(H / n), ceil(W / n), ...]; the image itself if it is small enough.
    """
    times = -(-max(image.shape[:2]) // at_most)
    if times <= 1:
        return image
    if image.ndim == 2:
        return image[::times, ::times]
    return np.asarray(Image.fromarray(image).reduce(times))


def png(image: Pixels) -> bytes:
    """Encodes an image as PNG without loss, with a palette where it has no more than 256 colours.

    Args:
      image: uint8 [H, W, 3].

    Returns:
      the file; the same bytes for the same image.
    """
    height, width = _image_size(image)
    packed = image.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    colors, index = np.unique(packed, return_inverse=True)
    if len(colors) <= 256:
        picture = Image.fromarray(index.reshape(height, width).astype(np.uint8)).convert("P")
        table = (colors[:, None] >> np.array([16, 8, 0], np.uint32)) & 255
        picture.putpalette(table.astype(np.uint8).tobytes())
    else:
        picture = Image.fromarray(image)
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()


def sheet(rows: Sequence[Sequence[Pixels]], column_titles: Sequence[str] | None = None) -> Pixels:
    """A contact sheet: rows of images on white, in columns, with a title above each column.

    Args:
      rows: images uint8 [H, W, 3], which may differ in size; a row may end early.
      column_titles: one a column.

    Returns:
      uint8 [H, W, 3]; the images in it are unchanged.
    """
    columns = max((len(row) for row in rows), default=0)
    if not columns:
        raise ValueError("sheet: no images")
    if column_titles is not None and len(column_titles) != columns:
        raise ValueError(f"sheet: {len(column_titles)} titles for {columns} columns")
    heights = [max((_image_size(tile)[0] for tile in row), default=0) for row in rows]
    widths = [max(row[c].shape[1] for row in rows if c < len(row)) for c in range(columns)]
    gap = max(4, max(widths) // 32)
    top = 0
    font = ImageFont.load_default(max(11, min(20, max(widths) // 14)))
    if column_titles is not None:
        boxes = [font.getbbox(title) for title in column_titles]
        widths = [max(w, int(np.ceil(b[2]))) for w, b in zip(widths, boxes, strict=True)]
        top = int(np.ceil(max(b[3] for b in boxes))) + gap
    left = np.cumsum([gap] + [w + gap for w in widths])
    upper = np.cumsum([gap + top] + [h + gap for h in heights])
    canvas = Image.new("RGB", (int(left[-1]), int(upper[-1])), "white")
    draw = ImageDraw.Draw(canvas)
    for x, title in zip(left[:-1], column_titles or (), strict=False):
        draw.text((int(x), gap), title, fill=(68, 68, 68), font=font)
    for y, row in zip(upper[:-1], rows, strict=True):
        for x, tile in zip(left[:-1], row, strict=False):
            canvas.paste(Image.fromarray(tile), (int(x), int(y)))
    return np.array(canvas)


def _image_size(image: Pixels) -> tuple[int, int]:
    """(height, width) of what has to be an image."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"image: expected uint8 [H, W, 3], got {image.dtype} {image.shape}")
    return image.shape[0], image.shape[1]


def _grey(image: Pixels) -> Pixels:
    """The luma of an image (Rec. 601), in three equal channels."""
    luma = np.rint(image @ np.array([0.299, 0.587, 0.114], np.float32)).astype(np.uint8)
    return luma[..., None].repeat(3, -1)


def _blend(below: Pixels, above: Pixels, part: float) -> Pixels:
    """(1 - part) of the one and `part` of the other, rounded."""
    return np.rint((1 - part) * below.astype(np.float32) + part * above).astype(np.uint8)

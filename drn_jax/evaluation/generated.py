"""Scores for generated images: does a segmentation network see in an image what it was made from?

A generator makes images of label maps; a network that was trained on real ones (papers take
DRN-D-105 on Cityscapes) segments them; its answers are scored against the label maps. What the
papers leave open moves the scores by many points, so every choice is a field of `Protocol`:

  seen    the size at which the network sees the images. pix2pix enlarges them to the label map's
          size (1024x2048), and so do those who arrive at SPADE's published scores; OASIS and CLADE
          keep the generated 256x512, CUT and NEGCUT 128x256.
  resize  the filter by which images get that size; the papers rarely name one.
  scored  where pixels are counted: at the label map's size; or at the seen size, to which OASIS,
          CC-FPSE and CLADE reduce the label map.

Neither labels nor predictions are ever interpolated: they are resized by nearest neighbour. Real
images scored by the same protocol are the ceiling, and should stand beside the scores.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from drn_jax.data import image
from drn_jax.data.files import Files
from drn_jax.data.labels.cityscapes import CITYSCAPES
from drn_jax.data.masks import ClassIds, Colors, Decode, MappedIds
from drn_jax.data.sources import by
from drn_jax.errors import UserError
from drn_jax.evaluation import scores

Resize = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Labels = Literal["trainIds", "labelIds", "colors", "ids"]
MaskOf = Callable[[np.ndarray], np.ndarray]
"""The network: from an image, uint8 [H, W, 3], to the class of every pixel, integers [H, W]."""

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
"""PIL's, which are antialiased when they reduce (but for the first)."""

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm")
"""Files of other endings are passed over."""

GENERATED = ("_synthesized_image", "_fake_B", "_fake")
"""What pix2pixHD, pix2pix and CUT call what they generate, among other pictures of a result."""

DRAWN: dict[Labels, tuple[str, ...]] = {
    "trainIds": ("_gtFine_labelTrainIds",),
    "labelIds": ("_gtFine_labelIds",),
    "colors": ("_gtFine_color",),
    "ids": (),
}
"""What Cityscapes calls its label maps, among the others of a frame."""

BESIDES = (*GENERATED, "_leftImg8bit", *(name for names in DRAWN.values() for name in names))
"""Ends of names that say nothing of which example a file is."""


@dataclass(frozen=True)
class Protocol:
    """What the papers leave open, see the module."""

    seen: tuple[int, int] | Literal["label", "image"] = "label"
    """(height, width); or that of the label map, or of the generated image."""
    resize: Resize = "bicubic"
    scored: Literal["label", "seen"] = "label"

    def as_json(self) -> dict[str, str]:
        """For a file, and for people."""
        seen = self.seen if isinstance(self.seen, str) else by(self.seen)
        return {"seen": seen, "resize": self.resize, "scored": self.scored}


def score(
    pairs: Iterable[tuple[np.ndarray, np.ndarray]],
    mask_of: MaskOf,
    classes: int,
    protocol: Protocol = Protocol(),
    where: Callable[[int], str] = "image {}".format,
) -> dict[str, Any]:
    """Score generated images, uint8 [H, W, 3], against their label maps, uint8 [h, w] (class ids,
    255 = ignored).

    Args:
      where: what people call an image, by its place among the pairs.

    Raises: UserError naming an image that the network has no answer to.

    Returns:
      `confusion`, int64 [truth, prediction]; `scores`, see `scores.summary`; `images`, how many;
      `sizes`, how often which: (image's, seen, scored), each (height, width).
    """
    confusion = np.zeros((classes, classes), np.int64)
    sizes: Counter[tuple[tuple[int, ...], ...]] = Counter()
    for index, (pixels, label) in enumerate(pairs):
        own = pixels.shape[:2]
        seen = protocol.seen
        if isinstance(seen, str):
            seen = label.shape if seen == "label" else own
        try:
            mask = mask_of(resized(pixels, seen, protocol.resize))
        except UserError as error:
            raise UserError(f"{where(index)}: {error}") from None
        if protocol.scored == "label":
            mask = nearest(mask, label.shape)
        else:
            label = nearest(label, seen)
        confusion += scores.confusion(label, mask, classes)
        sizes[own, tuple(seen), label.shape] += 1
    return {
        "confusion": confusion,
        "scores": scores.summary(confusion),
        "images": sum(sizes.values()),
        "sizes": dict(sizes),
    }


def resized(pixels: np.ndarray, size: tuple[int, ...], way: Resize) -> np.ndarray:
    """An image, uint8 [H, W, 3], at another (height, width)."""
    if pixels.shape[:2] == tuple(size):
        return pixels
    height, width = size
    return np.array(Image.fromarray(pixels).resize((width, height), FILTERS[way]))


def nearest(mask: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """A mask [H, W] at another (height, width): each pixel takes the one under its middle."""
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new)
        for new, old in zip(size, mask.shape, strict=True)
    )
    return mask[rows[:, None], columns[None, :]]


def decoder(labels: Labels, classes: int) -> Decode:
    """What makes class ids of a label map's file: Cityscapes' trainIds, labelIds or colours; or
    class ids as they are. 255 is ignored."""
    if labels == "labelIds":
        return MappedIds(CITYSCAPES.ids())
    if labels == "colors":
        return Colors(CITYSCAPES.color_ids())
    return ClassIds(classes)


def read_pairs(
    images: Files, labels: Files, named: Iterable[tuple[str, str]], decode: Decode
) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """The generated images and their label maps, one after the other.

    Raises: UserError naming a file that can't be read, or that holds no labels of the kind.
    """
    for ours, theirs in named:
        pixels = image.decode_rgb(images.read(ours), images.where(ours))
        yield pixels, decode(labels.read(theirs), labels.where(theirs))


class Matched(NamedTuple):
    """Images and their label maps."""

    pairs: list[tuple[str, str]]
    alone: tuple[int, int]
    """Images without a label map, and label maps without an image."""
    passed_over: tuple[int, int]
    """Pictures of the two folders with another ending than those that count."""


def match(
    images: Files,
    labels: Files,
    kind: Labels,
    endings: tuple[str, str] = ("", ""),
    partial: bool = False,
) -> Matched:
    """The files that belong together, sorted: those of one name, whatever their folder.

    A file's name is what is left of it without its folder, its ending and all of `BESIDES` at its
    end: `aachen/aachen_000000_000019_gtFine_labelIds_synthesized_image.jpg` is
    `aachen_000000_000019`. Where some of a folder's names end in one of `GENERATED` (for label maps
    in one of `DRAWN`), the others are passed over.

    Args:
      kind: of the label maps.
      endings: of the images and the label maps, ".png" or "_fake.png" for instance: take those
        files alone. "": by the rule above.
      partial: leave out what has no partner.

    Raises:
      UserError: two files of a folder have one name; one has no partner, unless `partial`; or there
        is no pair.
    """
    ours, others = _by_name(images, endings[0], GENERATED)
    theirs, more = _by_name(labels, endings[1], DRAWN[kind])
    lonely = sorted(ours.keys() ^ theirs.keys())
    pairs = [(ours[name], theirs[name]) for name in sorted(ours.keys() & theirs.keys())]
    if lonely and (not partial or not pairs):
        first = lonely[:3]
        places = [images.where(ours[n]) if n in ours else labels.where(theirs[n]) for n in first]
        kinds = (
            f"{len(ours.keys() - theirs.keys())} images of {len(ours)} have no label map, "
            f"{len(theirs.keys() - ours.keys())} label maps of {len(theirs)} no image"
        )
        advice = "name the endings of both" + (
            "" if not pairs else ", or score the rest (--partial)"
        )
        raise UserError(f"{kinds}: {', '.join(places)}{', ...' * (len(lonely) > 3)}; {advice}")
    if not pairs:
        raise UserError(f"{images.where('')}: holds no pictures; check the path and the ending")
    return Matched(pairs, (len(ours) - len(pairs), len(theirs) - len(pairs)), (others, more))


def _by_name(files: Files, ending: str, preferred: tuple[str, ...]) -> tuple[dict[str, str], int]:
    """The pictures of a folder by their names, and how many others it holds."""
    pictures = [name for name in files.under("") if _is_picture(name, "")]
    found = [name for name in files.under("") if _is_picture(name, ending)]
    if not ending:
        chosen = [name for name in found if _stem(name).endswith(preferred)]
        found = chosen or found
    names: dict[str, str] = {}
    again: list[str] = []
    for path in found:
        stem = name_of(path.removesuffix(ending) if ending else path)
        if stem in names:
            again.append(f"{files.where(path)} and {files.where(names[stem])}")
        names.setdefault(stem, path)
    if again:
        others = f" (and {len(again) - 1} more)" if len(again) > 1 else ""
        raise UserError(f"{again[0]} are of one name{others}: name the ending of those that count")
    return names, len(set(pictures) - set(found))


def _is_picture(path: str, ending: str) -> bool:
    return path.endswith(ending) if ending else path.lower().endswith(PICTURES)


def name_of(path: str) -> str:
    """What is left of a file's path, see `match`."""
    stem, before = _stem(path), ""
    while stem != before:
        before = stem
        for end in BESIDES:
            stem = stem.removesuffix(end)
    return stem


def _stem(path: str) -> str:
    last = path.rpartition("/")[2]
    return re.sub("|".join(f"{re.escape(e)}$" for e in PICTURES), "", last, flags=re.IGNORECASE)

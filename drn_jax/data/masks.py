"""Masks by index, and what their files hold: class ids, ids of another convention, or colours."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from drn_jax.data import image
from drn_jax.data.dataset import IGNORED
from drn_jax.data.files import Files
from drn_jax.errors import UserError

Decode = Callable[[bytes, str], np.ndarray]
"""Makes a mask, uint8 [H, W], of a file's bytes; receives what errors call the file."""


class Masks(Protocol):
    """Masks by index, uint8 [H, W]: class ids, and 255 = ignored."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> np.ndarray: ...

    def where(self, index: int) -> str:
        """What errors call the mask."""
        ...


@dataclass(frozen=True)
class MaskFiles:
    """Masks in a file each."""

    files: Files
    names: tuple[str, ...]
    decode: Decode

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> np.ndarray:
        name = self.names[index]
        return self.decode(self.files.read(name), self.files.where(name))

    def where(self, index: int) -> str:
        return self.files.where(self.names[index])


@dataclass(frozen=True)
class ClassIds:
    """Decodes masks that hold the class ids themselves, 0 to classes - 1, or 255."""

    classes: int

    def __call__(self, data: bytes, where: str) -> np.ndarray:
        mask = image.decode_mask(data, where)
        return known(mask, (mask < self.classes) | (mask == IGNORED), where, self._ids)

    @property
    def _ids(self) -> str:
        return f"neither a class (0 to {self.classes - 1}) nor {IGNORED} (ignored)"


@dataclass(frozen=True)
class MappedIds:
    """Decodes masks that hold ids of another convention."""

    ids: tuple[tuple[int, int], ...]
    """(id in the file, class id or 255) pairs; 255 itself is ignored, every other id an error."""

    def __call__(self, data: bytes, where: str) -> np.ndarray:
        mask = image.decode_mask(data, where)
        table = np.full(256, IGNORED, np.uint8)
        listed = np.arange(256) == IGNORED
        for there, here in self.ids:
            table[there], listed[there] = here, True
        return table[known(mask, listed[mask], where, "none of this set's ids")]


@dataclass(frozen=True)
class Colors:
    """Decodes masks that are painted in a colour a class."""

    ids: tuple[tuple[tuple[int, int, int], int], ...]
    """(RGB, class id or 255) pairs; every other colour is an error."""

    def __call__(self, data: bytes, where: str) -> np.ndarray:
        painted = image.decode_rgb(data, where).astype(np.int32)
        packed = painted[..., 0] << 16 | painted[..., 1] << 8 | painted[..., 2]
        table = {r << 16 | g << 8 | b: here for (r, g, b), here in self.ids}
        colors = np.array(sorted(table), np.int32)
        place = np.searchsorted(colors, packed).clip(max=len(colors) - 1)
        unknown = np.argwhere(colors[place] != packed)
        if len(unknown):
            row, column = unknown[0]
            color = tuple(painted[row, column].tolist())
            raise UserError(
                f"{where}: colour {color} at row {row}, column {column} is none of this set's; "
                "masks must not be resized by interpolation, nor saved as JPEG"
            )
        return np.array([table[color] for color in colors.tolist()], np.uint8)[place]


def known(mask: np.ndarray, listed: np.ndarray, where: str, otherwise: str) -> np.ndarray:
    """The mask; UserError unless all its values are `listed`, bool [H, W]."""
    if not listed.all():
        row, column = np.argwhere(~listed)[0]
        raise UserError(
            f"{where}: value {mask[row, column]} at row {row}, column {column} is {otherwise}; "
            "mend the mask, or the number of classes"
        )
    return mask

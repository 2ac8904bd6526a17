"""Label spaces as data: what a set's files call things, and the classes that networks learn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from drn_jax.data.dataset import IGNORED
from drn_jax.errors import UserError

RGB = tuple[int, int, int]


class Class(NamedTuple):
    """A class that networks learn; its id is its place among the classes."""

    name: str
    color: RGB
    """That its masks are drawn in."""


class Label(NamedTuple):
    """A label as the files of a set know it."""

    name: str
    color: RGB | None
    """That the set's own coloured masks use, or None where it has none."""
    id: int
    """In the set's own masks of ids or lists; -1 where it has none."""
    trained: str
    """Name of the class that it counts as; "" is ignored."""
    category: str = ""
    """The group that it belongs to, where a set has groups."""


@dataclass(frozen=True)
class LabelSpace:
    """The labels of a set, and the classes that they become."""

    name: str
    source: str
    """Where the table comes from: a URL or a publication."""
    classes: tuple[Class, ...]
    labels: tuple[Label, ...]
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Other names in circulation for the classes, in lower case."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes, in the order of their ids."""
        return tuple(c.name for c in self.classes)

    @property
    def colors(self) -> tuple[RGB, ...]:
        """The colours of the classes, likewise."""
        return tuple(c.color for c in self.classes)

    def ids(self) -> tuple[tuple[int, int], ...]:
        """(id in the set's own masks, class id or 255), for `masks.MappedIds`."""
        return tuple((label.id, self._class_id(label)) for label in self.labels if label.id >= 0)

    def color_ids(self) -> tuple[tuple[RGB, int], ...]:
        """(colour in the set's own masks, class id or 255), for `masks.Colors`. Where several
        labels share a colour, the first counts."""
        here: dict[RGB, int] = {}
        for label in self.labels:
            if label.color is not None:
                here.setdefault(label.color, self._class_id(label))
        return tuple(here.items())

    def own_ids(self) -> np.ndarray:
        """The set's own id of every class, uint8 [256], by class id; 0 for 255 and what is no
        class. Where several labels became one class, the first stands for it."""
        table = np.zeros(256, np.uint8)
        for there, here in reversed(self.ids()):
            if here != IGNORED:
                table[here] = there
        return table

    def categories(self) -> tuple[str, ...]:
        """The names of the groups that classes belong to, in the order of the labels."""
        return tuple(dict.fromkeys(a.category for a in self.labels if a.trained))

    def category_ids(self) -> np.ndarray:
        """The group of every class, uint8 [256], by class id: its place among `categories`; 255 for
        255 and what is no class. Groups are scored so: prediction and truth both looked up."""
        table = np.full(256, IGNORED, np.uint8)
        for label in self.labels:
            if label.trained:
                table[self._class_id(label)] = self.categories().index(label.category)
        return table

    def reordered(self, listed: Sequence[str], where: str) -> tuple[tuple[int, int], ...]:
        """(place in `listed`, class id), where `listed` names the classes in an order of its own.

        Raises: UserError unless each class is named once, by its name or an alias in any case.
        """
        here = {name.lower(): i for i, name in enumerate(self.names)}
        here |= {alias: here[name.lower()] for alias, name in self.aliases.items()}
        found = [here.get(name.lower().strip(), -1) for name in listed]
        if -1 in found:
            raise UserError(
                f"{where}: class {listed[found.index(-1)]!r} is none of {self.name}: "
                f"{', '.join(self.names)}"
            )
        if sorted(found) != list(range(len(self.names))):
            raise UserError(
                f"{where}: must name each class of {self.name} once: {', '.join(self.names)}"
            )
        return tuple(enumerate(found))

    def _class_id(self, label: Label) -> int:
        return self.names.index(label.trained) if label.trained else IGNORED

"""Data sets by name: `load(name, directory, task)`.

Every set is two sources of examples and what is known of them (`dataset.Dataset`); `loader` makes
batches of the sources, `transforms` changes examples.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

from drn_jax.data.dataset import Dataset
from drn_jax.data.labels import CAMVID, CITYSCAPES, Label
from drn_jax.errors import UserError, nearest


class Entry(NamedTuple):
    """A set: how to load it for a task ("classification", "segmentation") from where it lies."""

    load: Callable[[str, str], Dataset]
    tasks: tuple[str, ...]
    lies_at: str
    """What `config.data.dir` must name, for the error when it is missing."""


def load(name: str, directory: str, task: str) -> Dataset:
    """The data set `name` for a task.

    Args:
      directory: the folder (or zip) that holds the set; "" where the set has a default place.

    Raises: UserError for an unknown set, one without labels for the task, or bad contents.
    """
    if name not in DATASETS:
        raise UserError(f"unknown data set config.data.name={name!r}: {nearest(name, DATASETS)}")
    entry = DATASETS[name]
    if task not in entry.tasks:
        raise UserError(
            f"data set {name} has no labels for {task}: use it for {' or '.join(entry.tasks)}"
        )
    if not directory and entry.lies_at:
        raise UserError(f"data set {name}: give --config.data.dir={entry.lies_at}")
    return entry.load(directory, task)


def _digit_scenes(directory: str, task: str) -> Dataset:
    from drn_jax.data import digit_scenes  # Imports TFDS: a second.

    classes = digit_scenes.DIGITS if task == "classification" else digit_scenes.MASKS
    return digit_scenes.load(directory or None, classes)


def _ribbon_scenes(directory: str, task: str) -> Dataset:
    from drn_jax.data import ribbon_scenes  # Imports TFDS: a second.

    load = ribbon_scenes.load if task == "segmentation" else ribbon_scenes.load_close_ups
    return load(directory or None)


def _listed(labels: tuple[Label, ...]) -> Callable[[str, str], Dataset]:
    def load_labelled(directory: str, task: str) -> Dataset:
        from drn_jax.data import list_folder

        dataset = list_folder.load(directory, tuple(label.name for label in labels))
        return replace(dataset, colors=tuple(label.color for label in labels))

    return load_labelled


def _list_folder(directory: str, task: str) -> Dataset:
    from drn_jax.data import list_folder

    return list_folder.load(directory, None)


def _class_folder(directory: str, task: str) -> Dataset:
    from drn_jax.data import class_folder

    return class_folder.load(directory)


def _tiny_imagenet(directory: str, task: str) -> Dataset:
    from drn_jax.data import tiny_imagenet

    return tiny_imagenet.load(directory)


_LISTS = "FOLDER, the folder with train_images.txt, train_labels.txt, val_*.txt and info.json"

DATASETS: Mapping[str, Entry] = {
    "digit_scenes": Entry(_digit_scenes, ("classification", "segmentation"), ""),
    "ribbon_scenes": Entry(_ribbon_scenes, ("classification", "segmentation"), ""),
    "camvid": Entry(_listed(CAMVID), ("segmentation",), _LISTS),
    "cityscapes": Entry(_listed(CITYSCAPES), ("segmentation",), _LISTS),
    "list_folder": Entry(_list_folder, ("segmentation",), _LISTS),
    "imagenet": Entry(
        _class_folder, ("classification",), "FOLDER, the folder with train/CLASS/ and val/CLASS/"
    ),
    "tiny_imagenet": Entry(
        _tiny_imagenet, ("classification",), "FOLDER_OR_ZIP, the folder with wnids.txt, or its zip"
    ),
}

"""The networks and images that figures are computed from."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from drn_jax import data, places, trained
from drn_jax.config import ClassificationData, MapData
from drn_jax.data.dataset import Dataset, evenly, spread
from drn_jax.data.image import decode_rgb, read_bytes
from drn_jax.data.transforms import CentreCrop, ResizeShorterSide
from drn_jax.errors import UserError
from drn_jax.figures import charts, levels
from drn_jax.figures.levels import Level
from drn_jax.models.network import Network
from drn_jax.predict import files
from drn_jax.tasks import Segmentation
from drn_jax.trained import Trained


class Picture(NamedTuple):
    """An image that is shown to classifiers."""

    name: str
    image: np.ndarray
    """uint8 [H, W, 3]."""


class Scene(NamedTuple):
    """A validation image for segmentation."""

    name: str
    image: np.ndarray
    """uint8 [H, W, 3]."""
    mask: np.ndarray
    """uint8 [H, W], 255 = ignored."""


@dataclass(frozen=True)
class Run:
    """A trained network under the name that figures give it."""

    workdir: str
    name: str
    trained: Trained

    @property
    def network(self) -> Network:
        """That of a classifier."""
        assert isinstance(self.trained.model, Network), "see `classifiers`"
        return self.trained.model

    def levels(self, side: int) -> tuple[Level, ...]:
        """Of a classifier, for images of `side` pixels."""
        return levels.of(self.network.stages, side + 2 * self.trained.preprocess.margin)

    def words(self) -> str:
        """What it is, in one line."""
        return (
            f"{self.workdir}, step {self.trained.step:,}, {self.trained.config.model.width:g} "
            f"times the published channels, weights {self.trained.digest[:12]}"
        )


def classifiers(workdirs: Sequence[str], checkpoint: str, data_dir: str) -> list[Run]:
    """The runs in working directories. Raises: UserError as `trained.load`, and for such as have
    no levels to look at."""
    runs = _load(workdirs, checkpoint, data_dir)
    for run in runs:
        if not isinstance(run.trained.config.data, ClassificationData):
            raise UserError(
                f"--classifiers: {run.workdir} is a run of {run.trained.config.task}; give it to "
                "--segmenters"
            )
        if not isinstance(run.trained.model, Network):
            raise UserError(f"--classifiers: {run.workdir} has a context module; leave it out")
    return runs


def segmenters(workdirs: Sequence[str], checkpoint: str, data_dir: str) -> list[Run]:
    """The runs in working directories. Raises: UserError as `trained.load`, and for such as can't
    stand side by side."""
    runs = _load(workdirs, checkpoint, data_dir)
    for run in runs:
        if not isinstance(run.trained.task, Segmentation):
            raise UserError(
                f"--segmenters: {run.workdir} is a run of {run.trained.config.task}; give it to "
                "--classifiers"
            )
        if run.trained.classes != runs[0].trained.classes:
            raise UserError(
                f"--segmenters: {run.workdir} has other classes than {runs[0].workdir}; draw them "
                "in two commands"
            )
    return runs


def _load(workdirs: Sequence[str], checkpoint: str, data_dir: str) -> list[Run]:
    """Named as the papers name the networks, and where two would have one name by the folder."""
    found = [trained.load(workdir, checkpoint, data_dir) for workdir in workdirs]
    names = [_name(one) for one in found]
    runs, used = [], Counter[str]()
    for workdir, one, name in zip(workdirs, found, names, strict=True):
        if names.count(name) > 1:
            name = f"{name}, {charts.shortened(places.name(workdir), 16)}"
        used[name] += 1
        name += f" ({used[name]})" if used[name] > 1 else ""
        runs.append(Run(workdir, name, one))
    return runs


def _name(found: Trained) -> str:
    if found.front_end:
        return f"{charts.title(found.front_end.config.model.name)} + context"
    settings = found.config.model
    return charts.title(settings.name) + (" + context" if settings.context.layers else "")


def pictures(
    named: Sequence[str], first: Run, count: int, side: int, out: str, data_dir: str
) -> list[Picture]:
    """So many squares of `side` pixels, the middles of images evenly spread over those in files,
    folders and patterns; if none are named, over the run's validation images. Raises: UserError."""
    if named:
        found, _ = files.find(named, out)
        chosen = [found[i] for i in spread(len(found), count)]
        whole = [Picture(one.name, decode_rgb(read_bytes(one.path), one.path)) for one in chosen]
    else:
        dataset = _dataset(first, data_dir)
        part = evenly(dataset.validation, count)
        examples = [part[i] for i in range(len(part))]
        whole = [Picture(dataset.classes[int(one["label"])], one["image"]) for one in examples]
    return [_squared(picture, side) for picture in whole]


def _squared(picture: Picture, side: int) -> Picture:
    resized = ResizeShorterSide(side)({"image": picture.image})
    return picture._replace(image=CentreCrop(side)(resized)["image"])


def scenes(first: Run, count: int, data_dir: str) -> tuple[str, list[Scene]]:
    """The name of the run's data set, and so many of its validation images, evenly spread."""
    dataset = _dataset(first, data_dir)
    part = evenly(dataset.validation, count)
    return dataset.name, [
        Scene(f"image {i}", part[k]["image"], part[k]["mask"]) for k, i in enumerate(part.indices)
    ]


def _dataset(run: Run, data_dir: str) -> Dataset:
    """The set that the network learned from, or its front end did."""
    config = (run.trained.front_end or run.trained).config
    assert not isinstance(config.data, MapData)
    return data.load(config.data.name, data_dir or config.data.dir, config.task)

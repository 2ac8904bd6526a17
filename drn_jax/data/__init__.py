"""Data sets by name: `load(name, directory, task)`.

Every set is sources of examples and what is known of them (`dataset.Dataset`): read in place, as it
is distributed (`sets`, one file each), or from records made of it before (`records`). `loader`
makes batches of the sources, `transforms` changes examples.
"""

from dataclasses import replace

from drn_jax import places
from drn_jax.data import records
from drn_jax.data.dataset import Dataset, Source
from drn_jax.data.findings import Findings
from drn_jax.data.sets import DATASETS
from drn_jax.data.sources import FileSource
from drn_jax.errors import UserError, nearest

__all__ = ["DATASETS", "load", "read"]


def load(name: str, directory: str, task: str, boxes: bool = False) -> Dataset:
    """The data set `name` for a task ("classification", "segmentation").

    Args:
      directory: the folder (or archive) that holds the set, as distributed or prepared, on a disk
        or in a bucket (gs://...); "" where the set has a default place.
      boxes: read them, too, where they lie in files of their own; what is wrong with them is no
        matter for those who do not need them.

    Raises: UserError for an unknown set, one without labels for the task, or bad contents.
    """
    findings = Findings()
    dataset = read(name, directory, task, findings)
    findings.raise_first(f"python -m drn_jax.data check {name} --dir {directory}")
    if boxes:
        return dataset
    return replace(
        dataset,
        train=_without_boxes(dataset.train),
        validation=_without_boxes(dataset.validation),
        test=dataset.test and _without_boxes(dataset.test),
    )


def read(name: str, directory: str, task: str, findings: Findings) -> Dataset:
    """As `load`, but what is wrong with single examples becomes findings, and they are left out."""
    if name not in DATASETS:
        raise UserError(f"unknown data set config.data.name={name!r}: {nearest(name, DATASETS)}")
    entry = DATASETS[name]
    if task not in entry.tasks:
        raise UserError(
            f"data set {name} has no labels for {task}: use it for {' or '.join(entry.tasks)}"
        )
    if not entry.lies_as:
        if places.is_remote(directory):
            raise UserError(
                f"config.data.dir={directory}: {name} is made on each machine; leave this empty, "
                "or name a folder on a disk"
            )
        return entry.read(directory, task, findings)
    if not directory:
        raise UserError(f"data set {name}: give --config.data.dir={entry.lies_as}")
    folder = records.find(directory, name, *entry.prepared_as)
    if folder is not None:
        return records.load(folder, name, task)
    draft = records.interrupted(directory, name)
    if draft is not None:
        raise UserError(
            f"{draft}: the preparation of {name} was not finished; run the same command again: "
            f"python -m drn_jax.data prepare {name} --source SOURCE --data_dir {directory}"
        )
    return entry.read(directory, task, findings)


def _without_boxes(source: Source) -> Source:
    if not isinstance(source, FileSource):
        return source
    return replace(source, boxes=None, remarks=None)

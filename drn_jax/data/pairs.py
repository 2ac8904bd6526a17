"""Images and masks in files of their own: brought together by what their names share, and by their
sizes."""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from drn_jax.data.files import Files, find, require_folder
from drn_jax.data.findings import Findings
from drn_jax.data.masks import Decode, MaskFiles
from drn_jax.data.sources import FileSource, unequal
from drn_jax.data.zips import folder_or_zip
from drn_jax.errors import UserError


def opened(
    directory: str, archive: str, folders: tuple[str, ...], otherwise: str, inside: str = ""
) -> Files:
    """The files of one kind in `directory`: in the archive, below its folder `inside` if that is
    named, or else in the first of the folders. (An extraction may have been broken off.)

    Raises: UserError, which ends with `otherwise`, if there is none of them.
    """
    require_folder(directory)
    path = find(directory, archive, *folders)
    if path is None:
        raise UserError(f"{directory}: holds neither {archive} nor {folders[0]}/ {otherwise}")
    return folder_or_zip(path, inside)


class Keyed(NamedTuple):
    """Files of one kind in a split, each by a key that its image and its mask share."""

    files: Files
    names: dict[str, str]


def paired(
    split: str,
    images: Keyed,
    masks: Keyed,
    decode: Decode,
    findings: Findings,
    size: tuple[int, int] | None = None,
) -> FileSource:
    """The images and the masks of a split that have each other; the others are faults.

    Raises: UserError if none is left.
    """
    for key in sorted(images.names.keys() - masks.names.keys()):
        findings.fault(
            f"{images.files.where(images.names[key])}: has no mask in {masks.files.where('')}; "
            "fetch the labels again, or remove the image"
        )
    for key in sorted(masks.names.keys() - images.names.keys()):
        findings.fault(
            f"{masks.files.where(masks.names[key])}: has no image in {images.files.where('')}; "
            "fetch the images again, or remove the mask"
        )
    keys = sorted(images.names.keys() & masks.names.keys())
    if not keys:
        raise UserError(
            f"{images.files.where('')}: holds no {split} image that has a mask in "
            f"{masks.files.where('')} ({len(images.names)} images, {len(masks.names)} masks); "
            "fetch both again"
        )
    return FileSource(
        images.files,
        tuple(images.names[key] for key in keys),
        masks=MaskFiles(masks.files, tuple(masks.names[key] for key in keys), decode),
        size=size,
    )


def common_sizes(
    files: Files, pairs: Iterable[tuple[str, str]]
) -> list[tuple[int, int] | UserError]:
    """(height, width) that each image and its mask have by their headers, which threads look up; or
    the error that says that one is missing or unreadable, or that they differ in size."""

    def look(pair: tuple[str, str]) -> tuple[int, int] | UserError:
        both = FileSource(files, pair)
        try:
            size, mask_size = both.image_size(0), both.image_size(1)
        except UserError as error:
            return error
        if size != mask_size:
            return UserError(unequal(both.where(0), size, both.where(1), mask_size))
        return size

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(look, pairs))

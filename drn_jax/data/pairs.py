"""Images and masks in folders of their own, brought together by what their names share."""

from typing import NamedTuple

from drn_jax.data.files import Files
from drn_jax.data.findings import Findings
from drn_jax.data.sources import Decode, FileSource, MaskFiles
from drn_jax.errors import UserError


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

"""Predictions for Cityscapes in the form that its evaluation server and cityscapesScripts read.

For the image `frankfurt_000000_000294_leftImg8bit.png` there is
`DIRECTORY/frankfurt/frankfurt_000000_000294_predLabelIds.png`: 8-bit grey, 1024x2048, labelIds (not
trainIds). The official script searches a folder, at any depth, for the one file of the name
`CITY_SEQUENCE_FRAME*.png`, so nothing else of such a name may lie there. For the server, zip it.

To score by the official script: `CITYSCAPES_DATASET=FOLDER CITYSCAPES_RESULTS=DIRECTORY
csEvalPixelLevelSemanticLabeling`. (Version 2.3.0 stops under NumPy 2.4, which lacks `in1d`, unless
its `args.evalInstLevelScore` is False.)
"""

import re

import numpy as np

from drn_jax import places
from drn_jax.data.dataset import Source
from drn_jax.data.labels.cityscapes import CITYSCAPES
from drn_jax.data.sources import Readable, by, png
from drn_jax.errors import UserError

SIZE = (1024, 2048)
"""(height, width) of every image of the set."""
ENDING = "_predLabelIds.png"

_FRAME = re.compile(r"(?:.*[/\\])?((?P<city>[^_/\\]+)_\d{6}_\d{6})(?:[_.][^/\\]*)?")


def write(directory: str, image_name: str, mask: np.ndarray, size: tuple[int, int] = SIZE) -> str:
    """Write the prediction for one image, whole or not at all; one that is there is replaced.

    Args:
      directory: on a disk or in a bucket; made if it is not there.
      image_name: the image's file, with or without its folder and its ending.
      mask: integers [H, W], class ids (trainIds); 255 becomes labelId 0, never right.
      size: (height, width) that the mask must have.

    Returns:
      the file's path.

    Raises:
      UserError: the name has not Cityscapes' form, or the mask another size.
    """
    if mask.shape != size:
        raise UserError(
            f"{image_name}: the prediction is {by(mask.shape)} pixels, not {by(size)}; "
            "predict on images of the original size"
        )
    path = path_of(directory, image_name)
    try:
        places.write(path, png(CITYSCAPES.own_ids()[mask]))
    except OSError as error:
        raise UserError(f"{path}: can't be written ({error.strerror or error})") from error
    return path


def path_of(directory: str, image_name: str) -> str:
    """Where `write` puts the prediction for an image. Raises: UserError for a name that has not
    Cityscapes' form."""
    found = _FRAME.fullmatch(image_name)
    if found is None:
        raise UserError(
            f"{image_name}: an image of Cityscapes is called CITY_SEQUENCE_FRAME_leftImg8bit.png, "
            "each number of 6 digits; only such can be exported (read the set as distributed, for "
            "prepared records do not tell their names)"
        )
    return places.join(directory, found["city"], found[1] + ENDING)


def image_names(source: Source) -> tuple[str, ...]:
    """What the images of a source are called, each as `write` takes it, by index.

    Raises: UserError if one has not Cityscapes' form, or two are of one frame.
    """
    if isinstance(source, Readable):
        names = source.names
    else:
        names = tuple(source.where(index) for index in range(len(source)))
    seen: dict[str, str] = {}
    for name in names:
        path = path_of("", name)
        if path in seen:
            raise UserError(f"{name}: is the same frame as {seen[path]}; leave one of them out")
        seen[path] = name
    return names


def require_classes(classes: tuple[str, ...]) -> None:
    """Raise UserError unless these are the 19 classes of Cityscapes, in the order of their
    trainIds."""
    if classes != CITYSCAPES.names:
        raise UserError(
            f"the network's {len(classes)} classes ({', '.join(classes[:3])}, ...) are not "
            "Cityscapes' 19 in the order of their trainIds; only those can be exported"
        )

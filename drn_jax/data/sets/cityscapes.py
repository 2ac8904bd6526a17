"""Cityscapes (Cordts et al. 2016), finely labelled: 2,975 training and 500 validation images of
1024x2048, read from its archives as they are.

From cityscapes-dataset.com, either the archives or the folders of the same names, extracted:
  `leftImg8bit_trainvaltest.zip`: `leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png`
  `gtFine_trainvaltest.zip`: `gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png`
Masks of labelIds become the 19 trainIds; the coloured masks, instances and polygons beside them are
passed over. The labels of `test` are not public: it is not read.

Or the lists of fyu/drn (`list_folder`), whose masks hold trainIds already; if they are there, they
are what is read.
"""

from drn_jax.data.dataset import Dataset
from drn_jax.data.files import Files, find
from drn_jax.data.findings import Findings
from drn_jax.data.labels.cityscapes import CITYSCAPES
from drn_jax.data.masks import MappedIds
from drn_jax.data.pairs import Keyed, opened, paired
from drn_jax.data.sets import list_folder

MEAN = (0.290101, 0.328081, 0.286964)
STD = (0.182954, 0.186566, 0.184475)
"""Of fyu/drn's info.json."""

IMAGE = "_leftImg8bit.png"
MASK = "_gtFine_labelIds.png"
OTHERWISE = (
    "(nor train_images.txt); fetch leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip from "
    "cityscapes-dataset.com and put both there"
)


def read(directory: str, findings: Findings) -> Dataset:
    """The data set below a folder that holds the archives, the folders or the lists.

    Raises: UserError if it holds none of them, an archive is damaged, or a split has no example.
    """
    if find(directory, "train_images.txt"):
        return list_folder.read(directory, findings, classes=CITYSCAPES)
    images, masks = _open(directory, "leftImg8bit"), _open(directory, "gtFine")
    train_images, val_images = (_names(images, split, IMAGE) for split in ("train", "val"))
    train_masks, val_masks = (_names(masks, split, MASK) for split in ("train", "val"))
    for key in sorted(train_images.keys() & val_images.keys()):
        findings.fault(
            f"{images.where(train_images.pop(key))}: is in val too; remove it from one of them"
        )
        train_masks.pop(key, None)
    decode = MappedIds(CITYSCAPES.ids())
    train = paired(
        "train", Keyed(images, train_images), Keyed(masks, train_masks), decode, findings
    )
    validation = paired("val", Keyed(images, val_images), Keyed(masks, val_masks), decode, findings)
    return Dataset(
        name="cityscapes",
        classes=CITYSCAPES.names,
        train=train,
        validation=validation,
        mean=MEAN,
        std=STD,
        colors=CITYSCAPES.colors,
    )


def _open(directory: str, folder: str) -> Files:
    """The files below a folder of the layout."""
    folders = folder, f"{folder}_trainvaltest/{folder}"
    return opened(directory, f"{folder}_trainvaltest.zip", folders, OTHERWISE, inside=folder)


def _names(files: Files, split: str, ending: str) -> dict[str, str]:
    """The files of that ending by city and frame: `aachen/aachen_000000_000019`."""
    return {
        name.removeprefix(f"{split}/").removesuffix(ending): name
        for name in files.under(split)
        if name.endswith(ending)
    }

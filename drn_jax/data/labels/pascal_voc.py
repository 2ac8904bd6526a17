"""PASCAL VOC's 21 classes: the background and 20 kinds of objects.

Masks are palette PNGs whose indices are the class ids, and 255 at the border of objects and where
annotators could not tell. The colours are those of the development kit's colour map (`VOClabelmap`
in VOCcode): an id's bits 0, 1 and 2 are bit 7 of red, green and blue, its bits 3, 4 and 5 are their
bit 6, and so on.
"""

from drn_jax.data.dataset import IGNORED
from drn_jax.data.labels.space import Class, Label, LabelSpace

_CLASSES = (
    Class("background", (0, 0, 0)),
    Class("aeroplane", (128, 0, 0)),
    Class("bicycle", (0, 128, 0)),
    Class("bird", (128, 128, 0)),
    Class("boat", (0, 0, 128)),
    Class("bottle", (128, 0, 128)),
    Class("bus", (0, 128, 128)),
    Class("car", (128, 128, 128)),
    Class("cat", (64, 0, 0)),
    Class("chair", (192, 0, 0)),
    Class("cow", (64, 128, 0)),
    Class("diningtable", (192, 128, 0)),
    Class("dog", (64, 0, 128)),
    Class("horse", (192, 0, 128)),
    Class("motorbike", (64, 128, 128)),
    Class("person", (192, 128, 128)),
    Class("pottedplant", (0, 64, 0)),
    Class("sheep", (128, 64, 0)),
    Class("sofa", (0, 192, 0)),
    Class("train", (128, 192, 0)),
    Class("tvmonitor", (0, 64, 128)),
)

PASCAL_VOC = LabelSpace(
    name="PASCAL VOC",
    source="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
    classes=_CLASSES,
    labels=(
        *(Label(name, color, i, name) for i, (name, color) in enumerate(_CLASSES)),
        Label("border", (224, 224, 192), IGNORED, ""),
    ),
    aliases={
        "airplane": "aeroplane",
        "motorcycle": "motorbike",
        "couch": "sofa",
        "dining table": "diningtable",
        "potted plant": "pottedplant",
        "tv": "tvmonitor",
        "tv monitor": "tvmonitor",
        "tv/monitor": "tvmonitor",
    },
)

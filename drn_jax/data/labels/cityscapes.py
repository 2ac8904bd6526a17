"""Cityscapes: all labels of cityscapesScripts, and the 19 classes that are trained and scored.

The id of a label is its `labelId` (the values of `*_gtFine_labelIds.png`), the id of a class its
`trainId`. `license plate` is -1: annotated, but never drawn into a mask. `pole` and `polegroup`
share a colour, so masks of ids are read, not the coloured ones.
"""

from drn_jax.data.labels.space import Class, Label, LabelSpace

_CLASSES = (
    Class("road", (128, 64, 128)),
    Class("sidewalk", (244, 35, 232)),
    Class("building", (70, 70, 70)),
    Class("wall", (102, 102, 156)),
    Class("fence", (190, 153, 153)),
    Class("pole", (153, 153, 153)),
    Class("traffic light", (250, 170, 30)),
    Class("traffic sign", (220, 220, 0)),
    Class("vegetation", (107, 142, 35)),
    Class("terrain", (152, 251, 152)),
    Class("sky", (70, 130, 180)),
    Class("person", (220, 20, 60)),
    Class("rider", (255, 0, 0)),
    Class("car", (0, 0, 142)),
    Class("truck", (0, 0, 70)),
    Class("bus", (0, 60, 100)),
    Class("train", (0, 80, 100)),
    Class("motorcycle", (0, 0, 230)),
    Class("bicycle", (119, 11, 32)),
)

_LABELS = (
    Label("unlabeled", (0, 0, 0), 0, "", "void"),
    Label("ego vehicle", (0, 0, 0), 1, "", "void"),
    Label("rectification border", (0, 0, 0), 2, "", "void"),
    Label("out of roi", (0, 0, 0), 3, "", "void"),
    Label("static", (0, 0, 0), 4, "", "void"),
    Label("dynamic", (111, 74, 0), 5, "", "void"),
    Label("ground", (81, 0, 81), 6, "", "void"),
    Label("road", (128, 64, 128), 7, "road", "flat"),
    Label("sidewalk", (244, 35, 232), 8, "sidewalk", "flat"),
    Label("parking", (250, 170, 160), 9, "", "flat"),
    Label("rail track", (230, 150, 140), 10, "", "flat"),
    Label("building", (70, 70, 70), 11, "building", "construction"),
    Label("wall", (102, 102, 156), 12, "wall", "construction"),
    Label("fence", (190, 153, 153), 13, "fence", "construction"),
    Label("guard rail", (180, 165, 180), 14, "", "construction"),
    Label("bridge", (150, 100, 100), 15, "", "construction"),
    Label("tunnel", (150, 120, 90), 16, "", "construction"),
    Label("pole", (153, 153, 153), 17, "pole", "object"),
    Label("polegroup", (153, 153, 153), 18, "", "object"),
    Label("traffic light", (250, 170, 30), 19, "traffic light", "object"),
    Label("traffic sign", (220, 220, 0), 20, "traffic sign", "object"),
    Label("vegetation", (107, 142, 35), 21, "vegetation", "nature"),
    Label("terrain", (152, 251, 152), 22, "terrain", "nature"),
    Label("sky", (70, 130, 180), 23, "sky", "sky"),
    Label("person", (220, 20, 60), 24, "person", "human"),
    Label("rider", (255, 0, 0), 25, "rider", "human"),
    Label("car", (0, 0, 142), 26, "car", "vehicle"),
    Label("truck", (0, 0, 70), 27, "truck", "vehicle"),
    Label("bus", (0, 60, 100), 28, "bus", "vehicle"),
    Label("caravan", (0, 0, 90), 29, "", "vehicle"),
    Label("trailer", (0, 0, 110), 30, "", "vehicle"),
    Label("train", (0, 80, 100), 31, "train", "vehicle"),
    Label("motorcycle", (0, 0, 230), 32, "motorcycle", "vehicle"),
    Label("bicycle", (119, 11, 32), 33, "bicycle", "vehicle"),
    Label("license plate", (0, 0, 142), -1, "", "vehicle"),
)

CITYSCAPES = LabelSpace(
    name="Cityscapes",
    source=(
        "https://github.com/mcordts/cityscapesScripts/blob/master/cityscapesscripts/helpers/"
        "labels.py"
    ),
    classes=_CLASSES,
    labels=_LABELS,
    aliases={
        "pavement": "sidewalk",
        "light": "traffic light",
        "traffic_light": "traffic light",
        "sign": "traffic sign",
        "traffic_sign": "traffic sign",
        "tree": "vegetation",
        "pedestrian": "person",
        "motorbike": "motorcycle",
    },
)
"""35 labels, 19 classes in the order of their trainIds, 7 categories of classes."""

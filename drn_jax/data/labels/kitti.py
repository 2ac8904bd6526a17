"""KITTI as Ros et al. 2015 labelled it: 11 classes, painted in CamVid's colours.

The ids of the labels are those of the `GT_ind` masks; the classes are in the order of the Context
paper's Table 6, in which fyu/dilation's network gives its scores.
"""

from drn_jax.data.labels.camvid import (
    BICYCLIST,
    BUILDING,
    CAR,
    FENCE,
    PAVEMENT,
    PEDESTRIAN,
    POLE,
    ROAD,
    SIGN,
    SKY,
    TREE,
)
from drn_jax.data.labels.space import Class, Label, LabelSpace

SIDEWALK = Class("sidewalk", PAVEMENT.color)

KITTI = LabelSpace(
    name="KITTI (Ros et al.)",
    source=(
        "http://adas.cvc.uab.es/s2uad/; Ros et al., Vision-based Offline-Online Perception "
        "Paradigm for Autonomous Driving, WACV 2015"
    ),
    classes=(
        *(BUILDING, TREE, SKY, CAR, SIGN, ROAD),
        *(PEDESTRIAN, FENCE, POLE, SIDEWALK, BICYCLIST),
    ),
    labels=(
        Label("Sky", (128, 128, 128), 0, "sky"),
        Label("Building", (128, 0, 0), 1, "building"),
        Label("Road", (128, 64, 128), 2, "road"),
        Label("Sidewalk", (0, 0, 192), 3, "sidewalk"),
        Label("Fence", (64, 64, 128), 4, "fence"),
        Label("Vegetation", (128, 128, 0), 5, "tree"),
        Label("Pole", (192, 192, 128), 6, "pole"),
        Label("Car", (64, 0, 128), 7, "car"),
        Label("Sign", (192, 128, 128), 8, "sign"),
        Label("Pedestrian", (64, 64, 0), 9, "pedestrian"),
        Label("Cyclist", (0, 128, 192), 10, "bicyclist"),
        Label("Void", (0, 0, 0), 11, ""),
    ),
    aliases={"vegetation": "tree", "pavement": "sidewalk", "cyclist": "bicyclist"},
)

"""CamVid: the 32 labels of label_colors.txt, and the 11 classes of Sturgess et al. 2009.

The grouping of the 32 is the one of MATLAB's SegNet example (`camvidPixelLabelIDs`). The classes
are in two orders: SegNet's, which most data in circulation has, and that of the Context paper's
Table 5, in which fyu/dilation's networks give their scores.

CamVid's own masks are painted; it has no ids.
"""

from drn_jax.data.labels.space import Class, Label, LabelSpace

SKY = Class("sky", (128, 128, 128))
BUILDING = Class("building", (128, 0, 0))
POLE = Class("pole", (192, 192, 128))
ROAD = Class("road", (128, 64, 128))
PAVEMENT = Class("pavement", (0, 0, 192))
TREE = Class("tree", (128, 128, 0))
SIGN = Class("sign", (192, 128, 128))
FENCE = Class("fence", (64, 64, 128))
CAR = Class("car", (64, 0, 128))
PEDESTRIAN = Class("pedestrian", (64, 64, 0))
BICYCLIST = Class("bicyclist", (0, 128, 192))

_LABELS = (
    Label("Animal", (64, 128, 64), -1, "pedestrian"),
    Label("Archway", (192, 0, 128), -1, "building"),
    Label("Bicyclist", (0, 128, 192), -1, "bicyclist"),
    Label("Bridge", (0, 128, 64), -1, "building"),
    Label("Building", (128, 0, 0), -1, "building"),
    Label("Car", (64, 0, 128), -1, "car"),
    Label("CartLuggagePram", (64, 0, 192), -1, "pedestrian"),
    Label("Child", (192, 128, 64), -1, "pedestrian"),
    Label("Column_Pole", (192, 192, 128), -1, "pole"),
    Label("Fence", (64, 64, 128), -1, "fence"),
    Label("LaneMkgsDriv", (128, 0, 192), -1, "road"),
    Label("LaneMkgsNonDriv", (192, 0, 64), -1, "road"),
    Label("Misc_Text", (128, 128, 64), -1, "sign"),
    Label("MotorcycleScooter", (192, 0, 192), -1, "bicyclist"),
    Label("OtherMoving", (128, 64, 64), -1, "car"),
    Label("ParkingBlock", (64, 192, 128), -1, "pavement"),
    Label("Pedestrian", (64, 64, 0), -1, "pedestrian"),
    Label("Road", (128, 64, 128), -1, "road"),
    Label("RoadShoulder", (128, 128, 192), -1, "pavement"),
    Label("Sidewalk", (0, 0, 192), -1, "pavement"),
    Label("SignSymbol", (192, 128, 128), -1, "sign"),
    Label("Sky", (128, 128, 128), -1, "sky"),
    Label("SUVPickupTruck", (64, 128, 192), -1, "car"),
    Label("TrafficCone", (0, 0, 64), -1, "pole"),
    Label("TrafficLight", (0, 64, 64), -1, "sign"),
    Label("Train", (192, 64, 128), -1, "car"),
    Label("Tree", (128, 128, 0), -1, "tree"),
    Label("Truck_Bus", (192, 128, 192), -1, "car"),
    Label("Tunnel", (64, 0, 64), -1, "building"),
    Label("VegetationMisc", (192, 192, 0), -1, "tree"),
    Label("Void", (0, 0, 0), -1, ""),
    Label("Wall", (64, 192, 0), -1, "building"),
)

_SOURCE = (
    "http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/ (label_colors.txt); the 11 "
    "classes: Sturgess et al., Combining Appearance and Structure from Motion Features for Road "
    "Scene Understanding, BMVC 2009"
)

_ALIASES = {
    "buildings": "building",
    "column_pole": "pole",
    "column-pole": "pole",
    "column pole": "pole",
    "columnpole": "pole",
    "column": "pole",
    "sidewalk": "pavement",
    "vegetation": "tree",
    "trees": "tree",
    "signsymbol": "sign",
    "sign_symbol": "sign",
    "sign-symbol": "sign",
    "sign symbol": "sign",
    "traffic sign": "sign",
    "vehicle": "car",
    "person": "pedestrian",
    "cyclist": "bicyclist",
    "bicycle": "bicyclist",
    "bike": "bicyclist",
}

CAMVID = LabelSpace(
    name="CamVid",
    source=_SOURCE,
    classes=(
        *(SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE),
        *(SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST),
    ),
    labels=_LABELS,
    aliases=_ALIASES,
)
"""The classes in SegNet's order."""

CAMVID_DILATION = LabelSpace(
    name="CamVid, classes as in fyu/dilation",
    source=_SOURCE,
    classes=(
        *(BUILDING, TREE, SKY, CAR, SIGN, ROAD),
        *(PEDESTRIAN, FENCE, POLE, PAVEMENT, BICYCLIST),
    ),
    labels=_LABELS,
    aliases=_ALIASES,
)
"""The classes in the order of the Context paper's Table 5 and of fyu/dilation's
datasets/camvid.json."""

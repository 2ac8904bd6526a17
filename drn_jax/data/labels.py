"""Label spaces as data: the classes of each set in the order of their ids, with their colours."""

from typing import NamedTuple


class Label(NamedTuple):
    """A class: its name, and the RGB colour that its masks are drawn in."""

    name: str
    color: tuple[int, int, int]


CAMVID = (
    Label("sky", (128, 128, 128)),
    Label("building", (128, 0, 0)),
    Label("pole", (192, 192, 128)),
    Label("road", (128, 64, 128)),
    Label("pavement", (0, 0, 192)),
    Label("tree", (128, 128, 0)),
    Label("sign", (192, 128, 128)),
    Label("fence", (64, 64, 128)),
    Label("car", (64, 0, 128)),
    Label("pedestrian", (64, 64, 0)),
    Label("bicyclist", (0, 128, 192)),
)
"""The 11 classes of Sturgess et al. 2009, in SegNet's order; void is 255."""

CITYSCAPES = (
    Label("road", (128, 64, 128)),
    Label("sidewalk", (244, 35, 232)),
    Label("building", (70, 70, 70)),
    Label("wall", (102, 102, 156)),
    Label("fence", (190, 153, 153)),
    Label("pole", (153, 153, 153)),
    Label("traffic light", (250, 170, 30)),
    Label("traffic sign", (220, 220, 0)),
    Label("vegetation", (107, 142, 35)),
    Label("terrain", (152, 251, 152)),
    Label("sky", (70, 130, 180)),
    Label("person", (220, 20, 60)),
    Label("rider", (255, 0, 0)),
    Label("car", (0, 0, 142)),
    Label("truck", (0, 0, 70)),
    Label("bus", (0, 60, 100)),
    Label("train", (0, 80, 100)),
    Label("motorcycle", (0, 0, 230)),
    Label("bicycle", (119, 11, 32)),
)
"""The 19 training classes by trainId (cityscapesScripts); everything else is 255."""

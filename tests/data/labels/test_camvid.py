"""The table of CamVid: 32 labels become 11 classes, in two orders."""

import pytest

from drn_jax.data.labels.camvid import CAMVID, CAMVID_DILATION

SPACES = pytest.mark.parametrize("space", [CAMVID, CAMVID_DILATION])

# fyu/dilation, datasets/camvid.json.
DILATION_PALETTE = (
    *((128, 0, 0), (128, 128, 0), (128, 128, 128), (64, 0, 128), (192, 128, 128), (128, 64, 128)),
    *((64, 64, 0), (64, 64, 128), (192, 192, 128), (0, 0, 192), (0, 128, 192)),
)


def test_segnets_order():
    names = "sky building pole road pavement tree sign fence car pedestrian bicyclist"
    assert " ".join(CAMVID.names) == names


def test_dilations_order_is_its_palette():
    assert CAMVID_DILATION.colors == DILATION_PALETTE
    names = "building tree sky car sign road pedestrian fence pole pavement bicyclist"
    assert " ".join(CAMVID_DILATION.names) == names


def test_the_two_orders_hold_the_same_classes():
    assert set(CAMVID.classes) == set(CAMVID_DILATION.classes)
    there_and_back = dict(CAMVID_DILATION.reordered(CAMVID.names, ""))
    assert there_and_back[CAMVID.names.index("road")] == CAMVID_DILATION.names.index("road")


@SPACES
def test_32_labels_of_distinct_colours(space):
    assert len(space.labels) == 32
    assert len({label.color for label in space.labels}) == 32
    assert len({label.name for label in space.labels}) == 32


@SPACES
def test_the_grouping_of_the_labels(space):
    groups = {
        "sky": "Sky",
        "building": "Archway Bridge Building Tunnel Wall",
        "pole": "Column_Pole TrafficCone",
        "road": "LaneMkgsDriv LaneMkgsNonDriv Road",
        "pavement": "ParkingBlock RoadShoulder Sidewalk",
        "tree": "Tree VegetationMisc",
        "sign": "Misc_Text SignSymbol TrafficLight",
        "fence": "Fence",
        "car": "Car OtherMoving SUVPickupTruck Train Truck_Bus",
        "pedestrian": "Animal CartLuggagePram Child Pedestrian",
        "bicyclist": "Bicyclist MotorcycleScooter",
        "": "Void",
    }
    for name, labels in groups.items():
        assert " ".join(a.name for a in space.labels if a.trained == name) == labels


@SPACES
def test_a_class_is_drawn_in_the_colour_of_the_label_it_is_named_after(space):
    by_color = dict(space.color_ids())
    assert [by_color[c.color] for c in space.classes] == list(range(11))
    assert by_color[0, 0, 0] == 255


@SPACES
def test_every_alias_means_a_class_and_is_in_lower_case(space):
    assert set(space.aliases.values()) <= set(space.names)
    assert all(alias == alias.lower() for alias in space.aliases)
    assert space.aliases["sidewalk"] == "pavement"

"""COCO's categories as PASCAL VOC's classes."""

from drn_jax.data.labels.coco import COCO
from drn_jax.data.labels.pascal_voc import PASCAL_VOC

RENAMED = {
    "airplane": "aeroplane",
    "motorcycle": "motorbike",
    "couch": "sofa",
    "potted plant": "pottedplant",
    "dining table": "diningtable",
    "tv": "tvmonitor",
}


def test_there_are_eighty_categories_with_the_ids_of_the_annotations():
    ids = [label.id for label in COCO.labels]
    assert len({label.name for label in COCO.labels}) == 80
    assert sorted({*range(1, 91)} - {*ids}) == [12, 26, 29, 30, 45, 66, 68, 69, 71, 83]
    assert ids == sorted(ids)
    named = {label.name: label.id for label in COCO.labels}
    # Some fixed points of instances_val2014.json.
    points = {"person": 1, "stop sign": 13, "zebra": 24, "bottle": 44, "cake": 61, "tv": 72}
    assert points.items() <= named.items()
    assert named["toothbrush"] == 90


def test_each_class_of_voc_is_one_category_and_all_others_are_background():
    assert COCO.classes is PASCAL_VOC.classes
    objects = [label for label in COCO.labels if label.trained != "background"]
    assert sorted(label.trained for label in objects) == sorted(PASCAL_VOC.names[1:])
    for label in objects:
        assert label.trained == RENAMED.get(label.name, label.name)
    assert sum(class_id == 0 for _, class_id in COCO.ids()) == 60

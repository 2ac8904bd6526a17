"""The published numbers were copied without a slip, and are found for the runs that they are of."""

import numpy as np
import pytest

from drn_jax.data import DATASETS
from drn_jax.data.labels.camvid import CAMVID_DILATION
from drn_jax.data.labels.cityscapes import CITYSCAPES
from drn_jax.data.labels.kitti import KITTI
from drn_jax.data.labels.pascal_voc import PASCAL_VOC
from drn_jax.evaluation import published
from drn_jax.evaluation.published import ALL, for_run
from drn_jax.models import MODELS
from drn_jax.models.context import Context

NONE = Context(layers=0)
CLASSES = {"cityscapes": CITYSCAPES, "camvid_640": CAMVID_DILATION, "kitti": KITTI}
VOC = [row for row in ALL if row.data.startswith("pascal_voc")]


def test_every_row_is_of_a_network_and_a_set_that_there_is():
    for row in ALL:
        assert row.model.removesuffix(", Basic") in MODELS
        assert row.data in DATASETS
        assert row.split in ("validation", "test")
        assert all(0 < value < 1 for value in (row.value, *dict(row.per_class).values()))
    assert len({(r.model, r.data, r.split, r.protocol, r.metric) for r in ALL}) == len(ALL)


def test_classes_mean_to_the_stated_means():
    """Of Cityscapes, CamVid and KITTI; classes and mean are rounded to a digit each."""
    rows = [row for row in ALL if row.per_class and row not in VOC]
    assert len(rows) == 11
    for row in rows:
        names, values = zip(*row.per_class, strict=True)
        space = CLASSES[row.data]
        assert names == (space.names if row.metric == "miou" else space.categories())
        digit = 1e-6 if "csv" in row.source else 0.001
        assert np.mean(values) == pytest.approx(row.value, abs=digit)


def test_the_category_sky_is_the_class_sky():
    rows = [r for r in ALL if r.data == "cityscapes" and r.per_class]
    sky = {(r.model, r.split, r.metric): dict(r.per_class)["sky"] for r in rows}
    both = [(sky[m, split, "miou"], s) for (m, split, k), s in sky.items() if k == "category_miou"]
    assert len(both) == 3
    assert all(of_class == of_category for of_class, of_category in both)


def test_pascal_voc_rows_imply_a_background_that_is_likely():
    """21 * mean - sum of 20 is the background's IoU, which is not published: 90 to 95 %."""
    assert len(VOC) == 14
    for row in VOC:
        assert [name for name, _ in row.per_class] == list(PASCAL_VOC.names[1:])
        background = 21 * row.value - sum(dict(row.per_class).values())
        assert 0.90 < background < 0.95


def test_context_gains_what_the_paper_says():
    """Basic +1.5 and Large +2.3 points; behind a dense CRF +1.1, +1.7; CRF-RNN +0.6, +1.4."""
    value = {
        row.protocol.removesuffix("; trained on VOC and COCO"): row.value
        for row in VOC
        if row.split == "validation"
    }
    for end, gains in (("", (1.5, 2.3)), (", dense CRF", (1.1, 1.7)), (", CRF-RNN", (0.6, 1.4))):
        for size, gain in zip(("Basic", "Large"), gains, strict=True):
            found = value[f"front end and {size} context module{end}"]
            assert found - value[f"front end alone{end}"] == pytest.approx(gain / 100)


def test_pascal_voc_test_rows_are_those_of_tables_2_and_4():
    """With COCO 71.3, 73.5, 74.7 and 75.3; without it 67.6, which only the front end has."""
    found = {(r.model, r.data, r.refined): r for r in VOC if r.split == "test"}
    front, large = "vgg_16_front_end", "dilation8_pascal_voc"
    assert {key: row.value for key, row in found.items()} == {
        (front, "pascal_voc_aug", ""): 0.676,
        (front, "pascal_voc_coco", ""): 0.713,
        (large, "pascal_voc_coco", ""): 0.735,
        (large, "pascal_voc_coco", "dense CRF"): 0.747,
        (large, "pascal_voc_coco", "CRF-RNN"): 0.753,
    }
    classes = dict(found[front, "pascal_voc_aug", ""].per_class)
    assert (classes["aeroplane"], classes["tvmonitor"]) == (0.822, 0.609)
    for data in ("pascal_voc", "pascal_voc_aug", "pascal_voc_coco"):
        rows = for_run(front, data, "segmentation")
        assert [r.value for r in rows if r.split == "test"] == [0.713, 0.676]
        assert not any(r.measured_like("validation", {}) for r in rows if r.split == "test")


def test_dilated_networks_are_better_than_those_they_are_made_of():
    """What the papers say of their tables: a check against exchanged rows and columns."""
    value = {(r.model, r.protocol, r.metric): r.value for r in ALL if r.data == "imagenet"}
    for (model, protocol, metric), found in value.items():
        dilated = model.replace("resnet", "drn_a"), protocol, metric
        if model.startswith("resnet") and dilated in value:
            better = value[dilated]
            assert better < found if metric.endswith("error") else better > found
        if metric == "top1":
            assert found < value[model, protocol, "top5"]
        if metric == "top1_error":
            assert found > value[model, protocol, "top5_error"]
        if protocol == published._TEN_CROPS:
            assert found > value[model, published._ONE_CROP, metric]
    gain = {depth: value[f"drn_a_{depth}", published._ONE_CROP, "top1"] for depth in (18, 34)}
    for depth, points in ((18, 2.43), (34, 2.92)):
        plain = value[f"resnet_{depth}", published._ONE_CROP, "top1"]
        assert gain[depth] - plain == pytest.approx(points / 100)


def test_a_run_finds_the_rows_of_its_network_set_and_task():
    found = {(r.split, r.metric): r for r in for_run("drn_c_26", "cityscapes", "segmentation")}
    (row,) = found.values()
    assert (row.value, row.per_class[0]) == (0.68, ("road", 0.974))
    found = for_run("drn_d_22", "imagenet", "classification")
    assert {r.metric: r.value for r in found} == {"top1": 0.742, "top5": 0.918}
    assert len(for_run("drn_c_26", "imagenet", "classification")) == 6
    assert for_run("drn_c_26", "imagenet", "segmentation") == ()
    assert for_run("drn_c_26", "camvid_640", "segmentation") == ()
    (row,) = for_run("dilation8_camvid", "camvid_640", "segmentation")
    assert (row.split, row.value) == ("test", 0.653)
    basic, *_ = for_run("vgg_16_front_end", "pascal_voc_aug", "segmentation", Context(8, "basic"))
    assert basic.value == 0.713
    large = for_run("dilation8_pascal_voc", "pascal_voc_aug", "segmentation")
    assert [r.value for r in large] == [0.721, 0.733, 0.739, 0.735, 0.747, 0.753]


@pytest.mark.parametrize(
    ("model", "data", "module", "score"),
    [
        ("dilation8_pascal_voc", "pascal_voc_aug", Context(8, "large", "once"), 0.721),
        ("dilation8_camvid", "camvid_640", Context(8), 0.653),
        ("dilation7_kitti", "kitti", Context(7), 0.592),
        ("dilation10_cityscapes", "cityscapes", Context(10), 0.687),
    ],
)
def test_front_end_and_module_are_the_published_net_together_or_apart(model, data, module, score):
    """Trained together, or the module on the front end's maps (task "context"), which has its set
    from the front end; whether the module says its shape or has it by its name."""
    rows = for_run(model, data, "segmentation")
    assert rows[0].value == score
    alone = model.replace("dilation", "context")
    for task in ("segmentation", "context"):
        assert for_run("vgg_16_front_end", data, task, module) == rows
        assert for_run(model, data, task, module) == rows
        for other in (Context(9), Context(4, "large")):
            assert for_run("vgg_16_front_end", data, task, other) == ()
        assert for_run("drn_d_22", data, task, module) == ()
    assert for_run(alone, data, "context") == rows
    assert for_run("vgg_16_front_end", data, "context", published.module(alone, NONE)) == rows


def test_a_module_does_not_pass_for_its_front_end():
    basic = for_run("vgg_16_front_end", "pascal_voc", "context", Context(8, "basic"))
    assert [r.value for r in basic] == [0.713, 0.727, 0.731]
    assert published.module("context", NONE) == Context()
    assert published.module("drn_d_22", NONE) == NONE
    assert for_run("vgg_16_front_end", "pascal_voc", "context", NONE) == ()
    assert for_run("drn_d_22", "cityscapes", "context", NONE) == ()
    assert for_run("vgg_16_front_end", "pascal_voc", "segmentation", NONE)[0].value == 0.698


def test_only_numbers_of_the_same_split_and_protocol_are_alike():
    size = {"crop": 224, "resize": 256}
    one = {"name": "validation", "crops": 1, **size}
    ten = {"name": "localisation_10_crops", "crops": 10, **size}
    rows = for_run("drn_c_26", "imagenet", "classification")
    alike = [{r.metric for r in rows if r.measured_like("validation", p)} for p in (one, ten)]
    assert alike[0] == {"top1", "top5"}
    assert alike[1] == alike[0] | {"localisation_top1_error", "localisation_top5_error"}
    for other in ({"crop": 64, "resize": 64}, {"crop": 224, "resize": 224}, {}):
        for crops in (1, 10):
            protocol = {"crops": crops, **other}
            assert not any(r.measured_like("validation", protocol) for r in rows)
    assert not any(r.measured_like("validation", size) for r in rows)
    whole = {"name": "validation"}
    scales = {"scales": [1.0, 0.5, 0.75, 1.25, 1.5, 1.75], "flip": False}
    six = {**scales, "combine": "log_probabilities"}
    rows = for_run("drn_d_105", "cityscapes", "segmentation")
    for split, protocol, values in (
        ("validation", whole, {0.756}),
        ("validation", six, set()),
        ("validation", whole | {"flip": True}, set()),
        ("validation", {"scales": [1.0], "flip": False, "combine": None}, {0.756}),
        ("test", six, {0.763271, 0.909445, 0.54956, 0.794787}),
        ("test", {**six, "combine": "probabilities"}, set()),
        ("test", scales, set()),
        ("test", {**six, "flip": True}, set()),
    ):
        assert {r.value for r in rows if r.measured_like(split, protocol)} == values
    rows = for_run("dilation8_pascal_voc", "pascal_voc_aug", "segmentation")
    assert [r.value for r in rows if r.measured_like("validation", whole)] == [0.721]


def test_rows_of_localisation_say_what_is_not_published():
    """The threshold and the geometry, so that whatever ours are, numbers stand side by side."""
    rows = for_run("drn_c_26", "imagenet", "classification")
    boxes = [r for r in rows if r.metric.startswith("localisation")]
    assert len(boxes) == 2
    protocol = {"crops": 10, "crop": 224, "resize": 256, "map_of": "whole", "threshold": 0.2}
    for row in boxes:
        assert "10 crops" in row.protocol
        assert "not published: the threshold" in row.protocol
        assert row.measured_like("validation", protocol)
        assert not row.measured_like("validation", {**protocol, "crops": 1})

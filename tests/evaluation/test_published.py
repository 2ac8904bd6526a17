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

CLASSES = {"cityscapes": CITYSCAPES, "camvid_640": CAMVID_DILATION, "kitti": KITTI}
VOC = [row for row in ALL if row.data == "pascal_voc_coco"]


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
    assert len(VOC) == 9
    for row in VOC:
        assert [name for name, _ in row.per_class] == list(PASCAL_VOC.names[1:])
        background = 21 * row.value - sum(dict(row.per_class).values())
        assert 0.90 < background < 0.95


def test_context_gains_what_the_paper_says():
    """Basic +1.5 and Large +2.3 points; behind a dense CRF +1.1, +1.7; CRF-RNN +0.6, +1.4."""
    value = {row.protocol: row.value for row in VOC}
    for end, gains in (("", (1.5, 2.3)), (", dense CRF", (1.1, 1.7)), (", CRF-RNN", (0.6, 1.4))):
        for size, gain in zip(("Basic", "Large"), gains, strict=True):
            found = value[f"front end and {size} context module{end}"]
            assert found - value[f"front end alone{end}"] == pytest.approx(gain / 100)


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
    assert large == for_run("context8_pascal_voc", "pascal_voc_coco", "context")
    assert [r.value for r in large] == [0.721, 0.733, 0.739]


@pytest.mark.parametrize(
    ("model", "data", "module"),
    [
        ("dilation8_pascal_voc", "pascal_voc_aug", Context(8, "large", "once")),
        ("dilation8_camvid", "camvid_640", Context(8)),
        ("dilation7_kitti", "kitti", Context(7)),
        ("dilation10_cityscapes", "cityscapes", Context(10)),
    ],
)
def test_front_end_and_module_together_are_the_published_net(model, data, module):
    rows = for_run("vgg_16_front_end", data, "segmentation", module)
    assert rows == for_run(model, data, "segmentation") != ()
    for other in (Context(9), Context(4, "large")):
        assert for_run("vgg_16_front_end", data, "segmentation", other) == ()
    assert for_run("drn_d_22", data, "segmentation", module) == ()


def test_only_numbers_of_the_same_split_and_protocol_are_alike():
    one = {"name": "1_crops", "crops": 1}
    ten = {"name": "10_crops", "crops": 10}
    rows = for_run("drn_c_26", "imagenet", "classification")
    alike = [{r.metric for r in rows if r.measured_like("validation", p)} for p in (one, ten)]
    assert alike[0] == {"top1", "top5"}
    assert alike[1] == alike[0] | {"localisation_top1_error", "localisation_top5_error"}
    whole, six = {"name": "validation"}, {"scales": [1.0, 0.5, 0.75, 1.25, 1.5, 1.75]}
    rows = for_run("drn_d_105", "cityscapes", "segmentation")
    for split, protocol, values in (
        ("validation", whole, {0.756}),
        ("validation", six, set()),
        ("validation", whole | {"flip": True}, set()),
        ("test", six, {0.763271, 0.909445, 0.54956, 0.794787}),
    ):
        assert {r.value for r in rows if r.measured_like(split, protocol)} == values
    rows = for_run("dilation8_pascal_voc", "pascal_voc_aug", "segmentation")
    assert [r.value for r in rows if r.measured_like("validation", whole)] == [0.721]

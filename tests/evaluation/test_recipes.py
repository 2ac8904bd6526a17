"""What a run differs in from the published recipe is said: the configurations of this repository
differ in nothing that papers and code state, and every departure is named."""

import dataclasses
import importlib.util
from pathlib import Path

import pytest

from drn_jax import config, staged
from drn_jax.evaluation import published, recipes

CONFIGS = Path(__file__).parents[2] / "configs"


def get(name, variant):
    spec = importlib.util.spec_from_file_location(f"config_{name}", CONFIGS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(variant)


def stages(variant):
    return staged.parse(get("dilation", variant)).under("runs/dilation")


def changed(run, *changes):
    """The configuration with fields, (path, value), of other values."""
    given = dataclasses.asdict(run)
    for path, value in changes:
        *groups, name = path.split(".")
        inner = given
        for group in groups:
            inner = inner[group]
        inner[name] = value
    return config.parse(given)


IMAGENET = config.parse(get("imagenet", "drn_c_26"))
STREETS = config.parse(get("cityscapes", "drn_d_22"))
LARGEST = config.parse(get("cityscapes", "drn_d_105"))


@pytest.mark.parametrize("data", ["imagenet", "cityscapes"])
def test_our_configurations_of_residual_networks_are_the_published_recipes(data):
    models = {row.model for row in published.ALL if row.data == data}
    of_drn = sorted(model for model in models if model.startswith(("drn_", "resnet_")))
    assert len(of_drn) == (16 if data == "imagenet" else 6)
    for model in of_drn:
        assert recipes.differences(config.parse(get(data, model)), data) == []


@pytest.mark.parametrize(
    ("run", "path", "value", "said"),
    [
        (IMAGENET, "epochs", 90, "epochs 90, published 120"),
        (IMAGENET, "batch_size", 32, "batch size 32, published 256"),
        (IMAGENET, "schedule.epochs", 40, "schedule epochs 40, published 30"),
        (IMAGENET, "schedule.factor", 0.5, "schedule factor 0.5, published 0.1"),
        (IMAGENET, "data.random_crop", False, "random crop False, published True"),
        (IMAGENET, "data.flip", False, "flip False, published True"),
        (IMAGENET, "data.held_out", 50, "held out 50, published 0"),
        (IMAGENET, "ema", 0.5, "ema 0.5, published 0.0"),
        (
            IMAGENET,
            "init_from",
            "runs/x",
            "started from the weights of runs/x, published from random ones",
        ),
        (
            IMAGENET,
            "model.norm.statistics",
            "frozen",
            "norm statistics frozen, published global or group",
        ),
        (STREETS, "schedule.epochs", 50, "schedule epochs 50, published 100"),
        (STREETS, "data.crop", (448, 448), "crop (448, 448), published (896, 896)"),
        (STREETS, "data.scale", 2.0, "scale 2.0, published 1.0"),
        (STREETS, "data.rotate", 10, "rotate 10, published 0"),
        (STREETS, "data.flip", False, "flip False, published True"),
        (STREETS, "data.grid.border", "clamp", "grid border clamp, published zero"),
        (
            STREETS,
            "init_from",
            "",
            "started from random weights, published from ImageNet's",
        ),
        (LARGEST, "schedule.per_epoch", False, "schedule per epoch False, published True"),
        (LARGEST, "data.scale", 1.0, "scale 1.0, published 2.0"),
        (LARGEST, "data.rotate", 0, "rotate 0, published 10"),
        (LARGEST, "data.flip", False, "flip False, published True"),
        (LARGEST, "model.norm.statistics", "frozen", "norm statistics frozen, published global"),
    ],
)
def test_every_departure_is_named_and_alone(run, path, value, said):
    assert recipes.differences(changed(run, (path, value)), run.data.name) == [said]


def test_another_kind_of_schedule_is_one_difference():
    run = dataclasses.replace(STREETS, schedule=LARGEST.schedule)
    assert recipes.differences(run, "cityscapes") == ["schedule poly, published step"]


def test_what_is_counted_the_other_way_is_said_so():
    by_steps = changed(IMAGENET, ("epochs", 0), ("steps", 1000))
    (said,) = recipes.differences(by_steps, "imagenet")
    assert said == "epochs (in all 1000 steps), published 120"
    by_steps = changed(IMAGENET, ("schedule.epochs", 0), ("schedule.steps", 500))
    (said,) = recipes.differences(by_steps, "imagenet")
    assert said == "schedule epochs (every 500 steps), published 30"


def test_whose_recipe_it_is_is_said_where_it_is_uncertain():
    for model, other, uncertain in (
        ("drn_c_26", True, True),
        ("drn_d_38", True, True),
        ("drn_d_22", False, True),
        ("drn_d_105", False, False),
    ):
        said = " ".join(recipes.remarks("cityscapes", model))
        assert (f"that of {model} by itself is not stated" in said) == other
        assert ("until June 2018" in said) == uncertain
    assert list(recipes.remarks("imagenet", "drn_c_26")) == []


FRONT, LARGE = "vgg_16_front_end", "dilation8_pascal_voc"


@pytest.mark.parametrize(
    ("variant", "stage", "data", "net"),
    [
        ("pascal_voc", "front_end", "pascal_voc_aug", FRONT),
        ("pascal_voc", "context", "pascal_voc_aug", LARGE),
        ("pascal_voc_coco", "coco", "pascal_voc_coco", FRONT),
        ("pascal_voc_coco", "front_end", "pascal_voc_aug", FRONT),
        ("pascal_voc_coco", "context", "pascal_voc_aug", LARGE),
        ("camvid", "joint", "camvid_640", "dilation8_camvid"),
        ("kitti", "joint", "kitti", "dilation7_kitti"),
        ("cityscapes", "context", "cityscapes", "dilation10_cityscapes"),
        ("cityscapes", "joint", "cityscapes", "dilation10_cityscapes"),
    ],
)
def test_our_stages_of_dilated_nets_are_the_published_ones(variant, stage, data, net):
    run = stages(variant)[stage]
    rows = published.for_run(FRONT, data, run.task, run.model.context)
    assert {row.model for row in rows} == {net}
    assert len(recipes.of(net, data, run.task)) >= 1
    assert recipes.differences(run, data, net) == []
    faster = changed(run, ("optimizer.learning_rate", 0.5))
    (said,) = recipes.differences(faster, data, net)
    assert said.startswith("learning rate 0.5, published ")
    assert any("trained in stages (" in remark for remark in recipes.remarks(data, net))


def test_a_front_end_is_compared_with_the_closest_of_its_stages():
    after = stages("pascal_voc_coco")["front_end"]
    only = stages("pascal_voc")["front_end"]
    for run, said in ((after, "14 (VOC after COCO)"), (only, "14 (without COCO)")):
        found = recipes.differences(changed(run, ("batch_size", 2)), "pascal_voc_aug", FRONT)
        assert found == [f"batch size 2, published {said}"]


def test_weights_that_a_stage_lacks_are_named():
    joint = stages("cityscapes")["joint"]
    for path, said in (
        ("init_from", "started from random weights, published from the front end's own training"),
        ("init_context_from", "context module not trained before, published after its own"),
    ):
        (found,) = recipes.differences(
            changed(joint, (path, "")), "cityscapes", "dilation10_cityscapes"
        )
        assert found.startswith(said)


def test_the_identity_may_have_noise_or_none_but_not_be_random():
    joint = stages("camvid")["joint"]
    for init, said in (
        ("identity", []),
        ("he", ["context init he, published filler or identity"]),
    ):
        run = changed(joint, ("model.context.init", init))
        assert recipes.differences(run, "camvid_640", "dilation8_camvid") == said


def test_pascal_voc_without_coco_is_said():
    for data, said in (
        ("pascal_voc", "pascal_voc holds nothing of COCO and SBD"),
        ("pascal_voc_aug", "pascal_voc_aug holds nothing of COCO"),
    ):
        for net in (FRONT, LARGE, f"{FRONT}, Basic"):
            assert any(remark.endswith(said) for remark in recipes.remarks(data, net))
    assert not any(
        "nothing of COCO" in remark for remark in recipes.remarks("pascal_voc_coco", FRONT)
    )


def test_a_published_module_is_read_by_its_name():
    """Its padding and its start are the published ones, though its configuration says nothing."""
    run = stages("cityscapes")["context"]
    model = dataclasses.replace(
        run.model, name="context10_cityscapes", context=published.Context(0)
    )
    run = dataclasses.replace(run, model=model)
    assert recipes.differences(run, "cityscapes", "dilation10_cityscapes") == []


def test_nothing_is_said_where_no_recipe_is_known():
    assert recipes.differences(IMAGENET, "tiny_imagenet") == []
    assert recipes.of("dilation8_camvid", "camvid_640", "context") == ()

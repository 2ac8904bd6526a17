"""A configuration is complete and typed, or the error names the field."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from drn_jax import config, data, models, staged
from drn_jax.errors import UserError

FILES = sorted((Path(__file__).parent.parent / "configs").glob("*.py"))


def classification():
    return {
        "name": "tiny",
        "task": "classification",
        "model": {"name": "drn_d_22"},
        "data": {"name": "imagenet", "crop": 32, "resize": 36},
        "batch_size": 4,
        "epochs": 2,
        "optimizer": {"learning_rate": 0.1},
        "schedule": {"kind": "poly"},
    }


def segmentation():
    crop = {"name": "camvid", "crop": (32, 48)}
    return classification() | {"task": "segmentation", "data": crop}


def context():
    model = {"name": "context", "context": {"layers": 8}}
    return classification() | {"task": "context", "model": model, "data": {"front_end": "runs/a"}}


def with_field(path, value, base=classification):
    """`base` with one field set, or taken out where `value` is None."""
    given = base()
    *groups, last = path.split(".")
    place = given
    for group in groups:
        place = place[group]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return given


def error_of(given):
    with pytest.raises(UserError) as caught:
        config.parse(given)
    message = str(caught.value)
    assert "\n" not in message
    return message


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def every_config():
    """(name, configuration) of every file in configs/ and every variant of it."""
    for path in FILES:
        module = load(path)
        given = {path.stem: module.get_config()}
        for variant in getattr(module, "VARIANTS", ()):
            given[f"{path.stem}:{variant}"] = module.get_config(variant)
        yield from given.items()


def every_run():
    """(name, typed configuration) of every run, those in stages one by one."""
    for name, given in every_config():
        if "stages" not in given:
            yield name, config.parse(given)
            continue
        for stage, run in staged.parse(given).stages.items():
            yield f"{name}, {stage}", run


@pytest.mark.parametrize(
    "field",
    [
        "name",
        "task",
        "model",
        "model.name",
        "data",
        "data.name",
        "data.crop",
        "data.resize",
        "batch_size",
        "optimizer",
        "optimizer.learning_rate",
        "schedule",
        "schedule.kind",
    ],
)
def test_a_missing_field_is_named(field):
    message = error_of(with_field(field, None))
    missing = "schedule.kind" if field == "schedule" else field
    assert message == f"the configuration lacks config.{missing}"


@pytest.mark.parametrize(
    ("field", "nearest"),
    [
        ("batchsize", "batch_size"),
        ("model.widht", "width"),
        ("data.croop", "crop"),
        ("optimizer.momentun", "momentum"),
        ("schedule.powr", "power"),
    ],
)
def test_an_unknown_field_is_named_with_the_nearest(field, nearest):
    message = error_of(with_field(field, 1))
    assert message.startswith(f"unknown field config.{field}: did you mean {nearest}")


@pytest.mark.parametrize(
    ("field", "value", "wanted"),
    [
        ("name", 3, "str"),
        ("batch_size", "4", "int"),
        ("batch_size", 4.0, "int"),
        ("batch_size", True, "int"),
        ("seed", [1], "int"),
        ("model.width", "wide", "float"),
        ("model.width", True, "float"),
        ("data.crop", (32, 32), "int"),
        ("data.flip", 1, "bool"),
        ("data.crop_area", (0.5,), "tuple[float, float]"),
        ("data.crop_area", 0.5, "tuple[float, float]"),
        ("data.crop_area", (0.5, "1"), "float"),
        ("model", "drn_d_22", "a group of fields: name, width, dtype, "),
        ("optimizer", 0.1, "a group of fields"),
    ],
)
def test_a_value_of_the_wrong_type_is_named_with_the_type_wanted(field, value, wanted):
    message = error_of(with_field(field, value))
    assert message.startswith(f"config.{field} = ")
    assert f"must be {wanted}" in message


def test_a_segmentation_crop_is_two_whole_numbers():
    for value in (32, (32,), (32, 32, 3), "32"):
        message = error_of(with_field("data.crop", value, segmentation))
        assert message == f"config.data.crop = {value!r} must be tuple[int, int]"


@pytest.mark.parametrize(
    ("field", "value", "known"),
    [
        ("task", "segmentatoin", "did you mean segmentation"),
        ("model.dtype", "float16", "float32"),
        ("model.running_variance", "unbiasd", "unbiased"),
        ("schedule.kind", "cosine", "known: constant, poly, step"),
    ],
)
def test_a_word_outside_of_the_choices_is_named_with_the_choices(field, value, known):
    message = error_of(with_field(field, value))
    assert message.startswith(f"config.{field} = {value!r} is unknown: ")
    assert known in message


@pytest.mark.parametrize("field", ["batch_size", "eval_epochs", "log_steps"])
@pytest.mark.parametrize("value", [0, -1])
def test_a_count_below_one_is_named(field, value):
    message = error_of(with_field(field, value))
    assert message == f"config.{field} = {value} must be at least 1"


@pytest.mark.parametrize(
    ("epochs", "steps"), [(0, 0), (2, 3), (-1, 0), (0, -1), (-1, 5), (5, -1), (None, None)]
)
@pytest.mark.parametrize("where", ["", "schedule."])
def test_exactly_one_of_epochs_and_steps_is_given(where, epochs, steps):
    given = classification() | {"schedule": {"kind": "step"}}
    given = with_field("schedule.epochs", 1, lambda: given) if not where else given
    given = with_field("epochs", 1, lambda: given)
    group = given["schedule"] if where else given
    group.pop("epochs", None)
    group |= {} if epochs is None else {"epochs": epochs, "steps": steps}
    assert error_of(given) == (
        f"config.{where}epochs = {epochs or 0} and config.{where}steps = {steps or 0}: "
        "one must be at least 1, the other 0"
    )
    for one in ({"epochs": 7}, {"steps": 7}, {"epochs": 0, "steps": 7}):
        for name in ("epochs", "steps"):
            group.pop(name, None)
        group |= one
        parsed = config.parse(given)
        counted = parsed.schedule if where else parsed
        assert (counted.epochs, counted.steps) == (one.get("epochs", 0), one.get("steps", 0))


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("reading", {"threads": -1}, "config.reading.threads = -1 must be at least 0"),
        ("reading", {"workers": -1}, "config.reading.workers = -1 must be at least 0"),
        ("reading", {"prefetch": 0}, "config.reading.prefetch = 0 must be at least 1"),
        ("data.jitter", (0.0, -0.1, 0.0, 0.0), "config.data.jitter = (0.0, -0.1, 0.0, 0.0): none"),
        ("data.jitter", (0.0, 0.0, 0.0, 0.6), "config.data.jitter = (0.0, 0.0, 0.0, 0.6): none"),
        ("data.lighting", -0.1, "config.data.lighting = -0.1 can't be negative"),
    ],
)
def test_numbers_of_reading_and_colours_that_cannot_be_are_errors(field, value, says):
    assert error_of(with_field(field, value)).startswith(says)
    assert error_of(with_field(field, value, segmentation)).startswith(says)


def test_the_fields_of_the_data_depend_on_the_task():
    message = error_of(with_field("data.rotate", 10))
    assert message.startswith("unknown field config.data.rotate")
    message = error_of(with_field("data.resize", 36, segmentation))
    assert message.startswith("unknown field config.data.resize")
    assert isinstance(config.parse(segmentation()).data, config.SegmentationData)


def test_the_fields_of_the_schedule_depend_on_its_kind():
    given = with_field("schedule", {"kind": "step", "epochs": 3})
    assert config.parse(given).schedule == config.StepSchedule("step", 3, factor=0.1)
    assert config.parse(with_field("schedule", {"kind": "constant"})).schedule == (
        config.ConstantSchedule("constant")
    )
    message = error_of(with_field("schedule", {"kind": "constant", "power": 1.0}))
    assert message.startswith("unknown field config.schedule.power")


def test_whole_numbers_pass_as_floats_and_lists_as_tuples():
    given = with_field("data.crop_area", [0, 1]) | {"model": {"name": "drn_d_22", "width": 1}}
    parsed = config.parse(given)
    assert parsed.data.crop_area == (0.0, 1.0)
    assert type(parsed.data.crop_area[0]) is type(parsed.model.width) is float


def test_complete_fills_in_every_default_and_changes_nothing_given():
    given = ConfigDict(classification())
    completed = config.complete(given)
    assert set(completed) == {field.name for field in dataclasses.fields(config.Config)}
    assert completed.optimizer.momentum == 0.9
    assert completed.optimizer.learning_rate == 0.1
    assert completed.eval_epochs == 1
    assert completed.data.crop_area == (0.08, 1.0)
    assert completed.schedule.power == 0.9
    assert "momentum" not in given.optimizer
    assert config.parse(completed) == config.parse(given)


@pytest.mark.parametrize("base", [classification, segmentation, context])
def test_a_configuration_survives_json(base):
    parsed = config.parse(base())
    read = json.loads(json.dumps(dataclasses.asdict(parsed)))
    assert isinstance(read["data"]["crop_area" if base is classification else "crop"], list)
    assert config.parse(read) == parsed
    assert config.parse(config.complete(ConfigDict(read))) == parsed


def test_changes_names_every_field_that_differs_and_no_other():
    before = config.parse(classification())
    assert config.changes(before, config.parse(classification())) == []
    now = classification() | {"epochs": 5, "optimizer": {"learning_rate": 0.2}}
    assert config.changes(before, config.parse(now)) == [
        "config.optimizer.learning_rate was 0.1, is 0.2",
        "config.epochs was 2, is 5",
    ]
    (change,) = config.changes(
        before, config.parse(classification() | {"schedule": {"kind": "step", "epochs": 3}})
    )
    assert change.startswith("config.schedule was PolySchedule(")


def test_every_file_in_configs_parses_in_every_variant_and_names_what_exists():
    for name, given in every_config():
        if "stages" in given:
            runs = {stage: given["stages"][stage] for stage in given["order"]}
            assert staged.complete(given.name, runs) == given, f"{name} does not end in staged"
        else:
            assert config.complete(given) == given, f"{name} does not end in complete(config)"
    for name, run in every_run():
        models.table(run.model.name, run.model.width)
        if not isinstance(run.data, config.MapData):
            assert run.task in data.DATASETS[run.data.name].tasks, name


def test_no_two_runs_of_configs_share_a_working_directory():
    """But for a variant that is the file's default."""
    names = {}
    for name, given in every_config():
        assert names.setdefault(given.name, given) == given, f"{name}: two runs of one name"
    assert len(names) >= len(FILES) >= 7


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_with_variants_refuses_others_by_name(path):
    module = load(path)
    if not hasattr(module, "VARIANTS"):
        with pytest.raises(TypeError):
            module.get_config("no_such_variant")
        return
    with pytest.raises(UserError, match="unknown variant 'no_such_variant'"):
        module.get_config("no_such_variant")


# Stages


def stages():
    """Front end, context module and both together."""
    joint = segmentation() | {"init_from": "front_end", "init_context_from": "context"}
    maps = with_field("data.front_end", "front_end", context)
    return {
        name: ConfigDict(given)
        for name, given in (("front_end", segmentation()), ("context", maps), ("joint", joint))
    }


def parsed_stages(**top):
    given = staged.complete("tiny", stages())
    given.update(top)
    return staged.parse(given)


def test_stages_keep_their_order_though_a_config_dict_sorts():
    found = stages()
    assert list(staged.parse(staged.complete("tiny", found)).stages) == list(found)
    turned = dict(reversed(found.items()))
    assert list(staged.parse(staged.complete("tiny", turned)).stages) == list(turned)
    given = staged.complete("tiny", found)
    assert staged.parse(ConfigDict(given.to_dict())) == staged.parse(given)


def test_every_field_of_every_stage_has_a_value_and_none_is_changed():
    plan = parsed_stages()
    assert plan.name == "tiny"
    for name, given in stages().items():
        assert plan.stages[name] == config.parse(given)
    given = staged.complete("tiny", stages())
    assert given.stages.context.model.context.size == "basic"
    assert given.stages.joint.optimizer.momentum == 0.9


def test_seed_and_dir_reach_every_stage_where_given():
    for seed in (0, 7):
        plan = parsed_stages(seed=seed, dir="streets")
        assert {run.seed for run in plan.stages.values()} == {seed}
        assert {run.data.dir for run in plan.stages.values()} == {"streets"}
    found = stages()
    for seed, run in enumerate(found.values()):
        run.seed, run.data.dir = seed + 3, f"place{seed}"
    plan = staged.parse(staged.complete("tiny", found))
    assert [run.seed for run in plan.stages.values()] == [3, 4, 5]
    assert [run.data.dir for run in plan.stages.values()] == ["place0", "place1", "place2"]


def test_names_of_stages_become_folders_below_the_working_directory_and_others_stay():
    found = stages()
    found["joint"].init_from = "runs/front_end"
    plan = staged.parse(staged.complete("tiny", found))
    placed = plan.under("runs/tiny")
    assert list(placed) == list(plan.stages)
    assert placed["context"].data.front_end == "runs/tiny/front_end"
    assert placed["joint"].init_context_from == "runs/tiny/context"
    assert placed["joint"].init_from == "runs/front_end"
    assert placed["front_end"] == plan.stages["front_end"]
    assert config.changes(plan.stages["context"], placed["context"]) == [
        "config.data.front_end was 'front_end', is 'runs/tiny/front_end'"
    ]


@pytest.mark.parametrize(
    ("stage", "field", "value", "says"),
    [
        ("front_end", "batch_size", 0, "config.batch_size = 0 must be at least 1"),
        ("context", "steps", 5, "config.epochs = 2 and config.steps = 5: one must"),
        ("joint", "task", "drawing", "config.task = 'drawing' is unknown"),
    ],
)
def test_a_bad_field_names_its_stage(stage, field, value, says):
    given = staged.complete("tiny", stages())
    given.stages[stage][field] = value
    with pytest.raises(UserError) as caught:
        staged.parse(given)
    assert str(caught.value).startswith(f"config.stages.{stage}: {says}")
    assert "\n" not in str(caught.value)


# The papers' numbers


PUBLISHED = {
    # Updates, batch, rate, momentum, side of the crop with its margin of 186 pixels a side.
    "pascal_voc": {"front_end": (60_000, 14, 1e-3, 0.9, 500)},
    "pascal_voc_coco": {
        "coco": (140_000, 14, 1e-3, 0.9, 500),
        "front_end": (50_000, 14, 1e-5, 0.9, 500),
    },
    "camvid": {
        "front_end": (20_000, 8, 1e-4, 0.99, 628),
        "joint": (None, 1, 1e-5, 0.9, 852),  # Its updates are not stated.
    },
    "kitti": {
        "front_end": (10_000, 8, 1e-4, 0.99, 628),
        "joint": (20_000, 1, 1e-5, 0.99, 900),
    },
    "cityscapes": {
        "front_end": (40_000, 8, 1e-4, 0.99, 628),
        "context": (24_000, 100, 1e-4, 0.99, None),  # Whole images.
        "joint": (60_000, 1, 1e-5, 0.99, 1396),
    },
}
"""papers.md 2.7, of Yu & Koltun (2016)."""


def dilation(variant):
    module = load(Path(__file__).parent.parent / "configs" / "dilation.py")
    return staged.parse(module.get_config(variant)).stages


@pytest.mark.parametrize("variant", PUBLISHED)
def test_dilation_has_the_papers_numbers(variant):
    found = dilation(variant)
    for stage, (steps, batch, rate, momentum, side) in PUBLISHED[variant].items():
        run = found[stage]
        assert (run.batch_size, run.optimizer.learning_rate) == (batch, rate), stage
        assert run.optimizer.momentum == momentum, stage
        assert run.schedule.kind == ("step" if stage == "coco" else "constant")
        assert steps is None or run.steps == steps, stage
        if side is None:
            assert run.data.crop == (0, 0)
        else:
            assert run.data.crop == (side - 372, side - 372), stage
    for run in found.values():
        assert run.optimizer.rule == "caffe"
        assert run.optimizer.weight_decay == 5e-4


def test_dilation_with_coco_learns_from_both_sets_first_and_from_pascal_voc_then():
    found = dilation("pascal_voc_coco")
    assert list(found) == ["coco", "front_end", "context"]
    assert [run.data.name for run in list(found.values())[:2]] == [
        "pascal_voc_coco",
        "pascal_voc_aug",
    ]
    assert (found["coco"].init_from, found["front_end"].init_from) == ("runs/vgg_16", "coco")
    assert (found["coco"].schedule.steps, found["coco"].schedule.factor) == (100_000, 0.1)


def test_dilation_of_pascal_voc_has_the_published_codes_context_numbers():
    """Maps of 66x66 padded by 33 once, batch 60, rate 1e-3: the large module, and nothing joint."""
    found = dilation("pascal_voc")
    assert list(found) == ["front_end", "context"]
    run = found["context"]
    assert (run.batch_size, run.optimizer.learning_rate, run.optimizer.momentum) == (60, 1e-3, 0.9)
    assert run.data.crop == (66, 66)
    module = run.model.context
    assert (module.layers, module.size, module.padding) == (8, "large", "once")


@pytest.mark.parametrize(("variant", "layers"), [("camvid", 8), ("kitti", 7), ("cityscapes", 10)])
def test_dilation_of_streets_has_the_published_depth_and_starts_from_the_stages_before(
    variant, layers
):
    found = dilation(variant)
    front_end, joint = found["front_end"], found["joint"]
    assert front_end.init_from == "runs/vgg_16"
    assert joint.init_from == "front_end"
    context = joint.model.context
    assert (context.layers, context.size, context.padding) == (layers, "basic", "layer")
    cached = "context" in found
    assert joint.init_context_from == ("context" if cached else "")
    assert cached == (variant == "cityscapes")
    if cached:
        assert found["context"].model.context == context
        assert found["context"].data.front_end == "front_end"
        assert joint.data.grid.loss_at == found["context"].data.grid.loss_at == "pixels"
    assert front_end.data.grid.loss_at == "cells"
    assert front_end.data.grid.alignment == "corner"

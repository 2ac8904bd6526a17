"""A configuration is complete and typed, or the error names the field."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from drn_jax import config, data, models
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
        yield path.stem, module.get_config()
        for variant in getattr(module, "VARIANTS", ()):
            yield f"{path.stem}:{variant}", module.get_config(variant)


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
        "epochs",
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
        ("schedule.kind", "cosine", "known: poly, step"),
    ],
)
def test_a_word_outside_of_the_choices_is_named_with_the_choices(field, value, known):
    message = error_of(with_field(field, value))
    assert message.startswith(f"config.{field} = {value!r} is unknown: ")
    assert known in message


@pytest.mark.parametrize("field", ["batch_size", "epochs", "eval_epochs", "log_steps"])
@pytest.mark.parametrize("value", [0, -1])
def test_a_count_below_one_is_named(field, value):
    message = error_of(with_field(field, value))
    assert message == f"config.{field} = {value} must be at least 1"


def test_the_fields_of_the_data_depend_on_the_task():
    message = error_of(with_field("data.rotate", 10))
    assert message.startswith("unknown field config.data.rotate")
    message = error_of(with_field("data.resize", 36, segmentation))
    assert message.startswith("unknown field config.data.resize")
    assert isinstance(config.parse(segmentation()).data, config.SegmentationData)


def test_the_fields_of_the_schedule_depend_on_its_kind():
    given = with_field("schedule", {"kind": "step", "epochs": 3})
    assert config.parse(given).schedule == config.StepSchedule("step", 3, 0.1)
    message = error_of(with_field("schedule", {"kind": "step"}))
    assert message == "the configuration lacks config.schedule.epochs"


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


@pytest.mark.parametrize("base", [classification, segmentation])
def test_a_configuration_survives_json(base):
    parsed = config.parse(base())
    read = json.loads(json.dumps(dataclasses.asdict(parsed)))
    assert isinstance(read["data"]["crop" if base is segmentation else "crop_area"], list)
    assert config.parse(read) == parsed
    assert config.parse(config.complete(ConfigDict(read))) == parsed


def test_changes_names_every_field_that_differs_and_no_other():
    before = config.parse(classification())
    assert config.changes(before, config.parse(classification())) == []
    now = classification() | {"epochs": 5, "optimizer": {"learning_rate": 0.2}}
    assert config.changes(before, config.parse(now)) == [
        "config.epochs was 2, is 5",
        "config.optimizer.learning_rate was 0.1, is 0.2",
    ]
    (change,) = config.changes(
        before, config.parse(classification() | {"schedule": {"kind": "step", "epochs": 3}})
    )
    assert change.startswith("config.schedule was PolySchedule(")


def test_every_file_in_configs_parses_in_every_variant_and_names_what_exists():
    names = {}
    for name, given in every_config():
        parsed = config.parse(given)
        assert config.complete(given) == given, f"{name} does not end in complete(config)"
        models.table(parsed.model.name, parsed.model.width)
        assert parsed.task in data.DATASETS[parsed.data.name].tasks, name
        assert names.setdefault(parsed.name, parsed) == parsed, f"{name}: two runs of one name"
    assert len(names) >= len(FILES) >= 5


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_with_variants_refuses_others_by_name(path):
    module = load(path)
    if not hasattr(module, "VARIANTS"):
        with pytest.raises(TypeError):
            module.get_config("no_such_variant")
        return
    with pytest.raises(UserError, match="unknown variant 'no_such_variant'"):
        module.get_config("no_such_variant")

"""results.json and the page say what was judged, how, and in what it differs from the published."""

import dataclasses
import json
import math

import numpy as np
import pytest

from drn_jax import config, models
from drn_jax.analysis import cost, price, receptive_field
from drn_jax.errors import UserError
from drn_jax.evaluation import recipes, results
from drn_jax.evaluation.results import Judged, Outcome
from drn_jax.report import ClassRow

IMAGENET = {
    "name": "imagenet",
    "task": "classification",
    "model": {"name": "drn_c_26", "running_variance": "unbiased"},
    "data": {"name": "imagenet", "crop": 224, "resize": 256},
    "batch_size": 256,
    "epochs": 120,
    "optimizer": {"learning_rate": 0.1},
    "schedule": {"kind": "step", "epochs": 30},
}


def judged(given=IMAGENET, converted=False):
    settings = config.parse(given)
    return Judged(
        config=settings,
        title=settings.model.name,
        data=settings.data.name,
        dataset="photographs",
        workdir="runs/x",
        step=7,
        digest="abc",
        converted=converted,
    )


def outcome(crops=1, **changes):
    found = Outcome(
        protocol={"name": "validation", "resize": 256, "crop": 224, "crops": crops},
        scores={"top1": 0.5, "top5": 0.8, "loss": math.nan},
        per_class=[ClassRow("cat", None, {"images": np.int64(3), "accuracy": 2 / 3})],
        split="validation",
        images=3,
        seconds=1.5,
        details={"odd": np.array([1.0, math.inf])},
    )
    return dataclasses.replace(found, **changes)


def test_page_and_file_tell_the_price_of_the_score(tmp_path):
    net = models.create("drn_c_26", 2)
    fields = receptive_field.of_stages(net.table)
    of = price.of(cost.of(net.table, 224, 200), fields, 224, 200)
    results.save(
        str(tmp_path), dataclasses.replace(judged(), price=of), outcome(), "python eval.py"
    )
    found = json.loads((tmp_path / "results.json").read_text())["price"]
    assert (found["height"], found["width"], found["sees"]) == (224, 200, 581)
    page = (tmp_path / "report.html").read_text()
    for words in (
        "<dt>receptive field</dt><dd>581 x 581 pixels",
        f"<dt>parameters</dt><dd>{found['parameters']:,}</dd>",
        f"{found['multiply_adds'] / 1e6:,.1f} million for one training input of 224 x 200",
        f"{found['activation_bytes'] / 1e6:,.1f} MB for one training input of 224 x 200",
    ):
        assert words in page


def test_the_file_is_json_without_numbers_that_json_has_not(tmp_path):
    results.save(str(tmp_path), judged(), outcome(), "python eval.py")
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["scores"] == {"top1": 0.5, "top5": 0.8, "loss": None}
    assert found["per_class"] == [{"class": "cat", "images": 3, "accuracy": pytest.approx(2 / 3)}]
    assert found["details"] == {"odd": [1.0, None]}
    assert found["checkpoint"] == {
        "workdir": "runs/x",
        "step": 7,
        "sha256": "abc",
        "front_end": None,
    }
    assert config.parse(found["config"]) == judged().config
    assert found["protocol"]["crop"] == 224


def test_published_numbers_stand_beside_those_of_the_same_protocol(tmp_path):
    results.save(str(tmp_path), judged(), outcome(), "python eval.py")
    rows = {(r["metric"], r["crops"]): r for r in as_json()["published"]}
    assert rows["top1", 1]["value"] == pytest.approx(1 - 0.2486)
    page = results.page(judged(), outcome(), "")
    (table,) = [t for t in page.tables if t.title.startswith("Beside")]
    ours = {row[0]: row[3] for row in table.rows}
    of_ten = [shown for what, shown in ours.items() if "10 crops" in what]
    of_one = [shown for what, shown in ours.items() if "central crop" in what]
    assert set(of_ten) == {"-"}
    assert {"50.00%", "80.00%"} <= set(of_one)


def as_json():
    return results.as_json(judged(), outcome(), "")


def test_a_run_by_the_published_recipe_differs_by_its_protocol_alone():
    assert recipes.differences(judged().config, "imagenet") == []
    (only,) = as_json()["differences"]
    assert only.startswith("protocol here: validation")


def test_what_differs_from_the_published_recipe_is_said():
    given = {**IMAGENET, "epochs": 4, "model": {"name": "drn_c_26", "width": 0.25}}
    found = results.as_json(judged(given), outcome(), "")["differences"]
    assert "the network has 0.25 times the published channels" in found
    assert "epochs 4, published 120" in found
    assert not any("batch" in reason for reason in found)


def test_converted_weights_are_not_asked_for_their_recipe():
    given = {**IMAGENET, "epochs": 4}
    found = results.as_json(judged(given, converted=True), outcome(), "")["differences"]
    assert not any(reason.startswith("epochs") for reason in found)
    assert any("come from a file" in reason for reason in found)


def test_where_nothing_was_published_the_page_says_so():
    one = dataclasses.replace(judged(), data="tiny_imagenet")
    page = results.page(one, outcome(), "")
    (table,) = [t for t in page.tables if t.title.startswith("Beside")]
    assert table.rows == ()
    assert "None was published for drn_c_26 on photographs" in table.notes[0]
    assert results.as_json(one, outcome(), "")["differences"] == []


def test_a_context_run_stands_beside_the_whole_net():
    """The set and the network are its front end's; a published module has its shape by its name."""
    given = {
        "name": "module",
        "task": "context",
        "model": {"name": "context8_camvid"},
        "data": {"front_end": "runs/front"},
        "batch_size": 1,
        "steps": 10,
        "optimizer": {"learning_rate": 1e-5},
        "schedule": {"kind": "constant"},
    }
    made = Judged(config.parse(given), "", "camvid_640", "", "", 1, "", False)
    for name, context in (
        ("context8_camvid", {"layers": 0}),
        ("context", {"layers": 0}),
        ("context", {"layers": 8, "size": "basic"}),
    ):
        settings = config.parse({**given, "model": {"name": name, "context": context}})
        one = dataclasses.replace(made, config=settings, model="vgg_16_front_end")
        rows, reasons = results.beside(one, outcome())
        assert [row.model for row in rows] == ["dilation8_camvid"]
        assert any("trained in stages (the front end, then both" in reason for reason in reasons)
        other = dataclasses.replace(one, model="drn_d_22")
        assert results.beside(other, outcome())[0] == ()


def test_reasons_are_sentences_below_the_table():
    given = {**IMAGENET, "epochs": 4}
    page = results.page(judged(given), outcome(), "")
    (table,) = [t for t in page.tables if t.title.startswith("Beside")]
    assert table.notes[0] == "Epochs 4, published 120."


def test_other_crops_do_not_stand_beside_the_published():
    small = outcome()
    small = dataclasses.replace(small, protocol={**small.protocol, "crop": 64, "resize": 64})
    page = results.page(judged(), small, "")
    (table,) = [t for t in page.tables if t.title.startswith("Beside")]
    assert len(table.rows) == 6
    assert {row[3] for row in table.rows} == {"-"}


def test_program_and_machine_are_told_in_one_way():
    told = results.computed_by()
    found = as_json()
    assert {name: found[name] for name in told} == told
    assert set(told) == {"code", "versions", "device"}
    assert told["code"]["commit"] == results.commit()
    assert told["versions"]["numpy"] == np.__version__


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises((UserError, OSError)) as raised:
        results.save(str(tmp_path / "file" / "below"), judged(), outcome(), "")
    assert isinstance(raised.value, UserError), raised.value


def test_the_terminal_is_told_all_scores_or_those_that_are_named():
    assert list(outcome().told) == ["top1", "top5", "loss"]
    assert outcome(printed=("loss", "top1")).told == pytest.approx(
        {"loss": math.nan, "top1": 0.5}, nan_ok=True
    )


def test_a_place_that_cannot_be_written_is_found_out_before(tmp_path):
    (tmp_path / "file").write_text("")
    results.require_folder(str(tmp_path / "new" / "folder"))
    assert not (tmp_path / "new").exists()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=r"file is no folder\); name another folder"):
            results.require_folder(str(folder))


def test_what_replaces_other_results_says_so(tmp_path):
    assert results.save(str(tmp_path), judged(), outcome(), "") == ""
    assert results.save(str(tmp_path), judged(), outcome(), "") == ""
    found = results.save(str(tmp_path), judged(), outcome(crops=10), "")
    assert found == "protocol.crops 1, now 10"
    (tmp_path / "results.json").write_text("no json")
    assert results.save(str(tmp_path), judged(), outcome(), "") == ""

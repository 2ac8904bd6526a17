"""Seeds are put together only where nothing but the seed differs."""

import dataclasses
import json
import shutil

import pytest
from scipy import stats

from drn_jax import config, summary
from drn_jax.errors import UserError

GIVEN = {
    "name": "tiny",
    "task": "classification",
    "model": {"name": "drn_d_22", "width": 0.05},
    "data": {"name": "imagenet", "dir": "here", "crop": 32, "resize": 32},
    "batch_size": 2,
    "epochs": 1,
    "optimizer": {"learning_rate": 0.1},
    "schedule": {"kind": "poly"},
}


def write(folder, seed, top1, protocol=None, **changes):
    settings = config.parse({**GIVEN, "seed": seed, **changes})
    found = {
        "model": "drn_d_22, width 0.05",
        "data": {"name": "photographs", "split": "validation", "images": 3},
        "protocol": protocol or {"name": "validation", "crops": 1},
        "scores": {"top1": top1, "top5": 1.0, "loss": 2 + top1},
        "checkpoint": {"workdir": str(folder), "step": 5, "sha256": f"{folder.name}"},
        "config": dataclasses.asdict(settings),
    }
    place = folder / "eval" / found["protocol"]["name"]
    place.mkdir(parents=True)
    (place / "results.json").write_text(json.dumps(found))
    return str(folder)


def test_three_seeds_have_a_mean_and_students_interval(tmp_path, capsys):
    values = (0.5, 0.56, 0.53)
    runs = [write(tmp_path / f"s{i}", i, top1) for i, top1 in enumerate(values)]
    out = tmp_path / "seeds.json"
    assert summary.summarise(runs, "validation", str(out)) == 0
    found = json.loads(out.read_text())["scores"]["top1"]
    interval = stats.t.interval(0.95, 2, loc=0.53, scale=stats.sem(values))
    assert found["mean"] == pytest.approx(0.53)
    assert found["interval"] == pytest.approx(interval)
    assert "top-1 accuracy" in capsys.readouterr().out


def test_two_seeds_have_no_interval(tmp_path, capsys):
    runs = [write(tmp_path / f"s{i}", i, 0.5 + i / 10) for i in range(2)]
    summary.summarise(runs, "validation", "")
    assert "too few for an interval" in capsys.readouterr().out


def test_another_protocol_is_found_in_its_folder(tmp_path, capsys):
    protocol = {"name": "10_crops", "crops": 10}
    runs = [write(tmp_path / f"s{i}", i, 0.5 + i / 10, protocol) for i in range(3)]
    assert summary.summarise(runs, "10_crops", "") == 0
    capsys.readouterr()
    with pytest.raises(UserError, match=r"validation.results.json: no such file; run eval.py"):
        summary.summarise(runs, "validation", "")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"epochs": 2}, "no run of the recipe of .*: config.epochs was 1, is 2"),
        (
            {"model": {"name": "drn_d_22", "width": 0.1}},
            r"config.model.width was 0.05, is 0.1",
        ),
    ],
)
def test_other_recipes_are_not_mixed_in(tmp_path, changes, says):
    runs = [write(tmp_path / "a", 0, 0.5), write(tmp_path / "b", 1, 0.6, **changes)]
    with pytest.raises(UserError, match=says):
        summary.summarise(runs, "validation", "")


def test_the_place_of_the_data_and_the_name_of_the_run_may_differ(tmp_path, capsys):
    data = {**GIVEN["data"], "dir": "there"}
    runs = [write(tmp_path / "a", 0, 0.5), write(tmp_path / "b", 1, 0.6, data=data, name="other")]
    assert summary.summarise(runs, "validation", "") == 0
    assert "55.00" in capsys.readouterr().out


def test_the_same_weights_count_once(tmp_path):
    run = write(tmp_path / "a", 0, 0.5)
    with pytest.raises(UserError, match=r"results\.json: was given twice"):
        summary.summarise([run, run], "validation", "")
    again = tmp_path / "again"
    shutil.copytree(run, again)
    with pytest.raises(UserError, match=r"again.*: has the weights of"):
        summary.summarise([run, str(again)], "validation", "")


def test_what_is_no_result_is_named(tmp_path):
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(UserError, match=r"is no results.json of eval.py, it lacks"):
        summary.summarise([str(tmp_path), str(tmp_path)], "validation", "")


def test_seeds_of_a_run_in_stages_start_from_folders_of_their_own(tmp_path, capsys):
    runs = [
        write(tmp_path / f"s{i}", i, 0.5 + i / 10, init_from=f"{tmp_path}/s{i}/front_end")
        for i in range(2)
    ]
    assert summary.summarise(runs, "validation", "") == 0
    alone = write(tmp_path / "alone", 5, 0.5)
    with pytest.raises(UserError, match=r"config\.init_from"):
        summary.summarise([runs[0], alone], "validation", "")
    capsys.readouterr()


@pytest.mark.parametrize("content", ["3", "null", "[]", "no json"])
def test_any_other_file_is_one_line(tmp_path, content):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(UserError, match=r"results.json: (is no results|can't be read)"):
        summary.summarise([str(tmp_path), str(tmp_path)], "validation", "")


def test_a_summary_that_cannot_be_written_is_one_line(tmp_path, capsys):
    runs = [write(tmp_path / f"s{i}", i, 0.5 + i / 10) for i in range(2)]
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't be written"):
        summary.summarise(runs, "validation", str(tmp_path / "file" / "seeds.json"))
    capsys.readouterr()

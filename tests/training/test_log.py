"""metrics.jsonl survives kills and resumptions."""

import contextlib
import json
import math

import pytest

from drn_jax.training import log


def steps(workdir):
    return [row["step"] for row in log.read(workdir)]


def write(workdir, start, *numbers):
    with log.Log(workdir, start) as writer:
        for step in numbers:
            writer.write(step, {"train_loss": 1 / step, "epoch": step / 10})


def test_rows_are_flat_objects_a_line_with_the_step_first(tmp_path):
    write(tmp_path, 0, 1, 2)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == log.read(tmp_path)
    assert lines[1] == '{"step": 2, "train_loss": 0.5, "epoch": 0.2}'


def test_a_number_that_json_does_not_know_is_left_out(tmp_path):
    def refuse(name):
        raise AssertionError(name)

    with log.Log(tmp_path, 0) as writer:
        writer.write(1, {"images_per_s": math.nan, "train_loss": 1.0, "val_loss": math.inf})
    text = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(text, parse_constant=refuse) == {"step": 1, "train_loss": 1.0}


def test_a_row_is_on_disk_when_write_returns(tmp_path):
    with log.Log(tmp_path, 0) as writer:
        writer.write(1, {"train_loss": 1.0})
        assert steps(tmp_path) == [1]


def test_resuming_drops_the_rows_beyond_its_step(tmp_path):
    write(tmp_path, 0, 1, 2, 3, 4)
    write(tmp_path, 2)
    assert steps(tmp_path) == [1, 2]
    write(tmp_path, 2, 3)
    assert steps(tmp_path) == [1, 2, 3]
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("cut", [1, 10, 30])
def test_a_last_line_that_was_cut_is_left_out_and_overwritten(tmp_path, cut):
    write(tmp_path, 0, 1, 2, 3)
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text()[: -1 - cut])
    assert steps(tmp_path) == [1, 2]
    write(tmp_path, 2, 3)
    assert steps(tmp_path) == [1, 2, 3]


def test_the_row_of_a_validation_that_happens_again_is_dropped(tmp_path):
    with log.Log(tmp_path, 0) as writer:
        for step, row in ((1, "train_loss"), (2, "train_loss"), (2, "val_loss")):
            writer.write(step, {row: 1.0})
    with log.Log(tmp_path, 2):
        assert steps(tmp_path) == [1, 2, 2]
    with log.Log(tmp_path, 2, scored=False):
        pass
    assert [set(row) for row in log.read(tmp_path)] == [{"step", "train_loss"}] * 2


def test_no_file_is_no_rows(tmp_path):
    assert log.read(tmp_path / "nowhere") == []


def test_in_a_bucket_rows_are_written_by_flush_and_at_the_end(bucket):
    with log.Log("gs://fake/run", 0) as writer:
        writer.write(1, {"train_loss": 1.0})
        assert log.read("gs://fake/run") == []
        writer.flush()
        assert steps("gs://fake/run") == [1]
        (events,) = (bucket / "run/tensorboard").iterdir()
        size = events.stat().st_size
        writer.write(2, {"train_loss": 0.5})
    text = (bucket / "run/metrics.jsonl").read_text()
    assert text == '{"step": 1, "train_loss": 1.0}\n{"step": 2, "train_loss": 0.5}\n'
    assert [path.name for path in (bucket / "run/tensorboard").iterdir()] == [events.name]
    assert events.stat().st_size > size


def test_resuming_in_a_bucket_drops_the_rows_beyond_its_step(bucket):
    write("gs://fake/run", 0, 1, 2, 3, 4)
    write("gs://fake/run", 2)
    assert steps("gs://fake/run") == [1, 2]
    write("gs://fake/run", 2, 3)
    assert steps("gs://fake/run") == [1, 2, 3]


def test_rows_in_a_bucket_outlive_an_error(bucket):
    with contextlib.suppress(KeyboardInterrupt), log.Log("gs://fake/run", 0) as writer:
        writer.write(1, {"train_loss": 1.0})
        raise KeyboardInterrupt
    assert steps("gs://fake/run") == [1]


@pytest.mark.parametrize("remote", [False, True])
def test_a_log_that_does_not_write_leaves_everything_as_it_is(tmp_path, bucket, remote):
    workdir = "gs://fake/run" if remote else tmp_path / "run"
    with log.Log(workdir, 0, writes=False) as writer:
        writer.write(1, {"train_loss": 1.0})
        writer.flush()
    assert log.read(workdir) == []
    write(workdir, 0, 1, 2)
    with log.Log(workdir, 1, writes=False):
        pass
    assert steps(workdir) == [1, 2]


def test_every_number_becomes_a_tensorboard_scalar(tmp_path, monkeypatch):
    import tensorboardX

    written = []

    class Writer:
        def __init__(self, folder, purge_step):
            written.append((folder, purge_step))

        def add_scalar(self, name, value, step):
            written.append((name, value, step))

        def close(self):
            written.append("closed")

    monkeypatch.setattr(tensorboardX, "SummaryWriter", Writer)
    with log.Log(tmp_path, 5) as writer:
        writer.write(6, {"train_loss": 1.5, "val_pixel_accuracy": 0.25})
    assert written == [
        (str(tmp_path / "tensorboard"), 6),
        ("train/loss", 1.5, 6),
        ("val/pixel_accuracy", 0.25, 6),
        "closed",
    ]

"""Every mistake on the command line is one line on standard error and status 1."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from absl import app, flags
from ml_collections import config_flags

from drn_jax import cli, config, staged
from drn_jax.errors import UserError, nearest

ROOT = Path(__file__).parent.parent

# How ml_collections imports a configuration file.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """`run(*args, main=...)`: the status, and the lines on standard error, of a small program."""
    monkeypatch.chdir(tmp_path)

    def run(*args, main=lambda: None, default="quickstart"):
        values = flags.FlagValues()
        values["verbosity"] = flags.FLAGS["verbosity"]

        def define():
            config_flags.DEFINE_config_file(
                "config", str(cli.CONFIGS / f"{default}.py"), flag_values=values
            )
            flags.DEFINE_string("workdir", "", "", flag_values=values)

        def absl_run(guarded, flags_parser):
            guarded(flags_parser(sys.argv))

        # ml_collections loads every configuration file into one module.
        monkeypatch.delitem(sys.modules, "config_config", raising=False)
        monkeypatch.setattr(flags, "FLAGS", values)
        monkeypatch.setattr(app, "run", absl_run)
        monkeypatch.setattr(sys, "argv", ["train.py", *args])
        with pytest.raises(SystemExit) as caught:
            cli.run(define, main)
        return caught.value.code, capsys.readouterr().err.splitlines()

    return run


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["--config=quickstrat"], "--config=quickstrat: no such file; did you mean quickstart "),
        (["--config", "camvd"], "--config=camvd: no such file; did you mean camvid?"),
        (["--config=no/such.py"], "--config=no/such.py: no such file; known: "),
        (["--config.batchsize=3"], "no field 'batchsize': did you mean 'batch_size'?"),
        (["--config.model.widht=3"], "no field 'widht': did you mean 'width'?"),
        (["--config.batch_size=many"], "flag --config.batch_size=many: invalid literal for int()"),
        (["--config.batch_size="], "flag --config.batch_size=: invalid literal for int()"),
        (["quickstart"], "unexpected argument 'quickstart': flags start with --"),
        (["--wrkdir=x"], "Unknown command line flag 'wrkdir'. Did you mean: workdir ?"),
        (["--config=quickstart:segmentaton"], "unknown variant 'segmentaton': did you mean segm"),
        (["--config=camvid:big"], "this configuration has no variants"),
        (["--config=dilation:camvd"], "unknown variant 'camvd': did you mean camvid?"),
        (["--config=dilation:kitti", "--config.stages.front.seed=3"], "no field 'front'"),
        (
            ["--config=dilation:kitti", "--config.stages.joint.model.context.layer=7"],
            "no field 'layer': did you mean 'layers'?",
        ),
    ],
)
def test_a_mistake_is_one_line_on_standard_error_and_status_1(run, args, line):
    ran = []
    code, lines = run(*args, main=lambda: ran.append(1))
    assert code == 1
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert line in lines[0]
    assert not ran


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("raises", "def get_config():\n    raise ValueError('no\\nluck')\n", "luck"),
        ("syntax", "def get_config(:\n", "invalid syntax (syntax.py, line 1)"),
        ("imports", "import no_such_module\n", "No module named 'no_such_module'"),
        ("empty", "x = 1\n", "has no attribute 'get_config'"),
        ("misses", "def get_config():\n    return {}['depth']\n", "no field 'depth'"),
    ],
)
def test_a_broken_configuration_file_is_one_line(run, tmp_path, name, text, line):
    (tmp_path / f"{name}.py").write_text(text)
    code, lines = run(f"--config={name}.py")
    assert (code, len(lines)) == (1, 1), lines
    assert line in lines[0]
    assert "Traceback" not in lines[0]


def test_a_user_error_of_the_program_is_one_line_and_status_1(run):
    def main():
        raise UserError("batch.png: damaged")

    assert run(main=main) == (1, ["error: batch.png: damaged"])


def test_a_fault_of_the_program_is_no_user_error(run):
    with pytest.raises(ZeroDivisionError):
        run(main=lambda: 1 // 0)


@pytest.mark.parametrize(("returned", "status"), [(None, 0), (0, 0), (130, 130)])
def test_the_status_is_what_main_returns(run, returned, status):
    assert run(main=lambda: returned) == (status, [])


@pytest.mark.parametrize(
    "args",
    [
        ["--config=camvid"],
        ["-config=camvid"],
        ["--config", "camvid"],
        ["--config=configs/camvid.py"],
        [f"--config={cli.CONFIGS / 'camvid.py'}"],
    ],
)
def test_a_configuration_is_found_by_name_or_path_from_anywhere(run, args):
    names = []
    code, lines = run(
        *args, "--config.epochs=7", main=lambda: names.append(flags.FLAGS.config.name)
    )
    assert (code, lines) == (0, [])
    assert names == ["camvid"]


def test_overrides_reach_the_configuration_as_values_of_their_field(run):
    found = []
    code, lines = run(
        "--config=quickstart:segmentation",
        "--config.data.crop=(32,48)",
        "--config.optimizer.learning_rate=1",
        "--config.data.flip=true",
        main=lambda: found.append(flags.FLAGS.config),
    )
    assert (code, lines) == (0, [])
    assert found[0].task == "segmentation"
    assert found[0].data.crop == (32, 48)
    assert found[0].optimizer.learning_rate == 1.0
    assert found[0].data.flip is True


def test_overrides_reach_a_field_of_a_stage(run):
    found = []
    for size in ("basic", "large"):
        code, lines = run(
            "--config=quickstart_context",
            f"--config.stages.context.model.context.size={size}",
            "--config.stages.joint.data.crop=(64,96)",
            "--config.seed=3",
            main=lambda: found.append(staged.parse(flags.FLAGS.config)),
        )
        assert (code, lines) == (0, [])
    basic, large = (plan.stages for plan in found)
    assert list(basic) == ["classifier", "front_end", "context", "joint"]
    assert config.changes(basic["context"], large["context"]) == [
        "config.model.context.size was 'basic', is 'large'"
    ]
    assert basic["joint"] == large["joint"]
    assert basic["joint"].data.crop == (64, 96)
    assert {stage.seed for stage in basic.values()} == {3}


def test_nearest_offers_the_close_names_or_all_of_them():
    assert nearest("appel", ["apple", "pear"]) == "did you mean apple?"
    assert nearest("zzz", ["pear", "apple"]) == "known: apple, pear"


@pytest.mark.parametrize("program", ["train.py", "eval.py"])
def test_help_describes_the_flags_and_succeeds(program, tmp_path):
    found = subprocess.run(
        [sys.executable, ROOT / program, "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert found.returncode == 0
    assert "--workdir" in found.stdout
    assert found.stdout.lstrip().startswith(("Train a network", "Judge a trained network"))
    assert found.stderr == ""
    assert not list(tmp_path.iterdir())

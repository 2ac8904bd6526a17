"""The benchmarks compare like with like."""

import importlib.util
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from drn_jax.errors import UserError

PLACE = Path(__file__).parents[1] / "benchmarks"


def load(name):
    spec = importlib.util.spec_from_file_location(name, PLACE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("recipe", ["ImageNet", "Cityscapes"])
def test_the_input_pipelines_make_the_same_image_pixels_of_the_same_draws(recipe, tmp_path):
    input_pipeline = load("input_pipeline")
    input_pipeline.make_images(tmp_path, recipe, 1)
    found = input_pipeline.check_pixels(recipe, tmp_path, draws=3)  # Raises for any difference.
    assert found["mask_agreement"] > 0.999


@pytest.fixture
def benchmark(monkeypatch):
    """Imports a module of benchmarks/ as its commands do."""
    monkeypatch.syspath_prepend(PLACE)
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if (PLACE / f"{name}.py").exists():
            del sys.modules[name]


@pytest.fixture
def run(benchmark, monkeypatch, tmp_path, capsys):
    """Runs a command with small ceilings: what it wrote as JSON, and what it printed."""

    def run(name, *options):
        measure = benchmark("measure")
        monkeypatch.setattr(measure, "PRODUCT", {"cpu": 64})
        monkeypatch.setattr(measure, "COPY", {"cpu": 1024})
        monkeypatch.setenv("XLA_FLAGS", "")  # A worker has one device.
        monkeypatch.setenv("OMP_NUM_THREADS", "1")  # Two wait long for each other's turn of a core.
        file = tmp_path / "found.json"
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *options, "--json", str(file)])
        benchmark(name).main()
        printed = capsys.readouterr().out
        found = json.loads(file.read_text())
        assert json.loads(printed.splitlines()[-1]).keys() == found.keys()
        return found, printed

    return run


SMALL = ("--width", "0.25", "--size", "32", "--batch", "2", "--rounds", "2")
PLAIN = ("--network", "vgg_16_front_end", "--width", "0.02", "--size", "8", "--batch", "1")
"""Soon compiled."""
QUICK = ("--seconds", "0.001")


@pytest.fixture
def no_torch(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "torch" else find(name, *rest),
    )


@pytest.mark.long
def test_without_pytorch_ours_is_measured_alone_and_a_line_says_how_to_install_it(run, no_torch):
    found, printed = run("inference", "--network", "resnet_18", *SMALL, *QUICK)
    assert "pip install -e '.[torch]'" in printed
    [result] = found["results"]
    assert list(result["sides"]) == ["ours"]
    assert len(result["sides"]["ours"]["images_per_second"]["rounds"]) == 2
    assert found["ceilings"]["product"]["float32"]["ours"]["median"] > 0


@pytest.mark.long
def test_a_train_step_is_measured_beside_pytorch(run):
    pytest.importorskip("torch")
    options = (*PLAIN, "--rounds", "2", *QUICK, "--peer", "eager")
    found, _ = run("train_step", *options)
    [result] = found["results"]
    ours, eager = (result["sides"][name] for name in ("ours", "eager"))
    assert ours["parameters"] == eager["parameters"]
    ratio = result["times_as_fast"]["ours"]["eager"]["rounds"]
    seconds = zip(ours["seconds"]["rounds"], eager["seconds"]["rounds"], strict=True)
    assert ratio == pytest.approx([b / a for a, b in seconds])


@pytest.mark.long
def test_start_up_is_measured_cold_and_kept(run):
    options = (*PLAIN, "--rounds", "1", "--peer", "none")
    found, _ = run("start_up", *options)
    names = ["import drn_jax.models", "train.py --help", "ours, cold", "ours, kept"]
    assert list(found["results"]) == names


@pytest.mark.long
def test_every_pass_of_a_layer_is_measured_by_every_program_once(run):
    options = ("--network", "--dilation", "2", *SMALL, *QUICK, "--peer", "none")
    found, _ = run(
        "dilated_conv", *options, "--dtype", "float32", "tf32", "--convolution", "auto", "native"
    )
    assert [r["derivative"] for r in found["results"]] == ["forward", "input", "kernel"]
    assert {r["dtype"] for r in found["results"]} == {"float32"}  # CPUs have no tf32.
    for result in found["results"]:
        assert result["programs"] == {"auto": "native", "native": "native"}  # For so few cells.
        assert result["seconds"]["auto"] == result["seconds"]["native"]


@pytest.mark.long
def test_both_libraries_convolve_to_the_same_result(run):
    pytest.importorskip("torch")
    options = ("--network", "--dilation", "4", *SMALL, *QUICK)
    found, _ = run("dilated_conv", *options, "--dtype", "float32", "bfloat16")  # Raises if not.
    assert all("peer" in result["seconds"] for result in found["results"])


@pytest.mark.parametrize("network", ["drn_c_26", "drn_d_105", "resnet_50", "dilation8"])
def test_the_layers_are_those_of_the_stage_table(benchmark, network):
    cases, dilated_conv = benchmark("cases"), benchmark("dilated_conv")
    case = cases.Case(network)
    counted = sum(layer.flops(1) for layer in dilated_conv.layers(case))
    costs = [c for c in case.costs if case.segments or c.name != "head"]
    assert counted == 2 * sum(c.multiply_adds for c in costs)


def test_the_default_table_has_every_dilation_to_16(benchmark):
    dilated_conv = benchmark("dilated_conv")
    layers = dilated_conv.chosen(dilated_conv.parser().parse_args([]))
    found = {layer.dilation for layer in layers if (layer.height, layer.inputs) == (28, 512)}
    assert found >= {1, 2, 4, 8, 16}


def test_sides_take_turns(benchmark):
    measure, turns = benchmark("measure"), []

    class Clock:
        def __init__(self, name, taken):
            self.name, self.taken = name, taken

        def seconds(self, calls=1):
            turns.append((self.name, calls))
            return self.taken

    found = measure.in_turn({"ours": Clock("ours", 0.5), "peer": Clock("peer", 4)}, 2, 2)
    assert turns == [("ours", 1), ("peer", 1), *[("ours", 4), ("peer", 1)] * 2]
    ratio = measure.times_as_fast(found["ours"], found["peer"])
    assert (ratio["least"], ratio["median"], ratio["most"]) == (8, 8, 8)


def test_results_that_differ_are_no_comparison(benchmark):
    measure = benchmark("measure")
    theirs = [0.5, -1.0, 0.0]
    measure.check_same("x", [0.5, -1.0005, 0.0005], theirs, "float32")
    measure.check_same("x", [0.5, -1.005, 0.0], theirs, "bfloat16")
    for ours in ([0.5, -1.005, 0.0], [-1.0, 0.5, 0.0], [0.5, -1.0, float("nan")]):
        with pytest.raises(UserError, match="not the same result"):
            measure.check_same("x", ours, theirs, "float32")


def test_what_goes_wrong_in_a_worker_is_one_line(benchmark):
    measure = benchmark("measure")
    with measure.ours() as worker:
        with pytest.raises(UserError, match=r"^ours\.py: \w+: .+$") as caught:
            worker.prepare("product", dtype="float32", side=-1)
        assert "\n" not in str(caught.value)
        worker.prepare("product", dtype="float32", side=8)  # It goes on.
        assert worker.seconds() > 0
        assert worker.peak_gb() > 0
        worker._process.kill()
        with pytest.raises(UserError, match=r"^ours\.py ended with status -9$"):
            worker.seconds()


def filled(case, variables, module):
    """Our variables in the peer's network, by their names."""
    import torch

    kinds = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
    state = module.network.state_dict()
    values = {}
    for tree in variables.values():
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            *names, kind = (key.key for key in path)
            names = [name for name in names if name not in ("front_end", "context")]
            plain = len(names) == 1  # A row with a bias.
            key = ".".join([*names, *["conv"] * plain, kinds.get(kind, kind)])
            values[key] = leaf.transpose(3, 2, 0, 1) if leaf.ndim == 4 else leaf
    assert values.keys() == {key for key in state if "num_batches" not in key}
    module.network.load_state_dict(
        {key: torch.from_numpy(np.array(values.get(key, 0))) for key in state}
    )


@pytest.mark.parametrize(
    ("network", "task", "width", "size"),
    [
        ("drn_c_26", "segmentation", 0.1, 29),
        ("drn_d_54", "classification", 0.05, 32),
        ("dilation8", "segmentation", 0.02, 24),
    ],
)
def test_the_peer_is_the_same_network_with_the_same_loss(
    benchmark, variables_of, network, task, width, size
):
    pytest.importorskip("torch")
    cases, ours, peers = (benchmark(name) for name in ("cases", "ours", "peers"))
    case = cases.Case(network, width, task, batch=2, size=size)
    theirs = peers.Case(case.for_peer())
    assert theirs.facts["parameters"] == sum(c.parameters for c in case.costs)
    variables = variables_of(case.model, (1, case.side, case.side, 3))
    filled(case, variables, theirs)
    train = network != "dilation8"  # Which drops out.
    theirs.network.train(train)

    @jax.jit
    def loss(variables, batch):
        (logits, features), _ = case.model.apply(
            variables, ours.prepared(case)(batch), train=train, mutable=["batch_stats"]
        )
        return case.goal.loss(logits, features, batch)[0]

    wanted = float(loss(variables, ours.batch_of(case)))
    assert theirs.loss(theirs.images).item() == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize(
    ("network", "family", "theirs"),
    [
        ("drn_c_26", "drn", "drnc26"),
        ("drn_d_22", "drn", "drnd22"),
        ("drn_d_54", "drn", "drnd54"),
        ("drn_d_105", "drn", "drnd105"),
        ("resnet_50", "resnet", "resnet50"),
    ],
)
def test_the_peer_has_the_parameters_of_what_others_wrote(benchmark, network, family, theirs):
    torch = pytest.importorskip("torch")
    published = pytest.importorskip(f"pytorchcv.models.{family}")
    cases, peers = benchmark("cases"), benchmark("peers")
    told = cases.Case(network).for_peer()
    with torch.device("meta"):
        models = peers.Network(told["rows"], told["segments"]), getattr(published, theirs)()
    ours, others = (sorted(tuple(p.squeeze().shape) for p in m.parameters()) for m in models)
    assert ours == others

"""PyTorch's weights come in by name, every one of them, and go out bit for bit."""

import os
import pickle

import jax
import numpy as np
import pytest

from drn_jax import models
from drn_jax.convert import torch as convert
from drn_jax.convert.names import CAFFE, TORCH, units
from drn_jax.errors import UserError

NARROW = 0.05

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet, RGB, as torchvision states them."""

RESIDUAL = [name for name in TORCH if name != "vgg_16"]


def shapes_of(name, width=NARROW, classes=7):
    """The variables of a network, shapes alone."""
    model = models.create(name, num_classes=classes, width=width)
    image = np.zeros((1, 224, 224, 3), np.float32)
    return jax.eval_shape(model.init, jax.random.key(0), image)


def published(name, layout="", width=NARROW, classes=7, seed=0):
    """A state dictionary of a published network, at a narrow width, filled with random numbers."""
    shapes = shapes_of(name, width, classes)
    zeros = jax.tree.map(lambda a: np.zeros(a.shape, np.float32), shapes)
    rng = np.random.default_rng(seed)
    return {
        key: rng.normal(size=value.shape).astype(np.float32)
        if value.dtype == np.float32 and key != "up.weight"
        else value
        for key, value in convert.dump(name, zeros, layout, width).items()
    }


def same(first, second):
    return first.keys() == second.keys() and all(
        first[key].dtype == second[key].dtype and np.array_equal(first[key], second[key])
        for key in first
    )


@pytest.mark.parametrize("name", RESIDUAL)
def test_load_dump_load_is_bit_identical_for_every_model(name):
    state = published(name)
    variables = convert.load(name, state, NARROW)
    dumped = convert.dump(name, variables, width=NARROW)
    assert same(dumped, state)
    again = convert.load(name, dumped, NARROW)
    assert jax.tree.structure(again) == jax.tree.structure(variables)
    assert jax.tree.all(jax.tree.map(np.array_equal, again, variables))


@pytest.mark.parametrize("name", TORCH)
def test_loaded_variables_are_those_that_the_model_has(name):
    variables = convert.load(name, published(name), NARROW)
    variables.pop(convert.UNUSED, None)
    wanted = shapes_of(name, classes=convert.num_classes(variables))
    assert jax.tree.map(lambda a: a.shape, variables) == jax.tree.map(lambda a: a.shape, wanted)


@pytest.mark.parametrize("layout", ["fyu", "fyu_segment", "pytorchcv"])
@pytest.mark.parametrize("name", ["drn_c_26", "drn_c_58", "drn_d_22", "drn_d_56"])
def test_every_layout_gives_the_same_variables(name, layout):
    variables = convert.load(name, published(name), NARROW)
    state = convert.dump(name, variables, layout, NARROW)
    assert convert.layout_of(state) == layout
    again = convert.load(name, state, NARROW)
    for part in ("params", "batch_stats"):
        assert jax.tree.all(jax.tree.map(np.array_equal, again[part], variables[part]))


def test_names_of_data_parallel_and_missing_step_counters_are_accepted():
    state = published("drn_d_22")
    plain = convert.load("drn_d_22", state, NARROW)
    wrapped = {f"module.{k}": v for k, v in state.items() if not k.endswith(convert.TRACKED)}
    again = convert.load("drn_d_22", wrapped, NARROW)
    assert jax.tree.all(jax.tree.map(np.array_equal, again, plain))


def test_dead_parameters_of_drn_c_58_are_kept_apart_and_written_back():
    dead = [unit for unit in units(models.table("drn_c_58"), "fyu") if not unit.used]
    assert [unit.theirs[0] for unit in dead] == ["layer7.0.downsample.0"]
    conv = dead[0].conv
    assert conv.inputs * conv.outputs + 2 * conv.outputs == 1_049_600
    state = published("drn_c_58")
    variables = convert.load("drn_c_58", state, NARROW)
    assert set(variables) == {"params", "batch_stats", convert.UNUSED}
    assert "projection" not in variables["params"]["level7"]["block1"]
    kernel = convert.dump("drn_c_58", variables, width=NARROW)["layer7.0.downsample.0.weight"]
    assert np.array_equal(kernel, state["layer7.0.downsample.0.weight"])


def test_a_state_without_the_dead_parameters_is_accepted_and_they_are_written_as_zeros():
    state = published("drn_c_58")
    living = {k: v for k, v in state.items() if not k.startswith("layer7.0.downsample")}
    variables = convert.load("drn_c_58", living, NARROW)
    assert convert.UNUSED not in variables
    dumped = convert.dump("drn_c_58", variables, width=NARROW)
    assert dumped.keys() == state.keys()
    assert not dumped["layer7.0.downsample.0.weight"].any()
    assert all(np.array_equal(dumped[key], living[key]) for key in living)


def test_a_state_of_another_model_is_refused_with_the_names_that_differ():
    with pytest.raises(UserError) as caught:
        convert.load("drn_d_38", published("drn_d_22"), NARROW)
    message = str(caught.value)
    assert "does not fit drn_d_38: + layer3.2.bn1.bias (3,)" in message
    assert "\n" not in message


def test_a_name_too_many_is_refused():
    state = published("drn_d_22") | {"extra.weight": np.zeros(3, np.float32)}
    with pytest.raises(UserError, match=r"- extra\.weight \(3,\)"):
        convert.load("drn_d_22", state, NARROW)


def test_a_step_counter_of_no_batch_norm_is_refused():
    state = published("drn_d_22") | {"ghost.num_batches_tracked": np.zeros((), np.int64)}
    with pytest.raises(UserError, match=r"- ghost\.num_batches_tracked"):
        convert.load("drn_d_22", state, NARROW)


def test_a_learned_upsampling_kernel_is_refused():
    state = published("drn_d_22", "fyu_segment")
    state["up.weight"] = state["up.weight"] + np.float32(0.1)
    with pytest.raises(UserError, match=r"up\.weight is not fyu/drn's fixed bilinear kernel"):
        convert.load("drn_d_22", state, NARROW)


def test_variables_of_another_model_are_not_dumped():
    variables = convert.load("drn_d_22", published("drn_d_22"), NARROW)
    with pytest.raises(UserError, match="the variables are not those of drn_d_38"):
        convert.dump("drn_d_38", variables, width=NARROW)


@pytest.mark.parametrize("name", ["vgg_16_front_end", "dilation8_camvid", "context10_cityscapes"])
def test_a_net_of_caffe_is_refused_with_the_command_that_brings_it_in(name):
    command = f"`python -m drn_jax.convert caffe FILE --model {name} --out DIR` brings in"
    for act in (convert.load, convert.dump):
        with pytest.raises(UserError, match=f"^{name} has no names in PyTorch: ") as caught:
            act(name, {})
        assert command in str(caught.value)


def test_every_network_that_was_published_is_known_to_one_conversion_or_both():
    assert set(models.MODELS) - {*CAFFE, *TORCH} == {"context"}
    assert {*CAFFE} & {*TORCH} == {"vgg_16"}


class TestVGG:
    """torchvision's VGG-16, as its two chains of modules that hold what `torchvision.models.vgg16`
    holds; channels a 32nd as many."""

    WIDTH = 1 / 32
    CHANNELS = (2, 2, "M", 4, 4, "M", 8, 8, 8, "M", 16, 16, 16, "M", 16, 16, 16, "M")

    @pytest.fixture
    def peer(self, torch):
        nn = torch.nn
        features, inputs = [], 3
        for channels in self.CHANNELS:
            if channels == "M":
                features.append(nn.MaxPool2d(2, 2))
                continue
            features += [nn.Conv2d(inputs, channels, 3, padding=1), nn.ReLU()]
            inputs = channels
        dense = [nn.Linear(inputs * 49, 128), nn.ReLU(), nn.Dropout()]
        dense += [nn.Linear(128, 128), nn.ReLU(), nn.Dropout(), nn.Linear(128, 7)]
        chain = {"features": nn.Sequential(*features), "avgpool": nn.AdaptiveAvgPool2d(7)}
        chain |= {"flatten": nn.Flatten(), "classifier": nn.Sequential(*dense)}
        model = nn.Sequential()
        for name, module in chain.items():
            model.add_module(name, module)
        torch.manual_seed(0)
        for parameter in model.parameters():
            # As large as keeps activations, so that every one of them counts in the logits.
            scale = (2 / parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.3
            nn.init.normal_(parameter, std=scale)
        return model.eval()

    def state(self, peer):
        return {key: value.numpy() for key, value in peer.state_dict().items()}

    def test_logits_of_the_same_photographs_are_torchvisions(self, torch, peer):
        photographs = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)
        photographs[..., 0] //= 2  # Red and blue differ, or their order would not matter much.
        scaled = torch.from_numpy(photographs.transpose(0, 3, 1, 2)).float() / 255
        mean, std = (torch.tensor(v)[None, :, None, None] for v in (MEAN, STD))
        with torch.no_grad():
            expected = peer((scaled - mean) / std).numpy()
        variables = convert.load("vgg_16", peer.state_dict(), self.WIDTH)
        assert set(variables) == {"params"}
        model = models.create("vgg_16", convert.num_classes(variables), self.WIDTH)
        images = models.preprocessing("vgg_16")(photographs, surrounded=True)
        logits, _ = model.apply(variables, images)
        np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max())
        assert np.ptp(expected, axis=0).max() > 1e-3 * np.abs(expected).max()

    def test_dumped_again_it_is_the_same_but_for_rounding_in_the_first_kernel(self, torch, peer):
        state = self.state(peer)
        dumped = convert.dump("vgg_16", convert.load("vgg_16", state, self.WIDTH), width=self.WIDTH)
        first = "features.0.weight"
        np.testing.assert_allclose(dumped[first], state[first], rtol=3e-7)
        assert same({**dumped, first: state[first]}, state)
        assert list(dumped) == list(state)
        tensors = {key: torch.from_numpy(value) for key, value in dumped.items()}
        peer.load_state_dict(tensors, strict=True)

    def test_a_written_file_is_read_back(self, peer, tmp_path):
        convert.write(tmp_path / "vgg16.pth", self.state(peer))
        found = convert.load("vgg_16", tmp_path / "vgg16.pth", self.WIDTH)
        wanted = convert.load("vgg_16", self.state(peer), self.WIDTH)
        assert jax.tree.all(jax.tree.map(np.array_equal, found, wanted))

    def test_its_names_fit_no_other_network_and_no_other_names_fit_it(self):
        with pytest.raises(UserError, match=r"not fit resnet_18: .* names of torchvision's VGG"):
            convert.load("resnet_18", published("vgg_16"), NARROW)
        with pytest.raises(UserError, match=r"does not fit vgg_16: .* names of pytorchcv's DRNs"):
            convert.load("vgg_16", published("drn_c_26", "pytorchcv"), NARROW)
        with pytest.raises(UserError, match="vgg_16 has no names in the layout fyu"):
            published("vgg_16", "fyu")
        with pytest.raises(UserError, match="drn_c_26 has no names in the layout torchvision_vgg"):
            published("drn_c_26", "torchvision_vgg")

    def test_the_variant_with_batch_norm_is_refused_with_the_names_that_differ(self):
        state = published("vgg_16") | {"features.1.running_mean": np.zeros(3, np.float32)}
        with pytest.raises(UserError, match=r"vgg_16: - features\.1\.running_mean \(3,\)"):
            convert.load("vgg_16", state, NARROW)


class Attack:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


class TestFiles:
    """Reading and writing PyTorch's files; needs the extra `torch`."""

    @pytest.fixture(autouse=True)
    def _pytorch(self):
        self.torch = pytest.importorskip("torch")

    def tensors(self, state):
        return {key: self.torch.from_numpy(value) for key, value in state.items()}

    def test_a_checkpoint_of_fyu_drn_is_read(self, tmp_path):
        state = published("drn_d_22")
        path = tmp_path / "model_best.pth.tar"
        wrapped = {f"module.{key}": value for key, value in self.tensors(state).items()}
        self.torch.save({"epoch": 3, "arch": "drn_d_22", "state_dict": wrapped}, path)
        variables = convert.load("drn_d_22", path, NARROW)
        assert same(convert.dump("drn_d_22", variables, width=NARROW), state)

    def test_a_written_file_is_read_back_by_pytorch(self, tmp_path):
        state = published("drn_d_22")
        convert.write(tmp_path / "out.pth", state)
        found = self.torch.load(tmp_path / "out.pth", weights_only=True)
        assert same({key: value.numpy() for key, value in found.items()}, state)
        assert os.listdir(tmp_path) == ["out.pth"]

    def test_a_pickle_that_runs_code_is_refused_and_does_not_run(self, tmp_path):
        for save in (self.torch.save, lambda what, path: path.write_bytes(pickle.dumps(what))):
            path, mark = tmp_path / "attack.pth", tmp_path / "ran"
            save({"conv1.weight": Attack(mark)}, path)
            with pytest.raises(UserError, match=r"attack\.pth: refused"):
                convert.read(path)
            assert not mark.exists()

    def test_a_truncated_file_is_refused_in_one_line(self, tmp_path):
        path = tmp_path / "cut.pth"
        self.torch.save(self.tensors(published("drn_d_22")), path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(UserError, match=r"^\S+cut\.pth: can't be read") as caught:
            convert.read(path)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("content", [b"", b"no weights at all", b"\x89PNG\r\n\x1a\n"])
    def test_what_is_no_pytorch_file_is_refused(self, tmp_path, content):
        path = tmp_path / "strange.pth"
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"strange\.pth: "):
            convert.read(path)

    def test_a_file_that_is_not_there_is_named(self, tmp_path):
        with pytest.raises(UserError, match=r"missing\.pth: no such file"):
            convert.read(tmp_path / "missing.pth")

    def test_a_lone_tensor_is_no_state_dictionary(self, tmp_path):
        self.torch.save(self.torch.zeros(3), tmp_path / "lone.pth")
        with pytest.raises(UserError, match="holds a Tensor, not a state dictionary"):
            convert.read(tmp_path / "lone.pth")


class TestPytorchCV:
    """An independent definition of the same networks: every level agrees, not only the logits."""

    @pytest.fixture(autouse=True)
    def _peer(self):
        self.torch = pytest.importorskip("torch")
        self.peers = pytest.importorskip("pytorchcv.models.drn")

    @pytest.mark.parametrize("name", ["drn_c_26", "drn_c_58", "drn_d_22", "drn_d_54"])
    def test_every_level_agrees_with_pytorchcv(self, golden, procedural, name):
        peer = getattr(self.peers, name.replace("_", ""))().eval()
        state = {
            key: procedural.tensor(key, tuple(value.shape))
            for key, value in peer.state_dict().items()
        }
        loaded = {key: self.torch.from_numpy(np.asarray(v)) for key, v in state.items()}
        peer.load_state_dict(loaded, strict=True)
        variables = convert.load(name, state)
        dumped = convert.dump(name, variables, "pytorchcv")
        peer.load_state_dict({k: self.torch.from_numpy(v) for k, v in dumped.items()}, strict=True)

        image = procedural.image("odd", (1, 3, 67, 93))
        model = models.create(name)
        _, features = jax.jit(model.apply)(variables, image.transpose(0, 2, 3, 1))
        x = peer.features.init_block(self.torch.from_numpy(image))
        theirs = [x]
        for stage in ("stage1", "stage2", "stage3", "stage4"):
            for unit in getattr(peer.features, stage).children():
                x = unit(x)
                theirs.append(x)
        ends = np.cumsum([stage.blocks for stage in model.stages]) - 1
        for stage, end in zip(model.stages, ends, strict=True):
            expected = theirs[end].detach().numpy().transpose(0, 2, 3, 1)
            scale = np.abs(expected).max()
            np.testing.assert_allclose(features[stage.name] / scale, expected / scale, atol=1e-5)

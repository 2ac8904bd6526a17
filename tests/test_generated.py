"""`python -m drn_jax.generated`: a folder of images and one of label maps in, scores out."""

import json
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from drn_jax import generated, runtime, trained
from drn_jax.data.labels.cityscapes import CITYSCAPES
from drn_jax.evaluation.results import computed_by
from drn_jax.evaluation.scores import confusion

SIZE, LABEL_SIZE = (24, 40), (48, 80)
FRAMES = ("aachen_000000_000019", "bremen_000000_000020")


@pytest.fixture(scope="module")
def place(tmp_path_factory, save_random):
    """`streets`, a network of Cityscapes' classes; `animals`, a classifier; `made`, images as
    pix2pixHD names them; `drawn`, their label maps."""
    place = tmp_path_factory.mktemp("generated")
    data = {"name": "list_folder", "crop": (64, 64)}
    streets = "drn_d_22", "segmentation", CITYSCAPES.names, data
    save_random(place / "streets", *streets)
    save_random(place / "broken", *streets, times=np.nan)
    save_random(place / "others", "drn_d_22", "segmentation", ("cat", "dog"), data)
    data = {"name": "class_folder", "crop": 64, "resize": 64}
    save_random(place / "animals", "drn_d_22", "classification", ("cat", "dog"), data)
    rng = np.random.default_rng(1)
    (place / "made").mkdir()
    for frame in FRAMES:
        city = place / "drawn" / frame.split("_")[0]
        city.mkdir(parents=True)
        image = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        name = f"{frame}_gtFine_labelIds_synthesized_image.png"
        Image.fromarray(image).save(place / "made" / name)
        label = rng.integers(0, 34, LABEL_SIZE, dtype=np.uint8)
        Image.fromarray(label).save(city / f"{frame}_gtFine_labelIds.png")
    return place


@pytest.fixture
def score(place, monkeypatch, capsys):
    """`score(*args)`: exit status, what was printed, and the error."""

    def score(*args, workdir="streets"):
        given = {"workdir": workdir, "images": "made", "labels_dir": "drawn"}
        flags = [f"--{name}={place / value}" for name, value in given.items()]
        monkeypatch.setattr(runtime, "keep_compiled", lambda: None)
        monkeypatch.setattr(sys, "argv", ["generated", *flags, *map(str, args)])
        try:
            generated.main()
            status = 0
        except SystemExit as stopped:
            status = stopped.code
        return status, *capsys.readouterr()

    return score


def answer(network, image):
    """The likeliest classes of a whole image: the plain network, no tiles."""
    x = network.preprocess(jnp.asarray(image)[None])
    logits, features = network.model.apply(network.variables, x)
    return np.asarray(network.task.predict(logits, features, image.shape[:2])["mask"])[0]


def test_scores_are_those_of_the_network_on_enlarged_images(place, score, tmp_path):
    status, printed, error = score("--labels=labelIds", f"--out={tmp_path}")
    assert (status, error) == (0, "")
    network = trained.load(str(place / "streets"))
    class_id = np.full(256, 255, np.uint8)
    for there, here in CITYSCAPES.ids():
        class_id[there] = here
    matrix = np.zeros((19, 19), np.int64)
    for frame in FRAMES:
        made = Image.open(place / f"made/{frame}_gtFine_labelIds_synthesized_image.png")
        image = np.array(made.resize(LABEL_SIZE[::-1], Image.Resampling.BICUBIC))
        (path,) = place.glob(f"drawn/*/{frame}*")
        truth = class_id[np.array(Image.open(path))]
        matrix += confusion(truth, answer(network, image), 19)
    found = json.loads((tmp_path / "results.json").read_text())
    counted = np.array(found["details"]["confusion"])
    np.testing.assert_array_equal(counted.sum(1), matrix.sum(1))
    # Where two classes are nearly as likely, rounding decides.
    assert abs(counted - matrix).sum() <= 0.002 * matrix.sum()
    assert np.count_nonzero(counted.sum(0)) > 1
    hits = np.diag(counted)
    union = counted.sum(0) + counted.sum(1) - hits
    assert found["scores"]["miou"] == pytest.approx((hits / union)[union > 0].mean())
    assert found["data"]["images"] == 2
    assert found["protocol"] == {
        "name": "generated images",
        "seen": "label",
        "resize": "bicubic",
        "scored": "label",
        "labels": "labelIds",
        "scales": [1.0],
        "flip": False,
        "combine": None,
        "image_ending": "",
        "label_ending": "",
        "partial": False,
        "left_out": {"images": 0, "label_maps": 0},
        "passed_over": {"images": 0, "label_maps": 0},
    }
    assert {name: found[name] for name in ("code", "versions", "device")} == computed_by()
    assert found["judge"]["sha256"] == network.digest
    assert [row["class"] for row in found["per_class"]] == list(CITYSCAPES.names)
    assert "2 images of 24x40, seen at 48x80, scored at 48x80" in printed
    assert "resized by bicubic; scales 1; label maps hold labelIds" in printed
    assert f"miou {found['scores']['miou']:.4f}" in printed


def test_every_choice_is_told(score, tmp_path):
    choices = ["--resolution=32x64", "--resize=lanczos", "--score_at=seen", "--scales=1,0.5"]
    status, printed, _ = score("--labels=labelIds", *choices, "--flip", f"--out={tmp_path}")
    assert status == 0
    assert "2 images of 24x40, seen at 32x64, scored at 32x64" in printed
    assert "resized by lanczos; scales 1, 0.5, flipped;" in printed
    protocol = json.loads((tmp_path / "results.json").read_text())["protocol"]
    assert (protocol["seen"], protocol["scales"], protocol["flip"]) == ("32x64", [1, 0.5], True)
    assert protocol["combine"] == "log_probabilities"


@pytest.mark.parametrize(
    ("flags", "workdir", "says"),
    [
        (["--labels=trainIds"], "streets", "is neither a class (0 to 18)"),
        (["--labels=ids"], "others", "is neither a class (0 to 1)"),
        (["--labels=labelIds"], "others", "the network's 2 classes (cat, dog, ...) are not"),
        (["--labels=labelIds"], "animals", "holds a classifier"),
        (["--labels=labelIds"], "nowhere", "no checkpoints in"),
        (["--labels=labelIds", "--resolution=64"], "streets", "--resolution=64: must be label"),
        (["--labels=labelIds", "--scales=big"], "streets", "--scales=big: must be numbers"),
        (["--labels=labelIds", "--images=none"], "streets", "none: no such folder"),
        (["--labels=labelIds", "--image_ending=_x.png"], "streets", "2 label maps of 2 no image"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(score, tmp_path, flags, workdir, says):
    status, _, error = score(*flags, f"--out={tmp_path / 'out'}", workdir=workdir)
    assert status == 1
    (line,) = error.splitlines()
    assert line.startswith("error: ")
    assert says in line
    assert not (tmp_path / "out").exists()


def test_an_image_without_an_answer_is_named(place, score, tmp_path):
    status, _, error = score("--labels=labelIds", f"--out={tmp_path / 'out'}", workdir="broken")
    assert status == 1
    (line,) = error.splitlines()
    name = f"{FRAMES[0]}_gtFine_labelIds_synthesized_image.png"
    assert f"{place / 'made' / name}: the network's answer is not a number" in line
    assert not (tmp_path / "out").exists()


def test_a_damaged_image_is_named(place, score, tmp_path):
    made = tmp_path / "made"
    made.mkdir()
    for frame in FRAMES:
        (made / f"{frame}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    status, _, error = score("--labels=labelIds", f"--out={tmp_path / 'out'}", f"--images={made}")
    assert status == 1
    assert f"{made / FRAMES[0]}.png: " in error
    assert not (tmp_path / "out").exists()

"""One crop gives training's validation scores; ten are torchvision's, and averaged as said."""

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from jax.sharding import Mesh

from drn_jax import program
from drn_jax.config import parse
from drn_jax.data.dataset import Dataset
from drn_jax.data.transforms import CentreCrop, ResizeShorterSide
from drn_jax.errors import UserError
from drn_jax.evaluation.crops import Crops, averaged, cropped, evaluate, ten_crops
from drn_jax.experiment import Experiment
from drn_jax.models.inputs import Preprocess
from drn_jax.models.network import Network
from drn_jax.models.stages import Stage
from drn_jax.tasks import Classification
from drn_jax.training import sharding

CLASSES = 6
STAGES = (
    Stage("stem", "conv", 6, kernel=3, stride=2),
    Stage("level1", "basic", 8, stride=2, dilation=2),
)


@dataclass(frozen=True)
class Listed:
    """Examples in memory."""

    examples: tuple

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index):
        return dict(self.examples[index])

    def where(self, index):
        return f"example {index}"


def photographs(seed, count):
    """Of various sizes, with labels."""
    rng = np.random.default_rng(seed)
    return Listed(
        tuple(
            {
                "image": rng.integers(0, 256, (*rng.integers(20, 40, 2), 3), dtype=np.uint8),
                "label": np.array(rng.integers(CLASSES), np.int32),
            }
            for _ in range(count)
        )
    )


@pytest.fixture(scope="module")
def run():
    """A classification of 19 validation images; crops of 16 from images of 18."""
    settings = parse(
        {
            "name": "tiny",
            "task": "classification",
            "model": {"name": "drn_d_22"},
            "data": {"name": "imagenet", "dir": "", "crop": 16, "resize": 18},
            "batch_size": 8,
            "epochs": 1,
            "optimizer": {"learning_rate": 0.1},
            "schedule": {"kind": "poly"},
        }
    )
    mean, std = (0.5, 0.4, 0.6), (0.2, 0.3, 0.25)
    names = tuple("abcdef")
    dataset = Dataset("photographs", names, photographs(0, 8), photographs(1, 19), mean, std)
    return Experiment(
        config=settings,
        dataset=dataset,
        task=Classification(CLASSES),
        model=Network(STAGES, num_classes=CLASSES),
        augment=lambda example, rng: example,
        preprocess=Preprocess(mean, std),
        stride=4,
        crop=(16, 16),
        input_shape=(16, 16, 3),
        keys=("image", "label"),
        pictures=dataset.validation,
    )


@pytest.fixture(scope="module")
def variables(run):
    """Random, and such that the classes differ."""
    found = jax.jit(run.model.init)(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    found["params"]["head"]["kernel"] *= 20
    return found


@pytest.fixture(scope="module")
def mesh():
    return sharding.make_mesh()


def mirror(image):
    return image[:, ::-1]


def test_ten_crops_are_those_of_torchvision():
    """Written from its documentation and `center_crop`'s rounding, corner by corner."""
    rng = np.random.default_rng(0)
    for height, width, size in ((9, 14, 6), (12, 7, 7), (8, 8, 8), (11, 10, 4), (9, 13, 4)):
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        top, left = round((height - size) / 2.0), round((width - size) / 2.0)
        expected = [
            five
            for view in (image, mirror(image))
            for five in (
                view[:size, :size],
                view[:size, width - size :],
                view[height - size :, :size],
                view[height - size :, width - size :],
                view[top : top + size, left : left + size],
            )
        ]
        np.testing.assert_array_equal(ten_crops(image, size), expected)
        np.testing.assert_array_equal(
            ten_crops(image, size)[4], CentreCrop(size)({"image": image})["image"]
        )


def test_images_smaller_than_a_crop_are_refused():
    with pytest.raises(UserError, match="an image of 5x9 has no crops of 6x6"):
        ten_crops(np.zeros((5, 9, 3), np.uint8), 6)


@pytest.mark.parametrize("count", [1, 10])
@pytest.mark.parametrize("size", [(31, 20), (20, 33), (18, 18)])
def test_the_geometry_says_where_each_crop_was_cut(count, size):
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    crops = Crops(resize=18, crop=15, count=count)
    resized, views, places = cropped(image, crops)
    np.testing.assert_array_equal(resized, ResizeShorterSide(18)({"image": image})["image"])
    assert views.shape == (count, 15, 15, 3)
    for k, view in enumerate(views):
        top, left = places.offset[k].astype(int)
        source = mirror(resized) if places.mirrored[k] else resized
        np.testing.assert_array_equal(view, source[top : top + 15, left : left + 15])
        assert places.size[k].tolist() == [15, 15]
        assert tuple(places.resized[k]) == resized.shape[:2]
        assert tuple(places.original[k]) == size
    assert places.mirrored.tolist() == [False] * min(count, 5) + [True] * (count - 5) * (count > 1)
    np.testing.assert_array_equal(views[crops.centre], CentreCrop(15)({"image": resized})["image"])


def test_the_average_is_the_mean_of_probabilities_or_of_logits():
    rng = np.random.default_rng(2)
    logits = rng.normal(0, 10, (50, 10, 7)).astype(np.float32)
    log_p = scipy.special.log_softmax(logits.astype(np.float64), axis=-1)
    mean = np.log(np.exp(log_p).mean(1))
    np.testing.assert_allclose(averaged(jnp.asarray(logits), "softmax"), mean, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        averaged(jnp.asarray(logits), "logits"), logits.mean(1), rtol=1e-4, atol=1e-4
    )
    # The two disagree, else this test would tell nothing.
    assert (mean.argmax(1) != logits.mean(1).argmax(1)).any()
    for kind in ("softmax", "logits"):
        np.testing.assert_array_equal(averaged(jnp.asarray(logits[:, :1]), kind), logits[:, 0])


def test_one_crop_has_the_scores_of_training(run, variables, mesh):
    expected = program.validator(run, mesh)(variables)
    found = evaluate(run, variables, mesh, Crops(18, 16))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if name == "loss":
            np.testing.assert_allclose(found[name], value, rtol=1e-6)
        else:
            np.testing.assert_array_equal(found[name], value)
    assert found["count"] == 19


@pytest.mark.parametrize("average", ["softmax", "logits"])
def test_ten_crops_score_as_image_by_image(run, variables, mesh, average):
    source = photographs(3, 11)
    found = evaluate(run, variables, mesh, Crops(20, 16, 10, average), source)
    apply = jax.jit(lambda images: run.model.apply(variables, images)[0])
    loss, top1, top5 = 0.0, 0, 0
    for example in source.examples:
        resized = ResizeShorterSide(20)({"image": example["image"]})["image"]
        views = ten_crops(resized, 16)
        inputs = (views / 255 - np.array(run.preprocess.mean)) / np.array(run.preprocess.std)
        logits = np.asarray(apply(inputs.astype(np.float32)), np.float64)
        if average == "softmax":
            p = scipy.special.softmax(logits, axis=-1).mean(0)
        else:
            p = scipy.special.softmax(logits.mean(0))
        label = int(example["label"])
        loss -= np.log(p[label])
        order = list(np.argsort(-p))
        top1 += order[0] == label
        top5 += label in order[:5]
    assert found["count"] == 11
    assert (found["class_top1"].sum(), found["top5"]) == (top1, top5)
    np.testing.assert_allclose(found["loss"], loss, rtol=1e-4)


def test_no_score_depends_on_the_devices_or_the_size_of_batches(run, variables, mesh):
    one = Mesh(mesh.devices[:1], mesh.axis_names)
    rows = sharding.make_mesh(sharding.MeshShape(data=2, fsdp=2, spatial=2))
    settings = dataclasses.replace(run.config, eval_batch_size=30)
    larger = dataclasses.replace(run, config=settings)
    crops = Crops(18, 16, 10)
    expected = evaluate(run, variables, mesh, crops)
    for found in (evaluate(larger, variables, one, crops), evaluate(run, variables, rows, crops)):
        np.testing.assert_allclose(found.pop("loss"), expected["loss"], rtol=1e-5)
        for name, value in found.items():
            np.testing.assert_array_equal(value, expected[name])
        assert found["count"] == 19


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"resize": 200}, "crop = 224 is larger than the resized image"),
        ({"count": 5}, "count = 5 must be 1 or 10"),
        ({"average": "mean"}, "average = 'mean' must be softmax or logits"),
        ({"crop": 0}, "crop = 0 pixels"),
    ],
)
def test_crops_that_cannot_be_are_told(run, variables, mesh, settings, says):
    with pytest.raises(UserError, match=says) as caught:
        evaluate(run, variables, mesh, Crops(**settings))
    assert "\n" not in str(caught.value)


def test_a_run_that_is_no_classification_is_refused(run, variables, mesh):
    other = dataclasses.asdict(run.config) | {
        "task": "segmentation",
        "data": {"name": "list_folder", "crop": (16, 16)},
    }
    segmentation = dataclasses.replace(run, config=parse(other))
    with pytest.raises(UserError, match="task = segmentation: crops are for classification"):
        evaluate(segmentation, variables, mesh, Crops())

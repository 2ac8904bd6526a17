"""Our networks are the published ones: forward, gradient and training step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from drn_jax import models
from drn_jax.convert import torch as convert
from drn_jax.models import convolution
from drn_jax.tasks import Classification
from drn_jax.tasks.upsampling import upsample
from drn_jax.training import optim

BASIC = ("resnet_18", "drn_a_18", "drn_b_26", "drn_c_26", "drn_d_22")
BOTTLENECK = ("resnet_50", "drn_a_50", "drn_d_54")


def create(name, **options):
    """The network with the options that make it the published code's."""
    if name.startswith("drn_a"):
        options["variant"] = "published_code"
    return models.create(name, **options)


def nhwc(array):
    return array.transpose(0, 2, 3, 1)


def relative(ours, theirs):
    """The largest difference, relative to the largest value."""
    return float(np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max())


@pytest.mark.parametrize("name", BASIC + BOTTLENECK)
def test_parameter_count_and_every_state_name_and_shape_are_the_published(golden, name):
    published = golden(name)
    variables = convert.load(name, published.state)
    assert (
        sum(a.size for a in jax.tree.leaves(variables["params"])) == (published.facts["parameters"])
    )
    dumped = convert.dump(name, variables)
    assert {key: a.shape for key, a in dumped.items()} == {
        key: a.shape for key, a in published.state.items()
    }
    assert list(dumped) == list(published.state)


@pytest.mark.parametrize("name", BASIC + BOTTLENECK)
def test_logits_and_dense_class_map_are_the_published(golden, procedural, name):
    published = golden(name)
    variables = convert.load(name, published.state)
    model = create(name)

    @jax.jit
    def evaluate(square, odd):
        return model.apply(variables, square)[0], model.apply(variables, odd)[1]["logits_2d"]

    square = nhwc(procedural.image("square", (4, 3, 64, 64)))
    odd = nhwc(procedural.image("odd", (1, 3, 67, 93)))
    logits, map_odd = evaluate(square, odd)
    assert relative(logits, published.figures["logits"]) < 1e-5
    assert relative(map_odd[..., :8], nhwc(published.figures["map_odd"])) < 1e-5


@pytest.mark.parametrize(("name", "others"), [("drn_a_18", 2), ("drn_d_22", 5)])
def test_logits_are_the_published_where_winograd_computes_all_that_it_can(
    golden, procedural, name, others, monkeypatch
):
    """Images of 64x64 are so small that "auto" would leave most layers to XLA's convolution. Now
    it has the `others` alone: 7x7 or strided, or of fewer than 64 channels."""
    monkeypatch.setattr(convolution, "WINOGRAD_CELLS", 1)
    monkeypatch.setattr(convolution, "WINOGRAD_SHARE", float("inf"))
    published = golden(name)
    square = nhwc(procedural.image("square", (4, 3, 64, 64)))
    apply = jax.jit(create(name).apply)
    variables = convert.load(name, published.state)
    traced = apply.lower(variables, square).as_text("hlo")
    assert traced.count(" convolution(") == others
    logits, _ = apply(variables, square)
    assert relative(logits, published.figures["logits"]) < 1e-5


def test_segmentation_checkpoint_gives_the_published_scores_and_upsampling(golden, procedural):
    published = golden("drn_d_22_seg")
    state = {**published.state, "up.weight": convert.bilinear(19)}
    variables = convert.load("drn_d_22", state)
    model = models.create("drn_d_22", num_classes=convert.num_classes(variables))
    image = nhwc(procedural.image("segment", (1, 3, 96, 160)))
    _, features = jax.jit(model.apply)(variables, image)
    scores = features["logits_2d"]
    assert relative(scores, nhwc(published.figures["seg"])) < 1e-5
    log_softmax = jax.nn.log_softmax(upsample(scores, 8, border="zero"))[:, ::3, ::3]
    assert relative(log_softmax, nhwc(published.figures["log_softmax"])) < 1e-5


class Training:
    """A published network, its four images and labels, and the loss that it is trained by."""

    def __init__(self, golden, procedural, name, dtype):
        self.published = golden(name)
        self.model = create(name, running_variance="unbiased", dtype=dtype)
        self.images = nhwc(procedural.image("square", (4, 3, 64, 64)))
        self.label = procedural.labels("square", (4,), 1000).astype(np.int32)
        self.variables = convert.load(name, self.published.state)

    def loss(self, params, batch_stats):
        """Of the batch, and the statistics after it."""
        (logits, features), updated = self.model.apply(
            {"params": params, "batch_stats": batch_stats},
            self.images,
            train=True,
            mutable=["batch_stats"],
        )
        loss, _ = Classification(1000).loss(logits, features, {"label": self.label})
        return loss, updated["batch_stats"]

    def three_steps(self):
        """Losses, the first gradient, and the variables after three of PyTorch's SGD steps."""
        optimizer = optim.sgd(lambda step: 0.01, momentum=0.9, weight_decay=1e-4)

        @jax.jit
        def step(params, batch_stats, opt_state):
            (value, stats), gradient = jax.value_and_grad(self.loss, has_aux=True)(
                params, batch_stats
            )
            updates, opt_state = optimizer.update(gradient, opt_state, params)
            return optax.apply_updates(params, updates), stats, opt_state, value, gradient

        params, batch_stats = self.variables["params"], self.variables["batch_stats"]
        opt_state, losses, gradients = optimizer.init(params), [], []
        for _ in range(3):
            params, batch_stats, opt_state, value, gradient = step(params, batch_stats, opt_state)
            losses.append(float(value))
            gradients.append(gradient)
        return losses, gradients[0], {"params": params, "batch_stats": batch_stats}


def norm_errors(name, variables, published_norms):
    """Relative error of the norm of every array that the published figures name."""
    arrays = convert.dump(name, variables)
    return {
        key: abs(np.linalg.norm(arrays[key].astype(np.float64)) - norm) / max(norm, 1e-9)
        for key, norm in published_norms.items()
        if not key.endswith(convert.TRACKED)
    }


@pytest.mark.parametrize("name", BASIC)
def test_gradient_and_three_training_steps_are_the_published_computed_in_float64(
    golden, procedural, name
):
    """In float32 one ReLU of a million may fall on the other side of 0 by rounding alone and move a
    gradient norm by 1e-3; so what must agree is compared without that noise on our side."""
    with jax.enable_x64(True):
        training = Training(golden, procedural, name, jnp.float64)
        losses, gradient, after = training.three_steps()
        logits = jax.jit(training.model.apply)(after, training.images)[0]
    published = training.published
    np.testing.assert_allclose(losses, published.facts["train_losses"], rtol=1e-4)
    with_gradient = {"params": gradient, "batch_stats": after["batch_stats"]}
    assert max(norm_errors(name, with_gradient, published.facts["grad_norms"]).values()) < 1e-4
    norms = published.facts["norms_after_training"]
    assert max(norm_errors(name, after, norms).values()) < 1e-3
    assert relative(logits, published.figures["logits_after_training"]) < 1e-3


@pytest.mark.parametrize("name", ["resnet_18", "drn_a_18"])
def test_three_training_losses_in_float32_are_the_published(golden, procedural, name):
    """Where rounding does not decide on a ReLU at 0; for the others see docs/parity.md."""
    training = Training(golden, procedural, name, jnp.float32)
    losses, *_ = training.three_steps()
    np.testing.assert_allclose(losses, training.published.facts["train_losses"], rtol=1e-4)


def test_first_loss_of_a_bottleneck_network_is_the_published(golden, procedural):
    """Later ones wander in float32: batch norm over four 2x2 maps (goldens, README)."""
    training = Training(golden, procedural, "resnet_50", jnp.float32)
    loss, _ = jax.jit(training.loss)(*map(training.variables.get, ("params", "batch_stats")))
    assert loss == pytest.approx(training.published.facts["train_losses"][0], rel=1e-5)

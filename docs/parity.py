"""Print the figures of docs/parity.md: `python docs/parity.py [--x64] [--convolution METHOD]
[--small] NAME ...`.

Relative errors against `tests/goldens`: logits and class map in evaluation mode (float32), then the
largest of three training losses and of all gradient norms at the first step; for the nets of Caffe
the maps of front end and context module.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax

GOLDENS = Path(__file__).parent.parent / "tests" / "goldens"
sys.path.insert(0, str(GOLDENS))

import procedural  # noqa: E402

from drn_jax import models  # noqa: E402
from drn_jax.convert import caffe  # noqa: E402
from drn_jax.convert import torch as convert  # noqa: E402
from drn_jax.models import convolution  # noqa: E402
from drn_jax.models.convolution import Method  # noqa: E402
from drn_jax.tasks import Classification  # noqa: E402
from drn_jax.training import optim  # noqa: E402


def measure(name: str, x64: bool, method: Method) -> tuple[float, float, float, float]:
    """Errors of logits, class map, losses and gradient norms."""
    facts = json.loads((GOLDENS / f"{name}.json").read_text())
    figures = np.load(GOLDENS / f"{name}.npz")
    state = {k: procedural.tensor(k, tuple(shape)) for k, shape in facts["state"].items()}
    variables = convert.load(name, state)
    options: dict[str, Any] = {"convolution": method}
    if name.startswith("drn_a"):
        options["variant"] = "published_code"
    square, odd = (
        procedural.image(kind, shape).transpose(0, 2, 3, 1)
        for kind, shape in (("square", (4, 3, 64, 64)), ("odd", (1, 3, 67, 93)))
    )
    apply = jax.jit(models.create(name, **options).apply)
    logits, dense = apply(variables, square)[0], apply(variables, odd)[1]["logits_2d"]
    published_map = figures["map_odd"].transpose(0, 2, 3, 1)

    model = models.create(
        name,
        dtype=jnp.float64 if x64 else jnp.float32,
        running_variance="unbiased",
        **options,
    )
    label = procedural.labels("square", (4,), 1000).astype(np.int32)
    optimizer = optim.sgd(lambda step: 0.01, momentum=0.9, weight_decay=1e-4)

    @jax.jit
    def step(params, stats, opt_state):
        def loss(params):
            (out, features), new = model.apply(
                {"params": params, "batch_stats": stats}, square, train=True, mutable="batch_stats"
            )
            mean, _ = Classification(1000).loss(out, features, {"label": label})
            return mean, new["batch_stats"]

        (value, new), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), new, opt_state, value, gradient

    carry = (variables["params"], variables["batch_stats"], optimizer.init(variables["params"]))
    losses, first = [], None
    for _ in range(3):
        *carry, value, gradient = step(*carry)
        losses.append(float(value))
        first = gradient if first is None else first
    arrays = convert.dump(name, {"params": first, "batch_stats": carry[1]})
    norms = [
        abs(np.linalg.norm(arrays[key].astype(np.float64)) / norm - 1)
        for key, norm in facts["grad_norms"].items()
    ]
    return (
        _relative(logits, figures["logits"]),
        _relative(dense[..., :8], published_map),
        float(np.abs(np.array(losses) / facts["train_losses"] - 1).max()),
        float(max(norms)),
    )


def measure_caffe(name: str, method: Method) -> tuple[float, ...]:
    """Errors of the class maps: `final`, where the net has a front end, and `ctx_final`."""
    facts = json.loads((GOLDENS / f"{name}.json").read_text())
    figures = np.load(GOLDENS / f"{name}.npz")
    state = {k: procedural.tensor(k, tuple(shape)) for k, shape in facts["state"].items()}
    variables = caffe.load(name, state)
    inputs = procedural.image(f"caffe/{name}", tuple(facts["input"])) * facts["input_scale"]
    apply = jax.jit(models.create(name, convolution=method).apply)
    _, features = apply(variables, inputs.transpose(0, 2, 3, 1))
    maps = {"final": features["front_end"], "ctx_final": features["context"]}
    return tuple(
        _relative(maps[layer], figures[layer].transpose(0, 2, 3, 1))
        for layer in maps
        if layer in figures
    )


def _relative(ours: jax.Array, theirs: np.ndarray) -> float:
    return float(np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+")
    parser.add_argument("--x64", action="store_true", help="train in float64")
    parser.add_argument(
        "--convolution",
        default="native",
        choices=get_args(convolution.Method),
        help="by which programs, see models.convolution.choose",
    )
    parser.add_argument(
        "--small",
        action="store_true",
        help="by Winograd's even where a map or its tiles are too small to gain",
    )
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", arguments.x64)
    if arguments.small:
        convolution.WINOGRAD_CELLS, convolution.WINOGRAD_SHARE = 1, float("inf")
    print("network, logits, class map, losses, gradient norms; or front end, context")
    for name in arguments.names:
        method = arguments.convolution
        if name in caffe.CAFFE:
            found = measure_caffe(name, method)
        else:
            found = measure(name, arguments.x64, method)
        print(name, *(f"{error:.1e}" for error in found), flush=True)

"""The worker that measures drn_jax: see `workers`.

    python benchmarks/ours.py [FOLDER [train]]

FOLDER keeps compiled programs (`runtime.keep_compiled`); without it, or "off", none are kept.
"train": freed memory is kept (`runtime.keep_memory`).
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from cases import Case
from workers import Work, integers, noise, serve, spread_over

from drn_jax import runtime
from drn_jax.config import ConstantSchedule, Optimizer
from drn_jax.models.convolution import Method, dilated_conv
from drn_jax.training import optim, state, steps

RATE = 1e-4
"""Learning rate: so small that no network diverges on noise."""


def product(dtype: str, side: int) -> Work:
    """A matrix product of `side` x `side`."""
    set_precision(dtype)
    a, b = (jnp.asarray(noise((side, side), seed), storage(dtype)) for seed in (0, 1))
    times = jax.jit(jnp.matmul)
    return Work(lambda: times(a, b))


def copy(dtype: str, count: int) -> Work:
    """`count` numbers read and, with the other sign, written elsewhere."""
    source, target = (jnp.full((count,), value, storage(dtype)) for value in (1, 0))
    # Into memory that is there already, as the peer does.
    negative = jax.jit(lambda x, y: -x, donate_argnums=1, keep_unused=True)

    def call() -> jax.Array:
        nonlocal target
        target = negative(source, target)
        return target

    return Work(call)


def convolution(
    derivative: str, dtype: str, batch: int, shape: dict[str, int], method: Method
) -> Work:
    """One layer: `derivative` "forward", or the gradient by "input" or "kernel"."""
    set_precision(dtype)
    height, width, size = shape["height"], shape["width"], shape["kernel"]
    x = jnp.asarray(noise((batch, height, width, shape["inputs"]), 0), storage(dtype))
    kernel = jnp.asarray(noise((size, size, shape["inputs"], shape["outputs"]), 1), storage(dtype))
    geometry = {name: shape[name] for name in ("stride", "dilation", "padding")}
    conv = partial(dilated_conv, **geometry, method=method)
    result = jax.eval_shape(conv, x, kernel)
    g = jnp.asarray(noise(result.shape, 2), storage(dtype))
    functions: dict[str, Callable[..., jax.Array]] = {
        "forward": lambda x, kernel, g: conv(x, kernel),
        "input": lambda x, kernel, g: jax.vjp(lambda x: conv(x, kernel), x)[1](g)[0],
        "kernel": lambda x, kernel, g: jax.vjp(lambda kernel: conv(x, kernel), kernel)[1](g)[0],
    }
    compiled, seconds = compile_timed(jax.jit(functions[derivative]), x, kernel, g)
    return Work(lambda: compiled(x, kernel, g), some, {"compile_seconds": seconds})


def train(**fields: Any) -> Work:
    """A train step of a `Case`, as train.py makes it."""
    case = Case(**fields)
    set_precision(case.dtype)
    settings, schedule = Optimizer(learning_rate=RATE), ConstantSchedule("constant")
    rate = optim.learning_rate(settings, schedule, steps=1, steps_per_epoch=1)
    optimizer = optim.create(settings, rate)
    held = fresh(case, partial(state.init, case.model, optimizer))
    batch = batch_of(case)
    step = jax.jit(
        steps.make_train_step(case.model, case.goal, optimizer, prepared(case)), donate_argnums=0
    )
    compiled, seconds = compile_timed(step, held, batch)

    def call() -> dict[str, jax.Array]:
        nonlocal held
        held, metrics = compiled(held, batch)
        return metrics

    facts = {"compile_seconds": seconds, "parameters": count(held.params)}
    return Work(call, lambda metrics: float(metrics["loss"]), facts)


def inference(**fields: Any) -> Work:
    """A `Case` applied: from uint8 images to scores of classes, or to the class of every pixel."""
    case = Case(**fields)
    set_precision(case.dtype)
    variables = fresh(
        case, lambda key, shape: case.model.init(key, jnp.zeros((1, *shape), jnp.float32))
    )
    batch = batch_of(case)

    def apply(variables: Any, batch: dict[str, jax.Array]) -> jax.Array:
        outputs: Any = case.model.apply(variables, prepared(case)(batch), train=False)
        logits, features = outputs
        if not case.segments:
            return logits
        return case.goal.predict(logits, features, (case.size, case.size))["mask"]

    compiled, seconds = compile_timed(jax.jit(apply), variables, batch)
    facts = {"compile_seconds": seconds, "parameters": count(variables["params"])}
    return Work(lambda: compiled(variables, batch), facts=facts)


def prepared(case: Case) -> steps.Prepare:
    return lambda batch: case.preprocess(batch["image"], surrounded=True)


def fresh(case: Case, init: Callable[..., Any]) -> Any:
    """What `init(key, input shape)` draws."""
    shape = (case.side, case.side, 3)
    # As program.initialiser: on CPU optimised code for drawing numbers once is not worth its time.
    cheap = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    drawn = jax.jit(lambda key: init(key, shape), compiler_options=cheap)
    # Finished before anything is timed.
    return jax.block_until_ready(drawn(jax.random.key(0, impl="unsafe_rbg")))


def batch_of(case: Case) -> dict[str, jax.Array]:
    """Noise and its labels."""
    shape, classes = (case.batch, case.side, case.side, 3), case.model.num_classes
    image = jnp.asarray(integers(shape, 256, "uint8", 0))
    if case.segments:
        mask = integers((case.batch, case.size, case.size), classes, "uint8", 1)
        return {"image": image, "mask": jnp.asarray(mask)}
    return {"image": image, "label": jnp.asarray(integers((case.batch,), classes, "int32", 1))}


def compile_timed(function: Any, *arguments: Any) -> tuple[Any, float]:
    """A jitted function compiled for these arguments, and the seconds that tracing and compiling
    took."""
    start = time.perf_counter()
    compiled = function.lower(*arguments).compile()
    return compiled, time.perf_counter() - start


def count(params: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def some(result: jax.Array) -> list[float]:
    """Numbers from all over a map [N, H, W, C] or a kernel [K, K, C, O], by which libraries are
    compared."""
    flat = np.asarray(result.astype(jnp.float32)).ravel()
    return flat[spread_over(flat.size)].tolist()


def storage(dtype: str) -> Any:
    return jnp.bfloat16 if dtype == "bfloat16" else jnp.float32


def set_precision(dtype: str) -> None:
    """A GPU may take TF32 for float32, and does unless told otherwise."""
    if jax.default_backend() == "gpu":
        precision = {"float32": "highest", "tf32": "tensorfloat32", "bfloat16": "default"}[dtype]
        jax.config.update("jax_default_matmul_precision", precision)


def device_peak() -> int | None:
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("peak_bytes_in_use")


if __name__ == "__main__":
    if sys.argv[2:] == ["train"]:
        runtime.keep_memory()  # As train.py does.
    runtime.keep_compiled(sys.argv[1] if len(sys.argv) > 1 else "off")
    serve(
        {
            "product": product,
            "copy": copy,
            "convolution": convolution,
            "train": train,
            "inference": inference,
        },
        jax.block_until_ready,
        lambda: (jax.devices()[0].device_kind, jax.default_backend()),
        device_peak,
    )

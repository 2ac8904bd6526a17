"""Prints the peak memory of a stage of configs/dilation.py, on noise.

python docs/memory.py camvid joint           two steps
python docs/memory.py camvid front_end
python docs/memory.py camvid maps            the front end on one whole image
"""

import sys
import time
from pathlib import Path

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from configs import dilation
from drn_jax import config, models, staged
from drn_jax.models.stages import output_stride
from drn_jax.tasks import Segmentation
from drn_jax.training import memory, optim, state, steps

CLASSES = {"pascal_voc": 21, "camvid": 11, "kitti": 11, "cityscapes": 19}
IMAGES = {
    "pascal_voc": (500, 500),
    "camvid": (480, 640),
    "kitti": (370, 1226),
    "cityscapes": (1024, 2048),
}
"""(height, width) of whole images."""


def maps(variant: str) -> None:
    """One front-end map of a whole image."""
    model = models.create("vgg_16_front_end", CLASSES[variant])
    preprocess = models.preprocessing("vgg_16_front_end")
    image = np.random.default_rng(0).integers(0, 256, (1, *IMAGES[variant], 3), np.uint8)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), preprocess(image)))
    variables = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), shapes)
    start = time.monotonic()
    found = jax.jit(lambda v, x: model.apply(v, preprocess(x))[1]["logits_2d"])(variables, image)
    print(f"{variant}, map {jax.block_until_ready(found).shape}: {time.monotonic() - start:.0f} s")


def train(variant: str, stage: str) -> None:
    """Two training steps."""
    settings = staged.parse(dilation.get_config(variant)).stages[stage]
    assert isinstance(settings.data, config.SegmentationData)
    name, context = settings.model.name, settings.model.context
    model = models.create(name, CLASSES[variant], context=context if context.layers else None)
    preprocess = models.preprocessing(name)
    optimizer = optim.create(settings.optimizer, lambda _: settings.optimizer.learning_rate)
    stride = output_stride(model.stages)
    train_step = jax.jit(
        steps.make_train_step(
            model,
            Segmentation(CLASSES[variant], stride, settings.data.grid),
            optimizer,
            lambda batch: preprocess(batch["image"], surrounded=True),
        ),
        donate_argnums=0,
    )
    height, width = settings.data.crop
    rng = np.random.default_rng(0)
    size = (settings.batch_size, height + 2 * preprocess.margin, width + 2 * preprocess.margin, 3)
    batch = {
        "image": rng.integers(0, 256, size, np.uint8),
        "mask": rng.integers(0, CLASSES[variant], (settings.batch_size, height, width), np.uint8),
    }
    carried = jax.jit(lambda key: state.init(model, optimizer, key, size[1:]))(jax.random.key(0))
    for _ in range(2):
        start = time.monotonic()
        carried, metrics = train_step(carried, batch)
        jax.block_until_ready(metrics)
        print(f"{variant}, {stage}, input {size}: {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    variant, stage = sys.argv[1:]
    if stage == "maps":
        maps(variant)
    else:
        train(variant, stage)
    print(memory.peak())

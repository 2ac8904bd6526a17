"""Runs two training steps of a stage of configs/dilation.py on noise, and prints their peak memory.

python docs/memory.py camvid joint
python docs/memory.py camvid front_end
"""

import sys
import time
from pathlib import Path

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from configs import dilation
from drn_jax import config, models
from drn_jax.models.stages import output_stride
from drn_jax.tasks import Segmentation
from drn_jax.training import memory, optim, state, steps

CLASSES = {"pascal_voc": 21, "camvid": 11, "kitti": 11, "cityscapes": 19}


def main(variant: str, stage: str) -> None:
    settings = config.parse_stages(dilation.get_config(variant)).stages[stage]
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
    print(memory.peak())


if __name__ == "__main__":
    main(*sys.argv[1:])

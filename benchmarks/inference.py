"""Inference: images a second of our networks beside the same in PyTorch.

    python benchmarks/inference.py [--network NAME ...] [--task segmentation] [--size PIXELS]
        [--batch N] [--width W] [--dtype bfloat16] [--convolution METHOD ...]
        [--peer eager|compile|both|none] [--rounds N] [--seconds S] [--json FILE]

From a uint8 batch on the device to the scores of its classes; with `--task segmentation` to the
class of every pixel. Ours is `model.apply`, jitted. How both sides are built and measured:
train_step.py. The share of the ceiling counts one pass.
"""

import measure
import networks


def main() -> None:
    networks.compare("inference", networks.parsed(__doc__))


if __name__ == "__main__":
    measure.run(main)

"""Training: images a second of our train step beside the same network in PyTorch.

    python benchmarks/train_step.py [--network NAME ...] [--task segmentation] [--size PIXELS]
        [--batch N] [--width W] [--dtype bfloat16] [--convolution METHOD ...]
        [--peer eager|compile|both|none] [--rounds N] [--seconds S] [--json FILE]

A step goes from a uint8 batch on the device to new parameters: loss, gradient, momentum and weight
decay. Ours is `steps.make_train_step`, jitted, its state donated. The peer is built from our stage
table as torch.nn modules, channels last, bfloat16 by autocast, fused SGD. The images are noise. For
segmentation the loss is taken at every pixel behind bilinear upsampling.

Each side has a process of its own; they compute in turn, round by round, and a ratio is that of one
round. The share of the ceiling counts three passes of two operations a multiply-add of the
definition, over the faster library's product of large matrices. Peak memory is the device's, on CPU
that of the whole process. Compilation is ours from tracing to the program; that of torch.compile is
its first call less a usual one; eager PyTorch has none.
"""

import measure
import networks


def main() -> None:
    networks.compare("train", networks.parsed(__doc__))


if __name__ == "__main__":
    measure.run(main)

"""Dilated Residual Networks and Multi-Scale Context Aggregation by Dilated Convolutions, in JAX.

`models`    the networks, built from stage tables
`analysis`  what follows from the stage tables alone: cost, receptive fields
`convert`   published weights in and out
`tasks`     losses and exact scores of classification and segmentation
`data`      sources of examples, augmentation, and batches as a function of (seed, step)
`training`  optimiser, state, steps, sharding, checkpoints
`report`    what a run shows: curves, tables, pictures
"""

__version__ = "0.1.0"

"""What a network is trained for: loss, exact sums over a batch, scores from the summed sums.

A task is a frozen dataclass with
  `loss(logits, features, batch) -> (mean, count)`, scalars: over the batch's valid entries
    (examples, pixels or cells), and how many those are, int32, by which the means of micro-batches
    weigh;
  `sums(logits, features, batch) -> dict of arrays`, which add up over batches and hosts;
  `scores(sums) -> dict of floats`, from those totals, on the host;
  `predict(logits, features, size) -> dict of arrays`, what people look at;
  `primary`, the score by which checkpoints are compared.
`batch["valid"]`, bool [N], marks the examples that count; without it all do.
"""

from drn_jax.tasks.classification import Classification
from drn_jax.tasks.segmentation import Segmentation

Task = Classification | Segmentation

__all__ = ["Classification", "Segmentation", "Task"]

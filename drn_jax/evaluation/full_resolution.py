"""Segmentation judged image by image, whole and at full resolution, on the host: any number of
scales, tiles, boundaries; every mask can be handed on as it is made."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from drn_jax.data.dataset import Example, Source
from drn_jax.errors import UserError
from drn_jax.evaluation import scores
from drn_jax.evaluation.boundary import BoundaryF

Totals = dict[str, np.ndarray]
MaskOf = Callable[[np.ndarray], np.ndarray]
"""From an image, uint8 [H, W, 3], to the class of every pixel, integers [H, W]."""

_AHEAD = 2
"""Images that are read while one is computed."""


def evaluate(
    source: Source,
    mask_of: MaskOf,
    classes: int,
    boundary: BoundaryF | None = None,
    each: Callable[[int, np.ndarray], None] = lambda index, mask: None,
    shown: Callable[[Iterator[Example], int], Iterator[Example]] = lambda items, total: items,
) -> Totals:
    """Sums over all examples of a source: `confusion`, int64 [truth, prediction]; with `boundary`
    also `boundary_*`, its sums.

    Args:
      each: called with every example's number and its mask.
      shown: passes the examples on, with a bar.

    Raises: UserError naming an example that can't be read, has another size than its mask, or no
      answer.
    """
    totals: Totals = {"confusion": np.zeros((classes, classes), np.int64)}
    for index, example in enumerate(shown(_examples(source), len(source))):
        try:
            mask, truth = mask_of(example["image"]), example["mask"]
        except UserError as error:
            raise UserError(f"{source.where(index)}: {error}") from None
        if mask.shape != truth.shape:
            raise UserError(
                f"{source.where(index)}: the image is {mask.shape[0]}x{mask.shape[1]}, its labels "
                f"are {truth.shape[0]}x{truth.shape[1]}"
            )
        each(index, mask)
        totals["confusion"] += scores.confusion(truth, mask, classes)
        for name, value in (boundary.sums(truth, mask) if boundary else {}).items():
            totals[f"boundary_{name}"] = totals.get(f"boundary_{name}", 0) + value
    return totals


def _examples(source: Source) -> Iterator[Example]:
    """The examples in order, read ahead."""
    with ThreadPoolExecutor(_AHEAD) as pool:
        coming: deque[Future[Example]] = deque()
        for index in range(len(source) + _AHEAD):
            if index < len(source):
                coming.append(pool.submit(source.__getitem__, index))
            if index >= _AHEAD:
                yield coming.popleft().result()

"""What classifiers make of images: the maps that the figures of activations show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from drn_jax.errors import UserError
from drn_jax.figures.runs import Picture, Run


class Strongest(NamedTuple):
    """The channel of the highest mean in a map."""

    channel: int
    map: np.ndarray
    """float32 [h, w]."""


@dataclass(frozen=True)
class Answer:
    """Of a classifier for an image."""

    label: str
    """The class that it predicts for the whole image."""
    probability: float
    class_map: np.ndarray
    """Its probability at every cell, float32 [h, w] in [0, 1]."""
    strongest: Mapping[str, Strongest]
    """By stage."""


def of(run: Run, pictures: Sequence[Picture]) -> list[Answer]:
    """Of every picture; one program is compiled for each size. Raises: UserError for an answer
    that is not a number."""
    trained = run.trained

    def outputs(variables: Any, image: jax.Array) -> Any:
        found: Any = trained.model.apply(variables, trained.preprocess(image[None]), train=False)
        logits, features = found
        p = jax.nn.softmax(logits[0].astype(jnp.float32))
        best = p.argmax()
        dense = jax.nn.softmax(features["logits_2d"][0].astype(jnp.float32))[..., best]
        strongest = {name: _strongest(features[name][0]) for name in features if name != _DENSE}
        return best, p[best], dense, strongest

    compiled = jax.jit(outputs)
    answers = []
    for picture in pictures:
        found = jax.device_get(compiled(trained.variables, picture.image))
        best, probability, dense, strongest = found
        if not np.isfinite(probability):
            raise UserError(f"{run.name}: its answer is not a number; choose another --checkpoint")
        maps = {name: Strongest(int(channel), map) for name, (channel, map) in strongest.items()}
        answers.append(Answer(trained.classes[int(best)], float(probability), dense, maps))
    return answers


_DENSE = "logits_2d"


def _strongest(map: jax.Array) -> tuple[jax.Array, jax.Array]:
    map = map.astype(jnp.float32)
    channel = map.mean((0, 1)).argmax()
    return channel, map[..., channel]

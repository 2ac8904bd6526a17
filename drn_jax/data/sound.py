"""What of a source can be decoded."""

from collections.abc import Iterator
from dataclasses import dataclass

from drn_jax.data.dataset import Example, Sizes
from drn_jax.data.decoding import each
from drn_jax.data.findings import Findings
from drn_jax.data.prepare import Progress
from drn_jax.data.sources import Readable, Record
from drn_jax.errors import UserError


@dataclass(frozen=True)
class Some:
    """Some examples of a source, with the (height, width) of each."""

    source: Readable
    indices: tuple[int, ...]
    shapes: tuple[tuple[int, int], ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.source.names[index] for index in self.indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Example:
        return self.source[self.indices[index]]

    def where(self, index: int) -> str:
        return self.source.where(self.indices[index])

    def files_of(self, index: int) -> tuple[str, ...]:
        return self.source.files_of(self.indices[index])

    def record(self, index: int) -> Record:
        return self.source.record(self.indices[index])

    def sizes(self) -> Sizes | None:
        return self.shapes if len(set(self.shapes)) > 1 else None


def sound(
    source: Readable,
    findings: Findings,
    progress: Progress = lambda items, total, title: items,
    title: str = "",
) -> Some:
    """The examples of a source that can be decoded; the others become faults.

    Raises: UserError if there is none.
    """

    def shape(index: int) -> tuple[int, int]:
        height, width = source[index]["image"].shape[:2]
        return height, width

    shapes: dict[int, tuple[int, int]] = {}

    def decoded() -> Iterator[None]:
        for index, found in enumerate(each(source, shape)):
            if isinstance(found, UserError):
                findings.fault(str(found))
            else:
                shapes[index] = found
            yield

    for _ in progress(decoded(), len(source), title):
        pass
    if not shapes:
        raise UserError(
            f"{source.where(0)}: neither it nor any other of its split can be decoded; "
            "`python -m drn_jax.data check` says why"
        )
    return Some(source, tuple(shapes), tuple(shapes.values()))

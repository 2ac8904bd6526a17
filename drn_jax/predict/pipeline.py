"""Images read, answered and written: reading and writing in threads, while the device computes."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from drn_jax import places
from drn_jax.data.image import decode_rgb, read_bytes
from drn_jax.errors import UserError
from drn_jax.predict.files import Job

THREADS = 2
"""That read, and as many that write."""
AHEAD = 4
"""Images that are read before their turn, or still to be written, at most: what is in memory."""

Row = dict[str, Any]
"""What is known of an image, as JSON."""

Item = TypeVar("Item")
Made = TypeVar("Made")


class Answer(NamedTuple):
    """What a network says of an image."""

    row: Row
    files: Mapping[str, Callable[[], bytes]]
    """By kind of output: called in a thread, the content of the file."""


class Answerer(Protocol):
    """A network with all that is done to its answers."""

    @property
    def compiled(self) -> int:
        """How many programs were compiled so far."""
        ...

    def __call__(self, image: np.ndarray) -> Answer:
        """Of an image uint8 [H, W, 3]. Raises UserError if it can't be answered."""
        ...


def rows(
    jobs: Iterable[Job], answer: Answerer, out: str, stopped: Callable[[], bool]
) -> Iterator[Row]:
    """A row an image, in the order of the jobs, as soon as all files of the image are written.

    An image that can't be read or answered has a row with an `error`. Once `stopped()` is true no
    more images are answered, but what was answered is written.

    Raises: UserError if a file can't be written.
    """

    def answered() -> Iterator[tuple[Job, Answer | UserError]]:
        for job, image in in_order(_read, jobs):
            if stopped():
                return
            yield job, _answered(answer, job, image)

    yield from in_order(partial(_write, out), answered())


def in_order(work: Callable[[Item], Made], items: Iterable[Item]) -> Iterator[Made]:
    """What `work` makes of the items, in their order, by threads that are `AHEAD` at most."""
    pool = ThreadPoolExecutor(THREADS)
    pending: deque[Future[Made]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) >= AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _read(job: Job) -> tuple[Job, np.ndarray | UserError]:
    try:
        return job, decode_rgb(read_bytes(job.path), job.path)
    except UserError as error:
        return job, error


def _answered(answer: Answerer, job: Job, image: np.ndarray | UserError) -> Answer | UserError:
    if isinstance(image, UserError):
        return image
    try:
        return answer(image)
    except UserError as error:
        return error


def _write(out: str, answered: tuple[Job, Answer | UserError]) -> Row:
    job, answer = answered
    if isinstance(answer, UserError):
        return {"file": job.path, "error": str(answer).removeprefix(f"{job.path}: ")}
    for kind, encode in answer.files.items():
        path = places.join(out, *job.outputs[kind].split("/"))
        try:
            places.write(path, encode())
        except OSError as error:
            raise UserError(
                f"{path}: cannot be written ({error.strerror or error}); check --out={out}"
            ) from error
    return {"file": job.path, "outputs": dict(job.outputs), **answer.row}


def printable(text: str) -> str:
    """Text with a file name that need be no text: bytes that are no UTF-8 are spelled out."""
    return text.encode("utf-8", "backslashreplace").decode()

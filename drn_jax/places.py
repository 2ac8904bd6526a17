"""Files by their place: on a disk, or in a bucket (`gs://BUCKET/FOLDER`, likewise s3:// and az://).

A disk is used as ever; a bucket by way of fsspec, which finds its credentials as the tools of its
provider do. A read is one request for just those bytes. (epath goes by fsspec, too, but opens
files: that asks for a file's size first, and reads megabytes ahead of every example.)
"""

import functools
import io
import logging
import os
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from drn_jax.errors import UserError

AHEAD = 16 << 20
"""Bytes of a file in a bucket that `opened` reads at a time: to index a .tar is to read it all."""


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether a path lies in a bucket."""
    return "://" in os.fspath(path)


def join(folder: str | os.PathLike[str], *names: str) -> str:
    """As `os.path.join`. In a bucket also without "." and "..", which mean nothing there."""
    folder = os.fspath(folder)
    if not is_remote(folder):
        return os.path.join(folder, *names)
    scheme, _, inside = folder.partition("://")
    joined = posixpath.normpath(posixpath.join(inside, *names))
    return joined if joined.startswith("/") else f"{scheme}://{joined}"


def real(path: str) -> str:
    """The one spelling of a path: as `os.path.realpath`."""
    return join(path) if is_remote(path) else os.path.realpath(path)


def name(path: str) -> str:
    """The last part of a path."""
    return os.path.basename(join(path) if is_remote(path) else os.path.abspath(path))


def exists(path: str) -> bool:
    """Whether there is a file or a folder."""
    return _kind(path) is not None if is_remote(path) else os.path.exists(path)


def is_file(path: str) -> bool:
    """Whether there is a file."""
    return _kind(path) == "file" if is_remote(path) else os.path.isfile(path)


def is_folder(path: str) -> bool:
    """Whether there is a folder: in a bucket, anything whose name begins so."""
    return _kind(path) == "directory" if is_remote(path) else os.path.isdir(path)


def entries(folder: str) -> dict[str, bool]:
    """The names in a folder, and whether each is a folder. Raises: OSError if there is none."""
    if not is_remote(folder):
        with os.scandir(folder) as found:
            return {entry.name: entry.is_dir() for entry in found}
    with _reached(folder):
        listed = _bucket(folder).ls(folder, detail=True)
    # A folder made by hand is an empty file of its name, which is among what it holds.
    top = folder.partition("://")[2].strip("/")
    below = {info["name"].strip("/"): info["type"] == "directory" for info in listed}
    return {path.rpartition("/")[2]: kind for path, kind in below.items() if path != top}


def read(path: str, offset: int = 0, count: int = -1) -> bytes:
    """The bytes of a file from `offset` on, at most `count` of them. Raises: OSError."""
    if not is_remote(path):
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(count)
    if count == 0:
        return b""
    end = None if count < 0 else offset + count
    with _reached(path):
        return _bucket(path).cat_file(path, start=offset or (None if end is None else 0), end=end)


def opened(path: str) -> IO[bytes]:
    """A file open for reading and seeking. Raises: OSError."""
    if not is_remote(path):
        return open(path, "rb")
    with _reached(path):
        info = _bucket(path).info(path)
    if info["type"] != "file":
        raise IsADirectoryError(f"{path} is a folder")
    return io.BufferedReader(_Ranges(path, info["size"]), AHEAD)


def write(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file, whole or not at all: what was there is replaced once all is written."""
    path = os.fspath(path)
    if is_remote(path):
        with _reached(path):
            _bucket(path).pipe_file(path, data)
        return
    place = Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    unfinished = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        with unfinished.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, place)
    finally:
        unfinished.unlink(missing_ok=True)


def upload(file: str | os.PathLike[str], path: str) -> None:
    """Copy a file from the disk into a bucket."""
    with _reached(path):
        _bucket(path).put_file(os.fspath(file), path)


class _Ranges(io.RawIOBase):
    """A file in a bucket, read piece by piece."""

    def __init__(self, path: str, size: int) -> None:
        self._path, self._size, self._place = path, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        place = offset + (0, self._place, self._size)[whence]
        if place < 0:
            raise OSError(f"{self._path}: has no byte {place}")
        self._place = place
        return place

    def readinto(self, buffer: Any, /) -> int:
        count = min(len(buffer), max(0, self._size - self._place))
        data = read(self._path, self._place, count)
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)


def _kind(path: str) -> str | None:
    """What there is in a bucket: "file", "directory" or None."""
    try:
        with _reached(path):
            return _bucket(path).info(path)["type"]
    except (FileNotFoundError, NotADirectoryError):
        return None


def _bucket(path: str) -> Any:
    """The file system of a remote path."""
    return _file_system(path.partition("://")[0], os.getpid())


@functools.cache
def _file_system(scheme: str, process: int) -> Any:
    """One for all threads, for each has to fetch credentials; but it does not survive a fork."""
    del process
    import fsspec  # A tenth of a second, and few need it.

    # Of an error that it raises, gcsfs logs the traceback besides.
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
    # Other processes write there, too: what was listed before says little.
    return fsspec.filesystem(scheme, use_listings_cache=False)


@contextmanager
def _reached(path: str) -> Iterator[None]:
    """Raises UserError for all that goes wrong but a path that is not there. Each provider's client
    has errors of its own."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise
    except ImportError as error:
        raise UserError(
            f"{path}: a package is missing ({error}); gs:// needs `pip install gcsfs`, s3:// s3fs, "
            "az:// adlfs"
        ) from error
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"{path}: cannot be reached ({reason}); check the address, the network and your "
            "credentials (for gs://: gcloud auth application-default login)"
        ) from error

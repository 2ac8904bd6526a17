"""Files in a .tar: read in place, or if it is compressed, read once."""

import array
import bisect
import bz2
import gzip
import lzma
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, NamedTuple

import numpy as np

from drn_jax import places
from drn_jax.data.files import MemoryFiles, below, visible
from drn_jax.data.image import read_bytes
from drn_jax.errors import UserError

_Stream = gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile
_DECOMPRESSORS: Mapping[bytes, Callable[[IO[bytes]], _Stream]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}
"""What opens a compressed file, by the bytes that it starts with."""

UNENDED = "archives without an end mark (cut off?)"
"""The kind of warning about a .tar that may lack files at its end."""


class TarEntry(NamedTuple):
    """Where a file of a .tar lies."""

    offset: int
    size: int


class TarIndex(Mapping[str, TarEntry]):
    """Entries by name, in 24 bytes each beside the name; a dictionary of them takes 156. ILSVRC2012
    has 1.28 million images for training, and every worker process holds a copy."""

    def __init__(self, names: Sequence[str], spots: np.ndarray) -> None:
        """`spots`, int64 [N, 2], has (offset, size) of each; of equal names, the last counts."""
        last = {name: i for i, name in enumerate(names)}
        self._names = tuple(sorted(last))
        self._spots = spots[[last[name] for name in self._names]].reshape(-1, 2)

    def __getitem__(self, name: str) -> TarEntry:
        place = bisect.bisect_left(self._names, name)
        if place == len(self._names) or self._names[place] != name:
            raise KeyError(name)
        return TarEntry(*self._spots[place].tolist())

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True)
class TarFiles:
    """Files in a .tar that is not compressed. A .tar in it is a folder of its name, without .tar
    (ILSVRC2012 keeps its classes so)."""

    path: str
    entries: Mapping[str, TarEntry]
    ended: bool = True
    """Whether a block of zeros marks the end: else it may be cut off, between two files."""

    def where(self, name: str) -> str:
        return f"{self.path}/{name}"

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def under(self, folder: str) -> list[str]:
        return visible(below(self.entries, folder))

    def read(self, name: str) -> bytes:
        return self.head(name, -1)

    def head(self, name: str, count: int) -> bytes:
        if name not in self.entries:
            raise UserError(f"{self.where(name)}: not in the archive; fetch it again")
        offset, size = self.entries[name]
        wanted = size if count < 0 else min(size, count)
        try:
            data = places.read(self.path, offset, wanted)
        except OSError as error:
            raise UserError(f"{self.where(name)}: cannot be read ({error})") from error
        if len(data) < wanted:
            raise UserError(f"{self.where(name)}: cut off; fetch the .tar again")
        return data


def tar_files(path: str) -> TarFiles:
    """The files of a .tar, those of a .tar in it included.

    Raises: UserError for what is no .tar, is cut off in a file, or is compressed.
    """
    names: list[str] = []
    spots = array.array("q")
    try:
        with places.opened(path) as file:
            ended = _index(file, 0, file.seek(0, os.SEEK_END), "", names, spots)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; check the path") from error
    except PermissionError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); check its permissions"
        ) from error
    except (OSError, tarfile.TarError) as error:
        raise UserError(
            f"{path}: not a readable .tar without compression ({error}); fetch it again, or "
            "extract it"
        ) from error
    return TarFiles(path, TarIndex(names, np.array(spots, np.int64).reshape(-1, 2)), ended)


def _index(
    file: IO[bytes], start: int, end: int, prefix: str, names: list[str], spots: "array.array[int]"
) -> bool:
    """Note where the files of the .tar that lies from `start` to `end` of an open file are.

    Returns: whether its end is marked.
    """
    file.seek(start)
    members = 0
    with tarfile.open(fileobj=file, mode="r:") as archive:
        # TarInfo keeps hundreds of bytes for each of a million files: they are dropped as we go.
        while (member := archive.next()) is not None and member.offset < end:
            archive.members = []  # pyright: ignore[reportAttributeAccessIssue]
            members += 1
            if not member.isreg():
                continue
            if member.offset_data + member.size > end:
                raise tarfile.ReadError(f"{prefix}{member.name} is cut off")
            name = prefix + member.name.removeprefix("./")
            if name.endswith(".tar"):
                inside = member.offset_data, member.offset_data + member.size
                _index(file, *inside, name.removesuffix(".tar") + "/", names, spots)
            else:
                names.append(name)
                spots.extend((member.offset_data, member.size))
        # `tarfile` takes a damaged header for the end, unless it is the first.
        file.seek(archive.offset)
        mark = file.read(min(tarfile.BLOCKSIZE, max(0, end - archive.offset)))
        if any(mark):
            raise tarfile.ReadError(f"{prefix or 'it'} is damaged at byte {archive.offset - start}")
    if not members:
        raise tarfile.ReadError(f"{prefix or 'it'} holds nothing")
    return len(mark) == tarfile.BLOCKSIZE


def unpacked(path: str, wanted: Callable[[str], bool]) -> MemoryFiles:
    """The files of a .tar of any compression whose names are wanted, read into memory at once.

    Raises: UserError for what is no .tar, or is damaged.
    """
    return MemoryFiles(path, dict(streamed(path, wanted)))


def streamed(path: str, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """(name, content) of each of those files, one after the other. Raises: as `unpacked`."""
    start = read_bytes(path, max(map(len, _DECOMPRESSORS)))
    opened = [opener for magic, opener in _DECOMPRESSORS.items() if start.startswith(magic)]
    if not opened:
        files = tar_files(path)
        yield from ((name, files.read(name)) for name in files.entries if wanted(name))
        return
    try:
        # The decompressors of `tarfile` itself overlook checksums, and an end that is missing.
        with (
            places.opened(path) as file,
            opened[0](file) as stream,
            tarfile.open(fileobj=stream, mode="r|") as archive,
        ):
            while (member := archive.next()) is not None:
                archive.members = []  # pyright: ignore[reportAttributeAccessIssue]
                name = member.name.removeprefix("./")
                if member.isreg() and wanted(name):
                    content = archive.extractfile(member)
                    assert content is not None
                    yield name, content.read()
            while stream.read(1 << 20):  # The checksum follows at the end.
                pass
    except (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError) as error:
        raise UserError(f"{path}: not a readable .tar ({error}); fetch it again") from error

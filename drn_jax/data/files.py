"""Where the files of a data set lie: in a folder, a .zip or a .tar, read in place.

An archive's directory is read once, when it is opened here; each read then opens the archive, seeks
and reads. So nothing holds an open file: it can be pickled, forked and used by several threads at
once, without a lock. Names have forward slashes.
"""

import array
import bisect
import bz2
import gzip
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, NamedTuple, Protocol

import numpy as np

from drn_jax.data.image import read_bytes
from drn_jax.errors import UserError

_Stream = gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile

_DECOMPRESSORS: Mapping[bytes, Callable[[str], _Stream]] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}
"""What opens a compressed file, by the bytes that it starts with."""


class Files(Protocol):
    """Files by name."""

    def where(self, name: str) -> str:
        """What errors call the file."""
        ...

    def __contains__(self, name: str) -> bool: ...

    def under(self, folder: str) -> list[str]:
        """The names of the files in a folder, at any depth, sorted; "" is the top. Hidden ones, and
        what macOS leaves in archives, are passed over."""
        ...

    def read(self, name: str) -> bytes:
        """The content; UserError if it is missing or damaged."""
        ...

    def head(self, name: str, count: int) -> bytes:
        """The first `count` bytes at most, without any checksum; UserError likewise."""
        ...


@dataclass(frozen=True)
class FolderFiles:
    """Files below a folder."""

    folder: str

    def where(self, name: str) -> str:
        # An absolute name stays what it is: lists may hold such.
        return os.path.join(self.folder, name.replace("/", os.sep))

    def __contains__(self, name: str) -> bool:
        return os.path.isfile(self.where(name))

    def under(self, folder: str) -> list[str]:
        found = []
        top = self.where(folder) if folder else self.folder
        for root, folders, names in os.walk(top, followlinks=True):
            folders[:] = [name for name in folders if not name.startswith(".")]
            above = os.path.relpath(root, self.folder).replace(os.sep, "/")
            prefix = "" if above == "." else f"{above}/"
            found += [prefix + name for name in names]
        return _visible(found)

    def read(self, name: str) -> bytes:
        return read_bytes(self.where(name))

    def head(self, name: str, count: int) -> bytes:
        return read_bytes(self.where(name), count)


class ZipEntry(NamedTuple):
    """Where a file of a .zip lies: the fields of its directory that a read needs."""

    offset: int
    stored: int
    method: int
    crc: int


@dataclass(frozen=True)
class ZipFiles:
    """Files in a .zip."""

    path: str
    entries: Mapping[str, ZipEntry]

    def where(self, name: str) -> str:
        return f"{self.path}/{name}"

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def under(self, folder: str) -> list[str]:
        return _visible(_below(self.entries, folder))

    def read(self, name: str) -> bytes:
        entry = self._entry(name)
        try:
            data = self._stored(entry, entry.stored)
            if entry.method == zipfile.ZIP_DEFLATED:
                data = zlib.decompress(data, wbits=-zlib.MAX_WBITS)
        except (OSError, zlib.error) as error:
            raise UserError(f"{self.where(name)}: cannot be read ({error})") from error
        if zlib.crc32(data) != entry.crc:
            raise UserError(f"{self.where(name)}: damaged (checksum differs); fetch the .zip again")
        return data

    def head(self, name: str, count: int) -> bytes:
        entry = self._entry(name)
        try:
            # Deflate makes what it can't compress longer, and begins with its tables.
            data = self._stored(entry, min(entry.stored, count + count // 100 + 1024))
            if entry.method == zipfile.ZIP_DEFLATED:
                data = zlib.decompressobj(wbits=-zlib.MAX_WBITS).decompress(data, count)
            data = data[:count]
        except (OSError, zlib.error) as error:
            raise UserError(f"{self.where(name)}: cannot be read ({error})") from error
        return data

    def _entry(self, name: str) -> ZipEntry:
        if name not in self.entries:
            raise UserError(f"{self.where(name)}: not in the archive; fetch it again")
        return self.entries[name]

    def _stored(self, entry: ZipEntry, count: int) -> bytes:
        with open(self.path, "rb") as file:
            file.seek(entry.offset)
            # The directory does not tell how long the name and the extra field in front of the data
            # are: the local header does, in its last four bytes.
            header = file.read(30)
            lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(
                header[28:30], "little"
            )
            file.seek(lengths, os.SEEK_CUR)
            return file.read(count)


class TarEntry(NamedTuple):
    """Where a file of a .tar lies."""

    offset: int
    size: int


class TarIndex(Mapping[str, TarEntry]):
    """Entries by name, in 24 bytes each beside the name; a dictionary of them takes 156. ILSVRC2012
    has 1.28 million images for training, and every worker process holds a copy."""

    def __init__(self, names: Sequence[str], places: np.ndarray) -> None:
        """`places`, int64 [N, 2], has (offset, size) of each; of equal names, the last counts."""
        last = {name: i for i, name in enumerate(names)}
        self._names = tuple(sorted(last))
        self._places = places[[last[name] for name in self._names]].reshape(-1, 2)

    def __getitem__(self, name: str) -> TarEntry:
        place = bisect.bisect_left(self._names, name)
        if place == len(self._names) or self._names[place] != name:
            raise KeyError(name)
        return TarEntry(*self._places[place].tolist())

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

    def where(self, name: str) -> str:
        return f"{self.path}/{name}"

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def under(self, folder: str) -> list[str]:
        return _visible(_below(self.entries, folder))

    def read(self, name: str) -> bytes:
        return self.head(name, -1)

    def head(self, name: str, count: int) -> bytes:
        if name not in self.entries:
            raise UserError(f"{self.where(name)}: not in the archive; fetch it again")
        offset, size = self.entries[name]
        wanted = size if count < 0 else min(size, count)
        try:
            with open(self.path, "rb") as file:
                file.seek(offset)
                data = file.read(wanted)
        except OSError as error:
            raise UserError(f"{self.where(name)}: cannot be read ({error})") from error
        if len(data) < wanted:
            raise UserError(f"{self.where(name)}: cut off; fetch the .tar again")
        return data


@dataclass(frozen=True)
class MemoryFiles:
    """Files that were read before, from an archive that allows no access in place."""

    path: str
    contents: Mapping[str, bytes]

    def where(self, name: str) -> str:
        return f"{self.path}/{name}"

    def __contains__(self, name: str) -> bool:
        return name in self.contents

    def under(self, folder: str) -> list[str]:
        return _visible(_below(self.contents, folder))

    def read(self, name: str) -> bytes:
        if name not in self.contents:
            raise UserError(f"{self.where(name)}: not in the archive; fetch it again")
        return self.contents[name]

    def head(self, name: str, count: int) -> bytes:
        return self.read(name)[:count]


def find(directory: str, *names: str) -> str | None:
    """The path of the first of the files or folders `names` that `directory` has; else None."""
    for name in names:
        path = os.path.join(directory, *name.split("/"))
        if os.path.exists(path):
            return path
    return None


def zip_files(path: str, top: str = "") -> ZipFiles:
    """The files of a .zip below its folder `top`, which is left out of their names.

    Raises: UserError for what is no .zip, or one that is encrypted or compressed in a way that
      can't be read in place.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            listed = archive.infolist()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; check the path") from error
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not a readable .zip ({error}); fetch it again") from error
    entries = {}
    for e in listed:
        if e.is_dir() or not e.filename.startswith(top):
            continue
        if e.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or e.flag_bits & 1:
            raise UserError(
                f"{path}/{e.filename}: encrypted, or compressed in a way that is not read here; "
                "make the .zip anew with plain `deflate`, or extract it"
            )
        entry = ZipEntry(e.header_offset, e.compress_size, e.compress_type, e.CRC)
        entries[e.filename.removeprefix(top)] = entry
    return ZipFiles(path, entries)


def tar_files(path: str) -> TarFiles:
    """The files of a .tar, those of a .tar in it included.

    Raises: UserError for what is no .tar, is cut off, or is compressed.
    """
    names: list[str] = []
    places = array.array("q")
    try:
        with open(path, "rb") as file:
            _index(file, 0, os.path.getsize(path), "", names, places)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; check the path") from error
    except (OSError, tarfile.TarError) as error:
        raise UserError(
            f"{path}: not a readable .tar without compression ({error}); fetch it again, or "
            "extract it"
        ) from error
    return TarFiles(path, TarIndex(names, np.array(places, np.int64).reshape(-1, 2)))


def _index(
    file: IO[bytes], start: int, end: int, prefix: str, names: list[str], places: "array.array[int]"
) -> None:
    """Note where the files of the .tar that lies from `start` to `end` of an open file are."""
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
                _index(file, *inside, name.removesuffix(".tar") + "/", names, places)
            else:
                names.append(name)
                places.extend((member.offset_data, member.size))
        # `tarfile` takes a damaged header for the end, unless it is the first.
        file.seek(archive.offset)
        if archive.offset < end and any(file.read(tarfile.BLOCKSIZE)):
            raise tarfile.ReadError(f"{prefix or 'it'} is damaged at byte {archive.offset - start}")
    if not members:
        raise tarfile.ReadError(f"{prefix or 'it'} holds nothing")


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
        with opened[0](path) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # pyright: ignore[reportAttributeAccessIssue]
                name = member.name.removeprefix("./")
                if member.isreg() and wanted(name):
                    file = archive.extractfile(member)
                    assert file is not None
                    yield name, file.read()
            while stream.read(1 << 20):  # The checksum follows at the end.
                pass
    except (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError) as error:
        raise UserError(f"{path}: not a readable .tar ({error}); fetch it again") from error


def _below(names: Iterable[str], folder: str) -> list[str]:
    top = f"{folder}/" if folder else ""
    return [name for name in names if name.startswith(top)]


def _visible(names: Iterable[str]) -> list[str]:
    def hidden(part: str) -> bool:
        return part.startswith(".") or part == "__MACOSX"

    return sorted(name for name in names if not any(map(hidden, name.split("/"))))

"""Where the files of a data set lie: in a folder, a .zip (`zips`) or a .tar (`tars`), in place;
each on a disk or in a bucket (`places`).

An archive's directory is read once, when it is opened; each read then opens the archive, seeks
and reads. So nothing holds an open file: it can be pickled, forked and used by several threads at
once, without a lock. Names have forward slashes.
"""

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from drn_jax import places
from drn_jax.data.image import read_bytes
from drn_jax.errors import UserError

_ARCHIVES = (".zip", ".tar", ".tgz", ".gz")

_REQUESTS = 32
"""At once, to list the folders of a bucket: each is answered late, and costs nothing here."""


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
    """Files below a folder on a disk."""

    folder: str

    def where(self, name: str) -> str:
        # An absolute name stays what it is: lists may hold such.
        return os.path.join(self.folder, name.replace("/", os.sep))

    def __contains__(self, name: str) -> bool:
        return os.path.isfile(self.where(name))

    def under(self, folder: str) -> list[str]:
        found = []
        top = self.where(folder) if folder else self.folder
        for root, folders, names in os.walk(top, onerror=_refuse, followlinks=True):
            folders[:] = [
                name
                for name in folders
                if not name.startswith(".") and not _leads_up(os.path.join(root, name))
            ]
            above = os.path.relpath(root, self.folder).replace(os.sep, "/")
            prefix = "" if above == "." else f"{above}/"
            found += [prefix + name for name in names]
        return visible(found)

    def read(self, name: str) -> bytes:
        return read_bytes(self.where(name))

    def head(self, name: str, count: int) -> bytes:
        return read_bytes(self.where(name), count)


@dataclass(frozen=True)
class BucketFiles:
    """Files below a folder in a bucket."""

    folder: str
    listed: dict[str, dict[str, bool]] = field(default_factory=dict, compare=False, repr=False)
    """The folders in which a file was looked for: asking for each by itself takes too long."""

    def where(self, name: str) -> str:
        return places.join(self.folder, name)

    def __contains__(self, name: str) -> bool:
        path = self.where(name)
        folder, _, last = path.rpartition("/")
        if folder not in self.listed:
            self.listed[folder] = _entries(folder)
        return self.listed[folder].get(last) is False

    def under(self, folder: str) -> list[str]:
        found: list[str] = []
        folders = [folder]
        with ThreadPoolExecutor(_REQUESTS) as pool:
            while folders:
                below: list[str] = []
                inside = pool.map(_entries, map(self.where, folders))
                for above, entries in zip(folders, inside, strict=True):
                    for name in visible(entries):
                        path = f"{above}/{name}" if above else name
                        (below if entries[name] else found).append(path)
                folders = below
        return sorted(found)

    def read(self, name: str) -> bytes:
        return read_bytes(self.where(name))

    def head(self, name: str, count: int) -> bytes:
        return read_bytes(self.where(name), count)


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
        return visible(below(self.contents, folder))

    def read(self, name: str) -> bytes:
        if name not in self.contents:
            raise UserError(f"{self.where(name)}: not in the archive; fetch it again")
        return self.contents[name]

    def head(self, name: str, count: int) -> bytes:
        return self.read(name)[:count]


def folder_files(path: str) -> Files:
    """The files below a folder."""
    return BucketFiles(path) if places.is_remote(path) else FolderFiles(path)


def require_folder(path: str, otherwise: str = "check the path") -> None:
    """Raise UserError unless there is a folder; `otherwise` says what to do if there is nothing."""
    if places.is_file(path):
        raise UserError(f"{path}: is a file; name the folder that it lies in")
    if not places.is_folder(path):
        raise UserError(f"{path}: no such folder; {otherwise}")


def find(directory: str, *names: str) -> str | None:
    """The path of the first of the files or folders `names` that `directory` has; else None. The
    suffix of an archive may be written in capitals."""
    for name in names:
        path = places.join(directory, *name.split("/"))
        stem, suffix = os.path.splitext(path)
        other = stem + suffix.upper() if suffix in _ARCHIVES else path
        for spelled in (path, other):
            if places.exists(spelled):
                return spelled
    return None


def _entries(folder: str) -> dict[str, bool]:
    """What is in a folder; one that is missing is empty."""
    try:
        return places.entries(folder)
    except (FileNotFoundError, NotADirectoryError):
        return {}


def _refuse(error: OSError) -> None:
    """Raise UserError for a folder that may not be looked into; one that is missing is empty."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise UserError(
            f"{error.filename}: cannot be read ({error.strerror}); check its permissions"
        ) from error


def _leads_up(folder: str) -> bool:
    """Whether a folder is a link to one that it lies in."""
    if not os.path.islink(folder):
        return False
    target = os.path.realpath(folder)
    above = os.path.realpath(os.path.dirname(folder))
    return os.path.commonpath([target, above]) == target


def below(names: Iterable[str], folder: str) -> list[str]:
    """The names in a folder, at any depth; "" is the top."""
    top = f"{folder}/" if folder else ""
    return [name for name in names if name.startswith(top)]


def visible(names: Iterable[str]) -> list[str]:
    """Sorted, without those that `Files.under` passes over."""

    def hidden(part: str) -> bool:
        return part.startswith(".") or part == "__MACOSX"

    return sorted(name for name in names if not any(map(hidden, name.split("/"))))

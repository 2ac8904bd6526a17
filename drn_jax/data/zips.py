"""Files in a .zip, read in place."""

import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from drn_jax import places
from drn_jax.data.files import Files, below, folder_files, visible
from drn_jax.errors import UserError

_HEADER = 30
_ROOM = 512
"""Bytes for the name and the extra field behind a local header."""


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
        return visible(below(self.entries, folder))

    def read(self, name: str) -> bytes:
        entry = self._entry(name)
        try:
            data = self._stored(entry, entry.stored)
            if entry.method == zipfile.ZIP_DEFLATED:
                data = zlib.decompress(data, wbits=-zlib.MAX_WBITS)
        except (OSError, MemoryError, zlib.error) as error:
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

    def inside(self, top: str) -> "ZipFiles":
        """The files below the folder `top` ("a/"), which is left out of their names."""
        entries = {n.removeprefix(top): e for n, e in self.entries.items() if n.startswith(top)}
        return replace(self, entries=entries)

    def above(self, folder: str) -> str | None:
        """What lies above the first folder "b" or "b/c": "", or "a/"; None if there is none."""
        for name in self.under(""):
            top, found, _ = f"/{name}".partition(f"/{folder}/")
            if found:
                return f"{top}/".removeprefix("/")
        return None

    def _entry(self, name: str) -> ZipEntry:
        if name not in self.entries:
            raise UserError(f"{self.where(name)}: not in the archive; fetch it again")
        return self.entries[name]

    def _stored(self, entry: ZipEntry, count: int) -> bytes:
        # The directory does not tell how long the name and the extra field in front of the data
        # are: the local header does, in its last four bytes. What is likely enough is read at once.
        data = places.read(self.path, entry.offset, _HEADER + _ROOM + count)
        start = _HEADER + sum(int.from_bytes(data[i : i + 2], "little") for i in (26, 28))
        if start > _HEADER + _ROOM:
            return places.read(self.path, entry.offset + start, count)
        return data[start : start + count]


def folder_or_zip(path: str, folder: str = "") -> Files:
    """The files of a folder; or of a .zip, below its `folder` if that is named, on top of which
    there may be others (who packs an archive anew may add some). Raises: as `zip_files`."""
    if places.is_folder(path):
        return folder_files(path)
    files = zip_files(path)
    if not folder:
        return files
    return files.inside(f"{files.above(folder) or ''}{folder}/")


def zip_files(path: str) -> ZipFiles:
    """The files of a .zip.

    Raises: UserError for what is no .zip, one that is damaged or cut off, or one that is encrypted
      or compressed in a way that can't be read in place.
    """
    try:
        with places.opened(path) as file, zipfile.ZipFile(file) as archive:
            listed = archive.infolist()
            end = file.seek(0, os.SEEK_END)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; check the path") from error
    except PermissionError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); check its permissions"
        ) from error
    except UserError:
        raise
    # A damaged directory makes `zipfile` raise nearly anything (UnicodeDecodeError, struct.error,
    # NotImplementedError, ...): it all means the same to the user.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: not a readable .zip ({reason}); fetch it again") from error
    entries = {}
    for e in listed:
        if e.is_dir():
            continue
        if not 0 <= e.header_offset <= end - e.compress_size:
            raise UserError(
                f"{path}: not a readable .zip ({e.filename!r} would lie beyond its end); fetch it "
                "again"
            )
        if e.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or e.flag_bits & 1:
            raise UserError(
                f"{path}/{e.filename}: encrypted, or compressed in a way that is not read here; "
                "make the .zip anew with plain `deflate`, or extract it"
            )
        entries[e.filename] = ZipEntry(e.header_offset, e.compress_size, e.compress_type, e.CRC)
    return ZipFiles(path, entries)

"""Folders, .zip and .tar are alike to those who read them; what is damaged or missing is named."""

import array
import io
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from drn_jax.data.files import Files, FolderFiles, find, require_folder
from drn_jax.data.tars import TarEntry, TarIndex, streamed, tar_files, unpacked
from drn_jax.data.zips import folder_or_zip, zip_files
from drn_jax.errors import UserError

Contents = dict[str, bytes]


def noise(seed: int, count: int = 3000) -> bytes:
    return np.random.default_rng(seed).bytes(count)


CONTENTS = {
    "list.txt": b"a\nb\n",
    "images/b.png": noise(0),
    "images/a/2.png": b"abc" * 2000,
    "images/a/1.png": b"",
    "images 2/c.png": noise(1),
}
HIDDEN = {
    "images/.DS_Store": b"x",
    "images/a/._1.png": b"x",
    ".cache/d.png": b"x",
    "__MACOSX/images/b.png": b"x",
}


def write_folder(root: Path, contents: Contents) -> None:
    for name, data in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


def write_zip(path: Path, contents: Contents, method: int = zipfile.ZIP_STORED) -> str:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.mkdir("images")
        for name, data in contents.items():
            archive.writestr(name, data)
    return str(path)


def tar_bytes(contents: Contents, mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, data in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def write_tar(path: Path, contents: Contents, mode: str = "w") -> str:
    path.write_bytes(tar_bytes(contents, mode))
    return str(path)


def of_folder(root: Path, contents: Contents) -> Files:
    write_folder(root / "set", contents)
    return FolderFiles(str(root / "set"))


def of_zip(method: int) -> Callable[[Path, Contents], Files]:
    return lambda root, contents: zip_files(write_zip(root / "set.zip", contents, method))


def of_zip_top(root: Path, contents: Contents) -> Files:
    named = {f"set/{name}": data for name, data in contents.items()} | {"other/e.png": b"x"}
    return folder_or_zip(write_zip(root / "set.zip", named), "set")


def of_tar(root: Path, contents: Contents) -> Files:
    return tar_files(write_tar(root / "set.tar", contents))


def of_dotted_tar(root: Path, contents: Contents) -> Files:
    """As `tar -cf set.tar .` makes it."""
    dotted = {f"./{name}": data for name, data in contents.items()}
    return tar_files(write_tar(root / "set.tar", dotted))


def of_nested_tar(root: Path, contents: Contents) -> Files:
    """With `images` as an archive in the archive, and `a` as one in that."""
    a = {name[9:]: data for name, data in contents.items() if name.startswith("images/a/")}
    images = {
        name[7:]: data
        for name, data in contents.items()
        if name.startswith("images/") and not name.startswith("images/a/")
    }
    outer = {name: data for name, data in contents.items() if not name.startswith("images/")}
    inner = tar_bytes(images | {"a.tar": tar_bytes(a)})
    return tar_files(write_tar(root / "set.tar", outer | {"images.tar": inner}))


def of_packed_tar(ending: str) -> Callable[[Path, Contents], Files]:
    def write(root: Path, contents: Contents) -> Files:
        path = write_tar(root / f"set.tar.{ending}", contents, f"w:{ending}")
        return unpacked(path, lambda name: True)

    return write


KINDS: dict[str, Callable[[Path, Contents], Files]] = {
    "folder": of_folder,
    "stored zip": of_zip(zipfile.ZIP_STORED),
    "deflated zip": of_zip(zipfile.ZIP_DEFLATED),
    "folder of a zip": of_zip_top,
    "tar": of_tar,
    "dotted tar": of_dotted_tar,
    "nested tar": of_nested_tar,
    "tar.gz": of_packed_tar("gz"),
    "tar.bz2": of_packed_tar("bz2"),
    "tar.xz": of_packed_tar("xz"),
}


@pytest.fixture(params=list(KINDS))
def make(request, tmp_path):
    return lambda contents: KINDS[request.param](tmp_path, contents)


def error_of(function, *args) -> str:
    with pytest.raises(UserError) as caught:
        function(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_kind_reads_what_was_written(make):
    files = make(CONTENTS)
    for name, data in CONTENTS.items():
        assert name in files
        assert files.read(name) == data
        assert files.head(name, 5) == data[:5]
        assert files.head(name, 1 << 16) == data
        assert files.where(name).replace("\\", "/").endswith(f"/{name}")
    for name in ("images/c.png", "images", "mages/b.png", "zzz", ""):
        assert name not in files


def test_every_kind_lists_a_folder_sorted_and_at_any_depth(make):
    files = make(CONTENTS)
    assert files.under("") == sorted(CONTENTS)
    assert files.under("images") == ["images/a/1.png", "images/a/2.png", "images/b.png"]
    assert files.under("images/a") == ["images/a/1.png", "images/a/2.png"]
    assert files.under("gone") == []


def test_every_kind_passes_over_hidden_files_in_lists(make):
    assert make(CONTENTS | HIDDEN).under("") == sorted(CONTENTS)


def test_every_kind_names_a_file_that_is_missing(make):
    files = make(CONTENTS)
    for read in (files.read, lambda name: files.head(name, 3)):
        assert error_of(read, "images/gone.png").startswith(f"{files.where('images/gone.png')}: n")


def test_every_kind_survives_pickling_and_eight_threads(make):
    files = pickle.loads(pickle.dumps(make(CONTENTS)))
    names = list(CONTENTS) * 40
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(files.read, names)) == [CONTENTS[name] for name in names]


@pytest.mark.parametrize("kind", ["stored zip", "deflated zip", "tar", "folder"])
def test_no_kind_holds_an_open_file(tmp_path, kind):
    files = KINDS[kind](tmp_path, CONTENTS)
    (tmp_path / "elsewhere").mkdir()
    for path in tmp_path.glob("set*"):
        path.rename(tmp_path / "elsewhere" / path.name)
    assert "images/b.png: " in error_of(files.read, "images/b.png")
    (tmp_path / "elsewhere" / path.name).rename(path)
    assert files.read("images/b.png") == CONTENTS["images/b.png"]


def test_absolute_and_upward_names_in_a_folder_are_what_they_say(tmp_path):
    write_folder(tmp_path, {"a/x.txt": b"x", "b/y.txt": b"y"})
    files = FolderFiles(str(tmp_path / "a"))
    assert files.read("../b/y.txt") == b"y"
    assert files.read(str(tmp_path / "b/y.txt")) == b"y"


def test_folders_that_are_links_are_followed(tmp_path):
    write_folder(tmp_path, {"a/x.txt": b"x", "b/y.txt": b"y"})
    (tmp_path / "a/link").symlink_to(tmp_path / "b")
    assert FolderFiles(str(tmp_path / "a")).under("") == ["link/y.txt", "x.txt"]


def test_a_link_to_a_folder_above_is_not_followed(tmp_path):
    write_folder(tmp_path, {"a/b/x.txt": b"x"})
    (tmp_path / "a/b/up").symlink_to(tmp_path / "a")
    (tmp_path / "a/b/self").symlink_to(".")
    assert FolderFiles(str(tmp_path / "a")).under("") == ["b/x.txt"]


def test_a_folder_that_may_not_be_looked_into_is_named(tmp_path, monkeypatch):
    write_folder(tmp_path, {"a/x.txt": b"x", "b/y.txt": b"y"})
    scan = os.scandir

    def denied(path):
        if str(path).endswith("b"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(UserError, match=r"b: cannot be read \(Permission denied\)"):
        FolderFiles(str(tmp_path)).under("")


def test_a_folder_that_is_missing_holds_nothing(tmp_path):
    assert FolderFiles(str(tmp_path)).under("a") == []


@pytest.mark.parametrize("opened", [zip_files, tar_files])
def test_an_archive_that_may_not_be_read_is_not_to_be_fetched_again(tmp_path, monkeypatch, opened):
    def denied(path, *args, **options):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("builtins.open", denied)
    monkeypatch.setattr("io.open", denied)
    with pytest.raises(UserError, match=r"cannot be read \(Permission denied\); check"):
        opened(str(tmp_path / "x"))


@pytest.mark.parametrize("top", ["", "above/", "above/set 2/"])
def test_the_folder_of_a_zip_may_lie_in_others(tmp_path, top):
    named = {f"{top}set/{name}": data for name, data in CONTENTS.items()}
    junk = {f"__MACOSX/{top}set/._list.txt": b"x", "set.txt": b"x"}
    path = write_zip(tmp_path / "set.ZIP", junk | named)
    assert folder_or_zip(path, "set").under("") == sorted(CONTENTS)
    assert len(folder_or_zip(path).under("")) == len(CONTENTS) + 1
    assert folder_or_zip(path, "other").under("") == []


def test_a_file_in_place_of_a_folder_is_told_from_nothing(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"")
    require_folder(str(tmp_path))
    with pytest.raises(UserError, match=r"x\.zip: is a file; name the folder that it lies in"):
        require_folder(str(tmp_path / "x.zip"))
    with pytest.raises(UserError, match="y: no such folder; look again"):
        require_folder(str(tmp_path / "y"), "look again")


def test_find_gives_the_first_that_is_there(tmp_path):
    write_folder(tmp_path, {"a/b.txt": b"", "c.txt": b""})
    assert find(str(tmp_path), "x", "a/b.txt", "c.txt") == str(tmp_path / "a/b.txt")
    assert find(str(tmp_path), "a") == str(tmp_path / "a")
    assert find(str(tmp_path), "x", "a/c.txt") is None


def test_find_takes_an_archives_suffix_in_capitals(tmp_path):
    write_folder(tmp_path, {"a.ZIP": b"", "b.tar": b"", "b.TAR": b"", "c.TXT": b""})
    assert find(str(tmp_path), "a.zip") == str(tmp_path / "a.ZIP")
    assert find(str(tmp_path), "b.tar") == str(tmp_path / "b.tar")
    assert find(str(tmp_path), "c.txt") is None


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_changed_byte_in_a_zip_is_found_and_the_other_files_are_read(tmp_path, method):
    path = tmp_path / "set.zip"
    files = zip_files(write_zip(path, CONTENTS, method))
    data = bytearray(path.read_bytes())
    data[data.index(b"images/b.png") + 1000] ^= 1
    path.write_bytes(data)
    message = error_of(files.read, "images/b.png")
    assert message.startswith(f"{path}/images/b.png: ")
    assert "damaged" in message or "cannot be read" in message
    assert files.read("images 2/c.png") == CONTENTS["images 2/c.png"]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_cut_off_after_it_was_opened_is_found(tmp_path, method):
    path = tmp_path / "set.zip"
    files = zip_files(write_zip(path, CONTENTS, method))
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"images/b.png") + 1000])
    assert f"{path}/images/b.png: " in error_of(files.read, "images/b.png")
    assert f"{path}/images 2/c.png: " in error_of(files.read, "images 2/c.png")


def test_a_zip_that_was_not_fetched_to_its_end_is_named(tmp_path):
    path = tmp_path / "set.zip"
    write_zip(path, CONTENTS)
    path.write_bytes(path.read_bytes()[:5000])
    assert f"{path}: not a readable .zip" in error_of(zip_files, str(path))
    assert f"{path}.gone: no such file" in error_of(zip_files, f"{path}.gone")


@pytest.mark.parametrize("flip", [0x01, 0x40, 0x80, 0xFF])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_with_any_byte_changed_is_read_or_named(tmp_path, method, flip):
    path = tmp_path / "set.zip"
    contents = {"b.png": noise(0, 20), "ü.png": b"abc" * 9}
    write_zip(path, contents, method)
    sound = path.read_bytes()
    for place in range(len(sound)):
        data = bytearray(sound)
        data[place] ^= flip
        path.write_bytes(data)
        try:
            files = zip_files(str(path))
            found = [files.read(name) for name in files.entries]
        except UserError:
            continue
        assert set(found) <= {*contents.values(), b""}


@pytest.mark.parametrize(
    ("patches", "part"),
    [
        ({6: b"\x63\x00"}, "zip file version 9.9"),
        ({8: b"\x00\x08", 46: b"\xff"}, "can't decode byte 0xff"),
        ({20: b"\xff\xff\xff\x7f"}, "'a.png' would lie beyond its end"),
        ({42: b"\xff\xff\xff\x7f"}, "'a.png' would lie beyond its end"),
    ],
)
def test_a_damaged_directory_of_a_zip_is_named(tmp_path, patches, part):
    path = tmp_path / "set.zip"
    write_zip(path, {"a.png": b"x" * 50})
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\x01\x02")
    for field, value in patches.items():
        data[entry + field : entry + field + len(value)] = value
    path.write_bytes(data)
    message = error_of(zip_files, str(path))
    assert message.startswith(f"{path}: not a readable .zip (")
    assert part in message
    assert "fetch it again" in message


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_of_another_compression_is_refused(tmp_path, method):
    path = write_zip(tmp_path / "set.zip", CONTENTS, method)
    assert f"{path}/list.txt: encrypted, or compressed" in error_of(zip_files, path)


def test_an_encrypted_zip_is_refused(tmp_path):
    path = tmp_path / "set.zip"
    write_zip(path, {"a.png": noise(0)})
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\x01\x02", 0, data.rindex(b"a.png"))
    data[entry + 8] |= 1
    path.write_bytes(data)
    assert f"{path}/a.png: encrypted" in error_of(zip_files, str(path))


def test_a_zip_whose_local_headers_have_extra_fields_is_read(tmp_path):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("a.png", "b.png"):
            with archive.open(name, "w", force_zip64=True) as file:
                file.write(noise(3))
    files = zip_files(str(path))
    assert files.read("a.png") == files.read("b.png") == noise(3)


def test_the_head_of_a_large_file_of_a_zip_does_not_read_it_all(tmp_path):
    path = tmp_path / "set.zip"
    files = zip_files(write_zip(path, {"a.png": noise(0, 1 << 20)}, zipfile.ZIP_DEFLATED))
    data = path.read_bytes()
    path.write_bytes(data[: 1 << 16])
    assert files.head("a.png", 1000) == noise(0, 1 << 20)[:1000]


@pytest.mark.parametrize("ending", ["gz", "bz2", "xz"])
def test_a_compressed_tar_is_not_read_in_place(tmp_path, ending):
    path = write_tar(tmp_path / "set.tar", CONTENTS, f"w:{ending}")
    assert f"{path}: not a readable .tar without compression" in error_of(tar_files, path)


@pytest.mark.parametrize("data", [b"", b"text " * 500, bytes(10240)])
def test_what_is_no_tar_is_named(tmp_path, data):
    path = tmp_path / "set.tar"
    path.write_bytes(data)
    assert f"{path}: not a readable .tar" in error_of(tar_files, str(path))
    assert f"{path}.gone: no such file" in error_of(tar_files, f"{path}.gone")
    assert f"{path}.gone: no such file" in error_of(unpacked, f"{path}.gone", bool)


@pytest.mark.parametrize("cut", [512 + 2000, 512 + 3072 + 100, 2 * 512 + 3072 + 100])
def test_a_tar_cut_off_in_a_file_or_a_header_is_named(tmp_path, cut):
    path = tmp_path / "set.tar"
    path.write_bytes(tar_bytes({"a.png": noise(0), "b.png": noise(1)})[:cut])
    assert f"{path}: not a readable .tar" in error_of(tar_files, str(path))
    assert f"{path}: not a readable .tar" in error_of(
        tar_files, write_tar(path, {"inner.tar": path.read_bytes()})
    )


def test_a_damaged_header_is_not_taken_for_the_end_of_a_tar(tmp_path):
    path = tmp_path / "set.tar"
    data = bytearray(tar_bytes({"a.png": noise(0), "b.png": noise(1), "c.png": noise(2)}))
    data[512 + 3072 + 150] ^= 1
    path.write_bytes(data)
    assert "damaged at byte 3584" in error_of(tar_files, str(path))


def test_an_inner_tar_without_an_end_mark_ends_where_its_file_does(tmp_path):
    inner = tar_bytes({"x.png": noise(3)})[: 512 + 3072]
    path = write_tar(tmp_path / "set.tar", {"n1.tar": inner, "n2.tar": inner, "y.png": b"y"})
    files = tar_files(path)
    assert files.under("") == ["n1/x.png", "n2/x.png", "y.png"]
    assert files.read("n2/x.png") == noise(3)


def test_a_tar_cut_off_between_two_files_is_known_by_its_missing_end_mark(tmp_path):
    path = tmp_path / "set.tar"
    data = tar_bytes({"a.png": noise(0), "b.png": noise(1)})
    ends = {512 + 3072: False, 2 * (512 + 3072): False, 2 * (512 + 3072) + 512: True}
    for end, ended in {**ends, len(data): True}.items():
        path.write_bytes(data[:end])
        assert tar_files(str(path)).ended == ended
    path.write_bytes(data[: 512 + 3072])
    assert tar_files(str(path)).under("") == ["a.png"]


def test_a_tar_cut_off_after_it_was_indexed_is_named_when_read(tmp_path):
    path = tmp_path / "set.tar"
    files = tar_files(write_tar(path, {"a.png": noise(0), "b.png": noise(1)}))
    path.write_bytes(path.read_bytes()[:4600])
    assert files.read("a.png") == noise(0)
    assert f"{path}/b.png: cut off" in error_of(files.read, "b.png")


def test_long_names_links_and_repeated_names_of_a_tar(tmp_path):
    path = tmp_path / "set.tar"
    name = "folder/" * 30 + "ü.png"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for data in (b"old", b"new"):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, name
        archive.addfile(link)
    files = tar_files(str(path))
    assert files.under("") == [name]
    assert files.read(name) == b"new"


def test_an_index_is_a_mapping_of_its_entries():
    places = np.array(array.array("q", [5, 1, 7, 2, 9, 1 << 40])).reshape(3, 2)
    index = TarIndex(["b", "c", "a"], places)
    assert dict(index) == {"a": TarEntry(9, 1 << 40), "b": TarEntry(5, 1), "c": TarEntry(7, 2)}
    assert len(TarIndex([], np.zeros((0, 2), np.int64))) == 0


def test_only_what_is_wanted_is_unpacked(tmp_path):
    path = write_tar(tmp_path / "set.tgz", CONTENTS, "w:gz")
    files = unpacked(path, lambda name: name.startswith("images/a/"))
    assert files.under("") == ["images/a/1.png", "images/a/2.png"]
    assert [name for name, _ in streamed(path, lambda name: name.endswith("txt"))] == ["list.txt"]


@pytest.mark.parametrize("ending", ["gz", "bz2", "xz"])
@pytest.mark.parametrize("harm", ["cut off", "changed"])
def test_a_damaged_compressed_tar_is_named(tmp_path, ending, harm):
    path = tmp_path / "set.tar"
    data = bytearray(tar_bytes({str(i): noise(i) for i in range(10)}, f"w:{ending}"))
    if harm == "changed":
        data[len(data) // 2] ^= 0xFF
    path.write_bytes(data[: len(data) // 2] if harm == "cut off" else data)
    assert f"{path}: not a readable .tar" in error_of(unpacked, str(path), bool)

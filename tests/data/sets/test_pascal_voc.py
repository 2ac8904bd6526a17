"""PASCAL VOC 2012, alone and with SBD's masks, in tiny archives of the official layouts."""

import io
import pickle
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse
from PIL import Image

from drn_jax.data.findings import Findings
from drn_jax.data.labels.pascal_voc import PASCAL_VOC
from drn_jax.data.sets import pascal_voc, sbd
from drn_jax.data.sources import FileSource, Readable
from drn_jax.errors import UserError

TAR = "VOCtrainval_11-May-2012.tar"
TOP = "VOCdevkit/VOC2012/"
TRAIN, VALIDATION = ("2007_000032", "2007_000039"), ("2007_000033",)
SBD_TRAIN, SBD_VALIDATION = ("2008_000008", "2007_000032"), ("2008_000002", "2007_000033")
AUGMENTED = ("2007_000032", "2007_000039", "2008_000002", "2008_000008")
COUNTS = {
    "VOC train": 2,
    "VOC val": 1,
    "SBD train": 2,
    "SBD val": 2,
    "augmented training": 4,
}


def size(id_: str) -> tuple[int, int]:
    """(height, width): of its own for each image."""
    return 6 + int(id_[-1]), 8


def jpeg(id_: str) -> bytes:
    data = io.BytesIO()
    grey = 10 * int(id_[-1])
    height, width = size(id_)
    Image.new("RGB", (width, height), (grey, grey, grey)).save(data, "JPEG", quality=95)
    return data.getvalue()


def own_mask(id_: str) -> np.ndarray:
    """A class after its image, with a border."""
    mask = np.zeros(size(id_), np.uint8)
    mask[1:5, 1:6] = 255
    mask[2:4, 2:5] = 1 + int(id_[-1])
    return mask


def sbd_mask(id_: str) -> np.ndarray:
    """The class after that, without a border."""
    mask = np.zeros(size(id_), np.uint8)
    mask[1:5, 1:6] = 2 + int(id_[-1])
    return mask


def palette_png(mask: np.ndarray) -> bytes:
    """As VOC's: the development kit's colours, ids as indices."""
    image = Image.fromarray(mask, "L").convert("P")
    image.putdata(mask.ravel().tolist())
    colors = [0] * 768
    for label in PASCAL_VOC.labels:
        assert label.color is not None
        colors[3 * label.id : 3 * label.id + 3] = label.color
    image.putpalette(colors)
    return saved(image)


def saved(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def mat(segmentation: np.ndarray) -> bytes:
    """As SBD's: GTcls with boundaries (sparse, a cell a class), the mask and its classes."""
    boundaries = np.empty((20, 1), object)
    for k in range(20):
        boundaries[k, 0] = scipy.sparse.csc_array((segmentation == k + 1).astype(float))
    present = np.unique(segmentation[segmentation > 0]).astype(float)[:, None]
    content = {
        "Boundaries": boundaries,
        "Segmentation": segmentation,
        "CategoriesPresent": present,
    }
    data = io.BytesIO()
    scipy.io.savemat(data, {"GTcls": content}, do_compression=True)
    return data.getvalue()


def lines(ids: tuple[str, ...]) -> bytes:
    return "".join(f"{id_}\n" for id_ in ids).encode()


def voc_files() -> dict[str, bytes]:
    """All images that any list names, and what else the archive holds of them."""
    files = {
        f"{TOP}ImageSets/Segmentation/train.txt": lines(TRAIN),
        f"{TOP}ImageSets/Segmentation/val.txt": lines(VALIDATION),
        f"{TOP}ImageSets/Segmentation/trainval.txt": lines(TRAIN + VALIDATION),
    }
    for id_ in {*TRAIN, *VALIDATION, *SBD_TRAIN, *SBD_VALIDATION}:
        files[f"{TOP}JPEGImages/{id_}.jpg"] = jpeg(id_)
        files[f"{TOP}Annotations/{id_}.xml"] = b"<annotation/>"
    for id_ in TRAIN + VALIDATION:
        files[f"{TOP}SegmentationClass/{id_}.png"] = palette_png(own_mask(id_))
    return files


def sbd_files() -> dict[str, bytes]:
    top = "benchmark_RELEASE/dataset/"
    files = {
        f"{top}train.txt": lines(SBD_TRAIN),
        f"{top}val.txt": lines(SBD_VALIDATION),
        "benchmark_RELEASE/README": b"Semantic Boundaries",
    }
    for id_ in SBD_TRAIN + SBD_VALIDATION:
        files[f"{top}cls/{id_}.mat"] = mat(sbd_mask(id_))
        files[f"{top}inst/{id_}.mat"] = b"instances"
        files[f"{top}img/{id_}.jpg"] = jpeg(id_)
    return files


def converted_files() -> dict[str, bytes]:
    files = {
        f"SegmentationClassAug/{id_}.png": saved(Image.fromarray(sbd_mask(id_)))
        for id_ in SBD_TRAIN + SBD_VALIDATION
    }
    # DeepLab's folder has VOC's own masks as well.
    for id_ in TRAIN + VALIDATION:
        files[f"SegmentationClassAug/{id_}.png"] = saved(Image.fromarray(own_mask(id_)))
    return files


def write_folder(root: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> None:
    with tarfile.open(path, mode) as archive:  # pyright: ignore
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """VOC and SBD, extracted."""
    write_folder(tmp_path, voc_files() | sbd_files())
    return tmp_path


def read_augmented(directory: Path, counts=COUNTS):
    """The set, which must be without findings."""
    findings = Findings()
    data = pascal_voc.read_augmented(str(directory), findings, counts)
    assert findings.faults == []
    assert findings.warnings == {}
    return data


def fault_of(directory: Path, read=pascal_voc.read, **options) -> tuple[str, "pascal_voc.Dataset"]:
    """The one fault, a line, and the set that is read nevertheless."""
    findings = Findings()
    data = read(str(directory), findings, **options)
    (fault,) = findings.faults
    assert "\n" not in fault
    return fault, data


def error_of(function, *args) -> str:
    with pytest.raises(UserError) as caught:
        function(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def ids_of(source) -> list[str]:
    return [Path(name).stem for name in source.names]


def check(source, ids: tuple[str, ...]) -> None:
    """The source has the examples `ids` in that order; masks of VOC where VOC has one."""
    assert ids_of(source) == list(ids)
    assert isinstance(source, Readable)
    for i, id_ in enumerate(ids):
        example = source[i]
        assert abs(int(example["image"][0, 0, 0]) - 10 * int(id_[-1])) <= 1
        expected = own_mask(id_) if id_ in TRAIN + VALIDATION else sbd_mask(id_)
        assert example["mask"].dtype == np.uint8
        np.testing.assert_array_equal(example["mask"], expected)
        assert source.record(i).image == jpeg(id_)
    assert source.sizes() == (tuple(map(size, ids)) if len(ids) > 1 else None)


@pytest.mark.parametrize("form", ["tar", "VOCdevkit", "VOC2012", "itself"])
def test_voc_is_read_from_its_tar_and_from_its_folders(tmp_path, form):
    if form == "tar":
        write_tar(tmp_path / TAR, voc_files())
    else:
        top = {"VOCdevkit": TOP, "VOC2012": "VOC2012/", "itself": ""}[form]
        write_folder(tmp_path, {top + n.removeprefix(TOP): d for n, d in voc_files().items()})
    findings = Findings()
    data = pascal_voc.read(str(tmp_path), findings)
    assert findings.faults == []
    check(data.train, TRAIN)
    check(data.validation, VALIDATION)
    assert data.classes == PASCAL_VOC.names
    assert data.colors == PASCAL_VOC.colors
    assert data.train_sizes() == tuple(map(size, TRAIN))
    np.testing.assert_allclose(np.multiply(data.mean, 255), [116.52, 111.36, 102.93])


def test_a_tar_without_an_end_mark_is_warned_of(tmp_path):
    path = tmp_path / TAR
    write_tar(path, voc_files())
    findings = Findings()
    pascal_voc.read(str(tmp_path), findings)
    assert findings.warnings == {}
    with tarfile.open(path) as archive:
        archive.getmembers()
    path.write_bytes(path.read_bytes()[: archive.offset])
    data = pascal_voc.read(str(tmp_path), findings)
    assert findings.faults == []
    assert findings.warnings == {"archives without an end mark (cut off?)": [str(path)]}
    check(data.train, TRAIN)


@pytest.mark.parametrize("form", ["tgz", "benchmark_RELEASE", "dataset"])
def test_the_augmented_list_is_sbd_and_voc_train_without_voc_val(tmp_path, form):
    write_tar(tmp_path / TAR, voc_files())
    if form == "tgz":
        write_tar(tmp_path / "benchmark.tgz", sbd_files(), "w:gz")
    else:
        write_folder(tmp_path, sbd_files())
        if form == "dataset":
            shutil.move(tmp_path / "benchmark_RELEASE/dataset", tmp_path / "dataset")
            shutil.rmtree(tmp_path / "benchmark_RELEASE")
    data = read_augmented(tmp_path)
    check(data.train, AUGMENTED)
    check(data.validation, VALIDATION)


def test_of_a_tgz_only_the_masks_that_are_needed_stay_in_memory(tmp_path):
    write_folder(tmp_path, voc_files())
    write_tar(tmp_path / "benchmark.tgz", sbd_files(), "w:gz")
    source = read_augmented(tmp_path).train
    assert isinstance(source, FileSource)
    assert isinstance(source.masks, pascal_voc.OwnOrOther)
    held = source.masks.other.files.under("")
    top = "benchmark_RELEASE/dataset/"
    masks = [f"{top}cls/2008_000002.mat", f"{top}cls/2008_000008.mat"]
    assert held == [*masks, f"{top}train.txt", f"{top}val.txt"]
    source = pickle.loads(pickle.dumps(source))
    (tmp_path / "benchmark.tgz").unlink()
    check(source, AUGMENTED)


@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.parametrize(
    ("place", "listing"),
    [
        ("train_aug.txt", "pairs"),
        ("train_aug.txt", "ids"),
        (f"{TOP}ImageSets/Segmentation/trainaug.txt", "ids"),
        # Without VOC's train, as MMSegmentation lists them.
        (f"{TOP}ImageSets/Segmentation/aug.txt", "rest"),
        (None, "none"),
    ],
)
def test_converted_masks_serve_in_place_of_sbd(tmp_path, archived, place, listing):
    write_folder(tmp_path, voc_files())
    if archived:
        with zipfile.ZipFile(tmp_path / "SegmentationClassAug.zip", "w") as archive:
            for name, data in converted_files().items():
                archive.writestr(name, data)
                archive.writestr(f"__MACOSX/{name}", b"resource fork")
    else:
        write_folder(tmp_path / TOP, converted_files())
    if place:
        text = "".join(
            f"/JPEGImages/{id_}.jpg /SegmentationClassAug/{id_}.png\n"
            if listing == "pairs"
            else f"{id_}\n"
            for id_ in AUGMENTED[::-1]
            if listing != "rest" or id_ not in TRAIN
        )
        (tmp_path / place).write_text(text)
    data = read_augmented(tmp_path)
    check(data.train, AUGMENTED)
    check(data.validation, VALIDATION)


def test_sbd_itself_goes_before_converted_masks(tree):
    white = np.full(size("2008_000008"), 255, np.uint8)
    write_folder(tree, {"SegmentationClassAug/2008_000008.png": saved(Image.fromarray(white))})
    check(read_augmented(tree).train, AUGMENTED)


def test_other_counts_than_the_official_ones_are_one_fault_that_names_them_all(tree):
    fault, data = fault_of(tree, pascal_voc.read_augmented)
    for name, found, official in [
        ("VOC train", 2, 1464),
        ("VOC val", 1, 1449),
        ("SBD train", 2, 8498),
        ("SBD val", 2, 2857),
        ("augmented training", 4, 10582),
    ]:
        assert f"{name} {found} (expected {official})" in fault
    assert "fetch VOC and SBD again" in fault
    assert "`python -m drn_jax.data prepare pascal_voc_aug --partial`" in fault
    check(data.train, AUGMENTED)
    fault, _ = fault_of(tree, pascal_voc.read_augmented, counts=COUNTS | {"SBD val": 3})
    assert "SBD val 2 (expected 3)" in fault
    read_augmented(tree, counts=None)


def test_the_official_counts_of_converted_masks_are_asserted_too(tmp_path):
    write_folder(tmp_path, voc_files() | converted_files())
    fault, _ = fault_of(tmp_path, pascal_voc.read_augmented)
    assert "augmented training 4 (expected 10582)" in fault
    assert "SBD" not in fault.partition("official ones")[2].partition(";")[0]


@pytest.mark.parametrize(
    "missing", [f"{TOP}JPEGImages/2007_000032.jpg", f"{TOP}SegmentationClass/2007_000032.png"]
)
def test_a_missing_file_of_voc_is_named_and_the_rest_is_read(tree, missing):
    (tree / missing).unlink()
    fault, data = fault_of(tree)
    assert str(tree / missing) in fault
    check(data.train, TRAIN[1:])
    # VOC's own mask is not replaced by SBD's, which this image has too.
    fault, data = fault_of(tree, pascal_voc.read_augmented, counts=COUNTS)
    assert str(tree / missing) in fault
    check(data.train, AUGMENTED[1:])


def test_a_missing_mask_of_sbd_is_named_and_the_rest_is_read(tree):
    path = tree / "benchmark_RELEASE/dataset/cls/2008_000008.mat"
    path.unlink()
    fault, data = fault_of(tree, pascal_voc.read_augmented, counts=COUNTS)
    assert str(path) in fault
    check(data.train, AUGMENTED[:-1])


def test_an_image_of_both_lists_of_voc_is_named_and_left_to_validation(tree):
    path = tree / TOP / "ImageSets/Segmentation/train.txt"
    path.write_bytes(lines(TRAIN + VALIDATION))
    fault, data = fault_of(tree)
    assert str(path) in fault
    assert VALIDATION[0] in fault
    check(data.train, TRAIN)
    check(data.validation, VALIDATION)


def test_a_validation_image_of_a_converted_list_is_named_and_left_out(tmp_path):
    write_folder(tmp_path, voc_files() | converted_files())
    (tmp_path / "train_aug.txt").write_bytes(lines(AUGMENTED + VALIDATION))
    fault, data = fault_of(
        tmp_path, pascal_voc.read_augmented, counts={"augmented training": len(AUGMENTED)}
    )
    assert str(tmp_path / "train_aug.txt") in fault
    assert VALIDATION[0] in fault
    check(data.train, AUGMENTED)


def test_a_line_that_is_repeated_or_pairs_two_images_is_named(tmp_path):
    write_folder(tmp_path, voc_files() | converted_files())
    mixed = "/JPEGImages/2008_000008.jpg /SegmentationClassAug/2008_000002.png\n"
    (tmp_path / "train_aug.txt").write_bytes(lines(AUGMENTED) + mixed.encode())
    fault, data = fault_of(tmp_path, pascal_voc.read_augmented, counts=None)
    assert "train_aug.txt: line 5" in fault
    check(data.train, AUGMENTED)
    (tmp_path / "train_aug.txt").write_bytes(lines((*AUGMENTED, AUGMENTED[0])))
    fault, data = fault_of(tmp_path, pascal_voc.read_augmented, counts=None)
    assert "train_aug.txt: line 5 lists 2007_000032 again (line 1)" in fault
    check(data.train, AUGMENTED)


def test_masks_that_are_no_masks_are_named_when_they_are_read(tree):
    colored = tree / TOP / "SegmentationClass/2007_000039.png"
    Image.open(colored).convert("RGB").save(colored)
    top = tree / "benchmark_RELEASE/dataset/cls"
    (top / "2008_000002.mat").write_bytes(b"MATLAB 5.0, cut off")
    (top / "2008_000008.mat").write_bytes(mat(np.full(size("2008_000008"), 21, np.uint8)))
    source = read_augmented(tree).train
    messages = [error_of(source.__getitem__, i) for i in (1, 2, 3)]
    assert str(colored) in messages[0]
    assert "colour" in messages[0]
    assert str(top / "2008_000002.mat") in messages[1]
    assert f"{top / '2008_000008.mat'}: value 21 at row 0, column 0" in messages[2]
    source[0]


def test_an_image_and_a_mask_of_unequal_size_are_named(tree):
    path = tree / "benchmark_RELEASE/dataset/cls/2008_000008.mat"
    path.write_bytes(mat(np.zeros((3, 4), np.uint8)))
    message = error_of(read_augmented(tree).train.__getitem__, 3)
    assert str(path) in message
    assert "3x4" in message


@pytest.mark.parametrize(
    "content",
    [
        {"GTinst": {"Segmentation": np.zeros((2, 2), np.uint8)}},
        {"GTcls": {"Boundaries": np.zeros((2, 2))}},
        {"GTcls": np.zeros((2, 2))},
        {"GTcls": {"Segmentation": np.zeros((2, 2))}},
        {"GTcls": {"Segmentation": np.zeros((2, 2, 2), np.uint8)}},
        {"GTcls": {"Segmentation": np.full((2, 2), -1, np.int16)}},
        {"GTcls": {"Segmentation": np.full((2, 2), 256, np.int16)}},
    ],
)
def test_a_mat_without_a_mask_of_ids_is_refused(content):
    data = io.BytesIO()
    scipy.io.savemat(data, content)
    assert error_of(sbd.decode_mat, data.getvalue(), "a.mat").startswith("a.mat: ")


def test_what_is_not_there_is_said_in_a_line(tmp_path, tree):
    absent = tmp_path / "absent"
    assert str(absent) in error_of(pascal_voc.read, str(absent), Findings())
    absent.mkdir()
    assert TAR in error_of(pascal_voc.read, str(absent), Findings())
    shutil.rmtree(tree / "benchmark_RELEASE")
    message = error_of(pascal_voc.read_augmented, str(tree), Findings())
    assert "benchmark.tgz" in message
    assert "SegmentationClassAug" in message
    path = tree / TOP / "ImageSets/Segmentation/val.txt"
    path.write_text("\n")
    assert str(path) in error_of(pascal_voc.read, str(tree), Findings())
    path.unlink()
    assert str(path) in error_of(pascal_voc.read, str(tree), Findings())
    path.write_bytes(b"2007_999999\n")
    assert "val" in error_of(pascal_voc.read, str(tree), Findings())

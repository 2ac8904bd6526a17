"""ILSVRC2012: archives, Kaggle's tree and class folders are the same set; boxes become edges."""

import io
import pickle
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drn_jax.data.dataset import Dataset
from drn_jax.data.findings import Findings
from drn_jax.data.sets import imagenet
from drn_jax.errors import UserError

TENCH, GOLDFISH, SHEEPDOG = "n01440764", "n01443537", "n02105855"
WNIDS = imagenet._shipped("labels.txt")
LISTED = ("n01751748", "n09193705", SHEEPDOG)
"""The classes of the first three validation images, as the development kit lists them."""

COLORS = {TENCH: (200, 30, 40), GOLDFISH: (30, 200, 40), SHEEPDOG: (30, 40, 200)}
COLORS |= {LISTED[0]: (90, 90, 0), LISTED[1]: (0, 90, 90)}

Files = dict[str, bytes]


def jpeg(color: tuple[int, int, int], width: int = 50, height: int = 40, **options) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (width, height), color).save(data, "JPEG", quality=95, **options)
    return data.getvalue()


def xml(*objects: tuple[str, tuple[float, ...]], width: int = 50, height: int = 40) -> bytes:
    """An annotation as image-net.org writes it."""
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    body = ""
    for name, box in objects:
        corners = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        bndbox = "".join(f"<{tag}>{value}</{tag}>" for tag, value in corners)
        body += f"<object><name>{name}</name><bndbox>{bndbox}</bndbox></object>"
    return f"<annotation><folder>%s</folder>{size}{body}</annotation>\n".encode()


def images() -> Files:
    """Three training images of two classes, with numbers as they occur, and three of validation."""
    files = {f"train/{TENCH}/{TENCH}_{i}.JPEG": jpeg(COLORS[TENCH]) for i in (10026, 18)}
    files[f"train/{SHEEPDOG}/{SHEEPDOG}_2933.JPEG"] = jpeg(COLORS[SHEEPDOG])
    for i, wnid in enumerate(LISTED, start=1):
        files[f"val/ILSVRC2012_val_{i:08}.JPEG"] = jpeg(COLORS[wnid])
    return files


def annotations() -> Files:
    files = {f"train/{TENCH}/{TENCH}_18.xml": xml((TENCH, (0, 5, 49, 20)), (TENCH, (3, 4, 5, 6)))}
    for i, wnid in enumerate(LISTED, start=1):
        files[f"val/ILSVRC2012_val_{i:08}.xml"] = xml((wnid, (i, 2, 30, 39)))
    return files


def tar(path: Path | io.BytesIO, files: Files, mode: str = "w") -> None:
    where = {"fileobj": path} if isinstance(path, io.BytesIO) else {"name": path}
    with tarfile.open(mode=mode, **where) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def below(files: Files, folder: str) -> Files:
    return {n.removeprefix(folder): data for n, data in files.items() if n.startswith(folder)}


def write_tree(root: Path, files: Files) -> None:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


def write_archives(root: Path, files: Files) -> None:
    """The two archives of images; classes are archives in the one for training."""
    root.mkdir(exist_ok=True)
    train = below(files, "train/")
    classes = {}
    for wnid in sorted({name.split("/")[0] for name in train}):
        inner = io.BytesIO()
        tar(inner, below(train, f"{wnid}/"))
        classes[f"{wnid}.tar"] = inner.getvalue()
    tar(root / "ILSVRC2012_img_train.tar", classes)
    # In the official archive the validation images lie in no order.
    tar(root / "ILSVRC2012_img_val.tar", dict(reversed(below(files, "val/").items())))


def write_box_archives(root: Path, files: Files, endings: tuple[str, str]) -> None:
    for part, ending in zip(("train", "val"), endings, strict=True):
        inside = below(files, f"{part}/")
        if part == "val":
            inside = {f"val/{name}": data for name, data in inside.items()}
        version = "v2" if part == "train" else "v3"
        mode = "w" if ending == ".tar" else "w:gz"
        tar(root / f"ILSVRC2012_bbox_{part}_{version}{ending}", inside, mode)


def write_class_folders(root: Path, files: Files) -> None:
    """As fyu/drn's classify.py wants them: validation images in folders of their class, too."""
    moved = {name: data for name, data in files.items() if name.startswith("train/")}
    for number, wnid in enumerate(LISTED, start=1):
        name = f"ILSVRC2012_val_{number:08}.JPEG"
        moved[f"val/{wnid}/{name}"] = files[f"val/{name}"]
        moved[f"train/{wnid}/{wnid}_1.JPEG"] = jpeg(COLORS[wnid])
    write_tree(root, moved)


LAYOUTS: dict[str, Callable[[Path, Files, Files], None]] = {
    "archives": lambda root, files, boxes: (
        write_archives(root, files),
        write_box_archives(root, boxes, (".tar.gz", ".tgz")),
    ),
    "tars": lambda root, files, boxes: (
        write_archives(root, files),
        write_box_archives(root, boxes, (".tar", ".tar")),
    ),
    "kaggle": lambda root, files, boxes: (
        write_tree(root / "ILSVRC/Data/CLS-LOC", files),
        write_tree(root / "ILSVRC/Annotations/CLS-LOC", boxes),
    ),
    "extracted": lambda root, files, boxes: (
        write_tree(root, files),
        write_box_archives(root, boxes, (".tar.gz", ".tgz")),
    ),
    "in ILSVRC": lambda root, files, boxes: (
        write_tree(root / "Data/CLS-LOC", files),
        write_tree(root / "Annotations/CLS-LOC", boxes),
    ),
}


@pytest.fixture(params=list(LAYOUTS))
def write(request, tmp_path):
    """Write the images and annotations in one of the layouts; returns the directory."""

    def write(files: Files, boxes: Files) -> str:
        LAYOUTS[request.param](tmp_path / "ilsvrc", files, boxes)
        return str(tmp_path / "ilsvrc")

    return write


def read(directory: str | Path) -> Dataset:
    """The set, in which nothing is wrong."""
    findings = Findings()
    data = imagenet.read(str(directory), findings)
    assert (findings.faults, findings.warnings) == ([], {})
    return data


def read_all(directory: str | Path) -> tuple[Dataset, Findings]:
    """The set, and what is found when all of it is decoded."""
    findings = Findings()
    data = imagenet.read(str(directory), findings)
    for source in (data.train, data.validation):
        for index in range(len(source)):
            try:
                source[index]
                remarks = source.remarks(index) if source.remarks else ()
            except UserError as error:
                findings.fault(str(error))
            else:
                for kind, text in remarks:
                    findings.warn(kind, text)
    assert all("\n" not in fault for fault in findings.faults)
    return data, findings


def read_error(directory: Path) -> str:
    with pytest.raises(UserError) as caught:
        imagenet.read(str(directory), Findings())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def annotated(
    tmp_path: Path, data: bytes, picture: bytes | None = None
) -> tuple[Dataset, Findings]:
    """The set with that annotation of training image 18 of TENCH, and what is found in it."""
    name = f"train/{TENCH}/{TENCH}_18"
    files = images() | ({} if picture is None else {f"{name}.JPEG": picture})
    LAYOUTS["kaggle"](tmp_path, files, annotations() | {f"{name}.xml": data})
    return read_all(tmp_path)


@pytest.mark.parametrize("name", [imagenet.TRAIN, imagenet.VALIDATION])
def test_an_archive_of_images_cut_off_between_two_is_a_fault_and_the_rest_is_read(tmp_path, name):
    write_archives(tmp_path, images())
    path = tmp_path / name
    with tarfile.open(path) as archive:
        _, second, *_ = archive
    path.write_bytes(path.read_bytes()[: second.offset])
    findings = Findings()
    data = imagenet.read(str(tmp_path), findings)
    (fault,) = findings.faults
    assert fault.startswith(f"{path}: ends without the end mark: it is cut off; fetch it again")
    train_cut = name == imagenet.TRAIN
    assert (len(data.train), len(data.validation)) == ((2, 3) if train_cut else (3, 1))


def test_an_archive_of_boxes_without_an_end_mark_is_warned_of(tmp_path):
    LAYOUTS["tars"](tmp_path, images(), annotations())
    path = tmp_path / "ILSVRC2012_bbox_val_v3.tar"
    with tarfile.open(path) as archive:
        archive.getmembers()
    path.write_bytes(path.read_bytes()[: archive.offset])
    findings = Findings()
    imagenet.read(str(tmp_path), findings)
    assert findings.faults == []
    assert findings.warnings == {"archives without an end mark (cut off?)": [str(path)]}


def test_the_shipped_lists_are_complete():
    assert len(WNIDS) == len(set(WNIDS)) == 1000
    assert sorted(WNIDS) == WNIDS
    listed = imagenet._shipped("validation_labels.txt")
    assert tuple(listed[:3]) == LISTED
    assert Counter(listed) == dict.fromkeys(WNIDS, 50)


def test_every_layout_gives_the_same_examples(write):
    data, findings = read_all(write(images(), annotations()))
    assert (findings.faults, findings.warnings) == ([], {})
    assert data.name == "ilsvrc"
    assert data.classes == tuple(WNIDS)
    wnids = {"train": [TENCH, TENCH, SHEEPDOG], "validation": LISTED}
    for split, source in data.splits.items():
        for i, wnid in enumerate(wnids[split]):
            example = source[i]
            assert set(example) == {"image", "label", "boxes"}
            assert (example["label"].dtype, example["boxes"].dtype) == (np.int32, np.float32)
            # Whichever classes are there, a label is the place among all thousand.
            assert example["label"] == WNIDS.index(wnid)
            assert example["image"].shape == (40, 50, 3)
            assert np.abs(example["image"].astype(int) - COLORS[wnid]).max() <= 4
    # Both ends of a box are inside it.
    boxes = [data.train[i]["boxes"] for i in range(3)]
    assert [array.shape for array in boxes] == [(0, 4), (2, 4), (0, 4)]
    np.testing.assert_array_equal(boxes[1], [[0, 5, 50, 21], [3, 4, 6, 7]])
    for i in range(3):
        np.testing.assert_array_equal(data.validation[i]["boxes"], [[i + 1, 2, 31, 40]])


@pytest.mark.parametrize("boxes", ["tree", "archives"])
def test_class_folders_number_the_folders_and_find_the_same_boxes(tmp_path, boxes):
    write_class_folders(tmp_path, images())
    if boxes == "tree":
        write_tree(tmp_path / "Annotations/CLS-LOC", annotations())
    else:
        write_box_archives(tmp_path, annotations(), (".tar.gz", ".tgz"))
    data = read(tmp_path)
    assert data.classes == tuple(sorted({TENCH, *LISTED}))
    for i in range(3):
        example = data.validation[i]
        wnid = data.classes[int(example["label"])]
        assert np.abs(example["image"].astype(int) - COLORS[wnid]).max() <= 4
        number = LISTED.index(wnid) + 1
        np.testing.assert_array_equal(example["boxes"], [[number, 2, 31, 40]])
    np.testing.assert_array_equal(data.train[1]["boxes"], [[0, 5, 50, 21], [3, 4, 6, 7]])


def test_without_annotations_there_are_no_boxes(tmp_path):
    write_archives(tmp_path, images())
    assert set(read(tmp_path).train[0]) == {"image", "label"}


def test_class_folders_need_not_be_named_by_wordnet(tmp_path):
    write_tree(
        tmp_path, {f"{s}/{c}/1.JPEG": jpeg((9, 9, 9)) for s in ("train", "val") for c in "ab"}
    )
    assert read(tmp_path).classes == ("a", "b")


@pytest.mark.parametrize("name", ["LOC_synset_mapping.txt", "synset_words.txt", "words.txt"])
def test_classes_are_named_in_words_and_the_two_cranes_told_apart(write, name):
    directory = write(images(), annotations())
    between = "\t" if name == "words.txt" else " "
    lines = (TENCH, "tench, Tinca tinca"), ("n02012849", "crane"), ("n03126707", "crane, hoist")
    text = "".join(f"{wnid}{between}{names}\n" for wnid, names in lines)
    (Path(directory) / name).write_text(text)
    classes = read(directory).classes
    assert len(classes) == len(set(classes)) == 1000
    named = {wnid: classes[WNIDS.index(wnid)] for wnid, _ in (*lines, (GOLDFISH, ""))}
    assert named == {
        TENCH: "tench",
        "n02012849": "crane (n02012849)",
        "n03126707": "crane (n03126707)",
        GOLDFISH: GOLDFISH,
    }


def test_a_byte_order_mark_is_no_part_of_the_first_word(write):
    directory = write(images(), annotations())
    text = f"{TENCH} tench, Tinca tinca\r\n"
    (Path(directory) / "LOC_synset_mapping.txt").write_text(text, encoding="utf-8-sig", newline="")
    assert read(directory).classes[WNIDS.index(TENCH)] == "tench"


def test_cmyk_png_grey_and_turned_images_become_upright_rgb(write):
    cmyk, png, grey = io.BytesIO(), io.BytesIO(), io.BytesIO()
    Image.new("CMYK", (50, 40), (0, 255, 255, 0)).save(cmyk, "JPEG", quality=95)
    assert b"Adobe" in cmyk.getvalue()  # Whose CMYK is stored inverted.
    Image.new("RGB", (50, 40), (1, 2, 3)).save(png, "PNG")
    Image.new("L", (50, 40), 77).save(grey, "JPEG", quality=95)
    exif = Image.Exif()
    exif[0x0112] = 6
    folder = f"train/{SHEEPDOG}/{SHEEPDOG}"
    odd = {"1": cmyk.getvalue(), "2": png.getvalue(), "3": grey.getvalue()}
    odd["4"] = jpeg((9, 9, 200), exif=exif)
    files = images() | {f"{folder}_{number}.JPEG": data for number, data in odd.items()}
    source = read(write(files, annotations())).train
    by_stem = {Path(name).stem: i for i, name in enumerate(source.names)}
    for number, shape, color in (
        ("1", (40, 50, 3), (255, 0, 0)),
        ("2", (40, 50, 3), (1, 2, 3)),
        ("3", (40, 50, 3), (77, 77, 77)),
        ("4", (50, 40, 3), (9, 9, 200)),
    ):
        pixels = source[by_stem[f"{SHEEPDOG}_{number}"]]["image"]
        assert pixels.shape == shape
        assert np.abs(pixels.astype(int) - color).max() <= 4


def test_sources_survive_pickling(write):
    for source in read(write(images(), annotations())).splits.values():
        copy = pickle.loads(pickle.dumps(source))
        for i in range(3):
            for key, value in source[i].items():
                np.testing.assert_array_equal(copy[i][key], value)


def test_changing_boxes_does_not_change_the_source(write):
    source = read(write(images(), annotations())).train
    for i in range(2):
        source[i]["boxes"][:] = 7
    np.testing.assert_array_equal(source[1]["boxes"][0], [0, 5, 50, 21])


@pytest.mark.parametrize(
    ("objects", "kind", "kept"),
    [
        ([(GOLDFISH, (1, 1, 9, 9)), (TENCH, (0, 0, 9, 9))], "of another class", [[0, 0, 10, 10]]),
        ([("Scottish_deerhound", (0, 0, 9, 9))], None, [[0, 0, 10, 10]]),
        ([(TENCH, (0.4, 0, 9.6, 9))], None, [[0.4, 0, 10.6, 10]]),
        ([(TENCH, (0, 0, 50, 40))], None, [[0, 0, 50, 40]]),
        ([(TENCH, (-3, 0, 60, 9))], "beyond the image", [[0, 0, 50, 10]]),
        ([(TENCH, (5, 5, 5, 9))], "without area", [[5, 5, 6, 10]]),
        ([(TENCH, (9, 5, 5, 9)), (TENCH, (0, 0, 1, 1))], "without area", [[0, 0, 2, 2]]),
        ([(TENCH, (60, 5, 70, 9)), (TENCH, (0, 0, 1, 1))], "without area", [[0, 0, 2, 2]]),
        ([], "without a box", []),
    ],
)
def test_boxes_that_are_odd_are_kept_if_they_have_an_area_and_warned_of(
    tmp_path, objects, kind, kept
):
    data, findings = annotated(tmp_path, xml(*objects))
    assert findings.faults == []
    expected = np.array(kept, np.float32).reshape(-1, 4)
    np.testing.assert_array_equal(data.train[1]["boxes"], expected)
    assert [name for name in findings.warnings if kind and kind in name] == list(findings.warnings)
    for texts in findings.warnings.values():
        assert f"{TENCH}_18.xml" in texts[0]


def test_boxes_of_an_image_of_another_size_are_scaled_to_it_with_a_warning(tmp_path):
    stated = xml((TENCH, (0, 5, 99, 19)), width=100, height=20)
    data, findings = annotated(tmp_path, stated)
    np.testing.assert_array_equal(data.train[1]["boxes"], [[0, 10, 50, 40]])
    (kind,) = findings.warnings
    assert kind == "boxes of images of another size, scaled"
    assert f"{TENCH}_18.xml: 20x100" in findings.warnings[kind][0]
    assert f"{TENCH}_18.JPEG: 40x50" in findings.warnings[kind][0]


def test_boxes_of_an_image_that_exif_turns_are_left_out_with_a_warning(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 8
    picture = jpeg(COLORS[TENCH], exif=exif)
    data, findings = annotated(tmp_path, xml((TENCH, (0, 5, 49, 20))), picture)
    assert data.train[1]["image"].shape == (50, 40, 3)
    assert data.train[1]["boxes"].shape == (0, 4)
    assert list(findings.warnings) == ["boxes of images that are turned, left out"]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (b"", "not readable as XML"),
        (b"<annotation><size>", "not readable as XML"),
        (b'<?xml version="1.0" encoding="none"?><annotation/>', "not readable as XML"),
        (b"<annotation></annotation>", "<size/height> must be a number, not None"),
        (xml(width=0), "size 40x0 has no pixel"),
        (xml((LISTED[1], ("a", 1, 2, 3))), "<bndbox/xmin> must be a number, not 'a'"),
        (xml((LISTED[1], ("nan", 1, 2, 3))), "<bndbox/xmin> must be a number, not 'nan'"),
        (xml((TENCH, (0, 0, 9, 9))), f"is of class {TENCH}, but the image of {LISTED[1]}"),
    ],
)
def test_malformed_annotations_are_faults_that_name_the_file(write, text, part):
    boxes = annotations() | {"val/ILSVRC2012_val_00000002.xml": text}
    data, findings = read_all(write(images(), boxes))
    (fault,) = findings.faults
    assert "val/ILSVRC2012_val_00000002.xml: " in fault
    assert part in fault
    assert len(data.validation) == 3


def test_validation_images_without_annotation_are_warned_of(write):
    boxes = annotations()
    del boxes["val/ILSVRC2012_val_00000002.xml"]
    data, findings = read_all(write(images(), boxes))
    assert findings.faults == []
    (texts,) = findings.warnings.values()
    assert list(findings.warnings) == ["validation images without annotation"]
    assert [text[-10:] for text in texts] == ["00002.JPEG"]
    assert data.validation[1]["boxes"].shape == (0, 4)


def test_a_missing_archive_of_boxes_is_one_warning(tmp_path):
    write_archives(tmp_path, images())
    write_box_archives(tmp_path, annotations(), (".tar.gz", ".tgz"))
    (tmp_path / "ILSVRC2012_bbox_val_v3.tgz").unlink()
    data, findings = read_all(tmp_path)
    (text,) = findings.warnings["validation images without annotation"]
    assert text.startswith(f"{tmp_path / 'ILSVRC2012_bbox_val_v3.tgz'}: missing")
    assert len(data.train[1]["boxes"]) == 2
    assert data.validation[0]["boxes"].shape == (0, 4)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("train/n99999999/n99999999_1.JPEG", ["n99999999: 1 images", "none of the 1000"]),
        (f"train/{TENCH}/{GOLDFISH}_1.JPEG", [f"an image of {GOLDFISH} among those of {TENCH}"]),
        ("val/ILSVRC2012_val_00050001.JPEG", ["its label is not known"]),
        ("val/cat.JPEG", ["val_00050000, so its label is not known"]),
        ("val/again/ILSVRC2012_val_00000003.JPEG", ["is", "00000003.JPEG again"]),
    ],
)
def test_images_without_a_known_label_are_faults_and_left_out(write, name, parts):
    findings = Findings()
    directory = write(images() | {name: jpeg((9, 9, 9))}, annotations())
    data = imagenet.read(directory, findings)
    (fault,) = findings.faults
    for part in (directory, *parts):
        assert part in fault
    assert (len(data.train), len(data.validation)) == (3, 3)


def test_other_files_are_passed_over(write):
    extra = {f"train/{TENCH}/._{TENCH}_18.JPEG": b"mac", "val/readme.txt": b"text"}
    assert len(read(write(images() | extra, annotations())).validation) == 3


@pytest.mark.parametrize("name", ["ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"])
def test_the_archive_that_is_missing_is_named(tmp_path, name):
    write_archives(tmp_path, images())
    (tmp_path / name).unlink()
    assert read_error(tmp_path).startswith(f"{tmp_path / name}: missing")


def test_an_archive_that_was_cut_off_is_named(tmp_path):
    write_archives(tmp_path, images())
    path = tmp_path / "ILSVRC2012_img_train.tar"
    path.write_bytes(path.read_bytes()[:3000])
    assert read_error(tmp_path).startswith(f"{path}: not a readable .tar")


def test_a_directory_without_any_layout_is_told_what_is_looked_for(tmp_path):
    message = read_error(tmp_path)
    for part in (str(tmp_path), "ILSVRC2012_img_train.tar", "ILSVRC/Data/CLS-LOC/", "train/CLASS/"):
        assert part in message
    assert f"{tmp_path / 'gone'}: no such folder" in read_error(tmp_path / "gone")


def test_a_split_without_an_image_is_named(tmp_path):
    write_archives(tmp_path, below(images(), "") | {"val/readme.txt": b""})
    tar(tmp_path / "ILSVRC2012_img_val.tar", {"readme.txt": b"text"})
    message = read_error(tmp_path)
    assert message.startswith(f"{tmp_path / 'ILSVRC2012_img_val.tar'}: holds no image")

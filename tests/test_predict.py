"""`python -m drn_jax.predict`: images as people have them in, masks, classes, boxes out."""

import csv
import io
import json
import signal
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from drn_jax import trained
from drn_jax.data.image import decode_rgb
from drn_jax.data.labels.cityscapes import CITYSCAPES
from drn_jax.errors import UserError
from drn_jax.evaluation.dense import ClassMaps
from drn_jax.predict import __main__ as program
from drn_jax.predict import files, pipeline, segmentation

SEED = 3
STREETS = ("road", "sky", "car")
ANIMALS = ("cat", "dog", "eel", "fox", "gnu", "hen")


@pytest.fixture
def predict(command):
    """`predict(*args)`: exit status and output of the command."""
    return partial(command, program)


@pytest.fixture(scope="module")
def segmenting(tmp_path_factory, save_random):
    """A working directory of segmentation."""
    data = {"name": "list_folder", "crop": (32, 32)}
    folder = tmp_path_factory.mktemp("seg") / "run"
    return save_random(folder, "drn_d_22", "segmentation", STREETS, data, SEED)


@pytest.fixture(scope="module")
def classifying(tmp_path_factory, save_random):
    """A working directory of classification."""
    data = {"name": "class_folder", "crop": 48, "resize": 56}
    folder = tmp_path_factory.mktemp("cls") / "run"
    return save_random(folder, "drn_d_22", "classification", ANIMALS, data, SEED)


def photograph(rng, height, width):
    """Smooth colours with noise, so that the answer varies over the image."""
    coarse = rng.integers(0, 256, (height // 16 + 2, width // 16 + 2, 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    noise = rng.integers(0, 40, (height, width, 3))
    return np.clip(np.asarray(smooth) + noise, 0, 255).astype(np.uint8)


def exif(orientation):
    found = Image.Exif()
    found[0x0112] = orientation
    return found


TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""What a camera held that way makes of an upright scene."""


def write_mixed(folder, count):
    """Images of all kinds in three folders, and what is none. Returns the sizes (height, width) of
    the good ones, upright, and the names of the bad ones."""
    rng = np.random.default_rng(SEED)
    sizes = {}

    def palette(image):
        return image.quantize(16), {"transparency": 3}

    kinds = [
        (".png", lambda image: (image, {})),
        (".png", lambda image: (image.convert("L"), {})),
        (".png", lambda image: (image.convert("LA"), {})),
        (".png", lambda image: (image.convert("RGBA"), {})),
        (".png", palette),
        (".png", lambda image: (Image.fromarray(np.uint16(257) * np.array(image)[..., 0]), {})),
        (".png", lambda image: (image.convert("1"), {})),
        (".jpg", lambda image: (image, {"quality": 90})),
        (".jpeg", lambda image: (image.convert("CMYK"), {})),
        (".JPG", lambda image: (image.convert("L"), {})),
        (".webp", lambda image: (image.convert("RGBA"), {"lossless": True})),
        (".tiff", lambda image: (image, {})),
        (".tif", lambda image: (image.convert("CMYK"), {})),
        (".bmp", lambda image: (image, {})),
        (".gif", lambda image: (image.quantize(32), {})),
        (".ppm", lambda image: (image, {})),
        *[(".jpg", lambda image, o=o: (image, {"exif": exif(o)})) for o in range(1, 9)],
    ]
    for i in range(count):
        suffix, convert = kinds[i % len(kinds)]
        height, width = rng.integers(8, 300 if i % 20 == 0 else 120, 2).tolist()
        image, options = convert(Image.fromarray(photograph(rng, height, width)))
        path = folder / ("top", "a/b", "c")[i % 3] / f"{i}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, **options)
        turned = "exif" in options and i % len(kinds) - (len(kinds) - 8) >= 4
        sizes[str(path)] = (width, height) if turned else (height, width)
    whole = (folder / "top" / "0.png").read_bytes()
    (folder / "c" / "truncated.png").write_bytes(whole[: len(whole) // 2])
    (folder / "a" / "empty.png").write_bytes(b"")
    (folder / "a" / "text.jpg").write_text("no image\n")
    (folder / "a" / "notes.txt").write_text("nor this\n")
    return sizes, {str(folder / name) for name in ("c/truncated.png", "a/empty.png", "a/text.jpg")}


def rows_of(out):
    return [json.loads(line) for line in (out / files.ROWS).read_text().splitlines()]


def png(path):
    with Image.open(path) as image:
        return np.array(image)


def whole_image(workdir, image):
    """Scores of every pixel by the network as it is, [H, W, classes]."""
    found = trained.load(str(workdir))
    task: Any = found.task
    _, features = outputs_of(found)(found.variables, image[None])
    return np.asarray(task.pixel_scores(features, *image.shape[:2]))[0]


def outputs_of(found):
    """The network on whole images, quick to compile."""

    def outputs(variables, images):
        return found.model.apply(variables, found.preprocess(images))

    return jax.jit(outputs, compiler_options={"xla_backend_optimization_level": 0})


def test_a_mixed_folder_comes_out_whole_but_for_what_is_no_image(segmenting, tmp_path, predict):
    sizes, bad = write_mixed(tmp_path / "photos", 197)
    out = tmp_path / "out"
    printed = predict("--workdir", segmenting, "--out", out, tmp_path / "photos")
    assert printed.status == 1
    assert printed.err == ""
    rows = rows_of(out)
    assert {row["file"] for row in rows if "error" in row} == bad
    for path in bad:
        assert f"failed: {path}: " in printed.out
    assert "passed over: 1 file not named like images" in printed.out
    assert "197 images, 3 failures, " in printed.out
    good = {row["file"]: row for row in rows if "error" not in row}
    assert good.keys() == sizes.keys()
    for path, row in good.items():
        assert (row["height"], row["width"]) == sizes[path]
        mask, overlay = (png(out / row["outputs"][kind]) for kind in ("mask", "overlay"))
        assert mask.dtype == np.uint8
        assert mask.shape == overlay.shape[:2] == sizes[path]
        counts = np.bincount(mask.ravel(), minlength=3)
        assert {of["id"]: of["pixels"] for of in row["pixels"]} == {
            i: n for i, n in enumerate(counts.tolist()) if n
        }
        assert all(of["class"] == STREETS[of["id"]] for of in row["pixels"])
    assert len({c for row in good.values() for c in row["outputs"].values()}) == 2 * 197
    # Two windows hold all these images, and there is one scale.
    figures = printed.out.strip().splitlines()[-1]
    assert int(figures.split(" program")[0].split()[-1]) <= len(sizes_of_windows(segmenting)) + 1
    names = sorted(sizes)
    for path in (names[0], names[50]):
        image = decode_rgb(Path(path).read_bytes(), path)
        scores = whole_image(segmenting, image)
        sure = np.diff(np.sort(scores, -1)[..., -2:])[..., 0] > 1e-4
        assert sure.mean() > 0.9
        mask = png(out / good[path]["outputs"]["mask"])
        np.testing.assert_array_equal(mask[sure], scores.argmax(-1)[sure])


def sizes_of_windows(workdir):
    found = trained.load(str(workdir))
    model: Any = found.model
    return ClassMaps(model, found.preprocess, found.variables).sides


def test_an_image_that_its_camera_turned_is_predicted_upright(segmenting, tmp_path, predict):
    upright = Image.fromarray(photograph(np.random.default_rng(SEED), 40, 67))
    (tmp_path / "photos").mkdir()
    upright.save(tmp_path / "photos/1.webp", lossless=True)
    for orientation, turn in TURNS.items():
        stored = upright.transpose(turn)
        path = tmp_path / f"photos/{orientation}{'.tif' if orientation % 2 else '.webp'}"
        stored.save(path, exif=exif(orientation), lossless=True)  # A TIFF always is.
    out = tmp_path / "out"
    assert predict("--workdir", segmenting, "--out", out, tmp_path / "photos").status == 0
    expected = png(out / "1.png")
    assert expected.shape == (40, 67)
    assert len(np.unique(expected)) > 1
    for orientation in TURNS:
        np.testing.assert_array_equal(png(out / f"{orientation}.png"), expected)


def test_probability_and_mask_are_those_of_scales_and_flip(segmenting, tmp_path, predict):
    image = photograph(np.random.default_rng(SEED), 64, 96)
    Image.fromarray(image).save(tmp_path / "a.png")
    flags = ("--flip", "--combine", "probabilities", "--outputs", "probability, mask")
    out = tmp_path / "out"
    printed = predict("--workdir", segmenting, "--out", out, *flags, tmp_path / "a.png")
    assert printed.status == 0
    assert {path.name for path in out.iterdir()} == {"a.png", "a_probability.png", files.ROWS}
    ways = (whole_image(segmenting, image), whole_image(segmenting, image[:, ::-1])[:, ::-1])
    p = np.mean([np.asarray(jax.nn.softmax(scores)) for scores in ways], 0)
    sure = np.diff(np.sort(p, -1)[..., -2:])[..., 0] > 1e-4
    np.testing.assert_array_equal(png(out / "a.png")[sure], p.argmax(-1)[sure])
    assert np.abs(png(out / "a_probability.png") - 255.0 * p.max(-1)).max() <= 0.51


def test_masks_hold_the_ids_of_the_data_set_where_asked():
    mask = np.random.default_rng(SEED).integers(0, 19, (20, 30), dtype=np.uint8)

    class Pixels:
        def answer(self, image):
            return mask, np.ones(mask.shape, np.float32)

    names = CITYSCAPES.names
    colors = np.zeros((19, 3), np.uint8)
    pixels: Any = Pixels()
    image = np.zeros((20, 30, 3), np.uint8)
    for ids, expected in (
        (None, mask),
        (segmentation.set_ids(names), [[LABEL_IDS[names[i]] for i in row] for row in mask]),
    ):
        answer = segmentation.Segmenter(pixels, names, colors, ("mask",), ids)(image)
        found = np.array(Image.open(io.BytesIO(answer.files["mask"]())))
        np.testing.assert_array_equal(found, expected)


LABEL_IDS = {label.trained: label.id for label in CITYSCAPES.labels if label.name == label.trained}


def test_a_classifier_gives_classes_maps_and_boxes(classifying, tmp_path, predict):
    rng = np.random.default_rng(SEED)
    (tmp_path / "photos").mkdir()
    images = {}
    for i, (height, width) in enumerate([(80, 130), (90, 70), (20, 30)]):
        images[f"{i}.png"] = photograph(rng, height, width)
        Image.fromarray(images[f"{i}.png"]).save(tmp_path / "photos" / f"{i}.png")
    Image.fromarray(np.zeros((2, 300, 3), np.uint8)).save(tmp_path / "photos/line.png")
    out = tmp_path / "out"
    flags = ("--top", 3, "--threshold", 0.2)
    printed = predict("--workdir", classifying, "--out", out, *flags, tmp_path / "photos")
    assert printed.status == 1
    *rows, last = rows_of(out)
    assert "times as long as wide" in last["error"]
    assert [row["file"].rpartition("/")[2] for row in rows] == list(images)
    ranked = list(csv.DictReader((out / files.RANKS).read_text().splitlines()))
    assert len(ranked) == 3 * len(images)
    found = trained.load(str(classifying))
    network = outputs_of(found)
    for row in rows:
        name = row["file"].rpartition("/")[2]
        image = images[name]
        height, width = image.shape[:2]
        p, cells, resized = seen(network, found, image)
        best = np.argsort(-p)[:3].tolist()
        assert [of["id"] for of in row["top"]] == best
        assert [of["class"] for of in row["top"]] == [ANIMALS[i] for i in best]
        np.testing.assert_allclose([of["probability"] for of in row["top"]], p[best], atol=1e-5)
        lines = [line for line in ranked if line["file"] == row["file"]]
        assert [(line["rank"], line["class"]) for line in lines] == [
            (str(rank), ANIMALS[i]) for rank, i in enumerate(best, 1)
        ]
        np.testing.assert_allclose(row["box"], box_of(cells, best[0], 0.2, resized, image.shape))
        for kind in ("map", "boxes"):
            assert png(out / row["outputs"][kind]).shape[:2] == (height, width)
        drawn = (png_rgb(out / row["outputs"]["boxes"]) != image).any(-1)
        x1, y1, x2, y2 = np.rint(row["box"]).astype(int)
        inside = np.zeros((height, width), bool)
        inside[y1:y2, x1:x2] = True
        assert drawn.any()
        assert not drawn[~inside].any()


def seen(network, found, image):
    """What a classifier says, in plain steps: probabilities of the centre crop, of every cell of
    the whole resized image, and that image's (height, width)."""
    height, width = image.shape[:2]
    side = 56 / min(height, width)
    tall, wide = (56, int(side * width)) if height <= width else (int(side * height), 56)
    resized = Image.fromarray(image).resize((wide, tall), Image.Resampling.BILINEAR)
    left, top = round((wide - 48) / 2), round((tall - 48) / 2)
    crop = resized.crop((left, top, left + 48, top + 48))

    logits, _ = network(found.variables, np.array(crop)[None])
    _, features = network(found.variables, np.array(resized)[None])
    p, cells = jax.nn.softmax(logits)[0], jax.nn.softmax(features["logits_2d"])[0]
    return np.asarray(p), np.asarray(cells), (tall, wide)


def box_of(cells, label, threshold, resized, shape):
    """The smallest box around the cells that are the label's, cell by cell; pixels of the image."""
    places = [
        (x, y)
        for y in range(cells.shape[0])
        for x in range(cells.shape[1])
        if cells[y, x, label] == cells[y, x].max() and cells[y, x, label] > threshold
    ]
    if not places:
        return [0, 0, shape[1], shape[0]]
    (x1, y1), (x2, y2) = np.min(places, 0), np.max(places, 0) + 1
    down, across = shape[0] / resized[0], shape[1] / resized[1]
    edges = [8 * x1, 8 * y1, min(8 * x2, resized[1]), min(8 * y2, resized[0])]
    return np.multiply(edges, [across, down, across, down])


def png_rgb(path):
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


class Counting:
    """An answerer that sends its process signals once it has answered so many."""

    compiled = 0

    def __init__(self, before, signals=1):
        self.left, self.signals = before, signals

    def __call__(self, image):
        self.left -= 1
        if self.left == 0:
            for _ in range(self.signals):
                signal.raise_signal(signal.SIGINT)
        return pipeline.Answer({"pixels": []}, {"mask": lambda: b"x" * 100_000})


def test_ctrl_c_leaves_whole_files_and_lines(segmenting, tmp_path, predict, monkeypatch):
    (tmp_path / "photos").mkdir()
    for i in range(30):
        Image.new("RGB", (i + 8, 8)).save(tmp_path / f"photos/{i:02}.png")
    monkeypatch.setattr("drn_jax.predict.program.answerer", lambda *_: Counting(12))
    command = ("--workdir", segmenting, "--outputs", "mask", tmp_path / "photos", "--out")
    printed = predict(*command, tmp_path / "once")
    assert (printed.status, printed.err) == (130, "")
    assert "stopped before the last 18 of 30 images" in printed.out
    rows = rows_of(tmp_path / "once")
    assert [row["file"] for row in rows] == [f"{tmp_path}/photos/{i:02}.png" for i in range(12)]
    written = {path.name for path in (tmp_path / "once").iterdir()}
    assert written == {files.ROWS} | {f"{i:02}.png" for i in range(12)}
    monkeypatch.setattr("drn_jax.predict.program.answerer", lambda *_: Counting(12, signals=2))
    printed = predict(*command, tmp_path / "twice")
    assert (printed.status, printed.err) == (130, "")
    assert printed.out == "stopped\n"
    for path in (tmp_path / "twice").glob("*.png"):
        assert path.read_bytes() == b"x" * 100_000
    assert all("pixels" in row for row in rows_of(tmp_path / "twice"))


def test_images_are_read_ahead_but_not_without_bound(tmp_path, monkeypatch):
    """Reading stays at most so many images before answering, writing at most so many behind."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    begun = []
    decode = pipeline.decode_rgb
    monkeypatch.setattr(pipeline, "decode_rgb", lambda *args: (begun.append(1), decode(*args))[1])
    answered = []

    class Watching(Counting):
        def __call__(self, image):
            answered.append(len(begun))
            return super().__call__(image)

    jobs = [files.Job(str(tmp_path / "a.png"), {"mask": f"{i}.png"}) for i in range(40)]
    finished = 0
    for _ in pipeline.rows(jobs, Watching(0), str(tmp_path / "out"), lambda: False):
        finished += 1
        assert len(answered) - finished < pipeline.AHEAD
    assert finished == 40
    assert all(read - index <= pipeline.AHEAD for index, read in enumerate(answered))


def test_what_cannot_be_written_ends_the_run(segmenting, tmp_path, predict, monkeypatch):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    monkeypatch.setattr("drn_jax.predict.program.answerer", lambda *_: Counting(0))
    (tmp_path / "out/a.png").mkdir(parents=True)
    (tmp_path / "out" / files.ROWS).touch()
    command = ("--workdir", segmenting, "--outputs", "mask", "--out", tmp_path / "out")
    printed = predict(*command, tmp_path / "a.png")
    assert printed.status == 1
    assert printed.err.startswith(f"error: {tmp_path}/out/a.png: cannot be written (")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--workdir=nowhere"], "no checkpoints in nowhere: is it the working directory"),
        (["--checkpoint=7"], "no checkpoint '7'"),
        (["--outputs=mask,boxes"], "no 'boxes' of segmentation: known: mask, overlay, probability"),
        (["--outputs=overlai"], "did you mean overlay?"),
        (["--scales=1,0"], "must be numbers above 0"),
        (["--scales=1;2"], "must be numbers above 0"),
        (["--memory=0.0001"], "0.0001 GB are not enough for a window of this network"),
        (["--top=3"], "--top is for classification, but"),
        (["--ids=set"], "--ids=set is known for the classes of Cityscapes"),
        (["--out=gs://bucket/out"], "results are written to a disk"),
        (["missing.png"], "missing.png: no such file or folder"),
        (["*.bmp"], "*.bmp: matches nothing"),
        (["--out=."], "--out=.: the image a.png would be replaced"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    segmenting, tmp_path, predict, monkeypatch, flags, says
):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("a.png")
    printed = predict("--workdir", segmenting, "--out=out", "a.png", *flags)
    assert (printed.status, printed.out) == (1, "")
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert says in printed.err
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--flip"], "--flip is for segmentation, but"),
        (["--top=0"], "--top=0: must be at least 1"),
        (["--threshold=1.5"], "--threshold=1.5: is a probability"),
    ],
)
def test_a_mistake_with_a_classifier_is_one_line(classifying, tmp_path, predict, flags, says):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    command = ("--workdir", classifying, "--out", tmp_path / "out", tmp_path / "a.png")
    printed = predict(*command, *flags)
    assert (printed.status, printed.err.count("\n")) == (1, 1)
    assert says in printed.err
    assert not (tmp_path / "out").exists()


def test_an_explicit_file_that_is_no_image_fails_and_the_others_go_on(
    classifying, tmp_path, predict
):
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("no image\n")
    command = ("--workdir", classifying, "--outputs", "classes", "--out", tmp_path / "out")
    printed = predict(*command, tmp_path / "notes.txt", tmp_path / "a.png")
    assert printed.status == 1
    assert f"failed: {tmp_path}/notes.txt: not an image" in printed.out
    first, second = rows_of(tmp_path / "out")
    assert "error" in first
    assert len(second["top"]) == 5
    assert "box" not in second
    assert {path.name for path in (tmp_path / "out").iterdir()} == {files.ROWS, files.RANKS}


# Which images, under which names


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names_of(found):
    return [image.name for image in found]


def test_of_one_folder_the_tree_is_kept_and_of_several_each_name(tmp_path):
    touch(tmp_path, "one/a.png", "one/x/b.JPG", "one/.hidden.png", "one/notes.txt", "two/a.png")
    out = str(tmp_path / "out")
    found, others = files.find([str(tmp_path / "one")], out)
    assert (names_of(found), others) == (["a.png", "x/b.JPG"], 1)
    assert found[1].path == str(tmp_path / "one/x/b.JPG")
    found, _ = files.find([str(tmp_path / "one"), str(tmp_path / "two")], out)
    assert names_of(found) == ["one/a.png", "one/x/b.JPG", "two/a.png"]


def test_a_pattern_keeps_the_tree_below_its_fixed_part(tmp_path):
    touch(tmp_path, "p/x/1.png", "p/x/2.png", "p/y/z/1.png", "p/y/notes.txt", "p/0.png")
    out = str(tmp_path / "out")
    found, others = files.find([str(tmp_path / "p/*/1.png")], out)
    assert (names_of(found), others) == (["x/1.png"], 0)
    found, others = files.find([str(tmp_path / "p/**")], out)
    assert (names_of(found), others) == (["0.png", "x/1.png", "x/2.png", "y/z/1.png"], 1)
    found, others = files.find([str(tmp_path / "p/[xy]")], out)
    assert (names_of(found), others) == (["x/1.png", "x/2.png", "y/z/1.png"], 1)


def test_a_file_with_the_letters_of_a_pattern_is_that_file(tmp_path):
    touch(tmp_path, "a[1].png", "a1.png")
    found, _ = files.find([str(tmp_path / "a[1].png")], str(tmp_path / "out"))
    assert names_of(found) == ["a[1].png"]


def test_an_image_named_twice_is_predicted_once(tmp_path):
    touch(tmp_path, "p/a.png", "p/b.png")
    found, _ = files.find(
        [str(tmp_path / "p"), str(tmp_path / "p/a.png"), f"{tmp_path}/p/../p/b.png"],
        str(tmp_path / "out"),
    )
    assert names_of(found) == ["p/a.png", "p/b.png"]


def test_results_within_an_input_folder_are_not_taken_for_images(tmp_path):
    touch(tmp_path, "p/a.png", "p/out/a.png", "p/outer/a.png")
    found, _ = files.find([str(tmp_path / "p")], str(tmp_path / "p/out"))
    assert names_of(found) == ["a.png", "outer/a.png"]
    with pytest.raises(UserError, match="name a folder of its own"):
        files.find([str(tmp_path / "p")], f"{tmp_path}/p/.")


def test_folders_without_images_are_an_error_that_counts_the_others(tmp_path):
    touch(tmp_path, "p/notes.txt", "p/x/more.txt")
    with pytest.raises(UserError, match="of 2 files there, none ends like one"):
        files.find([str(tmp_path / "p")], str(tmp_path / "out"))


ENDINGS = {"mask": ".png", "overlay": "_overlay.png"}


@pytest.mark.parametrize(
    ("names", "masks"),
    [
        (["a.jpg", "x/a.png", "b.tar.png"], ["a.png", "x/a.png", "b.tar.png"]),
        (["a.jpg", "a.png", "b.png"], ["a.jpg.png", "a.png.png", "b.png"]),
        (["a.png", "a_overlay.jpg"], ["a.png.png", "a_overlay.jpg.png"]),
        # The longer name of the first two is the shorter one of the third.
        (["a.jpg", "a.png", "a.jpg.bmp"], ["a.jpg.png", "a.png.png", "a.jpg.bmp.png"]),
    ],
)
def test_images_that_would_share_a_file_keep_their_suffix(tmp_path, names, masks):
    found = [files.Found(f"{tmp_path}/p/{name}", name) for name in names]
    jobs = files.plan(found, ENDINGS, str(tmp_path / "out"))
    assert [job.outputs["mask"] for job in jobs] == masks
    every = [name for job in jobs for name in job.outputs.values()]
    assert len(set(every)) == 2 * len(names)


def test_images_of_one_name_from_two_folders_are_refused(tmp_path):
    found = [files.Found(f"{tmp_path}/{folder}/a.png", "a.png") for folder in "pq"]
    with pytest.raises(UserError, match=r"p/a\.png and .*q/a\.png would both become .*a\.png"):
        files.plan(found, ENDINGS, str(tmp_path / "out"))


def test_files_that_are_no_results_are_not_replaced_and_results_are(tmp_path):
    found = [files.Found(f"{tmp_path}/a.jpg", "a.jpg")]
    out = tmp_path / "mine"
    touch(out, "a_overlay.png")
    with pytest.raises(UserError, match=r"a_overlay\.png would be replaced, but"):
        files.plan(found, ENDINGS, str(out))
    touch(out, files.ROWS)
    assert len(files.plan(found, ENDINGS, str(out))) == 1


def test_no_image_is_replaced_through_a_link(tmp_path):
    touch(tmp_path, "p/a.png")
    (tmp_path / "out").symlink_to(tmp_path / "p")
    found, _ = files.find([str(tmp_path / "p/a.png")], str(tmp_path / "out"))
    with pytest.raises(UserError, match=r"the image .*p/a\.png would be replaced"):
        files.plan(found, ENDINGS, str(tmp_path / "out"))


def test_images_are_found_and_read_in_a_bucket(bucket, tmp_path):
    (bucket / "photos/x").mkdir(parents=True)
    Image.new("RGB", (9, 8)).save(bucket / "photos/x/a.png")
    found, _ = files.find(["gs://fake/photos"], "out")
    assert names_of(found) == ["x/a.png"]
    jobs = [files.Job(found[0].path, {"mask": "x/a.png"})]
    (row,) = pipeline.rows(jobs, Counting(0), str(tmp_path / "out"), lambda: False)
    assert row == {"file": "gs://fake/photos/x/a.png", "outputs": {"mask": "x/a.png"}, "pixels": []}


def test_what_remains_of_an_earlier_run_is_counted(segmenting, tmp_path, predict):
    rng = np.random.default_rng(5)
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        Image.fromarray(photograph(rng, 20, 24)).save(tmp_path / "in" / f"{name}.png")
    common = (f"--workdir={segmenting}", f"--out={tmp_path / 'out'}")
    first = predict(*common, tmp_path / "in")
    assert (first.status, "earlier run" in first.out) == (0, False)
    again = predict(*common, "--outputs=mask", tmp_path / "in" / "a.png")
    assert again.status == 0
    # The overlay of a.png, and what came of b.png.
    assert "of an earlier run 3 files remain in" in again.out


def test_a_scale_beyond_all_reason_is_refused_before_it_takes_all_memory(
    segmenting, tmp_path, predict
):
    image = photograph(np.random.default_rng(6), 64, 64)
    Image.fromarray(image).save(tmp_path / "a.png")
    out = tmp_path / "out"
    found = predict(f"--workdir={segmenting}", f"--out={out}", "--scales=1000", tmp_path / "a.png")
    assert found.status == 1
    assert "scale 1000 makes 64000x64000 pixels of an image of 64x64" in found.out
